# SPDX-License-Identifier: MIT
"""cross_entropy at its edges: ignored rows, infinities, integer types, layouts, threads, errors."""

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
    aligned,
    assert_close,
    assert_same_bits,
    error,
    frozen,
)

INF, NAN = math.inf, math.nan
DTYPES = ("float32", "float64")
REDUCTIONS = ("none", "mean", "sum")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
CPU = Device("cpu")
OPS = ("cross_entropy", "cross_entropy_backward", "cross_entropy_value_and_grad")


def call(op: str, x: Any, t: Any, *, device: Device = CPU, **options: Any) -> Any:
    """Call any of the three functions; the gradient's with a grad_output of ones."""
    if op != "cross_entropy_backward":
        return getattr(device.ops, op)(x, t, **options)
    g: Any = 1.0
    if options.get("reduction") == "none":
        g = np.ones(x.shape[:1] + x.shape[2:], x.dtype)
    return device.ops.cross_entropy_backward(g, x, t, **options)


def answers(
    x: Array, t: Array, reduction: str, *, device: Device, **options: Any
) -> tuple[Any, Array]:
    ops = device.ops
    loss, dx = ops.cross_entropy_value_and_grad(x, t, reduction=reduction, **options)
    assert_same_bits(loss, ops.cross_entropy(x, t, reduction=reduction, **options))
    alone = call("cross_entropy_backward", x, t, reduction=reduction, device=device, **options)
    assert_same_bits(dx, alone)
    return loss, dx


def torch_answers(x: Array, t: Array, reduction: str, **options: Any) -> tuple[Any, Array]:
    leaf = torch.tensor(x, requires_grad=True)
    for name, value in options.items():
        options[name] = torch.tensor(value) if isinstance(value, np.ndarray) else value
    loss = F.cross_entropy(leaf, torch.tensor(t), reduction=reduction, **options)
    loss.backward(torch.ones_like(loss))
    return loss.detach().numpy(), leaf.grad.numpy()


# ---- class indices of every integer type ----------------------------------------------------


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("shape", [(9, 100), (4, 100, 3)], ids=str)
def test_class_indices_of_any_integer_type_and_layout(
    integer: str, shape: tuple[int, ...], device: Device, rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype("f4")
    wide = rng.integers(0, 100, (shape[0], *shape[2:]))
    wide.flat[1] = 77
    t = wide.astype(integer)
    want = answers(x, wide, "none", device=device, ignore_index=77)
    assert want[0].flat[1] == 0
    gapped = np.zeros(tuple(2 * n for n in t.shape), integer)[(slice(1, None, 2),) * t.ndim]
    gapped[...] = t
    reverse = t[::-1].copy()[::-1]
    forms = {"plain": t, "gapped": gapped, "reversed": reverse, "fortran": t.T.copy().T}
    for name, form in forms.items():
        got = answers(x, form, "none", device=device, ignore_index=77)
        for one, other in zip(got, want, strict=True):
            assert_same_bits(one, other, what=name)


def test_a_target_repeated_by_broadcasting_is_read_in_place(rng: np.random.Generator) -> None:
    x, t = rng.standard_normal((6, 5)), np.broadcast_to(np.array(3), (6,))
    got, want = (answers(x, form, "none", device=CPU) for form in (t, t.copy()))
    for one, other in zip(got, want, strict=True):
        assert_same_bits(one, other)


def test_a_target_of_one_vector_is_a_scalar_of_any_kind(
    device: Device, rng: np.random.Generator
) -> None:
    x = rng.standard_normal(7)
    want = device.ops.cross_entropy(x[None], np.array([4]))
    assert_same_bits(device.ops.cross_entropy(x, np.array(4)), want)
    if device.name == "cpu":
        assert_same_bits(tg.cross_entropy(x, np.int16(4)), want)


OUT_OF_RANGE = pytest.mark.parametrize(
    ("integer", "bad", "ignore"),
    [
        ("int8", -1, -100),
        ("int8", 127, -100),
        ("int64", 5, -100),
        ("int64", -(2**63), -100),
        ("int64", -100, 2),
        ("uint8", 255, -1),  # not the same as -1
        ("uint16", 65436, -100),
        ("uint32", 2**32 - 100, -100),
        ("uint64", 2**64 - 100, -100),
        ("uint64", 2**63 + 3, -100),
        ("int32", 2**31 - 1, -100),
    ],
)


@OUT_OF_RANGE
@pytest.mark.not_on_cpu("there it is a ValueError: a device cannot tell the host without waiting")
@pytest.mark.parametrize("shape", [(40, 5), (40, 5, 3), (40, 200)], ids=str)
def test_a_target_out_of_range_gives_a_nan_loss_and_no_gradient(
    device: Device, shape: tuple[int, ...], integer: str, bad: int, ignore: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = rng.standard_normal(shape).astype("f4")
    t = np.zeros((40, *shape[2:]), integer)
    if 0 <= bad < shape[1]:  # of these classes: take another that is not
        bad = 2 * shape[1] if np.iinfo(integer).max > 2 * shape[1] else -1
    t[33] = bad
    fine = np.arange(40) != 33
    loss, dx = answers(x, t, "none", device=device, ignore_index=ignore)
    want, want_dx = answers(x[fine], t[fine], "none", device=device, ignore_index=ignore)
    assert np.isnan(loss[33]).all()
    assert not dx[33].any()
    assert_same_bits(loss[fine], want)
    assert_same_bits(dx[fine], want_dx)
    for reduction in ("mean", "sum"):
        loss, dx = answers(x, t, reduction, device=device, ignore_index=ignore)
        assert np.isnan(loss)
        assert not dx[33].any()
        assert np.isfinite(dx).all()


@OUT_OF_RANGE
@pytest.mark.parametrize("op", OPS)
def test_a_target_out_of_range_is_named_and_nothing_is_written(
    op: str, integer: str, bad: int, ignore: int, rng: np.random.Generator
) -> None:
    x = frozen(rng.standard_normal((40, 5)).astype("f4"))
    t = np.zeros(40, integer)
    t[33] = bad
    for reduction in REDUCTIONS:
        options: dict[str, Any] = {"reduction": reduction, "ignore_index": ignore}
        if op != "cross_entropy_value_and_grad":
            shape = x.shape if op == "cross_entropy_backward" else (40,) * (reduction == "none")
            options["out"] = np.full(shape, 7, "f4")
        with error(ValueError, op, "target", "[0, 5)", bad):
            call(op, x, t, **options)
        assert (options.get("out", np.float32(7)) == 7).all()


@pytest.mark.parametrize("integer", ["uint8", "int8", "uint64"])
def test_ignore_index_is_not_cut_to_the_type_of_the_target(device: Device, integer: str) -> None:
    x, t = np.zeros((2, 5)), np.array([3, 4], integer)
    for ignore, rows in ((256 + 3, 2), (3, 1)):
        loss = device.ops.cross_entropy(x, t, ignore_index=ignore, reduction="sum")
        assert float(loss) == pytest.approx(rows * math.log(5))


# ---- rows that count for nothing ------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ignored", [0, 1, 8, 39, 40])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ignored_rows_follow_torch(
    dtype: str, ignored: int, smoothing: float, device: Device, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = rng.standard_normal((40, 12)).astype(dtype)
    t = rng.integers(0, 12, 40)
    rows = rng.permutation(40)[:ignored]
    t[rows] = -100
    weight = rng.uniform(0.1, 2, 12).astype(dtype)
    for reduction in REDUCTIONS:
        for options in ({}, {"weight": weight}):
            options["label_smoothing"] = smoothing
            loss, dx = answers(x, t, reduction, device=device, **options)
            want, want_dx = torch_answers(x, t, reduction, **options)
            eps = float(np.finfo(dtype).eps)
            assert_close(loss, want, 60 * eps * np.abs(want))
            assert not dx[rows].any()
            if ignored < 40:
                assert_close(dx, want_dx, 40 * eps)
    if ignored == 40:  # nothing is left: a mean over nothing, but no gradient
        assert np.isnan(answers(x, t, "mean", device=device)[0])
        assert answers(x, t, "sum", device=device)[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("classes", [3, 10, 40, 1000])
def test_an_ignored_row_counts_for_nothing_whatever_it_holds(
    dtype: str, bad: float, classes: int, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal((5, classes)).astype(dtype)
    t = rng.integers(0, classes, 5)
    t[2] = -100
    clean = [answers(x, t, reduction, device=device) for reduction in REDUCTIONS]
    x[2] = bad
    for reduction, (want, want_dx) in zip(REDUCTIONS, clean, strict=True):
        loss, dx = answers(x, t, reduction, device=device)
        assert_same_bits(loss, want, what=reduction)
        assert_same_bits(dx, want_dx, what=reduction)
        assert not dx[2].any()


def test_a_mean_over_nothing_is_nan(device: Device) -> None:
    for shape, rows in (((0, 4), (0,)), ((2, 4, 0), (2, 0))):
        x, t = np.zeros(shape, "f4"), np.zeros(rows, np.int64)
        assert np.isnan(answers(x, t, "mean", device=device)[0])
        assert answers(x, t, "sum", device=device)[0] == 0
        assert answers(x, t, "none", device=device)[0].shape == rows
        q = np.zeros(shape, "f4")
        assert np.isnan(answers(x, q, "mean", device=device)[0])
        assert answers(x, q, "sum", device=device)[1].shape == shape
    x, t = np.zeros((3, 4)), np.array([1, 1, 1])  # all that count have weight 0
    assert np.isnan(device.ops.cross_entropy(x, t, weight=np.array([1.0, 0.0, 1.0, 1.0])))


# ---- infinities and NaN ---------------------------------------------------------------------


def _edge_rows(classes: int) -> Array:
    x = np.tile(np.linspace(-2, 2, classes), (9, 1))
    x[1, 1:] = -INF  # certain of class 0
    x[2, 0] = -INF  # the target is impossible
    x[3, 2] = -INF
    x[4] = -INF
    x[5, 1] = NAN
    x[6, 1] = INF
    x[7] = 1e38
    x[8] = -1e38
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [3, 10, 33, 1000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_infinities_and_nan_follow_torch(
    dtype: str, classes: int, smoothing: float, device: Device, isa: str
) -> None:
    x, t = _edge_rows(classes).astype(dtype), np.zeros(9, np.int64)
    loss, dx = answers(x, t, "none", device=device, label_smoothing=smoothing)
    want, want_dx = torch_answers(x, t, "none", label_smoothing=smoothing)
    eps = float(np.finfo(dtype).eps)
    assert_close(loss, want, 40 * eps * np.nan_to_num(np.abs(want), posinf=0), what="loss")
    assert_close(dx, want_dx, 60 * eps, what="gradient")
    for reduction in ("mean", "sum"):
        loss, _ = answers(x, t, reduction, device=device, label_smoothing=smoothing)
        assert np.isnan(loss)
        fine, _ = answers(x[[0, 1, 3, 7]], t[:4], reduction, device=device)
        assert np.isfinite(fine)


@pytest.mark.parametrize("position", [0, 1, 15, 16, 31, 32, 39])
def test_nan_anywhere_in_a_row_reaches_its_loss_and_gradient(
    position: int, device: Device, isa: str
) -> None:
    x, t = np.zeros((4, 40), "f4"), np.array([0, 1, 2, 3])
    x[1, position] = NAN
    loss, dx = answers(x, t, "none", device=device)
    assert np.isnan(loss).tolist() == [False, True, False, False]
    assert np.isnan(dx).any(axis=1).tolist() == [False, True, False, False]
    assert np.isnan(dx[1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_shares_that_are_no_distribution_follow_torch(
    dtype: str, device: Device, rng: np.random.Generator
) -> None:
    x, q = (rng.standard_normal((6, 11)).astype(dtype) for _ in range(2))  # negative ones too
    for reduction in REDUCTIONS:
        loss, dx = answers(x, q, reduction, device=device)
        want, want_dx = torch_answers(x, q, reduction)
        eps = 200 * float(np.finfo(dtype).eps)
        assert_close(loss, want, eps)
        assert_close(dx, want_dx, eps)


# ---- layouts, threads, out ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(13, 33), (5, 7, 3), (3, 1000)], ids=str)
@pytest.mark.parametrize("shares", [False, True])
def test_any_layout_gives_the_same_bits(
    shape: tuple[int, ...], dtype: str, shares: bool, device: Device, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    x = rng.standard_normal(shape).astype(dtype)
    t: Any = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    if shares:
        t = rng.random(shape).astype(dtype)
    w = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    g = rng.standard_normal((shape[0], *shape[2:])).astype(dtype)
    want = device.ops.cross_entropy_value_and_grad(x, t, w)
    want_dx = device.ops.cross_entropy_backward(g, x, t, w, reduction="none")
    moved = device.layouts(w)
    gapped = moved.get("gapped", moved["offset 3"])
    target_layouts = device.layouts(t) if shares else {}
    grad_layouts, there, slope = device.layouts(g), device.put(t), device.put(g)
    for name, form in device.layouts(x).items():
        target = target_layouts.get(name, there)
        got = tg.cross_entropy_value_and_grad(form, target, gapped)
        assert_same_bits(got[0], want[0], what=name)
        assert_same_bits(got[1], want[1], what=name)
        dy = grad_layouts.get(name, slope)
        dx = tg.cross_entropy_backward(dy, form, target, gapped, reduction="none")
        assert_same_bits(dx, want_dx, what=name)


@pytest.mark.cpu_only("its threads; alignment is in test_any_layout_gives_the_same_bits")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3001, 10), (211, 1000), (5, 32000), (67, 33, 9)], ids=str)
def test_bits_depend_neither_on_threads_nor_on_alignment(
    shape: tuple[int, ...], dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype(dtype)
    t = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    w = rng.uniform(0.5, 2, shape[1]).astype(dtype)
    tg.set_num_threads(1)
    want = [tg.cross_entropy_value_and_grad(x, t, w, reduction=r) for r in ("mean", "none")]
    for threads in (1, 2, 3, 4):
        tg.set_num_threads(threads)
        moved = aligned(x, threads)
        for r, (loss, dx) in zip(("mean", "none"), want, strict=True):
            got, got_dx = tg.cross_entropy_value_and_grad(moved, t, aligned(w, 3), reduction=r)
            assert_same_bits(got, loss, what=f"{threads} threads")
            assert_same_bits(got_dx, dx, what=f"{threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(13, 33), (4, 5, 3), (7,), (2, 1000)], ids=str)
def test_out_receives_the_result_and_nothing_beside_it_changes(
    shape: tuple[int, ...], dtype: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    axis = min(1, len(shape) - 1)
    rows = shape[:axis] + shape[axis + 1 :]
    x = device.put(frozen(rng.standard_normal(shape).astype(dtype)))
    t = device.put(frozen(np.asarray(rng.integers(0, shape[axis], rows))))
    for reduction in REDUCTIONS:
        g = device.put(np.ones(rows, dtype)) if reduction == "none" else 1.0
        loss, dx = tg.cross_entropy_value_and_grad(x, t, reduction=reduction)
        with device.guarded_out(rows if reduction == "none" else (), dtype, offset=1) as out:
            assert tg.cross_entropy(x, t, reduction=reduction, out=out) is out
            assert_same_bits(out, loss)
        with device.guarded_out(shape, dtype, offset=3) as out:
            assert tg.cross_entropy_backward(g, x, t, reduction=reduction, out=out) is out
            assert_same_bits(out, dx)


def test_out_that_overlaps_in_part_is_refused(device: Device, rng: np.random.Generator) -> None:
    memory = device.put(rng.standard_normal(5 * 8))
    x, out = memory[:32].reshape(4, 8), memory[4:36].reshape(4, 8)
    before, t = memory.copy(), device.put(np.array([0, 1, 2, 3]))
    with error(ValueError, "cross_entropy_backward", "out", "overlap"):
        tg.cross_entropy_backward(1.0, x, t, out=out)
    with error(ValueError, "cross_entropy", "out", "overlap"):
        tg.cross_entropy(x, t, reduction="none", out=memory[2:6])
    assert_same_bits(memory, before)


def test_wrt_of_class_indices_names_the_input_alone(
    device: Device, rng: np.random.Generator
) -> None:
    x, t = device.put(rng.standard_normal((3, 4))), device.put(np.array([0, 1, 2]))
    dx = tg.cross_entropy_backward(1.0, x, t)
    assert_same_bits(tg.cross_entropy_backward(1.0, x, t, wrt="input"), dx)
    (alone,) = tg.cross_entropy_backward(1.0, x, t, wrt=("input",))
    assert_same_bits(alone, dx)
    for wrt, part in (
        ("target", "class indices have no gradient"),
        (("input", "target"), "class indices have no gradient"),
        ("weight", "'weight'"),
    ):
        with error(ValueError, "cross_entropy_backward", "wrt", part):
            tg.cross_entropy_backward(1.0, x, t, wrt=wrt)
