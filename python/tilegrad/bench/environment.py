# SPDX-License-Identifier: MIT
"""The conditions of a measurement: threads and cores, equal for every side, set before imports.

Several libraries, each with a pool of threads, share one process. OpenMP reads its settings when it
is loaded, so the process starts itself again with the right environment. Two unpinned threads of
torch can land on one core and cost milliseconds a call; once torch is pinned, the calling thread is
bound to the first core, and every pool started after it would inherit that one core. So each pool
is started, and its workers are put on the cores beside the first, in a fixed order. jax's, which
share work with the caller in no fixed way, may use all of these cores.

Where TILEGRAD_CPU holds tilegrad to an instruction set, the peers are held to the same one;
those that cannot be are left out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_MARK = "TILEGRAD_BENCH_THREADS"  # set in the process that was started again


# What holds a peer to an instruction set: tilegrad's name for it, then variables.
_HELD: dict[str, dict[str, str]] = {
    "generic": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},  # no tile instructions (AMX)
}
# What NumPy may still choose; newer versions have one name for a level, older ones many.
_NUMPY_KEEPS: dict[str, set[str]] = {
    "generic": set(),
    "avx2": {"X86_V3", "SSSE3", "SSE41", "POPCNT", "SSE42", "AVX", "F16C", "FMA3", "AVX2"},
}
# jax has a flag, --xla_cpu_max_isa, but its matmul library does not heed it.
CANNOT_BE_HELD = ("jax", "onnxruntime")
_left_out: set[str] = set()  # peers that are not wanted
pinned_to: list[int] = []  # the core of each thread, once `pin` has been called


def _module(name: str) -> Any:
    """Return a module, or None where it is not installed or left out."""
    if name in _left_out:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


@functools.cache
def torch() -> Any:
    """Return torch, or None where it is not installed.

    The first call, after `pin`, is what imports it.
    """
    return _module("torch")


@functools.cache
def jax() -> Any:
    """Return jax, or None where it is not installed.

    Its calls compute in the calling thread: handing them to another one costs 5 to 10 us.
    """
    module = _module("jax")
    if module is not None:
        module.config.update("jax_platforms", "cpu")
        with contextlib.suppress(AttributeError):  # older than 0.4.31
            module.config.update("jax_cpu_enable_async_dispatch", False)
    return module


@functools.cache
def onnxruntime() -> Any:
    """Return onnxruntime, or None where it is not installed."""
    return _module("onnxruntime")


PEERS = {"torch": torch, "jax": jax, "onnxruntime": onnxruntime}  # beside NumPy, which is there


def leave_out(names: Iterable[str]) -> None:
    """Make peers absent, for a run in which nobody looks at them.

    Args:
        names: Of PEERS.
    """
    for name in names:
        _left_out.add(name)
        PEERS[name].cache_clear()


def left_out() -> list[str]:
    """Return the peers that were made absent, installed or not."""
    return [name for name in PEERS if name in _left_out]


def is_installed(name: str) -> bool:
    """Say whether a peer could be imported."""
    return importlib.util.find_spec(name) is not None


def held(isa: str) -> dict[str, str]:
    """Return the environment that holds the peers to an instruction set, as far as they allow it.

    Args:
        isa: A value of TILEGRAD_CPU; nobody is held for another one.

    Example:
        >>> held("avx2")["ATEN_CPU_CAPABILITY"], held("")
        ('avx2', {})
    """
    result = dict(_HELD.get(isa, {}))
    if isa in _NUMPY_KEEPS:
        features = [name for name in _numpy_features() if name not in _NUMPY_KEEPS[isa]]
        if features:
            result["NPY_DISABLE_CPU_FEATURES"] = " ".join(features)
    return result


def _numpy_features() -> list[str]:
    """Return what NumPy can choose from at run time, beyond what it is compiled for."""
    for name in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):
        if (module := _module(name)) is not None:
            return list(getattr(module, "__cpu_dispatch__", []))
    return []


def variables(threads: int, cores: Sequence[int], isa: str = "") -> dict[str, str]:
    """Return the environment in which every library uses so many threads, on these cores.

    Args:
        threads: Threads of each library.
        cores: Where they run; empty where the system cannot pin.
        isa: The instruction set that all are held to; "" leaves each its own choice.

    Example:
        >>> variables(2, [0, 1])["GOMP_CPU_AFFINITY"]
        '0 1'
    """
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TILEGRAD_NUM_THREADS")
    result = dict.fromkeys(names, count)
    result[_MARK] = count
    result["NPROC"] = count  # of jax
    # Idle workers of OpenBLAS spin for 2^26 cycles, about 30 ms: longer than a side may wait. With
    # 2^20 they sleep after half a millisecond and still stay awake inside a batch of calls.
    result["OPENBLAS_THREAD_TIMEOUT"] = "20"
    if cores:
        result["GOMP_CPU_AFFINITY"] = " ".join(map(str, cores))
    return {**result, **held(isa)}


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
    isa = os.environ.get("TILEGRAD_CPU", "")
    os.execve(sys.executable, command, {**os.environ, **variables(threads, cores, isa)})


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
    if (module := jax()) is not None:
        module.numpy.matmul(x, x).block_until_ready()
        before = _threads()
    if (module := torch()) is not None:
        module.set_num_threads(threads)
        y = module.from_numpy(x)
        module.mm(y, y)
        _place_workers(before, cores)
    if cores:
        os.sched_setaffinity(0, cores[:1])  # 0 is the calling thread alone
    pinned_to[:] = cores
    return cores


def _place_workers(known: set[int], cores: list[int]) -> set[int]:
    """Keep new threads off the first core, each on a core of its own; return all threads."""
    if len(cores) < 2:
        return known
    present = _threads()
    others = [{core} for core in cores[1:]]
    for i, worker in enumerate(sorted(present - known)):
        if os.sched_getaffinity(worker) not in others:  # else OpenMP has placed it already
            os.sched_setaffinity(worker, others[i % len(others)])
    return present


def _threads() -> set[int]:
    folder = "/proc/self/task"
    return {int(name) for name in os.listdir(folder)} if os.path.isdir(folder) else set()
