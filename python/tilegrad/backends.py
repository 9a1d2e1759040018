# SPDX-License-Identifier: MIT
"""The compiled backends: which one an operand belongs to, their threads, memory and state.

`_cpu` loads with the package. A backend that is not part of a build is absent: `info()` says why.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from . import _cpu

_NAMES = ("cpu", "sim", "cuda")


def of(x: object) -> Any:
    """Return the backend module that computes on an operand.

    Every public function calls it once, on its first operand, so it must stay a few instructions.
    A NumPy array, and whatever else lies in the memory of the CPU, belongs to `_cpu`, which also
    refuses what it cannot read.

    Args:
        x: The first operand of a call.

    Returns:
        The module.

    Example:
        >>> import numpy as np
        >>> of(np.zeros(3)).__name__
        'tilegrad._cpu'
    """
    return _cpu


def num_threads() -> int:
    """Return how many threads an op may use, the calling one included.

    Returns:
        The value of the last `set_num_threads`; before it TILEGRAD_NUM_THREADS, else
        OMP_NUM_THREADS, else the number of CPUs this process may run on.

    Example:
        >>> num_threads() >= 1
        True
    """
    return int(_cpu.num_threads())


def set_num_threads(n: int) -> None:
    """Set how many threads an op may use, the calling one included.

    No result depends on it.

    Args:
        n: The number of threads, at least 1.

    Raises:
        ValueError: If n is out of range.

    Example:
        >>> before = num_threads()
        >>> set_num_threads(1)
        >>> num_threads()
        1
        >>> set_num_threads(before)
    """
    _cpu.set_num_threads(n)


def release_memory() -> int:
    """Give the memory that tilegrad keeps for later results back to the system.

    Arrays in use are untouched. The workspace of other threads stays with them.

    Returns:
        The number of bytes released.

    Example:
        >>> release_memory() >= 0
        True
    """
    return int(_cpu.release_memory())


def _reason_missing(name: str) -> str | None:
    """Return why a backend cannot be used, or None if it can."""
    module = f"{__package__}._{name}"
    if importlib.util.find_spec(module) is None:
        return f"this build of tilegrad has no {module}"
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return None


def check_device(device: str) -> None:
    """Check that arrays can live on a device.

    Args:
        device: "cpu", "sim", "cuda" or "cuda:N".

    Raises:
        ValueError: If there is no device of that name.
        RuntimeError: If its backend is missing; the text says why.

    Example:
        >>> check_device("cpu")
    """
    name = device.partition(":")[0] if device.startswith("cuda:") else device
    if name not in _NAMES:
        raise ValueError(f"device: must be cpu, sim, cuda or cuda:N; got {device!r}")
    reason = _reason_missing(name)
    if reason is not None:
        raise RuntimeError(f"device: {device!r} cannot be used: {reason}")


def info() -> dict[str, Any]:
    """Describe this build and what it runs on.

    Returns:
        A dict of `version`; `isa`, the instruction set in use, and `supported_isas`, those that
        this CPU has (TILEGRAD_CPU chooses one); `num_threads`; `backends`, which maps each name
        to None if it is there, else to the reason why it is not.

    Example:
        >>> info()["backends"]["cpu"] is None
        True
    """
    from . import __version__

    return {
        "version": __version__,
        "isa": _cpu.isa(),
        "supported_isas": list(_cpu.supported_isas()),
        "num_threads": num_threads(),
        "backends": {name: _reason_missing(name) for name in _NAMES},
    }
