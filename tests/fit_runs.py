# SPDX-License-Identifier: MIT
"""What the tests of fit train and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tilegrad import _random, manual_seed, nn, optim
from tilegrad._callbacks import EarlyStopping, History
from tilegrad._fit import fit
from tilegrad.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

_rng = np.random.default_rng(7)
Y = _rng.integers(0, 3, 120)
X = (_rng.standard_normal((120, 4)) + np.eye(3, 4)[Y] * 3).astype(np.float32)
TRAIN, VALIDATION = (X[:90], Y[:90]), (X[90:], Y[90:])


def network(dropout: float = 0.2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8, activation="gelu"), nn.Dropout(dropout), nn.Linear(8, 3))


class Run:
    """One configuration of everything; equal seeds make equal runs."""

    def __init__(self, name: str, seed: int) -> None:
        manual_seed(seed)
        self.model = network()
        parameters = list(self.model.parameters())
        self.optimizer: optim.Optimizer
        self.scheduler: LRScheduler | None = None
        self.options: dict[str, Any] = {}
        if name == "adam":
            self.optimizer = optim.Adam(parameters, lr=0.02)
            self.scheduler = StepLR(self.optimizer, 2, 0.5)
        elif name == "momentum":
            self.optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9)
            self.scheduler = CosineAnnealingLR(self.optimizer, 5)
            self.options["max_norm"] = 0.5
        elif name == "plateau":
            self.optimizer = optim.RMSprop(parameters, lr=0.003, momentum=0.5, centered=True)
            self.scheduler = ReduceLROnPlateau(self.optimizer, "min", 0.5, 0, 0.5)
        elif name == "warm-up":
            self.optimizer = optim.Adagrad(parameters, lr=0.2, lr_decay=0.01, l1_decay=1e-3)
            parts = [LinearLR(self.optimizer, total_iters=2), StepLR(self.optimizer, 1, 0.7)]
            self.scheduler = SequentialLR(self.optimizer, parts, [2])
        else:
            self.optimizer = optim.AdamW(parameters, lr=0.01, amsgrad=True)
        self.stopping = EarlyStopping("val_loss", patience=2)
        self.seed = seed

    def fit(self, epochs: int, checkpoint: Path | None = None, **options: Any) -> History:
        self.history = fit(
            self.model, nn.CrossEntropyLoss(), self.optimizer, TRAIN, VALIDATION, epochs=epochs,
            batch_size=16, callbacks=[self.stopping], checkpoint=checkpoint, progress=False,
            scheduler=self.scheduler, seed=self.seed, **self.options, **options,
        )  # fmt: skip
        self.random = _random.get_state()
        return self.history

    def state(self) -> str:
        history = self.history.to_dict()
        del history["seconds"], history["samples_per_second"]
        state = {
            "model": {k: v.tobytes() for k, v in self.model.state_dict().items()},
            "optimizer": [
                {k: v if k == "step" else v.tobytes() for k, v in sorted(state.items())}
                for state in self.optimizer.state_dict()["state"].values()
            ],
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "stopping": (self.stopping.best, self.stopping.bad, self.stopping.stopped),
            "history": history,
            "random": self.random,
        }
        return repr(state)


def quick(**options: Any) -> History:
    """A short run with what is not given."""
    model = options.pop("model", None) or network()
    optimizer = options.pop("optimizer", None) or optim.Adam(model.parameters(), lr=0.02)
    loss_fn = options.pop("loss_fn", None) or nn.CrossEntropyLoss()
    data = options.pop("data", TRAIN)
    options = {"epochs": 2, "progress": False, **options}
    return fit(model, loss_fn, optimizer, data, options.pop("validation", None), **options)


class Handmade(nn.Module):
    """A network without a plan."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, input: Any) -> Any:
        return self.inside(input)

    def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
        return self.inside.backward(grad_output, input_grad)
