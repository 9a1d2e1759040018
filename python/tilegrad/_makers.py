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


def from_host(x: Any) -> NDArray[Any]:
    """Return the array that shares the memory of another library's tensor, which is the host's.

    Example:
        >>> from_host(np.arange(3))
        array([0, 1, 2])
    """
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError):
        array: NDArray[Any] | None = backends.at(None)._bfloat16_from_dlpack(x)
        if array is None:  # NumPy refused another thing than bfloat16, which it does not know
            raise
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
            JAX: taken without a copy if it is on the device), or what NumPy makes an array of.
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
    if not isinstance(x, (np.ndarray, np.generic)) and hasattr(x, "__dlpack_device__"):
        kind, number = x.__dlpack_device__()
        if kind == 2:
            array: Array = backends.at(int(number)).from_dlpack(x)
            return asarray(array, dtype, device=device)
        try:
            x = from_host(x)
        except (BufferError, RuntimeError, TypeError):
            if device != "sim" or dtype is not None:
                raise
            sim = backends.at(backends.SIM)  # knows bfloat16 without ml_dtypes
            return sim.identity(sim.from_dlpack(x), None)
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("asarray: x is a masked array; call .filled(value) or .data first")
    host = np.asarray(x, host_dtype(dtype))
    place = None if device is None else backends.place_of(device)
    return host if place is None else _copied(host, place)


def from_dlpack(x: Any) -> Any:
    """Return an array that shares the memory of another library's tensor.

    Args:
        x: An object with ``__dlpack__``; its memory must be C-contiguous if it is on a GPU.

    Returns:
        A ``numpy.ndarray`` for CPU memory, an ``Array`` for CUDA memory.

    Raises:
        TypeError: Strided or read-only CUDA memory, or a dtype that tilegrad does not have.

    Example:
        >>> from_dlpack(np.arange(3))
        array([0, 1, 2])
    """
    if not hasattr(x, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: x must have __dlpack__; got {type(x).__name__}")
    kind, number = x.__dlpack_device__()
    return backends.at(int(number)).from_dlpack(x) if kind == 2 else from_host(x)


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
