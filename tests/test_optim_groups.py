# SPDX-License-Identifier: MIT
"""Parameter groups: options, names and rates of their own, added later, in recorded steps too."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, host
from optim_cases import NAMES, SHAPES, Pair
from test_train_step import LongForm, assert_same_run, batches
from tilegrad import nn


@pytest.fixture(params=["float32", "float64"])
def pair(request: pytest.FixtureRequest, device: Device) -> Pair:
    return Pair(SHAPES, request.param, device)


OWN_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}],
    "Adam": [{"betas": (0.5, 0.9)}, {"amsgrad": True, "eps": 1e-3}],
    "AdamW": [{"betas": (0.5, 0.9)}, {"amsgrad": True, "eps": 1e-3}],
    "RMSprop": [{"alpha": 0.5, "momentum": 0.5}, {"centered": True, "eps": 1e-2}],
    "Adagrad": [{"lr_decay": 0.5}, {"eps": 0.1}],
}


@pytest.mark.parametrize("name", NAMES)
def test_groups_have_options_of_their_own(pair: Pair, name: str) -> None:
    def groups(params: list[Any]) -> list[dict[str, Any]]:
        first, second = OWN_OPTIONS[name]
        return [
            {"params": params[:2], "lr": 0.3, **first},
            {"params": params[2:4], "weight_decay": 0.4, **second},
            {"params": params[4:], "maximize": True},
        ]

    ours = getattr(tg.optim, name)(groups(pair.ours), lr=0.02)
    theirs = getattr(torch.optim, name)(groups(pair.theirs), lr=0.02)
    for _ in range(25 if pair.device.name == "cpu" else 6):
        pair.gradients()
        ours.step()
        theirs.step()
        pair.check()


@pytest.mark.parametrize("name", NAMES)
def test_group_may_be_one_parameter_and_may_be_added_later(pair: Pair, name: str) -> None:
    ours = getattr(tg.optim, name)([{"params": pair.ours[0]}], lr=0.1)
    theirs = getattr(torch.optim, name)([{"params": pair.theirs[0]}], lr=0.1)
    for step in range(6):
        if step == 3:
            ours.add_param_group({"params": pair.ours[1:], "lr": 0.7})
            theirs.add_param_group({"params": pair.theirs[1:], "lr": 0.7})
        pair.gradients()
        ours.step()
        theirs.step()
        pair.check()


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_moves_the_rate_of_every_group(pair: Pair, name: str) -> None:
    sides = []
    for module, params in ((tg.optim, pair.ours), (torch.optim, pair.theirs)):
        made = getattr(module, name)(
            [{"params": params[:2], "lr": 0.3}, {"params": params[2:], "lr": 0.05}]
        )
        sides.append((made, module.lr_scheduler.ExponentialLR(made, 0.8)))
    for _ in range(6):
        pair.gradients()
        for made, schedule in sides:
            made.step()
            schedule.step()
        pair.check()
        assert sides[0][1].get_last_lr() == pytest.approx(sides[1][1].get_last_lr(), rel=1e-12)


def test_every_group_starts_from_its_own_accumulator(device: Device) -> None:
    """torch takes the constructor's value for all groups."""
    one, other = (nn.Parameter(device.put(np.ones(3))) for _ in range(2))
    groups = [{"params": [one]}, {"params": [other], "initial_accumulator_value": 15.0}]
    optimiser = tg.optim.Adagrad(groups, lr=1.0, initial_accumulator_value=3.0, eps=0)
    for p in (one, other):
        p.grad = np.ones(3)
    optimiser.step()
    assert host(one.data).tolist() == [0.5] * 3  # 1 - 1 / sqrt(3 + 1)
    assert host(other.data).tolist() == [0.75] * 3  # 1 - 1 / sqrt(15 + 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_step_has_groups_too(name: str) -> None:
    first, second = OWN_OPTIONS[name]
    runs = []
    for kind in (tg.TrainStep, LongForm):
        tg.manual_seed(4)
        model = nn.Sequential(nn.Linear(12, 140, activation="tanh"), nn.Linear(140, 5))
        optimizer = getattr(tg.optim, name)(
            [{"params": [model[0].weight], "lr": 0.02, **first},
             {"params": list(model[1].parameters()), **second}],
            lr=0.01,
        )  # fmt: skip
        schedule = tg.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        step, losses = kind(model, nn.CrossEntropyLoss(), optimizer), []
        for i, (x, t) in enumerate(batches()):
            if i == 8:  # a bias that was not trained so far
                optimizer.add_param_group({"params": model[0].bias, "l1_decay": 0.01})
            losses.append(step(x, t))
            schedule.step()
        runs.append((model, optimizer, losses))
    assert_same_run(*runs)
    assert [group["lr"] for group in runs[0][1].param_groups] == [
        0.02 * 2**-8,
        0.01 * 2**-8,
        0.01 * 2**-6,
    ]


# ---- names --------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def test_named_parameters_keep_their_names_as_in_torch() -> None:
    model = network()
    twin = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    ours = tg.optim.SGD(model.named_parameters(), 0.1)
    theirs = torch.optim.SGD(twin.named_parameters(), 0.1)
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert ours.param_groups[0]["param_names"] == theirs.param_groups[0]["param_names"] == names
    assert [id(p) for p in ours.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert ours.state_dict()["param_groups"][0]["param_names"] == names
    again = tg.optim.SGD(network().named_parameters(), 0.7)
    again.load_state_dict(ours.state_dict())
    assert again.param_groups[0]["lr"] == 0.1
    unnamed = tg.optim.SGD(network().parameters(), 0.7)
    unnamed.load_state_dict(ours.state_dict())
    assert "param_names" not in unnamed.param_groups[0]
    assert "0.weight" not in repr(ours)


def test_the_state_of_other_names_is_refused() -> None:
    ours = tg.optim.SGD(network().named_parameters(), 0.1)
    state = copy.deepcopy(ours.state_dict())
    state["param_groups"][0].update(param_names=["a", "b", "c", "d"], lr=3.0)
    with pytest.raises(ValueError, match=r"SGD.load_state_dict: .*'0\.weight'.*got \['a'"):
        ours.load_state_dict(state)
    assert ours.param_groups[0]["lr"] == 0.1


def test_names_are_for_all_parameters_and_differ() -> None:
    p, q, r = (nn.Parameter(np.zeros(2)) for _ in range(3))
    make = tg.optim.SGD
    cases: list[tuple[Any, type[Exception], str]] = [
        ([("a", p), q], ValueError, r"names or none; got \['a'\]"),
        ([("a", p), ("a", q)], ValueError, "name was given twice; 'a'"),
        ([{"params": [("a", p)]}, {"params": [("a", q)]}], ValueError, "twice; 'a'"),
        ([{"params": [("a", p)]}, {"params": [q]}], ValueError, "got one without"),
        ([{"params": [p]}, {"params": [("b", q)]}], ValueError, "got one with them"),
        ([("a", p), ("b", p)], ValueError, "a parameter was given twice"),
        ([("a", 3.0)], TypeError, r"takes Parameters, such as model.parameters\(\); got float"),
        ([{"params": {p, q}}], TypeError, "ordered, .* a set"),
    ]
    for params, error, text in cases:
        with pytest.raises(error, match=f"SGD: .*{text}"):
            make(params, 0.1)
    optimiser = make([("a", p)], 0.1)
    with pytest.raises(ValueError, match="without"):
        optimiser.add_param_group({"params": q})
    optimiser.add_param_group({"params": [("b", r)]})
    assert [group["param_names"] for group in optimiser.param_groups] == [["a"], ["b"]]
