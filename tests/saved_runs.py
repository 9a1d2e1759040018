# SPDX-License-Identifier: MIT
"""What the tests of save and load train, save and compare."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tilegrad import TrainStep, _random, manual_seed, nn, optim
from tilegrad._callbacks import Callback, EarlyStopping, History
from tilegrad._save import load, save
from tilegrad.data import DataLoader

X = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
Y = np.arange(20) % 2


class Run:
    """A model and everything that belongs to its training."""

    def __init__(self, seed: int = 0, kind: type[optim.Optimizer] = optim.Adam, **options: Any):
        manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(3, 4, activation="tanh"), nn.Dropout(0.3), nn.Linear(4, 2)
        )
        first, _, second = self.model
        groups = [
            {"params": list(first.parameters()), "lr": 0.05},
            {"params": list(second.parameters())},
        ]
        self.optimizer = kind(groups, lr=0.1, **options)  # type: ignore[call-arg,arg-type]
        self.scheduler = optim.lr_scheduler.StepLR(self.optimizer, 1, 0.5)
        self.loader = DataLoader(X, Y, batch_size=6, shuffle=True, seed=seed)
        self.stopping = EarlyStopping("train_loss", patience=4)
        self.history = History()

    def steps(self, count: int) -> None:
        """Train on so many batches; the schedule moves on at the end of each epoch."""
        step = TrainStep(self.model, nn.CrossEntropyLoss(), self.optimizer)
        while count:
            for x, y in self.loader:
                loss = float(step(x, y))
                count -= 1
                if self.loader.position == len(self.loader):
                    self.scheduler.step()
                    self.history.add(train_loss=loss)
                    if self.stopping.improved(loss):
                        self.stopping._weights = copy.deepcopy(self.model.state_dict())
                if not count:
                    return

    def save(self, path: Path) -> None:
        save(
            path, self.model, self.optimizer, self.scheduler, self.loader,
            callbacks=[self.stopping], history=self.history,
        )  # fmt: skip

    def load(self, path: Path) -> None:
        load(
            path, self.model, self.optimizer, self.scheduler, self.loader,
            callbacks=[self.stopping], history=self.history,
        )  # fmt: skip

    def state(self) -> str:
        """Everything, to the last bit, as a text to compare."""
        parts = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "loader": self.loader.state_dict(),
            "stopping": self.stopping.state_dict(),
            "history": self.history.state_dict(),
            "random": _random.get_state(),
        }
        return repr(bits(parts))


def bits(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return {str(key): bits(v) for key, v in sorted(value.items(), key=str)}
    return [bits(v) for v in value] if isinstance(value, list) else value


class Counter(Callback):
    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]
