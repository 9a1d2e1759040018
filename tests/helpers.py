# SPDX-License-Identifier: MIT
"""What the tests share: tolerances, the comparison, guarded outputs, layouts of an array."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

import tilegrad as tg

Array = NDArray[Any]
FLOATS = (np.float32, np.float64)
GUARD = 72  # elements before and after a guarded array: more than a cache line of either dtype


def host(x: Any) -> Array:
    """Return an array of any device as NumPy's."""
    return x.numpy() if isinstance(x, tg.Array) else np.asarray(x)


class Device:
    """Where an op runs: puts NumPy arrays there and gets results back."""

    def __init__(self, name: str) -> None:
        self.name = name

    def put(self, x: Any, offset: int | None = None) -> Any:
        """Return x there; with an offset, that many elements after an aligned address, NaN around.

        A kernel that reads beyond the ends and multiplies by zero shows NaN.
        """
        if self.name == "cpu":
            return x if offset is None else aligned(x, offset)
        if offset is None:
            return tg.asarray(x, device=self.name)
        outside = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).max
        buffer = np.full(x.size + 2 * GUARD + offset, outside, dtype=x.dtype)
        start = GUARD + offset
        buffer[start : start + x.size] = x.ravel()
        return tg.asarray(buffer, device=self.name)[start : start + x.size].reshape(x.shape)

    def get(self, x: Any) -> Array:
        return host(x)

    def copy(self, target: Any, source: Any) -> None:
        """Copy elements into existing memory of the device."""
        if self.name == "cpu":
            target[...] = source
        else:
            target._assign(source)

    def cases(self, cases: Sequence[Any], cost: Callable[[Any], float], within: float) -> list[Any]:
        """Return the cases to run: all; on sim those whose cost is within a limit."""
        return [case for case in cases if self.name != "sim" or cost(case) <= within]

    def threads(self, *counts: int) -> tuple[int, ...]:
        """Return the numbers of threads to try: only the cpu has any."""
        return counts if self.name == "cpu" else ()

    def layouts(self, x: Array) -> dict[str, Any]:
        """Return x in memory that lies differently: strided on the cpu, else unaligned only."""
        if self.name == "cpu":
            return layouts(x)
        return {f"offset {offset}": self.put(x, offset) for offset in (1, 2, 3, 5)}

    @contextlib.contextmanager
    def guarded_out(
        self, shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0
    ) -> Iterator[Any]:
        """Yield an output full of NaN inside a larger buffer; then check what surrounds it."""
        if self.name == "cpu":
            with guarded_out(shape, dtype, offset) as out:
                yield out
            return
        size, start = int(np.prod(shape, dtype=np.int64)), GUARD + offset
        pattern = np.array(-123.456, dtype=dtype)  # no kernel writes it by chance
        cells = np.full(size + 2 * GUARD + offset, pattern)
        cells[start : start + size] = np.nan
        buffer = tg.asarray(cells, device=self.name)
        yield buffer[start : start + size].reshape(shape)
        outside = np.delete(buffer.numpy(), slice(start, start + size))
        touched = np.flatnonzero(outside != pattern)
        assert not touched.size, f"wrote outside of `out` of shape {shape}: cells {touched[:8]}"

    @property
    def ops(self) -> Any:
        """The functions of tilegrad on NumPy arrays, computed here: `device.ops.relu(x)`."""
        return tg if self.name == "cpu" else _OnDevice(self)


class _OnDevice:
    def __init__(self, device: Device) -> None:
        self._device = device

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(tg, name)

        def there(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(there(part) for part in x)
            return self._device.put(x) if isinstance(x, np.ndarray) else x

        def back(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(back(part) for part in x)
            return host(x) if isinstance(x, tg.Array) else x

        def call(*args: Any, **options: Any) -> Any:
            options = {key: there(value) for key, value in options.items()}
            return back(function(*there(args), **options))

        return call


def tolerance(dtype: DTypeLike, length: int = 1) -> float:
    """Return the error allowed to a sum of `length` products, relative to the sum of magnitudes.

    A sum in any order, each product and addition rounded once, errs by at most length * eps / 2;
    the oracle in float64 errs by as much when the kernel is in float64 too. The two more are for
    what comes after the sum (a scale, a bias, the rounding of the result).
    """
    return float(np.finfo(dtype).eps) * (length + 2)


def assert_close(actual: Any, expected: Any, bound: Any, *, what: str = "result") -> None:
    """Require |actual - expected| <= bound in every element; name the worst one.

    NaN equals NaN and infinities equal themselves; `bound` broadcasts. Elements without error pass
    for any bound.
    """
    actual, expected = host(actual), host(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    wide = np.float64 if actual.dtype.itemsize < 8 else actual.dtype
    with np.errstate(all="ignore"):
        a, e = actual.astype(wide, copy=False), expected.astype(wide, copy=False)
        same = (a == e) | (np.isnan(a) & np.isnan(e))
        error = np.where(same, 0.0, np.abs(a - e))
        limit = np.broadcast_to(np.asarray(bound, dtype=np.float64), error.shape)
        excess = np.where(same, 0.0, error / limit)
    excess = np.where(np.isnan(excess), np.inf, excess)
    if excess.size and excess.max() > 1:
        at = tuple(int(i) for i in np.unravel_index(excess.argmax(), excess.shape))
        pytest.fail(
            f"{what}: {int((excess > 1).sum())} of {excess.size} elements of shape {excess.shape} "
            f"are wrong; worst at {at}: got {actual[at]!r}, expected {expected[at]!r}, "
            f"error {error[at]:.3g}, allowed {limit[at]:.3g}"
        )


def assert_same_bits(actual: Any, expected: Any, *, what: str = "result") -> None:
    """Require equal dtype, shape and bits; a NaN may have any payload, a zero its sign."""
    actual, expected = host(actual), host(expected)
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    same = (actual == expected) & (np.signbit(actual) == np.signbit(expected))
    same |= np.isnan(actual) & np.isnan(expected)
    if not same.all():
        at = tuple(int(i) for i in np.unravel_index(same.argmin(), same.shape))
        pytest.fail(
            f"{what}: {int((~same).sum())} of {same.size} elements differ in bits; first at {at}: "
            f"{actual[at]!r}, not {expected[at]!r}"
        )


def assert_exact(actual: Any, expected: Any, *, what: str = "result") -> None:
    """Require equal dtype, shape and values; the two zeros are equal."""
    actual, expected = host(actual), host(expected)
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    np.testing.assert_array_equal(actual, expected, err_msg=what)


@contextlib.contextmanager
def guarded_out(shape: tuple[int, ...], dtype: DTypeLike, offset: int = 0) -> Iterator[Array]:
    """Yield an output full of NaN inside a larger buffer; afterwards check what surrounds it.

    `offset` shifts it by elements from the alignment of the buffer.
    """
    size = int(np.prod(shape, dtype=np.int64))
    pattern = np.array(-123.456, dtype=dtype)  # no kernel writes it by chance
    buffer = np.full(size + 2 * GUARD + offset, pattern)
    inside = slice(GUARD + offset, GUARD + offset + size)
    buffer[inside] = np.nan
    out = buffer[inside].reshape(shape)
    yield out
    outside = np.concatenate([buffer[: inside.start], buffer[inside.stop :]])
    touched = np.flatnonzero(outside != pattern)
    assert not touched.size, f"wrote outside of `out` of shape {shape}: guard cells {touched[:8]}"


def aligned(x: Array, offset: int = 0) -> Array:
    """Copy to memory that starts `offset` elements after a multiple of 64 bytes, NaN around it.

    A kernel that reads beyond the ends and multiplies by zero shows NaN.
    """
    item = x.dtype.itemsize
    buffer = np.full(x.size + 2 * GUARD + 64 // item + offset, np.nan, dtype=x.dtype)
    start = GUARD + (-(buffer.ctypes.data + GUARD * item) % 64) // item + offset
    view = buffer[start : start + x.size].reshape(x.shape)
    view[...] = x
    return view


def layouts(x: Array) -> dict[str, Array]:
    """Return arrays of the same values whose memory lies differently; NaN fills the gaps."""
    result = {f"offset {offset}": aligned(x, offset) for offset in (1, 2, 3, 5)}
    if x.ndim == 0:
        return result
    steps = tuple(2 * n + 1 for n in x.shape)
    gapped = np.full(steps, np.nan, dtype=x.dtype)[tuple(slice(1, None, 2) for _ in x.shape)]
    gapped[...] = x
    result["gapped"] = gapped
    flip = (slice(None, None, -1),) * x.ndim
    result["negative strides"] = x[flip].copy()[flip]
    last = (..., slice(None, None, -1))
    result["last axis reversed"] = x[last].copy()[last]
    if x.ndim > 1:
        result["fortran order"] = np.asfortranarray(x)
        padded = np.full((*x.shape[:-1], x.shape[-1] + 3), np.nan, dtype=x.dtype)[
            ..., : x.shape[-1]
        ]
        padded[...] = x
        result["padded rows"] = padded
        swapped = np.ascontiguousarray(x.swapaxes(0, 1)).swapaxes(0, 1)
        result["first axes swapped"] = swapped
    return result


def error(kind: type[Exception], op: str, *parts: object) -> Any:
    """Expect an error whose text begins with the op and holds every part (a rule, a value)."""
    ahead = "".join(f"(?=.*{re.escape(str(part))})" for part in parts)
    return pytest.raises(kind, match=f"(?s)^{re.escape(op)}: {ahead}")


def frozen(x: Array) -> Array:
    """Return a read-only copy, for inputs that no op may write to."""
    copy = x.copy()
    copy.setflags(write=False)
    return copy


def bad_outs(
    shape: tuple[int, ...], dtype: DTypeLike
) -> dict[str, tuple[Any, type[Exception], str]]:
    """Return what `out` must not be for a result of a shape with at least two rows (and columns).

    Each value is the array, the type of the error and a part of its text.
    """
    other = np.float64 if np.dtype(dtype) == np.float32 else np.float32
    wrong = (*shape[:-1], shape[-1] + 1)
    read_only = np.empty(shape, dtype)
    read_only.setflags(write=False)
    bad = {
        "shape": (np.empty(wrong, dtype), ValueError, str(wrong)),
        "axes": (np.empty((1, *shape), dtype), ValueError, "shape"),
        "dtype": (np.empty(shape, other), TypeError, np.dtype(other).name),
        "byte order": (np.empty(shape, np.dtype(dtype).newbyteorder()), TypeError, "byte order"),
        "read-only": (read_only, ValueError, "read-only"),
        "gaps": (np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2], TypeError, "contiguous"),
        "fortran": (np.empty(shape[::-1], dtype).T, TypeError, "contiguous"),
        "list": ([[0.0] * shape[-1]] * shape[0], TypeError, "list"),
    }
    if len(shape) == 1:
        del bad["fortran"]
    return bad
