# SPDX-License-Identifier: MIT
"""prelu: values, both gradients, layouts, equal bits, the module beside torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from half_inputs import Half, every_half, normal, once
from helpers import FLOATS, Array, Device, assert_close, assert_same_bits, tolerance
from tilegrad import nn, reference

# shape of the input, number of slopes
CASES: list[tuple[tuple[int, ...], int]] = [
    ((), 1), ((1,), 1), ((7,), 1), ((33, 1), 1), ((5, 3), 3), ((129, 17), 17), ((3, 1009), 1009),
    ((2, 3, 1), 3), ((2, 3, 37), 3), ((4, 33, 65), 33), ((2, 5, 3, 4), 5), ((2, 5, 3, 4), 1),
    ((100_003,), 1), ((20_000, 3), 3), ((3, 2, 20_000), 2), ((0, 3), 3), ((3, 0), 1),
    ((2, 0, 3), 0),
]  # fmt: skip
every_case = pytest.mark.parametrize(("shape", "slopes"), CASES)
EPS = float(np.finfo(np.float32).eps)
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


def operands(
    rng: np.random.Generator, shape: tuple[int, ...], slopes: int, dtype: Any
) -> tuple[Array, Array, Array]:
    """Return dy, x and weight; some x are zeros of both signs."""
    x = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-2, 1, shape))
    x = np.where(rng.random(shape) < 0.1, np.copysign(0.0, x), x)
    dy, weight = rng.standard_normal(shape), rng.standard_normal(slopes)
    return np.asarray(dy, dtype), np.asarray(x, dtype), np.asarray(weight, dtype)


def gradient_bound(dy: Array, x: Array, weight: Array) -> Array:
    """k eps of the sum of the magnitudes that each slope's gradient adds up."""
    terms = reference.prelu_backward(np.abs(dy), -np.abs(x), weight, wrt="weight")
    return np.asarray(tolerance(x.dtype, max(x.size, 1)) * np.abs(terms))


@every_dtype
@every_case
def test_prelu_matches_reference_and_torch(
    device: Device, isa: str, shape: tuple[int, ...], slopes: int, dtype: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    if device.name == "sim" and np.prod(shape) > 10_000:
        shape = tuple(min(size, 97) if size != slopes else size for size in shape)
    dy, x, weight = operands(rng, shape, slopes, dtype)
    y = device.get(tg.prelu(device.put(x), device.put(weight)))
    dx, dw = tg.prelu_backward(device.put(dy), device.put(x), device.put(weight))
    assert y.dtype == dtype
    assert_close(y, reference.prelu(x, weight), np.finfo(dtype).eps * np.abs(y), what="y")
    want_dx, want_dw = reference.prelu_backward(dy, x, weight)
    assert_close(device.get(dx), want_dx, np.finfo(dtype).eps * np.abs(want_dx), what="dx")
    bound = gradient_bound(dy, x, weight)
    assert_close(device.get(dw), want_dw, bound, what="dw")
    if slopes == 0:  # torch refuses it
        return
    leaves = [torch.tensor(v.astype(np.float64), requires_grad=True) for v in (x, weight)]
    there = F.prelu(*leaves)
    there.backward(torch.tensor(dy.astype(np.float64)))
    assert_close(y, there.detach().numpy(), np.finfo(dtype).eps * np.abs(y), what="torch's y")
    assert_close(device.get(dw), leaves[1].grad.numpy(), bound, what="torch's dw")
    assert_close(device.get(dx), leaves[0].grad.numpy(), np.finfo(dtype).eps * np.abs(want_dx))


@every_dtype
@pytest.mark.parametrize(("shape", "slopes"), [((37, 5), 5), ((3, 5, 41), 5), ((211,), 1)])
def test_prelu_bits_do_not_depend_on_layout_or_threads(
    device: Device, isa: str, shape: tuple[int, ...], slopes: int, dtype: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    dy, x, weight = operands(rng, shape, slopes, dtype)
    there = device.put(weight)
    y = device.get(tg.prelu(device.put(x), there))
    dx, dw = (device.get(g) for g in tg.prelu_backward(device.put(dy), device.put(x), there))
    for name, other in device.layouts(x).items():
        assert_same_bits(device.get(tg.prelu(other, there)), y, what=name)
        again = tg.prelu_backward(device.put(dy), other, there)
        assert_same_bits(device.get(again[0]), dx, what=name)
        assert_same_bits(device.get(again[1]), dw, what=name)
    for count in device.threads(1, 2, 3):
        tg.set_num_threads(count)
        big = np.tile(x, (300, *(1,) * (x.ndim - 1)))
        first = tg.prelu_backward(big, big, weight)
        tg.set_num_threads(1)
        for one, other in zip(first, tg.prelu_backward(big, big, weight), strict=True):
            assert_same_bits(one, other, what=f"{count} threads")


def test_prelu_passes_nan_and_infinity_as_torch(device: Device) -> None:
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, -1.0], np.float32)
    for slope in (0.25, 0.0, -2.0, np.inf, np.nan):
        weight = np.array([slope], np.float32)
        leaves = [torch.tensor(v, requires_grad=True) for v in (x, weight)]
        want = F.prelu(*leaves)
        want.sum().backward()
        np.testing.assert_array_equal(
            device.get(tg.prelu(device.put(x), device.put(weight))), want.detach().numpy()
        )
        dx, dw = tg.prelu_backward(device.put(np.ones_like(x)), device.put(x), device.put(weight))
        np.testing.assert_array_equal(device.get(dx), leaves[0].grad.numpy())
        np.testing.assert_array_equal(device.get(dw), leaves[1].grad.numpy())


def test_prelu_options(device: Device, rng: np.random.Generator) -> None:
    dy, x, weight = (device.put(v) for v in operands(rng, (4, 3), 3, np.float32))
    dx, dw = tg.prelu_backward(dy, x, weight)
    assert_same_bits(device.get(tg.prelu_backward(dy, x, weight, wrt="weight")), device.get(dw))
    (only,) = tg.prelu_backward(dy, x, weight, wrt=("input",))
    assert_same_bits(device.get(only), device.get(dx))
    y = tg.prelu(x, weight)
    copy = device.put(device.get(x).copy())
    assert tg.prelu(copy, weight, out=copy) is copy
    assert_same_bits(device.get(copy), device.get(y))
    pair = (device.put(np.full((4, 3), np.nan, np.float32)), device.put(np.zeros(3, np.float32)))
    given = tg.prelu_backward(dy, x, weight, out=pair)
    assert given[0] is pair[0]
    assert given[1] is pair[1]
    assert_same_bits(device.get(pair[1]), device.get(dw))


@pytest.mark.parametrize(
    ("shape", "weight", "error"),
    [
        ((4, 3), np.ones(2, np.float32), "1 element or 3, one for each channel"),
        ((4,), np.ones(4, np.float32), "1 element or 1"),
        ((4, 3), np.ones((1, 3), np.float32), "one number or a vector"),
    ],
)
def test_prelu_names_a_wrong_weight(
    device: Device, shape: tuple[int, ...], weight: Array, error: str
) -> None:
    x = device.put(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=error):
        tg.prelu(x, device.put(weight))
    with pytest.raises(ValueError, match=error):
        tg.prelu_backward(x, x, device.put(weight))


@pytest.mark.parametrize("slopes", [1, 6])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_module_trains_as_torchs(
    device: Device, slopes: int, dtype: str, rng: np.random.Generator
) -> None:
    ours, theirs = nn.PReLU(slopes, 0.125, dtype=dtype), torch.nn.PReLU(slopes, 0.125)
    theirs = theirs.to(torch.float64)
    ours.to(device.name)
    for _ in range(2):  # the second pass adds to the gradient
        x, dy = rng.standard_normal((2, 5, 6)).astype(dtype)
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = ours(device.put(x))
        dx = ours.backward(device.put(dy))
        want = theirs(leaf)
        want.backward(torch.tensor(dy, dtype=torch.float64))
        eps = tolerance(dtype, 10)
        assert_close(device.get(y), want.detach().numpy(), eps * (1 + np.abs(x)))
        assert_close(device.get(dx), leaf.grad.numpy(), eps * (1 + np.abs(dy)))
    gradient = theirs.weight.grad.numpy()
    assert_close(device.get(ours.weight.grad), gradient, 60 * eps * (1 + np.abs(gradient)))
    ours.weight.requires_grad = False
    ours(device.put(x))
    assert ours.backward(device.put(dy), input_grad=False) is None


@pytest.mark.parametrize(("argument", "error"), [(0, ValueError), (1.5, TypeError)])
def test_module_refuses_a_wrong_number_of_slopes(argument: Any, error: type) -> None:
    with pytest.raises(error, match="PReLU: num_parameters must be"):
        nn.PReLU(argument)


@every_half
def test_prelu_of_16_bits_rounds_once(
    device: Device, isa: str, half: Half, rng: np.random.Generator
) -> None:
    for shape, slopes in [((33, 5), 5), ((2, 5, 37), 5), ((301,), 1)]:
        dy, x, weight = (
            normal(rng, half, shape),
            normal(rng, half, shape),
            normal(rng, half, (slopes,)),
        )
        there = [half.put(device, v) for v in (dy, x, weight)]
        want = reference.prelu(x, weight)
        assert_close(half.get(tg.prelu(*there[1:])), want, once(half, want, EPS * np.abs(want)))
        want_dx, want_dw = reference.prelu_backward(dy, x, weight)
        dx, dw = tg.prelu_backward(*there)
        assert_close(half.get(dx), want_dx, once(half, want_dx, EPS * np.abs(want_dx)))
        bound = EPS * x.size * np.abs(reference.prelu_backward(np.abs(dy), -np.abs(x), weight)[1])
        assert_close(half.get(dw), want_dw, once(half, want_dw, bound))
        with device.guarded_out((slopes,), np.float32) as sums:  # float32 by wish
            _, got = tg.prelu_backward(*there, out=(None, sums))
            assert got is sums
            assert_close(device.get(sums), want_dw, bound)
