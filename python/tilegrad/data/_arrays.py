# SPDX-License-Identifier: MIT
"""Hold the checks and the row selection that the loader and the split share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_arrays(op: str, arrays: Sequence[NDArray[Any]]) -> int:
    """Return the common number of rows of the arrays.

    Args:
        op: Name for the error text.
        arrays: Arrays of at least one axis; axis 0 counts the samples.

    Returns:
        The length of axis 0.

    Raises:
        TypeError: If something is not a NumPy array.
        ValueError: If there is no array, one is 0-d, or the lengths differ.

    Example:
        >>> import numpy as np
        >>> check_arrays("demo", (np.zeros((3, 2)), np.zeros(3)))
        3
    """
    if not arrays:
        raise ValueError(f"{op}: give at least one array; got none")
    for i, array in enumerate(arrays):
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"{op}: array {i} must be a numpy.ndarray; got {type(array).__name__} "
                "(options go by keyword; convert data with np.asarray)"
            )
        if array.ndim == 0:
            raise ValueError(f"{op}: array {i} needs a first axis of samples; got a 0-d array")
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"{op}: all arrays need the same length; got {lengths}")
    return lengths[0]


def take_rows(array: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[Any]:
    """Copy the given rows into a new C-contiguous array.

    Args:
        array: Any shape with at least one axis, any strides.
        rows: Row numbers, `(k,)`.

    Returns:
        An array of shape `(k, *array.shape[1:])`.

    Example:
        >>> import numpy as np
        >>> take_rows(np.array([10, 20, 30]), np.array([2, 0])).tolist()
        [30, 10]
    """
    if array.flags.c_contiguous:
        return array.take(rows, axis=0)
    # take() would first copy the whole of a strided array; indexing touches only the rows.
    return np.ascontiguousarray(array[rows])
