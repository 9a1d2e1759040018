# SPDX-License-Identifier: MIT
"""TrainStep on every device: a replayed graph computes what its first run did, whatever changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from device_runs import (
    CLASSES,
    FEATURES,
    NETWORKS,
    OPTIMISERS,
    STEPS,
    Between,
    LongForm,
    Result,
    batches,
    check,
    network,
    train,
)  # fmt: skip
from helpers import Device, assert_same_bits, host
from tilegrad import backends, nn


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_the_long_form(name: str, dtype: str, device: Device) -> None:
    check(device, make=NETWORKS[name], dtype=dtype)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("max_norm", "accumulate"), [(None, 2), (0.2, 1), (0.2, 3), (1e9, 1)])
def test_every_update_is_the_long_form(
    optimiser: str, max_norm: float | None, accumulate: int, device: Device
) -> None:
    check(device, optimiser=optimiser, max_norm=max_norm, accumulate=accumulate)


LOSSES: dict[str, Callable[[], Any]] = {
    "all": lambda: nn.CrossEntropyLoss(np.linspace(0.5, 2, CLASSES).astype("f4"), 1, "sum", 0.1),
    "strided-weight": lambda: nn.CrossEntropyLoss(np.linspace(0.5, 2, 5).astype("f4")[::2]),
    "probabilities": lambda: nn.CrossEntropyLoss(label_smoothing=0.2),
    "squared": nn.MSELoss,
    "squared-sum": lambda: nn.MSELoss("sum"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_long_form(loss: str, device: Device) -> None:
    data = batches()
    if "squared" in loss or loss == "probabilities":
        data = [(x, np.eye(CLASSES, dtype="f4")[t]) for x, t in data]
    check(device, loss=LOSSES[loss], data=data)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_of_changing_size(accumulate: int, device: Device) -> None:
    check(device, data=batches(sizes=(6, 1, 6, 4), steps=9), accumulate=accumulate)


@pytest.mark.parametrize("integer", ["int8", "uint16", "int32", "uint64"])
def test_class_indices_of_any_integer_type(integer: str, device: Device) -> None:
    data = [(x, t.astype(integer)) for x, t in batches()]
    train(tg.TrainStep, device.name, data=data).assert_same(train(tg.TrainStep, device.name))


def test_bits_depend_on_no_schedule_and_no_run(device: Device) -> None:
    options: dict[str, Any] = {"max_norm": 0.2, "accumulate": 2}
    result = train(tg.TrainStep, device.name, **options)
    if device.name == "sim":
        sim = backends.at(backends.SIM)
        sim._set_schedule("forward/eager")  # the fixture restores its own
    result.assert_same(train(tg.TrainStep, device.name, **options))


def test_first_run_capture_and_replays_give_the_same_bits(device: Device) -> None:
    tg.manual_seed(1)
    model = network().to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.0))
    (x, t), (x2, t2) = batches(steps=2)
    seen = []
    for _ in range(5):
        tg.manual_seed(7)
        losses = [step.forward_backward(x, t)]
        stored = [host(p.grad_buffer()).copy() for p in model.parameters()]
        losses.append(step.forward_backward(x2, t2))  # added to: the plan's other form
        added = [host(p.grad_buffer()).copy() for p in model.parameters()]
        step.update()
        seen.append([host(loss) for loss in losses] + stored + added)
    for other in seen[1:]:
        for a, b in zip(seen[0], other, strict=True):
            assert_same_bits(b, a)


# ---- what changes between steps -----------------------------------------------------------------


def _rate(i: int, model: nn.Module, optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["lr"] = 0.1 / (i + 1)


def _options(i: int, model: nn.Module, optimizer: Any) -> None:
    optimizer.param_groups[0].update(betas=(0.9 - i / 20, 0.99), weight_decay=0.01 * (i // 2))


def _freeze(i: int, model: nn.Module, optimizer: Any) -> None:
    model[0].requires_grad_(not 2 <= i < 4)  # type: ignore[index]
    model[2].bias.requires_grad = i != 3  # type: ignore[index]


def _assign(i: int, model: nn.Module, optimizer: Any) -> None:
    if i == 3:
        model[0].weight.data = host(model[0].weight.data) * np.float32(0.5)  # type: ignore[index]


def _reload(i: int, model: nn.Module, optimizer: Any) -> None:
    if i == 2:
        optimizer.kept = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    if i == 4:
        model.load_state_dict(optimizer.kept[0])
        optimizer.load_state_dict(optimizer.kept[1])


def _predict(i: int, model: nn.Module, optimizer: Any) -> None:
    model.predict(batches()[0][0])
    model.train()


def _schedule(i: int, model: nn.Module, optimizer: Any) -> None:
    if i == 0:
        optimizer.schedule = tg.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    else:
        optimizer.schedule.step()


CHANGES = [_rate, _schedule, _options, _freeze, _assign, _reload, _predict]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[1:])
@pytest.mark.parametrize("max_norm", [None, 0.2])
def test_changes_between_steps_count(
    change: Between, max_norm: float | None, device: Device
) -> None:
    check(device, between=change, max_norm=max_norm)


def test_a_model_may_move_between_steps(device: Device) -> None:
    def between(i: int, model: nn.Module, optimizer: Any) -> None:
        model.to(("cpu", device.name)[i // 2 % 2])

    moved = train(tg.TrainStep, device.name, between=between, max_norm=0.3)
    moved.assert_near(train(LongForm, "cpu", max_norm=0.3))


def test_a_model_may_move_between_the_halves_of_a_step(device: Device) -> None:
    results = []
    for there in ("cpu", device.name):
        tg.manual_seed(1)
        model = network()
        optimizer = OPTIMISERS["adam"](model)
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        for x, t in batches():
            loss = step.forward_backward(x, t)
            model.to(there)
            step.update()
            model.to("cpu")
        results.append(Result(model, optimizer, [loss]))
    results[1].assert_near(results[0])


def test_dropout_draws_anew_at_every_replay(device: Device) -> None:
    tg.manual_seed(1)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURES, CLASSES)).to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.0))
    x, t = batches()[0]
    assert len({float(step(x, t)) for _ in range(8)}) == 8


def test_nothing_is_trained_where_all_is_frozen(device: Device) -> None:
    tg.manual_seed(1)
    model = network(activation="relu").to(device.name)
    optimizer = OPTIMISERS["sgd"](model)
    model.requires_grad_(False)
    step = tg.TrainStep(model.eval(), nn.CrossEntropyLoss(), optimizer)
    x, t = batches()[0]
    before = [host(p.data).copy() for p in model.parameters()]
    for _ in range(3):
        step(x, t)
    for p, old in zip(model.parameters(), before, strict=True):
        assert_same_bits(p.data, old)
    model.requires_grad_(True)
    step(x, t)
    assert not np.array_equal(host(model[0].weight.data), before[0])


@pytest.mark.not_on_cpu("the cpu has no streams")
@pytest.mark.parametrize("kind", ["one kernel", "calls", "halves"])
def test_a_step_on_another_stream_waits_for_the_one_before(kind: str, device: Device) -> None:
    # They share buffers, workspace and the barrier of a grid.
    streams = [tg.cuda.Stream(device.name) for _ in range(2)]
    results = []
    for order in ([0] * STEPS, [0, 1, 1, 0, 1, 0]):
        tg.manual_seed(3)
        layers = [nn.Linear(FEATURES, 6, activation="tanh"), nn.Linear(6, CLASSES)]
        model = nn.Sequential(*layers, *([nn.Dropout(0.2)] if kind == "calls" else []))
        optimizer = OPTIMISERS["adam"](model.to(device.name))
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        losses = []
        tg.cuda.synchronize(device.name)
        for i, (x, t) in enumerate(batches()):
            last = streams[order[i]]
            with tg.cuda.stream(last):
                losses.append(step.forward_backward(x, t) if kind == "halves" else step(x, t))
            if kind == "halves":
                last = streams[order[(i + 1) % STEPS]]
                with tg.cuda.stream(last):
                    step.update()
            other = streams[last is streams[0]]
            if device.name == "sim" and sum(order[: i + 2]) > 1:  # both have had work by now
                sim = backends.at(backends.SIM)
                assert sim._work_not_awaited(last.handle, other.handle) == 0
        tg.cuda.synchronize(device.name)
        results.append(Result(model, optimizer, losses))
    results[0].assert_same(results[1])
