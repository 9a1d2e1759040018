# SPDX-License-Identifier: MIT
"""Schedules inside fit and in files: what a plateau is measured by, and what is saved."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fit_runs import TRAIN, VALIDATION, Run, network, quick
from saved_runs import Counter
from tilegrad import manual_seed, nn, optim
from tilegrad._save import load, save
from tilegrad.optim.lr_scheduler import (
    LambdaLR,
    LinearLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)


@pytest.mark.parametrize(
    ("monitor", "mode", "validated"),
    [
        (None, "min", True),
        (None, "min", False),
        ("val_accuracy", "max", True),
        ("train_accuracy", "max", False),
        ("train_loss", "min", True),
    ],
)
def test_a_plateau_sees_what_torchs_would_be_given(
    monitor: str | None, mode: str, validated: bool
) -> None:
    manual_seed(1)
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    options: dict[str, Any] = {"mode": mode, "factor": 0.5, "patience": 1, "threshold": 0.05}
    history = quick(
        model=model, optimizer=optimizer, scheduler=ReduceLROnPlateau(optimizer, **options),
        epochs=25, validation=VALIDATION if validated else None,
        **({} if monitor is None else {"monitor": monitor}),
    )  # fmt: skip
    series = getattr(history, monitor or ("val_loss" if validated else "train_loss"))
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)  # type: ignore[arg-type]
    for used, measured in zip(history.learning_rate, series, strict=True):
        assert used == theirs.param_groups[0]["lr"]
        theirs.step()
        schedule.step(measured)
    assert history.learning_rate[-1] < 0.1  # it was lowered more than once


def test_a_monitor_that_nobody_can_read_is_refused_before_training() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    plateau = ReduceLROnPlateau(optimizer)
    before = [p.data.copy() for p in model.parameters()]
    cases: list[tuple[Any, Any, str]] = [
        (plateau, "seconds", "fit: monitor must be one of .*; got 'seconds'"),
        (plateau, "val_loss", "fit: monitor 'val_loss' needs validation data"),
        (StepLR(optimizer, 1), "train_loss", "is for a ReduceLROnPlateau; got 'train_loss'"),
        (None, "train_loss", "is for a ReduceLROnPlateau; got 'train_loss'"),
    ]
    for scheduler, monitor, text in cases:
        with pytest.raises(ValueError, match=text):
            quick(model=model, optimizer=optimizer, scheduler=scheduler, monitor=monitor)
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, old)


def test_an_accuracy_that_is_not_measured_is_an_error() -> None:
    model = nn.Linear(4, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    targets = np.eye(3, dtype=np.float32)[TRAIN[1]]
    with pytest.raises(ValueError, match="fit: train_accuracy was not measured"):
        quick(
            model=model, optimizer=optimizer, loss_fn=nn.MSELoss(), data=(TRAIN[0], targets),
            scheduler=ReduceLROnPlateau(optimizer, "max"), monitor="train_accuracy",
        )  # fmt: skip


def test_warm_up_by_epochs_is_seen_in_the_history() -> None:
    run = Run("warm-up", 1)
    history = run.fit(5)
    third = 0.2 / 3
    want = [third, 2 * third, 0.2, 0.2 * 0.7, 0.2 * 0.49]
    assert history.learning_rate == pytest.approx(want, rel=1e-12)


# ---- files --------------------------------------------------------------------------------------


class Decay:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, epoch: int) -> float:
        return self.rate**epoch


def make(kind: str, rate: float) -> tuple[nn.Module, optim.Optimizer, Any]:
    model = nn.Linear(2, 2)
    optimizer = optim.RMSprop(model.parameters(), lr=1.0)
    if kind == "plateau":
        return model, optimizer, ReduceLROnPlateau(optimizer, factor=rate, patience=1)
    parts = [LinearLR(optimizer, rate, total_iters=3), LambdaLR(optimizer, Decay(rate))]
    return model, optimizer, SequentialLR(optimizer, parts, [3])


def advance(schedule: Any, times: int) -> list[float]:
    rates = []
    for _ in range(times):
        schedule.step(*([1.0] if isinstance(schedule, ReduceLROnPlateau) else []))
        rates += schedule.get_last_lr()
    return rates


@pytest.mark.parametrize("kind", ["plateau", "sequence"])
@pytest.mark.parametrize("done", [0, 2, 6])
def test_a_file_keeps_the_schedule(tmp_path: Path, kind: str, done: int) -> None:
    model, optimizer, schedule = make(kind, 0.5)
    advance(schedule, done)
    save(tmp_path / "file", model, optimizer, schedule)
    again, other, resumed = make(kind, 0.25)
    load(tmp_path / "file", again, other, resumed)
    assert resumed.state_dict() == schedule.state_dict()
    assert resumed.get_last_lr() == schedule.get_last_lr()
    assert advance(resumed, 8) == advance(schedule, 8)


@pytest.mark.parametrize("kind", ["plateau", "sequence"])
def test_a_file_that_fails_half_way_leaves_the_schedule_as_it_was(
    tmp_path: Path, kind: str
) -> None:
    class Broken(Counter):
        broken = True

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            if self.broken:
                self.broken = False  # the way back must work
                raise ValueError("broken")

    model, optimizer, schedule = make(kind, 0.5)
    advance(schedule, 5)
    save(tmp_path / "file", model, optimizer, schedule, callbacks=[Broken(1)])
    again, other, resumed = make(kind, 0.25)
    advance(resumed, 2)
    before = copy.deepcopy((resumed.state_dict(), other.param_groups[0]["lr"]))
    with pytest.raises(ValueError, match="broken"):
        load(tmp_path / "file", again, other, resumed, callbacks=[Broken(2)])
    assert (resumed.state_dict(), other.param_groups[0]["lr"]) == before
