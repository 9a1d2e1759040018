# SPDX-License-Identifier: MIT
"""SequentialLR (warm-up) and ReduceLROnPlateau beside torch's, in long random runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from test_lr_scheduler import BASE_RATES, our_optimiser, rates, their_optimiser
from tilegrad.optim import lr_scheduler

Build = Callable[[Any, Any], Any]  # from a module and an optimiser
THEIRS = torch.optim.lr_scheduler

SEQUENCES: dict[str, Build] = {
    "warm-up": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 20, 1e-3)], [5]
    ),
    "three": lambda m, o: m.SequentialLR(
        o, [m.ConstantLR(o, 0.5, 3), m.ExponentialLR(o, 0.9), m.StepLR(o, 4, 0.5)], [4, 11]
    ),
    "no-warm-up": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.1, total_iters=0), m.ExponentialLR(o, 0.9)], [0]
    ),
    "skipped": lambda m, o: m.SequentialLR(
        o, [m.ExponentialLR(o, 0.8), m.StepLR(o, 1), m.ConstantLR(o, 0.3, 2)], [5, 5]
    ),
    "lambda": lambda m, o: m.SequentialLR(
        o, [m.LambdaLR(o, lambda t: 1 / (1 + t)), m.MultiStepLR(o, [2, 9], 0.3)], [6]
    ),
    "lambda-last": lambda m, o: m.SequentialLR(
        o, [m.MultiStepLR(o, [0, 2], 0.3), m.LambdaLR(o, lambda t: 0.9 ** (t + 1))], [4]
    ),
    "alone": lambda m, o: m.SequentialLR(o, [m.StepLR(o, 3, 0.7)], []),
}
ALONE: dict[str, Build] = {
    "step": lambda m, o: m.StepLR(o, 3, 0.9),
    "multi-step": lambda m, o: m.MultiStepLR(o, range(0, 200, 7), 0.95),
    "exponential": lambda m, o: m.ExponentialLR(o, 0.99),
    "cosine": lambda m, o: m.CosineAnnealingLR(o, 30, 1e-3),
    "linear": lambda m, o: m.LinearLR(o, 0.2, 0.7, 40),
    "constant": lambda m, o: m.ConstantLR(o, 0.2, 25),
    "lambda": lambda m, o: m.LambdaLR(o, [lambda t: 0.99**t, lambda t: 1 + t % 3]),
}
PLATEAUS: dict[str, dict[str, Any]] = {
    "default": {},
    "impatient": {"patience": 0, "factor": 0.5},
    "max": {"mode": "max", "patience": 2, "factor": 0.3},
    "max-abs": {"mode": "max", "threshold_mode": "abs", "threshold": 0.3, "patience": 1},
    "min-abs": {"threshold_mode": "abs", "threshold": 0.5, "patience": 1, "factor": 0.9},
    "large-threshold": {"threshold": 0.2, "patience": 1, "factor": 0.8},
    "threshold-above-1": {"threshold": 1.5, "patience": 3, "factor": 0.8},
    "cooldown": {"patience": 1, "cooldown": 4, "factor": 0.7},
    "min_lr": {"patience": 0, "min_lr": 0.01},
    "min_lrs": {"patience": 0, "min_lr": [0.1, 0.001], "factor": 0.6},
    "eps": {"patience": 0, "factor": 0.9, "eps": 1e-3},
}


def assert_same_rates(ours: Any, theirs: Any) -> None:
    assert rates(ours) == pytest.approx(rates(theirs), rel=1e-12, abs=1e-15)


def random_run(
    build: Build, seed: int, metric: Callable[[np.random.Generator], tuple[Any, ...]]
) -> None:
    """Both libraries through the same steps, rates set by hand, and states saved and loaded."""
    rng = np.random.default_rng(seed)
    sides = [(lr_scheduler, our_optimiser), (THEIRS, their_optimiser)]
    optimisers = [make() for _, make in sides]
    schedules = [build(m, o) for (m, _), o in zip(sides, optimisers, strict=True)]
    assert_same_rates(*optimisers)
    for _ in range(150):
        action = rng.integers(0, 12)
        if action == 0:  # a rate set by hand
            group, rate = int(rng.integers(0, 2)), float(rng.uniform(0.001, 0.5))
            for optimiser in optimisers:
                optimiser.param_groups[group]["lr"] = rate
        elif action == 1:  # a run that stops and is taken up again
            again = [make() for _, make in sides]
            resumed = [build(m, o) for (m, _), o in zip(sides, again, strict=True)]
            for old, new in ((optimisers, again), (schedules, resumed)):
                for a, b in zip(old, new, strict=True):
                    b.load_state_dict(copy.deepcopy(a.state_dict()))
            optimisers, schedules = again, resumed
        else:
            given = metric(rng)
            for optimiser, schedule in zip(optimisers, schedules, strict=True):
                optimiser.step()
                schedule.step(*given)
            assert schedules[0].get_last_lr() == rates(optimisers[0])
        assert_same_rates(*optimisers)
        assert schedules[0].last_epoch == schedules[1].last_epoch


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", [*SEQUENCES, *(f"{name}-alone" for name in ALONE)])
def test_schedules_follow_torch_through_random_runs(name: str, seed: int) -> None:
    build = SEQUENCES[name] if name in SEQUENCES else ALONE[name.removesuffix("-alone")]
    random_run(build, seed, lambda rng: ())


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PLATEAUS)
def test_plateau_follows_torch_through_random_runs(name: str, seed: int) -> None:
    def metric(rng: np.random.Generator) -> tuple[Any, ...]:
        odd = rng.integers(0, 20)
        value = {0: math.nan, 1: math.inf, 2: -1.0}.get(int(odd), float(rng.uniform(0, 2)))
        return (np.float32(value) if odd % 2 else value,)

    random_run(lambda m, o: m.ReduceLROnPlateau(o, **PLATEAUS[name]), seed, metric)


# ---- SequentialLR -------------------------------------------------------------------------------


def test_warm_up_is_linear_and_then_the_decay_begins_at_the_initial_rate() -> None:
    optimiser = our_optimiser()
    schedule = SEQUENCES["warm-up"](lr_scheduler, optimiser)
    for t in range(25):
        share = 0.1 + 0.9 * t / 5
        if t >= 5:
            share = (1 + math.cos(math.pi * (t - 5) / 20)) / 2
        want = [b * share if t < 5 else 1e-3 + (b - 1e-3) * share for b in BASE_RATES]
        assert rates(optimiser) == pytest.approx(want, rel=1e-11)
        schedule.step()


def test_a_sequence_may_be_part_of_a_sequence() -> None:
    """torch's outer one begins the inner one an epoch too late."""
    nested, flat = our_optimiser(), our_optimiser()
    m = lr_scheduler

    def parts(o: Any) -> list[Any]:
        return [m.ConstantLR(o, 0.5, 2), m.ExponentialLR(o, 0.9), m.StepLR(o, 2, 0.5)]

    a, b, c = parts(nested)
    one = m.SequentialLR(nested, [m.SequentialLR(nested, [a, b], [3]), c], [7])
    other = m.SequentialLR(flat, parts(flat), [3, 7])
    for epoch in range(15):
        assert rates(nested) == rates(flat), epoch
        if epoch == 5:
            saved = copy.deepcopy(one.state_dict())
        one.step()
        other.step()
    one.load_state_dict(saved)
    assert (one.last_epoch, b.last_epoch) == (5, 2)


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    optimiser, other = our_optimiser(), our_optimiser()
    m = lr_scheduler
    step, foreign = m.StepLR(optimiser, 3), m.StepLR(other, 3)
    plateau = m.ReduceLROnPlateau(optimiser)
    cases: list[tuple[Any, type[Exception], str]] = [
        (([], []), ValueError, "at least one; got none"),
        (([step, foreign], [2]), ValueError, "of this optimizer; got another's at 1"),
        (([step, plateau], [2]), ValueError, "cannot be in a sequence; got one at 1"),
        (([step, 3.0], [2]), TypeError, "must be LRSchedulers; got float at 1"),
        (([step, step], []), ValueError, "2 schedulers need 1 milestones; got 0"),
        (([step], [4]), ValueError, "1 schedulers need 0 milestones; got 1"),
        (([step, step, step], [5, 4]), ValueError, r"in order; got \[5, 4\]"),
        (([step, step], [-1]), ValueError, r"in order; got \[-1\]"),
        (([step], [], 3), ValueError, "last_epoch must be -1 .*load_state_dict.*; got 3"),
    ]
    before = step.state_dict()
    for arguments, error, text in cases:
        with pytest.raises(error, match=f"^SequentialLR: .*{text}"):
            m.SequentialLR(optimiser, *arguments)
        assert step.state_dict() == before
        assert rates(optimiser) == BASE_RATES


def test_a_state_that_does_not_fit_a_sequence_changes_nothing() -> None:
    schedule = SEQUENCES["three"](lr_scheduler, our_optimiser())
    for _ in range(6):
        schedule.step()
    before = copy.deepcopy(schedule.state_dict())
    parts = before["_schedulers"]
    for bad in (parts[:2], [parts[0], parts[2], parts[1]], [*parts[:2], {}]):
        with pytest.raises(ValueError, match=r"load_state_dict: expected"):
            schedule.load_state_dict({**before, "last_epoch": 9, "_schedulers": bad})
        assert schedule.state_dict() == before


# ---- ReduceLROnPlateau --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"factor": 1.0}, r"factor must be finite and in \[0, 1\); got 1.0"),
        ({"factor": 2.0}, "factor must be .* got 2.0"),
        ({"factor": math.nan}, "factor must be .* got nan"),
        ({"mode": "median"}, "mode must be 'min' or 'max'; got 'median'"),
        ({"threshold_mode": "relative"}, "threshold_mode must be 'rel' or 'abs'; got 'relative'"),
        ({"patience": -1}, "patience must be .* got -1"),
        ({"cooldown": -1}, "cooldown must be .* got -1"),
        ({"threshold": math.nan}, "threshold must be .* got nan"),
        ({"eps": -1e-8}, "eps must be .* got -1e-08"),
        ({"min_lr": [0.1]}, "min_lr must be a number or one for each of 2 .* got 1"),
    ],
)
def test_illegal_options_of_plateau_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=f"^ReduceLROnPlateau: {text}"):
        lr_scheduler.ReduceLROnPlateau(our_optimiser(), **options)


def test_plateau_bounds_the_rates_of_groups_added_later() -> None:
    optimiser = our_optimiser()
    schedule = lr_scheduler.ReduceLROnPlateau(optimiser, patience=0, min_lr=0.1)
    fixed = lr_scheduler.ReduceLROnPlateau(optimiser, patience=0, min_lr=[0.1, 0.2])
    optimiser.add_param_group({"params": tg.nn.Parameter(np.zeros(1)), "lr": 0.5})
    for value in (1.0, 2.0):
        schedule.step(value)
    assert rates(optimiser) == [0.1, 0.025, 0.1]
    with pytest.raises(ValueError, match="each of 3 parameter groups; got 2"):
        fixed.step(1.0)


def test_plateau_without_a_measurement_is_an_error() -> None:
    schedule = lr_scheduler.ReduceLROnPlateau(our_optimiser())
    with pytest.raises(TypeError, match="metrics"):
        schedule.step()  # type: ignore[call-arg]
    for foreign in ({}, {**schedule.state_dict(), "colour": 1}):
        with pytest.raises(ValueError, match=r"ReduceLROnPlateau\.load_state_dict: expected"):
            schedule.load_state_dict(foreign)
