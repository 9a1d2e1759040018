# SPDX-License-Identifier: MIT
"""What `fit` asks of the processes that train together; here of the one that trains alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tilegrad._fit_step import Step
from tilegrad.data import DataLoader
from tilegrad.nn.module import Module
from tilegrad.optim.optimizer import Optimizer


class Team:
    """One process; ``tilegrad.distributed._team`` has the team of several."""

    is_first = True  # the one that prints and writes
    size = 1

    @contextlib.contextmanager
    def guarded(self, checkpoint: str | None) -> Iterator[None]:
        """Tell the others of an exception in the block."""
        yield

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Raise ValueError if something differs between the processes."""

    def of_first(self, text: str) -> str:
        """Return what the first process gives."""
        return text

    def shard(self, loader: DataLoader) -> DataLoader:
        """Return the loader of this process's rows."""
        return loader

    def resume(self, path: str, load: Callable[[str], None]) -> bool:
        """Load the first process's checkpoint into all; return False if it is not there."""
        if not os.path.exists(path):
            return False
        load(path)
        return True

    @contextlib.contextmanager
    def step(
        self, model: Module, loss_fn: Module, optimizer: Optimizer, max_norm: float | None
    ) -> Iterator[Callable[[Any, Any], Any]]:
        """Give the training step; of what it returns the loss is that of the whole batch."""
        yield Step(model, loss_fn, optimizer, max_norm)

    def share(self, loss_fn: Module, target: Any) -> float:
        """Return how much these samples count for in the loss of a batch."""
        return 1.0

    def losses(self, parts: Sequence[tuple[float, float]], is_sum: bool) -> list[float]:
        """Return the losses of whole batches, of this process's losses and shares."""
        return [loss for loss, _ in parts]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return sums over the processes."""
        return list(values)

    def mean(self, value: float) -> float:
        """Return the mean over the processes."""
        return value

    def any(self, flag: bool) -> bool:
        """Return whether it is so in any process."""
        return flag
