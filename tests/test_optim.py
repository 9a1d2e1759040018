# SPDX-License-Identifier: MIT
"""Optimisers: arithmetic beside torch.optim, groups and gradients that come and go."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tilegrad as tg
from helpers import Device, assert_same_bits, host
from optim_cases import CASES, NAMES, SHAPES, TOLERANCE, Pair
from tilegrad import reference as ref

Array = NDArray[Any]


@pytest.fixture(params=["float32", "float64"])
def pair(request: pytest.FixtureRequest, device: Device) -> Pair:
    return Pair(SHAPES, request.param, device)


def address(x: Any) -> int:
    return x._pointer if isinstance(x, tg.Array) else x.ctypes.data  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_optimiser_follows_torch_for_many_steps(
    pair: Pair, name: str, options: dict[str, Any]
) -> None:
    ours, theirs = pair.optimisers(name, **options)
    before = [p.data.copy() for p in pair.ours]
    for step in range(30 if pair.device.name == "cpu" else 10):
        pair.gradients()
        ours.step()
        theirs.step()
        pair.check(f"after step {step}")
    pairs = zip(before, pair.ours, strict=True)
    moved = [np.array_equal(host(b), host(p.data)) for b, p in pairs if p.size]
    assert all(moved) if options.get("lr") == 0 else not any(moved)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_optimiser_skips_and_resumes_parameters_as_torch(
    pair: Pair, name: str, options: dict[str, Any]
) -> None:
    ours, theirs = pair.optimisers(name, **options)
    count = len(SHAPES)
    for step in range(12):  # parameter i gets its first gradient late and misses some after that
        present = [step >= i and (step + i) % 5 != 4 for i in range(count)]
        frozen = [p.data.copy() for p in pair.ours]
        pair.gradients(present)
        ours.step()
        theirs.step()
        pair.check(f"after step {step}")
        for here, p, old in zip(present, pair.ours, frozen, strict=True):
            assert here or np.array_equal(host(p.data), host(old))


def test_optimiser_takes_a_generator_of_parameters() -> None:
    model = tg.nn.Sequential(tg.nn.Linear(2, 3), tg.nn.Linear(3, 1))
    optimiser = tg.optim.SGD(model.parameters(), 0.1)
    assert [id(p) for p in optimiser.param_groups[0]["params"]] == [
        id(p) for p in model.parameters()
    ]


CHANGES = [
    pytest.param("SGD", {"lr": 0.1}, {"lr": 0.7}, id="lr"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, {"weight_decay": 0.2}, id="decay"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}, id="nesterov"),
    pytest.param("SGD", {"lr": 0.1}, {"momentum": 0.9}, id="momentum-on"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, {"momentum": 0}, id="momentum-off"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, {"dampening": 0.5}, id="dampening"),
    pytest.param("Adam", {"lr": 0.1}, {"lr": 0.01, "betas": (0.8, 0.9)}, id="betas"),
    pytest.param("Adam", {"lr": 0.1}, {"weight_decay": 0.1, "eps": 0.1}, id="eps"),
    pytest.param("AdamW", {"lr": 0.1}, {"maximize": True}, id="maximize"),
    pytest.param("RMSprop", {"momentum": 0.9}, {"momentum": 0}, id="rmsprop-momentum-off"),
    pytest.param("RMSprop", {}, {"alpha": 0.5, "eps": 0.1, "lr": 0.1}, id="rmsprop-alpha"),
    pytest.param("Adagrad", {"lr": 0.1}, {"lr_decay": 0.5, "weight_decay": 0.1}, id="lr_decay"),
]


@pytest.mark.parametrize(("name", "options", "change"), CHANGES)
def test_options_changed_midway_count_from_then_on(
    pair: Pair, name: str, options: dict[str, Any], change: dict[str, Any]
) -> None:
    ours, theirs = pair.optimisers(name, **options)
    for step in range(9):
        for optimiser in (ours, theirs):
            if step == 3:
                optimiser.param_groups[0].update(change)
            if step == 6:
                optimiser.param_groups[0].update(options)
        pair.gradients()
        ours.step()
        theirs.step()
        pair.check(f"after step {step}")


@pytest.mark.parametrize("name", NAMES)
def test_step_without_gradients_changes_nothing(pair: Pair, name: str) -> None:
    ours = getattr(tg.optim, name)(pair.ours, lr=0.5, weight_decay=0.5)
    before = [p.data.copy() for p in pair.ours]
    ours.step()
    pairs = zip(pair.ours, before, strict=True)
    assert all(np.array_equal(host(p.data), host(b)) for p, b in pairs)
    assert not ours.state_dict()["state"]


@pytest.mark.parametrize("name", NAMES)
def test_step_leaves_gradients_and_buffers_where_they_are(pair: Pair, name: str) -> None:
    ours, _ = pair.optimisers(name, lr=0.1)
    pair.gradients()
    kept = [(address(p.data), address(p.grad), p.grad.copy()) for p in pair.ours]
    ours.step()
    for p, (data, grad, values) in zip(pair.ours, kept, strict=True):
        assert (address(p.data), address(p.grad)) == (data, grad)
        assert np.array_equal(host(p.grad), host(values))
    ours.zero_grad()
    assert all(p.grad is None for p in pair.ours)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_is_the_reference_formula(dtype: str, device: Device) -> None:
    rng = np.random.default_rng(3)
    w = rng.standard_normal(40).astype(dtype)
    p = tg.nn.Parameter(device.put(w))
    options = {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "amsgrad": True}
    optimiser = tg.optim.AdamW([p], weight_decay=0.3, **options)
    want, m, v, top = w.astype(np.float64), np.zeros(40), np.zeros(40), None
    for step in range(1, 20):
        g = rng.standard_normal(40).astype(dtype)
        p.grad = g
        optimiser.step()
        want, m, v, top = ref.adamw(want, g, m, v, step, top, weight_decay=0.3, **options)
    bound = {"float32": 2e-6, "float64": 1e-13}[dtype]
    assert np.abs(host(p.data) - want).max() <= bound * np.abs(want).max()


def options_for(name: str) -> dict[str, Any]:
    """Return options with which the optimiser keeps all of its buffers."""
    return {
        "SGD": {"momentum": 0.9},
        "Adam": {"amsgrad": True},
        "AdamW": {"amsgrad": True},
        "RMSprop": {"momentum": 0.9, "centered": True, "eps": 1e-2},
        "Adagrad": {"lr_decay": 0.1},
    }[name]


@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_tensors_of_any_size(name: str, device: Device) -> None:
    """Kernels take their tensors in lists of fixed length; the sizes cross every block's edge."""
    sizes = [*range(40), 127, 128, 129, 255, 257, 1023, 1025, *[5] * 30, 0, 1]
    pair = Pair([(n,) for n in sizes], "float32", device)
    ours, theirs = pair.optimisers(name, lr=0.1, weight_decay=0.1, **options_for(name))
    for _ in range(3):
        pair.gradients()
        norm = tg.nn.utils.clip_grad_norm_(pair.ours, 1.0)
        want = torch.nn.utils.clip_grad_norm_(pair.theirs, 1.0)
        assert float(norm) == pytest.approx(want.item(), rel=1e-6)
        ours.step()
        theirs.step()
        pair.check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_spoils_its_own_weight_only(
    name: str, bad: float, device: Device
) -> None:
    options = {"lr": 0.1, **options_for(name)}
    p, q = (
        tg.nn.Parameter(device.put(np.ones(70))),
        torch.nn.Parameter(torch.ones(70, dtype=torch.float64)),
    )
    g = np.linspace(-1, 1, 70)
    g[33] = bad
    p.grad, q.grad = g, torch.tensor(g)
    getattr(tg.optim, name)([p], **options).step()
    getattr(torch.optim, name)([q], **options).step()
    np.testing.assert_allclose(host(p.data), q.detach().numpy(), rtol=1e-12, equal_nan=True)


def run_all(size: int, dtype: str) -> list[Array]:
    rng = np.random.default_rng(5)
    results = []
    for name, more in itertools.product(NAMES, (False, True)):
        params = [tg.nn.Parameter(rng.standard_normal(n).astype(dtype)) for n in (size, 3, 17)]
        options = {"weight_decay": 0.01, "l1_decay": 0.02, **options_for(name)} if more else {}
        optimiser = getattr(tg.optim, name)(params, lr=0.1, **options)
        for _ in range(3):
            for p in params:
                p.grad = rng.standard_normal(p.size).astype(dtype)
            optimiser.step()
        results += [p.data for p in params]
    return results


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_bits_do_not_depend_on_the_number_of_threads(dtype: str) -> None:
    before = tg.num_threads()
    try:
        results = []
        for n in (1, 2, 3, 4):
            tg.set_num_threads(n)
            results.append(run_all(100_003, dtype))
    finally:
        tg.set_num_threads(before)
    for one, other in itertools.product(results[:1], results[1:]):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_update_agrees_on_every_instruction_set(isa: str, dtype: str) -> None:
    got = run_all(1031, dtype)
    tg._cpu._set_isa("generic")
    for a, b in zip(got, run_all(1031, dtype), strict=True):
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(b).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("beta2", [0.999, 0.9, 1 - 2.0**-30, 0.0])
def test_adam_divides_by_the_correction_with_one_rounding(
    dtype: str, beta2: float, isa: str, rng: np.random.Generator
) -> None:
    """Gradients that are tiny and values of zero leave w = -a / (sqrt(v) / c + eps) to be seen."""
    n = 50_000
    kind = np.dtype(dtype).type
    second = np.concatenate(
        [
            rng.uniform(0.5, 2, n),
            2.0 ** rng.uniform(-120, 120, n),
            [0, np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max],
            [np.inf, np.nan],
        ]
    ).astype(dtype)
    for step in (1, 2, 7, 100, 5000):
        w, v = np.zeros(len(second), dtype), second.copy()
        gradient = np.full(len(second), 2.0**-100, dtype)
        state = tg._cpu.StepState()
        state.learning_rate, state.step = 2.0**100, step
        tg._cpu.adam_step(
            [w],
            [gradient],
            [np.zeros_like(w)],
            [v],
            None,
            0.0,
            beta2,
            1e-8,
            False,
            0.0,
            0.0,
            False,
            state,
        )
        with np.errstate(all="ignore"):
            correction = kind((1 - beta2**step) ** 0.5)
            root = np.sqrt(v)
            want = kind(-1.0) / (root / correction + kind(1e-8))
        assert_same_bits(w, kind(0) + want, what=f"step {step}")
