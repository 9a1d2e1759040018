# SPDX-License-Identifier: MIT
"""cross_validate: train on k folds, each once held back, and report mean and spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad import _random
from tilegrad._callbacks import Callback, History, say
from tilegrad._fit import _evaluate, _modes_restored, fit
from tilegrad._team import Team
from tilegrad.data import DataLoader, Transform, k_fold
from tilegrad.data._arrays import take_rows
from tilegrad.data._random import WORD_LIMIT, check_seed
from tilegrad.nn.module import Module
from tilegrad.optim.lr_scheduler import LRScheduler
from tilegrad.optim.optimizer import Optimizer

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class CrossValidation:
    """What `cross_validate` measured; printed it is a table.

    Args:
        val_loss: Mean loss of each fold's held-back rows, with the weights that training ends with.
        val_accuracy: Share of correct classes among them; empty where targets are no classes.
        rows: Number of rows held back in each fold.
        seed: Fold i (from 0) was trained with this seed plus i.
        histories: What `fit` measured in each fold.

    Example:
        >>> result = CrossValidation([0.5, 0.25, 0.75], [], [4, 3, 3])
        >>> result.mean, result.std
        ({'val_loss': 0.5}, {'val_loss': 0.25})
        >>> print(result)
        3-fold cross-validation      val_loss
        fold 1, 4 rows                 0.5000
        fold 2, 3 rows                 0.2500
        fold 3, 3 rows                 0.7500
        mean                           0.5000
        standard deviation             0.2500
    """

    val_loss: list[float]
    val_accuracy: list[float]
    rows: list[int]
    seed: int = 0
    histories: list[History] = field(default_factory=list, repr=False)

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the folds of each measurement, by its name."""
        return {name: _mean(values) for name, values in self._series().items()}

    @property
    def std(self) -> dict[str, float]:
        """Standard deviation between the folds: that of a sample, divided by k - 1."""
        return {
            name: statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
            for name, values in self._series().items()
        }

    def _series(self) -> dict[str, list[float]]:
        series = {"val_loss": self.val_loss, "val_accuracy": self.val_accuracy}
        return {name: values for name, values in series.items() if values}

    def __str__(self) -> str:
        series, mean, std = self._series(), self.mean, self.std
        k = len(self.val_loss)
        lines = [(f"{k}-fold cross-validation", list(series))]
        for i, count in enumerate(self.rows):
            values = [f"{values[i]:.4f}" for values in series.values()]
            lines.append((f"fold {i + 1}, {count} rows", values))
        lines.append(("mean", [f"{mean[name]:.4f}" for name in series]))
        lines.append(("standard deviation", [f"{std[name]:.4f}" for name in series]))
        return "\n".join(
            f"{head:<23}" + "".join(f"{cell:>14}" for cell in cells).rstrip()
            for head, cells in lines
        )


def cross_validate(
    make_model: Callable[[], Module],
    x: Array,
    y: Array,
    *,
    loss_fn: Module,
    make_optimizer: Callable[[Module], Optimizer],
    epochs: int,
    k: int = 5,
    batch_size: int = 128,
    seed: int = 0,
    shuffle: bool = True,
    stratify: Array | None = None,
    make_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    callbacks: Sequence[Callback] = (),
    max_norm: float | None = None,
    transform: Transform | None = None,
    progress: bool = True,
) -> CrossValidation:
    """Train k models, each on all folds but one, and measure each on the fold held back.

    Fold i is what these calls do, bit for bit, and the stream of ``manual_seed`` is afterwards as
    it was::

        train, held = tg.data.k_fold(len(x), k, seed=seed, stratify=stratify)[i]
        tg.manual_seed(seed + i)
        model = make_model()
        tg.fit(model, loss_fn, make_optimizer(model), (x[train], y[train]), (x[held], y[held]),
               epochs=epochs, batch_size=batch_size, seed=seed + i)

    The held-back rows are the validation set of `fit`, so that a callback such as ``EarlyStopping``
    can use them; a score that early stopping has chosen is a little too good. The scores are those
    of the weights that training ends with (the restored ones).

    Args:
        make_model: Makes a new model at each call, on the device to train on.
        x: Inputs, the samples along the first axis.
        y: Targets, one for each sample.
        loss_fn: Loss with reduction "mean" or "sum".
        make_optimizer: Makes the optimiser of a model, such as
            ``lambda model: tg.optim.Adam(model.parameters())``.
        epochs: Epochs to train each model, at least 1.
        k: Number of folds, at least 2.
        batch_size: Samples in a batch.
        seed: Decides folds, weights, dropout and order; fold i trains with ``seed + i``.
        shuffle: Choose the rows of a fold at random; see ``data.k_fold``.
        stratify: Class labels, `(n,)`, such as `y`: each fold then has each in proportion.
        make_scheduler: Makes the learning-rate schedule of an optimiser.
        callbacks: Callbacks of every fold, each begun anew by ``on_train_begin``.
        max_norm: Clip the gradients of each batch to this 2-norm.
        transform: Changes the inputs that are trained on; see `fit`.
        progress: Show a line a fold on stderr.

    Returns:
        A CrossValidation: the scores of each fold, ``mean``, ``std`` and the histories.

    Raises:
        TypeError: An argument of the wrong type, or make_model makes one model twice.
        ValueError: An illegal option, or arrays that do not fit together.

    Example:
        >>> import tilegrad as tg
        >>> x = np.linspace(-1, 1, 60, dtype=np.float32)[:, None]
        >>> result = cross_validate(
        ...     lambda: tg.nn.Linear(1, 1), x, 3 * x + 1, k=3, loss_fn=tg.nn.MSELoss(),
        ...     make_optimizer=lambda model: tg.optim.SGD(model.parameters(), lr=0.2),
        ...     epochs=60, batch_size=8, progress=False)
        >>> len(result.val_loss), result.mean["val_loss"] < 1e-8
        (3, True)
    """
    first_seed = check_seed("cross_validate", seed)
    for name, made, kind in (
        ("model", make_model, Module),
        ("optimizer", make_optimizer, Optimizer),
    ):
        if isinstance(made, kind) or not callable(made):
            raise TypeError(
                f"cross_validate: make_{name} must be a function that makes a new one for each "
                f"fold; got {type(made).__name__}"
            )
    for name, array in (("x", x), ("y", y)):
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            raise TypeError(
                f"cross_validate: {name} must be a numpy.ndarray with a first axis of samples; got "
                f"{type(array).__name__}"
            )
    if len(x) != len(y):
        raise ValueError(f"cross_validate: x and y need one length; got {len(x)} and {len(y)}")
    folds = k_fold(len(x), k, seed=first_seed, shuffle=shuffle, stratify=stratify)
    result = CrossValidation([], [], [], first_seed)
    stream, previous = _random.get_state(), None
    try:
        for i, (train, held) in enumerate(folds):
            fold_seed = (first_seed + i) % WORD_LIMIT
            _random.manual_seed(fold_seed)
            model = make_model()
            if model is previous:
                raise TypeError(
                    "cross_validate: make_model must make a new model at each call; got one twice"
                )
            previous, optimizer = model, make_optimizer(model)
            training, validation = (
                (take_rows(x, rows), take_rows(y, rows)) for rows in (train, held)
            )
            history = fit(
                model, loss_fn, optimizer, training, validation, epochs=epochs,
                batch_size=batch_size, callbacks=callbacks, progress=False, max_norm=max_norm,
                scheduler=None if make_scheduler is None else make_scheduler(optimizer),
                seed=fold_seed, transform=transform,
            )  # fmt: skip
            _add(result, model, loss_fn, validation, history, max(batch_size, 512))
            if progress:
                say(_line(result, len(folds)))
    finally:
        _random.set_state(stream)
    return result


def _add(
    result: CrossValidation, model: Module, loss_fn: Module, validation: tuple[Array, Array],
    history: History, batch_size: int,
) -> None:  # fmt: skip
    """Measure a trained model on the rows held back: its weights may be those of an older epoch."""
    with _modes_restored(model, loss_fn):
        loader = DataLoader(*validation, batch_size=batch_size)
        loss, accuracy = _evaluate(model, loss_fn, loader, Team())
    if accuracy is not None and not result.val_accuracy:
        result.val_accuracy.extend([math.nan] * len(result.val_loss))
    if accuracy is not None or result.val_accuracy:
        result.val_accuracy.append(math.nan if accuracy is None else accuracy)
    result.val_loss.append(loss)
    result.rows.append(len(validation[0]))
    result.histories.append(history)


def _line(result: CrossValidation, k: int) -> str:
    scores = "  ".join(f"{name} {values[-1]:.4f}" for name, values in result._series().items())
    history = result.histories[-1]
    seconds = math.fsum(history.seconds)
    return f"fold {len(result.rows)}/{k}  {scores}  {len(history.epochs)} epochs  {seconds:.2f} s"


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
