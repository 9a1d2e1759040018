# SPDX-License-Identifier: MIT
"""The memory accesses of fused_mlp's kernels: what test_sim_intent.py asks of every kernel."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest

import tilegrad as tg
from test_sim_intent import (
    SCHEDULES,
    Case,
    _compute_capability_9,  # noqa: F401
    on_sim,
)
from test_sim_intent import test_accesses_are_as_intended as accesses_are_as_intended
from test_sim_intent import test_kernels_neither_race_nor_leave_their_buffers as no_kernel_races


def call(features: tuple[int, ...], rows: int, backward: bool, activation: str = "relu") -> None:
    x = on_sim(rows, features[0], dtype="float16")
    weights = [on_sim(out, into, dtype="float16") for into, out in pairwise(features)]
    biases = [on_sim(out, dtype="float16") for out in features[1:]]
    if not backward:
        tg.fused_mlp(x, weights, biases, activation)
        return
    dy = on_sim(rows, features[-1], dtype="float16")
    tg.fused_mlp_backward(dy, x, weights, biases, activation)


FORWARD = [(16, 16, 16), (32, 32, 32), (64, 64, 64, 64), (128, 128, 128), (64, 32, 48)]
CASES = [
    *(Case(f"{n[0]}", partial(call, n, 400, False), "fused_mlp_kernel") for n in FORWARD),
    Case("backward", partial(call, (64, 64, 64, 64), 400, True), "fused_mlp_backward_kernel"),
    Case(
        "backward of gelu",
        partial(call, (64, 64, 64, 64), 400, True, "gelu"),
        "fused_mlp_backward_kernel",
    ),
    Case("sums", partial(call, (64, 32, 64), 128, True), "fused_mlp_sum_kernel"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_accesses_are_as_intended(case: Case) -> None:
    accesses_are_as_intended(case)


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_neither_race_nor_leave_their_buffers(case: Case, schedule: str) -> None:
    no_kernel_races(case, schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_odd_shapes_neither_race_nor_leave_their_buffers(schedule: str) -> None:
    with tg.sim.trace(schedule) as t:
        for features, activation in (
            ((3, 17, 1), "tanh"),
            ((13, 40, 40, 5), "elu"),
            ((9, 33, 2), "silu"),
        ):
            for backward in (False, True):
                call(features, 131, backward, activation)
    assert not t.races, t
    assert not t.out_of_bounds, t
