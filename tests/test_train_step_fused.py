# SPDX-License-Identifier: MIT
"""On the CPU a large weight is updated where its gradient is made; nothing is allocated."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import assert_same_bits
from test_train_step import LongForm, assert_same_run
from tilegrad import nn

IN, HIDDEN, CLASSES = 129, 197, 7  # beyond whole tiles of every instruction set, both ways
ROWS = (1, 31, 32, 100, 513)  # the last: more than a block of k

RULES: dict[str, Callable[[Any], tg.optim.Optimizer]] = {
    "sgd": lambda p: tg.optim.SGD(p, 0.05),
    "decay": lambda p: tg.optim.SGD(p, 0.05, weight_decay=0.1),
    "momentum": lambda p: tg.optim.SGD(p, 0.05, momentum=0.9, dampening=0.1, maximize=True),
    "nesterov": lambda p: tg.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: tg.optim.Adam(p, 0.01),
    "adam-decay": lambda p: tg.optim.Adam(p, 0.01, weight_decay=0.1, maximize=True),
    "l1": lambda p: tg.optim.SGD(p, 0.05, l1_decay=0.1),
    "rmsprop": lambda p: tg.optim.RMSprop(p, 0.01),
    "rmsprop-momentum": lambda p: tg.optim.RMSprop(p, 0.01, momentum=0.9, l1_decay=0.01),
    "rmsprop-centered": lambda p: tg.optim.RMSprop(p, 0.01, 0.9, 1e-2, 0.1, centered=True),
    "adagrad": lambda p: tg.optim.Adagrad(p, 0.01, 0.1, 0.1, 0.1, maximize=True),
    "adam-l1": lambda p: tg.optim.Adam(p, 0.01, l1_decay=0.01),
    "adamw-amsgrad": lambda p: tg.optim.AdamW(p, 0.01, amsgrad=True),
}


def build(dtype: Any = "f4", activation: str = "gelu") -> nn.Sequential:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(IN, HIDDEN, activation=activation, dtype=dtype),
        nn.Linear(HIDDEN, HIDDEN, activation=activation, dtype=dtype),
        nn.Linear(HIDDEN, CLASSES, dtype=dtype),
    )


def batches(dtype: Any = "f4", rows: tuple[int, ...] = (32,), steps: int = 4) -> list[Any]:
    rng = np.random.default_rng(4)
    sizes = [rows[i % len(rows)] for i in range(steps)]
    return [(rng.standard_normal((n, IN)).astype(dtype), rng.integers(0, CLASSES, n))
            for n in sizes]  # fmt: skip


def check(
    rule: str, data: list[Any], dtype: Any = "f4", between: Any = None, **options: Any
) -> nn.Module:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(dtype)
        optimizer = RULES[rule](model.parameters())
        step = kind(model, nn.CrossEntropyLoss(), optimizer, **options)
        losses = []
        for i, (x, t) in enumerate(data):
            if between is not None:
                between(i, model, optimizer)
            losses.append(step(x, t))
        runs.append((model, optimizer, losses))
    assert_same_run(*runs)
    return runs[0][0]


def stored(model: nn.Module) -> list[bool]:
    """Return of which weights a gradient was stored."""
    weights = [p for p in model.parameters() if len(p.shape) == 2]
    return [bool(np.any(p.grad_buffer())) for p in weights]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_long_form_s_bits_on_every_isa(rule: str, dtype: str, isa: str, threads: int) -> None:
    model = check(rule, batches(dtype), dtype)
    assert stored(model) == [False, False, True]  # the last weight is small


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_batches_of_every_size(rows: int, rule: str, threads: int) -> None:
    model = check(rule, batches(rows=(rows,)))
    assert stored(model) == ([True] * 3 if rows > 512 else [False, False, True])


@pytest.mark.parametrize("sizes", [(1, 20000), (20000, 1), (2, 9000), (9000, 3), (128, 128)])
@pytest.mark.parametrize("rows", [1, 6, 40])
def test_weights_of_every_shape(sizes: tuple[int, int], rows: int, isa: str) -> None:
    runs = []
    rng = np.random.default_rng(5)
    x = rng.standard_normal((rows, sizes[0])).astype("f4")
    t = rng.standard_normal((rows, sizes[1])).astype("f4")
    for kind in (tg.TrainStep, LongForm):
        tg.manual_seed(1)
        model = nn.Linear(*sizes)
        optimizer = tg.optim.SGD(model.parameters(), 0.01)
        step = kind(model, nn.MSELoss(), optimizer)
        runs.append((model, optimizer, [step(x, t) for _ in range(2)]))
    assert_same_run(*runs)


def test_an_empty_batch_decays_weights_as_the_long_form_does() -> None:
    data = [(np.zeros((0, IN), "f4"), np.zeros(0, "i8"))] * 2
    check("nesterov", [*batches(steps=2), *data])


@pytest.mark.parametrize("options", [{"max_norm": 0.1}, {"accumulate": 2}])
def test_gradients_that_something_else_reads_are_stored(options: dict[str, Any]) -> None:
    assert stored(check("adam", batches(), **options)) == [True] * 3


def test_batches_of_changing_size_share_the_optimiser() -> None:
    check("adam", batches(rows=(32, 7, 513), steps=9))


def test_a_frozen_weight_stays_and_its_bias_trains() -> None:
    def between(i: int, model: Any, optimizer: Any) -> None:
        model[1].weight.requires_grad = not 1 <= i < 3

    check("momentum", batches(steps=6), between=between)


def test_options_and_rates_may_change_between_steps() -> None:
    def between(i: int, model: Any, optimizer: Any) -> None:
        optimizer.param_groups[0]["lr"] = 0.01 / (i + 1)
        optimizer.param_groups[0]["weight_decay"] = 0.1 * (i // 2)

    check("adam", batches(steps=6), between=between)


def test_groups_keep_their_own_options() -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build()
        first = {"params": list(model[0].parameters()), "lr": 0.1, "momentum": 0.5}
        rest = {"params": [*model[1].parameters(), *model[2].parameters()]}
        optimizer = tg.optim.SGD([first, rest], 0.01)
        step = kind(model, nn.CrossEntropyLoss(), optimizer)
        runs.append((model, optimizer, [step(x, t) for x, t in batches()]))
    assert_same_run(*runs)


def test_halves_and_whole_steps_mix() -> None:
    runs = []
    for mixed in (True, False):
        model = build()
        optimizer = RULES["adam"](model.parameters())
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        long = LongForm(model, nn.CrossEntropyLoss(), optimizer)
        losses = []
        for i, (x, t) in enumerate(batches(steps=8)):
            if not mixed:
                losses.append(long(x, t))
            elif i % 3 == 1:
                losses.append(step.forward_backward(x, t))
                step.update()
            elif i % 3 == 2:
                losses.append(long(x, t))
            else:
                losses.append(step(x, t))
        runs.append((model, optimizer, losses))
    assert_same_run(*runs)


def test_a_call_after_forward_backward_adds_to_its_gradients() -> None:
    (x, t), (x2, t2) = batches(steps=2)
    results = []
    for halves in (True, False):
        model = build()
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), RULES["sgd"](model.parameters()))
        step.forward_backward(x, t)
        if halves:
            step.forward_backward(x2, t2)
            step.update()
        else:
            step(x2, t2)
        results.append([p.data.copy() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("trained", [0, 1, 3])
def test_a_bad_target_leaves_weights_and_optimiser_as_they_were(trained: int) -> None:
    model = build()
    optimizer = RULES["adam"](model.parameters())
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
    for x, t in batches(steps=trained):
        step(x, t)
    before = [p.data.copy() for p in model.parameters()]
    count = len(optimizer.state_dict()["state"])
    kept = [v.copy() for s in optimizer.state.values() for v in s.values() if np.ndim(v)]
    steps = [state["step"] for state in optimizer.state.values()]
    x, t = batches(rows=(32 + (trained > 1),))[0]
    t = t.copy()
    t[-1] = CLASSES
    with pytest.raises(ValueError, match=rf"\[0, {CLASSES}\)"):
        step(x, t)
    for p, old in zip(model.parameters(), before, strict=True):
        assert_same_bits(p.data, old)
    assert len(optimizer.state_dict()["state"]) == count
    assert [state["step"] for state in optimizer.state.values()] == steps
    now = [v for s in optimizer.state.values() for v in s.values() if np.ndim(v)]
    for a, b in zip(now, kept, strict=True):
        assert_same_bits(a, b)


COUNTED = """
import ctypes, numpy as np, tilegrad as tg
from tilegrad import nn
count = ctypes.CDLL(None).allocations
count.restype = ctypes.c_long
tg.set_num_threads(1)
model = nn.Sequential(nn.Linear(130, 200, activation="relu"), nn.Dropout(0.1),
                      nn.Linear(200, 300, activation="gelu"), nn.Linear(300, 10))
x, t = np.ones((64, 130), "f4"), np.arange(64) % 10
for make in (tg.optim.Adam, lambda p: tg.optim.SGD(p, 0.1, momentum=0.9), tg.optim.RMSprop,
             tg.optim.Adagrad):
    for options in ({}, {"max_norm": 1.0}, {"accumulate": 2}):
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), make(model.parameters()), **options)
        for _ in range(4):
            step(x, t)
        before = count()
        for _ in range(10):
            step(x, t)
        print(count() - before)
model.predict(x)
before = count()
for _ in range(10):
    model.predict(x)
print((count() - before) / 10)
"""


def test_nothing_is_allocated_after_the_first_step(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("counting allocations needs a C compiler and glibc")
    library = tmp_path / "count.so"
    source = Path(__file__).parent / "count_allocations.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    run = subprocess.run(
        [sys.executable, "-c", COUNTED], env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    *steps, predict = run.stdout.split()
    assert steps == ["0"] * 12
    assert 0 < float(predict) <= 6  # the result and its description
