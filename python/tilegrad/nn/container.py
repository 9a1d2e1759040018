# SPDX-License-Identifier: MIT
"""Containers and shape modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tilegrad.nn.module import Array, Module, RecordedBackward

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class Sequential(Module):
    """Run modules one after another; backward runs them in reverse.

    Args:
        modules: The modules, named "0", "1", ... as in torch.nn.Sequential.

    Example:
        >>> from tilegrad import nn
        >>> model = nn.Sequential(nn.Linear(4, 8, activation="relu"), nn.Linear(8, 3))
        >>> sum(p.size for p in model.parameters())
        67
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: takes Modules; argument {i} is {module!r}")
            setattr(self, str(i), module)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._modules.values())

    def __getitem__(self, index: int) -> Module:
        return list(self._modules.values())[index]

    def __setitem__(self, index: int, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"Sequential: takes Modules; item {index} is {module!r}")
        setattr(self, list(self._modules)[index], module)

    def forward(self, input: Array) -> Array:
        """Return the last module's output."""
        for module in self._modules.values():
            input = module(input)
        return input

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Add to every gradient; return that of the input.

        Without ``input_grad`` the layers before the first parameter that needs a gradient do no
        backward work.
        """
        gradient: Array | None = grad_output
        for module, needed in self._reversed_with_needs(input_grad):
            gradient = module.backward(gradient, input_grad=needed)
        return gradient if input_grad else None

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        recorded = []
        for module in self._modules.values():
            x, module_backward = module._record(recorder, x)
            recorded.append(module_backward)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            gradient: Array | None = dy
            needs = [needed for _, needed in self._reversed_with_needs(input_grad)]
            for module_backward, needed in zip(reversed(recorded), needs, strict=True):
                if gradient is not None:
                    gradient = module_backward(gradient, needed)
            return gradient if input_grad else None

        return x, backward

    def _reversed_with_needs(self, input_grad: bool) -> list[tuple[Module, bool]]:
        """Return (module, whether its input's gradient is needed), last module first."""
        modules = list(self._modules.values())
        needed = input_grad
        result = []
        for module in modules:
            result.append((module, needed))
            needed = needed or any(p.requires_grad for p in module.parameters())
        return result[::-1]


class Flatten(Module):
    """Join a range of axes into one; a view where the memory allows it.

    Args:
        start_dim: The first axis to join; 1 keeps the samples' axis.
        end_dim: The last axis to join.

    Source: torch.nn.Flatten.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def _flat(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        rank = len(shape)
        if not (-rank <= self.start_dim < rank and -rank <= self.end_dim < rank):
            raise ValueError(
                f"Flatten: axes {self.start_dim} to {self.end_dim} do not exist in shape {shape}"
            )
        start, end = self.start_dim % rank, self.end_dim % rank
        if start > end:
            raise ValueError(f"Flatten: start_dim {start} lies behind end_dim {end}")
        joined = int(np.prod(shape[start : end + 1], dtype=np.int64))
        return (*shape[:start], joined, *shape[end + 1 :])

    def forward(self, input: Array) -> Array:
        """Return the input with the axes joined."""
        self._check_array("input", input)
        self._save(input.shape)
        return input.reshape(self._flat(input.shape))

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Return the gradient in the input's shape."""
        if input_grad:
            self._check_array("grad_output", grad_output)
        (shape,) = self._take_saved()
        return grad_output.reshape(shape) if input_grad else None

    def _check_array(self, name: str, value: Any) -> None:
        if not (hasattr(value, "shape") and hasattr(value, "reshape")):
            raise TypeError(f"Flatten: {name} must be an array; got {type(value).__name__}")

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        return (
            x.reshape(self._flat(x.shape)),
            lambda dy, input_grad: dy.reshape(x.shape) if input_grad else None,
        )

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
