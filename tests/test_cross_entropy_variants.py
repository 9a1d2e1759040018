# SPDX-License-Identifier: MIT
"""Which rung of the cross-entropy ladder may be named for what: no rung stands in for another."""

from __future__ import annotations

import math

import numpy as np
import pytest

import tilegrad as tg
from helpers import Device, assert_same_bits, error
from test_cross_entropy import OPTIONS, Problem
from test_cross_entropy_ladder import RUNGS, check, run
from tilegrad import backends

pytestmark = pytest.mark.not_on_cpu("the ladder is the GPU's")


def test_an_unknown_rung_is_refused_by_name(device: Device) -> None:
    x, t = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    with error(ValueError, "cross_entropy", "variant", "nope", *RUNGS, "cluster", "columns"):
        run(device, x, t, "nope", "mean")
    with error(ValueError, "cross_entropy_value_and_grad", "variant", "''"):
        run(device, x, t, "", "mean")


def test_without_clusters_a_block_has_the_row(
    device: Device, compute_capability: int, rng: np.random.Generator
) -> None:
    problem = Problem(rng, (2, 60_000), "float32", **OPTIONS["all"])
    arguments = (problem.logits, problem.target)
    place = backends.place_of(device.name)
    major, minor = backends.at(place).properties(place)["compute_capability"]
    if major >= 9:
        check(device, problem, "cluster", "60000 classes")
        return
    want = run(device, *arguments, "block_row", "mean", **problem.options)
    got = run(device, *arguments, None, "mean", **problem.options)
    assert_same_bits(got[0], want[0])
    assert_same_bits(got[1], want[1])
    with error(ValueError, "cross_entropy", "'cluster' needs compute capability 9.0", "block_row",
               f"got {major}.{minor}"):  # fmt: skip
        run(device, *arguments, "cluster", "mean", **problem.options)


def test_a_row_that_does_not_fit_is_refused_or_read_twice(device: Device) -> None:
    x, t = np.zeros((1, 100_000), np.float32), np.array([7])
    with error(ValueError, "cross_entropy", "one_pass", "block_row", "100000"):
        run(device, x, t, "one_pass", "mean")
    x = np.zeros((1, 426_000), np.float32)  # no cluster holds it
    loss, dx = run(device, x, t, None, "mean")
    same, same_dx = run(device, x, t, "block_row", "mean")
    assert float(loss) == pytest.approx(math.log(426_000), rel=1e-6)
    assert_same_bits(loss, same)
    assert_same_bits(dx, same_dx)
    with error(ValueError, "cross_entropy", "'cluster' holds at most", "block_row", "got 426000"):
        run(device, x, t, "cluster", "mean")


@pytest.mark.parametrize("rung", [*RUNGS, "cluster"])
def test_a_rung_of_rows_refuses_classes_that_lie_apart(device: Device, rung: str) -> None:
    x, t = device.put(np.zeros((2, 5, 3), np.float32)), device.put(np.zeros((2, 3), np.int64))
    with error(
        ValueError, "cross_entropy", f"'{rung}' reads rows", "'columns'", "3 elements apart"
    ):
        tg.cross_entropy_value_and_grad(x, t, variant=rung)


def test_columns_reads_rows_too(device: Device, rng: np.random.Generator) -> None:
    check(device, Problem(rng, (5, 33), "float32", **OPTIONS["all"]), "columns", "rows")


def test_the_cpu_has_no_ladder() -> None:
    x, t = np.zeros((2, 3)), np.zeros(2, np.int64)
    with error(ValueError, "cross_entropy", "the cpu has no variants", "one_pass"):
        tg.cross_entropy_value_and_grad(x, t, variant="one_pass")
