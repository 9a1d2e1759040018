# SPDX-License-Identifier: MIT
"""Draw permutations that follow from a seed alone, on any machine and with any NumPy version."""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD_LIMIT = 2**64


def check_seed(op: str, seed: Any) -> int:
    """Return the seed as an int; None draws one from the operating system.

    Args:
        op: Name for the error text.
        seed: An integer in [0, 2**64) or None.

    Returns:
        The seed; a drawn one is below 2**53, so that every JSON reader keeps it exact.

    Raises:
        TypeError: If the seed is not an integer.
        ValueError: If it is out of range.

    Example:
        >>> check_seed("demo", 7)
        7
    """
    if seed is None:
        return int.from_bytes(os.urandom(8), "little") >> 11
    value = check_int(op, "seed", seed)
    if not 0 <= value < WORD_LIMIT:
        raise ValueError(f"{op}: seed must be in [0, 2**64); got {value}")
    return value


def check_int(op: str, name: str, value: Any) -> int:
    """Return an integer option as a Python int.

    Args:
        op: Name for the error text.
        name: Name of the option.
        value: A Python or NumPy integer; bool is refused.

    Returns:
        The value.

    Raises:
        TypeError: If the value is not an integer.

    Example:
        >>> check_int("demo", "batch_size", 32)
        32
    """
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{op}: {name} must be an integer; got {value!r}")


def permutation(count: int, seed: int, stream: int) -> NDArray[np.intp]:
    """Draw a permutation of `range(count)`.

    NumPy keeps the raw words of a bit generator fixed for ever, but not what
    `Generator.permutation` makes of them: a checkpoint must resume under a newer NumPy too.

    Math: order = argsort(w_0 ... w_{count-1}), w_i = word i of Philox4x64-10, key (seed, stream)

    Args:
        count: Length of the permutation.
        seed: First key word, in [0, 2**64).
        stream: Second key word, in [0, 2**64), for example the epoch.

    Returns:
        The permutation, `(count,)`.

    Example:
        >>> permutation(5, seed=0, stream=0).tolist()
        [0, 2, 1, 4, 3]
    """
    bits = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    words = np.asarray(bits.random_raw(count), dtype=np.uint64)
    return np.argsort(words, kind="stable")


def row_words(seed: int, epoch: int, number: int, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Draw a random word for each row: it depends on nothing but the arguments and the row.

    Math: z = key + (row + 1) 0x9E3779B97F4A7C15, then SplitMix64's mixing of z; key is a word of
    Philox4x64-10 under (seed, epoch), at counters that `permutation` never reaches.

    Args:
        seed: In [0, 2**64).
        epoch: In [0, 2**64).
        number: Tells apart several draws for one row, from 0.
        rows: Row numbers, `(n,)`.

    Returns:
        The words, `(n,)`.

    Example:
        >>> both = row_words(0, 0, 0, np.array([3, 8]))
        >>> bool(both[1] == row_words(0, 0, 0, np.array([8]))[0])
        True

    Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014).
    """
    key, counter = np.array([seed, epoch], np.uint64), np.array([0, 0, 0, number + 1], np.uint64)
    bits = np.random.Philox(key=key, counter=counter)
    start = np.asarray(bits.random_raw(1), np.uint64)
    z = start + (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return words
