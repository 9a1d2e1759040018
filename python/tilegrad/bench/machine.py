# SPDX-License-Identifier: MIT
"""What this machine can do at most, measured now: the denominators of every share of a limit."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
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
    copies again without waiting for the others, so joins take no part of the time.

    Args:
        size: Bytes of one copy, read and written together, over all threads.
        threads: Threads that copy at the same time.

    Example:
        >>> Copy(1_024_000).work
        16384000.0
    """

    _AT_ONCE = 16_000_000  # bytes that a call moves at least
    _AT_ONCE_IN_CACHE = 128_000_000  # the same where a core's own caches hold the copy
    _IN_CACHE = 1_000_000  # bytes of a thread's copy

    def __init__(self, size: int, threads: int = 1) -> None:
        part = (
            -(-size // threads // 8 // 32) * 32 or 32
        )  # numbers of a thread's source, whole lines
        at_once = self._AT_ONCE_IN_CACHE if 8 * part <= self._IN_CACHE else self._AT_ONCE
        self._rounds = max(1, -(-at_once // (8 * part * threads)))
        self.work = float(8 * part * threads * self._rounds)
        # A target that lies a multiple of 4096 bytes behind its source would slow the loads down.
        block = -(-4 * part * threads // 4096) * 4096
        memory = np.ones(2 * block + 2 * 4096, np.uint8)
        first = -memory.ctypes.data % 4096
        self._source, self._target = (
            memory[start : start + 4 * part * threads].view(np.float32).reshape(threads, part)
            for start in (first, first + block + 2048)
        )

    def __call__(self) -> None:
        """Copy `work` bytes."""
        _cpu._copy(self._target, self._source, self._rounds)


def ceilings(threads: int = 1) -> dict[str, Any]:
    """Measure what bounds every kernel: arithmetic, and copying in each cache and in memory.

    Args:
        threads: Threads that work at the same time.

    Returns:
        `fma_gflops`, and `copy_gbytes` with bytes read and written by level: L1, L2, L3, memory.
    """
    rates = {}
    for level, size in copy_sizes(_caches(), threads).items():
        copy = Copy(size, threads)
        copy()
        best, end, done = float("inf"), time.perf_counter() + 0.15, 0
        while done < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            copy()
            best = min(best, time.perf_counter() - start)
            done += 1
        rates[level] = round(copy.work / best / 1e9, 1)
    return {"fma_gflops": round(fma_peak(threads), 1), "copy_gbytes": rates}


def copy_sizes(caches: dict[str, str], threads: int) -> dict[str, int]:
    """Return how large a copy is that runs in each level, all threads together.

    Half of each core's own caches; 8 times those of the second level for the shared one; for memory
    twice the last for each thread, up to 1.2 gigabytes.

    Args:
        caches: Sizes as the system tells them, such as "48K".
        threads: Threads that copy at the same time.

    Example:
        >>> copy_sizes({"L1": "32K", "L2": "1024K", "L3": "32M"}, 2)
        {'L1': 32768, 'L2': 1048576, 'L3': 16777216, 'memory': 512000000}
    """
    sizes = _cache_bytes(caches)
    result: dict[str, int] = {}
    result |= {level: sizes[level] * threads // 2 for level in ("L1", "L2") if level in sizes}
    if "L2" in sizes and sizes.get("L3", 0) >= 16 * sizes["L2"] * threads:
        result["L3"] = 8 * sizes["L2"] * threads
    each = max(256_000_000, 2 * max(sizes.values(), default=0))
    result["memory"] = min(threads * each, 1_200_000_000)
    return result


def _cache_bytes(caches: dict[str, str]) -> dict[str, int]:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return {
        level: int(text[:-1]) * units[text[-1]]
        for level, text in caches.items()
        if text[-1:] in units and text[:-1].isdigit()
    }


def private_bytes() -> int:
    """Return the bytes of the caches that a core has for itself: L1 and L2; 0 where unknown."""
    sizes = _cache_bytes(_caches())
    return sizes.get("L1", 0) + sizes.get("L2", 0)


def largest_copy(threads: int = 1) -> int:
    """Return the bytes of a copy that no cache holds."""
    return copy_sizes(_caches(), threads)["memory"]


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
        "features": _features(),
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


def _features() -> list[str]:
    """Return the features of the processor that decide about matrix products, where it tells."""
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
    try:
        with open("/proc/cpuinfo") as lines:
            flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return []
    return [name for name in known if name in flags]
