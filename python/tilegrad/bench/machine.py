# SPDX-License-Identifier: MIT
"""What this machine can do at most, measured now: the denominators of every share of a limit."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tilegrad import _cpu


def fma_peak(threads: int = 1, seconds: float = 0.2) -> float:
    """Measure the float32 multiply-add rate of the active instruction set.

    Args:
        threads: Threads that compute at the same time.
        seconds: Time to spend; the best of several short runs counts, since noise only slows.

    Returns:
        GFLOP/s of all threads together.
    """
    rounds = 200_000
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        start = time.perf_counter()
        flops = _cpu._multiply_add(rounds, threads)
        best = max(best, flops / (time.perf_counter() - start))
    return best / 1e9


def multiply_add(threads: int = 1) -> tuple[Callable[[], float], float]:
    """Return a call that does nothing but float32 multiply-adds, and how many operations it does.

    Args:
        threads: Threads that compute at the same time.

    Returns:
        The call, a fraction of a millisecond long, and its floating-point operations.
    """
    call = partial(_cpu._multiply_add, 200_000, threads)
    return call, call()


def copy_bandwidth(megabytes: float = 256, repeats: int = 5) -> float:
    """Measure the rate of copying memory that lies outside the caches.

    Args:
        megabytes: Size of each of the two arrays.
        repeats: The best of so many copies counts.

    Returns:
        GB/s, bytes read plus bytes written.
    """
    source = np.ones(int(megabytes * 1e6 / 8))
    target = np.zeros_like(source)
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / (time.perf_counter() - start))
    return best / 1e9


class Copy:
    """Copy memory on every core at once, for as long as a few milliseconds.

    The bytes of one copy decide in which cache, or in memory, the limit is measured. Each thread
    copies its part again and again without waiting for the others, so no time goes into a join.

    Args:
        size: Bytes of one copy, read and written together, over all threads.
        threads: Threads that copy at the same time.
        cores: The core of each thread; empty leaves them where the system puts them.

    Example:
        >>> Copy(1_000_000).work
        16000000.0
    """

    _AT_ONCE = 16_000_000  # bytes that a call moves at least

    def __init__(self, size: int, threads: int = 1, cores: list[int] | None = None) -> None:
        # Below this, a copy is shorter than the interpreter's lock is held for starting it: then
        # one thread is measured, and private caches are as many times as fast as there are.
        together = threads if size / threads > 1_000_000 else 1
        self._factor = threads // together
        part = max(size // threads // 16, 1)
        self._repeats = max(1, -(-self._AT_ONCE // (16 * part * threads)))
        self.work = float(16 * part * threads * self._repeats)
        self._pairs = [(np.ones(part), np.zeros(part)) for _ in range(together)]
        self._pool = ThreadPoolExecutor(together) if together > 1 else None
        self._cores = list(cores or [])

    def __call__(self) -> None:
        """Copy `work` bytes."""
        if self._pool is None:
            self._copy(0)
            return
        for done in [self._pool.submit(self._copy, i) for i in range(len(self._pairs))]:
            done.result()

    def _copy(self, i: int) -> None:
        if self._pool is not None and self._cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self._cores[i % len(self._cores)]})
        source, target = self._pairs[i]
        for _ in range(self._repeats):
            np.copyto(target, source)


def describe() -> dict[str, Any]:
    """Return what a result file must say about the machine."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass  # not Linux: the platform's own word must do
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "caches": _caches(),
        "isa": _cpu.isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def _caches() -> dict[str, str]:
    """Return the sizes of the data caches of the first core, where the system tells them."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}"] = size
    return sizes
