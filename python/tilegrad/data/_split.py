# SPDX-License-Identifier: MIT
"""Split arrays into a part to train on and a part to test on, once or k times."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import check_arrays, take_rows
from ._random import WORD_LIMIT, check_int, check_seed, permutation

_OP = "train_test_split"
# Not an epoch that a loader can reach: a split and a loader with one seed stay independent.
_STREAM = WORD_LIMIT - 1
_FOLD_STREAM = WORD_LIMIT - 2


def train_test_split(
    *arrays: NDArray[Any],
    test_size: float = 0.25,
    seed: int | None = 0,
    shuffle: bool = True,
    stratify: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], ...]:
    """Split every array at the same rows into a training part and a test part.

    The arguments mean what they mean in scikit-learn's function of this name; the rows drawn for
    a seed differ. Call it twice for three parts:
    `x, x_test = train_test_split(all_x, test_size=100)`, then
    `x_train, x_val = train_test_split(x, test_size=100)`.

    Math: n_test = ceil(test_size * n) for a fraction; n_train = n - n_test

    Args:
        *arrays: NumPy arrays of one length n, any dtype and shape.
        test_size: A float in (0, 1), the fraction of the rows to test on, or an int in
            [1, n - 1], their number.
        seed: Chooses the rows; the same seed gives the same split everywhere. None draws one.
        shuffle: Choose rows at random and mix their order. Otherwise the last rows are the test
            part and all parts are views.
        stratify: Class labels, `(n,)`. Every class is then split in the same proportion, to
            within one row. A slice of the training part need not have them so: for a smaller
            part split again.

    Returns:
        `(a_train, a_test, b_train, b_test, ...)`, two arrays for each one given.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If lengths differ, a part would be empty, or a class is too small to split.

    Example:
        >>> import numpy as np
        >>> from tilegrad import data
        >>> x_train, x_test = data.train_test_split(np.arange(8), test_size=0.25, shuffle=False)
        >>> x_train.tolist(), x_test.tolist()
        ([0, 1, 2, 3, 4, 5], [6, 7])
    """
    count = check_arrays(_OP, arrays)
    test_count = _test_count(test_size, count)
    key = check_seed(_OP, seed)
    if not shuffle:
        if stratify is not None:
            raise ValueError(f"{_OP}: stratify needs shuffle=True; got shuffle={shuffle!r}")
        cut = count - test_count
        return tuple(part for array in arrays for part in (array[:cut], array[cut:]))
    order = permutation(count, key, _STREAM)
    if stratify is None:
        test, train = order[:test_count], order[test_count:]
    else:
        chosen = _stratified(order, _codes(_OP, stratify, count), test_count)
        test, train = order[chosen], order[~chosen]
    return tuple(
        part for array in arrays for part in (take_rows(array, train), take_rows(array, test))
    )


def k_fold(
    n: int,
    k: int = 5,
    *,
    seed: int | None = 0,
    shuffle: bool = True,
    stratify: NDArray[Any] | None = None,
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Split the rows 0 ... n - 1 into k folds, each once the validation part.

    `tilegrad.cross_validate` trains on them.

    Math: fold sizes are n / k rounded up or down, the larger ones first

    Args:
        n: Number of rows.
        k: Number of folds, at least 2 and at most n.
        seed: Chooses the rows; the same seed gives the same folds everywhere. None draws one.
        shuffle: Choose the rows of a fold at random. Otherwise they follow each other.
        stratify: Class labels, `(n,)`. Every fold then has each class in the same proportion, to
            within one row; each class needs k rows.

    Returns:
        `[(train_rows, validation_rows), ...]`, k pairs of row numbers in ascending order.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If k is out of range or a class has fewer than k rows.

    Example:
        >>> from tilegrad import data
        >>> for train, validation in data.k_fold(5, 2, shuffle=False):
        ...     print(train.tolist(), validation.tolist())
        [3, 4] [0, 1, 2]
        [0, 1, 2] [3, 4]
    """
    op = "k_fold"
    count, folds = check_int(op, "n", n), check_int(op, "k", k)
    if not 2 <= folds <= count:
        raise ValueError(f"{op}: k must be from 2 to the number of rows, {count}; got {folds}")
    key = check_seed(op, seed)
    order = permutation(count, key, _FOLD_STREAM) if shuffle else np.arange(count)
    fold_of = np.empty(count, dtype=np.intp)
    if stratify is None:
        sizes = count // folds + (np.arange(folds) < count % folds)
        fold_of[order] = np.repeat(np.arange(folds), sizes)
    else:
        codes = _codes(op, stratify, count)
        fewest = int(np.bincount(codes).min())
        if fewest < folds:
            raise ValueError(
                f"{op}: with stratify every class needs at least k rows; got k {folds} and a "
                f"class of {fewest}"
            )
        # Dealt out like cards, class after class.
        fold_of[order[np.argsort(codes[order], kind="stable")]] = np.arange(count) % folds
    return [(np.flatnonzero(fold_of != i), np.flatnonzero(fold_of == i)) for i in range(folds)]


def _test_count(test_size: Any, count: int) -> int:
    """Turn `test_size` into a number of rows.

    Args:
        test_size: Fraction or number of rows.
        count: Number of all rows.

    Returns:
        A number in [1, count - 1].

    Raises:
        TypeError: If the size is not a number.
        ValueError: If it is out of range or leaves a part empty.

    Example:
        >>> _test_count(0.25, 10), _test_count(0.07, 100), _test_count(4, 10)
        (3, 7, 4)
    """
    if isinstance(test_size, (float, np.floating)):
        if not 0 < test_size < 1:
            raise ValueError(f"{_OP}: a float test_size must be in (0, 1); got {test_size}")
        exact = float(test_size) * count
        nearest = round(exact)
        # 0.07 * 100 is 7.000000000000001 in floating point; its ceiling would be 8.
        close = math.isclose(exact, nearest, rel_tol=1e-12)
        test_count = nearest if close else math.ceil(exact)
    elif isinstance(test_size, numbers.Integral):
        test_count = check_int(_OP, "test_size", test_size)
    else:
        raise TypeError(f"{_OP}: test_size must be a float or an int; got {test_size!r}")
    if not 1 <= test_count <= count - 1:
        raise ValueError(
            f"{_OP}: both parts need at least one row; got test_size {test_size} "
            f"for {count} rows ({count - test_count} to train on)"
        )
    return test_count


def _codes(op: str, stratify: Any, count: int) -> NDArray[np.intp]:
    """Number the classes of the labels 0, 1, 2 ... .

    Args:
        op: Name for the error text.
        stratify: Labels, `(count,)`.
        count: Number of rows.

    Returns:
        The class number of each row, `(count,)`.

    Raises:
        TypeError: If the labels are not a NumPy array.
        ValueError: If their shape does not fit.
    """
    if not isinstance(stratify, np.ndarray):
        raise TypeError(
            f"{op}: stratify must be a numpy.ndarray; got {type(stratify).__name__} "
            "(call np.asarray)"
        )
    if stratify.shape != (count,):
        raise ValueError(f"{op}: stratify must have shape {(count,)}; got {stratify.shape}")
    return np.unique(stratify, return_inverse=True)[1].reshape(count)


def _stratified(
    order: NDArray[np.intp], codes: NDArray[np.intp], test_count: int
) -> NDArray[np.bool_]:
    """Choose test rows so that every class gives its share.

    Math: share_c = n_test * n_c / n, rounded down; what is missing goes to the largest remainders

    Args:
        order: Random order of the rows, `(n,)`.
        codes: Class number of each row, `(n,)`.
        test_count: Number of test rows.

    Returns:
        For each place in `order` whether that row is a test row, `(n,)`.

    Raises:
        ValueError: If a class has one row, or a part has fewer rows than there are classes.
    """
    count = len(order)
    sizes = np.bincount(codes)
    if sizes.min() < 2:
        raise ValueError(
            f"{_OP}: every class of stratify needs at least 2 rows; got a class with 1 "
            f"(of {len(sizes)} classes)"
        )
    smaller = min(test_count, count - test_count)
    if smaller < len(sizes):
        raise ValueError(
            f"{_OP}: with stratify each part needs a row for each of the {len(sizes)} classes; "
            f"got parts of {count - test_count} and {test_count} rows"
        )
    shares = sizes * test_count // count
    remainders = sizes * test_count % count
    largest = np.argsort(-remainders, kind="stable")[: test_count - int(shares.sum())]
    shares[largest] += 1
    in_order = codes[order]
    grouped = np.argsort(in_order, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank_in_class = np.empty(count, dtype=np.intp)
    rank_in_class[grouped] = np.arange(count) - starts[in_order[grouped]]
    return np.asarray(rank_in_class < shares[in_order], dtype=np.bool_)
