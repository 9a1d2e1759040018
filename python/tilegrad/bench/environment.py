# SPDX-License-Identifier: MIT
"""The conditions of a measurement: threads and cores, equal for every side, set before imports.

Three libraries with three pools of threads share one process. OpenMP reads its settings when it is
loaded, so the process starts itself again with the right environment. Two unpinned threads of torch
can land on one core and cost milliseconds a call; once torch is pinned, the calling thread is bound
to the first core, and every pool started after it would inherit that one core. So each pool is
started, and its workers are put on the cores beside the first, in a fixed order.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

_MARK = "TILEGRAD_BENCH_THREADS"  # set in the process that was started again


@functools.cache
def torch() -> Any:
    """Return torch, or None where it is not installed.

    The first call, after `pin`, is what imports it.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def variables(threads: int, cores: Sequence[int]) -> dict[str, str]:
    """Return the environment in which every library uses so many threads, on these cores.

    Args:
        threads: Threads of each library.
        cores: Where they run; empty where the system cannot pin.

    Example:
        >>> variables(2, [0, 1])["GOMP_CPU_AFFINITY"]
        '0 1'
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TILEGRAD_NUM_THREADS")
    result = dict.fromkeys(names, count)
    result[_MARK] = count
    # Idle workers of OpenBLAS spin for 2^26 cycles, about 30 ms: longer than a side may wait. With
    # 2^20 they sleep after half a millisecond and still stay awake inside a batch of calls.
    result["OPENBLAS_THREAD_TIMEOUT"] = "20"
    if cores:
        result["GOMP_CPU_AFFINITY"] = " ".join(map(str, cores))
    return result


def choose_cores(threads: int) -> list[int]:
    """Return the cores to run on, or none where the system cannot pin.

    Raises:
        ValueError: If this process may not use so many.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise ValueError(f"bench: --threads must be at most {len(allowed)}, the cores this process "
                         f"may use; got {threads}")  # fmt: skip
    return allowed[:threads]


def start_again(threads: int, argv: Sequence[str]) -> None:
    """Replace this process by one with the right environment, unless it is that one.

    Args:
        threads: Threads of each library.
        argv: Arguments for ``python -m tilegrad.bench``.
    """
    if os.environ.get(_MARK) == str(threads):
        return
    cores = choose_cores(threads)
    if cores:
        os.sched_setaffinity(0, cores)  # inherited, as the environment is
    sys.stdout.flush()
    command = [sys.executable, "-m", "tilegrad.bench", *argv]
    os.execve(sys.executable, command, {**os.environ, **variables(threads, cores)})


def pin(threads: int) -> list[int]:
    """Start every pool with so many threads and put each worker on its core.

    Args:
        threads: Threads of each library, at most as many as the cores of this process.

    Returns:
        The core of each thread; empty where the system cannot pin.
    """
    import numpy as np

    from tilegrad import ops, set_num_threads

    set_num_threads(threads)
    cores = choose_cores(threads)
    x = np.ones((512, 512), np.float32)
    before = {os.getpid()}
    for start in (lambda: np.matmul(x, x), lambda: ops.matmul(x, x)):
        start()
        before = _place_workers(before, cores)
    if (module := torch()) is not None:
        module.set_num_threads(threads)
        y = module.from_numpy(x)
        module.mm(y, y)
        _place_workers(before, cores)
    if cores:
        os.sched_setaffinity(0, cores[:1])  # 0 is the calling thread alone
    return cores


def _place_workers(known: set[int], cores: list[int]) -> set[int]:
    """Keep new threads off the first core, each on a core of its own; return all threads."""
    if len(cores) < 2:
        return known
    present = {int(name) for name in os.listdir("/proc/self/task")}
    others = [{core} for core in cores[1:]]
    for i, worker in enumerate(sorted(present - known)):
        if os.sched_getaffinity(worker) not in others:  # else OpenMP has placed it already
            os.sched_setaffinity(worker, others[i % len(others)])
    return present
