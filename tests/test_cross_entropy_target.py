# SPDX-License-Identifier: MIT
"""The gradient of cross_entropy's target where it holds probabilities, beside torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from half_inputs import HALVES
from helpers import Array, Device, assert_close, assert_same_bits, error, frozen
from tilegrad import reference

SHAPES = [(5,), (1, 1), (3, 4), (33, 17), (4, 3, 5), (2, 7, 3, 2), (130, 300)]


def draw(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: Any
) -> tuple[Array, Array, Array]:
    axis = 0 if len(shape) == 1 else 1
    x = rng.standard_normal(shape) * 3
    q = np.exp(rng.standard_normal(shape))
    q /= q.sum(axis=axis, keepdims=True)
    w = rng.uniform(0.1, 2, shape[axis])
    return tuple(frozen(a.astype(dtype)) for a in (x, q, w))  # type: ignore[return-value]


@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_probabilities_follows_torch(
    dtype: str,
    reduction: str,
    weighted: bool,
    smoothing: float,
    device: Device,
    isa: str,
    rng: np.random.Generator,
) -> None:
    for shape in device.cases(SHAPES, np.prod, 1000):
        x, q, w = draw(rng, shape, dtype)
        rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
        g = rng.standard_normal(rows if reduction == "none" else ()).astype(dtype)
        options = {"reduction": reduction, "label_smoothing": smoothing}
        leaf = torch.tensor(q, dtype=torch.float64, requires_grad=True)
        wide = {"weight": torch.tensor(w, dtype=torch.float64) if weighted else None}
        loss = F.cross_entropy(torch.tensor(x, dtype=torch.float64), leaf, **wide, **options)
        loss.backward(torch.tensor(g, dtype=torch.float64))
        weight = device.put(w) if weighted else None
        args = device.put(x), device.put(q), weight
        got = tg.cross_entropy_backward(device.put(g), *args, **options, wrt="target")
        want = leaf.grad.numpy()
        eps = np.finfo(dtype).eps
        axis = 0 if len(shape) == 1 else 1
        size = np.abs(want) + np.abs(np.expand_dims(g, axis) if g.ndim else g)  # of log p, about 1
        assert_close(got, want, 16 * eps * size, what=f"{shape}")
        oracle = reference.cross_entropy_backward(
            g, x, q, w if weighted else None, **options, wrt="target"
        )
        assert_close(oracle, want, 1e-13 * size, what="reference")
        both = tg.cross_entropy_backward(device.put(g), *args, **options, wrt=("target", "input"))
        assert_same_bits(both[0], tg.cross_entropy_backward(device.put(g), *args, **options))
        assert_same_bits(both[1], got)
        value, pair = tg.cross_entropy_value_and_grad(*args, **options, wrt=("input", "target"))
        assert_same_bits(value, tg.cross_entropy(*args, **options))
        one = device.put(np.ones(g.shape, dtype))
        ones = tg.cross_entropy_backward(one, *args, **options, wrt="target")
        assert_same_bits(pair[1], ones)


def test_the_gradient_of_16_bit_probabilities_is_rounded_once(
    device: Device, rng: np.random.Generator
) -> None:
    for half in HALVES[:1] if device.name == "cpu" else HALVES:
        x, q, w = (half.put(device, a) for a in draw(rng, (9, 13), "float32"))
        got = half.get(tg.cross_entropy_backward(1.0, x, q, w, reduction="sum", wrt="target"))
        wide = [half.get(a).astype(np.float64) for a in (x, q, w)]
        want = reference.cross_entropy_backward(1.0, *wide, reduction="sum", wrt="target")
        assert_close(got.astype(np.float64), want, 0.51 * half.eps * np.abs(want))


def test_threads_and_layout_do_not_change_the_bits(
    device: Device, isa: str, rng: np.random.Generator
) -> None:
    x, q, w = draw(rng, (65, 41), "float32")
    options: dict[str, Any] = {"wrt": "target", "label_smoothing": 0.1}
    want = device.ops.cross_entropy_backward(1.5, x, q, w, **options)
    for threads in (1, 2, 3):
        tg.set_num_threads(threads)
        moved = (device.put(a, offset=threads) for a in (x, q, w))
        assert_same_bits(tg.cross_entropy_backward(1.5, *moved, **options), want)


def test_out_and_what_is_refused(device: Device, rng: np.random.Generator) -> None:
    x, q, _ = (device.put(a) for a in draw(rng, (6, 5), "float32"))
    want = tg.cross_entropy_backward(1.0, x, q, wrt="target")
    with device.guarded_out((6, 5), "float32", 1) as out:
        assert tg.cross_entropy_backward(1.0, x, q, wrt="target", out=out) is out
        assert_same_bits(out, want)
    index = device.put(np.zeros(6, np.int64))
    with error(ValueError, "cross_entropy_backward", "class indices have no gradient"):
        tg.cross_entropy_backward(1.0, x, index, wrt="target")
    with error(ValueError, "cross_entropy_value_and_grad", "class indices"):
        tg.cross_entropy_value_and_grad(x, index, wrt=("input", "target"))
