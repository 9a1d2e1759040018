# SPDX-License-Identifier: MIT
"""TrainStep equals the long form bit for bit: networks, losses, optimisers, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, assert_same_bits
from tilegrad import nn
from tilegrad.nn.utils import clip_grad_norm_

STEPS = 25
FEATURES, CLASSES = 12, 5


def _linear(i: int, o: int, activation: str | None = None, dtype: Any = "f4", **more: Any) -> Any:
    return nn.Linear(i, o, activation=activation, dtype=dtype, **more)


def fused(name: str, **args: float) -> Callable[[Any], nn.Module]:
    def make(dtype: Any) -> nn.Module:
        options = {"activation_args": args} if args else {}
        return nn.Sequential(
            _linear(FEATURES, 33, name, dtype, **options),
            _linear(33, 16, name, dtype, **options),
            _linear(16, CLASSES, None, dtype),
        )

    return make


def separate(activation: Callable[[], nn.Module]) -> Callable[[Any], nn.Module]:
    return lambda dtype: nn.Sequential(
        _linear(FEATURES, 17, None, dtype), activation(), _linear(17, CLASSES, None, dtype)
    )


def _dropout(dtype: Any) -> nn.Module:
    first, last = _linear(FEATURES, 40, "relu", dtype), _linear(40, CLASSES, None, dtype)
    return nn.Sequential(nn.Dropout(0.2), first, nn.Dropout(0.5), last)


def _frozen(which: int) -> Callable[[Any], nn.Module]:
    def make(dtype: Any) -> nn.Module:
        model = fused("tanh")(dtype)
        list(model.children())[which].requires_grad_(False)
        return model

    return make


def _frozen_bias(dtype: Any) -> nn.Module:
    model = fused("relu")(dtype)
    model[1].bias.requires_grad = False
    model[0].weight.requires_grad = False
    return model


def _no_bias(dtype: Any) -> nn.Module:
    first = _linear(FEATURES, 9, "relu", dtype, bias=False)
    return nn.Sequential(first, _linear(9, CLASSES, None, dtype, bias=False))


def _nested(dtype: Any) -> nn.Module:
    first, last = _linear(FEATURES, 8, "relu", dtype), _linear(8, CLASSES, None, dtype)
    return nn.Sequential(nn.Sequential(first), nn.Sequential(), nn.Sequential(nn.Tanh(), last))


FUSED = [
    "relu",
    "sigmoid",
    "tanh",
    "gelu",
    "gelu_tanh",
    "silu",
    "selu",
    "softplus",
    "mish",
    "hardtanh",
    "relu6",
    "hardsigmoid",
    "hardswish",
]
MODULES = (
    nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.SELU, nn.ELU, nn.LeakyReLU, nn.Identity,
    nn.Softplus, nn.Mish, nn.Hardtanh, nn.ReLU6, nn.Hardsigmoid, nn.Hardswish,
)  # fmt: skip
NETWORKS: dict[str, Callable[[Any], nn.Module]] = {
    **{name: fused(name) for name in FUSED},
    "leaky_relu": fused("leaky_relu", negative_slope=0.2),
    "leaky_relu-negative": fused("leaky_relu", negative_slope=-0.2),
    "elu": fused("elu", alpha=0.7),
    **{f"module-{make.__name__}": separate(make) for make in MODULES},
    "module-GELU-tanh": separate(lambda: nn.GELU("tanh")),
    "module-LeakyReLU-negative": separate(lambda: nn.LeakyReLU(-0.3)),
    "prelu": lambda dtype: nn.Sequential(
        _linear(FEATURES, CLASSES, None, dtype), nn.PReLU(dtype=dtype)
    ),
    "prelu-channels": lambda dtype: nn.Sequential(
        _linear(FEATURES, 8, None, dtype),
        nn.PReLU(8, dtype=dtype),
        _linear(8, CLASSES, None, dtype),
    ),
    "softmax": separate(lambda: nn.Softmax(-1)),
    "log_softmax": separate(lambda: nn.LogSoftmax(1)),
    "one-layer": lambda dtype: _linear(FEATURES, CLASSES, "sigmoid", dtype),
    "no-bias": _no_bias,
    "dropout": _dropout,
    "dropout-off": lambda dtype: nn.Sequential(nn.Dropout(0.0), fused("relu")(dtype)),
    "nested": _nested,
    "flatten": lambda dtype: nn.Sequential(nn.Flatten(), fused("relu")(dtype)),
    "frozen-first": _frozen(0),
    "frozen-middle": _frozen(1),
    "frozen-last": _frozen(2),
    "frozen-parts": _frozen_bias,
}


def build(make: Callable[[Any], nn.Module], dtype: Any = "f4") -> nn.Module:
    tg.manual_seed(11)
    return make(dtype)


class LongForm:
    """The documented long form, with the same interface as TrainStep."""

    def __init__(
        self, model: Any, loss_fn: Any, optimizer: Any, *, max_norm: float | None = None,
        accumulate: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.max_norm, self.accumulate, self.done = max_norm, accumulate, 0

    def __call__(self, x: Array, target: Array) -> Any:
        if self.done == 0:
            self.optimizer.zero_grad()
        loss = self.loss_fn(self.model(x), target)
        self.model.backward(self.loss_fn.backward(), input_grad=False)
        self.done += 1
        if self.done == self.accumulate:
            if self.max_norm is not None:
                clip_grad_norm_(self.model.parameters(), self.max_norm)
            self.optimizer.step()
            self.done = 0
        return loss


def batches(dtype: Any = "f4", sizes: tuple[int, ...] = (16,)) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(2)
    count = [sizes[i % len(sizes)] for i in range(STEPS)]
    return [(rng.standard_normal((n, FEATURES)).astype(dtype), rng.integers(0, CLASSES, n))
            for n in count]  # fmt: skip


def one_hot(data: list[tuple[Array, Array]]) -> list[tuple[Array, Array]]:
    return [(x, np.eye(CLASSES, dtype=x.dtype)[t]) for x, t in data]


Run = tuple[nn.Module, Any, list[Any]]


def run(
    step_type: Any, model: nn.Module, loss_fn: Any, optimizer: Any, data: list[tuple[Array, Array]],
    between: Callable[[int, Any], None] = lambda i, optimizer: None, **options: Any,
) -> Run:  # fmt: skip
    tg.manual_seed(5)  # of dropout
    step = step_type(model, loss_fn, optimizer, **options)
    losses = []
    for i, (x, t) in enumerate(data):
        between(i, optimizer)
        losses.append(step(x, t))
    return model, optimizer, losses


def assert_same_run(a: Run, b: Run) -> None:
    for i, (one, other) in enumerate(zip(a[2], b[2], strict=True)):
        assert_same_bits(one, other, what=f"loss of step {i}")
    for (name, p), q in zip(a[0].named_parameters(), b[0].parameters(), strict=True):
        assert_same_bits(p.data, q.data, what=name)
    mine, its = a[1].state_dict(), b[1].state_dict()
    assert mine["param_groups"] == its["param_groups"]
    assert mine["state"].keys() == its["state"].keys()
    for i, values in mine["state"].items():
        for name, value in values.items():
            assert_same_bits(value, its["state"][i][name], what=f"{name} of parameter {i}")


def sgd(model: nn.Module) -> tg.optim.Optimizer:
    return tg.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def check(
    make: Callable[[Any], nn.Module], loss: Callable[[], Any], optimizer: Any = sgd,
    data: list[tuple[Array, Array]] | None = None, dtype: Any = "f4", **options: Any,
) -> Run:  # fmt: skip
    data = batches(dtype) if data is None else data
    runs = []
    for step_type in (tg.TrainStep, LongForm):
        model = build(make, dtype)
        runs.append(run(step_type, model, loss(), optimizer(model), data, **options))
    assert_same_run(*runs)
    start, end = build(make, dtype).parameters(), runs[0][0].parameters()
    pairs = [(p, q) for p, q in zip(start, end, strict=True) if q.requires_grad]
    assert pairs
    assert all(not np.array_equal(p.data, q.data) for p, q in pairs)  # it trains at all
    return runs[0]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_equals_the_long_form_for_every_network(
    network: str, dtype: str, threads: int
) -> None:
    data = batches(dtype)
    if network == "flatten":
        data = [(x.reshape(len(x), 3, 4), t) for x, t in data]
    check(NETWORKS[network], nn.CrossEntropyLoss, data=data, dtype=dtype)


@pytest.mark.parametrize("network", ["relu", "gelu", "dropout"])
def test_step_equals_the_long_form_on_every_instruction_set(network: str, isa: str) -> None:
    check(NETWORKS[network], nn.CrossEntropyLoss)


LOSSES: dict[str, Callable[[], Any]] = {
    "mean": nn.CrossEntropyLoss,
    "sum": lambda: nn.CrossEntropyLoss(reduction="sum"),
    "ignore": lambda: nn.CrossEntropyLoss(ignore_index=2),
    "smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
    "weight": lambda: nn.CrossEntropyLoss(np.linspace(0.5, 2, CLASSES).astype("f4")),
    "strided-weight": lambda: nn.CrossEntropyLoss(np.linspace(0.5, 2, 9).astype("f4")[::2]),
    "all": lambda: nn.CrossEntropyLoss(np.linspace(0.5, 2, CLASSES).astype("f4"), 1, "sum", 0.1),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_step_equals_the_long_form_for_every_cross_entropy(loss: str) -> None:
    check(NETWORKS["relu"], LOSSES[loss])
    if loss != "ignore":
        check(NETWORKS["relu"], LOSSES[loss], data=one_hot(batches()))


@pytest.mark.parametrize("integer", ["int8", "uint8", "int32", "uint64"])
def test_step_takes_class_indices_of_any_integer_type(integer: str) -> None:
    data = [(x, t.astype(integer)) for x, t in batches()]
    assert_same_run(check(NETWORKS["relu"], nn.CrossEntropyLoss, data=data),
                    check(NETWORKS["relu"], nn.CrossEntropyLoss))  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_equals_the_long_form_for_squared_error(reduction: str, dtype: str) -> None:
    def optimizer(model: nn.Module) -> Any:
        return tg.optim.SGD(model.parameters(), 1e-3)

    data = one_hot(batches(dtype))
    for network in ("tanh", "one-layer", "softmax"):
        check(NETWORKS[network], lambda: nn.MSELoss(reduction), optimizer, data, dtype)


OPTIMISERS: dict[str, Callable[[nn.Module], Any]] = {
    "sgd": lambda m: tg.optim.SGD(m.parameters(), 0.1),
    "nesterov": lambda m: tg.optim.SGD(
        m.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "adam": lambda m: tg.optim.Adam(m.parameters(), 0.01, weight_decay=0.01),
    "amsgrad": lambda m: tg.optim.Adam(m.parameters(), 0.01, amsgrad=True, maximize=True),
    "adamw": lambda m: tg.optim.AdamW(m.parameters(), 0.01),
    "rmsprop": lambda m: tg.optim.RMSprop(m.parameters(), 1e-3, l1_decay=0.01, maximize=True),
    "rmsprop-all": lambda m: tg.optim.RMSprop(
        m.parameters(), 1e-3, 0.9, 1e-2, weight_decay=0.01, momentum=0.9, centered=True
    ),
    "adagrad": lambda m: tg.optim.Adagrad(
        m.parameters(), 0.05, lr_decay=0.1, weight_decay=0.01, initial_accumulator_value=0.1
    ),
    "l1": lambda m: tg.optim.SGD(m.parameters(), 0.1, momentum=0.5, l1_decay=0.01),
    "groups": lambda m: tg.optim.Adam(
        [{"params": m[0].parameters()}, {"params": [m[1].bias, m[2].weight], "lr": 0.1},
         {"params": [m[1].weight, m[2].bias], "betas": (0.5, 0.9)}], 0.01
    ),
}  # fmt: skip


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("max_norm", [None, 0.0, 0.3, 1e9])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_step_equals_the_long_form_for_every_update(
    optimiser: str, max_norm: float | None, accumulate: int
) -> None:
    options = {"max_norm": max_norm, "accumulate": accumulate}
    if max_norm == 0:  # nothing but decay and epsilon moves a weight
        data, runs = batches(), []
        for kind in (tg.TrainStep, LongForm):
            model = build(NETWORKS["gelu"])
            made = OPTIMISERS[optimiser](model)
            runs.append(run(kind, model, nn.CrossEntropyLoss(), made, data, **options))
        assert_same_run(*runs)
        return
    check(NETWORKS["gelu"], nn.CrossEntropyLoss, OPTIMISERS[optimiser], **options)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("network", ["silu", "dropout"])
def test_batches_of_changing_size_need_no_care(network: str, accumulate: int) -> None:
    data = batches(sizes=(16, 16, 1, 7, 64))
    check(NETWORKS[network], nn.CrossEntropyLoss, data=data, accumulate=accumulate)


def test_x_and_target_may_lie_in_any_order() -> None:
    plain = batches()
    odd = [(np.asfortranarray(x), np.repeat(t, 2)[::2]) for x, t in plain]
    assert_same_run(check(NETWORKS["relu"], nn.CrossEntropyLoss, data=odd),
                    check(NETWORKS["relu"], nn.CrossEntropyLoss, data=plain))  # fmt: skip
