# SPDX-License-Identifier: MIT
"""How a classifier errs: the confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._makers import asarray
from tilegrad.data._random import check_int

Array: TypeAlias = NDArray[Any]


def confusion_matrix(target: Any, predicted: Any, classes: int | None = None) -> NDArray[np.int64]:
    """Count how often each class was taken for each.

    Math: counts[i, j] = number of samples of class i that were predicted as j

    Args:
        target: True classes, integers of any shape from 0 on, on any device.
        predicted: Predicted classes, likewise; or scores, floats with the classes along axis 1 (as
            `model.predict` returns them), of which the largest counts.
        classes: Number of classes; None takes it from the scores or the largest class.

    Returns:
        The counts, `(classes, classes)`: a row for each true class, a column for each predicted
        one.

    Raises:
        TypeError: If targets are not integers, or classes is none.
        ValueError: If shapes differ or a class is out of range.

    Example:
        >>> import numpy as np
        >>> confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
        array([[1, 1, 0],
               [0, 1, 0],
               [0, 0, 1]])

    Source: scikit-learn's function of this name.
    """
    op = "confusion_matrix"
    true, guess = (asarray(values, device="cpu") for values in (target, predicted))
    if not np.issubdtype(true.dtype, np.integer):
        raise TypeError(f"{op}: target must be class indices; got {true.dtype}")
    if not np.issubdtype(guess.dtype, np.integer):
        if guess.ndim != true.ndim + 1 or (guess.shape[0], *guess.shape[2:]) != true.shape:
            raise ValueError(
                f"{op}: scores must have the classes along axis 1; got predicted {guess.shape} of "
                f"{guess.dtype} for target {true.shape}"
            )
        classes = guess.shape[1] if classes is None else classes
        guess = guess.argmax(axis=1)
    if true.shape != guess.shape:
        raise ValueError(
            f"{op}: target and predicted must have one shape; got {true.shape} and {guess.shape}"
        )
    both = (("target", true), ("predicted", guess))
    largest = max((int(values.max()) for _, values in both if values.size), default=-1)
    count = largest + 1 if classes is None else check_int(op, "classes", classes)
    if count < 1:
        raise ValueError(f"{op}: classes must be at least 1; got {count}")
    for name, values in both:
        if values.size and not (int(values.min()) >= 0 and int(values.max()) < count):
            worst = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{op}: {name} must be in [0, {count}); got {worst}")
    place = true.ravel().astype(np.int64) * count + guess.ravel().astype(np.int64)
    counts = np.bincount(place, minlength=count * count).reshape(count, count)
    return counts.astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """Precision, recall and F1 of each class; printed it is a table.

    Args:
        precision: Of the samples predicted as a class, the share that is of it, `(classes,)`.
        recall: Of the samples of a class, the share predicted as it, `(classes,)`.
        f1: Harmonic mean of the two, `(classes,)`.
        support: Number of samples of each class, `(classes,)`.
        accuracy: Share of the samples predicted right.
        class_names: Name of each class.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    support: NDArray[np.int64]
    accuracy: float
    class_names: tuple[str, ...]

    @property
    def macro(self) -> dict[str, float]:
        """Mean over the classes of precision, recall and F1."""
        return {name: float(values.mean()) for name, values in self._scores().items()}

    @property
    def weighted(self) -> dict[str, float]:
        """Mean over the classes weighted by their number of samples."""
        total = max(int(self.support.sum()), 1)
        return {
            name: float((values * self.support).sum() / total)
            for name, values in self._scores().items()
        }

    def _scores(self) -> dict[str, NDArray[np.float64]]:
        return {"precision": self.precision, "recall": self.recall, "f1": self.f1}

    def __str__(self) -> str:
        wide = max(map(len, ("weighted mean", *self.class_names)))
        lines = [f"{'':{wide}}  precision  recall      f1  samples"]
        rows = zip(
            self.class_names, self.precision, self.recall, self.f1, self.support, strict=True
        )
        total = int(self.support.sum())
        averages = (("mean", self.macro), ("weighted mean", self.weighted))
        means = [(name, *scores.values(), total) for name, scores in averages]
        for name, precision, recall, f1, support in (*rows, *means):
            lines.append(f"{name:{wide}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {support:7d}")
        lines.append(f"{'accuracy':{wide}}  {self.accuracy:25.4f}  {total:7d}")
        return "\n".join(lines)


def classification_report(
    target: Any,
    predicted: Any,
    classes: int | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> ClassificationReport:
    """Measure precision, recall and F1 of each class.

    Math: with the confusion matrix c, precision_j = c_jj / sum_i c_ij, recall_i = c_ii / sum_j
    c_ij, f1 = 2 c_ii / (sum_j c_ij + sum_j c_ji); 0 where nothing is divided by nothing.

    Args:
        target: As for `confusion_matrix`.
        predicted: As for `confusion_matrix`.
        classes: As for `confusion_matrix`; None with class_names is their number.
        class_names: Name of each class; None numbers them.

    Returns:
        The ClassificationReport.

    Raises:
        TypeError: As `confusion_matrix`.
        ValueError: As `confusion_matrix`, or another number of names than classes.

    Example:
        >>> import numpy as np
        >>> report = classification_report(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
        >>> print(report)
                       precision  recall      f1  samples
        0                 1.0000  0.5000  0.6667        2
        1                 0.6667  1.0000  0.8000        2
        mean              0.8333  0.7500  0.7333        4
        weighted mean     0.8333  0.7500  0.7333        4
        accuracy                          0.7500        4

    Source: scikit-learn's function of this name.
    """
    if class_names is not None and classes is None:
        classes = len(class_names)
    counts = confusion_matrix(target, predicted, classes)
    names = tuple(map(str, range(len(counts)) if class_names is None else class_names))
    if len(names) != len(counts):
        raise ValueError(
            f"classification_report: class_names must have a name for each of the {len(counts)} "
            f"classes; got {len(names)}"
        )
    right, taken, support = counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)
    return ClassificationReport(
        precision=_share(right, taken),
        recall=_share(right, support),
        f1=_share(2 * right, taken + support),
        support=support,
        accuracy=float(_share(right.sum(), support.sum())),
        class_names=names,
    )


def _share(part: Any, whole: Any) -> NDArray[np.float64]:
    return np.asarray(part / np.maximum(whole, 1), np.float64)
