# SPDX-License-Identifier: MIT
"""What each kernel's opening comment says of its memory accesses, held to the trace.

On aligned shapes a global access costs as few sectors as it can (ratio 1.0) and a shared one no
bank conflict. An exception has its cost in the comment and in intent_cases.py. No kernel races or
leaves its buffers under any of three schedules.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tilegrad as tg
from intent_cases import CASES, FLOATS, TILED, Case, Excuse, on_sim, targets
from tilegrad import _trace_lines, backends, nn
from tilegrad._recorder import Recorder

SCHEDULES = ("forward/eager", "reverse/lazy", "random:7")


@pytest.fixture(autouse=True, scope="module")
def _compute_capability_9() -> Iterator[None]:
    sim = backends.at(backends.SIM)
    major, minor = sim.properties(backends.SIM)["compute_capability"]
    sim._set_compute_capability(90)
    yield
    sim._set_compute_capability(10 * major + minor)


def code_of(site: tg.sim.Site) -> str:
    return _trace_lines.source(site.file)[site.line - 1]


def excuse_for(case: Case, site: tg.sim.Site) -> Excuse | None:
    for each in case.exceptions:
        lines = [code_of(site), site.op]
        lines += [
            _trace_lines.source(caller.file)[caller.line - 1]
            for caller in site.callers
            if caller.file.startswith("csrc/cuda/")
        ]
        if site.space == each.space and any(each.code in line for line in lines):
            return each
    return None


@pytest.mark.parametrize("case", CASES, ids=str)
def test_accesses_are_as_intended(case: Case) -> None:
    with tg.sim.trace("forward/eager") as t:
        case.call()
    assert any(case.kernel in launch.kernel for launch in t.launches), t.launches
    assert t.sites
    assert not t.races, t
    assert not t.out_of_bounds, t
    used = set()
    for site in t.sites:
        excused = None if site.ratio == 1.0 else excuse_for(case, site)
        if excused is not None:
            used.add(excused)
        expected = 1.0 if excused is None else excused.ratio
        assert site.ratio == pytest.approx(expected), f"{tg.sim.where(site)}: {code_of(site)}\n{t}"
    assert used == set(case.exceptions), f"an exception is gone\n{t}"
    for each in case.exceptions:
        text = " ".join(
            line.lstrip("/ ") for line in _trace_lines.source(f"csrc/cuda/{each.file}")[:24]
        )
        assert each.comment in text, f"csrc/cuda/{each.file} does not say: {each.comment}"


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_neither_race_nor_leave_their_buffers(case: Case, schedule: str) -> None:
    with tg.sim.trace(schedule) as t:
        case.call()
    assert t.launches
    assert not t.races, t
    assert not t.out_of_bounds, t


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_odd_shapes_neither_race_nor_leave_their_buffers(dtype: str, schedule: str) -> None:
    with tg.sim.trace(schedule) as t:
        x = on_sim(7, 131, dtype=dtype)
        tg.gelu_backward(x, x)
        tg.softmax(x, -1)
        tg.log_softmax_backward(x, x, 0)
        tg.cross_entropy_value_and_grad(x, targets(7, 131))
        if dtype != "float16":
            tg.ctc_loss_value_and_grad(x, targets(3, 131), (7,), (3,))
            tg.nll_loss_value_and_grad(x, targets(7, 131))
            tg.multi_margin_loss_value_and_grad(x, targets(7, 131))
            tg.multilabel_margin_loss_value_and_grad(x, targets((7, 131), 131))
            tg.multilabel_soft_margin_loss_value_and_grad(x, x, wrt=("input", "target"))
            tg.triplet_margin_loss_value_and_grad(x, x, x, p=1.5, swap=True)
            tg.cosine_embedding_loss_value_and_grad(x, x, targets(7, 2))
        tg.matmul(x, x, transpose_b=True)
        tg.linear_backward(on_sim(7, 5, dtype=dtype), x, on_sim(5, 131, dtype=dtype))
        for variant in ("naive", "coalesced", "shared", *TILED):
            tg.matmul(x, x, transpose_a=True, variant=variant)
        if dtype != "float64":
            tg.matmul(x, x, transpose_a=True, variant="tensor_core")
        if dtype == "float16":  # copies of both operands; pieces of k
            tg.matmul(on_sim(263, 67, dtype=dtype), on_sim(67, 259, dtype=dtype))
            tg.matmul(on_sim(9, 1000, dtype=dtype), on_sim(1000, 264, dtype=dtype))
        if dtype == "float32":
            tg.matmul(x, x, transpose_a=True, variant="tf32x3")
            tg.matmul(x[:4], x[:4], transpose_a=True, variant="hopper_tf32")
    assert len(t.launches) > 12
    assert not t.races, t
    assert not t.out_of_bounds, t


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_makes_one_pass_for_the_bias_gradient_of_each_layer(dtype: str) -> None:
    """Three layers: 3 products forward, 5 backward; dz of the lower two leaves a product."""
    layers = ((40, 32, "relu"), (32, 32, "gelu"), (32, 10, None))
    model = nn.Sequential(*(nn.Linear(i, o, activation=f, dtype=dtype) for i, o, f in layers))
    model.to("sim")
    with tg.sim.trace() as t:
        recorder = Recorder(backends.SIM)
        x, dy = (recorder.empty((128, n), model[0].weight.dtype) for n in (40, 10))
        _, backward = model._record(recorder, x)
        backward(dy, False)
        recorder.plan.run((), False)
    names = [launch.kernel.partition("<")[0] for launch in t.launches]
    counts = {
        what: sum(what in name for name in names)
        for what in ("matmul", "sum_axis", "bias_gradient", "activation")
    }
    assert counts == {"matmul": 8, "sum_axis": 3, "bias_gradient": 0, "activation": 0}
