# SPDX-License-Identifier: MIT
"""Every elementwise loss beside torch: values, all gradients, shapes, reductions, edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, error, frozen, tolerance
from loss_ops import OPS, LossOp, Shape, every_loss, quiet

pytestmark = list(quiet)
DTYPES = ("float32", "float64")
REDUCTIONS = ("none", "mean", "sum")
SAME: list[tuple[Shape, ...]] = [(s,) * 3 for s in [(), (1,), (7,), (33, 5), (1009,), (0,)]]
BROADCAST: list[tuple[Shape, ...]] = [
    ((6, 5), (1, 5), (6, 5)),
    ((6, 5), (6, 1), (6, 1)),
    ((1, 5), (6, 1), (1, 1)),
    ((4, 3, 5), (4, 1, 5), (4, 3, 1)),
    ((257, 33), (1, 33), (257, 33)),
]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def check(
    op: LossOp, operands: list[Array], device: Device, reduction: str, g: Any, **more: Any
) -> None:
    """Compare the loss and each gradient with torch's in float64."""
    dtype = operands[0].dtype
    want, gradients = op.torch_answer(operands, g, reduction=reduction, **more)
    full = np.broadcast_shapes(*(x.shape for x in operands))
    n = math.prod(full)
    there = {k: device.put(v) if isinstance(v, np.ndarray) else v for k, v in more.items()}
    put = op.put(device, operands)
    got = op.call("", *put, reduction=reduction, **there)
    assert device.get(got).dtype == dtype
    wide = np.broadcast_arrays(*(x.astype(np.float64) for x in operands))
    with np.errstate(all="ignore"):
        scale = np.broadcast_to(op.scale(*wide), full)
        for value in more.values():  # weights
            scale = scale * (1 + np.abs(value)) if isinstance(value, np.ndarray) else scale
    divisor = 1.0 if reduction != "mean" else float(n)
    if more.get("weight") is not None and op.name == "l1_loss" and reduction == "mean":
        divisor = float(more["weight"].astype(np.float64).sum())
    each = 6 * tolerance(dtype)
    total = scale if reduction == "none" else scale.sum() / (divisor or 1.0)
    assert_close(got, want, each * total, what=f"{op} {reduction}")
    upstream = device.put(np.asarray(g, dtype)) if reduction == "none" else float(g)
    names = op.wrt
    both = op.call("_backward", upstream, *put, reduction=reduction, wrt=names, **there)
    assert isinstance(both, tuple)
    size = np.abs(np.asarray(g)) * scale / (divisor or 1.0)
    for name, mine, expected in zip(names, both, gradients, strict=True):
        mine = device.get(mine)
        assert mine.dtype == dtype
        axes = n // max(mine.size, 1)  # summed over what was broadcast
        bound = (each + tolerance(dtype, axes)) * max(axes, 1) * size.max(initial=0)
        limit = np.broadcast_to(each * size, full) if mine.shape == full else bound
        assert_close(mine, expected, limit, what=f"{op} {reduction} d{name}")
        alone = op.call("_backward", upstream, *put, reduction=reduction, wrt=name, **there)
        assert_same_bits(device.get(alone), mine)
    value, parts = op.call("_value_and_grad", *put, reduction=reduction, wrt=names, **there)
    assert_same_bits(device.get(value), device.get(got))
    one = device.put(np.ones(full, dtype)) if reduction == "none" else 1.0
    ones = op.call("_backward", one, *put, reduction=reduction, wrt=names, **there)
    for a, b in zip(parts, ones, strict=True):
        assert_same_bits(device.get(a), device.get(b))


@every_reduction
@every_dtype
@every_loss
def test_elementwise_losses_follow_torch(
    op: LossOp, dtype: str, reduction: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    shapes = SAME + (BROADCAST if op.broadcasts else [])
    for case in device.cases(shapes, lambda s: math.prod(s[0]), 700):
        case = case[: len(op.operands)]
        operands = op.draw(rng, case, dtype)
        full = np.broadcast_shapes(*case)
        g = rng.standard_normal(full).astype(dtype) if reduction == "none" else 0.7
        check(op, operands, device, reduction, g)


@every_reduction
@every_dtype
@pytest.mark.parametrize(
    "op",
    [op for op in OPS if op.name.startswith(("l1", "huber", "binary"))],
    ids=str,
)
def test_weighted_losses_follow_torch(
    op: LossOp, dtype: str, reduction: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    for shape in [(7,), (33, 5), (3, 4, 5)]:
        operands = op.draw(rng, [shape, shape], dtype)
        g = rng.standard_normal(shape).astype(dtype) if reduction == "none" else -1.3
        weights = [frozen(rng.uniform(0.1, 3, shape).astype(dtype))]
        if op.name.startswith("binary"):
            weights += [frozen(rng.uniform(0.1, 3, shape[-1:]).astype(dtype))]
        for weight in weights:
            check(op, operands, device, reduction, g, weight=weight)
        if op.name.endswith("logits"):
            for positive in (shape[-1:], (1,), shape):
                p = frozen(rng.uniform(0.1, 3, positive).astype(dtype))
                check(op, operands, device, reduction, g, pos_weight=p)
                check(op, operands, device, reduction, g, pos_weight=p, weight=weights[0])


@every_dtype
def test_a_variance_may_lack_an_axis_or_be_a_number(
    dtype: str, device: Device, rng: np.random.Generator
) -> None:
    (op,) = (op for op in OPS if op.name == "gaussian_nll_loss" and not op.options)
    # of (3, 3): a variance a row, not a column
    for shapes in [((3, 3), (3, 3), (3,)), ((4, 5), (4, 5), (4,)), ((5,), (5,), ())]:
        for reduction in REDUCTIONS:
            g = rng.standard_normal(shapes[0]).astype(dtype) if reduction == "none" else 0.7
            operands = op.draw(rng, shapes, dtype)
            want, gradients = op.torch_answer(operands, g, reduction=reduction)
            got = device.ops.gaussian_nll_loss(*operands, reduction=reduction)
            bound = 40 * tolerance(dtype) * (np.abs(want) + 10)
            assert_close(got, want, bound)
            mine = device.ops.gaussian_nll_loss_backward(
                g, *operands, reduction=reduction, wrt=("input", "target", "var")
            )
            for a, b in zip(mine, gradients, strict=True):
                assert_close(a, b, 40 * tolerance(dtype) * (np.abs(gradients[2]).max() + 10))
    x, t = op.draw(rng, [(4, 5)] * 3, dtype)[:2]
    number = device.ops.gaussian_nll_loss(x, t, 0.25)
    assert_same_bits(number, device.ops.gaussian_nll_loss(x, t, np.full((4, 5), 0.25, dtype)))
    only = device.ops.gaussian_nll_loss_backward(1.0, x, t, 0.25)
    assert_same_bits(
        only, device.ops.gaussian_nll_loss_backward(1.0, x, t, np.full((4, 5), 0.25, dtype))[0]
    )
    with error(ValueError, "gaussian_nll_loss_backward", "wrt", "var"):
        tg.gaussian_nll_loss_backward(1.0, x, t, 0.25, wrt="var")


SPECIAL = [-math.inf, -200.0, -3.0, -1.0, -0.5, -0.0, 0.0, 1e-30, 0.5, 1.0, 2.0, 3.0, 200.0]
SPECIAL += [math.inf, math.nan]


def known_deviation(op: LossOp, what: str, operands: list[Array]) -> Array:
    """Return where this library says that it differs from torch."""
    x, t = operands[:2]
    with np.errstate(all="ignore"):
        if op.name == "soft_margin_loss":  # overflows in torch
            return np.isinf(np.exp(-t * x))
    if op.name == "poisson_nll_loss" and what == "target" and op.options.get("full"):
        return (t <= 0) | np.isinf(t)  # NaN there, from a term that does not count
    if op.name == "binary_cross_entropy_with_logits":  # infinities that cancel or not
        return np.isinf(t) | np.isinf(x)
    return np.zeros(x.shape, bool)


@every_loss
def test_special_values_follow_torch(op: LossOp, device: Device, isa: str) -> None:
    values = [v for v in SPECIAL if not op.name.endswith("entropy") or 0 <= v <= 1]
    grid = np.array(list(itertools.product(values, repeat=2))).T
    third = [1.0, -1.0] if op.name.startswith("margin") else [0.0, 2.0, 1e-9]
    for extra in third if len(op.operands) == 3 else [None]:
        operands = [frozen(grid[0].copy()), frozen(grid[1].copy())]
        if extra is not None:
            operands.append(np.full(grid.shape[1], extra))
        g = np.ones(grid.shape[1])
        want, gradients = op.torch_answer(operands, g, reduction="none")
        got = op.call("", *op.put(device, operands), reduction="none")
        rest = ~known_deviation(op, "", operands)
        size = np.abs(want[rest])
        if op.name.endswith("logits"):  # torch adds x and -x
            size = size + np.abs(grid[0][rest])
        assert_close(device.get(got)[rest], want[rest], 1e-13 * size, what=str(op))
        mine = op.call(
            "_backward", device.put(g), *op.put(device, operands), reduction="none", wrt=op.wrt
        )
        for name, a, b in zip(op.wrt, mine, gradients, strict=True):
            rest = ~known_deviation(op, name, operands)
            bound = 1e-13 * (np.abs(b[rest]) + 1)
            assert_close(device.get(a)[rest], b[rest], bound, what=f"{op} d{name}")


@every_dtype
def test_losses_that_torch_overflows_in_are_finite(dtype: str, device: Device, isa: str) -> None:
    x = np.array([-1000, -90, 90, 1000], dtype)
    one = np.ones(4, dtype)
    assert_close(device.ops.soft_margin_loss(x, one, "none"), np.maximum(-x, 0), 1e-35)
    assert_close(
        device.ops.soft_margin_loss_backward(one, x, one, "none"), np.where(x < 0, -one, 0), 1e-35
    )
    zero = np.zeros(4, dtype)
    for t in (zero, one):
        loss = device.ops.binary_cross_entropy_with_logits(x, t, reduction="none")
        assert_close(loss, np.maximum(np.where(t == 0, x, -x), 0), 1e-35)


@every_reduction
def test_a_loss_over_nothing(reduction: str, device: Device) -> None:
    for op in OPS:
        operands = [np.zeros((0, 3), "f4")] * len(op.operands)
        got = device.get(op.call("", *op.put(device, operands), reduction=reduction))
        assert got.shape == ((0, 3) if reduction == "none" else ())
        if reduction != "none":
            assert np.isnan(got) == (reduction == "mean")
    empty = device.put(np.zeros((0, 3), "f4"))
    assert np.isnan(device.get(tg.kl_div(empty, empty, "batchmean")))


def test_batchmean_divides_by_the_batch(device: Device, rng: np.random.Generator) -> None:
    x, t = rng.standard_normal((4, 5)), rng.random((4, 5))
    total = device.ops.kl_div(x, t, "sum")
    assert_close(device.ops.kl_div(x, t, "batchmean"), total / 4, 1e-15 * abs(total))
    assert_close(
        device.ops.kl_div_backward(1.0, x, t, "batchmean"),
        device.ops.kl_div_backward(0.25, x, t, "sum"),
        0,
    )
    assert device.ops.kl_div(x[0, 0], t[0, 0], "batchmean") == device.ops.kl_div(
        x[0, 0], t[0, 0], "sum"
    )
    with error(ValueError, "l1_loss", "batchmean"):
        tg.l1_loss(x, t, "batchmean")


@every_dtype
@every_loss
def test_bits_depend_neither_on_threads_nor_on_layout(
    op: LossOp, dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    operands = op.draw(rng, [(13, 1033) if device.name == "cpu" else (3, 173)] * 3, dtype)
    tg.set_num_threads(1)
    want = op.call("_value_and_grad", *op.put(device, operands), wrt=op.wrt)
    for threads in (2, 3):
        tg.set_num_threads(threads)
        moved = [device.put(x, offset=threads) for x in operands]
        got = op.call("_value_and_grad", *moved, wrt=op.wrt)
        assert_same_bits(got[0], want[0])
        for a, b in zip(got[1], want[1], strict=True):
            assert_same_bits(a, b)
    forms = [device.layouts(x) for x in operands]
    for name in forms[0]:
        got = op.call("_value_and_grad", *(form[name] for form in forms), wrt=op.wrt)
        assert_same_bits(got[0], want[0], what=name)
        for a, b in zip(got[1], want[1], strict=True):
            assert_same_bits(a, b, what=name)


@every_loss
def test_out_receives_the_result(op: LossOp, device: Device, rng: np.random.Generator) -> None:
    operands = op.put(device, op.draw(rng, [(13, 33)] * 3, "float32"))
    for reduction in REDUCTIONS:
        g = device.put(np.ones((13, 33), "f4")) if reduction == "none" else 1.0
        with device.guarded_out((13, 33) if reduction == "none" else (), "f4", 1) as out:
            assert op.call("", *operands, reduction=reduction, out=out) is out
            assert_same_bits(out, op.call("", *operands, reduction=reduction))
        want = op.call("_backward", g, *operands, reduction=reduction, wrt=op.wrt[0])
        with device.guarded_out((13, 33), "f4", 2) as out:
            got = op.call("_backward", g, *operands, reduction=reduction, wrt=op.wrt[0], out=out)
            assert got is out
            assert_same_bits(out, want)


def test_elements_outside_their_range(device: Device) -> None:
    half = np.full(40, 0.5)
    for position, bad in itertools.product((0, 17, 39), (-0.25, 1.5, math.nan)):
        wrong = half.copy()
        wrong[position] = bad
        for operands in ((wrong, half), (half, wrong)):
            if device.name == "cpu":
                out = np.full(40, 7.0)
                with error(ValueError, "binary_cross_entropy", "[0, 1]", f"element {position}"):
                    tg.binary_cross_entropy(*operands, reduction="none", out=out)
                assert (out == 7).all()  # nothing is lost
                with error(ValueError, "binary_cross_entropy_value_and_grad", str(bad)):
                    tg.binary_cross_entropy_value_and_grad(*operands)
            else:
                loss = device.ops.binary_cross_entropy(*operands, reduction="none")
                assert np.flatnonzero(np.isnan(loss)).tolist() == [position]
    var = half.copy()
    var[[3, 21]] = math.nan, -1.0
    if device.name == "cpu":
        with error(ValueError, "gaussian_nll_loss", "at least 0", "-1", "element 21"):
            tg.gaussian_nll_loss(half, half, var)
    else:
        loss = device.ops.gaussian_nll_loss(half, half, var, reduction="none")
        assert np.flatnonzero(np.isnan(loss)).tolist() == [3, 21]
    with error(ValueError, "gaussian_nll_loss", "at least 0"):
        tg.gaussian_nll_loss(half, half, -0.5)


def test_what_does_not_fit_is_refused() -> None:
    x = np.full((3, 4), 0.5)
    with error(ValueError, "binary_cross_entropy", "(3, 4)", "(4,)"):
        tg.binary_cross_entropy(x, x[0])
    with error(ValueError, "binary_cross_entropy", "weight", "(2, 3, 4)"):
        tg.binary_cross_entropy(x, x, weight=np.ones((2, 3, 4)))
    with error(ValueError, "binary_cross_entropy_with_logits", "pos_weight", "(2, 3, 4)"):
        tg.binary_cross_entropy_with_logits(x, x, pos_weight=np.ones((2, 3, 4)))
    with error(ValueError, "huber_loss", "weight", "(4,)"):
        tg.huber_loss(x, x, weight=np.ones(4))
    with error(ValueError, "huber_loss", "delta", "0"):
        tg.huber_loss(x, x, delta=0)
    with error(ValueError, "smooth_l1_loss", "beta", "-1"):
        tg.smooth_l1_loss(x, x, beta=-1)
    with error(ValueError, "margin_ranking_loss", "axes", "(3, 4)", "(4,)"):
        tg.margin_ranking_loss(x, x, x[0])
    for shape in ((4,), (1,), (2, 4), (1, 1)):
        with error(ValueError, "gaussian_nll_loss", "var", str(shape)):
            tg.gaussian_nll_loss(x, x, np.ones(shape))
    with error(TypeError, "margin_ranking_loss", "target", "float32"):
        tg.margin_ranking_loss(x, x, x.astype("f4"))
    with error(TypeError, "poisson_nll_loss", "target", "int64"):
        tg.poisson_nll_loss(x, np.ones((3, 4), np.int64))
    for name in ("hinge_embedding_loss", "soft_margin_loss"):
        with error(ValueError, f"{name}_backward", "wrt", "target"):
            getattr(tg, f"{name}_backward")(1.0, x, x, wrt="target")
