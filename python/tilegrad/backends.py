# SPDX-License-Identifier: MIT
"""The compiled backends: which one an operand belongs to, their threads, memory and state.

`_cpu` loads with the package, the others at first use. A backend that is not part of a build is
absent: `info()` says why.

Inside the package a device is a *place*: None is the CPU, -1 is sim, 0, 1, ... are cuda:0, cuda:1.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from numpy import ndarray

from . import _cpu

_NAMES = ("cpu", "sim", "cuda")
_WHAT_IT_TAKES = {
    "cuda": "it was built without nvcc; `pip install 'cuda-toolkit[nvcc,cccl]==13.0.*'` brings "
    "one, then build again (docs/packaging.md)",
    "sim": "the simulator is built on Linux",
}
SIM = -1
CUDA_MEMORY = (2, 13)  # DLPack's device types of memory on a GPU: its own, and managed


class _Loaded:
    """The modules of the device backends, once they are loaded."""

    sim: Any = None  # `_sim`, or `_sim_trace` inside `tilegrad.sim.trace()`
    cuda: Any = None
    array: Any = None  # the class Array
    float32_precision = "highest"


def of(x: object) -> Any:
    """Return the backend module that computes on an operand.

    Every public function calls it once, on its first operand, so it must stay a few instructions.
    Whatever lies in the memory of the CPU belongs to `_cpu`, which also refuses what it cannot
    read.

    Args:
        x: The first operand of a call.

    Returns:
        The module.

    Example:
        >>> import numpy as np
        >>> of(np.zeros(3)).__name__
        'tilegrad._cpu'
    """
    kind = type(x)
    if kind is ndarray:
        return _cpu
    if kind is _Loaded.array:
        return at(x._place)  # type: ignore[attr-defined]
    if hasattr(x, "__dlpack_device__") and not isinstance(x, ndarray):
        try:
            device, number = map(int, x.__dlpack_device__())
        except Exception:
            return _cpu  # which says, with the op's name, what is wrong with it
        if device in CUDA_MEMORY:
            return at(number)
    return _cpu


def at(place: int | None) -> Any:
    """Return the module of a place, loaded at the first call.

    Raises:
        RuntimeError: If the backend is missing or has no such device; the text says why.
    """
    if place is None:
        return _cpu
    loaded = _Loaded.sim if place == SIM else _Loaded.cuda
    return _load(place) if loaded is None else loaded


def _load(place: int) -> Any:
    name = "sim" if place == SIM else "cuda"
    reason = _reason_missing(name)
    if reason is not None:
        hint = " (device='sim' runs the same kernels anywhere)" if name == "cuda" else ""
        raise RuntimeError(f"device: {name!r} cannot be used: {reason}{hint}")
    from .array import Array

    _Loaded.array = Array
    module = importlib.import_module(f"{__package__}._{name}")
    module._set_float32_matmul_precision(_Loaded.float32_precision)
    setattr(_Loaded, name, module)
    return module


def place_of(device: str) -> int | None:
    """Return the place of a device by its name.

    Args:
        device: "cpu", "sim", "cuda" (the first one) or "cuda:N".

    Raises:
        TypeError: If device is no string.
        ValueError: If there is no device of that name.
        RuntimeError: If its backend is missing; the text says why.

    Example:
        >>> place_of("cpu"), place_of("sim")
        (None, -1)
    """
    if not isinstance(device, str):
        raise TypeError(f"device: must be a string, such as 'cpu'; got {device!r}")
    if device == "cpu":
        return None
    name, _, number = device.partition(":")
    known = device == "sim" or (name == "cuda" and (device == name or number.isdecimal()))
    if not known:
        raise ValueError(f"device: must be cpu, sim, cuda or cuda:N; got {device!r}")
    place = SIM if name == "sim" else int(number or 0)
    module = at(place)
    if place >= 0 and place >= module.device_count():
        raise RuntimeError(
            f"device: {device!r} cannot be used: there are {module.device_count()} CUDA devices"
            + (f" ({module.reason_unavailable()})" if module.device_count() == 0 else "")
        )
    return place


def place_name(place: int | None) -> str:
    """Return a place's name.

    Example:
        >>> place_name(None), place_name(-1), place_name(1)
        ('cpu', 'sim', 'cuda:1')
    """
    if place is None:
        return "cpu"
    return "sim" if place == SIM else f"cuda:{place}"


def place_of_array(x: object) -> int | None:
    """Return the place of an operand; None for whatever lies in the memory of the CPU."""
    return x._place if type(x) is _Loaded.array else None  # type: ignore[attr-defined]


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


_PRECISIONS = ("highest", "high", "medium")


def get_float32_matmul_precision() -> str:
    """Return how exact products of float32 matrices are on cuda and sim.

    Returns:
        "highest", "high" or "medium": see `set_float32_matmul_precision`.

    Example:
        >>> get_float32_matmul_precision()
        'highest'

    Source: torch.get_float32_matmul_precision
    """
    return _Loaded.float32_precision


def set_float32_matmul_precision(precision: str) -> None:
    """Set how exact products of float32 matrices are on cuda and sim, for the whole process.

    It holds for `matmul`, `linear`, layers and their backward passes, where a product is large
    enough for tensor cores (compute capability 8.0 and later; k from 16, m and n from 9) and names
    no `variant`. It is read when a product starts; a `TrainStep` keeps for each shape of batch what
    held when it first met that shape. The cpu ignores it: there float32 is "highest" always. Other
    dtypes are not touched. Each setting gives the same bits at every run.

    Math: the error of c_ij is at most e sum_p |a_ip| |b_pj|, with e of k 2^-24 for "highest",
        2^-21 + (k / 8 + 3) 2^-24 for "high" and 2^-10 + k 2^-24 for "medium".

    Args:
        precision: "highest": float32 throughout (the default). "high": each number as the sum of
            two of tf32, three products on tensor cores, about as accurate. "medium": numbers are
            rounded to tf32, which keeps 10 bits of the significand (and a NaN whose payload lies
            in the other 13 alone, which arithmetic does not make, may count as an infinity).

    Raises:
        ValueError: If precision is another word.

    Example:
        >>> set_float32_matmul_precision("high")
        >>> get_float32_matmul_precision()
        'high'
        >>> set_float32_matmul_precision("highest")

    Source: torch.set_float32_matmul_precision
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            "set_float32_matmul_precision: precision must be one of "
            f"{', '.join(_PRECISIONS)}; got {precision!r}"
        )
    _Loaded.float32_precision = precision
    for name in ("_sim", "_sim_trace", "_cuda"):
        module = sys.modules.get(f"{__package__}.{name}")
        if module is not None:
            module._set_float32_matmul_precision(precision)


def release_memory() -> int:
    """Give the memory that tilegrad keeps for later results back: the CPU's and every device's.

    Arrays in use are untouched. The workspace of other threads stays with them.

    Returns:
        The number of bytes released.

    Example:
        >>> release_memory() >= 0
        True
    """
    modules = (_cpu, _Loaded.sim, _Loaded.cuda)
    return sum(int(module.release_memory()) for module in modules if module is not None)


def _reason_missing(name: str) -> str | None:
    """Return why a backend cannot be used, or None if it can."""
    module = f"{__package__}._{name}"
    if importlib.util.find_spec(module) is None:
        remedy = _WHAT_IT_TAKES.get(name, "install it again")
        return f"this build of tilegrad has no {module}: {remedy}"
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        return str(error)
    if name == "cuda" and loaded.device_count() == 0:
        return str(loaded.reason_unavailable())
    return None


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
