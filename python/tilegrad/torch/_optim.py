# SPDX-License-Identifier: MIT
"""torch.optim's SGD, Adam, AdamW, RMSprop and Adagrad with tilegrad's update: one fused pass.

Construction, parameter groups, state and state dicts are torch's own; only `step` differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch

from tilegrad import _cpu, backends

from ._exchange import operands
from ._library import define

_Params = Iterable[Any]


def _define(name: str, buffers: int, options: str, counts: bool = True) -> Any:
    """Register the operator of an update; it changes parameters, buffers and counts in place.

    Each parameter has a count of its updates; SGD has none, and is told whether one is the first.
    """
    lists = ", ".join(f"Tensor({'bcd'[i]}!)[] buffers{i}" for i in range(buffers))
    count = "Tensor(e!)[] steps" if counts else "bool first"

    def update(params: list[torch.Tensor], grads: list[torch.Tensor], *rest: Any) -> None:
        state, steps, lr, given = rest[:buffers], *rest[buffers : buffers + 2], rest[buffers + 2 :]
        module = _cpu if params[0].is_cpu else backends.at(params[0].device.index)
        native = module.StepState()
        native.learning_rate = lr
        run = getattr(module, f"{name}_step")
        done = [int(step) for step in steps] if counts else [0 if steps else 1] * len(params)
        lists = [operands(some) if some else None for some in (params, grads, *state)]
        for now in sorted(set(done)):
            native.step = now + 1
            members = [i for i, before in enumerate(done) if before == now]
            some = [None if part is None else [part[i] for i in members] for part in lists]
            run(*some, *given[:-1], 0.0, given[-1], native)
        if counts:
            torch._foreach_add_(steps, 1)

    schema = (
        f"{name}_step_(Tensor(a!)[] params, Tensor[] grads, {lists}, {count}, float lr, {options},"
        " bool maximize) -> ()"
    )
    return define(schema, update, lambda *_: None)


_sgd = _define(
    "sgd", 1, "float momentum, float dampening, bool nesterov, float weight_decay", counts=False
)
_adam = _define(
    "adam", 3, "float beta1, float beta2, float eps, bool decoupled, float weight_decay"
)
_rmsprop = _define("rmsprop", 3, "float alpha, float eps, float momentum, float weight_decay")
_adagrad = _define("adagrad", 1, "float lr_decay, float eps, float weight_decay")


class _Fused(torch.optim.Optimizer):
    """What the classes share: `step`."""

    _buffer_names: ClassVar[tuple[str, ...]]

    def _used(self, group: dict[str, Any]) -> tuple[bool, ...]:
        """Return which of the buffers these options need."""
        return (True,) * len(self._buffer_names)

    def _update(self, group: dict[str, Any], *lists: Any, lr: float, steps: Any) -> None:
        """Call the operator."""
        raise TypeError(f"{type(self).__name__}: the class does not define _update")

    def _is_new(self, parameter: torch.Tensor) -> bool:
        """Return whether a parameter needs a call of its own kind, as its first one."""
        return False

    def _steps(self, members: list[torch.Tensor]) -> Any:
        """Return what the operator knows of earlier updates: their counts."""
        states = [self.state[parameter] for parameter in members]
        for state in states:
            if "step" not in state:
                wide = torch.get_default_dtype() is torch.float64  # as torch; 16 bits cannot count
                state["step"] = torch.tensor(0.0, dtype=torch.float64 if wide else torch.float32)
        return [state["step"] for state in states]

    def _prepare(self, parameter: torch.Tensor, used: tuple[bool, ...]) -> None:
        """Make the buffers that are not there yet, and dense what another layout has left."""
        for name, needed in zip(self._buffer_names, used, strict=True):
            if needed:
                state = self.state[parameter]
                buffer = state.get(name)
                state[name] = torch.zeros_like(parameter) if buffer is None else buffer.contiguous()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the loss again and returns it, as in torch.

        Returns:
            What closure returns, else None.

        Raises:
            TypeError: A parameter is neither float32 nor float64.
            ValueError: A parameter is not contiguous, or a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:  # all, before anything is changed
            for parameter in group["params"]:
                self._check(parameter)
        for group in self.param_groups:
            used = self._used(group)
            batches: dict[tuple[Any, ...], list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    key = (parameter.device, parameter.dtype, self._is_new(parameter))
                    batches.setdefault(key, []).append(parameter)
            for members in batches.values():
                steps = self._steps(members)
                for parameter in members:
                    self._prepare(parameter, used)
                buffers = [
                    [self.state[p][name] for p in members] if needed else []
                    for name, needed in zip(self._buffer_names, used, strict=True)
                ]
                grads = [p.grad.contiguous() for p in members]  # type: ignore[union-attr]
                self._update(group, members, grads, *buffers, lr=float(group["lr"]), steps=steps)
                torch.autograd.graph.increment_version(
                    [*members, *(b for some in buffers for b in some)]
                )
        return loss

    def _check(self, parameter: torch.Tensor) -> None:
        if parameter.grad is None:
            return
        name = type(self).__name__
        if parameter.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"{name}: parameters must be float32 or float64; got {parameter.dtype} (train in "
                "float32 under torch.autocast, or use torch.optim)"
            )
        if not parameter.is_contiguous():
            raise ValueError(
                f"{name}: parameters must be contiguous; got strides {parameter.stride()} of shape "
                f"{tuple(parameter.shape)}"
            )
        if parameter.grad.layout is not torch.strided:
            raise ValueError(f"{name}: takes no sparse gradients; use torch.optim")


class SGD(_Fused, torch.optim.SGD):
    """torch.optim.SGD, updated by tilegrad's kernel; see `tilegrad.optim.SGD`.

    Example:
        >>> p = torch.nn.Parameter(torch.tensor([1.0]))
        >>> p.grad = torch.tensor([2.0])
        >>> SGD([p], lr=0.25).step()
        >>> p.data
        tensor([0.5000])
    """

    _buffer_names = ("momentum_buffer",)

    def __init__(
        self,
        params: _Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)

    def _used(self, group: dict[str, Any]) -> tuple[bool, ...]:
        return (group["momentum"] != 0,)

    def _is_new(self, parameter: torch.Tensor) -> bool:
        # torch counts no steps here: the first one is that which finds no buffer.
        return self.state.get(parameter, {}).get("momentum_buffer") is None

    def _steps(self, members: list[torch.Tensor]) -> Any:
        return self._is_new(members[0])

    def _update(self, group: dict[str, Any], *lists: Any, lr: float, steps: Any) -> None:
        _sgd(
            *lists, steps, lr, group["momentum"], group["dampening"], group["nesterov"],
            float(group["weight_decay"]), group["maximize"],
        )  # fmt: skip


class Adam(_Fused, torch.optim.Adam):
    """torch.optim.Adam, updated by tilegrad's kernel; see `tilegrad.optim.Adam`."""

    _buffer_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: _Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def _used(self, group: dict[str, Any]) -> tuple[bool, ...]:
        return True, True, group["amsgrad"]

    def _update(self, group: dict[str, Any], *lists: Any, lr: float, steps: Any) -> None:
        _adam(
            *lists, steps, lr, *group["betas"], group["eps"], group["decoupled_weight_decay"],
            group["weight_decay"], group["maximize"],
        )  # fmt: skip


class AdamW(_Fused, torch.optim.AdamW):
    """torch.optim.AdamW, updated by tilegrad's kernel; see `tilegrad.optim.AdamW`."""

    _buffer_names = Adam._buffer_names

    def __init__(
        self,
        params: _Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    _used = Adam._used
    _update = Adam._update


class RMSprop(_Fused, torch.optim.RMSprop):
    """torch.optim.RMSprop, updated by tilegrad's kernel; see `tilegrad.optim.RMSprop`."""

    _buffer_names = ("square_avg", "momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: _Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, alpha, eps, weight_decay, momentum, centered, maximize=maximize
        )

    def _used(self, group: dict[str, Any]) -> tuple[bool, ...]:
        return True, group["momentum"] != 0, group["centered"]

    def _update(self, group: dict[str, Any], *lists: Any, lr: float, steps: Any) -> None:
        _rmsprop(
            *lists, steps, lr, group["alpha"], group["eps"], group["momentum"],
            group["weight_decay"], group["maximize"],
        )  # fmt: skip


class Adagrad(_Fused, torch.optim.Adagrad):
    """torch.optim.Adagrad, updated by tilegrad's kernel; see `tilegrad.optim.Adagrad`."""

    _buffer_names = ("sum",)

    def __init__(
        self,
        params: _Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize=maximize
        )

    def _update(self, group: dict[str, Any], *lists: Any, lr: float, steps: Any) -> None:
        _adagrad(
            *lists, steps, lr, group["lr_decay"], group["eps"], group["weight_decay"],
            group["maximize"],
        )  # fmt: skip
