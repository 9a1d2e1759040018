# SPDX-License-Identifier: MIT
"""Elementwise losses beside torch and the reference: mse_loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import (
    Array,
    Device,
    assert_close,
    assert_same_bits,
    error,
    frozen,
    tolerance,
)
from tilegrad import reference as ref

DTYPES = ("float32", "float64")
REDUCTIONS = ("none", "mean", "sum")
INF, NAN = math.inf, math.nan
Shape = tuple[int, ...]

SAME: list[tuple[Shape, Shape]] = [
    (s, s) for s in [(), (1,), (7,), (31,), (32, 3), (33, 5), (1009,), (3, 4, 5), (0,), (4, 0, 2)]
]
BROADCAST: list[tuple[Shape, Shape]] = [
    ((6, 5), (5,)),
    ((5,), (6, 5)),
    ((6, 1), (6, 5)),
    ((6, 1), (1, 5)),
    ((2, 1, 4), (3, 1)),
    ((3, 4), ()),
    ((), (3, 4)),
    ((0, 4), (1, 4)),
    ((1, 4), (0, 4)),
    ((257, 33), (33,)),
]


def draw(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    return frozen(np.asarray(rng.standard_normal(shape) * 3).astype(dtype))


def torch_answer(
    x: Array, t: Array, reduction: str, weight: Array | None, g: Any
) -> tuple[Any, Array, Array]:
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (x, t)]
    if weight is None:
        wide = np.broadcast_shapes(x.shape, t.shape)
        loss = F.mse_loss(*(a.expand(wide) for a in leaves), reduction=reduction)
    else:
        w = torch.tensor(weight, dtype=torch.float64)
        loss = F.mse_loss(*leaves, reduction=reduction, weight=w)
    loss.backward(torch.tensor(g, dtype=torch.float64))
    return (loss.detach().numpy(), *(a.grad.numpy() for a in leaves))


def check(x: Array, t: Array, dtype: str, device: Device, g: Array, weight: Array | None) -> None:
    bx, bt = device.put(x), device.put(t)
    bw = None if weight is None else device.put(weight)
    n = math.prod(np.broadcast_shapes(x.shape, t.shape))
    for reduction in REDUCTIONS:
        dy = g if reduction == "none" else 0.7
        by = device.put(g) if reduction == "none" else 0.7
        loss = device.get(tg.mse_loss(bx, bt, reduction, bw))
        both = tg.mse_loss_backward(by, bx, bt, reduction, bw, wrt=("input", "target"))
        assert isinstance(both, tuple)
        want, dx, dt = torch_answer(x, t, reduction, weight, dy)
        assert loss.dtype == dtype
        with np.errstate(all="ignore"):
            rows = np.abs(ref.mse_loss(x, t, "none", weight))
            scale = np.abs(ref.mse_loss_backward(np.abs(dy), x, t, reduction, weight))
        eps = tolerance(dtype, n if reduction != "none" else 2)
        bound = eps * (rows if reduction == "none" else np.abs(want))
        assert_close(loss, want, bound, what=f"{reduction} loss")
        largest = scale.max(initial=0) * n if n else 0.0
        for name, got, expected in zip(("input", "target"), both, (dx, dt), strict=True):
            got = device.get(got)
            assert got.dtype == dtype
            repeated = n // max(got.size, 1)  # summed over the axes that were broadcast
            per_element = tolerance(dtype, repeated + (n if weight is not None else 0))
            size = per_element * max(repeated, 1) * np.abs(scale).max(initial=0)
            assert_close(got, expected, min(size, largest), what=f"{reduction} d{name}")
            alone = tg.mse_loss_backward(by, bx, bt, reduction, bw, wrt=name)
            assert_same_bits(device.get(alone), got)
        assert_same_bits(tg.mse_loss_backward(by, bx, bt, reduction, bw), both[0])
        wrt = ("input", "target")
        value, gradients = tg.mse_loss_value_and_grad(bx, bt, reduction, bw, wrt=wrt)
        assert_same_bits(device.get(value), loss)
        one = device.put(np.ones_like(g)) if reduction == "none" else 1.0
        ones = tg.mse_loss_backward(one, bx, bt, reduction, bw, wrt=wrt)
        for a, b in zip(gradients, ones, strict=True):
            assert_same_bits(device.get(a), device.get(b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shapes", SAME + BROADCAST, ids=str)
def test_mse_loss_follows_torch(
    shapes: tuple[Shape, Shape], dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x, t = (draw(rng, s, dtype) for s in shapes)
    check(x, t, dtype, device, draw(rng, np.broadcast_shapes(*shapes), dtype), None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (33, 5), (1009,), (3, 4, 5)], ids=str)
def test_mse_loss_with_weight_follows_torch(
    shape: Shape, dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x, t, g = (draw(rng, shape, dtype) for _ in range(3))
    check(x, t, dtype, device, g, frozen(rng.uniform(0.1, 3, shape).astype(dtype)))


def test_mse_loss_is_exact_where_the_numbers_are(device: Device) -> None:
    x, t = device.put(np.array([1.0, 2.0, 4.0])), device.put(np.array([0.0, 5.0, 4.0]))
    assert device.get(tg.mse_loss(x, t, "none")).tolist() == [1, 9, 0]
    assert float(tg.mse_loss(x, t, "sum")) == 10
    w = device.put(np.array([2.0, 1.0, 1.0]))
    assert float(tg.mse_loss(x, t, "mean", w)) == 11 / 4
    assert device.get(tg.mse_loss_backward(1.0, x, t, "mean", w)).tolist() == [1, -1.5, 0]


def test_a_mean_over_nothing_is_nan(device: Device) -> None:
    empty = np.zeros((0, 3), "f4")
    assert np.isnan(device.ops.mse_loss(empty, empty))
    assert device.ops.mse_loss(empty, empty, "sum") == 0
    assert device.ops.mse_loss(empty, empty, "none").shape == (0, 3)
    zero = np.zeros(3)
    assert np.isnan(device.ops.mse_loss(zero, zero, weight=zero))


@pytest.mark.not_on_cpu("there a loss is a NumPy scalar")
def test_a_loss_is_an_array_of_no_axes_and_may_be_a_grad_output(device: Device) -> None:
    x, t = device.put(np.float32([1, 2])), device.put(np.float32([0, 4]))
    loss = tg.mse_loss(x, t)
    assert isinstance(loss, tg.Array)
    assert (loss.shape, loss.item()) == ((), 2.5)
    assert device.get(tg.mse_loss_backward(loss, x, t)).tolist() == [2.5, -5.0]


@pytest.mark.parametrize("position", [0, 15, 16, 33, 39])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_nan_and_infinity_follow_torch(bad: float, position: int, device: Device, isa: str) -> None:
    x, t = np.linspace(-1, 1, 40), np.linspace(0, 3, 40)
    x[position] = bad
    for reduction in REDUCTIONS:
        g = np.ones(40) if reduction == "none" else 1.0
        want, dx, dt = torch_answer(x, t, reduction, None, g)
        bound = 1e-13 * np.nan_to_num(np.abs(want), posinf=0)
        assert_close(device.ops.mse_loss(x, t, reduction), want, bound)
        both = device.ops.mse_loss_backward(g, x, t, reduction, wrt=("input", "target"))
        for got, expected in zip(both, (dx, dt), strict=True):
            assert_close(got, expected, 1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_layout_gives_the_same_bits(
    dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x, t, w = (rng.standard_normal((13, 33)).astype(dtype) for _ in range(3))
    w = np.abs(w)
    want = device.ops.mse_loss_value_and_grad(x, t, weight=w, wrt=("input", "target"))
    forms = [device.layouts(a) for a in (x, t, w)]
    for name in forms[0]:
        a, b, c = (form[name] for form in forms)
        got = tg.mse_loss_value_and_grad(a, b, weight=c, wrt=("input", "target"))
        assert_same_bits(got[0], want[0], what=name)
        for one, other in zip(got[1], want[1], strict=True):
            assert_same_bits(one, other, what=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_depend_neither_on_threads_nor_on_alignment(
    dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    shape = (300, 1003) if device.name != "sim" else (9, 1003)
    x, t = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
    tg.set_num_threads(1)
    ops = device.ops
    want = ops.mse_loss_value_and_grad(x, t), ops.mse_loss_value_and_grad(x, t[0], wrt="target")
    for threads in (2, 3, 4):  # and offsets
        tg.set_num_threads(threads)
        a, b = device.put(x, offset=threads), device.put(t, offset=1)
        got = tg.mse_loss_value_and_grad(a, b), tg.mse_loss_value_and_grad(a, b[0], wrt="target")
        for (loss, dx), (loss_1, dx_1) in zip(got, want, strict=True):
            assert_same_bits(loss, loss_1)
            assert_same_bits(dx, dx_1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_receives_the_result_and_nothing_beside_it_changes(
    dtype: str, device: Device, rng: np.random.Generator
) -> None:
    x, t = (device.put(draw(rng, shape, dtype)) for shape in ((13, 33), (33,)))
    for reduction in REDUCTIONS:
        g = device.put(np.ones((13, 33), dtype)) if reduction == "none" else 1.0
        with device.guarded_out((13, 33) if reduction == "none" else (), dtype, 1) as out:
            assert tg.mse_loss(x, t, reduction, out=out) is out
            assert_same_bits(out, tg.mse_loss(x, t, reduction))
        dx, dt = tg.mse_loss_backward(g, x, t, reduction, wrt=("input", "target"))
        with (
            device.guarded_out((13, 33), dtype, 1) as a,
            device.guarded_out((33,), dtype, 2) as b,
        ):
            got = tg.mse_loss_backward(g, x, t, reduction, wrt=("input", "target"), out=(a, b))
            assert got[0] is a
            assert got[1] is b
            assert_same_bits(a, dx)
            assert_same_bits(b, dt)


def test_what_does_not_fit_is_refused() -> None:
    x, t = np.zeros((3, 4)), np.zeros((3, 4))
    with error(ValueError, "mse_loss", "(3, 4)", "(4, 3)"):
        tg.mse_loss(x, np.zeros((4, 3)))
    with error(ValueError, "mse_loss", "weight", "(4,)"):
        tg.mse_loss(x, t, weight=np.zeros(4))
    with error(TypeError, "mse_loss", "float32"):
        tg.mse_loss(x, t.astype("f4"))
    with error(ValueError, "mse_loss", "reduction", "median"):
        tg.mse_loss(x, t, "median")
    with error(ValueError, "mse_loss_backward", "wrt", "weight"):
        tg.mse_loss_backward(1.0, x, t, wrt="weight")
    with error(ValueError, "mse_loss_backward", "grad_output", "(3, 5)"):
        tg.mse_loss_backward(np.zeros((3, 5)), x, t, "none")
