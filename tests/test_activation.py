# SPDX-License-Identifier: MIT
"""The elementwise activations and their derivatives: values, edges, equal bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from activation_ops import OPS, Op, backward_bound, every_dtype, every_op, forward_bound, values
from helpers import (
    FLOATS,
    Array,
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    guarded_out,
)
from tilegrad.bench.cases import ELEMENTS

SMALL = [case.shape for case in ELEMENTS if case.size <= 40_000]


@every_dtype
@every_op
def test_activation_matches_reference_for_any_shape(
    device: Device, isa: str, op: Op, dtype: Any, rng: np.random.Generator
) -> None:
    for shape in device.cases(SMALL, np.prod, within=5_000):
        x = values(rng, shape, dtype)
        dy = np.asarray(rng.standard_normal(shape), dtype=dtype)
        y = op.forward(device.put(x))
        dx = device.get(op.backward(device.put(dy), device.put(x)))
        y = device.get(y)
        assert y.dtype == dx.dtype == dtype
        expected, gradient = op.reference(x), op.reference_backward(dy, x)
        assert_close(y, expected, forward_bound(x, expected), what=f"y of {shape}")
        assert_close(dx, gradient, backward_bound(dy, x, gradient), what=f"dx of {shape}")


@every_dtype
@every_op
def test_activation_matches_torch(
    device: Device, isa: str, threads: int, op: Op, dtype: Any, rng: np.random.Generator
) -> None:
    shape = (103, 1009) if device.name != "sim" else (7, 109)
    x, dy = values(rng, shape, dtype), rng.standard_normal(shape).astype(dtype)
    expected, gradient = op.torch_both(dy.astype(np.float64), x.astype(np.float64))
    y = op.forward(device.put(x))
    assert_close(device.get(y), expected, forward_bound(x, expected))
    bound = backward_bound(dy, x, gradient)
    dx = op.backward(device.put(dy), device.put(x))
    assert_close(device.get(dx), gradient, bound, what="from input")
    dx = op.backward(device.put(dy), device.put(x), output=y)
    assert_close(device.get(dx), gradient, bound, what="with output")


def one_rounding(op: Op, x: Array) -> Array:
    """Return what an exact op gives: x times a slope, rounded once."""
    if op.name == "identity":
        return x
    if op.name in ("hardtanh", "relu6"):
        low, high = op.options.values() or ((0, 6) if op.name == "relu6" else (-1, 1))
        return np.clip(x, low, high, dtype=x.dtype)
    slope = op.options.get("negative_slope", 0.0 if op.name == "relu" else 0.01)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        below = x * x.dtype.type(slope) if op.name == "leaky_relu" else np.zeros_like(x)
    return np.where(x > 0, x, np.where(np.isnan(x), x, below))


@every_dtype
@pytest.mark.parametrize("op", [op for op in OPS if op.exact], ids=str)
def test_piecewise_linear_activation_rounds_once(
    device: Device, isa: str, op: Op, dtype: Any
) -> None:
    info = np.finfo(dtype)
    x = np.array(
        [1, 3, 1e-3, info.max, info.tiny, info.smallest_subnormal, 3e-39, np.inf, 0], dtype
    )
    x = np.concatenate([x, -x, [np.nan]]).astype(dtype)
    x = np.tile(x, 3)
    assert_exact(op.forward(device.put(x)), one_rounding(op, x))


@every_dtype
@every_op
def test_activation_edges_as_torch(device: Device, isa: str, op: Op, dtype: Any) -> None:
    """Infinities, NaN, zeros, the largest and smallest numbers, in every lane of a vector."""
    info = np.finfo(dtype)
    edges = [0.0, 1.0, 20.0, 90.0, 750.0, 1e4, 1e15, info.max, info.tiny, np.inf]
    x = np.array([*edges, *(-v for v in edges), np.nan, 0.5, -0.5], dtype)
    dy = np.ones_like(x)
    expected, gradient = op.torch_both(dy.astype(np.float64), x.astype(np.float64))
    with np.errstate(over="ignore"):
        expected, gradient = expected.astype(dtype), gradient.astype(dtype)
    missing = np.isnan(x)  # torch's elu drops a NaN in the backward pass; here it propagates
    gradient[missing] = op.reference_backward(dy[missing], x[missing])
    if op.name == "hardswish":
        expected[x == info.max] = info.max  # torch's 6 x overflows
    if op.options.get("approximate") == "tanh":  # there torch's x^3 overflows
        huge = np.isfinite(x) & (np.abs(x) > 1e4)
        gradient[huge] = x[huge] > 0
    for shift in range(17):
        rolled = np.roll(x, shift)
        y = np.roll(device.get(op.forward(device.put(rolled))), -shift)
        dx = np.roll(device.get(op.backward(device.put(dy), device.put(rolled))), -shift)
        assert_close(y, expected, forward_bound(x, expected), what="y")
        assert_close(dx, gradient, backward_bound(dy, x, gradient), what="dx")
        assert np.isnan(y[np.isnan(x)]).all()


@every_dtype
@every_op
def test_activation_backward_propagates_nan_of_grad_output(
    device: Device, isa: str, op: Op, dtype: Any
) -> None:
    x = np.array([0.75, 0.5, 1e-3] * 13, dtype)  # where no f' is 0
    dy = np.ones_like(x)
    dy[::4] = np.nan
    dx = device.get(op.backward(device.put(dy), device.put(x)))
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(dy))


@pytest.mark.parametrize("op", [op for op in OPS if op.name not in ("gelu", "silu")], ids=str)
def test_activation_ties_at_zero_as_torch(device: Device, isa: str, op: Op) -> None:
    for dtype in FLOATS:
        x = np.array([0.0, -0.0] * 20, dtype)
        dy = np.linspace(-2, 2, x.size).astype(dtype)
        y, dx = op.torch_both(dy, x)
        there = device.put(x)
        assert_exact(op.forward(there), y)
        assert_close(op.backward(device.put(dy), there), dx, 2 * np.finfo(dtype).eps * np.abs(dy))


@pytest.mark.parametrize("name", ["identity", "tanh", "leaky_relu", "elu", "selu", "gelu", "silu"])
def test_odd_start_keeps_the_sign_of_zero(device: Device, isa: str, name: str) -> None:
    for dtype in FLOATS:
        y = getattr(device.ops, name)(np.array([-0.0] * 37, dtype))
        assert (y == 0).all()
        assert np.signbit(y).all()


@every_dtype
@every_op
def test_activation_same_bits_for_any_threads_alignment_and_layout(
    device: Device, isa: str, op: Op, dtype: Any, rng: np.random.Generator
) -> None:
    shape = (331, 307) if device.name != "sim" else (13, 307)
    x, dy = values(rng, shape, dtype), rng.standard_normal(shape).astype(dtype)
    tg.set_num_threads(1)
    there = device.put(x, offset=0)
    y, dx = op.forward(there), op.backward(device.put(dy, offset=0), there)
    for threads in device.threads(2, 3, 4):
        tg.set_num_threads(threads)
        assert_same_bits(op.forward(x), y, what=f"{threads} threads")
        assert_same_bits(op.backward(dy, x), dx, what=f"dx, {threads} threads")
    tg.set_num_threads(2)
    slopes = device.layouts(dy)
    for name, view in device.layouts(x).items():
        assert_same_bits(op.forward(view), y, what=name)
        assert_same_bits(op.backward(slopes[name], view), dx, what=f"dx, {name}")
    # an element's result does not depend on where it lies
    flat, expected = there.reshape(-1), device.get(y).ravel()
    for start, stop in [(1, 2), (3, 20), (5, 70), (7, 1031)]:
        assert_same_bits(op.forward(flat[start:stop]), expected[start:stop], what=f"{start}:{stop}")


def test_activation_same_bits_past_the_caches(isa: str, rng: np.random.Generator) -> None:
    """From 64 MiB on a result that is none of the operands is stored past the caches."""
    x = rng.standard_normal((1 << 23) + 77, dtype=np.float32)
    for threads in (1, 2):
        tg.set_num_threads(threads)
        for offset in (0, 3):
            with guarded_out(x.shape, x.dtype, offset) as out:
                tg.sigmoid(x, out=out)
            inplace = x.copy()
            tg.sigmoid(inplace, out=inplace)
            assert_same_bits(out, inplace, what=f"{threads} threads, offset {offset}")
            with guarded_out(x.shape, x.dtype, offset) as out:
                tg.relu_backward(x, inplace, out=out)
            assert_same_bits(out, tg.relu_backward(x, inplace, out=inplace))


@given(data=st.data())
def test_activation_hypothesis(device: Device, isa: str, data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(OPS))
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=4)))
    size = int(np.prod(shape))
    width = np.dtype(dtype).itemsize * 8
    number = st.floats(-1e3, 1e3, width=width) | st.floats(-5, 5, width=width)
    drawn = data.draw(st.lists(number, min_size=min(size, 20), max_size=min(size, 20)))
    x = np.resize(np.array(drawn, dtype), shape)
    dy = np.random.default_rng(size).standard_normal(shape).astype(dtype)
    y, dx = op.forward(device.put(x)), op.backward(device.put(dy), device.put(x))
    expected, gradient = op.reference(x), op.reference_backward(dy, x)
    assert_close(y, expected, np.maximum(forward_bound(x, expected), np.finfo(dtype).tiny))
    assert_close(dx, gradient, backward_bound(dy, x, gradient))
    y_again = op.forward(device.put(x.T))
    assert_same_bits(y_again, device.get(y).T)
