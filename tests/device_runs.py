# SPDX-License-Identifier: MIT
"""Training runs on a device: in plans, in new plans each time, and in the long form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, host
from tilegrad import nn
from tilegrad.nn.utils import clip_grad_norm_

FEATURES, CLASSES, STEPS = 5, 3, 6
Batches = list[tuple[Array, Array]]
Between = Callable[[int, nn.Module, Any], None]


def network(dtype: Any = "f4", activation: str = "gelu") -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES, 9, activation=activation, dtype=dtype),
        nn.Dropout(0.3),
        nn.Linear(9, CLASSES, dtype=dtype),
    )


NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    "gelu": network,
    "relu": lambda dtype: network(dtype, "relu"),
    "modules": lambda dtype: nn.Sequential(
        nn.Flatten(), nn.Linear(FEATURES, 4, dtype=dtype), nn.Tanh(), nn.Identity(),
        nn.Linear(4, CLASSES, bias=False, dtype=dtype), nn.LogSoftmax(1),
    ),
}  # fmt: skip
OPTIMISERS: dict[str, Callable[[nn.Module], Any]] = {
    "sgd": lambda m: tg.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True),
    "plain": lambda m: tg.optim.SGD(m.parameters(), 0.1),
    "adam": lambda m: tg.optim.Adam(m.parameters(), 0.05, amsgrad=True),
    "rmsprop": lambda m: tg.optim.RMSprop(
        m.parameters(), 0.01, 0.9, 1e-2, momentum=0.5, centered=True, l1_decay=0.01
    ),
    "adagrad": lambda m: tg.optim.Adagrad(m.parameters(), 0.05, 0.1, 0.01, 0.1),
    "adamw": lambda m: tg.optim.AdamW(
        [{"params": [p]} for p in m.parameters()], 0.05, weight_decay=0.1
    ),
}


def batches(dtype: Any = "f4", sizes: tuple[int, ...] = (6,), steps: int = STEPS) -> Batches:
    rng = np.random.default_rng(2)
    count = [sizes[i % len(sizes)] for i in range(steps)]
    return [
        (rng.standard_normal((n, FEATURES)).astype(dtype), rng.integers(0, CLASSES, n))
        for n in count
    ]


class Fresh:
    """A TrainStep that is recorded anew for every update, so that no graph is ever replayed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._args, self._options = args, options
        self._step: Any = None

    def __call__(self, x: Any, t: Any) -> Any:
        if self._step is None or self._step._accumulated == 0:
            self._step = tg.TrainStep(*self._args, **self._options)
        return self._step(x, t)


class LongForm:
    """The documented long form on the model's device."""

    def __init__(
        self, model: Any, loss_fn: Any, optimizer: Any, *, max_norm: float | None = None,
        accumulate: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.max_norm, self.accumulate, self.done = max_norm, accumulate, 0

    def __call__(self, x: Any, t: Any) -> Any:
        place = next(self.model.parameters()).device
        x, t = tg.asarray(x, device=place), tg.asarray(t, device=place)
        if self.done == 0:
            self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(x), t)
        self.model.backward(self.loss_fn.backward(), input_grad=False)
        self.done += 1
        if self.done == self.accumulate:
            if self.max_norm is not None:
                clip_grad_norm_(self.model.parameters(), self.max_norm)
            self.optimizer.step()
            self.done = 0
        return loss


class Result:
    """Everything that a run of training leaves, on the CPU."""

    def __init__(self, model: nn.Module, optimizer: Any, losses: list[Any]) -> None:
        self.arrays: dict[str, Array] = {f"loss {i}": host(v) for i, v in enumerate(losses)}
        for name, p in model.named_parameters():
            self.arrays[name] = host(p.data).copy()
        for i, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                self.arrays[f"{name} of parameter {i}"] = np.asarray(host(value))

    def assert_same(self, other: Result) -> None:
        assert self.arrays.keys() == other.arrays.keys()
        for name, value in self.arrays.items():
            assert_same_bits(value, other.arrays[name], what=name)

    def assert_near(self, other: Result, factor: float = 500) -> None:
        assert self.arrays.keys() == other.arrays.keys()
        for name, value in self.arrays.items():
            want = other.arrays[name]
            eps = np.finfo(value.dtype).eps if value.dtype.kind == "f" else 0
            bound = factor * eps * (np.abs(want).max(initial=0) + 1e-2)
            assert_close(value, want, bound, what=name)


def train(
    kind: Any, place: str, *, make: Callable[[Any], nn.Module] = network, optimiser: str = "adam",
    loss: Callable[[], Any] = nn.CrossEntropyLoss, data: Batches | None = None, dtype: Any = "f4",
    between: Between = lambda i, model, optimizer: None, **options: Any,
) -> Result:  # fmt: skip
    tg.manual_seed(11)
    model = make(dtype).to(place)
    optimizer = OPTIMISERS[optimiser](model)
    step = kind(model, loss(), optimizer, **options)
    losses = []
    for i, (x, t) in enumerate(batches(dtype) if data is None else data):
        between(i, model, optimizer)
        losses.append(step(x, t))
    return Result(model, optimizer, losses)


def check(device: Device, **options: Any) -> None:
    """Compare replays with first runs, bit for bit, and with the long form, here and on the CPU."""
    result = train(tg.TrainStep, device.name, **options)
    result.assert_same(train(Fresh, device.name, **options))
    result.assert_near(train(LongForm, device.name, **options))
    result.assert_near(train(LongForm, "cpu", **options))
