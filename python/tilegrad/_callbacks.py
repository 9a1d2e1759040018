# SPDX-License-Identifier: MIT
"""What ``fit`` tells and asks while it trains: history, callbacks, early stopping, progress."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from numpy.typing import NDArray

from tilegrad._monitor import check_monitor, latest
from tilegrad.nn.module import Module
from tilegrad.optim.lr_scheduler import LRScheduler
from tilegrad.optim.optimizer import Optimizer


@dataclass
class History:
    """What was measured in each epoch, one entry an epoch; the data of learning curves.

    ``epochs``, ``train_loss``, ``learning_rate``, ``seconds`` and ``samples_per_second`` are always
    there. ``train_accuracy``, ``val_loss`` and ``val_accuracy`` are empty where they were never
    measured, else as long as ``epochs``, with NaN for an epoch without it.

    Args:
        epochs: Numbers of the epochs, from 1.
        train_loss: Mean over the epoch's samples of the loss in training mode, each batch before
            its own update.
        train_accuracy: Share of correct classes in eval mode after the epoch, on rows of the
            training set (see ``fit``).
        val_loss: Mean loss of the validation samples in eval mode after the epoch.
        val_accuracy: Share of correct classes in the validation set, likewise.
        learning_rate: Rate of the first parameter group in the epoch.
        seconds: Time of the epoch's loop over the batches, without the evaluation.
        samples_per_second: Samples trained on in a second of that time.

    Example:
        >>> history = History()
        >>> history.add(train_loss=1.0, val_loss=0.5)
        >>> history.add(train_loss=0.25, val_loss=0.75)
        >>> history.epochs, history.val_loss, history.best_epoch
        ([1, 2], [0.5, 0.75], 1)
    """

    epochs: list[int] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    samples_per_second: list[float] = field(default_factory=list)

    @property
    def best_epoch(self) -> int | None:
        """Number of the epoch of the lowest validation loss, without one of the training loss.

        The first of equals; None before the first epoch with a loss that is a number.
        """
        losses = self.val_loss or self.train_loss
        known = [pair for pair in zip(losses, self.epochs, strict=True) if not math.isnan(pair[0])]
        return min(known)[1] if known else None

    def add(self, **values: float | None) -> None:
        """Append an epoch.

        Args:
            **values: By the names of the lists; None or absent where not measured.
        """
        done = len(self.epochs)
        self.epochs.append(self.epochs[-1] + 1 if done else 1)
        for name, value in values.items():
            if value is not None and not getattr(self, name):
                getattr(self, name).extend([math.nan] * done)
        for name, series in self._series().items():
            value = values.get(name)
            if value is not None or series:
                series.append(math.nan if value is None else float(value))

    def last(self) -> dict[str, float]:
        """Return the measurements of the latest epoch, by name; NaN where one was not made."""
        return {name: series[-1] for name, series in self._series().items() if series}

    def to_dict(self) -> dict[str, Any]:
        """Return the lists and ``best_epoch``, fit for JSON: None stands for NaN and infinity.

        Returns:
            A dict of new lists.
        """
        lists: dict[str, Any] = {"epochs": list(self.epochs)}
        for name, series in self._series().items():
            lists[name] = [value if math.isfinite(value) else None for value in series]
        return {**lists, "best_epoch": self.best_epoch}

    def state_dict(self) -> dict[str, Any]:
        """Return the lists as they are, for a checkpoint."""
        return {"epochs": list(self.epochs), **{k: list(v) for k, v in self._series().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over saved lists.

        Raises:
            ValueError: Other names, or lists that do not fit together; nothing is changed.
        """
        names = [f.name for f in fields(self)]
        if set(state) != set(names):
            raise ValueError(f"History: the lists must be {names}; got {sorted(state)}")
        new = {name: list(state[name]) for name in names}
        if new["epochs"] != list(range(1, len(new["epochs"]) + 1)):
            raise ValueError(f"History: epochs must count from 1; got {new['epochs']}")
        for name, series in new.items():
            if len(series) not in (0, len(new["epochs"])):
                raise ValueError(
                    f"History: {name} must have {len(new['epochs'])} entries; got {len(series)}"
                )
            kinds = (int,) if name == "epochs" else (int, float)
            if not all(isinstance(v, kinds) and not isinstance(v, bool) for v in series):
                raise ValueError(f"History: {name} must hold numbers; got {series}")
        vars(self).update(new)

    def _series(self) -> dict[str, list[float]]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "epochs"}


@dataclass
class Training:
    """The state of a run of ``fit`` as its callbacks see it.

    Args:
        model: The model.
        loss_fn: The loss.
        optimizer: The optimiser.
        scheduler: The learning-rate schedule or None.
        history: What was measured so far.
        epochs: Number of the last epoch to train.
        batches: Batches in an epoch.
        epoch: Number of the present epoch, from 1; 0 before the first.
        batch: Batches done in the present epoch.
        latest: Loss of the latest batch, as the step returned it: on a device it may not be there
            yet. ``loss`` waits for it.
        validated: Whether there is a validation set.
        stop: Set it to end training after this epoch.
    """

    model: Module
    loss_fn: Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    history: History
    epochs: int
    batches: int
    epoch: int = 0
    batch: int = 0
    latest: Any = field(default=math.nan, repr=False)
    validated: bool = False
    stop: bool = False

    @property
    def loss(self) -> float:
        """Loss of the latest batch."""
        return float(self.latest)


class Callback:
    """Base class of what ``fit`` calls; a subclass defines the methods that it needs.

    Each takes the run's state, a ``Training``. An exception ends the training and reaches fit's
    caller. What a callback wants to keep in checkpoints it returns from ``state_dict``: numbers,
    strings, lists, dicts with string keys and NumPy arrays.

    Example:
        >>> import numpy as np, tilegrad as tg
        >>> class Rates(Callback):
        ...     def on_epoch_end(self, training):
        ...         print(training.epoch, training.history.learning_rate[-1])
        >>> model = tg.nn.Linear(1, 1)
        >>> x = np.ones((4, 1), np.float32)
        >>> sgd = tg.optim.SGD(model.parameters(), lr=0.5)
        >>> history = tg.fit(model, tg.nn.MSELoss(), sgd, (x, x), epochs=2, progress=False,
        ...                  callbacks=[Rates()])
        1 0.5
        2 0.5
    """

    def on_train_begin(self, training: Training) -> None:
        """Before the first epoch; when a run is resumed, after its checkpoint was loaded."""

    def on_epoch_begin(self, training: Training) -> None:
        """Before the first batch of an epoch."""

    def on_batch_end(self, training: Training) -> None:
        """After the update with a batch."""

    def on_epoch_end(self, training: Training) -> None:
        """After evaluation and scheduler, before the checkpoint is written."""

    def on_train_end(self, training: Training) -> None:
        """After the last epoch; not after an exception."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep; empty if there is nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned; raise ValueError if it does not fit."""


class EarlyStopping(Callback):
    """Stop when a measurement has not improved for some epochs, and restore the best weights.

    NaN is no improvement. The state, best weights included, is part of checkpoints. A new run
    starts afresh; a resumed one goes on counting.

    Args:
        monitor: A list of ``History``: "val_loss", "val_accuracy", "train_loss", "train_accuracy".
        patience: Epochs without improvement after which training ends, at least 1.
        min_delta: Smallest change that counts as an improvement, at least 0.
        mode: "min" if lower is better, "max" if higher is; None goes by the name: "max" for an
            accuracy, else "min".
        restore_best: Put the weights of the best epoch into the model when training ends, by
            stopping or with its last epoch (not after an exception). The optimiser is left as is.

    Raises:
        ValueError: An option out of range.

    Example:
        >>> stopping = EarlyStopping(patience=2)
        >>> [stopping.improved(loss) for loss in (0.5, 0.4, 0.45, 0.4)], stopping.best, stopping.bad
        ([True, True, False, False], 0.4, 2)
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        check_monitor("EarlyStopping", monitor)
        if mode is None:
            mode = "max" if monitor.endswith("accuracy") else "min"
        if isinstance(patience, bool) or not hasattr(patience, "__index__") or patience < 1:
            raise ValueError(
                f"EarlyStopping: patience must be an integer of at least 1; got {patience}"
            )
        if not 0 <= min_delta < math.inf:
            raise ValueError(
                f"EarlyStopping: min_delta must be finite and at least 0; got {min_delta}"
            )
        if mode not in ("min", "max"):
            raise ValueError(f"EarlyStopping: mode must be 'min' or 'max'; got {mode!r}")
        self.monitor = monitor
        self.patience = operator.index(patience)
        self.min_delta = min_delta
        self.mode = mode
        self.restore_best = restore_best
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.bad = 0  # epochs since the best one
        self.stopped = False
        self._weights: dict[str, NDArray[Any]] | None = None

    def improved(self, value: float) -> bool:
        """Count a measurement; return whether it is the best so far."""
        sign = 1 if self.mode == "min" else -1
        better = not math.isnan(value) and (
            self.best is None or sign * value < sign * self.best - self.min_delta
        )
        if better:
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return better

    def on_train_begin(self, training: Training) -> None:
        """Start afresh unless the run is resumed; check that the measurement will be there."""
        if self.monitor.startswith("val_") and not training.validated:
            raise ValueError(f"EarlyStopping: {self.monitor} needs validation data; got none")
        if training.epoch == 0:
            self._reset()
        training.stop = training.stop or self.stopped

    def on_epoch_end(self, training: Training) -> None:
        """Compare, keep the best weights, stop when patience is over."""
        if self.improved(latest(training.history, self.monitor, "EarlyStopping")):
            self.best_epoch = training.epoch
            if self.restore_best:
                self._weights = {k: v.copy() for k, v in training.model.state_dict().items()}
        elif self.bad >= self.patience:
            self.stopped = training.stop = True

    def on_train_end(self, training: Training) -> None:
        """Restore the best weights."""
        if self.restore_best and self._weights is not None:
            training.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return best value and epoch, the count, and the best weights."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "bad": self.bad,
            "stopped": self.stopped,
            "weights": None if self._weights is None else dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            ValueError: Other names than this class saves.
        """
        if set(state) != set(self.state_dict()):
            raise ValueError(
                f"EarlyStopping: the state must have {sorted(self.state_dict())}; "
                f"got {sorted(state)}"
            )
        weights = state["weights"]
        self._weights = None if weights is None else {k: v.copy() for k, v in weights.items()}
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.bad, self.stopped = state["bad"], state["stopped"]


class Progress(Callback):
    """Show progress on stderr: one line an epoch and, in a terminal with tqdm, a bar in between."""

    def __init__(self, scheduled: bool = False) -> None:
        self._scheduled = scheduled
        self._bar: Any = None
        self._every = 1

    def on_epoch_begin(self, training: Training) -> None:
        """Open the epoch's bar where a terminal can show it."""
        if not sys.stderr.isatty():
            return
        try:
            from tqdm import tqdm
        except ImportError:
            return
        self._bar = tqdm(
            total=training.batches, desc=_counter(training), unit=" batch", leave=False,
            file=sys.stderr, dynamic_ncols=True,
        )  # fmt: skip
        self._every = max(1, training.batches // 200)  # a step may take only microseconds

    def on_batch_end(self, training: Training) -> None:
        """Move the bar on."""
        if self._bar is not None and training.batch % self._every == 0:
            self._bar.set_postfix_str(f"loss {training.loss:.4f}", refresh=False)
            self._bar.update(training.batch - self._bar.n)

    def on_epoch_end(self, training: Training) -> None:
        """Put the epoch's line in the place of the bar."""
        self.close()
        say(f"{_counter(training)}  {_measurements(training.history, self._scheduled)}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def say(line: str) -> None:
    """Write a line to stderr at once."""
    print(line, file=sys.stderr, flush=True)


def _counter(training: Training) -> str:
    width = len(str(training.epochs))
    return f"epoch {training.epoch:{width}d}/{training.epochs}"


def _measurements(history: History, scheduled: bool) -> str:
    last = history.last()
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    parts = [f"{name} {last[name]:.4f}" for name in names if name in last]
    if scheduled:
        parts.append(f"lr {last['learning_rate']:.3g}")
    parts.append(f"{last['seconds']:.2f} s")
    parts.append(f"{last['samples_per_second']:,.0f} samples/s")
    return "  ".join(parts)
