# SPDX-License-Identifier: MIT
"""State of the optimisers: saving, loading, and everything that they refuse."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tilegrad as tg
from helpers import Device, host
from optim_cases import NAMES

Array = NDArray[Any]
INF, NAN = math.inf, math.nan
SHAPES = [(5,), (4, 3), ()]

OPTIMISERS = [
    pytest.param("SGD", {"lr": 0.1}, id="sgd"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, id="momentum"),
    pytest.param("Adam", {"lr": 0.1, "weight_decay": 0.1}, id="adam"),
    pytest.param("AdamW", {"lr": 0.1, "amsgrad": True}, id="amsgrad"),
    pytest.param("RMSprop", {"lr": 0.1}, id="rmsprop"),
    pytest.param("RMSprop", {"momentum": 0.9}, id="rmsprop-momentum"),
    pytest.param("RMSprop", {"centered": True, "eps": 1e-2}, id="centered"),
    pytest.param("RMSprop", {"momentum": 0.9, "centered": True, "eps": 0.1}, id="rmsprop-all"),
    pytest.param("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}, id="adagrad"),
]


def make_params(dtype: Any = np.float32, device: Device | None = None) -> list[tg.nn.Parameter]:
    rng, put = np.random.default_rng(3), np.asarray if device is None else device.put
    return [tg.nn.Parameter(put(np.asarray(rng.standard_normal(s), dtype))) for s in SHAPES]


def train(optimiser: Any, params: list[tg.nn.Parameter], steps: range) -> None:
    for step in steps:
        rng = np.random.default_rng(step)
        for i, p in enumerate(params):
            g = np.asarray(rng.standard_normal(p.shape), p.dtype)
            p.grad = g if step >= 2 * i else None  # the last one joins late
        optimiser.step()


def snapshot(optimiser: Any) -> Any:
    return copy.deepcopy(optimiser.state_dict())


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.array_equal(host(a), host(b)))


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
@pytest.mark.parametrize("done", [0, 1, 7])
def test_loaded_state_continues_bit_for_bit(
    name: str, options: dict[str, Any], done: int, device: Device
) -> None:
    params = make_params(device=device)
    optimiser = getattr(tg.optim, name)(params, **options)
    train(optimiser, params, range(done))
    saved, weights = snapshot(optimiser), [p.data.copy() for p in params]

    again = make_params(device=device)
    for p, w in zip(again, weights, strict=True):
        p.data = w
    resumed = getattr(tg.optim, name)(again, lr=77.0)
    resumed.load_state_dict(saved)
    assert same(resumed.state_dict(), saved)
    train(optimiser, params, range(done, done + 8))
    train(resumed, again, range(done, done + 8))
    for p, q in zip(params, again, strict=True):
        assert np.array_equal(host(p.data), host(q.data))
    assert same(resumed.state_dict(), optimiser.state_dict())


@pytest.mark.parametrize(("name", "options"), OPTIMISERS)
def test_loaded_state_is_a_copy(name: str, options: dict[str, Any], device: Device) -> None:
    params, again = make_params(device=device), make_params(device=device)
    optimiser = getattr(tg.optim, name)(params, **options)
    train(optimiser, params, range(5))
    resumed = getattr(tg.optim, name)(again, **options)
    resumed.load_state_dict(optimiser.state_dict())
    before = snapshot(resumed)
    train(optimiser, params, range(5, 8))
    optimiser.param_groups[0]["lr"] = 9.0
    assert same(resumed.state_dict(), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), OPTIMISERS[1:])  # torch's SGD counts no steps
def test_state_dict_has_the_form_of_torch(name: str, options: dict[str, Any], dtype: Any) -> None:
    params = make_params(dtype)
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.5}]
    optimiser = getattr(tg.optim, name)(groups, **options)
    train(optimiser, params, range(5))

    twins = [torch.nn.Parameter(torch.tensor(p.data)) for p in params]
    groups = [{"params": twins[:1]}, {"params": twins[1:], "lr": 0.5}]
    theirs = getattr(torch.optim, name)(groups, **options)
    for p, q in zip(params, twins, strict=True):
        q.grad = None if p.grad is None else torch.tensor(p.grad)
    theirs.step()
    ours, form = optimiser.state_dict(), theirs.state_dict()
    assert ours.keys() == form.keys()
    assert ours["state"].keys() == form["state"].keys()
    assert [int(values["step"]) for values in ours["state"].values()] == [5, 3, 1]
    for i, values in form["state"].items():
        assert ours["state"][i].keys() - {"step"} == values.keys() - {"step"}
        for key in values.keys() - {"step"}:
            assert ours["state"][i][key].shape == tuple(values[key].shape)
            assert ours["state"][i][key].dtype == dtype
    for mine, its in zip(ours["param_groups"], form["param_groups"], strict=True):
        assert mine.keys() - its.keys() == {"l1_decay"}
        assert all(mine[key] == its[key] for key in mine.keys() & its.keys())


@pytest.mark.parametrize(("name", "options"), OPTIMISERS[1:])
def test_states_with_other_buffers_than_the_optimisers_are_refused(
    name: str, options: dict[str, Any]
) -> None:
    params = make_params()
    optimiser = getattr(tg.optim, name)(params, **options)
    train(optimiser, params, range(3))
    optional = {"max_exp_avg_sq", "momentum_buffer", "grad_avg"} if name != "SGD" else set()
    before = snapshot(optimiser)
    for key in before["state"][0].keys() - {"step"}:
        changed = _drop(copy.deepcopy(before), "state", 0, key)
        if key in optional:  # made anew, full of zeros, when it is needed
            optimiser.load_state_dict(changed)
            optimiser.load_state_dict(before)
        else:
            with pytest.raises(ValueError, match=rf"parameter 0: buffers must be \[.*'{key}'"):
                optimiser.load_state_dict(changed)
        wrong = _put(copy.deepcopy(before), np.zeros(6, np.float32), "state", 0, key)
        with pytest.raises(ValueError, match=rf"parameter 0: {key} must be \(5,\)"):
            optimiser.load_state_dict(wrong)
        assert same(optimiser.state_dict(), before)
    extra = _put(copy.deepcopy(before), np.zeros(5, np.float32), "state", 0, "colour")
    with pytest.raises(ValueError, match="parameter 0: buffers must be"):
        optimiser.load_state_dict(extra)


def _drop(state: Any, *path: Any) -> Any:
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return state


def _put(state: Any, value: Any, *path: Any) -> Any:
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return state


MISFITS: dict[str, Callable[[Any], Any]] = {
    "empty": lambda s: {},
    "no-state": lambda s: _drop(s, "state"),
    "no-groups": lambda s: _drop(s, "param_groups"),
    "group-lost": lambda s: _put(s, [], "param_groups"),
    "group-added": lambda s: _put(s, s["param_groups"] * 2, "param_groups"),
    "parameter-lost": lambda s: _put(s, [0, 1], "param_groups", 0, "params"),
    "no-params": lambda s: _drop(s, "param_groups", 0, "params"),
    "wrong-shape": lambda s: _put(s, np.zeros(6, np.float32), "state", 0, "exp_avg"),
    "wrong-dtype": lambda s: _put(s, np.zeros(5), "state", 0, "exp_avg_sq"),
    "no-array": lambda s: _put(s, [0.0] * 5, "state", 0, "exp_avg"),
    "unknown-buffer": lambda s: _put(s, np.zeros(5, np.float32), "state", 0, "momentum_buffer"),
    "lost-buffer": lambda s: _drop(s, "state", 1, "exp_avg_sq"),
    "lost-step": lambda s: _drop(s, "state", 1, "step"),
    "negative-step": lambda s: _put(s, -1, "state", 0, "step"),
    "unknown-parameter": lambda s: _put(s, dict(s["state"][0]), "state", 3),
    "illegal-lr": lambda s: _put(s, -1.0, "param_groups", 0, "lr"),
    "illegal-betas": lambda s: _put(s, (0.9, 1.0), "param_groups", 0, "betas"),
    "unknown-option": lambda s: _put(s, 1, "param_groups", 0, "colour"),
    "lost-option": lambda s: _drop(s, "param_groups", 0, "eps"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(misfit: str) -> None:
    params = make_params()
    optimiser = tg.optim.Adam(params, lr=0.1)
    train(optimiser, params, range(6))
    before, bad = snapshot(optimiser), MISFITS[misfit](snapshot(optimiser))
    with pytest.raises((ValueError, TypeError), match="Adam"):
        optimiser.load_state_dict(bad)
    assert same(optimiser.state_dict(), before)
    train(optimiser, params, range(6, 7))  # and it still works


def test_the_state_of_another_optimiser_is_refused() -> None:
    params = make_params()
    sgd, adam = tg.optim.SGD(params, 0.1, momentum=0.9), tg.optim.Adam(params)
    train(sgd, params, range(3))
    train(adam, params, range(3))
    for one, other in ((sgd, adam), (adam, sgd)):
        before = snapshot(one)
        with pytest.raises(ValueError, match=r"load_state_dict"):
            one.load_state_dict(other.state_dict())
        assert same(one.state_dict(), before)


OUT_OF_RANGE = [
    *[
        (n, {option: v})
        for n in NAMES
        for option in ("lr", "weight_decay", "l1_decay")
        for v in (-0.1, NAN, INF)
    ],
    *[("SGD", {"momentum": v}) for v in (-0.1, NAN, INF)],
    *[("SGD", {"momentum": 0.9, "dampening": v}) for v in (NAN, INF)],
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    *[("Adam", {"eps": v}) for v in (-1e-8, NAN, INF)],
    *[("Adam", {"betas": b}) for b in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), (2, 0))],
    *[("RMSprop", {o: v}) for o in ("alpha", "eps", "momentum") for v in (-0.1, NAN, INF)],
    *[
        ("Adagrad", {option: v})
        for option in ("lr_decay", "initial_accumulator_value", "eps")
        for v in (-0.1, NAN, INF)
    ],
    ("AdamW", {"betas": (0.9, 0.9, 0.9)}),
    ("AdamW", {"betas": (0.9,)}),
]


@pytest.mark.parametrize(("name", "options"), OUT_OF_RANGE, ids=str)
def test_illegal_options_are_refused_by_name_and_value(name: str, options: dict[str, Any]) -> None:
    option, value = list(options.items())[-1]
    if options.get("nesterov"):
        option, value = "nesterov needs momentum > 0 and dampening 0", "momentum"
    elif isinstance(value, tuple):  # the pair, or the one of it that is illegal
        value = next((b for b in value if not 0 <= b < 1), value)
    with pytest.raises(ValueError, match=f"^{name}: ") as caught:
        getattr(tg.optim, name)(make_params(), **{"lr": 0.1, **options})
    text = str(caught.value)
    assert text.startswith(f"{name}: {option}")
    assert str(value) in text.partition("got")[2]
    params = make_params()
    with pytest.raises(ValueError, match=f"^{name}: "):  # in a group as well
        getattr(tg.optim, name)([{"params": params, **options}], lr=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_list_of_distinct_parameters_is_refused(name: str) -> None:
    make, (p, q, r) = getattr(tg.optim, name), make_params()
    cases: list[tuple[Any, type[Exception], str]] = [
        ([], ValueError, "no parameters"),
        (iter(()), ValueError, "no parameters"),
        ([p, q, p], ValueError, "twice"),
        ([{"params": [p]}, {"params": [q, p]}], ValueError, "twice"),
        ([p.data], TypeError, "ndarray"),
        ([p, 3.0], TypeError, "float"),
        ([torch.nn.Parameter(torch.zeros(2))], TypeError, "Parameter"),
        (p, TypeError, "Parameter"),
        (tg.nn.Linear(2, 2), TypeError, "Linear"),
        ([{"params": [p], "colour": 1}], ValueError, "colour"),
        ([{"lr": 0.1}], ValueError, "params"),
        ([{"params": [p]}, q], TypeError, "Parameter"),
        ([{"params": ["weight"]}], TypeError, "str"),
    ]
    for params, error, text in cases:
        with pytest.raises(error, match=f"(?s)^{name}: .*{text}"):
            make(params, lr=0.1)
    optimiser = make([q], lr=0.1)
    for group, error in (({"params": [r, q]}, ValueError), ({"params": [r], "lr": -1}, ValueError)):
        with pytest.raises(error, match=f"^{name}: "):
            optimiser.add_param_group(group)
    assert len(optimiser.param_groups) == 1


def test_repr_shows_the_options() -> None:
    assert repr(tg.optim.SGD(make_params(), 0.25, momentum=0.5)) == (
        "SGD(lr=0.25, momentum=0.5, dampening=0, weight_decay=0, nesterov=False, maximize=False, "
        "l1_decay=0)"
    )
    assert repr(tg.optim.RMSprop(make_params())) == (
        "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, weight_decay=0, momentum=0, centered=False, "
        "maximize=False, l1_decay=0)"
    )
    assert repr(tg.optim.Adagrad(make_params())) == (
        "Adagrad(lr=0.01, lr_decay=0, weight_decay=0, initial_accumulator_value=0, eps=1e-10, "
        "maximize=False, l1_decay=0)"
    )
    assert repr(tg.optim.AdamW(make_params(), 0.25)).startswith("AdamW(lr=0.25, betas=(0.9, 0.999)")


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_torchs_order_and_defaults(name: str) -> None:
    ours = inspect.signature(getattr(tg.optim, name)).parameters
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    by_position = [n for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    left_out = {"foreach", "capturable", "differentiable", "fused", "maximize"}
    left_out.add("decoupled_weight_decay")  # that is AdamW
    assert by_position == [n for n in theirs if n not in left_out]
    assert ours.keys() - theirs.keys() == {"l1_decay"}
    for option in ours.keys() - {"params", "l1_decay"}:
        assert ours[option].default == theirs[option].default, option
