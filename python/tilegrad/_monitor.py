# SPDX-License-Identifier: MIT
"""Which measurement of an epoch a decision is made by, and the step of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilegrad.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

if TYPE_CHECKING:
    from tilegrad._callbacks import History


def check_monitor(owner: str, name: str) -> None:
    """Raise ValueError unless a name is that of a measurement to decide by."""
    names = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
    if name not in names:
        raise ValueError(f"{owner}: monitor must be one of {names}; got {name!r}")


def latest(history: History, name: str, owner: str) -> float:
    """Return a measurement of the last epoch, or raise ValueError if there is none."""
    series: list[float] = getattr(history, name)
    if not series:
        raise ValueError(
            f"{owner}: {name} was not measured; accuracy needs class indices as targets"
        )
    return series[-1]


def monitored(name: str | None, scheduler: LRScheduler | None, validated: bool) -> str:
    """Return the measurement that fit gives a ReduceLROnPlateau; refuse one that nobody reads."""
    if name is None:
        return "val_loss" if validated else "train_loss"
    if not isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError(f"fit: monitor is for a ReduceLROnPlateau; got {name!r} without one")
    check_monitor("fit", name)
    if name.startswith("val_") and not validated:
        raise ValueError(f"fit: monitor {name!r} needs validation data; got none")
    return name


def advance(scheduler: LRScheduler, history: History, watched: str) -> None:
    """Step a schedule after an epoch of fit."""
    if isinstance(scheduler, ReduceLROnPlateau):
        scheduler.step(latest(history, watched, "fit"))
    else:
        scheduler.step()
