# SPDX-License-Identifier: MIT
"""descend: it stops when the weights stand still or at the limit, and says which."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from fit_runs import Handmade
from helpers import Device, assert_same_bits, error, host
from tilegrad import nn
from tilegrad.nn import init


def regression(features: int, seed: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, features)) * np.linspace(0.5, 1.5, features)
    y = x @ rng.standard_normal((features, 1)) + 0.7 + 0.1 * rng.standard_normal((40, 1))
    return x, y


def linear(features: int, device: str = "cpu", dtype: str = "float64") -> nn.Linear:
    layer = nn.Linear(features, 1, dtype=dtype)
    init.zeros_(layer.weight)
    init.zeros_(layer.bias)
    layer.to(device)
    return layer


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> tg.optim.SGD:
    return tg.optim.SGD(model.parameters(), lr, **options)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-9])
@pytest.mark.parametrize("features", [1, 4])
def test_linear_regression_ends_at_the_closed_form(
    features: int, tolerance: float, device: Device
) -> None:
    x, y = regression(features)
    columns = np.hstack([x, np.ones((40, 1))])
    want = np.linalg.lstsq(columns, y, rcond=None)[0].ravel()
    model = linear(features, device.name)
    result = tg.descend(model, nn.MSELoss(), sgd(model), x, y, tolerance=tolerance)
    assert result.converged
    assert result.change < tolerance
    assert 10 < result.iterations == len(result.losses) < 10_000
    got = np.append(host(model.weight.data).ravel(), host(model.bias.data))
    # The error shrinks by r in each update, r the largest |1 - lr e| of the Hessian's eigenvalues
    # e. So what is left to go is at most r / (1 - r) times the last step of all weights together.
    rate = np.abs(1 - 0.1 * np.linalg.eigvalsh(2 * columns.T @ columns / 40)).max()
    left = tolerance * math.sqrt(features + 1) * rate / (1 - rate)
    assert np.linalg.norm(got - want) <= left + 1e-12
    assert np.linalg.norm(got - want) > left * 1e-6, "it went on although the weights stood still"
    assert str(result.iterations) in result.message
    assert result.message.startswith(f"converged after {result.iterations} updates")
    assert all(a >= b for a, b in zip(result.losses, result.losses[1:], strict=False))


@pytest.mark.parametrize("wrap", [lambda model: model, Handmade], ids=["plan", "long form"])
def test_it_is_a_loop_of_updates_bit_for_bit(
    wrap: Callable[[nn.Module], nn.Module], device: Device
) -> None:
    x, y = regression(3)
    there = device.put(x), device.put(y)
    for data in ((x, y), there):
        model, other = linear(3, device.name), linear(3, device.name)
        options = {"momentum": 0.9, "nesterov": True}
        result = tg.descend(
            wrap(model), nn.MSELoss(), sgd(model, 0.02, **options), *data, tolerance=1e-3
        )
        step = tg.TrainStep(other, nn.MSELoss(), sgd(other, 0.02, **options))
        losses, change = [], math.inf
        while change >= 1e-3:
            before = [host(p.data).copy() for p in other.parameters()]
            losses.append(float(step(*data)))
            pairs = zip(before, other.parameters(), strict=True)
            change = max(np.abs(host(p.data) - old).max() for old, p in pairs)
        assert len(losses) == result.iterations
        if device.name == "cpu":
            assert losses == result.losses
            assert change == result.change
            for p, q in zip(model.parameters(), other.parameters(), strict=True):
                assert_same_bits(p.data, q.data)
        else:
            np.testing.assert_allclose(losses, result.losses, rtol=1e-12)


def test_the_limit_is_reported(device: Device) -> None:
    x, y = regression(2)
    model = linear(2, device.name)
    result = tg.descend(model, nn.MSELoss(), sgd(model), x, y, max_iterations=4)
    assert (result.converged, result.iterations, len(result.losses)) == (False, 4, 4)
    assert result.change > 1e-6
    assert result.message == (
        f"not converged: the limit, after 4 updates; a weight still changed by {result.change:.3g}"
    )
    more = tg.descend(model, nn.MSELoss(), sgd(model), x, y)  # it goes on from there
    assert more.converged
    assert more.losses[0] < result.losses[-1]


def test_no_tolerance_runs_to_the_limit_even_when_nothing_moves() -> None:
    x, y = regression(1)
    model = linear(1)
    still = tg.descend(model, nn.MSELoss(), sgd(model, 0.0), x, y)
    assert (still.converged, still.iterations, still.change) == (True, 1, 0.0)
    result = tg.descend(model, nn.MSELoss(), sgd(model, 0.0), x, y, tolerance=0.0, max_iterations=7)
    assert (result.converged, result.iterations) == (False, 7)


def test_a_descent_that_leaves_the_numbers_stops_and_says_so(device: Device) -> None:
    x, y = regression(2)
    model = linear(2, device.name)
    with np.errstate(all="ignore"):
        result = tg.descend(model, nn.MSELoss(), sgd(model, 1e30), x, y)
    assert not result.converged
    assert result.iterations < 20
    assert result.message.startswith(f"not converged: stopped after {result.iterations} updates, ")
    assert "(a lower learning rate may help)" in result.message


@pytest.mark.parametrize("parameter", [0, 1])
def test_one_weight_that_is_no_number_is_enough(parameter: int) -> None:
    x, y = regression(2)
    model = linear(2)
    list(model.parameters())[parameter].data[...] = np.nan
    model.requires_grad_(False)  # else one update makes NaN of the others too
    result = tg.descend(model, nn.MSELoss(), sgd(model), x, y)
    assert (result.converged, result.iterations) == (False, 1)
    assert math.isnan(result.change)
    assert "stopped after 1 update, a weight is no longer finite (" in result.message


def test_a_loss_that_is_no_number_is_no_convergence() -> None:
    model = linear(1)
    x, y = regression(1)
    model.requires_grad_(False)  # the weights stand still
    frozen = tg.descend(model, nn.MSELoss(), sgd(model), x, y)
    assert frozen.converged
    y[3] = np.nan
    result = tg.descend(model, nn.MSELoss(), sgd(model), x, y)
    assert (result.converged, result.iterations, result.change) == (False, 1, 0.0)
    assert result.message.startswith("not converged: stopped after 1 update, the loss is nan (")


def test_small_changes_of_bfloat16_count_by_their_master() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, y = (values.astype(bfloat16) for values in regression(1))
    layer = nn.Linear(1, 2, dtype="bfloat16")
    init.ones_(layer.weight)
    classes = (np.asarray(y[:, 0], np.float32) > 0).astype(np.int64)
    optimizer = sgd(layer, 1e-4)
    before = layer.weight.data.copy()
    result = tg.descend(
        layer, nn.CrossEntropyLoss(), optimizer, x, classes, tolerance=1e-7, max_iterations=5
    )
    assert_same_bits(layer.weight.data, before)  # too small a change for 8 bits
    assert not result.converged
    assert 1e-7 < result.change < 1e-3


def test_modes_are_restored() -> None:
    x, y = regression(2)
    model, loss_fn = nn.Sequential(linear(2), nn.Dropout(0.0)), nn.MSELoss().eval()
    model[1].eval()
    tg.descend(model, loss_fn, sgd(model), x, y, max_iterations=2)
    assert [m.training for m in model.modules()] == [True, True, False]
    assert not loss_fn.training


MODEL = linear(2)
X, Y = regression(2)


@pytest.mark.parametrize(
    ("options", "kind", "parts"),
    [
        ({"loss_fn": print}, TypeError, ("loss_fn must be a Module",)),
        ({"tolerance": -1.0}, ValueError, ("tolerance", "-1.0")),
        ({"tolerance": math.nan}, ValueError, ("tolerance", "nan")),
        ({"tolerance": "0"}, TypeError, ("tolerance must be a number", "'0'")),
        ({"max_iterations": 0}, ValueError, ("max_iterations must be at least 1", "0")),
        ({"max_iterations": 1.5}, TypeError, ("max_iterations must be an integer", "1.5")),
        ({"model": nn.ReLU()}, ValueError, ("must have parameters", "ReLU")),
        ({"x": X.astype(np.float32)}, TypeError, ("x must have the parameters' dtype",)),
        ({"optimizer": sgd(linear(2))}, ValueError, ("the optimizer holds none",)),
        ({"loss_fn": nn.MSELoss("none")}, ValueError, ("reduction",)),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], kind: type[Exception], parts: tuple[str, ...]
) -> None:
    given = {"model": MODEL, "loss_fn": nn.MSELoss(), "optimizer": sgd(MODEL), "x": X, "target": Y}
    before = MODEL.weight.data.copy()
    with error(kind, "descend", *parts):
        tg.descend(**{**given, **options})
    assert_same_bits(MODEL.weight.data, before)
