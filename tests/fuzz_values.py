# SPDX-License-Identifier: MIT
"""What the fuzzer of arguments puts in the place of a legal operand, option or `out`."""

from __future__ import annotations

import array
import contextlib
import decimal
import fractions
import inspect
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import tilegrad as tg

Rng = np.random.Generator
Call = dict[str, Any]

DTYPES: tuple[Any, ...] = (
    *(np.dtype(code) for code in "?bBhHiIlLqQefdgFDGSUVOMm"),
    *(np.dtype(getattr(ml_dtypes, n)) for n in ("bfloat16", "float8_e4m3fn", "int4", "uint4")),
    np.dtype("S3"), np.dtype("U2"), np.dtype("V5"), np.dtype("M8[s]"), np.dtype("m8[us]"),
    np.dtype([("a", "f4"), ("b", "i8")]), np.dtype(("f4", (2,))), np.dtype([]),
)  # fmt: skip
INTEGERS = (
    0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**62,
    2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**64), 2**200,
)  # fmt: skip
REALS = (
    0.0, -0.0, 0.5, 1.0, -1.0, 1.5, 1e-45, 5e-324, 1e-8, 3.4e38, 1e39, 1e308, -1e308,
    float("inf"), float("-inf"), float("nan"),
)  # fmt: skip
TEXTS = (
    "", "mean", "sum", "none", "relu", "gelu", "gelu_tanh", "tanh", "prelu", "sigmoid", "Mean",
    "input", "float32", "bfloat16", "cpu", "sim", "cuda", "\0", "a\0b", "\u00e9\U0001f600",
    "\ud800", "{}", "%s", "x" * 5000,
)  # fmt: skip
SPECIAL = {
    "f": (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 1e-310, 3e38, -3e38, 1.7e308, 65504.0, 88.8),
    "i": (-1, 0, 1, 2, 3, 7, -100, 127, -128, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)),
    "u": (0, 1, 5, 255, 2**16 - 1, 2**32 - 1, 2**64 - 1),
}


def pick(rng: Rng, values: Any) -> Any:
    """Return one of a sequence, itself and not NumPy's copy of it."""
    return values[int(rng.integers(len(values)))]


def text(value: Any) -> str:
    """Return a short text of any argument; of an array what it is, not what is in it."""
    if isinstance(value, (np.ndarray, tg.Array)):
        strides = getattr(value, "strides", "")
        return f"{type(value).__name__}({value.dtype}, {value.shape}, {strides})"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}[{', '.join(text(v) for v in value)}]"[:200]
    return repr(value)[:80]


class Lying:
    """An object with the attributes of an array, and nothing behind them."""

    shape, dtype, ndim, size, strides = (2, 3), np.dtype("f4"), 2, 6, (12, 4)

    def __init__(self, device: Any = (1, 0), capsule: Any = None) -> None:
        self.device, self.capsule = device, capsule

    def __dlpack_device__(self) -> Any:
        return self.device

    def __dlpack__(self, **_: Any) -> Any:
        if isinstance(self.capsule, Exception):
            raise self.capsule
        return self.capsule


class Subclass(np.ndarray):
    """An array of another class."""


def number(rng: Rng) -> Any:
    """Return a number as Python or NumPy has them."""
    kind = int(rng.integers(6))
    if kind < 2:
        return pick(rng, INTEGERS)
    if kind < 4:
        return pick(rng, REALS)
    with np.errstate(all="ignore"):
        value = pick(rng, (True, False, 1j, decimal.Decimal("0.5"), fractions.Fraction(1, 3)))
        scalar = pick(rng, (np.int8, np.uint64, np.int64, np.float16, np.float32, np.float64))
        return value if kind == 4 else scalar(pick(rng, (0, 1, 2, 3, 100)))


def thing(rng: Rng) -> Any:
    """Return any Python object."""
    choices: tuple[Callable[[], Any], ...] = (
        lambda: None, lambda: pick(rng, TEXTS), lambda: b"mean", lambda: number(rng),
        lambda: number(rng), lambda: [], lambda: (), lambda: {}, lambda: {1, 2}, lambda: [1.0, 2.0],
        lambda: [[1.0], [2.0, 3.0]], lambda: (1, (2, (3,))), lambda: {"alpha": 1.0},
        lambda: {"alpha": "x"}, lambda: {3: None}, lambda: ("input", "input"), lambda: ["weight"],
        lambda: int, lambda: tg.relu, lambda: object(), lambda: ..., lambda: slice(None),
        lambda: (i for i in range(2)), lambda: range(3), lambda: memoryview(b"abcd"),
        lambda: bytearray(8), lambda: array.array("f", [1, 2]), lambda: np.float32,
        lambda: np.dtype("f4"), lambda: np.array(None), lambda: np.array("x"),
        lambda: np.float64(0.5), lambda: np.array(0.5), lambda: np.zeros((0,)),
        lambda: np.ma.masked, lambda: np.ones((1, 2)).view(np.matrix), lambda: Lying(),
        lambda: Lying((99, 0)), lambda: Lying("cpu"), lambda: Lying((1, 0), "capsule"),
        lambda: Lying((2, 0)), lambda: Lying((1, 0), RuntimeError("no")),
        lambda: Lying(None, ValueError("no")),
    )  # fmt: skip
    return pick(rng, choices)()


def in_memory(x: Any, offset: int, gap: int = 0) -> Any:
    """Copy x so that it ends where its memory ends: what reads on meets the sanitizer's border."""
    memory = np.zeros(offset + x.nbytes + gap, np.uint8)
    there = memory[offset : offset + x.nbytes].view(x.dtype).reshape(x.shape)
    there[...] = x
    return there


def layout(rng: Rng, x: Any) -> Any:
    """Return the values of x, or some of them, in memory that lies differently."""
    if x.dtype.hasobject or x.dtype.itemsize == 0:
        return x
    item = x.dtype.itemsize
    kind = int(rng.integers(13))
    if kind == 0:
        return in_memory(x, item * int(rng.integers(1, 20)))
    if kind == 1:
        return in_memory(x, int(rng.integers(1, item + 1)))  # most often misaligned
    if kind == 2:
        return x.astype(x.dtype.newbyteorder())
    if kind == 3:
        frozen = x.copy()
        frozen.setflags(write=False)
        return frozen
    if kind == 4:
        return x.view(Subclass)
    if kind == 5:
        return np.ma.masked_array(x, mask=rng.random(x.shape) < 0.3)
    if x.ndim == 0:
        return x.reshape(1)[0:1].reshape(())
    axis = int(rng.integers(x.ndim))
    along: list[Any] = [slice(None)] * x.ndim
    if kind in (6, 7):
        step = pick(rng, (2, 3, -1, -2))
        along[axis] = slice(None, None, step)
        wide = np.repeat(x, abs(step), axis)
        return (wide[tuple(s if i == axis else slice(None) for i, s in enumerate(along))]
                if step > 0 else np.flip(wide, axis).copy()[tuple(along)])  # fmt: skip
    if kind == 8:
        return np.asfortranarray(x)
    if kind == 9:
        order = rng.permutation(x.ndim)
        return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    if kind == 10 and x.shape[axis]:
        return np.broadcast_to(x.take([0], axis), x.shape)  # a stride of zero
    if kind == 11 and x.size > 1:
        flat = np.ascontiguousarray(x).reshape(-1)  # rows that overlap
        strides = tuple(item * int(rng.integers(0, 2)) for _ in x.shape)
        most = sum((n - 1) * s // item for n, s in zip(x.shape, strides, strict=True))
        if most < flat.size:
            return np.lib.stride_tricks.as_strided(flat, x.shape, strides)
    if kind == 12 and x.ndim < 9:  # an axis of one becomes four, with its neighbours
        return np.pad(x, [(1, 2)] * x.ndim)[tuple(slice(1, 1 + n) for n in x.shape)]
    return x


def other_dtype(rng: Rng, x: Any) -> Any:
    """Return x, or zeros of its shape, in another dtype."""
    dtype = pick(rng, DTYPES)
    if x.dtype.kind in "SU" and np.dtype(dtype).kind in "mM":
        return np.zeros(x.shape, dtype)  # NumPy 2.4 sets its error without the GIL, and may crash
    with np.errstate(all="ignore"), contextlib.suppress(Exception):
        return x.astype(dtype)
    return np.zeros(x.shape, dtype)


def specials(rng: Rng, x: Any) -> Any:
    """Return x with values at which arithmetic bends, at some places or at all."""
    kind = "f" if x.dtype.name == "bfloat16" else x.dtype.kind
    if kind not in SPECIAL or not x.size:
        return x
    result = x.copy()
    where = rng.random(x.shape) < pick(rng, (0.05, 0.3, 1.1))
    with np.errstate(all="ignore"):
        values = np.array([pick(rng, SPECIAL[kind]) for _ in range(4)], "O")
        drawn = values[rng.integers(0, 4, x.shape)]
        with contextlib.suppress(OverflowError, ValueError):
            result[where] = np.asarray(drawn[where]).astype(
                np.float64 if kind == "f" else (np.int64 if kind == "i" else np.uint64)
            ).astype(x.dtype)  # fmt: skip
    return result


def other_shape(rng: Rng, x: Any) -> Any:
    """Return elements of x in a shape that may not fit."""
    kind = int(rng.integers(9))
    if kind == 0:
        return x[..., None]
    if kind == 1:
        return x[None]
    if kind == 2:
        return x.T.copy()
    if kind == 3:
        return x.ravel()
    if kind == 4:
        return x.reshape(-1)[:1].reshape(()) if x.size else x
    if kind == 5:
        return np.zeros(
            tuple(pick(rng, (0, 1, 2, 3, 5, 7)) for _ in range(rng.integers(6))), x.dtype
        )
    if kind == 6:
        return np.zeros((1,) * int(rng.integers(5, 33)), x.dtype)
    if not x.ndim:
        return x
    axis = int(rng.integers(x.ndim))
    if kind == 7:
        return np.take(x, [], axis)
    return np.resize(
        x, [n + int(rng.integers(-1, 3)) * (i == axis) or 1 for i, n in enumerate(x.shape)]
    )


def huge(rng: Rng, x: Any) -> Any:
    """Return an array that claims more elements than any memory has, by strides of zero.

    Some have none: one size is zero, and the others must not overflow in a product either.
    """
    one = np.ones((), x.dtype if x.dtype.itemsize in range(1, 9) else "f4")
    size = pick(rng, (2**50, 2**57, 2**58, 2**59))
    shape = [1] * max(x.ndim, 1)
    shape[int(rng.integers(len(shape)))] = size
    if len(shape) > 1 and rng.random() < 0.4:
        empty = int(rng.integers(len(shape)))
        if shape[empty] == 1:
            return np.empty([0 if i == empty else n for i, n in enumerate(shape)], one.dtype)
    return np.broadcast_to(one, shape)


def options_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "out"]


def foreign(rng: Rng, x: Any) -> Any:
    """Return x as PyTorch's tensor, in a form that some libraries cannot take."""
    import torch

    if x.dtype.name not in ("float32", "float64", "int64", "int32", "float16"):
        return x
    tensor = torch.tensor(np.ascontiguousarray(x))
    kind = int(rng.integers(6))
    if kind == 0 and tensor.is_floating_point():
        return tensor.requires_grad_()
    if kind == 1:
        return tensor.to_sparse()
    if kind == 2 and tensor.is_floating_point():
        return torch.complex(tensor.double(), tensor.double()).conj().imag
    if kind == 3:
        return tensor.to(torch.bfloat16)
    if kind == 4:
        return tensor.to("meta")
    return tensor.mT if tensor.ndim > 1 else tensor
