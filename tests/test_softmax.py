# SPDX-License-Identifier: MIT
"""softmax and log_softmax: any axis, extreme logits, equal bits, and their derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from helpers import FLOATS, Device, assert_close, assert_exact, assert_same_bits
from softmax_oracle import (
    backward,
    bound,
    every_dtype,
    every_name,
    expected_gradient,
    expected_of,
    forward,
    gradient_bound,
)
from tilegrad.bench.cases import SOFTMAX, SoftmaxCase

SMALL = [case for case in SOFTMAX if np.prod(case.shape) <= 200_000]
LARGE = [case for case in SOFTMAX if 200_000 < np.prod(case.shape) <= 2**21]


@every_name
@every_dtype
@pytest.mark.simulated("case", lambda case: np.prod(case.shape) <= 10_000)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_softmax_matches_reference(
    device: Device, isa: str, name: str, case: SoftmaxCase, dtype: Any, rng: np.random.Generator
) -> None:
    x = np.asarray(rng.standard_normal(case.shape) * 3, dtype=dtype)
    dy = np.asarray(rng.standard_normal(case.shape), dtype=dtype)
    dim = case.dim
    expected = expected_of(name, x, dim)
    y = forward(name)(device.put(x), dim)
    assert device.get(y).dtype == dtype
    assert_close(device.get(y), expected, bound(name, x, dim, expected))
    if x.ndim:
        assert_same_bits(device.get(forward(name)(device.put(x), dim - x.ndim)), device.get(y))
    gradient = expected_gradient(name, dy, x, dim)
    allowed = gradient_bound(name, dy, x, dim)
    for options in ({}, {"output": y}):
        dx = device.get(backward(name)(device.put(dy), device.put(x), dim, **options))
        assert dx.dtype == dtype
        assert_close(dx, gradient, allowed, what=f"dx with {list(options)}")


@every_name
@every_dtype
@pytest.mark.cpu_only("its threads; the shapes of the next test reach every kernel of a GPU")
@pytest.mark.parametrize("case", [c for c in LARGE if c.dim in (0, 1)], ids=str)
def test_softmax_same_bits_for_any_threads_alignment_and_layout(
    device: Device, isa: str, name: str, case: SoftmaxCase, dtype: Any, rng: np.random.Generator
) -> None:
    shape = tuple(-(-size // 3) if size > 500 else size for size in case.shape)
    check_bits(device, name, shape, case.dim, dtype, rng)


@every_name
@every_dtype
def test_softmax_same_bits_for_other_shapes(
    device: Device, isa: str, name: str, dtype: Any, rng: np.random.Generator
) -> None:
    cases = [((257, 131), 1), ((131, 257), 0), ((3, 40_000), 1), ((7, 33, 129), 1)]
    cases += [((9, n), 1) for n in (8, 16, 31, 128, 132, 511, 516)] + [((3, 4097), 1)]
    for shape, dim in device.cases(cases, lambda case: np.prod(case[0]), within=35_000):
        check_bits(device, name, shape, dim, dtype, rng)


def check_bits(
    device: Device,
    name: str,
    shape: tuple[int, ...],
    dim: int,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    x, dy = (rng.standard_normal(shape) * 5).astype(dtype), rng.standard_normal(shape).astype(dtype)
    tg.set_num_threads(1)
    views, slopes = device.layouts(x), device.layouts(dy)
    y = forward(name)(device.put(x, offset=0), dim)
    x, dy = device.put(x), device.put(dy, offset=0)
    dx = backward(name)(dy, device.put(device.get(x), offset=0), dim, output=y)
    assert_same_bits(backward(name)(dy, x, dim), dx, what="dx recomputed")
    for threads in device.threads(2, 3, 4):
        tg.set_num_threads(threads)
        assert_same_bits(forward(name)(x, dim), y, what=f"{threads} threads")
        assert_same_bits(backward(name)(dy, x, dim, output=y), dx, what=f"dx, {threads} threads")
        assert_same_bits(backward(name)(dy, x, dim), dx, what=f"dx recomputed, {threads} threads")
    tg.set_num_threads(2)
    for layout, view in views.items():
        assert_same_bits(forward(name)(view, dim), y, what=layout)
        assert_same_bits(backward(name)(slopes[layout], x, dim, output=y), dx, what=f"dx, {layout}")
    for offset in (1, 2, 3):
        with device.guarded_out(shape, dtype, offset) as out:
            forward(name)(x, dim, out=out)
        assert_same_bits(out, y, what=f"out at {offset}")
    # a row's bits depend on its own values only
    if dim == len(shape) - 1:
        assert_same_bits(forward(name)(x[1:2], dim), device.get(y)[1:2], what="one row alone")


@every_name
@every_dtype
@pytest.mark.simulated("classes", lambda classes: classes <= 1000)
@pytest.mark.parametrize("classes", [1, 2, 33, 1000, 40_000])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_softmax_exact_at_extreme_logits(
    device: Device,
    isa: str,
    name: str,
    classes: int,
    offset: float,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    for dim in (1, 0):
        for low, high in [(-80, 80), (-1, 1), (-120, 0)]:
            x = (rng.uniform(low, high, (3, classes)) + offset).astype(dtype)
            x[1, :] = offset  # ties
            x[2, -1] = offset + high
            x = np.ascontiguousarray(x if dim == 1 else x.T)
            expected = expected_of(name, x, dim)
            y = device.get(forward(name)(device.put(x), dim))
            assert_close(
                y, expected, bound(name, x, dim, expected), what=f"{low}..{high}, dim {dim}"
            )
            dy = rng.standard_normal(x.shape).astype(dtype)
            dx = device.get(backward(name)(device.put(dy), device.put(x), dim))
            assert_close(dx, expected_gradient(name, dy, x, dim), gradient_bound(name, dy, x, dim))


@every_dtype
@pytest.mark.parametrize("classes", [1, 2, 16, 32, 64, 1024])
def test_softmax_of_ties_is_a_power_of_two(
    device: Device, isa: str, classes: int, dtype: Any
) -> None:
    for value in (0.0, -80.0, 80.0, 1e4, -1e30):
        x = np.full((3, classes), value, dtype)
        assert_exact(device.ops.softmax(x, 1), np.full_like(x, 1 / classes))
        assert_exact(device.ops.softmax(x.T, 0), np.full_like(x.T, 1 / classes))


@every_name
@every_dtype
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_infinities_and_nan_as_torch(
    device: Device, isa: str, name: str, dtype: Any, dim: int
) -> None:
    for classes in (1, 2, 5, 17, 33, 131, 1000):
        rows = [np.linspace(-3, 3, classes) for _ in range(7)]
        rows[1][::2] = -np.inf
        rows[2][-1] = -np.inf
        rows[3][:] = -np.inf
        rows[4][classes // 2] = np.nan
        rows[5][0] = np.inf
        rows[6][:] = -np.finfo(dtype).max
        x = np.array(rows, dtype)
        x = np.ascontiguousarray(x if dim == 1 else x.T)
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = getattr(F, name)(leaf, dim)
        dy = np.ones_like(x)
        dy[::3] = -2
        (slope,) = torch.autograd.grad(value, leaf, torch.tensor(dy, dtype=torch.float64))
        expected, slope = value.detach().numpy(), slope.numpy()
        y = device.get(forward(name)(device.put(x), dim))
        allowed = 40 * np.finfo(dtype).eps
        assert_close(
            y, expected, allowed * np.maximum(1, np.nan_to_num(np.abs(expected), posinf=1))
        )
        dx = device.get(backward(name)(device.put(dy), device.put(x), dim))
        assert_close(dx, slope, 4 * classes * np.finfo(dtype).eps, what=f"dx of {classes}")


@every_dtype
def test_softmax_rows_sum_to_one(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    for classes in (1, 33, 1000, 40_000):
        y = device.ops.softmax((rng.standard_normal((4, classes)) * 10).astype(dtype), 1)
        allowed = np.finfo(dtype).eps * (8 + np.sqrt(classes))
        assert_close(y.sum(axis=1, dtype=np.float64), np.ones(4), allowed)
        assert (y >= 0).all()


@every_name
@every_dtype
def test_softmax_matches_torch_on_every_axis(
    device: Device, isa: str, threads: int, compute_capability: int, name: str, dtype: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = rng.standard_normal((3, 17, 5, 40 if device.name != "sim" else 9)).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    for dim in range(-4, 4):
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        value = getattr(F, name)(leaf, dim)
        (slope,) = torch.autograd.grad(value, leaf, torch.tensor(dy, dtype=torch.float64))
        expected = value.detach().numpy()
        y = device.get(forward(name)(device.put(x), dim))
        assert_close(y, expected, bound(name, x, dim, expected), what=f"dim {dim}")
        dx = device.get(backward(name)(device.put(dy), device.put(x), dim))
        assert_close(dx, slope.numpy(), gradient_bound(name, dy, x, dim), what=f"dx, dim {dim}")


def test_softmax_of_two_classes_is_a_sigmoid(
    device: Device, isa: str, rng: np.random.Generator
) -> None:
    x = rng.uniform(-30, 30, 1000)
    y = device.ops.softmax(np.stack([x, np.zeros_like(x)]), 0)
    assert_close(y[0], device.ops.sigmoid(x), 40 * np.finfo(np.float64).eps * y[0])


@every_name
@given(data=st.data())
def test_softmax_hypothesis(device: Device, isa: str, name: str, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = tuple(data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3)))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 30.0]))
    offset = data.draw(st.floats(-1e4, 1e4))
    x = (rng.standard_normal(shape) * scale + offset).astype(dtype)
    expected = expected_of(name, x, dim)
    y = forward(name)(device.put(x), dim)
    assert_close(y, expected, bound(name, x, dim, expected))
    dy = rng.standard_normal(shape).astype(dtype)
    dx = backward(name)(device.put(dy), device.put(x), dim)
    assert_close(dx, expected_gradient(name, dy, x, dim), gradient_bound(name, dy, x, dim))
    reverse = np.ascontiguousarray(x.T)
    assert_same_bits(forward(name)(device.put(reverse.T), dim), y)
