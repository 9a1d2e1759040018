# SPDX-License-Identifier: MIT
"""A producer of DLPack capsules made by hand, byte by byte: what no library would hand out."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers import Array

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetName.restype = ctypes.c_char_p
_api.PyCapsule_GetName.argtypes = [ctypes.py_object]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

NAMES = {False: b"dltensor", True: b"dltensor_versioned"}
CODES = {"i": 0, "u": 1, "f": 2, "b": 6}
READ_ONLY, IS_COPIED = 1, 2
# A consumer calls the deleter when its last view goes, long after the producer was forgotten.
_handed_out: list[Producer] = []


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p), ("flags", ctypes.c_uint64), ("tensor", Tensor),
    )  # fmt: skip


class Producer:
    """An object whose capsule describes an array, but for the fields that are given.

    Args:
        array: What the capsule describes.
        versioned: Whether its structure is that of DLPack 1.
        shape, strides: Written as they are; None is a null pointer.
        version, flags: Of a versioned structure.
        device: What `__dlpack_device__` returns.
        deleter: False leaves it null.
        fields: Of the tensor.
    """

    def __init__(
        self,
        array: Array,
        versioned: bool = True,
        *,
        shape: Sequence[int] | str | None = "its own",
        strides: Sequence[int] | str | None = "its own",
        version: tuple[int, int] = (1, 0),
        flags: int = 0,
        device: Any = (1, 0),
        deleter: bool = True,
        **fields: int | None,
    ) -> None:
        self.array, self.versioned, self.device, self.freed = array, versioned, device, 0
        self.asked: list[dict[str, Any]] = []
        self._kept: list[Any] = []
        self.managed = Versioned() if versioned else Managed()
        if isinstance(self.managed, Versioned):
            self.managed.major, self.managed.minor = version
            self.managed.flags = flags
        if deleter:
            call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._free)
            self._kept.append(call)
            self.managed.deleter = ctypes.cast(call, ctypes.c_void_p)
        tensor = self.managed.tensor
        tensor.data, tensor.ndim = array.ctypes.data, array.ndim
        tensor.device_type, tensor.lanes = 1, 1
        tensor.code, tensor.bits = CODES.get(array.dtype.kind, 4), 8 * array.itemsize
        own = {"shape": array.shape, "strides": [s // array.itemsize for s in array.strides]}
        for name, value in (("shape", shape), ("strides", strides)):
            sizes = own[name] if isinstance(value, str) else value
            if sizes is not None:
                block = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
                self._kept.append(block)
                setattr(tensor, name, ctypes.cast(block, ctypes.POINTER(ctypes.c_int64)))
        for name, number in fields.items():
            setattr(tensor, name, number)

    def _free(self, address: int) -> None:
        assert address == ctypes.addressof(self.managed)
        self.freed += 1

    def capsule(self) -> Any:
        _handed_out.append(self)
        return _api.PyCapsule_New(ctypes.addressof(self.managed), NAMES[self.versioned], None)

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        if not self.versioned and "max_version" in options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        return self.capsule()


def name_of(capsule: Any) -> str:
    return str(_api.PyCapsule_GetName(capsule).decode())


def contents(capsule: Any) -> Managed | Versioned:
    """Return the structure in a capsule."""
    name = name_of(capsule)
    kind = Versioned if name.endswith("versioned") else Managed
    return kind.from_address(_api.PyCapsule_GetPointer(capsule, name.encode()))  # type: ignore[return-value]


def numbers(shape: tuple[int, ...] = (2, 3), dtype: str = "f4") -> Array:
    return np.arange(1, 1 + int(np.prod(shape, dtype=np.int64)), dtype=dtype).reshape(shape)
