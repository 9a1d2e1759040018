# SPDX-License-Identifier: MIT
"""The ladder of cross-entropy kernels: every rung keeps the whole contract."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, aligned, assert_close, assert_same_bits
from test_cross_entropy import OPTIONS, Problem
from tilegrad import reference as ref

INF, NAN = math.inf, math.nan
RUNGS = ("three_pass", "online_warp", "block_row", "one_pass")  # of rows; cluster: at the end
REDUCTIONS = ("none", "mean", "sum")
# Around a warp, its packets of 16 bytes, what registers hold (512 floats) and a block's round.
CLASSES = (1, 2, 10, 31, 32, 33, 127, 128, 129, 512, 516, 1000, 1025, 4097)
LONG = 9001  # of float32 more than 32 KB: a row in shared memory with 512 threads

pytestmark = pytest.mark.not_on_cpu("the ladder is the GPU's")
every_rung = pytest.mark.parametrize("rung", [None, *RUNGS])
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def reader(rung: str | None, x: Array) -> str | None:
    """Return the rung, or where the classes lie apart the one that reads them."""
    return "columns" if x.ndim > 2 and rung in RUNGS else rung


def run(
    device: Device, x: Array, t: Array, rung: str | None, reduction: str, **options: Any
) -> tuple[Array, Array]:
    if options.get("weight") is not None:
        options["weight"] = device.put(options["weight"])
    loss, dx = tg.cross_entropy_value_and_grad(
        device.put(x), device.put(t), reduction=reduction, variant=reader(rung, x), **options
    )
    return device.get(loss), device.get(dx)


def check(device: Device, problem: Problem, rung: str | None, what: object) -> None:
    """Compare a rung with the reference in float64, for the gradient of a loss of one."""
    problem.grad_rows = np.ones_like(problem.grad_rows)
    for reduction in REDUCTIONS:
        got, got_dx = run(
            device, problem.logits, problem.target, rung, reduction, **problem.options
        )
        arguments = (problem.logits, problem.target)
        want, want_dx = ref.cross_entropy_value_and_grad(
            *arguments, reduction=reduction, **problem.options
        )
        bound, dx_bound = problem.bounds(reduction)
        assert_close(got, want, bound, what=f"{reduction} loss of {what}")
        assert_close(got_dx, want_dx, dx_bound, what=f"{reduction} gradient of {what}")


@every_rung
@every_dtype
@pytest.mark.parametrize("inner", [1, 3])
def test_every_rung_follows_the_reference(
    device: Device, rung: str | None, dtype: str, inner: int, rng: np.random.Generator
) -> None:
    for classes in CLASSES:
        for rows in (1, 3, 7) if classes < 600 else (3,):
            shape = (rows, classes) if inner == 1 else (rows, classes, inner)
            check(device, Problem(rng, shape, dtype), rung, shape)


@every_rung
@every_dtype
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(7, 10), (5, 33), (3, 516), (2, LONG), (2, 33, 40)], ids=str)
def test_every_rung_has_every_option(
    device: Device,
    rung: str | None,
    dtype: str,
    options: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> None:
    check(device, Problem(rng, shape, dtype, **OPTIONS[options]), rung, options)


@every_rung
@pytest.mark.parametrize("shape", [(5, 33), (3, 1000), (2, 33, 5)], ids=str)
def test_a_common_offset_and_far_logits_lose_nothing(
    device: Device, rung: str | None, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    for options in ("plain", "smoothing", "shares-all"):
        for spread, shift in ((80.0, 0.0), (3.0, 1e4), (3.0, -1e4), (0.0, 1e30)):
            problem = Problem(rng, shape, "float32", spread=spread, shift=shift, **OPTIONS[options])
            check(device, problem, rung, (options, spread, shift))


@every_rung
@pytest.mark.parametrize("shape", [(6, 10), (3, 1000), (3, 70, 5)], ids=str)
def test_16_bit_logits_are_summed_in_float32(
    device: Device, rung: str | None, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = (rng.standard_normal(shape) * 3).astype(np.float16)
    t = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    for reduction in REDUCTIONS:
        got, got_dx = run(device, x, t, rung, reduction)
        want, want_dx = ref.cross_entropy_value_and_grad(x, t, reduction=reduction)
        half = float(np.finfo(np.float16).eps) / 2  # the result is rounded once
        assert got.dtype == got_dx.dtype == np.float16
        assert_close(got, want, 1.01 * half * np.abs(want))
        assert_close(got_dx, want_dx, 1.01 * half * np.abs(want_dx) + 2.0**-25)


@every_rung
@pytest.mark.parametrize("classes", [3, 10, 33, 1000, 4097])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("inner", [1, 3])
def test_infinities_and_nan(
    device: Device, rung: str | None, classes: int, smoothing: float, inner: int
) -> None:
    x = np.tile(np.linspace(-2, 2, classes), (9, 1))
    x[1, 1:] = -INF  # certain of class 0
    x[2, 0] = -INF  # the target is impossible
    x[3, classes // 2] = -INF
    x[4] = -INF
    x[5, classes - 1] = NAN
    x[6, 1] = INF
    x[7] = 1e38
    x[8] = -1e38
    if inner > 1:
        x = np.repeat(x[..., None], inner, axis=-1)
    x = x.astype(np.float32)
    t = np.zeros((9, *x.shape[2:]), np.int32)
    got, got_dx = run(device, x, t, rung, "none", label_smoothing=smoothing)
    want = ref.cross_entropy(x, t, reduction="none", label_smoothing=smoothing)
    want_dx = ref.cross_entropy_backward(
        np.ones(t.shape), x, t, reduction="none", label_smoothing=smoothing
    )
    eps = float(np.finfo(np.float32).eps)
    assert_close(got, want, 80 * eps * (1 + np.nan_to_num(np.abs(want), posinf=0)), what="loss")
    assert_close(got_dx, want_dx, 80 * eps, what="gradient")
    assert np.isnan(got_dx[4:7]).all()
    for reduction in ("mean", "sum"):
        loss, _ = run(device, x, t, rung, reduction, label_smoothing=smoothing)
        assert np.isnan(loss)


@every_rung
@pytest.mark.parametrize("integer", ["int8", "int64", "uint16", "uint64"])
@pytest.mark.parametrize("shape", [(40, 5), (7, 1000), (4, 5, 10)], ids=str)
def test_a_target_out_of_range_gives_nan_and_no_gradient(
    device: Device, rung: str | None, integer: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    t = rng.integers(0, 5, (shape[0], *shape[2:])).astype(integer)
    weight = rng.uniform(0.5, 2, shape[1]).astype(np.float32)
    fine = np.ones(t.size, bool)
    fine[[1, t.size - 2]] = False
    bad = {"int8": -1, "int64": -(2**63), "uint16": 2**16 - 100, "uint64": 2**64 - 100}
    t.flat[[1, t.size - 2]] = bad[integer]
    kept = np.where(fine.reshape(t.shape), t, 0).astype(np.int64)
    kept.flat[~fine] = -100
    for options in ({}, {"weight": weight}):
        for reduction in REDUCTIONS:
            got, got_dx = run(device, x, t, rung, reduction, **options)
            want, want_dx = run(device, x, kept, rung, reduction, **options)
            assert_same_bits(got_dx, want_dx, what="the other rows' gradients")
            if reduction == "none":
                assert np.isnan(got.ravel()[~fine]).all()
                assert_same_bits(got.ravel()[fine], want.ravel()[fine])
            else:
                assert np.isnan(got)
                assert not np.isnan(want)
            rows = np.moveaxis(got_dx, 1, -1).reshape(-1, shape[1])
            assert not rows[~fine].any()
            assert rows[fine].any(axis=1).all()


@every_rung
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("shape", [(5, 10), (5, 1000), (5, 10, 3)], ids=str)
def test_an_ignored_row_counts_for_nothing_whatever_it_holds(
    device: Device, rung: str | None, bad: float, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.standard_normal(shape).astype(np.float32)
    t = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    t[2] = -100
    clean = [run(device, x, t, rung, reduction) for reduction in REDUCTIONS]
    x[2] = bad
    for reduction, (want, want_dx) in zip(REDUCTIONS, clean, strict=True):
        got, got_dx = run(device, x, t, rung, reduction)
        assert_same_bits(got, want)
        assert_same_bits(got_dx, want_dx)
        assert not got_dx[2].any()
    nothing = np.full_like(t, -100)
    assert np.isnan(run(device, x, nothing, rung, "mean")[0])
    assert run(device, x, nothing, rung, "sum")[0] == 0


@every_rung
def test_a_mean_over_nothing_is_nan(device: Device, rung: str | None) -> None:
    for shape, rows in (((0, 4), (0,)), ((2, 4, 0), (2, 0))):
        x = np.zeros(shape, np.float32)
        for t in (np.zeros(rows, np.int64), np.zeros(shape, np.float32)):
            assert np.isnan(run(device, x, t, rung, "mean")[0])
            assert run(device, x, t, rung, "sum")[0] == 0
            assert run(device, x, t, rung, "none")[0].shape == rows


@every_rung
@every_dtype
@pytest.mark.parametrize("shape", [(5, 16), (3, 516), (3, 1032), (2, 12, 6)], ids=str)
@pytest.mark.parametrize("options", ["plain", "all", "shares-all"])
def test_alignment_does_not_change_the_bits(
    device: Device,
    rung: str | None,
    dtype: str,
    shape: tuple[int, ...],
    options: str,
    rng: np.random.Generator,
) -> None:
    problem = Problem(rng, shape, dtype, **OPTIONS[options])
    want, want_dx = run(device, problem.logits, problem.target, rung, "mean", **problem.options)
    buffer = device.put(np.concatenate([np.zeros(1, dtype), problem.logits.ravel()]))
    moved = buffer[1:].reshape(shape)  # a view one element into its buffer
    target, moved_options = problem.target, dict(problem.options)
    if "weight" in moved_options:
        moved_options["weight"] = device.put(moved_options["weight"])
    got, got_dx = tg.cross_entropy_value_and_grad(
        moved, device.put(target), variant=reader(rung, problem.logits), **moved_options
    )
    assert_same_bits(device.get(got), want)
    assert_same_bits(device.get(got_dx), want_dx)


@every_rung
def test_a_row_has_the_same_bits_alone_and_among_others(
    device: Device, rung: str | None, rng: np.random.Generator
) -> None:
    for classes in (10, 33, 129, 1000):
        x = rng.standard_normal((9, classes)).astype(np.float32)
        t = rng.integers(0, classes, 9)
        want, want_dx = run(device, x, t, rung, "none")
        for i in (0, 1, 8):
            got, got_dx = run(device, aligned(x[i : i + 1]), t[i : i + 1], rung, "none")
            assert_same_bits(got[0], want[i])
            assert_same_bits(got_dx[0], want_dx[i])


def test_sums_over_many_rows_take_two_steps(device: Device, rng: np.random.Generator) -> None:
    rows = 2 * 8192 + 77
    for options in ("ignore", "all", "shares"):
        check(device, Problem(rng, (rows, 3), "float32", **OPTIONS[options]), None, options)


# Pieces of 1, 2 and 4 rounds of 8 KB; whole packets and not.
CLUSTERED = (4096, 5001, 12_300)
# Beyond what two blocks hold (26 K floats each): 4 and 8 blocks, then more threads.
LONGEST = {"4 blocks": 53_249, "8 blocks": 106_600, "1024 threads": 262_144}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("options", ["plain", "all", "shares-all"])
def test_a_cluster_holds_a_row(
    device: Device, dtype: str, options: str, rng: np.random.Generator
) -> None:
    for classes in CLUSTERED[:2] if dtype == "float64" else CLUSTERED:
        if dtype != "float16":
            check(device, Problem(rng, (2, classes), dtype, **OPTIONS[options]), "cluster", classes)
            continue
        x = (rng.standard_normal((2, 2 * classes)) * 3).astype(dtype)
        t = rng.integers(0, 2 * classes, 2)
        got, got_dx = run(device, x, t, "cluster", "none")
        want, want_dx = ref.cross_entropy_value_and_grad(x, t, reduction="none")
        assert_close(got, want, 0.51 * float(np.finfo(dtype).eps) * np.abs(want))
        assert_close(got_dx, want_dx, 6e-4 * np.abs(want_dx) + 2.0**-25)


@pytest.mark.parametrize("blocks", LONGEST)
@pytest.mark.simulated("blocks", lambda blocks: blocks != "8 blocks")
def test_a_row_too_long_for_a_block(device: Device, blocks: str, rng: np.random.Generator) -> None:
    classes = LONGEST[blocks]
    options = "plain" if classes == 262_144 else "all"
    problem = Problem(rng, (1, classes), "float32", **OPTIONS[options])
    got, got_dx = run(device, problem.logits, problem.target, None, "sum", **problem.options)
    arguments = (problem.logits, problem.target)
    want = ref.cross_entropy(*arguments, reduction="sum", **problem.options)
    want_dx = ref.cross_entropy_backward(1.0, *arguments, reduction="sum", **problem.options)
    problem.grad_rows = np.ones_like(problem.grad_rows)
    bound, dx_bound = problem.bounds("sum")
    assert_close(got, want, bound)
    assert_close(got_dx, want_dx, dx_bound)


def test_a_cluster_and_rows_that_are_no_numbers(device: Device) -> None:
    """-inf in all of a block's piece, in whole rows; NaN and inf; rows that count for nothing."""
    classes = 5000
    x = np.tile(np.linspace(-2, 2, classes, dtype=np.float32), (10, 1))
    x[1, 1:] = -INF
    x[2, 2560:] = -INF  # the second block's piece
    x[3, :2560] = -INF  # the first one's, with the target
    x[4] = -INF
    x[5, classes - 1] = NAN
    x[6, 1] = INF
    x[7] = 1e30
    x[8] = NAN
    t = np.zeros(10, np.int32)
    t[8], t[9] = -100, classes
    got, got_dx = run(device, x, t, "cluster", "none")
    assert got[8] == 0
    assert np.isnan(got[9])
    assert not got_dx[8:].any()
    want, want_dx = ref.cross_entropy_value_and_grad(x[:8], t[:8], reduction="none")
    eps = float(np.finfo(np.float32).eps)
    assert_close(got[:8], want, 80 * eps * (1 + np.nan_to_num(np.abs(want), posinf=0)))
    assert_close(got_dx[:8], want_dx, 80 * eps)
    t[:] = -100
    assert np.isnan(run(device, x, t, "cluster", "mean")[0])
    loss, dx = run(device, x, t, "cluster", "sum")
    assert loss == 0
    assert not dx.any()


@pytest.mark.parametrize("classes", [4100, 5001])
def test_a_cluster_s_bits_depend_on_the_row_alone(
    device: Device, classes: int, rng: np.random.Generator
) -> None:
    problem = Problem(rng, (2, classes), "float32", **OPTIONS["shares-all"])
    want, want_dx = run(
        device, problem.logits, problem.target, "cluster", "none", **problem.options
    )
    weight = device.put(problem.options.pop("weight"), 2)
    moved = device.put(problem.logits, 1), device.put(problem.target, 3), weight
    got = tg.cross_entropy_value_and_grad(
        *moved, variant="cluster", reduction="none", **problem.options
    )
    assert_same_bits(got[0], want)
    assert_same_bits(got[1], want_dx)
    alone = [operand[1:] for operand in moved[:2]]
    got = tg.cross_entropy_value_and_grad(
        *alone, weight, variant="cluster", reduction="none", **problem.options
    )
    assert_same_bits(device.get(got[0])[0], want[1])
    assert_same_bits(device.get(got[1])[0], want_dx[1])
