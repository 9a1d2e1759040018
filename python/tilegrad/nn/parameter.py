# SPDX-License-Identifier: MIT
"""Parameter: a trained array and its gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tilegrad import backends
from tilegrad._makers import asarray, copied, full, zeros, zeros_like
from tilegrad.array import Array as DeviceArray

Array: TypeAlias = NDArray[Any]
_DTYPES = ("float32", "float64", "bfloat16")
GradReadyHook: TypeAlias = "Callable[[Parameter], None]"


class Edits:
    """Counts what a recorded plan cannot see: a plan made at another count must be looked at."""

    count = 0  # attributes of modules set; parameters frozen, thawed, moved or hooked


class Parameter:
    """Hold a trained array and its gradient in buffers that never move.

    Assigning to ``data`` copies into the existing buffer, and ``zero_grad`` keeps the gradient's
    buffer for the next backward pass: optimisers, recorded training steps and gradient buckets
    rely on the addresses.

    The gradient has the values' dtype; that of bfloat16 values is float32, and the optimiser keeps
    a float32 master of them in its state.

    Args:
        data: Initial values, float32, float64 or bfloat16, of any shape; they are copied.
        requires_grad: False freezes the parameter: no gradient is computed for it.

    Raises:
        TypeError: ``data`` is not an array of such a dtype.

    Example:
        >>> p = Parameter(np.zeros(3, np.float32))
        >>> p.data = np.ones(3, np.float32)
        >>> p.data.sum(), p.grad is None
        (np.float32(3.0), True)
    """

    __slots__ = (
        "__weakref__", "_adopted", "_data", "_filled", "_grad", "_grad_ready", "_requires_grad",
    )  # fmt: skip

    def __init__(self, data: Array, requires_grad: bool = True) -> None:
        is_array = isinstance(data, (np.ndarray, DeviceArray))
        if not is_array or dtype_of(data) not in _DTYPES:
            of = f" of {dtype_of(data)}" if is_array else ""
            raise TypeError(
                "Parameter: data must be a float32, float64 or bfloat16 array; got "
                f"{type(data).__name__}{of} (call np.asarray with a dtype)"
            )
        place = backends.place_of_array(data)
        self._data: Array = copied(data, backends.place_name(place))
        self._grad: Array | None = None  # the buffer, once there was a gradient
        self._filled = False
        self._requires_grad = requires_grad
        self._adopted = 0  # buffers for the gradient that others have given
        self._grad_ready: GradReadyHook | None = None

    @property
    def data(self) -> Array:
        """The values; assigning copies into the buffer (same shape and dtype)."""
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        copy_into(self._data, value, "Parameter.data")

    @property
    def grad(self) -> Array | None:
        """The accumulated gradient, or None where there is none; assigning copies.

        It has the values' dtype; that of bfloat16 values is float32.
        """
        return self._grad if self._filled else None

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if value is not None:
            copy_into(self.grad_buffer(), value, "Parameter.grad")
        self._filled = value is not None

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is computed; False freezes the parameter."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = value
        Edits.count += 1

    @property
    def grad_ready(self) -> GradReadyHook | None:
        """What backward calls with the parameter once its gradient is complete, or None."""
        return self._grad_ready

    @grad_ready.setter
    def grad_ready(self, hook: GradReadyHook | None) -> None:
        self._grad_ready = hook
        Edits.count += 1

    def zero_grad(self) -> None:
        """Forget the gradient, as ``grad = None``; the buffer is kept."""
        self._filled = False

    def grad_buffer(self) -> Array:
        """Return the gradient's memory whether or not it holds a gradient now."""
        if self._grad is None:
            self._grad = wide_zeros(self._data)
        return self._grad

    def adopt_grad_buffer(self, buffer: Array) -> None:
        """Keep the gradient in given memory, such as a part of a bucket; copy what is there now.

        Args:
            buffer: Array of the gradient's shape, dtype and device.
        """
        if self._grad is not None:
            copy_into(buffer, self._grad, "Parameter.adopt_grad_buffer")
        self._grad = buffer
        self._adopted += 1
        Edits.count += 1

    def to(self, device: str) -> Parameter:
        """Move the values and the gradient to a device; return self.

        On another device they have new buffers; recorded training steps notice that.
        """
        move([self], device)
        return self

    @property
    def device(self) -> str:
        """Name of the device that the values are on."""
        return backends.place_name(backends.place_of_array(self._data))

    def mark_grad(self) -> None:
        """Say that the buffer now holds a complete gradient; call the ``grad_ready`` hook."""
        self._filled = True
        if self._grad_ready is not None:
            self._grad_ready(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""
        return self._data.dtype

    @property
    def size(self) -> int:
        """Number of values."""
        return self._data.size

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter(shape={self.shape}, dtype={dtype_of(self._data)}{frozen})"


def dtype_of(array: Any) -> str:
    """Return the name of a dtype, also of bfloat16 where ml_dtypes is missing."""
    name: str = array.dtype_name if isinstance(array, DeviceArray) else array.dtype.name
    return name if isinstance(array, DeviceArray) or array.dtype.isnative else str(array.dtype)


def wide_zeros(array: Any) -> Array:
    """Return zeros like an array for what is summed up over steps: float32 where it is bfloat16."""
    return wide_full(array, 0)


def wide_full(array: Any, value: float) -> Array:
    """Return an array of one value for what is summed up over steps; see `wide_zeros`."""
    if array.itemsize > 2 and value == 0:
        result: Array = zeros_like(array)
        return result
    dtype = np.float32 if array.itemsize == 2 else array.dtype
    place = backends.place_name(backends.place_of_array(array))
    make = zeros if value == 0 else functools.partial(full, value=value)
    result = make(array.shape, dtype=dtype, device=place)
    return result


def move(parameters: Iterable[Parameter], device: str) -> bool:
    """Move values and gradients, all or, on an error, none; return whether any had to move."""
    place = backends.place_of(device)
    away = [p for p in parameters if backends.place_of_array(p._data) != place]
    moved = [
        (
            asarray(p._data, device=device),
            None if p._grad is None else asarray(p._grad, device=device),
        )
        for p in away
    ]
    for parameter, (data, grad) in zip(away, moved, strict=True):
        parameter._data, parameter._grad = data, grad
        Edits.count += 1
    return bool(away)


def check_like(buffer: Array, value: ArrayLike, what: str) -> Any:
    """Return a value as an array if it has a buffer's shape and dtype; `what` begins the error."""
    array: Any = value if isinstance(value, (np.ndarray, DeviceArray)) else asarray(value)
    if array.shape != buffer.shape:
        raise ValueError(f"{what}: shape must be {buffer.shape}; got {array.shape}")
    on_cpu = not isinstance(array, DeviceArray) and not isinstance(buffer, DeviceArray)
    same = array.dtype == buffer.dtype if on_cpu else dtype_of(array) == dtype_of(buffer)
    if not same:
        raise TypeError(
            f"{what}: dtype must be {dtype_of(buffer)}; got {dtype_of(array)} (call astype)"
        )
    return array


def copy_into(buffer: Array, value: Array, what: str) -> None:
    """Copy a checked value into a buffer, of whatever devices."""
    array = check_like(buffer, value, what)
    if isinstance(buffer, DeviceArray):
        buffer._assign(array)
    else:
        np.copyto(buffer, array.numpy() if isinstance(array, DeviceArray) else array)
