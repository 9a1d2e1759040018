# SPDX-License-Identifier: MIT
"""TrainStep while things change between its steps, and what it refuses."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import assert_same_bits
from test_train_step import (
    CLASSES,
    FEATURES,
    NETWORKS,
    STEPS,
    LongForm,
    assert_same_run,
    batches,
    build,
    run,
    sgd,
)
from tilegrad import nn
from tilegrad.optim import lr_scheduler


def adam(model: nn.Module) -> Any:
    return tg.optim.Adam(model.parameters(), 0.01)


def momentum_off(i: int, o: Any) -> None:
    o.param_groups[0]["momentum"] = 0.0 if 5 <= i < 12 else 0.9


def decay_and_lr(i: int, o: Any) -> None:
    o.param_groups[0].update(lr=0.1 / (i + 1), weight_decay=0.01 * (i // 7))


def nesterov_on(i: int, o: Any) -> None:
    o.param_groups[0]["nesterov"] = i >= 9


def amsgrad_on(i: int, o: Any) -> None:
    o.param_groups[0]["amsgrad"] = i >= 9


def betas(i: int, o: Any) -> None:
    o.param_groups[0].update(betas=(0.9 - i / 50, 0.99), eps=1e-8 * (i + 1))


CHANGES = [
    pytest.param(sgd, momentum_off, id="momentum"),
    pytest.param(sgd, decay_and_lr, id="decay-and-lr"),
    pytest.param(sgd, nesterov_on, id="nesterov"),
    pytest.param(adam, amsgrad_on, id="amsgrad"),
    pytest.param(adam, betas, id="betas"),
]


@pytest.mark.parametrize(("optimiser", "change"), CHANGES)
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_options_changed_between_steps_count(
    optimiser: Callable[[nn.Module], Any], change: Any, max_norm: float | None
) -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["relu"])
        made = optimiser(model)
        runs.append(
            run(kind, model, nn.CrossEntropyLoss(), made, batches(), change, max_norm=max_norm)
        )
    assert_same_run(*runs)


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 4),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_scheduler_sets_the_rate_of_the_next_step(schedule: str) -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["tanh"])
        optimizer = sgd(model)
        scheduler = SCHEDULES[schedule](optimizer)

        def between(i: int, _: Any, scheduler: Any = scheduler) -> None:
            if i % 3 == 2:
                scheduler.step()

        runs.append(run(kind, model, nn.CrossEntropyLoss(), optimizer, batches(), between))
    assert_same_run(*runs)


@pytest.mark.parametrize("optimiser", [sgd, adam])
def test_state_loaded_midway_is_used(optimiser: Callable[[nn.Module], Any]) -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["gelu"])
        made, kept = optimiser(model), {}

        def between(i: int, o: Any, model: Any = model, kept: Any = kept) -> None:
            if i == 5:
                kept["model"] = copy.deepcopy(model.state_dict())
                kept["optimiser"] = copy.deepcopy(o.state_dict())
            if i == 13:
                model.load_state_dict(kept["model"])
                o.load_state_dict(kept["optimiser"])

        runs.append(run(kind, model, nn.CrossEntropyLoss(), made, batches(), between))
    assert_same_run(*runs)


@pytest.mark.parametrize("network", ["silu", "dropout"])
@pytest.mark.parametrize("optimiser", [sgd, adam])
def test_steps_may_be_mixed_with_the_long_form(
    network: str, optimiser: Callable[[nn.Module], Any]
) -> None:
    def mixed(model: Any, loss_fn: Any, made: Any) -> Callable[[Any, Any], Any]:
        steps = [kind(model, loss_fn, made) for kind in (tg.TrainStep, LongForm, tg.TrainStep)]
        count = iter(range(STEPS))
        return lambda x, t: steps[(next(count) // 2) % 3](x, t)

    runs = []
    for kind in (mixed, LongForm):
        model = build(NETWORKS[network])
        made = optimiser(model)
        runs.append(run(kind, model, nn.CrossEntropyLoss(), made, batches()))
    assert_same_run(*runs)


def test_a_layer_frozen_and_thawed_between_steps() -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["relu"])

        def between(i: int, _: Any, model: Any = model) -> None:
            model[0].requires_grad_(not 5 <= i < 11)
            model[2].bias.requires_grad = i != 8

        runs.append(run(kind, model, nn.CrossEntropyLoss(), sgd(model), batches(), between))
    assert_same_run(*runs)


def test_layers_and_options_changed_between_steps_count() -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = nn.Sequential(*build(NETWORKS["relu"]), nn.LeakyReLU(0.1))
        loss = nn.CrossEntropyLoss(weight=np.ones(CLASSES, np.float32))

        def between(i: int, _: Any, model: Any = model, loss: Any = loss) -> None:
            if i == 3:
                model[0].activation = "tanh"
            if i == 5:
                model[len(model) - 1] = nn.LeakyReLU(0.9)
            if i == 7:
                loss.label_smoothing = 0.3
            if i == 9:
                loss.weight = np.linspace(0.5, 2, CLASSES, dtype=np.float32)

        runs.append(run(kind, model, loss, sgd(model), batches(), between))
    assert_same_run(*runs)


def test_data_assigned_between_steps_is_used() -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["relu"])

        def between(i: int, _: Any, model: Any = model) -> None:
            if i == 6:
                model[1].weight.data = model[1].weight.data * np.float32(0.5)

        runs.append(run(kind, model, nn.CrossEntropyLoss(), sgd(model), batches(), between))
    assert_same_run(*runs)


def test_evaluation_in_between_changes_nothing() -> None:
    runs = []
    for kind in (tg.TrainStep, LongForm):
        model = build(NETWORKS["dropout"])
        x = batches()[0][0]

        def between(i: int, _: Any, model: Any = model, kind: Any = kind, x: Any = x) -> None:
            if kind is tg.TrainStep:
                assert model.predict(x).shape == (16, CLASSES)

        runs.append(run(kind, model, nn.CrossEntropyLoss(), sgd(model), batches(), between))
    assert_same_run(*runs)
    assert runs[0][0].training


def test_forward_backward_and_update_are_the_halves_of_a_step() -> None:
    data, results = batches(), []
    for halves in (False, True):
        model = build(NETWORKS["relu"])
        optimizer = adam(model)
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer, max_norm=0.5, accumulate=2)
        losses = []
        for i, (x, t) in enumerate(data[:-1]):
            losses.append((step.forward_backward if halves else step)(x, t))
            if halves and i % 2:
                step.update()
        results.append((model, optimizer, losses))
    assert_same_run(*results)


def test_update_without_a_gradient_is_refused() -> None:
    model = build(NETWORKS["relu"])
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
    with pytest.raises(RuntimeError, match=r"^TrainStep\.update: call forward_backward first"):
        step.update()
    step(*batches()[0])
    with pytest.raises(RuntimeError, match=r"^TrainStep\.update: call forward_backward first"):
        step.update()


def test_the_loss_is_a_scalar_of_its_own() -> None:
    model = build(NETWORKS["relu"])
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
    losses = [step(x, t) for x, t in batches()]
    assert all(isinstance(loss, np.float32) for loss in losses)
    assert len(set(losses)) == STEPS


def test_batches_of_another_library_are_read(threads: int) -> None:
    results = []
    for wrap in (lambda a: a, torch.from_numpy):
        model = build(NETWORKS["relu"])
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
        results.append([step(wrap(x), wrap(t)) for x, t in batches()])
    assert results[0] == results[1]


# ---- what is refused ------------------------------------------------------------------------


class Doubled(nn.Module):
    """A module of a user, without a plan."""

    def forward(self, x: Any) -> Any:
        return 2 * x

    def backward(self, dy: Any, input_grad: bool = True) -> Any:
        return 2 * dy if input_grad else None


class NoLoss(nn.Loss):
    """A loss of a user, without a plan."""

    _op = "mse_loss"

    def __init__(self) -> None:
        super().__init__("mean")


def test_what_has_no_plan_is_named() -> None:
    x, t = batches()[0]
    model = nn.Sequential(nn.Linear(FEATURES, 3), Doubled(), nn.Linear(3, CLASSES))
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^TrainStep: Doubled has no plan.*long form"):
            step(x, t)
    fine = build(NETWORKS["relu"])
    with pytest.raises(TypeError, match=r"^TrainStep: NoLoss has no plan"):
        tg.TrainStep(fine, NoLoss(), sgd(fine))(x, t)
    with pytest.raises(TypeError, match=r"^TrainStep: function has no plan"):
        tg.TrainStep(fine, lambda y, t: 0, sgd(fine))
    with pytest.raises(ValueError, match=r"^TrainStep: .*reduction.*'none'"):
        tg.TrainStep(fine, nn.CrossEntropyLoss(reduction="none"), sgd(fine))(x, t)
    LongForm(model, nn.CrossEntropyLoss(), sgd(model))(x, t)  # the way out that the text names


BAD_BATCHES: dict[str, tuple[Callable[[Any, Any], tuple[Any, Any]], Any, str]] = {
    "target-too-big": (lambda x, t: (x, np.where(t == t[3], 5, t)), ValueError, r"\[0, 5\).*got 5"),
    "target-negative": (lambda x, t: (x, np.where(t == t[3], -7, t)), ValueError, "got -7"),
    "x-list": (lambda x, t: (x.tolist(), t), TypeError, "x must be a numpy.ndarray.*list"),
    "target-list": (lambda x, t: (x, t.tolist()), TypeError, "target must be .*list"),
    "features": (lambda x, t: (x[:, 1:], t), ValueError, r"\(16, 11\)"),
    "x-float64": (lambda x, t: (x.astype("f8"), t), TypeError, "float64"),
    "x-integer": (lambda x, t: (x.astype("i8"), t), TypeError, "int64"),
    "x-swapped": (lambda x, t: (x.astype(x.dtype.newbyteorder()), t), TypeError, "byte"),
    "rows": (lambda x, t: (x, t[:-1]), ValueError, r"class indices.*\(16,\).*\(15,\)"),
    "target-floats": (lambda x, t: (x, t.astype("f4")), ValueError, "class probabilities.*integer"),
    "target-bool": (lambda x, t: (x, t > 2), TypeError, "bool"),
    "x-scalar": (lambda x, t: (np.float32(1), t), (TypeError, ValueError), "TrainStep|linear"),
}


@pytest.mark.parametrize("bad", BAD_BATCHES)
@pytest.mark.parametrize("network", ["relu", "dropout"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bad_batch_leaves_everything_as_it_was(bad: str, network: str, accumulate: int) -> None:
    make_bad, kind, text = BAD_BATCHES[bad]
    runs = []
    for step_type in (tg.TrainStep, LongForm):
        model = build(NETWORKS[network])
        optimizer = adam(model)
        tg.manual_seed(5)
        step = step_type(model, nn.CrossEntropyLoss(), optimizer, accumulate=accumulate)
        losses = []
        for i, (x, t) in enumerate(batches()[:9]):
            if step_type is tg.TrainStep and i in (0, 4, 5):
                state = tg._random.get_state()
                with pytest.raises(kind, match=f"(?s){text}"):
                    step(*make_bad(x, t))
                tg._random.set_state(state)  # words drawn by the batch that failed are gone
            losses.append(step(x, t))
        runs.append((model, optimizer, losses))
    assert_same_run(*runs)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_norm": -1.0}, "max_norm must be at least 0; got -1"),
        ({"max_norm": math.nan}, "max_norm must be at least 0; got nan"),
        ({"accumulate": 0}, "accumulate must be at least 1; got 0"),
    ],
)
def test_illegal_options_are_refused(options: dict[str, Any], text: str) -> None:
    model = build(NETWORKS["relu"])
    with pytest.raises(ValueError, match=f"^TrainStep: {text}"):
        tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model), **options)


def test_a_parameter_shared_by_two_layers_is_refused() -> None:
    first, second = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, FEATURES)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model))
    with pytest.raises(RuntimeError, match=r"^TrainStep: a parameter is used by two modules"):
        step(*batches()[0])


def test_an_input_changed_after_the_step_does_not_matter() -> None:
    results = []
    for scribble in (False, True):
        model = build(NETWORKS["relu"])
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), sgd(model), accumulate=2)
        for x, t in batches():
            x, t = x.copy(), t.copy()
            step(x, t)
            if scribble:
                x[...], t[...] = np.nan, -1
        results.append(model)
    for p, q in zip(results[0].parameters(), results[1].parameters(), strict=True):
        assert_same_bits(p.data, q.data)
