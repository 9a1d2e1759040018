# SPDX-License-Identifier: MIT
"""Functions that make arrays on any device: a ``numpy.ndarray`` on the CPU, else an ``Array``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tilegrad import backends
from tilegrad._exchange import Exported, from_cuda_interface
from tilegrad.array import _CODES, _DTYPES, Array, _code, _numpy_dtype

_LINE = 64  # bytes of a cache line and of the widest vector


def _on_lines(make: Callable[..., NDArray[Any]], shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Return ``make(shape, dtype)``, of np.empty or np.zeros, that starts on a cache line.

    NumPy's own memory starts anywhere on 16 bytes; most vectors of 64 then lie on two lines, which
    costs a layer that streams its weights 5 %.
    """
    dtype = np.dtype(dtype)
    whole = dtype.subdtype is None and dtype.itemsize > 0 and not dtype.hasobject
    if not whole or min(shape, default=0) < 0:
        return make(shape, dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = make(size + _LINE, np.uint8)
    start = -memory.__array_interface__["data"][0] % _LINE
    array: NDArray[Any] = memory[start : start + size].view(dtype).reshape(shape)
    return array


def _copied(host: NDArray[Any], place: int) -> Array:
    """Copy a NumPy array to a device."""
    module = backends.at(place)
    array: Array = module.empty(host.shape, _code(host.dtype, "asarray"), place)
    if not host.dtype.isnative:
        host = host.astype(host.dtype.newbyteorder("="))
    module.copy_from_host(array, np.ascontiguousarray(host))
    return array


def host_dtype(dtype: DTypeLike | None) -> DTypeLike | None:
    """Return a dtype as NumPy takes it: it knows the name bfloat16 once ml_dtypes is imported.

    Example:
        >>> host_dtype("float32")
        'float32'
    """
    is_bfloat16 = isinstance(dtype, str) and dtype == "bfloat16"
    return _numpy_dtype(_CODES["bfloat16"]) if is_bfloat16 else dtype


def asarray(x: Any, dtype: DTypeLike | None = None, *, device: str | None = None) -> Any:
    """Return x as an array on a device, copied only if it is not there already.

    Args:
        x: NumPy array, tilegrad.Array, an object with ``__dlpack__`` (a tensor of torch, CuPy or
            JAX: taken without a copy if it is on the device) or ``__cuda_array_interface__``, or
            what NumPy makes an array of.
        dtype: Wanted dtype; on a device it must be x's own.
        device: "cpu", "sim", "cuda" or "cuda:N"; None leaves x where it is.

    Returns:
        A ``numpy.ndarray`` on the CPU, else an ``Array``.

    Raises:
        TypeError: A dtype that tilegrad does not have, or a cast on a device.
        ValueError: No device of that name.
        RuntimeError: The device cannot be used; the text says why.

    Example:
        >>> x = asarray([1.0, 2.0], np.float32, device="sim")
        >>> asarray(x, device="cpu")
        array([1., 2.], dtype=float32)
    """
    if isinstance(x, Array):
        if dtype is not None and _code(dtype, "asarray") != x._dtype:
            raise TypeError(
                f"asarray: an Array is not cast on its device; it is {_DTYPES[x._dtype]}, asked "
                f"for {dtype} (cast with .numpy().astype first)"
            )
        return x if device is None else x.to(device)
    if not isinstance(x, (np.ndarray, np.generic)) and is_foreign(x):
        try:
            x = from_dlpack(x)
        except TypeError:
            if device != "sim" or dtype is not None or not hasattr(x, "__dlpack__"):
                raise
            sim = backends.at(backends.SIM)  # knows bfloat16 without ml_dtypes
            return sim.identity(sim.from_dlpack(x), None)
        if isinstance(x, Array):
            return asarray(x, dtype, device=device)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("asarray: x is a masked array; call .filled(value) or .data first")
    host = np.asarray(x, host_dtype(dtype))
    place = None if device is None else backends.place_of(device)
    return host if place is None else _copied(host, place)


def is_foreign(x: Any) -> bool:
    """Tell whether an object shares its memory by a protocol other than NumPy's.

    Example:
        >>> is_foreign(np.ones(3)), is_foreign([1.0])
        (True, False)
    """
    return hasattr(x, "__dlpack_device__") or hasattr(x, "__cuda_array_interface__")


def from_dlpack(x: Any, *, copy: bool = False) -> Any:
    """Return an array that shares the memory of another library's tensor.

    Where its owner does not allow writing (JAX; a read-only ndarray; on the CPU also a producer
    from before DLPack 1), the array is read-only: any op reads it, none takes it as ``out``.

    Args:
        x: An object with ``__dlpack__``, or with ``__cuda_array_interface__`` alone; its memory
            must be C-contiguous if it is on a GPU.
        copy: Whether to copy, to memory that may be written.

    Returns:
        A ``numpy.ndarray`` for CPU memory, an ``Array`` for CUDA memory.

    Raises:
        BufferError: Its library refuses, such as torch where a gradient is recorded.
        TypeError: Strided CUDA memory, or a dtype that tilegrad does not have.
        ValueError: What the producer says makes no sense, such as a negative size.
        RuntimeError: CUDA memory where the cuda backend is missing; the text says why.

    Example:
        >>> from_dlpack(np.arange(3))
        array([0, 1, 2])

    Source: numpy.from_dlpack.
    """
    if hasattr(x, "__dlpack_device__"):
        try:
            kind, number = map(int, x.__dlpack_device__())
        except Exception:  # whose words are the reader's, below
            kind, number = 1, 0
        on_cuda = kind in backends.CUDA_MEMORY
        module = backends.at(number if on_cuda else None)
        try:
            array: Any = module.from_dlpack(x) if on_cuda else module._from_dlpack(x)
        except BufferError as error:
            raise BufferError(f"from_dlpack: {error}") from error
    elif hasattr(x, "__cuda_array_interface__"):
        array = from_cuda_interface(x)
    else:
        raise TypeError(f"from_dlpack: x must have __dlpack__; got {type(x).__name__}")
    return array.copy() if copy else array


def to_dlpack(x: Any) -> Any:
    """Return an array as other libraries' ``from_dlpack`` takes it: itself, or one that shares it.

    NumPy's arrays and tilegrad's go through DLPack by themselves, but NumPy refuses to export its
    bfloat16 arrays, which are a result of tilegrad's functions on the CPU: this does it.

    Args:
        x: A ``numpy.ndarray`` or an ``Array``.

    Returns:
        An object with ``__dlpack__`` and ``__dlpack_device__``.

    Raises:
        TypeError: x is no array.

    Example:
        >>> from_dlpack(to_dlpack(np.arange(3)))  # torch.from_dlpack, jax.numpy.from_dlpack ...
        array([0, 1, 2])
    """
    if isinstance(x, np.ndarray) and x.dtype.name == "bfloat16":
        return Exported(x)
    if isinstance(x, (np.ndarray, Array)):
        return x
    raise TypeError(f"to_dlpack: x must be a numpy.ndarray or an Array; got {type(x).__name__}")


def copied(x: Any, device: str) -> Any:
    """Return a C-contiguous copy on a device, of an array on any.

    Example:
        >>> x = np.ones(2)
        >>> copied(x, "cpu") is x, copied(copied(x, "sim"), "sim")
        (False, Array([1., 1.], dtype=float64, device='sim'))
    """
    result = asarray(x, device=device)
    if isinstance(result, Array):
        return result.copy() if result is x else result
    copy = _on_lines(np.empty, result.shape, result.dtype)
    copy[...] = result
    return copy


def zeros_like(x: Any) -> Any:
    """Return an array of zeros with the shape, dtype and device of another.

    Example:
        >>> zeros_like(np.ones(2))
        array([0., 0.])
    """
    if not isinstance(x, Array):
        like = np.asarray(x)
        return _on_lines(np.zeros, like.shape, like.dtype)
    return full(x.shape, 0, _DTYPES[x._dtype], device=x.device)


def _sizes(shape: Any) -> tuple[int, ...]:
    sizes = (shape,) if hasattr(shape, "__index__") else shape
    return tuple(operator.index(size) for size in sizes)


def empty(shape: Any, dtype: DTypeLike = np.float32, *, device: str = "cpu") -> Any:
    """Return an array whose elements are not set.

    Args:
        shape: An integer or a sequence of them.
        dtype: NumPy dtype, or "bfloat16".
        device: "cpu", "sim", "cuda" or "cuda:N".

    Returns:
        A ``numpy.ndarray`` on the CPU, else an ``Array``.

    Example:
        >>> empty((2, 3), device="sim").shape
        (2, 3)
    """
    place = backends.place_of(device)
    if place is None:
        return _on_lines(np.empty, _sizes(shape), host_dtype(dtype))
    return backends.at(place).empty(_sizes(shape), _code(dtype, "empty"), place)


def full(shape: Any, value: float, dtype: DTypeLike = np.float32, *, device: str = "cpu") -> Any:
    """Return an array whose elements are all one value.

    Args:
        shape: An integer or a sequence of them.
        value: The value of every element.
        dtype: NumPy dtype, or "bfloat16".
        device: "cpu", "sim", "cuda" or "cuda:N".

    Returns:
        A ``numpy.ndarray`` on the CPU, else an ``Array``.

    Example:
        >>> full(2, 0.5, device="sim").numpy()
        array([0.5, 0.5], dtype=float32)
    """
    place = backends.place_of(device)
    if place is None:
        if dtype is None:
            return np.full(_sizes(shape), value)
        host = _on_lines(np.empty, _sizes(shape), host_dtype(dtype))
        np.copyto(host, value, casting="unsafe")
        return host
    code = _code(dtype, "full")
    if code > _CODES["float16"]:
        return _copied(np.full(_sizes(shape), value, _numpy_dtype(code)), place)
    array = backends.at(place).empty(_sizes(shape), code, place)
    backends.at(place).fill(array, value)
    return array


def zeros(shape: Any, dtype: DTypeLike = np.float32, *, device: str = "cpu") -> Any:
    """Return an array of zeros; arguments as for `full`.

    Example:
        >>> zeros(2, device="sim").numpy()
        array([0., 0.], dtype=float32)
    """
    if backends.place_of(device) is None:
        return _on_lines(np.zeros, _sizes(shape), host_dtype(dtype))
    return full(shape, 0, dtype, device=device)


def ones(shape: Any, dtype: DTypeLike = np.float32, *, device: str = "cpu") -> Any:
    """Return an array of ones; arguments as for `full`.

    Example:
        >>> ones(2, device="sim").numpy()
        array([1., 1.], dtype=float32)
    """
    return full(shape, 1, dtype, device=device)
