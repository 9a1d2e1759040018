# SPDX-License-Identifier: MIT
"""The processes of `fit(..., distributed=True)`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tilegrad._team import Team
from tilegrad.data import DataLoader
from tilegrad.distributed._agree import compare
from tilegrad.distributed._group import LostRankError, current
from tilegrad.distributed._step import DistributedTrainStep, denominator
from tilegrad.nn.module import Module
from tilegrad.optim.optimizer import Optimizer


class Ranks(Team):
    """All ranks of the process group."""

    def __init__(self) -> None:
        self._group = current("fit")
        self.is_first = self._group.rank == 0
        self.size = self._group.world_size

    @contextlib.contextmanager
    def guarded(self, checkpoint: str | None) -> Iterator[None]:
        """Tell the others of an exception in the block; wait at its end until all are there."""
        try:
            with self._group.guarded():
                yield
                self.total([0.0])
        except LostRankError as error:
            if checkpoint is not None and checkpoint not in str(error):
                error.args = (f"{error}: {checkpoint}",)
            raise

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Raise the same ValueError on all ranks if something differs between them."""
        compare(self._group, "fit", {name: str(value) for name, value in facts.items()})

    def of_first(self, text: str) -> str:
        """Return what rank 0 gives."""
        return (self._group.broadcast_bytes(text.encode()) or b"").decode()

    def shard(self, loader: DataLoader) -> DataLoader:
        """Return the loader of this rank's rows."""
        return loader.shard(self._group.world_size, self._group.rank)

    def resume(self, path: str, load: Callable[[str], None]) -> bool:
        """Load rank 0's checkpoint; the others need no file of their own."""
        content = None
        if self.is_first and os.path.exists(path):
            load(path)  # first of all, so that a damaged file is refused under its own name
            with open(path, "rb") as file:
                content = file.read()
        content = self._group.broadcast_bytes(content)
        if content is not None and not self.is_first:
            with tempfile.TemporaryDirectory() as folder:
                copy = os.path.join(folder, os.path.basename(path))
                with open(copy, "xb") as file:
                    file.write(content)
                load(copy)
        return content is not None

    @contextlib.contextmanager
    def step(
        self, model: Module, loss_fn: Module, optimizer: Optimizer, max_norm: float | None
    ) -> Iterator[Callable[[Any, Any], Any]]:
        """Give the training step of all ranks."""
        step = DistributedTrainStep(model, loss_fn, optimizer, max_norm=max_norm)
        try:
            yield step
        finally:
            step.close()

    def share(self, loss_fn: Module, target: Any) -> float:
        """Return what the mean over these samples divides by."""
        return denominator(loss_fn, target)

    def losses(self, parts: Sequence[tuple[float, float]], is_sum: bool) -> list[float]:
        """Return the losses of whole batches."""
        if is_sum:
            return self.total([loss for loss, _ in parts])
        sums = self.total([loss * share if share else 0.0 for loss, share in parts])
        shares = self.total([share for _, share in parts])
        return [
            total / share if share else float("nan")
            for total, share in zip(sums, shares, strict=True)
        ]

    def total(self, values: Sequence[float]) -> list[float]:
        """Return sums over the ranks, the same bits on all."""
        return self._group.total([float(value) for value in values])

    def mean(self, value: float) -> float:
        """Return the mean over the ranks."""
        return self.total([value])[0] / self._group.world_size

    def any(self, flag: bool) -> bool:
        """Return whether it is so on any rank."""
        return self.total([flag])[0] > 0
