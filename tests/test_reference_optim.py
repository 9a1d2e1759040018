# SPDX-License-Identifier: MIT
"""The oracle's optimisers and gradient clipping, step by step against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from oracle_checks import INF, Array, Case, assert_close, rng_for
from tilegrad import reference as ref


def _parameter_and_gradients(seed: int) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 3)), [rng.normal(0, 10.0**-i, (4, 3)) for i in range(10)]


def _torch_steps(make: Callable[..., Any], start: Array, grads: list[Array]) -> Iterator[Array]:
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimiser = make([parameter])
    for grad in grads:
        parameter.grad = torch.tensor(grad)
        optimiser.step()
        yield parameter.detach().numpy().copy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"momentum": 0.5, "dampening": 0.5, "weight_decay": 0.2, "maximize": True},
    ],
)
def test_sgd_matches_torch(seed: int, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    expected = _torch_steps(lambda p: torch.optim.SGD(p, lr=0.1, **options), w, grads)
    buffer = None
    for grad, want in zip(grads, expected, strict=True):
        w, buffer = ref.sgd(w, grad, buffer, lr=0.1, **options)
        assert_close(w, want)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.05, "betas": (0.4, 0.6), "eps": 1e-3},
        {"betas": (0.0, 0.0)},
        {"weight_decay": 0.3},
        {"weight_decay": 0.0},
        {"amsgrad": True},
        {"maximize": True},
        {"amsgrad": True, "maximize": True, "weight_decay": 0.1, "lr": 0.02},
    ],
)
def test_adam_matches_torch(name: str, seed: int, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    expected = _torch_steps(lambda p: make(p, **options), w, grads)
    m, v, top = np.zeros_like(w), np.zeros_like(w), None
    for step, (grad, want) in enumerate(zip(grads, expected, strict=True), start=1):
        w, m, v, top = getattr(ref, name)(w, grad, m, v, step, top, **options)
        assert_close(w, want)
    assert (top is None) == (not options.get("amsgrad", False))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.1, "alpha": 0.3, "eps": 1e-3},
        {"weight_decay": 0.2},
        {"momentum": 0.9},
        {"centered": True},
        {"maximize": True},
        {"alpha": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "maximize": True},
    ],
)
def test_rmsprop_matches_torch(seed: int, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    expected = _torch_steps(lambda p: torch.optim.RMSprop(p, **options), w, grads)
    state: list[Array] = [np.zeros_like(w)] * 3
    for grad, want in zip(grads, expected, strict=True):
        w, *state = ref.rmsprop(w, grad, *state, **options)
        assert_close(w, want)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("start", [0.0, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.2, "lr_decay": 0.3},
        {"weight_decay": 0.2, "eps": 1e-3},
        {"maximize": True},
        {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1, "maximize": True},
    ],
)
def test_adagrad_matches_torch(seed: int, start: float, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    expected = _torch_steps(
        lambda p: torch.optim.Adagrad(p, initial_accumulator_value=start, **options), w, grads
    )
    total = np.full_like(w, start)
    for step, (grad, want) in enumerate(zip(grads, expected, strict=True), start=1):
        w, total = ref.adagrad(w, grad, total, step, **options)
        assert_close(w, want)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("maximize", [False, True])
def test_l1_decay_is_the_slope_of_the_absolute_values(name: str, maximize: bool) -> None:
    """By differences: of f = l1 sum |w|, which is what a gradient of zero leaves of the loss."""
    rng = rng_for(name, maximize)
    w, g = rng.normal(size=(2, 7))
    w[0] = 0.0  # by symmetric differences the slope there is 0
    l1, h = 0.3, 1e-6
    slope = l1 * (np.abs(w + h) - np.abs(w - h)) / (2 * h)
    rest: dict[str, Any] = {
        "sgd": (),
        "adam": (np.zeros(7), np.zeros(7), 1),
        "adamw": (np.zeros(7), np.zeros(7), 1),
        "rmsprop": (np.zeros(7),),
        "adagrad": (np.zeros(7), 1),
    }
    rule, options = getattr(ref, name), {"weight_decay": 0.1, "maximize": maximize}
    got = rule(w, g, *rest[name], l1_decay=l1, **options)[0]
    want = rule(w, g + (-slope if maximize else slope), *rest[name], **options)[0]
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("clip_value", [0.0, 0.5, INF])
def test_clip_grad_value_matches_torch(clip_value: float) -> None:
    grads = [np.array([-2.0, -0.5, 0.0, 0.3, INF, -INF, np.nan]), np.asarray(3.0), np.zeros(0)]
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    torch.nn.utils.clip_grad_value_(parameters, clip_value)
    for got, parameter in zip(ref.clip_grad_value(grads, clip_value), parameters, strict=True):
        assert parameter.grad is not None
        np.testing.assert_array_equal(got, parameter.grad.numpy())


@pytest.mark.parametrize("norm_type", [1.0, 2.0, INF])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
@pytest.mark.parametrize("kind", ["normal", "zero", "inf", "nan"])
def test_clip_grad_norm_matches_torch(norm_type: float, max_norm: float, kind: str) -> None:
    rng = rng_for(norm_type, max_norm, kind)
    grads = [rng.normal(size=shape) for shape in [(3, 4), (5,), ()]]
    grads = [np.asarray(g * (kind != "zero")) for g in grads]
    if kind in ("inf", "nan"):
        grads[1][2] = float(kind)
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    want = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    norm, clipped = ref.clip_grad_norm(grads, max_norm, norm_type)
    assert_close(norm, want.numpy())
    for got, parameter in zip(clipped, parameters, strict=True):
        assert parameter.grad is not None
        assert_close(got, parameter.grad.numpy())


def test_clip_grad_norm_of_nothing_is_zero() -> None:
    for norm_type in (1.0, 2.0, INF):
        norm, clipped = ref.clip_grad_norm([], 1.0, norm_type)
        assert norm == 0
        assert clipped == []
        norm, _ = ref.clip_grad_norm([np.zeros(0), np.full(4, 2.0)], 1.0, norm_type)
        assert norm == {1.0: 8.0, 2.0: 4.0, INF: 2.0}[norm_type]
    with pytest.raises(ValueError, match="norm_type must be 1, 2 or inf; got 3"):
        ref.clip_grad_norm([], 1.0, 3)
