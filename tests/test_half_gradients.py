# SPDX-License-Identifier: MIT
"""Gradients of 16-bit operands that are sums over much: in float32 by wish, rounded once else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from half_inputs import BFLOAT16, Half, bits, every_half, normal, once
from helpers import Array, Device, assert_close, assert_same_bits, error
from linear_inputs import ACTIVATIONS, IDS

EPS = float(np.finfo(np.float32).eps)
SIZES = [(5, 7, 33), (33, 40, 17), (70, 9, 40), (0, 3, 4), (1, 1, 1)]


def exact_dz(half: Half, function: Any, z: Array, dy: Array) -> tuple[Array, Array]:
    """Return dz and what it errs by its rounding and by f' in float32."""
    leaf = torch.tensor(z, requires_grad=True)
    (slope,) = torch.autograd.grad(function(leaf) * 1.0, leaf, torch.from_numpy(dy))
    dz = slope.numpy()
    return dz, 0.5 * half.spacing(dz) + 30 * EPS * np.abs(dy)


@every_half
@pytest.mark.parametrize(("name", "args", "function", "_from_output"), ACTIVATIONS, ids=IDS)
def test_gradients_of_weights_are_summed_in_float32(
    device: Device, isa: str, half: Half, name: str | None, args: Any, function: Any,
    _from_output: bool, rng: np.random.Generator,
) -> None:  # fmt: skip
    for rows, inputs, outputs in SIZES:
        x, weight = normal(rng, half, (rows, inputs)), normal(rng, half, (outputs, inputs))
        bias, dy = normal(rng, half, (outputs,)), normal(rng, half, (rows, outputs))
        there = [half.put(device, v) for v in (dy, x, weight, bias)]
        _, z = tg.linear(*there[1:], name, activation_args=args, save_preactivation=True)
        options: dict[str, Any] = {"activation_args": args, "preactivation": z}
        dz, rounded = exact_dz(half, function, half.get(z), dy)
        if name in (None, "identity"):
            rounded = np.zeros_like(rounded)  # dz is dy
        before = [rng.standard_normal(s).astype(np.float32) for s in ((outputs, inputs), outputs)]
        narrow = tg.linear_backward(*there, name, **options)
        for accumulate in (False, True):
            with (
                device.guarded_out((outputs, inputs), np.float32, 3) as dweight,
                device.guarded_out((outputs,), np.float32, 1) as dbias,
            ):
                if accumulate:
                    device.copy(dweight, before[0])
                    device.copy(dbias, before[1])
                out = (None, dweight, dbias)
                got = tg.linear_backward(*there, name, **options, accumulate=accumulate, out=out)
                assert got[1] is dweight
                assert got[2] is dbias
                gradients = [device.get(v) for v in got[1:]]
            assert_same_bits(bits(got[0]), bits(narrow[0]), what="dinput")
            for what, gradient, right, start, once_rounded in zip(
                ("dweight", "dbias"), gradients, (x, np.ones(rows)), before, narrow[1:], strict=True
            ):
                assert gradient.dtype == np.float32
                start = start if accumulate else 0 * start
                want = dz.T @ right + start
                products = np.abs(dz.T) @ np.abs(right) + np.abs(start)
                bound = rounded.T @ np.abs(right) + (rows + 3) * EPS * products
                assert_close(gradient, want, bound, what=f"{what}, {accumulate}")
                if not accumulate:
                    apart = half.spacing(want) + 2 * bound
                    assert_close(half.get(once_rounded), gradient, apart, what=f"16 bits, {what}")


@every_half
def test_many_small_gradients_add_up_in_float32(device: Device, half: Half) -> None:
    """In 16 bits the sum would stand still: the reason why they may be float32."""
    x, dy = half.put(device, np.ones((1, 4))), half.put(device, np.full((1, 3), 2.0**-8))
    weight, bias = half.put(device, np.ones((3, 4))), half.put(device, np.ones(3))
    out = (None, device.put(np.ones((3, 4), np.float32)), device.put(np.ones(3, np.float32)))
    for _ in range(64):
        tg.linear_backward(dy, x, weight, bias, wrt=("weight", "bias"), accumulate=True, out=out)
    for gradient in out[1:]:
        assert (device.get(gradient) == 1.25).all()


@every_half
def test_both_gradients_have_one_dtype(device: Device, half: Half) -> None:
    def wide(*shape: int) -> Any:
        return device.put(np.zeros(shape, np.float32))

    def narrow(*shape: int) -> Any:
        return half.put(device, np.zeros(shape))

    operands = [narrow(2, 4), narrow(2, 3), narrow(4, 3), narrow(4)]
    for out, wrt in {
        "dweight": ((None, wide(4, 3), None), ("weight", "bias")),
        "dbias": ((None, None, wide(4)), ("input", "weight", "bias")),
        "alone": ((None, None, wide(4)), "bias"),
    }.values():
        got = tg.linear_backward(*operands, wrt=wrt, out=out)
        for asked, gradient in zip(("weight", "bias"), got[1:], strict=True):
            assert (gradient is not None) == (asked in wrt)
            assert gradient is None or device.get(gradient).dtype == np.float32
    got = tg.linear_backward(*operands, wrt="bias", out=(None, wide(4, 3), None))
    half.get(got[2])  # of what is not asked for the dtype does not matter
    op, name = "linear_backward", half.name
    with error(TypeError, op, "out must have dtype float32", name):
        tg.linear_backward(*operands, out=(None, narrow(4, 3), wide(4)))
    with error(TypeError, op, "out must have dtype float32", name):
        tg.linear_backward(*operands, out=(None, wide(4, 3), narrow(4)))
    with error(TypeError, op, f"out must have dtype {name}", "float32"):
        tg.linear_backward(*operands, out=(wide(2, 3), None, None))
    with error(TypeError, op, f"out must have dtype {name}", "float64"):
        tg.linear_backward(*operands, out=(None, device.put(np.zeros((4, 3))), None))
    with error(ValueError, op, "(4, 3)", "(3, 4)"):
        tg.linear_backward(*operands, out=(None, wide(3, 4), None))
    with error(ValueError, op, "accumulate"):
        tg.linear_backward(*operands, accumulate=True, out=(None, wide(4, 3), None))
    in_float = [wide(2, 4), wide(2, 3), wide(4, 3), wide(4)]
    with error(TypeError, op, "out must have dtype float32", name):
        tg.linear_backward(*in_float, out=(None, narrow(4, 3), narrow(4)))


@pytest.mark.cpu_only("a device sums up products of some broadcasts one by one")
def test_a_sum_over_a_broadcast_batch_is_rounded_once(
    device: Device, isa: str, rng: np.random.Generator
) -> None:
    half = BFLOAT16
    for left, right in [
        ((7, 3, 5, 6), (6, 4)),
        ((7, 3, 5, 6), (3, 6, 4)),
        ((7, 3, 5, 6), (7, 1, 6, 4)),
        ((5, 6), (7, 3, 6, 4)),
        ((7, 1, 5, 6), (3, 6, 4)),
        ((2, 1, 9, 5, 6), (3, 1, 6, 4)),
        ((1, 5, 6), (9, 6, 4)),
    ]:
        a, b = normal(rng, half, left), normal(rng, half, right)
        shape = np.broadcast_shapes(left[:-2], right[:-2])
        dc = normal(rng, half, (*shape, 5, 4))

        def summed(x: Array, of: tuple[int, ...]) -> Array:
            lead = x.ndim - len(of)
            axes = tuple(i for i in range(x.ndim) if i < lead or of[i - lead] != x.shape[i])
            return x.sum(axes, keepdims=True).reshape(of)

        ranges = np.prod(shape) + 8
        put = [half.put(device, v) for v in (dc, a, b)]
        for operands in (put, [np.asfortranarray(v) for v in put]):
            da, db = tg.matmul_backward(*operands)
            for what, got, size, want, products in (
                ("da", da, left, dc @ b.swapaxes(-1, -2), np.abs(dc) @ np.abs(b).swapaxes(-1, -2)),
                ("db", db, right, a.swapaxes(-1, -2) @ dc, np.abs(a).swapaxes(-1, -2) @ np.abs(dc)),
            ):
                inside = ranges * EPS * summed(products, size)
                want = summed(want, size)
                bound = once(half, want, inside)
                assert_close(half.get(got), want, bound, what=f"{what}, {left}, {right}")
        for one, other in zip((da, db), tg.matmul_backward(*put), strict=True):
            assert_same_bits(bits(one), bits(other), what="operands that lie differently")


def test_a_large_gradient_of_weights_in_float32(device: Device, rng: np.random.Generator) -> None:
    """Enough tiles for the rung that whole multiprocessors share; the same bits from anywhere."""
    rows, inputs, outputs = 72, 1024, 1536
    half = BFLOAT16
    x, dy = normal(rng, half, (rows, inputs)), normal(rng, half, (rows, outputs))
    weight = half.put(device, np.zeros((outputs, inputs)))
    gradients = []
    for offset, start in ((0, 0.0), (3, 0.0), (0, 1.5)):
        out = (None, device.put(np.full((outputs, inputs), start, np.float32)), None)
        there = [half.put(device, v, offset) for v in (dy, x)]
        tg.linear_backward(*there, weight, wrt="weight", accumulate=start != 0, out=out)
        gradients.append(device.get(out[1]))
        want, products = dy.T @ x + start, np.abs(dy).T @ np.abs(x) + start
        assert_close(gradients[-1], want, (rows + 3) * EPS * products, what=f"from {offset}")
    assert_same_bits(gradients[1], gradients[0], what="operands that lie elsewhere")


@every_half
def test_hardtanh_is_flat_beyond_bounds_that_16_bits_round(device: Device, half: Half) -> None:
    # 0.7 rounds down: its result alone would seem to lie inside.
    x = np.array([[-9.0, -0.5, 0.0, 0.5, 0.75, 9.0]])
    expected = np.array([[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]])
    args = {"min_val": -0.3, "max_val": 0.7}
    there, ones = half.put(device, x), half.put(device, np.ones_like(x))
    y = tg.hardtanh(there, **args)
    slope = half.get(tg.hardtanh_backward(ones, there, **args, output=y))
    assert np.array_equal(slope, expected)
    one = half.put(device, np.eye(6))
    for kept in ({}, {"output": y}, {"preactivation": there}):
        dx, _, _ = tg.linear_backward(
            ones, there, one, None, "hardtanh", activation_args=args, **kept
        )
        assert np.array_equal(half.get(dx), expected)
