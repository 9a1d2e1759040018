# SPDX-License-Identifier: MIT
"""Module: what every layer, container and loss is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad import _predict
from tilegrad._makers import asarray, empty
from tilegrad.array import Array as DeviceArray
from tilegrad.nn.parameter import Edits, GradReadyHook, Parameter, check_like, move

if TYPE_CHECKING:
    from typing_extensions import Self  # read by type checkers alone: they bring its types

    from tilegrad._recorder import Recorder

Array: TypeAlias = NDArray[Any]
RecordedBackward: TypeAlias = Callable[[Array, bool], "Array | None"]


class Module:
    """Base of layers, containers and losses.

    A subclass defines ``forward(input)`` and ``backward(grad_output, input_grad=True)``; assigning
    a Parameter or a Module to an attribute registers it. Modules are called, never ``forward``
    directly, so that using one module twice in one forward pass is noticed: it could keep the
    operands of one use only, and is refused in training mode.

    A training-mode forward keeps what the backward pass needs; the input is kept by reference, so
    it must not be changed in between. A second backward, or one after an eval-mode forward, is a
    RuntimeError.
    """

    training: bool

    def __init__(self) -> None:
        self.__dict__["_parameters"] = {}
        self.__dict__["_modules"] = {}
        self.__dict__["_saved"] = None
        self.__dict__["_inference"] = None
        self.__dict__["training"] = True

    # ---- to be defined by a subclass --------------------------------------------------------

    def forward(self, *args: Any) -> Any:
        """Compute the module's output."""
        raise TypeError(f"{type(self).__name__}: the class does not define forward")

    def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
        """Add to every ``.grad``; return the gradient of the input, or None if not asked.

        Args:
            grad_output: dL/d(output), of the output's shape and dtype.
            input_grad: False saves the work where nobody needs the input's gradient.
        """
        raise TypeError(f"{type(self).__name__}: the class does not define backward")

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        """Record the forward pass; return its output buffer and what records its backward."""
        raise TypeError(
            f"TrainStep: {type(self).__name__} has no plan; it works in the long form "
            "(forward, loss, backward, step)"
        )

    # ---- calling and saved state ------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """Run ``forward``."""
        visited = _forward_pass.visited
        if visited is None:
            _forward_pass.visited = {id(self)}
            try:
                return self.forward(*args)
            finally:
                _forward_pass.visited = None
        if self.training and id(self) in visited:
            raise RuntimeError(
                f"{type(self).__name__}: used twice in one forward pass; make a second module (a "
                "module keeps the operands of one use for its backward pass)"
            )
        visited.add(id(self))
        return self.forward(*args)

    def _save(self, *values: Any) -> None:
        """Keep operands for backward in training mode; forget older ones in eval mode."""
        self.__dict__["_saved"] = values if self.training else None

    def _take_saved(self) -> tuple[Any, ...]:
        saved: tuple[Any, ...] | None = self.__dict__["_saved"]
        if saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no training-mode forward to go back "
                "through (a second backward, or the last forward ran in eval mode)"
            )
        self.__dict__["_saved"] = None
        return saved

    # ---- registration -----------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: call super().__init__() first")
        if name in self._parameters and not isinstance(value, Parameter) and value is not None:
            raise TypeError(
                f"{type(self).__name__}: {name} is a Parameter; assign the array to its .data "
                f"(got {type(value).__name__})"
            )
        kinds: tuple[tuple[type, dict[str, Any]], ...] = (
            (Parameter, self._parameters),
            (Module, self._modules),
        )
        for kind, registered in kinds:
            if isinstance(value, kind):
                registered[name] = value  # what is replaced keeps its place
            else:
                registered.pop(name, None)
        self.__dict__[name] = value
        Edits.count += 1

    def __delattr__(self, name: str) -> None:
        self._parameters.pop(name, None)
        self._modules.pop(name, None)
        object.__delattr__(self, name)
        Edits.count += 1

    if TYPE_CHECKING:
        _parameters: dict[str, Parameter]
        _modules: dict[str, Module]

    def children(self) -> Iterator[Module]:
        """Yield the modules directly inside this one."""
        yield from self._modules.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all inside it, each once."""
        seen: set[int] = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            stack += [
                (f"{name}.{child}" if name else child, inner)
                for child, inner in reversed(module._modules.items())
            ]

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter) in order of registration, each parameter once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{prefix}.{name}" if prefix else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    # ---- modes, gradients, device -----------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set training mode for this module and all inside it; return self."""
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode: no operands are kept, dropout is the identity; return self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set every ``.grad`` to None; the buffers are kept."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or thaw every parameter; return self."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def register_grad_ready_hook(self, hook: GradReadyHook) -> Callable[[], None]:
        """Call ``hook(parameter)`` during backward as soon as that gradient is complete.

        Data-parallel training overlaps communication with the rest of the backward pass by it.

        Args:
            hook: Called once for each parameter in each backward pass of the long form. For one
                that several modules share: once for each of them, and complete at the last.

        Returns:
            A function that removes the hook.
        """
        parameters = list(self.parameters())
        for parameter in parameters:
            parameter.grad_ready = hook

        def remove() -> None:
            for parameter in parameters:
                parameter.grad_ready = None

        return remove

    def to(self, device: str) -> Self:
        """Move every parameter to a device, in place; return self.

        Each Parameter stays the object that it is; an optimiser's buffers follow at its next step,
        a loss's class weights at its next call. If there is no room for all, none is moved.

        Args:
            device: "cpu", "sim", "cuda" or "cuda:N".

        Raises:
            TypeError: device is no string.
            RuntimeError: The device cannot be used; the text says why.
        """
        if move(self.parameters(), device):
            for module in self.modules():
                module.__dict__["_saved"] = None  # operands on the device that was left
        return self

    # ---- state ------------------------------------------------------------------------------

    @staticmethod
    def from_torch(module: Any) -> Module:
        """Return a tilegrad model with the structure and weights of a torch.nn model.

        See ``tilegrad.torch.from_torch``; ``tilegrad.torch.to_torch`` goes the other way.

        Args:
            module: A torch.nn.Module of layers that tilegrad has.

        Raises:
            TypeError: A module that tilegrad does not have, with its name.
            ImportError: PyTorch is not installed.
        """
        from tilegrad.torch import from_torch

        return from_torch(module)

    def state_dict(self) -> dict[str, Array]:
        """Return {dotted name: array}; the arrays are the parameters' own memory, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy arrays into the parameters; nothing is changed if any of them does not fit.

        Args:
            state: {dotted name: array}, as ``state_dict`` gives it.
            strict: Refuse missing and unexpected names; else skip them.

        Raises:
            ValueError: Names or shapes do not match.
            TypeError: A dtype does not match.
        """
        own = dict(self.named_parameters())
        missing = sorted(own.keys() - state.keys())
        unexpected = sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):
            raise ValueError(
                f"load_state_dict: names differ; missing {missing}, unexpected {unexpected}"
            )
        pairs = [(own[name], state[name], name) for name in own if name in state]
        for parameter, value, name in pairs:
            check_like(parameter.data, value, f"load_state_dict: {name}")
        for parameter, value, _ in pairs:
            parameter.data = value

    def predict(self, x: Array, batch_size: int | None = None) -> Array:
        """Run the forward pass in eval mode, in batches; the mode is restored afterwards.

        On the CPU the first call with a batch of some shape and dtype records the forward pass, and
        later ones replay it as one native call over buffers that the model keeps (those of up to 8
        shapes of at most 64 MiB each). Parameters are read where they are at every call and never
        kept in another form, so every change of a weight counts, in place or not; a changed layer
        or option is noticed and recorded anew. Modules without a plan, larger batches and other
        devices run module by module, with the same result.

        Args:
            x: Inputs, samples along the first axis.
            batch_size: Samples at a time; None runs them all at once.

        Returns:
            The outputs of all samples: a NumPy array if x is one, whatever device the model is on.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"predict: batch_size must be at least 1; got {batch_size}")
        planned = _predict.run(self, x, batch_size)
        if planned is not None:
            return planned
        device = next((p.device for p in self.parameters()), "cpu")
        there_and_back = device != "cpu" and isinstance(x, np.ndarray)

        def run(part: Any) -> Any:
            return self(asarray(part, device=device)).numpy() if there_and_back else self(part)

        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            if batch_size is None or len(x) <= batch_size:
                result: Array = run(x)
                return result
            pieces = [run(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
            return _concatenate(pieces)
        finally:
            for module, mode in modes:
                module.__dict__["training"] = mode

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()
        ]
        inside = "\n  " + "\n  ".join(lines) + "\n" if lines else self.extra_repr()
        return f"{type(self).__name__}({inside})"


class _ForwardPass(threading.local):
    visited: set[int] | None = None


_forward_pass = _ForwardPass()


def _concatenate(pieces: list[Any]) -> Array:
    """Join arrays of one device along the first axis."""
    first = pieces[0]
    if not isinstance(first, DeviceArray):
        return np.concatenate(pieces)
    rows = sum(len(piece) for piece in pieces)
    result: Any = empty((rows, *first.shape[1:]), first.dtype, device=first.device)
    at = 0
    for piece in pieces:
        result[at : at + len(piece)]._assign(piece)
        at += len(piece)
    return result  # type: ignore[no-any-return]
