# SPDX-License-Identifier: MIT
"""The process-wide state of the random generator: a Philox key (the seed) and its next counter.

Philox4x32-10 makes four 32-bit words from (seed, counter), with no state of its own: a call that
needs n words takes the next ceil(n / 4) counters. So the stream of a process is fixed by the seed
and the sequence of calls, on any backend and for any number of threads.
"""

from __future__ import annotations

import contextlib
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LIMIT = 2**64

_lock = threading.Lock()
_seed = 0
_offset = 0


@dataclass(frozen=True)
class Part:
    """Which samples of a batch this process has: first, first + step, ...

    Args:
        first: The first of them.
        step: From one to the next.
        samples: How many they are.
        batch: Returns how many there are in the whole batch.
    """

    first: int
    step: int
    samples: int
    batch: Callable[[], int]


class _Thread(threading.local):
    part: Part | None = None


_thread = _Thread()


def check_word(op: str, name: str, value: Any) -> int:
    """Return a seed or an offset as an int.

    Args:
        op: Name for the error text.
        name: Name of the argument.
        value: A Python or NumPy integer; bool is refused.

    Returns:
        The value.

    Raises:
        TypeError: If the value is not an integer.
        ValueError: If it is outside [0, 2**64).

    Example:
        >>> check_word("dropout", "seed", 7)
        7
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        word = operator.index(value)
    except TypeError:  # an array of floats has __index__ too
        raise TypeError(f"{op}: {name} must be an integer; got {value!r}") from None
    if not 0 <= word < _LIMIT:
        raise ValueError(f"{op}: {name} must be in [0, 2**64); got {word}")
    return word


def manual_seed(seed: int) -> None:
    """Start the random stream of this process anew from a seed.

    Dropout without a seed of its own, and initial values, draw from this stream. Until the first
    call the seed is 0: a program that never calls it is reproducible too. Threads share the
    stream; which of them draws first is theirs to settle.

    Args:
        seed: An integer in [0, 2**64).

    Raises:
        TypeError: If the seed is not an integer.
        ValueError: If it is out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.manual_seed(1)
        >>> first = tg.dropout(np.ones(100))
        >>> tg.manual_seed(1)
        >>> np.array_equal(first, tg.dropout(np.ones(100)))
        True
    """
    global _seed, _offset
    word = check_word("manual_seed", "seed", seed)
    with _lock:
        _seed, _offset = word, 0


def take(words: int) -> tuple[int, int]:
    """Reserve random words of the process-wide stream.

    Args:
        words: How many 32-bit words the caller will use, at least 0.

    Returns:
        `(seed, offset)`: the words are those of counters offset, offset + 1, ..., and the stream
        goes on at offset + ceil(words / 4), modulo 2**64.

    Example:
        >>> state = get_state()
        >>> manual_seed(7)
        >>> take(5), take(1), take(1)
        ((7, 0), (7, 2), (7, 3))
        >>> set_state(state)
    """
    global _offset
    with _lock:
        offset = _offset
        _offset = (offset + (operator.index(words) + 3) // 4) % _LIMIT
        return _seed, offset


@contextlib.contextmanager
def part_of_batch(part: Part) -> Iterator[None]:
    """Let random masks of samples be drawn, in this thread, as for the whole batch."""
    before, _thread.part = _thread.part, part
    try:
        yield
    finally:
        _thread.part = before


def present_part() -> Part | None:
    """Return the part of a batch that this thread works on; None for a whole one."""
    return _thread.part


def get_state() -> dict[str, int]:
    """Return the state of the stream, as a checkpoint keeps it.

    Returns:
        A dict of `seed` and `offset`, the next counter.

    Example:
        >>> state = get_state()
        >>> sorted(state)
        ['offset', 'seed']
    """
    with _lock:
        return {"seed": _seed, "offset": _offset}


def set_state(state: Mapping[str, int]) -> None:
    """Continue the stream from a state that `get_state` returned.

    Args:
        state: A mapping with `seed` and `offset`.

    Raises:
        TypeError: If one of them is not an integer.
        ValueError: If one is missing or outside [0, 2**64).

    Example:
        >>> state = get_state()
        >>> before = take(4)
        >>> set_state(state)
        >>> take(4) == before
        True
    """
    global _seed, _offset
    missing = [name for name in ("seed", "offset") if name not in state]
    if missing:
        raise ValueError(f"set_state: state must have seed and offset; got {sorted(state)}")
    seed = check_word("set_state", "seed", state["seed"])
    offset = check_word("set_state", "offset", state["offset"])
    with _lock:
        _seed, _offset = seed, offset
