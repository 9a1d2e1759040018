# SPDX-License-Identifier: MIT
"""fit: train a model over epochs, with validation, progress, callbacks and checkpoints."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._callbacks import Callback, History, Progress, Training, say
from tilegrad._checkpoint import import_safetensors
from tilegrad._files import Path
from tilegrad._fit_step import on_device_of
from tilegrad._interrupts import Interrupts
from tilegrad._makers import asarray
from tilegrad._monitor import advance, monitored
from tilegrad._save import load, save
from tilegrad._team import Team
from tilegrad.data import DataLoader, Transform
from tilegrad.nn.module import Module
from tilegrad.optim.lr_scheduler import LRScheduler
from tilegrad.optim.optimizer import Optimizer

Array: TypeAlias = NDArray[Any]
Data: TypeAlias = "DataLoader | tuple[Array, Array]"


def fit(
    model: Module,
    loss_fn: Module,
    optimizer: Optimizer,
    data: Data,
    validation: Data | None = None,
    *,
    epochs: int,
    batch_size: int = 128,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    progress: bool = True,
    scheduler: LRScheduler | None = None,
    max_norm: float | None = None,
    seed: int = 0,
    accuracy_samples: int = 10_000,
    transform: Transform | None = None,
    monitor: str | None = None,
    distributed: bool = False,
) -> History:
    """Train a model and return what was measured.

    Each batch is one ``TrainStep``. A model or loss that has no plan is trained in the long form
    (forward, loss, backward, clipping, step), with the same result; TrainStep says so before
    anything has changed. After an epoch come the evaluation in eval mode, ``scheduler.step()``, the
    callbacks and the checkpoint. Model and loss end in the mode in which they were given.

    With ``checkpoint``, everything that training depends on is saved after each epoch. If the file
    is there already, it is loaded and training goes on to ``epochs`` in all, bit for bit as if it
    had never been interrupted, given the same data and options. Ctrl-C waits for the running step
    or write to finish (a second one does not), then raises KeyboardInterrupt; the last checkpoint
    is whole.

    Args:
        model: Module that takes the batches of ``data``.
        loss_fn: Loss with reduction "mean" or "sum".
        optimizer: Optimiser of the model's parameters.
        data: Training set: arrays (inputs, targets) with the samples along the first axis, taken
            in batches in a new order each epoch, or a DataLoader of such arrays.
        validation: The same for the validation set, read in order; a DataLoader is used as it is.
        epochs: Number of the last epoch, at least 1.
        batch_size: Samples in a batch, for data given as arrays.
        callbacks: What to call; see ``Callback`` and ``EarlyStopping``.
        checkpoint: File to save to after each epoch, and to resume from.
        progress: Show a line an epoch on stderr, and a bar in a terminal if tqdm is installed.
        scheduler: Learning-rate schedule of this optimiser, stepped once an epoch. A
            ReduceLROnPlateau is given what ``monitor`` names.
        max_norm: Clip the gradients of each batch to this 2-norm; None does not clip.
        seed: Decides the order of the samples, for data given as arrays.
        accuracy_samples: Where targets are class indices, training accuracy is measured in eval
            mode after each epoch on at most so many rows, evenly spaced over the training set; 0
            leaves it out. A transform's random parts have no part in it, the others have.
        transform: Changes the inputs that are trained on, for data given as arrays (a DataLoader
            has its own), such as ``data.RandomShift(2)``. The validation set is never changed:
            what its inputs need too, such as ``data.Normalize``, is applied before.
        monitor: The list of ``History`` that a ReduceLROnPlateau looks at; None: "val_loss" or,
            without a validation set, "train_loss".
        distributed: Train on all processes of ``tilegrad.distributed.init_process_group``, each on
            its rows of every batch, with the result of one process; each calls ``fit`` with the
            same arguments. Measurements are of all, callbacks run on all, and the first alone
            prints, reads the checkpoint and writes it. A DataLoader itself is left where it is.

    Returns:
        The History, that of the epochs before a resumption included. A loss of an epoch is the mean
        of its batches' losses weighted by their samples (with reduction "sum", the sum over the
        samples divided by their number).

    Raises:
        TypeError: data, validation, loss_fn or a callback of the wrong type.
        ValueError: An illegal option, an empty set, or a checkpoint that does not fit.
        FileNotFoundError: The checkpoint's folder does not exist.
        ImportError: A checkpoint is asked for without the package safetensors, or distributed
            without PyTorch.
        RuntimeError: distributed without a process group, or a process was lost.

    Example:
        >>> import numpy as np, tilegrad as tg
        >>> tg.manual_seed(0)
        >>> model = tg.nn.Linear(1, 1)
        >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
        >>> history = fit(model, tg.nn.MSELoss(), tg.optim.SGD(model.parameters(), lr=0.1),
        ...               (x, 3 * x + 1), epochs=60, batch_size=8, progress=False)
        >>> print(model.weight.data.round(3), model.bias.data.round(3))
        [[3.]] [1.]
    """
    training_set = _loader("data", data, batch_size, shuffle=True, seed=seed, transform=transform)
    validation_set = None
    if validation is not None:
        validation_set = _loader("validation", validation, max(batch_size, 512))
    _check(loss_fn, optimizer, epochs, callbacks, scheduler, max_norm, accuracy_samples)
    watched = monitored(monitor, scheduler, validation_set is not None)
    team = _team(distributed)
    rows = _spaced(training_set, accuracy_samples)
    training_set = team.shard(training_set)
    validation_set = None if validation_set is None else team.shard(validation_set)
    rows = None if rows is None else team.shard(rows)
    history = History()
    keep = None
    if checkpoint is not None:
        keep = _Checkpoint(
            checkpoint, (model, optimizer, scheduler, training_set), callbacks, history, team
        )
    run = Training(
        model, loss_fn, optimizer, scheduler, history, epochs, len(training_set),
        validated=validation_set is not None,
    )  # fmt: skip
    progress = progress and team.is_first
    shown = [Progress(scheduler is not None)] if progress else []
    calls: list[Callback] = [*callbacks, *shown]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_modes_restored(model, loss_fn))
        interrupts = stack.enter_context(Interrupts())
        stack.enter_context(team.guarded(None if keep is None else keep.path))
        team.compare(
            {
                "the data": [(a.shape, a.dtype.name) for a in training_set.arrays],
                "the order of the data": training_set.state_dict(),
                "the validation set": validation_set and validation_set.state_dict(),
                "the schedule": type(scheduler).__name__,
                "the options": (epochs, max_norm, accuracy_samples, watched, keep is not None),
                "the saved callbacks": [type(c).__name__ for c in callbacks if c.state_dict()],
            }
        )
        if keep is not None and keep.resume():
            run.epoch = len(history.epochs)
            if progress:
                say(f"fit: resumed after epoch {run.epoch} from {keep.path}")
        step = stack.enter_context(team.step(model, loss_fn, optimizer, max_norm))
        for bar in shown:
            stack.callback(bar.close)
        for call in calls:
            call.on_train_begin(run)
        while run.epoch < epochs and not run.stop:
            run.epoch, run.batch = run.epoch + 1, 0
            for call in calls:
                call.on_epoch_begin(run)
            measured = _train_epoch(run, training_set, step, calls, interrupts, team)
            if rows is not None:
                accuracy = _evaluate(model, loss_fn, rows, team, with_loss=False)[1]
                measured["train_accuracy"] = accuracy
            if validation_set is not None:
                loss, accuracy = _evaluate(model, loss_fn, validation_set, team)
                measured["val_loss"], measured["val_accuracy"] = loss, accuracy
            history.add(**measured)
            if scheduler is not None:
                advance(scheduler, history, watched)
            for call in calls:
                call.on_epoch_end(run)
            run.stop = team.any(run.stop)
            if keep is not None:
                with interrupts.held():
                    keep.write()
        for call in calls:
            call.on_train_end(run)
    return history


class _Checkpoint:
    """The file of a run; it is checked before training starts that it can be written."""

    def __init__(
        self,
        path: Path,
        parts: tuple[Module, Optimizer, LRScheduler | None, DataLoader],
        callbacks: Sequence[Callback],
        history: History,
        team: Team,
    ) -> None:
        import_safetensors("fit")
        self.path = os.fspath(path)
        folder = os.path.dirname(os.path.realpath(self.path))
        if team.is_first and not os.path.isdir(folder):
            raise FileNotFoundError(f"fit: the checkpoint's folder must exist; got {folder}")
        self._parts, self._callbacks, self._history = parts, callbacks, history
        self._team = team

    def resume(self) -> bool:
        """Load the file if it is there."""
        return self._team.resume(self.path, self._load)

    def write(self) -> None:
        if self._team.is_first:
            save(self.path, *self._parts, callbacks=self._callbacks, history=self._history)

    def _load(self, path: str) -> None:
        load(path, *self._parts, callbacks=self._callbacks, history=self._history, rng=True)


def _train_epoch(
    run: Training,
    loader: DataLoader,
    step: Callable[[Array, Array], Any],
    calls: Sequence[Callback],
    interrupts: Interrupts,
    team: Team,
) -> dict[str, float | None]:
    run.model.train()
    run.loss_fn.train()
    losses: list[tuple[Any, int]] = []
    samples, seconds = 0, 0.0
    is_sum = _is_sum(run.loss_fn)
    rate = float(run.optimizer.param_groups[0]["lr"])
    started = time.perf_counter()
    for x, target in loader:
        with interrupts.held():
            run.latest = step(x, target)
        run.batch += 1
        samples += loader.batch_rows
        losses.append((run.latest, 1 if is_sum else loader.batch_rows))
        for call in calls:
            call.on_batch_end(run)
    total = 0.0
    for loss, weight in losses:  # only now is a device waited for
        total += float(loss) * weight
    seconds = team.mean(time.perf_counter() - started)
    return {
        "train_loss": total / samples if samples else math.nan,
        "learning_rate": rate,
        "seconds": seconds,
        "samples_per_second": samples / seconds if seconds > 0 else math.nan,
    }


def _evaluate(
    model: Module, loss_fn: Module, loader: DataLoader, team: Team, with_loss: bool = True
) -> tuple[float, float | None]:
    """Return the mean loss in eval mode and, for class indices, the share that is right."""
    model.eval()
    loss_fn.eval()
    parts: list[tuple[float, float]] = []
    rows: list[int] = []  # of whole batches
    right, counted = 0, 0
    ignored = getattr(loss_fn, "ignore_index", None)
    for x, target in loader:
        output = model(on_device_of(model, x))
        rows.append(loader.batch_rows)
        if with_loss:
            loss = float(loss_fn(output, on_device_of(model, target)))
            parts.append((loss, team.share(loss_fn, target)))
        output = asarray(output, device="cpu")
        if _are_classes(output, target):
            counts = np.ones(target.shape, bool) if ignored is None else target != ignored
            right += int(np.count_nonzero((output.argmax(axis=1) == target) & counts))
            counted += int(np.count_nonzero(counts))
    right, counted = map(int, team.total([right, counted]))
    total = 0.0
    for loss, count in zip(team.losses(parts, _is_sum(loss_fn)), rows, strict=False):
        total += loss if _is_sum(loss_fn) else loss * count
    return total / sum(rows), right / counted if counted else None


def _are_classes(output: Array, target: Array) -> bool:
    """Whether the targets are class indices for scores with the classes along axis 1."""
    return (
        np.issubdtype(target.dtype, np.integer)
        and output.ndim == target.ndim + 1
        and (output.shape[0], *output.shape[2:]) == target.shape
    )


def _team(distributed: bool) -> Team:
    if not distributed:
        return Team()
    from tilegrad.distributed._team import Ranks  # needs PyTorch

    return Ranks()


def _is_sum(loss_fn: Module) -> bool:
    return getattr(loss_fn, "reduction", "mean") == "sum"


def _spaced(loader: DataLoader, limit: int) -> DataLoader | None:
    """Return evenly spaced rows of a loader's arrays: fair even if they are sorted by class."""
    if limit == 0 or not np.issubdtype(loader.arrays[1].dtype, np.integer):
        return None
    stride = -(-loader.samples // limit)
    transform = None if loader.transform is None else loader.transform.without_random()
    return DataLoader(
        *(array[::stride] for array in loader.arrays),
        batch_size=max(loader.batch_size, 512),
        transform=transform,
    )


def _loader(
    name: str, given: Any, batch_size: int, *, shuffle: bool = False, seed: int = 0,
    transform: Transform | None = None,
) -> DataLoader:  # fmt: skip
    loader = given
    if isinstance(given, tuple) and len(given) == 2:
        loader = DataLoader(
            *given, batch_size=batch_size, shuffle=shuffle, seed=seed, transform=transform
        )
    elif transform is not None:
        raise ValueError("fit: transform is for data given as arrays; a DataLoader has its own")
    if not isinstance(loader, DataLoader):
        kind = f"{len(given)} arrays" if isinstance(given, tuple) else type(given).__name__
        raise TypeError(
            f"fit: {name} must be a tuple (inputs, targets) of arrays or a DataLoader; got {kind}"
        )
    if len(loader.arrays) != 2:
        raise ValueError(
            f"fit: {name} must have inputs and targets; got {len(loader.arrays)} arrays"
        )
    if len(loader) == 0:
        raise ValueError(f"fit: {name} must have at least one batch; got {loader!r}")
    return loader


def _check(
    loss_fn: Any,
    optimizer: Optimizer,
    epochs: Any,
    callbacks: Sequence[Any],
    scheduler: LRScheduler | None,
    max_norm: float | None,
    accuracy_samples: int,
) -> None:
    if not isinstance(loss_fn, Module):
        raise TypeError(f"fit: loss_fn must be a Module; got {type(loss_fn).__name__}")
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)) or epochs < 1:
        raise ValueError(f"fit: epochs must be an integer of at least 1; got {epochs!r}")
    if isinstance(callbacks, Callback):
        raise TypeError("fit: callbacks must be a list; got one Callback (write [callback])")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"fit: callbacks must be Callback objects; got {callback!r}")
    if scheduler is not None and scheduler.optimizer is not optimizer:
        raise ValueError("fit: the scheduler must be that of this optimizer; got another's")
    if max_norm is not None and not max_norm >= 0:
        raise ValueError(f"fit: max_norm must be at least 0; got {max_norm}")
    if accuracy_samples < 0:
        raise ValueError(f"fit: accuracy_samples must be at least 0; got {accuracy_samples}")


@contextlib.contextmanager
def _modes_restored(*roots: Module) -> Iterator[None]:
    modes = [(module, module.training) for root in roots for module in root.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.__dict__["training"] = mode
