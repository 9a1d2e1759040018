# SPDX-License-Identifier: MIT
"""matmul_backward: torch's gradients for every shape, equal bits, what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import (
    FLOATS,
    Array,
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    bad_outs,
    error,
    tolerance,
)
from matmul_inputs import TRANSPOSES, integers, mixed, swapped
from tilegrad import reference

BACKWARD = [
    ((3, 4), (4, 5)),
    ((1, 1), (1, 1)),
    ((33, 17), (17, 65)),
    ((130, 70), (70, 97)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4,)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 3, 4), (4, 5)),
    ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((5, 1, 3, 4), (1, 6, 4, 5)),
    ((40, 33, 20), (20, 9)),
    ((0, 3, 4), (4, 5)),
    ((2, 3, 0), (0, 5)),
    ((0, 4), (4, 5)),
]


def torch_gradients(
    dc: Array, a: Array, b: Array, transpose_a: bool, transpose_b: bool
) -> tuple[Array, Array]:
    left, right = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b))
    c = torch.matmul(left.mT if transpose_a else left, right.mT if transpose_b else right)
    da, db = torch.autograd.grad(c, (left, right), torch.tensor(dc, dtype=torch.float64))
    return da.numpy(), db.numpy()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("shape_a", "shape_b"), BACKWARD, ids=str)
def test_matmul_backward_matches_torch(
    device: Device,
    isa: str,
    threads: int,
    shape_a: tuple[int, ...],
    shape_b: tuple[int, ...],
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in (shape_a, shape_b))
    dc = rng.standard_normal(np.matmul(a, b).shape).astype(dtype)
    for ta, tb in TRANSPOSES:
        if (ta and a.ndim == 1) or (tb and b.ndim == 1):
            continue
        left, right = swapped(a, ta), swapped(b, tb)
        expected = torch_gradients(dc, left, right, ta, tb)
        scales = reference.matmul_backward(
            np.abs(dc), np.abs(left), np.abs(right), transpose_a=ta, transpose_b=tb
        )
        got = tg.matmul_backward(
            device.put(dc), device.put(left), device.put(right), transpose_a=ta, transpose_b=tb
        )
        assert isinstance(got, tuple)
        for name, gradient, want, scale, operand in zip(
            "ab", got, expected, scales, (left, right), strict=True
        ):
            gradient = device.get(gradient)
            length = dc.size * operand.shape[-1] // max(operand.size, 1) + max(dc.shape or (1,))
            assert gradient.dtype == dtype
            bound = tolerance(dtype, length) * scale
            assert_close(gradient, want, bound, what=f"d{name}, transposed {ta}, {tb}")


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_backward_wrt_and_out(
    device: Device, isa: str, threads: int, dtype: Any, rng: np.random.Generator
) -> None:
    a, b = integers(rng, (3, 34, 5), dtype), integers(rng, (5, 33), dtype)
    dc = integers(rng, (3, 34, 33), dtype)
    da, db = (x.astype(dtype) for x in reference.matmul_backward(dc, a, b))
    a, b, dc = device.put(a, 1), device.put(b, 2), device.put(dc, 3)
    for wrt, expected in [
        (None, (da, db)),
        (("a", "b"), (da, db)),
        (["b", "a"], (da, db)),  # input order, whatever the order of names
        (("a",), (da,)),
        (("b",), (db,)),
    ]:
        got = tg.matmul_backward(dc, a, b, wrt=wrt)
        assert isinstance(got, tuple)
        assert len(got) == len(expected)
        for gradient, want in zip(got, expected, strict=True):
            assert_exact(gradient, want)
    for wrt, want in [("a", da), ("b", db)]:
        assert_exact(tg.matmul_backward(dc, a, b, wrt=wrt), want)
        with device.guarded_out(want.shape, dtype, offset=1) as out:
            assert tg.matmul_backward(dc, a, b, wrt=wrt, out=out) is out
        assert_exact(out, want)
    with (
        device.guarded_out(da.shape, dtype, 3) as out_a,
        device.guarded_out(db.shape, dtype, 1) as out_b,
    ):
        got = tg.matmul_backward(dc, a, b, out=(out_a, out_b))
        assert got[0] is out_a
        assert got[1] is out_b
    assert_exact(out_a, da)
    assert_exact(out_b, db)


@pytest.mark.parametrize("dtype", FLOATS)
def test_matmul_backward_same_bits_for_any_threads_and_layout(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    shapes = [((130, 70), (70, 97)), ((9, 33, 20), (20, 65)), ((4, 512), (512, 300))]
    for shape_a, shape_b in device.cases(shapes, lambda s: np.prod(s[0]) * s[1][1], within=2**19):
        a, b = mixed(rng, shape_a, dtype), mixed(rng, shape_b, dtype)
        dc = mixed(rng, np.matmul(a, b).shape, dtype)
        tg.set_num_threads(1)
        form_dc, form_a = device.layouts(dc), device.layouts(a)
        dc, a, b = device.put(dc), device.put(a), device.put(b)
        expected = tg.matmul_backward(dc, a, b)
        for threads in device.threads(2, 3, 4):
            tg.set_num_threads(threads)
            for got, want in zip(tg.matmul_backward(dc, a, b), expected, strict=True):
                assert_same_bits(got, want, what=f"{threads} threads")
        for name, view in form_dc.items():
            for got, want in zip(tg.matmul_backward(view, a, b), expected, strict=True):
                assert_same_bits(got, want, what=f"grad_output: {name}")
        for name, view in form_a.items():
            for got, want in zip(tg.matmul_backward(dc, view, b), expected, strict=True):
                assert_same_bits(got, want, what=f"a: {name}")


def test_matmul_backward_takes_a_scalar_for_two_vectors(device: Device) -> None:
    a, b = device.put(np.float32([1, 2])), device.put(np.float32([3, 5]))
    for upstream in (2.0, np.float32(2), device.put(np.array(2, np.float32))):
        da, db = tg.matmul_backward(upstream, a, b)
        assert_exact(da, np.float32([6, 10]))
        assert_exact(db, np.float32([2, 4]))


def test_matmul_backward_refuses() -> None:
    a, b, dc = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4))
    with error(ValueError, "matmul_backward", "grad_output", "(2, 4)", "(2, 5)"):
        tg.matmul_backward(np.ones((2, 5)), a, b)
    with error(ValueError, "matmul_backward", "inner sizes"):
        tg.matmul_backward(dc, a, np.ones((4, 4)))
    with error(TypeError, "matmul_backward", "float32", "float64"):
        tg.matmul_backward(dc.astype(np.float32), a, b)
    for wrt in ("c", ("a", "c"), ()):
        with error(ValueError, "matmul_backward", "wrt"):
            tg.matmul_backward(dc, a, b, wrt=wrt)
    with error(TypeError, "matmul_backward", "wrt"):
        tg.matmul_backward(dc, a, b, wrt=3)
    for name, (out, kind, part) in bad_outs((2, 3), np.float64).items():
        with error(kind, "matmul_backward", "out", part):
            tg.matmul_backward(dc, a, b, wrt="a", out=out)
            pytest.fail(f"accepted out with another {name}")
    with error(ValueError, "matmul_backward", "overlap"):
        tg.matmul_backward(dc, a, b, wrt="a", out=a)
    with pytest.raises((TypeError, ValueError), match=r"^matmul_backward: .*out"):
        tg.matmul_backward(dc, a, b, out=np.empty((2, 3)))
    same = np.empty((3, 3))
    with error(ValueError, "matmul_backward", "overlap"):
        tg.matmul_backward(np.ones((3, 3)), np.ones((3, 3)), np.ones((3, 3)), out=(same, same))
