# SPDX-License-Identifier: MIT
"""Protocols of other libraries that arrays go in and out by, beside ``Array.__dlpack__``."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from tilegrad import backends
from tilegrad.array import _CODES, Array

_KINDS = {"f": "float", "i": "int", "u": "uint"}


class Exported:
    """A bfloat16 ndarray as DLPack has it: NumPy's own ``__dlpack__`` refuses the type."""

    __slots__ = ("_array",)

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if stream not in (None, -1) or (dl_device is not None and tuple(dl_device) != (1, 0)):
            raise BufferError(
                "to_dlpack: the array is in the host's memory, which has no streams; got "
                f"dl_device={dl_device}, stream={stream}"
            )
        versioned = max_version is not None and max_version[0] >= 1
        array = self._array.copy() if copy else self._array
        return backends.at(None)._to_dlpack(array, versioned, bool(copy))


class Memory(NamedTuple):
    """What ``__cuda_array_interface__`` describes, checked."""

    pointer: int
    shape: tuple[int, ...]
    dtype: int  # tilegrad's code
    read_only: bool
    stream: int | None


def read_cuda_interface(interface: Mapping[str, Any]) -> Memory:
    """Check a dictionary of version 2 or 3 and return what it describes.

    Args:
        interface: The value of ``__cuda_array_interface__``.

    Raises:
        TypeError: A dtype that tilegrad does not have, a mask, strides that are not those of C.
        ValueError: What makes no sense: a negative size, no address, another version.

    Example:
        >>> read_cuda_interface(
        ...     {"shape": (2, 3), "typestr": "<f4", "data": (4096, True), "version": 2}
        ... )
        Memory(pointer=4096, shape=(2, 3), dtype=0, read_only=True, stream=None)

    Source: the CUDA Array Interface, version 3, in Numba's documentation.
    """
    rule = "asarray: __cuda_array_interface__"
    try:
        version = operator.index(interface["version"])
        shape = tuple(operator.index(size) for size in interface["shape"])
        pointer, read_only = operator.index(interface["data"][0]), bool(interface["data"][1])
        typestr = str(interface["typestr"])
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"{rule} must hold shape, typestr, data (address, read-only) and version; got "
            f"{interface!r}"
        ) from error
    if version < 2:
        raise ValueError(f"{rule} must have version 2 or later; got {version}")
    if interface.get("mask") is not None:
        raise TypeError(f"{rule} has a mask; fill it in its library first")
    code, size = _dtype_code(typestr, rule)
    if any(n < 0 for n in shape):
        raise ValueError(f"{rule} has a negative size; got shape {shape}")
    count = math.prod(shape)
    if count > 0 and (pointer <= 0 or pointer % size != 0):
        raise ValueError(f"{rule} must have an address that is a multiple of {size}; got {pointer}")
    strides = interface.get("strides")
    if strides is not None and count > 0:
        packed = [size * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        given = [operator.index(stride) for stride in strides]
        if len(given) != len(shape) or any(
            n != 1 and a != b for n, a, b in zip(shape, given, packed, strict=True)
        ):
            raise TypeError(
                f"{rule} must be C-contiguous; got shape {shape} with strides of {given} bytes"
            )
    stream = interface.get("stream")
    if stream is not None and (operator.index(stream) < 1):
        raise ValueError(f"{rule}: stream must be None, 1, 2 or an address; got {stream}")
    return Memory(pointer if count else 0, shape, code, read_only, stream)


def _dtype_code(typestr: str, rule: str) -> tuple[int, int]:
    """Return tilegrad's code of a type and the bytes of an element."""
    order, kind, digits = typestr[:1], typestr[1:2], typestr[2:]
    size = int(digits) if digits.isdecimal() else 0
    name = "bool" if typestr[1:] == "b1" else f"{_KINDS.get(kind)}{8 * size}"
    native = "<" if sys.byteorder == "little" else ">"
    if name not in _CODES or order not in (native, "|"):
        raise TypeError(
            f"{rule} must have a type of tilegrad's in native byte order; got {typestr!r} "
            "(bfloat16 has no name there: use DLPack)"
        )
    return _CODES[name], size


def from_cuda_interface(x: Any) -> Array:
    """Return an Array that shares the memory of an object with ``__cuda_array_interface__``.

    Args:
        x: The object; the Array keeps it alive.

    Raises:
        RuntimeError: The cuda backend is missing; the text says why.
    """
    memory = read_cuda_interface(x.__cuda_array_interface__)
    array: Array = backends.at(0).from_memory(x, *memory)
    return array
