# SPDX-License-Identifier: MIT
"""Array: a buffer on a device (cuda or sim); `_makers.py` has the functions that make one.

On the CPU an array is a ``numpy.ndarray``; there is no class of our own.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilegrad import backends

# In the order of DType in csrc/bindings/arrays.hpp.
_DTYPES = (
    "float32", "float64", "bfloat16", "float16", "bool", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
)  # fmt: skip
_CODES = {name: code for code, name in enumerate(_DTYPES)}
_SIZES = (4, 8, 2, 2, 1, 1, 2, 4, 8, 1, 2, 4, 8)
_TYPESTR = {"bool": "|b1", "int8": "|i1", "uint8": "|u1"}


def _numpy_dtype(code: int) -> np.dtype[Any]:
    name = _DTYPES[code]
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(
            "bfloat16: NumPy's type comes from ml_dtypes; pip install 'tilegrad[bf16]'"
        ) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def _code(dtype: Any, op: str) -> int:
    is_bfloat16 = isinstance(dtype, str) and dtype == "bfloat16"  # known without ml_dtypes
    name = "bfloat16" if is_bfloat16 else np.dtype(dtype).name
    if name not in _CODES:
        raise TypeError(f"{op}: dtype must be one of {', '.join(_DTYPES)}; got {name}")
    return _CODES[name]


class Array:
    """A C-contiguous array in the memory of a device.

    Made by ``tilegrad.asarray``, ``empty``, ``zeros``, ``ones``, ``full``, ``from_dlpack`` and by
    every op on such arrays. It has no arithmetic: ops are functions. Work on it is only put on the
    current stream of its device; ``numpy()`` and ``item()`` wait for it.

    Example:
        >>> import numpy as np, tilegrad as tg
        >>> x = tg.asarray(np.array([[1.0, -2.0]], np.float32), device="sim")
        >>> x.shape, x.dtype, x.device
        ((1, 2), dtype('float32'), 'sim')
        >>> tg.relu(x).numpy()
        array([[1., 0.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "_dtype", "_place", "_pointer", "_shape", "_storage")

    _shape: tuple[int, ...]
    _storage: Any  # owns the memory
    _pointer: int  # address of the first element
    _dtype: int
    _place: int

    def __init__(self) -> None:
        raise TypeError("Array: make one with tilegrad.asarray(x, device=...), empty, zeros, ...")

    def _view(self, offset: int, shape: tuple[int, ...]) -> Array:
        """Return an Array of the same memory from an element on."""
        view = object.__new__(Array)
        view._storage = self._storage
        view._pointer = self._pointer + offset * self.itemsize
        view._dtype = self._dtype
        view._place = self._place
        view._shape = shape
        return view

    # ---- what it is ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of elements along each axis."""
        return self._shape

    @property
    def dtype_name(self) -> str:
        """Name of the dtype; needs no package, also for bfloat16."""
        return _DTYPES[self._dtype]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's dtype; that of bfloat16 comes from ml_dtypes (``tilegrad[bf16]``)."""
        return _numpy_dtype(self._dtype)

    @property
    def device(self) -> str:
        """Name of the device: "sim", "cuda:0", ..."""
        return backends.place_name(self._place)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _SIZES[self._dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("Array: an array without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        name = _DTYPES[self._dtype]
        if self.size > 1000 or name == "bfloat16":
            return f"Array(shape={self.shape}, dtype={name}, device='{self.device}')"
        values = np.array2string(self.numpy(), separator=", ", prefix="Array(")
        return f"Array({values}, dtype={name}, device='{self.device}')"

    # ---- values -------------------------------------------------------------------------------

    def numpy(self) -> NDArray[Any]:
        """Copy the elements to a NumPy array; waits for the work that makes them."""
        host = np.empty(self.shape, self.dtype)
        backends.at(self._place).copy_to_host(host, self)
        return host

    def item(self) -> Any:
        """Return the only element as a Python number; waits for the work that makes it."""
        if self.size != 1:
            raise ValueError(f"Array.item: there must be one element; got shape {self.shape}")
        return self.numpy().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("Array: the truth of several elements is ambiguous; call .numpy()")
        return bool(self.item())

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError(f"Array: it is on {self.device}; call .numpy() to copy it to the CPU")

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"Array: it is on {self.device} and has no arithmetic; call .numpy() first")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise TypeError("Array: == compares no elements; call .numpy() on both sides")

    __hash__ = object.__hash__

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    # ---- views and copies ---------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Array:
        """Return a view of the same elements in another shape; one size may be -1."""
        sizes = shape[0] if len(shape) == 1 and not hasattr(shape[0], "__index__") else shape
        wanted = [operator.index(size) for size in sizes]
        known = math.prod(size for size in wanted if size != -1)
        free = wanted.count(-1)
        if free == 1 and known > 0 and self.size % known == 0:
            wanted[wanted.index(-1)] = self.size // known
        if any(size < 0 for size in wanted) or math.prod(wanted) != self.size:
            raise ValueError(f"Array.reshape: cannot make {tuple(sizes)} of shape {self.shape}")
        return self._view(0, tuple(wanted))

    def __getitem__(self, index: Any) -> Array:
        """Return a view of a part along the first axis: an integer or a slice without a step."""
        if isinstance(index, tuple) and not index:
            return self.copy()
        if not self.shape:
            raise IndexError("Array: an array without axes has no parts; call .item()")
        rows, row = self.shape[0], math.prod(self.shape[1:])
        if isinstance(index, slice):
            start, stop, step = index.indices(rows)
            if step != 1:
                raise TypeError(f"Array: a slice must have step 1; got {index}")
            return self._view(start * row, (max(stop - start, 0), *self.shape[1:]))
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(
                f"Array: an index must be an integer or a slice of the first axis; got {index!r} "
                "(call .numpy() for more)"
            )
        i = operator.index(index)
        if not -rows <= i < rows:
            raise IndexError(f"Array: index {i} is out of range for {rows} rows")
        return self._view(i % rows * row, self.shape[1:])

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def copy(self) -> Array:
        """Copy to new memory on the same device."""
        result: Array = backends.at(self._place).empty(self.shape, self._dtype, self._place)
        backends.at(self._place).copy(result, self)
        return result

    __copy__ = copy

    def fill(self, value: float) -> None:
        """Set every element to a value, in place."""
        if self._dtype > _CODES["float16"]:
            self._assign(np.full(self.shape, value, self.dtype))
        else:
            backends.at(self._place).fill(self, value)

    def _assign(self, value: Any) -> None:
        """Copy an array of the same shape and dtype, of any device, into this memory."""
        if not isinstance(value, Array):
            backends.at(self._place).copy_from_host(self, np.ascontiguousarray(value))
        elif value._place == self._place or _both_cuda(value._place, self._place):
            backends.at(self._place).copy(self, value)
        else:
            self._assign(value.numpy())

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"Array: memory on {self.device} is not pickled; pickle .numpy(), or use tilegrad.save"
        )

    def to(self, device: str) -> Any:
        """Return the elements on a device: itself if they are there, else a copy.

        Args:
            device: "cpu" gives a NumPy array.
        """
        place = backends.place_of(device)
        if place == self._place:
            return self
        if place is None:
            return self.numpy()
        if _both_cuda(place, self._place):
            result: Array = backends.at(place).empty(self.shape, self._dtype, place)
            backends.at(place).copy(result, self)
            return result
        from tilegrad._makers import asarray

        return asarray(self.numpy(), device=device)

    # ---- exchange with other libraries ----------------------------------------------------------

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0) if self._place < 0 else (2, self._place)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule; the consumer's stream waits for the work on this one.

        The memory of "sim" is the host's: its consumers see a CPU tensor.

        Args:
            stream: As the array API has it: None, or on cuda 1, 2 or a stream's address, or -1 for
                no waiting.
            max_version: The newest version of DLPack that the consumer knows.
            dl_device: Where the memory must be: this device, or (1, 0), the host.
            copy: True makes a copy, False refuses one; None copies where dl_device needs it.
        """
        here = self.__dlpack_device__()
        versioned = max_version is not None and max_version[0] >= 1
        if dl_device is not None and tuple(dl_device) != here:
            if tuple(dl_device) != (1, 0) or copy is False or stream is not None:
                raise BufferError(
                    f"Array: it is on {self.device}; it cannot be exported to {dl_device} with "
                    f"copy={copy}, stream={stream}"
                )
            return backends.at(None)._to_dlpack(self.numpy(), versioned, True)
        if stream is not None and (stream < -1 or stream == 0 or (self._place < 0 <= stream)):
            raise BufferError(
                f"Array: stream must be None{'' if self._place < 0 else ', 1, 2, an address'} or "
                f"-1 on {self.device}; got {stream}"
            )
        module = backends.at(self._place)
        source = self.copy() if copy else self
        if not versioned and module.is_read_only(source):
            raise BufferError("Array: its memory is read-only, which only DLPack 1 can say")
        return module.to_dlpack(source, stream, versioned, bool(copy))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3 of the protocol of Numba and CuPy; only arrays on cuda have it."""
        name = _DTYPES[self._dtype]
        if self._place < 0 or name == "bfloat16":
            raise AttributeError(f"an Array of {name} on {self.device} has no such interface")
        module = backends.at(self._place)
        return {
            "shape": self.shape,
            "typestr": _TYPESTR.get(name, np.dtype(name).str),
            "data": (self._pointer if self.size else 0, module.is_read_only(self)),
            "strides": None,
            "version": 3,
            "stream": module.current_stream(self._place),
        }


def _both_cuda(a: int, b: int) -> bool:
    return a >= 0 and b >= 0
