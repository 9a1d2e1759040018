# SPDX-License-Identifier: MIT
"""Losses with one value a row at their edges: kinks, infinities, NaN, targets, nothing, errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, error, frozen
from row_loss_cases import OPERANDS, REDUCTIONS, torch_answer

INF, NAN = math.inf, math.nan
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float32", "float64")
WITH_CLASSES = ("nll_loss", "multi_margin_loss", "multilabel_margin_loss")
ENDS = ("", "_backward", "_value_and_grad")
CPU = Device("cpu")
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS)


def flat(gradients: Any) -> tuple[Any, ...]:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def follow_torch(
    device: Device, op: str, operands: tuple[Any, ...], reduction: str, **options: Any
) -> None:
    """Compare loss and gradients with torch's in float64, NaN for NaN."""
    names, ops = OPERANDS[op], device.ops
    options["reduction"] = reduction
    loss = np.asarray(getattr(ops, op)(*operands, **options))
    g = np.linspace(0.5, 2, loss.size).reshape(loss.shape) if loss.shape else np.asarray(0.75)
    want, slopes = torch_answer(op, operands, names, g, **options)
    what = f"{op} {operands} {options}"
    size = np.nan_to_num(np.abs(want), posinf=0)
    assert_close(loss, want, 1e-13 * (1 + size), what=what)
    gradients = flat(getattr(ops, f"{op}_backward")(g, *operands, wrt=names, **options))
    for name, got, slope in zip(names, gradients, slopes, strict=True):
        size = np.nan_to_num(np.abs(slope), posinf=0).max(initial=1)
        assert_close(got, slope, 1e-12 * size, what=f"d{name} of {what}")


def widened(operands: tuple[Any, ...], times: int) -> tuple[Any, ...]:
    """Repeat the features, so that rows fill vectors and have a part of one."""
    return tuple(np.concatenate([x] * times, -1) for x in operands)


# ---- kinks, infinities, NaN ---------------------------------------------------------------------

ROWS = np.array([[1.0, 0, 2, 1], [NAN, 1, 0, 0.5], [1, NAN, 0.5, 2]])


@every_reduction
def test_class_losses_at_their_edges_follow_torch(reduction: str, device: Device, isa: str) -> None:
    w, zeros = np.array([0.5, 1, 0, 2]), np.zeros(3, np.int64)
    for p in (1, 2):
        follow_torch(device, "multi_margin_loss", (ROWS, zeros), reduction, p=p, weight=w)
        one = ROWS[0]
        follow_torch(device, "multi_margin_loss", (one, np.array(2)), reduction, p=p, margin=-0.5)
        follow_torch(device, "multi_margin_loss", (one, np.array([1])), reduction, p=p)
        follow_torch(device, "multi_margin_loss", (ROWS[:1], np.array(1)), reduction, p=p)
        follow_torch(device, "multi_margin_loss", (np.array(0.5), np.array(0)), reduction, p=p)
    lists = np.array([[0, -1, -1, -1], [0, 3, -1, 2], [2, 2, 0, -1]])
    follow_torch(device, "multilabel_margin_loss", (ROWS, lists), reduction)
    follow_torch(device, "multilabel_margin_loss", (ROWS[0], np.array([-1, 0, 0, 0])), reduction)
    follow_torch(device, "multilabel_margin_loss", (ROWS, np.array([[0, 1, 2, 3]] * 3)), reduction)
    follow_torch(device, "multilabel_margin_loss", (np.array(0.5), np.array(0)), reduction)
    target = np.array([0, 0, 3])
    follow_torch(device, "nll_loss", (ROWS, target), reduction, weight=np.array([1.0, 1, 1, 0]))
    follow_torch(device, "nll_loss", (ROWS, zeros), reduction, weight=np.array([0.0, 1, 1, 0]))
    follow_torch(device, "nll_loss", (ROWS, np.full(3, -100)), reduction)
    follow_torch(device, "nll_loss", (ROWS[0], np.array(-100)), reduction)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("position", [0, 7, 8, 15, 16, 33, 36])
def test_a_bad_score_anywhere_follows_torch(
    bad: float, position: int, device: Device, isa: str
) -> None:
    x = np.linspace(-1, 1, 2 * 37).reshape(2, 37)
    x[1, position] = bad
    lists = np.full((2, 37), -1)
    lists[:, :2] = [3, 36]
    share = np.linspace(0.1, 0.9, 2 * 37).reshape(2, 37)
    for target in ([3, 5], [36, position]):
        follow_torch(device, "multi_margin_loss", (x, np.array(target)), "none")
        follow_torch(device, "nll_loss", (x, np.array(target)), "none")
    follow_torch(device, "multilabel_margin_loss", (x, lists), "none")
    follow_torch(device, "multilabel_soft_margin_loss", (x, share), "none")
    y, z = share, np.flip(share).copy()
    if math.isnan(bad):  # beyond the largest number torch's gradient is another one's
        for p in (2.0, 1.0, INF, 0.5, 3.0):
            for swap in (False, True):
                follow_torch(device, "triplet_margin_loss", (x, y, z), "none", p=p, swap=swap)
        for sign in (1, -1):
            pairs = (x, y, np.array([sign, sign]))
            follow_torch(device, "cosine_embedding_loss", pairs, "none")


@every_reduction
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_labels_at_their_edges_follow_torch(
    reduction: str, share: float, device: Device, isa: str
) -> None:
    for x in (800.0, -800.0, INF, -INF, NAN, 0.0):
        operands = np.array([[x], [1.0]]), np.full((2, 1), share)
        follow_torch(device, "multilabel_soft_margin_loss", operands, reduction)


@every_reduction
@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, INF])
@pytest.mark.parametrize("times", [1, 19])
def test_triplets_at_their_edges_follow_torch(
    reduction: str, p: float, times: int, device: Device, isa: str
) -> None:
    origin, one, two = np.zeros((1, 2)), np.array([[1.0, 0]]), np.array([[2.0, 0]])
    both = np.array([[1.0, -1]])  # two maxima
    cases = [(origin, one, two), (origin, two, one), (origin, two, 1.5 * one), (origin,) * 3]
    cases += [(origin, both, two), (origin, both, both)]
    for at, operands in enumerate(cases):
        if times > 1 and at == 0:
            continue  # the margin's bound is one of a single difference
        for swap in (False, True):
            for eps in (0.0, 1e-6)[: 1 if at == 0 else 2]:
                options = {"p": p, "swap": swap, "eps": eps}
                long = widened(operands, times)
                follow_torch(device, "triplet_margin_loss", long, reduction, **options)


@every_reduction
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0, 0.5, NAN])
def test_cosines_at_their_edges_follow_torch(
    reduction: str, sign: float, device: Device, isa: str
) -> None:
    zero, a, b = np.zeros((1, 2)), np.array([[1.0, 0]]), np.array([[0.0, 3]])
    bad, tiny = np.array([[1.0, NAN]]), np.array([[1e-8, 1e-7]])
    for pair in ((zero, a), (zero, zero), (a, b), (a, 2 * a), (bad, b), (tiny, b), (tiny, tiny)):
        for margin in (0.0, -0.25, 1.5):
            operands = (*pair, np.array([sign]))
            follow_torch(device, "cosine_embedding_loss", operands, reduction, margin=margin)


def test_the_examples_of_the_definitions(device: Device) -> None:
    ops = device.ops
    x = np.array([[0.1, 0.2, 0.4, 0.8]])
    # 1/4 (max(0, 1 - 0.8 + 0.1) + max(0, 1 - 0.8 + 0.2) + max(0, 1 - 0.8 + 0.4))
    assert float(ops.multi_margin_loss(x, np.array([3]))) == pytest.approx(0.325)
    # of torch.nn.MultiLabelMarginLoss
    assert float(ops.multilabel_margin_loss(x, np.array([[3, 0, -1, 1]]))) == pytest.approx(0.85)
    log_p = np.log(np.array([[0.88, 0.12]]))
    assert float(ops.nll_loss(log_p, np.array([0]))) == pytest.approx(0.127833, abs=5e-7)
    points = np.zeros((1, 2)), np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])
    assert float(ops.triplet_margin_loss(*points, eps=0.0)) == 4
    assert float(ops.triplet_margin_loss(*points, eps=0.0, p=1.0)) == 6
    assert float(ops.triplet_margin_loss(*points, eps=0.0, p=INF)) == 3


# ---- nothing to add up --------------------------------------------------------------------------


def test_a_mean_over_nothing_is_nan(device: Device) -> None:
    for dtype in DTYPES:
        none, point = np.zeros((0, 3), dtype), np.zeros(0, dtype)
        rows, lists = np.zeros(0, np.int64), np.zeros((0, 3), np.int64)
        calls: dict[str, tuple[Any, ...]] = {
            "nll_loss": (none, rows),
            "multi_margin_loss": (none, rows),
            "multilabel_margin_loss": (none, lists),
            "multilabel_soft_margin_loss": (none, none),
            "triplet_margin_loss": (none, none, none),
            "cosine_embedding_loss": (none, none, rows),
        }
        for op, operands in calls.items():
            function = getattr(device.ops, op)
            assert np.isnan(function(*operands)), op
            assert function(*operands, reduction="sum") == 0
            assert function(*operands, reduction="none").shape == (0,)
            for gradient in flat(getattr(device.ops, f"{op}_backward")(1.0, *operands)):
                assert gradient.shape == (0, 3)
        zero = np.zeros((2, 3), dtype)
        ignored = device.ops.nll_loss_value_and_grad(zero, np.array([-100, -100]))
        assert np.isnan(ignored[0])
        assert not ignored[1].any()  # but no gradient
        featureless = np.zeros((2, 0), dtype)
        assert device.ops.triplet_margin_loss(*(featureless,) * 3) == 1
        assert device.ops.cosine_embedding_loss(featureless, featureless, np.array([1, 1])) == 1
        labels = device.ops.multilabel_soft_margin_loss(featureless, featureless, reduction="none")
        assert np.isnan(labels).all()
        assert device.ops.nll_loss(np.zeros((2, 3, 0), dtype), np.zeros((2, 0), int)).shape == ()
        assert point.size == 0


# ---- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("integer", INTEGERS)
def test_targets_of_any_integer_type(
    integer: str, device: Device, rng: np.random.Generator
) -> None:
    x, ops = rng.standard_normal((9, 40)).astype("f4"), device.ops
    classes, signs = rng.integers(0, 40, 9), np.where(rng.random(9) < 0.5, 1, 0)
    lists = rng.integers(0, 40, (9, 40))
    if not integer.startswith("u"):
        lists[:, 3:] = -1
        signs = 2 * signs - 1
    y = rng.standard_normal((9, 40)).astype("f4")
    calls: dict[str, tuple[Any, ...]] = {
        "nll_loss": (x, classes),
        "multi_margin_loss": (x, classes),
        "multilabel_margin_loss": (x[:2], lists[:2]),
        "cosine_embedding_loss": (x, y, signs),
    }
    for op, (*floats, target) in calls.items():
        both = getattr(ops, f"{op}_value_and_grad")
        want = both(*floats, target, reduction="none")
        got = both(*floats, target.astype(integer), reduction="none")
        assert_same_bits(got[0], want[0], what=op)
        for one, other in zip(flat(got[1]), flat(want[1]), strict=True):
            assert_same_bits(one, other, what=op)


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs_may_be_floats_or_integers(dtype: str, device: Device) -> None:
    x, y = np.eye(4, dtype=dtype), np.eye(4, dtype=dtype)[[0, 2, 1, 3]]
    signs = np.array([1, -1, 1, 3])
    want = device.ops.cosine_embedding_loss(x, y, signs, reduction="none")
    got = device.ops.cosine_embedding_loss(x, y, signs.astype(dtype), reduction="none")
    assert_same_bits(got, want)
    assert want.round(5).tolist() == [0, 0, 1, 0]


BAD = [
    ("int8", -1),
    ("int8", 127),
    ("int64", 40),
    ("int64", -(2**63)),
    ("uint8", 255),
    ("uint64", 2**64 - 1),
    ("uint64", 2**63 + 3),
    ("int32", 2**31 - 1),
]


def with_a_bad_class(op: str, integer: str, bad: int, rng: np.random.Generator) -> Any:
    x = frozen(rng.standard_normal((50, 40)).astype("f4"))
    target = np.zeros((50, 40) if op == "multilabel_margin_loss" else 50, integer)
    if op == "multilabel_margin_loss" and bad == -1:
        bad = -2  # -1 ends a list
    target[(33, 7) if target.ndim > 1 else 33] = bad
    return x, target, bad


@pytest.mark.parametrize("op", WITH_CLASSES)
@pytest.mark.parametrize(("integer", "bad"), BAD)
def test_a_class_out_of_range_is_named_and_nothing_is_written(
    op: str, integer: str, bad: int, rng: np.random.Generator
) -> None:
    x, target, bad = with_a_bad_class(op, integer, bad, rng)
    for reduction in REDUCTIONS:
        for end in ENDS:
            call: Any = getattr(tg, f"{op}{end}")
            options: dict[str, Any] = {"reduction": reduction}
            rows = (50,) if reduction == "none" else ()
            if end != "_value_and_grad":
                options["out"] = np.full(x.shape if end else rows, 7, "f4")
            upstream = (np.ones(rows, "f4"),) if end == "_backward" else ()
            with error(ValueError, f"{op}{end}", "target", ", 40)", bad):
                call(*upstream, x, target, **options)
            assert (options.get("out", np.float32(7)) == 7).all()


@pytest.mark.not_on_cpu("there it is a ValueError: a device cannot tell the host without waiting")
@pytest.mark.parametrize("op", WITH_CLASSES)
@pytest.mark.parametrize(("integer", "bad"), BAD)
def test_a_class_out_of_range_gives_a_nan_loss_and_no_gradient(
    op: str, integer: str, bad: int, device: Device, rng: np.random.Generator
) -> None:
    x, target, _ = with_a_bad_class(op, integer, bad, rng)
    fine = np.arange(50) != 33
    both = getattr(device.ops, f"{op}_value_and_grad")
    loss, dx = both(x, target, reduction="none")
    want, want_dx = both(x[fine], target[fine], reduction="none")
    assert np.isnan(loss[33])
    assert not dx[33].any()
    assert_same_bits(loss[fine], want)
    assert_same_bits(dx[fine], want_dx)
    for reduction in ("mean", "sum"):
        loss, dx = both(x, target, reduction=reduction)
        assert np.isnan(loss)
        assert not dx[33].any()
        assert np.isfinite(dx).all()


# ---- what is refused ----------------------------------------------------------------------------


def points(*shapes: tuple[int, ...]) -> list[Array]:
    return [np.zeros(shape) for shape in shapes]


def test_shapes_and_options_that_do_not_fit_are_refused(device: Device) -> None:
    ops, x = device.ops, np.zeros((3, 4))
    t, lists = np.zeros(3, np.int64), np.zeros((3, 4), np.int64)
    for options in ({"p": 3}, {"p": 1.5}, {"p": 0}):
        with error(ValueError, "multi_margin_loss", "p must be 1 or 2", options["p"]):
            ops.multi_margin_loss(x, t, **options)
    with error(ValueError, "multi_margin_loss", "(C,) or (N, C)", "(2, 3, 4)"):
        ops.multi_margin_loss(np.zeros((2, 3, 4)), t)
    for wrong in (t[:2], t[:, None], np.array(0)):
        with error(ValueError, "multi_margin_loss", "target", "(3, 4)", wrong.shape):
            ops.multi_margin_loss(x, wrong)
    with error(ValueError, "multi_margin_loss", "weight", "(3,)"):
        ops.multi_margin_loss(x, t, weight=np.zeros(3))
    for op, target in (("multi_margin_loss", t), ("multilabel_margin_loss", np.zeros((3, 0), int))):
        with error(ValueError, op, "no classes", "(3, 0)"):
            getattr(ops, op)(np.zeros((3, 0)), target)
        with error(TypeError, op, "target", "integer", "float64"):
            getattr(ops, op)(x, x)
    with error(ValueError, "multilabel_margin_loss", "target", "(3, 4)", "(4,)"):
        ops.multilabel_margin_loss(x, lists[0])
    with error(TypeError, "nll_loss", "target", "integer", "float64"):
        ops.nll_loss(x, x)
    with error(ValueError, "nll_loss", "input", "()"):
        ops.nll_loss(np.array(1.0), np.array(0))
    with error(ValueError, "nll_loss", "(3,)", "(3, 4)"):
        ops.nll_loss(x, lists)
    with error(ValueError, "multilabel_soft_margin_loss", "target", "(3, 4)", "(2, 3, 4)"):
        ops.multilabel_soft_margin_loss(x, np.zeros((2, 3, 4)))
    with error(ValueError, "multilabel_soft_margin_loss", "target", "(1, 4)", "(3, 4)"):
        ops.multilabel_soft_margin_loss(x[:1], x)
    with error(ValueError, "multilabel_soft_margin_loss", "axis of classes", "()"):
        ops.multilabel_soft_margin_loss(np.array(1.0), np.array(1.0))
    with error(TypeError, "multilabel_soft_margin_loss", "target", "int64"):
        ops.multilabel_soft_margin_loss(x, lists)


def test_points_that_do_not_fit_are_refused(device: Device) -> None:
    ops, x = device.ops, np.zeros((3, 4))
    triplet, cosine = ops.triplet_margin_loss, ops.cosine_embedding_loss
    for options, part in (
        ({"margin": 0.0}, "margin must be greater than 0; got 0"),
        ({"margin": -1.0}, "margin must be greater than 0; got -1"),
        ({"p": 0.0}, "p must be greater than 0; got 0"),
        ({"p": -INF}, "p must be greater than 0; got -inf"),
        ({"p": NAN}, "p must be greater than 0; got nan"),
    ):
        with error(ValueError, "triplet_margin_loss", part):
            triplet(x, x, x, **options)
    with error(TypeError, "triplet_margin_loss", "swap", "str"):
        triplet(x, x, x, swap="yes")
    with error(TypeError, "triplet_margin_loss", "eps", "str"):
        triplet(x, x, x, eps="small")
    with error(ValueError, "triplet_margin_loss", "as many axes", "(3, 4), (3, 4) and (4,)"):
        triplet(x, x, x[0])
    with error(ValueError, "triplet_margin_loss", "(3, 4)", "(2, 4)"):
        triplet(x, x[:2], x)
    a, b, c = points((3, 1), (3, 1), (3, 4))
    with error(ValueError, "triplet_margin_loss", "each distance", "(3, 1), (3, 1) and (3, 4)"):
        triplet(a, b, c)
    assert triplet(c, a, b, reduction="none").shape == (3,)
    with error(ValueError, "triplet_margin_loss", "each distance"):
        triplet(c, a, b, swap=True)
    with error(ValueError, "triplet_margin_loss", "inf", "(3, 0)"):
        triplet(*points((3, 0), (3, 0), (3, 0)), p=INF)
    signs = np.ones(3, np.int64)
    for first, second, target in (
        ((3, 4), (3, 4), ()), ((4,), (4,), (1,)), ((2, 3, 4), (2, 3, 4), (2, 3)),
        ((3, 4), (4,), (3,)), ((), (), ()),
    ):  # fmt: skip
        with error(ValueError, "cosine_embedding_loss", "(N, D)", first, second, target):
            cosine(*points(first, second), np.ones(target))
    with error(ValueError, "cosine_embedding_loss", "features", "(3, 4)", "(3, 1)"):
        cosine(*points((3, 4), (3, 1)), signs)
    with error(ValueError, "cosine_embedding_loss", "(3,)", "(2,)"):
        cosine(x, x, signs[:2])
    with error(TypeError, "cosine_embedding_loss", "target", "float32"):
        cosine(x, x, signs.astype("f4"))
    with error(TypeError, "cosine_embedding_loss", "target", "bool"):
        cosine(x, x, signs > 0)


def test_a_broadcast_that_is_too_large_is_refused() -> None:
    wide = np.broadcast_to(np.float32(0), (1, 67280421310721, 1))
    with pytest.raises(ValueError, match="triplet_margin_loss: the result is too large"):
        tg.triplet_margin_loss(np.zeros((274177, 1, 1), np.float32), wide, wide)
    first, second = np.zeros((1, 4), np.float32), np.broadcast_to(np.float32(0), (1, 4))
    signs = np.broadcast_to(np.int8(1), (2**61,))
    with pytest.raises(ValueError, match="cosine_embedding_loss: the result is too large"):
        tg.cosine_embedding_loss(first, second, signs)
