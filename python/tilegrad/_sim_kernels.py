# SPDX-License-Identifier: MIT
"""Kernels of one's own in the simulator: `tilegrad.sim.compile` and what it returns."""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import os
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import backends
from ._sim_compile import Source, build_library, kernel_names

# Kind and size of a parameter, as csrc/sim/kernel_library.hpp has them, to the format of struct.
_FORMATS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I",
    "u8": "Q", "f4": "f", "f8": "d",
}  # fmt: skip
_SLOT = 8  # bytes of an argument
# What CUDA allows on every compute capability from 7.5 on.
_LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64)}
_THREADS = 1024  # of a block


class _Entry(ctypes.Structure):
    """KernelEntry of csrc/sim/kernel_library.hpp."""

    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("invoke", ctypes.c_void_p),
        ("touch", ctypes.c_void_p),
        ("parameters", ctypes.c_char_p),
    )


class Kernel:
    """A kernel of a compiled source: `kernel[grid, block](*arguments)` launches it.

    Attributes:
        name: Its name.
        parameters: What it takes, such as ("float32*", "int64"): an Array on sim or None for a
            pointer, a Python number for the others.
    """

    def __init__(self, name: str, codes: tuple[str, ...], entry: Callable[[Any], _Entry]) -> None:
        self.name = name
        self.parameters = tuple(map(_readable, codes))
        self._codes = codes
        self._entry = entry

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"

    def __getitem__(self, configuration: Any) -> Callable[..., None]:
        """Return the function that launches the kernel on a grid.

        Args:
            configuration: Grid and block, each a number or up to three, and maybe the bytes of
                dynamic shared memory: what stands between <<< and >>> in CUDA.
        """
        if not isinstance(configuration, tuple) or len(configuration) not in (2, 3):
            raise TypeError(f"{self.name}: is launched as {self.name}[grid, block](...)")
        grid, block, dynamic_bytes = (*configuration, 0)[:3]
        blocks, threads = self._sizes("grid", grid), self._sizes("block", block)
        if math.prod(threads) > _THREADS:
            raise ValueError(f"{self.name}: a block has at most {_THREADS} threads; got {block}")
        bytes_ = operator.index(dynamic_bytes)
        if bytes_ < 0:
            raise ValueError(f"{self.name}: shared memory cannot be negative; got {bytes_} bytes")
        return functools.partial(self._launch, blocks, threads, bytes_)

    def _sizes(self, what: str, value: Any) -> tuple[int, ...]:
        sizes = tuple(map(operator.index, value if isinstance(value, tuple) else (value,)))
        limits = _LIMITS[what]
        # Not zip strictly: there may be fewer sizes than three.
        if not 1 <= len(sizes) <= 3 or not all(
            1 <= size <= most for size, most in zip(sizes, limits, strict=False)
        ):
            raise ValueError(
                f"{self.name}: {what} is one to three sizes from 1 to {limits}; got {value}"
            )
        return (*sizes, 1, 1)[:3]

    def _launch(
        self, grid: tuple[int, ...], block: tuple[int, ...], dynamic_bytes: int, *arguments: Any
    ) -> None:
        if len(arguments) != len(self._codes):
            raise TypeError(f"{self}: takes {len(self._codes)} arguments; got {len(arguments)}")
        slots = b"".join(map(self._slot, range(1, len(arguments) + 1), self._codes, arguments))
        module = backends.at(backends.SIM)
        entry = self._entry(module)
        module._launch(entry.kernel, entry.invoke, entry.touch, slots, grid, block, dynamic_bytes)

    def _slot(self, number: int, code: str, value: Any) -> bytes:
        what = f"{self}: argument {number} must be"
        if not code.startswith("*"):
            try:
                return struct.pack(f"<{_FORMATS[code]}", value).ljust(_SLOT, b"\0")
            except (struct.error, OverflowError):
                raise ValueError(f"{what} {_readable(code)}; got {value!r}") from None
        if value is None:
            return bytes(_SLOT)
        if backends.place_of_array(value) != backends.SIM:
            raise TypeError(
                f"{what} an Array on sim; got {type(value).__name__} "
                "(call tilegrad.asarray(x, device='sim'))"
            )
        if value.dtype_name + "*" != _readable(code):
            raise TypeError(f"{what} of {_readable(code)[:-1]}; got {value.dtype_name}")
        return struct.pack("<Q", value._pointer)


class KernelModule:
    """The kernels of a compiled source, as attributes: made by `compile()`.

    Attributes:
        kernels: All of them by name.
    """

    def __init__(self, source: Source, names: tuple[str, ...]) -> None:
        self._source, self._names = source, names
        self._entries: dict[str, Mapping[str, _Entry]] = {}
        self._lock = threading.Lock()
        self.kernels: dict[str, Kernel] = {}
        for name, entry in self._built(backends.at(backends.SIM)).items():
            codes = tuple(entry.parameters.decode().split())
            self.kernels[name] = Kernel(name, codes, functools.partial(self._entry, name))

    def __getattr__(self, name: str) -> Kernel:
        kernels: dict[str, Kernel] = self.__dict__.get("kernels", {})
        if name in kernels:
            return kernels[name]
        raise AttributeError(f"no kernel {name}; there are {', '.join(kernels)}")

    def __repr__(self) -> str:
        return f"{self._source.name}: {', '.join(map(repr, self.kernels.values()))}"

    def _entry(self, name: str, module: Any) -> _Entry:
        return self._built(module)[name]

    def _built(self, module: Any) -> Mapping[str, _Entry]:
        """Return the kernels of the library for `_sim` or `_sim_trace`, made at the first call."""
        with self._lock:
            if module.__name__ not in self._entries:
                library = ctypes.CDLL(build_library(self._source, self._names, module))
                table = (_Entry * len(self._names)).in_dll(library, "tilegrad_kernels")
                self._entries[module.__name__] = dict(zip(self._names, table, strict=True))
            return self._entries[module.__name__]


def compile(source: str | os.PathLike[str], *, name: str = "kernel.cu") -> KernelModule:
    """Compile CUDA kernels of your own for the simulator.

    Each kernel declared `extern "C" __global__ void` becomes an attribute that is launched as
    `module.kernel[grid, block](*arguments)`. The source stays plain CUDA C++, which nvcc compiles
    too; of CUDA it may use what csrc/sim/include has: barriers, shuffles, votes, atomics of
    integers, static and dynamic shared memory. Host code, with its <<< >>>, stays elsewhere.

    Args:
        source: The text, or the path (`pathlib.Path`) of a file.
        name: What messages and traces call a source that is given as text.

    Returns:
        The module.

    Raises:
        ValueError: If the source declares no such kernel.
        RuntimeError: If there is no C++ compiler ($CXX, else g++, c++ or clang++), or it finds
            errors, which the text then holds; or this build has no simulator.

    Example:
        >>> import tilegrad as tg
        >>> module = tg.sim.compile('''
        ... extern "C" __global__ void twice_kernel(float* y, const float* x, int n) {
        ...   const int i = blockIdx.x * blockDim.x + threadIdx.x;
        ...   if (i < n) y[i] = 2 * x[i];
        ... }
        ... ''')
        >>> module
        kernel.cu: twice_kernel(float32*, float32*, int32)
        >>> x = tg.full((3,), 21.0, device="sim")
        >>> y = tg.empty((3,), device="sim")
        >>> module.twice_kernel[1, 32](y, x, 3)
        >>> y.numpy()
        array([42., 42., 42.], dtype=float32)

    Source: the convention of cupy.RawModule and of the driver's cuModuleGetFunction.
    """
    if isinstance(source, str):
        given = Source(name, source, "")
    else:
        path = Path(source)
        given = Source(
            os.fspath(path), path.read_text(encoding="utf-8"), str(path.parent.absolute())
        )
    names = kernel_names(given.text)
    if not names:
        raise ValueError(
            f'sim.compile: a kernel must be declared extern "C" __global__ void; {given.name} has '
            "none (the path of a file is passed as a pathlib.Path)"
        )
    if "kernels" in names:
        raise ValueError(f"sim.compile: {given.name} calls a kernel `kernels`, a taken name")
    return KernelModule(given, names)


def _readable(code: str) -> str:
    return str(np.dtype(code.removeprefix("*")).name) + "*" * code.startswith("*")
