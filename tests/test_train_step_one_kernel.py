# SPDX-License-Identifier: MIT
"""A small network's step as one kernel: the numbers of the long form, and when it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from device_runs import Fresh, LongForm, Result
from helpers import Array, Device
from tilegrad import backends, nn

Make = Callable[[], nn.Module]
CLASSES = 3

pytestmark = pytest.mark.not_on_cpu("there each layer's update is part of its gradient")


def layers(*widths: int, activation: str | None = "relu", bias: bool = True) -> nn.Sequential:
    inner = [nn.Linear(a, b, activation=activation, bias=bias) for a, b in pairwise(widths[:-1])]
    return nn.Sequential(*inner, nn.Linear(widths[-2], widths[-1], bias=bias))


def data(rows: int, features: int, classes: int = CLASSES, steps: int = 3) -> Sequence[Any]:
    rng = np.random.default_rng(rows)
    return [
        (rng.standard_normal((rows, features)).astype("f4"), rng.integers(0, classes, rows))
        for _ in range(steps)
    ]


def sgd(model: nn.Module) -> Any:
    return tg.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


class Calls(tg.TrainStep):
    """The same plan, call by call."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._one_kernel = False


def train(
    kind: Any, device: Device, make: Make, batches: Sequence[Any], *,
    optimiser: Callable[[nn.Module], Any] = sgd, loss: Callable[[], Any] = nn.CrossEntropyLoss,
    expect: bool | None = None, **options: Any,
) -> Result:  # fmt: skip
    tg.manual_seed(5)
    model = make().to(device.name)
    optimizer = optimiser(model)
    step = kind(model, loss(), optimizer, **options)
    losses, kinds = [], set()
    for x, t in batches:
        losses.append(step(x, t))
        kinds.add(step.one_kernel if isinstance(step, tg.TrainStep) else None)
    if expect is not None:
        major, _ = tg.cuda.properties(device.name)["compute_capability"]
        assert kinds == {expect and major >= 8}
    return Result(model, optimizer, losses)


def check(device: Device, make: Make, batches: Sequence[Any], **options: Any) -> None:
    one = train(tg.TrainStep, device, make, batches, expect=True, **options)
    one.assert_near(train(LongForm, device, make, batches, **options))


# Small tiles, several of them and of their stages, odd sizes, rows of whole groups and not.
NETWORKS: dict[str, tuple[Make, int, int]] = {
    "one layer": (lambda: layers(5, CLASSES), 6, 5),
    "one element": (lambda: layers(1, 1, 2), 1, 1),
    "two layers": (lambda: layers(7, 9, CLASSES, activation="gelu"), 17, 7),
    "four layers": (lambda: layers(8, 12, 36, 20, CLASSES, activation="tanh"), 33, 8),
    "no bias": (lambda: layers(12, 8, 8, CLASSES, bias=False), 16, 12),
    "long sums": (lambda: layers(300, 35, CLASSES, activation="silu"), 19, 300),
    "modules": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 9), nn.GELU(),
            nn.Linear(9, 5, activation="sigmoid"), nn.Linear(5, CLASSES),
        ), 10, 6,
    ),
    "linear layers": (lambda: layers(5, 6, 7, CLASSES, activation=None), 4, 5),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_the_long_form(name: str, device: Device) -> None:
    make, rows, features = NETWORKS[name]
    classes = 2 if name == "one element" else CLASSES
    check(device, make, data(rows, features, classes))


@pytest.mark.parametrize("rows", [1, 127, 128, 129])
def test_any_number_of_rows(rows: int, device: Device) -> None:
    check(device, lambda: layers(20, 40, 33, CLASSES), data(rows, 20, steps=2))


def test_tiles_of_every_size(device: Device) -> None:
    # With 4 multiprocessors: large and medium tiles of all three products, W too long to be held.
    check(device, lambda: layers(130, 140, 130, 128), data(140, 130, 128, steps=2))


@pytest.mark.parametrize("classes", [4, 128])
def test_classes_in_whole_groups(classes: int, device: Device) -> None:
    # Their gradient waits in shared memory: no store to global memory may be taken for it.
    weight = np.linspace(0.5, 2, classes).astype("f4")
    for options in ({}, {"label_smoothing": 0.1}, {"weight": weight}):
        check(
            device, lambda: layers(8, classes), data(3, 8, classes, steps=2),
            loss=lambda o=options: nn.CrossEntropyLoss(**o),
        )  # fmt: skip


OPTIMISERS: dict[str, Callable[[nn.Module], Any]] = {
    "plain": lambda m: tg.optim.SGD(m.parameters(), 0.1),
    "momentum": lambda m: tg.optim.SGD(m.parameters(), 0.1, momentum=0.9, dampening=0.5),
    "maximize": lambda m: tg.optim.SGD(m.parameters(), 0.1, maximize=True, l1_decay=0.01),
    "adam": lambda m: tg.optim.Adam(m.parameters(), 0.05, weight_decay=0.1, amsgrad=True),
    "adamw": lambda m: tg.optim.AdamW(m.parameters(), 0.05, weight_decay=0.1),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_update_is_the_long_form(optimiser: str, device: Device) -> None:
    batches = data(10, 6, steps=5)
    check(device, lambda: layers(6, 9, 8, CLASSES), batches, optimiser=OPTIMISERS[optimiser])


def _weights() -> Array:
    return np.linspace(0.5, 2, CLASSES).astype("f4")


LOSSES: dict[str, Callable[[], Any]] = {
    "weights": lambda: nn.CrossEntropyLoss(_weights()),
    "smoothing": lambda: nn.CrossEntropyLoss(label_smoothing=0.1),
    "all": lambda: nn.CrossEntropyLoss(_weights(), 1, "sum", 0.2),
    "ignored": lambda: nn.CrossEntropyLoss(ignore_index=2),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_the_long_form(loss: str, device: Device) -> None:
    check(device, lambda: layers(6, 9, CLASSES), data(10, 6), loss=LOSSES[loss])


def test_a_bad_target_spoils_the_loss_and_not_the_gradient(device: Device) -> None:
    (x, t), *_ = data(6, 5)
    bad = t.copy()
    bad[2], bad[4] = CLASSES, -1
    make = partial_network
    results = [
        train(kind, device, make, [(x, bad)], expect=kind is tg.TrainStep, loss=_summed)
        for kind in (tg.TrainStep, Calls)
    ]
    for result in results:
        assert np.isnan(result.arrays.pop("loss 0"))
    results[0].assert_near(results[1])


def partial_network() -> nn.Module:
    return layers(5, 8, CLASSES)


def _summed() -> Any:
    return nn.CrossEntropyLoss(reduction="sum")


def test_a_mean_over_nothing_is_nan(device: Device) -> None:
    x, t = data(6, 5)[0]
    (loss,) = (
        train(tg.TrainStep, device, partial_network, [(x, np.full_like(t, -100))], expect=True)
        .arrays["loss 0"]
        .reshape(1)
    )
    assert np.isnan(loss)


def test_a_short_last_batch_has_a_kernel_of_its_own(device: Device) -> None:
    batches = [*data(9, 5, steps=2), *data(4, 5, steps=1), *data(9, 5, steps=1)]
    check(device, partial_network, batches)


def test_first_run_capture_and_replays_give_the_same_bits(device: Device) -> None:
    batches = data(17, 20, steps=4)
    make: Make = lambda: layers(20, 40, 33, CLASSES)  # noqa: E731
    result = train(tg.TrainStep, device, make, batches)
    result.assert_same(train(Fresh, device, make, batches))


def test_bits_depend_on_no_schedule_and_no_run(device: Device) -> None:
    batches = data(17, 20)
    make: Make = lambda: layers(20, 40, 33, CLASSES)  # noqa: E731
    result = train(tg.TrainStep, device, make, batches, expect=True)
    if device.name == "sim":
        backends.at(backends.SIM)._set_schedule("forward/eager")  # the fixture restores its own
    result.assert_same(train(tg.TrainStep, device, make, batches))


def test_the_learning_rate_may_change(device: Device) -> None:
    results = []
    for kind in (tg.TrainStep, LongForm):
        tg.manual_seed(5)
        model = partial_network().to(device.name)
        optimizer = sgd(model)
        step = kind(model, nn.CrossEntropyLoss(), optimizer)
        losses = []
        for i, (x, t) in enumerate(data(9, 5, steps=4)):
            optimizer.param_groups[0]["lr"] = 0.2 / (i + 1)
            losses.append(step(x, t))
        results.append(Result(model, optimizer, losses))
    results[0].assert_near(results[1])


# ---- how many kernels ---------------------------------------------------------------------------


def test_a_step_is_one_kernel_where_its_calls_are_fifteen() -> None:
    # docs/architecture.md names both. Three products forward, two of dx, three of dW, three sums of
    # db, cross-entropy between the sums of its divisor and of its losses, the update.
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((8, 784)).astype("f4"), rng.integers(0, 10, 8)
    for kind, kernels in ((tg.TrainStep, 1), (Calls, 15)):
        with tg.sim.trace() as trace:
            model = layers(784, 512, 512, 10).to("sim")
            step = kind(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
            for _ in range(2):
                step(x, t)
        names = [launch.kernel for launch in trace.launches]
        assert names.count("store_step_state_kernel") == 2
        captured = names[len(names) - names[::-1].index("store_step_state_kernel") :]
        assert len(captured) == kernels, captured


# ---- what keeps its calls -----------------------------------------------------------------------


def _frozen() -> nn.Module:
    model = partial_network()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


OTHERS: dict[str, dict[str, Any]] = {
    "dropout": {"make": lambda: nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3), nn.Linear(8, 3))},
    "activated logits": {"make": lambda: nn.Sequential(nn.Linear(5, CLASSES, activation="relu"))},
    "frozen": {"make": _frozen},
    "float64": {"dtype": "f8"},
    "groups": {"optimiser": lambda m: tg.optim.SGD([{"params": [p]} for p in m.parameters()], 0.1)},
    "rmsprop": {"optimiser": lambda m: tg.optim.RMSprop(m.parameters(), 0.01)},
    "clipping": {"max_norm": 1.0},
    "probabilities": {"targets": lambda t: np.eye(CLASSES, dtype="f4")[t]},
    "many classes": {"make": lambda: layers(5, 129)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_step_is_its_calls(name: str, device: Device) -> None:
    options = dict(OTHERS[name])
    dtype = options.pop("dtype", "f4")
    make = options.pop("make", partial_network)
    targets = options.pop("targets", lambda t: t)
    batches = [(x.astype(dtype), targets(t)) for x, t in data(6, 5, steps=2)]
    if dtype == "f8":
        make = lambda: nn.Sequential(nn.Linear(5, CLASSES, dtype="f8"))  # noqa: E731
    train(tg.TrainStep, device, make, batches, expect=False, **options)


def test_steps_in_halves_and_sums_of_batches_are_calls(device: Device) -> None:
    tg.manual_seed(5)
    model = partial_network().to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
    x, t = data(6, 5)[0]
    for _ in range(2):
        step(x, t)
        step.forward_backward(x, t)
        assert not step.one_kernel
        step.update()
    sums = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model), accumulate=2)
    for _ in range(3):
        sums(x, t)
        assert not sums.one_kernel


# ---- who does what ------------------------------------------------------------------------------


def test_the_schedule_is_a_function_of_sizes_and_multiprocessors() -> None:
    schedule = backends.at(backends.SIM)._step_schedule
    assert schedule(128, [784, 512, 512, 10], 132) == [
        [("forward", "small", 0, 128), ("prepare", "small", 0, 1)],
        [("forward", "small", 1, 128)],
        [("head", "small", 2, 128)],
        [
            ("input_gradient", "small", 1, 128),
            ("weight_update", "small", 2, 16),
            ("bias_update", "small", 2, 1),
            ("loss", "small", 0, 1),
        ],
        [
            ("weight_update", "medium", 1, 256),
            ("bias_update", "small", 1, 16),
            ("weight_update", "large", 0, 104),
            ("bias_update", "small", 0, 16),
        ],
    ]
    assert [len(phase) for phase in schedule(4, [5, 3], 4)] == [1, 1, 3]


@pytest.mark.parametrize("depth", range(1, 9))
def test_a_weight_changes_after_its_last_reader(depth: int) -> None:
    schedule = backends.at(backends.SIM)._step_schedule(16, [8] * (depth + 1), 4)
    when: dict[tuple[str, int], int] = {}
    for phase, runs in enumerate(schedule):
        for work, _, layer, items in runs:
            assert items > 0
            assert (work, layer) not in when
            when[work, layer] = phase
    head = when["head", depth - 1]
    assert when["prepare", 0] < head < when["loss", 0]
    for layer in range(depth):
        # dz of the layer: the head makes its own and that of the layer below.
        made = head if layer >= depth - 2 else when["input_gradient", layer + 1]
        assert when["weight_update", layer] > made
        assert when["bias_update", layer] > made
        if layer < depth - 1:
            assert when["forward", layer] == layer
        if 0 < layer < depth - 1:
            assert made < when["input_gradient", layer] < when["weight_update", layer]
