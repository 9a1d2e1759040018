# SPDX-License-Identifier: MIT
"""TrainStep and predict with bfloat16 layers: the long form's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import assert_same_bits
from test_train_step import LongForm
from tilegrad import nn

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)

OPTIMISERS: dict[str, Any] = {
    "sgd": lambda p: tg.optim.SGD(p, 0.05),
    "momentum": lambda p: tg.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: tg.optim.Adam(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: tg.optim.RMSprop(p, 0.01, momentum=0.9, centered=True, eps=0.1),
    "adagrad": lambda p: tg.optim.Adagrad(p, 0.05, initial_accumulator_value=0.1, l1_decay=0.01),
}


def build(activation: str | None = "relu") -> nn.Sequential:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(40, 500, activation=activation, dtype="bfloat16"),
        nn.Linear(500, 30, dtype="bfloat16"),
        nn.Tanh(),
        nn.Linear(30, 7, dtype="bfloat16"),
    )


def batches(steps: int = 5) -> list[Any]:
    rng = np.random.default_rng(4)
    return [(rng.standard_normal((24 + i % 2, 40)).astype(BF16), rng.integers(0, 7, 24 + i % 2))
            for i in range(steps)]  # fmt: skip


def assert_same_values(a: Any, b: Any, what: str) -> None:
    if np.asarray(a).dtype == BF16:
        a, b = np.asarray(a).view(np.uint16), np.asarray(b).view(np.uint16)
    assert_same_bits(a, b, what=what)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("options", [{}, {"max_norm": 0.3}, {"accumulate": 2}], ids=str)
def test_a_step_is_the_long_form(
    optimiser: str, activation: str, options: dict[str, Any], threads: int
) -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(activation)
        optimizer = OPTIMISERS[optimiser](model.parameters())
        step = kind(model, nn.CrossEntropyLoss(), optimizer, **options)
        losses = [step(x, t) for x, t in batches()]
        runs.append((model, optimizer, losses))
    (model, optimizer, losses), (other, its, long) = runs
    for i, (a, b) in enumerate(zip(losses, long, strict=True)):
        assert_same_values(a, b, f"loss {i}")
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert_same_values(p.data, q.data, str(p.shape))
        mine, theirs = optimizer.state[p], its.state[q]
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert_same_bits(value, theirs[name], what=name)
    assert not all(
        np.array_equal(p.data, q.data)
        for p, q in zip(model.parameters(), build(activation).parameters(), strict=True)
    )


@pytest.mark.parametrize("activation", ["relu", "gelu", None])
def test_predict_is_the_forward_pass(activation: str | None) -> None:
    model = build(activation)
    for n in (1, 8, 33):
        x = np.random.default_rng(n).standard_normal((n, 40)).astype(BF16)
        model.eval()
        want = model(x)
        model.train()
        for _ in range(2):
            assert_same_values(model.predict(x), want, str(n))
    assert all(plan.native is not None for plan in model.__dict__["_inference"].values())


def test_what_has_no_bfloat16_is_refused() -> None:
    x, t = batches()[0]
    model = nn.Sequential(nn.Dropout(0.5), build())
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(TypeError, match=r"dropout: .*float32 or float64; got bfloat16"):
        step(x, t)
