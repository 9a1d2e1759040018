# SPDX-License-Identifier: MIT
"""tilegrad.torch: optimisers beside those of torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import tilegrad.torch as tt
from test_torch_modules import Tensor, network, train

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01, "maximize": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.3}),
]
every_optimizer = pytest.mark.parametrize(("name", "options"), OPTIMIZERS)


@every_optimizer
def test_optimizer_is_torchs_and_continues_from_its_state(
    name: str, options: dict[str, Any]
) -> None:
    models = network(), network()
    models[1].load_state_dict(models[0].state_dict())
    made = [
        getattr(where, name)(model.parameters(), **options)
        for where, model in zip((tt, torch.optim), models, strict=True)
    ]
    assert isinstance(made[0], getattr(torch.optim, name))
    for _ in range(2):
        for model, optimizer in zip(models, made, strict=True):
            train(model, optimizer, 5)
        for mine, theirs in zip(*(m.parameters() for m in models), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-6)
        states = [optimizer.state_dict() for optimizer in made]
        assert states[0]["state"].keys() == states[1]["state"].keys()
        for i, entries in states[1]["state"].items():
            assert states[0]["state"][i].keys() == entries.keys()
        made[0].load_state_dict(states[1])
        made[1].load_state_dict(states[0])


def test_optimizer_groups_schedules_closures_and_missing_gradients() -> None:
    model = network()
    groups = [{"params": model[1].parameters(), "lr": 0.5}, {"params": model[5].parameters()}]
    optimizer = tt.SGD(groups, lr=0.25)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    model[1].weight.grad = torch.ones_like(model[1].weight)
    model[5].bias.grad = torch.ones_like(model[5].bias)
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3
    schedule.step()
    optimizer.step()
    after = [p.detach() for p in model.parameters()]
    moved = [float((p - q).mean()) for p, q in zip(before, after, strict=True)]
    assert moved == pytest.approx([0.75, 0, 0, 0, 0.375])


@pytest.mark.parametrize(
    ("parameter", "error", "text"),
    [
        (torch.ones(3, dtype=torch.bfloat16), TypeError, "float32 or float64"),
        (torch.ones(3, 4).t(), ValueError, "contiguous"),
    ],
)
def test_optimizer_refuses(parameter: Tensor, error: type[Exception], text: str) -> None:
    leaf = nn.Parameter(parameter)
    leaf.grad = torch.ones_like(leaf)
    before = leaf.detach().clone()
    with pytest.raises(error, match=text):
        tt.Adam([leaf]).step()
    assert torch.equal(leaf, before)


def test_optimizer_refuses_sparse_gradients() -> None:
    leaf = nn.Parameter(torch.ones(3, 2))
    leaf.grad = torch.ones(3, 2).to_sparse()
    with pytest.raises(ValueError, match="sparse"):
        tt.SGD([leaf], lr=0.1).step()


def test_optimizer_changes_nothing_where_it_refuses_one() -> None:
    good, bad = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2).bfloat16())
    good.grad, bad.grad = torch.ones(2), torch.ones(2).bfloat16()
    optimizer = tt.Adam([{"params": [good]}, {"params": [bad]}])
    with pytest.raises(TypeError, match="bfloat16"):
        optimizer.step()
    assert torch.equal(good, torch.ones(2))
    assert not optimizer.state


def test_counts_are_exact_whatever_the_default_dtype() -> None:
    p = nn.Parameter(torch.ones(2))
    optimizer = tt.Adam([p])
    torch.set_default_dtype(torch.bfloat16)
    try:
        for _ in range(300):
            p.grad = torch.ones(2, dtype=torch.float32)
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert optimizer.state[p]["step"] == 300


@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_state_of_another_layout_is_taken(kind: str) -> None:
    options = {"lr": 0.1, **({"momentum": 0.9} if kind == "SGD" else {})}
    pairs = [nn.Parameter(torch.ones(3, 4)) for _ in range(2)]
    made = [
        getattr(where, kind)([p], **options)
        for where, p in zip((torch.optim, tt), pairs, strict=True)
    ]
    pairs[0].grad = torch.arange(12.0).reshape(4, 3).t()
    made[0].step()
    for entries in made[0].state.values():
        for name, value in entries.items():
            if value.dim() == 2:
                entries[name] = value.t().contiguous().t()
    with torch.no_grad():
        pairs[1].copy_(pairs[0])
    made[1].load_state_dict(copy.deepcopy(made[0].state_dict()))
    for p, optimizer in zip(pairs, made, strict=True):
        p.grad = torch.ones(3, 4)
        optimizer.step()
    torch.testing.assert_close(*pairs)


def test_autograd_notices_a_step_between_forward_and_backward() -> None:
    w, x = nn.Parameter(torch.ones(2)), torch.ones(2, requires_grad=True)
    y = (x * w).sum()
    w.grad = torch.ones(2)
    tt.SGD([w], lr=1.0).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_optimizer_operators_pass_opcheck() -> None:
    def some(count: int = 2) -> list[Tensor]:
        return [torch.rand(3, 4), torch.rand(5)][:count]

    def counts() -> list[Tensor]:
        return [torch.tensor(3.0), torch.tensor(0.0)]

    ops, check = torch.ops.tilegrad, torch.library.opcheck
    check(ops.sgd_step_.default, (some(), some(), some(), True, 0.1, 0.9, 0.0, False, 0.0, False))
    check(ops.sgd_step_.default, (some(), some(), [], False, 0.1, 0.0, 0.0, False, 0.0, False))
    adam = (0.1, 0.9, 0.99, 1e-8, False, 0.0, False)
    check(ops.adam_step_.default, (some(), some(), some(), some(), [], counts(), *adam))
    check(ops.adam_step_.default, (some(), some(), some(), some(), some(), counts(), *adam))
    rmsprop = (0.1, 0.9, 1e-8, 0.5, 0.0, False)
    check(ops.rmsprop_step_.default, (some(), some(), some(), some(), [], counts(), *rmsprop))
    adagrad = (0.1, 0.0, 1e-8, 0.0, False)
    check(ops.adagrad_step_.default, (some(), some(), some(), counts(), *adagrad))


def test_parameters_of_one_group_may_have_had_other_counts_of_updates() -> None:
    pairs = [[nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))] for _ in range(2)]
    made = [where.Adam(p, lr=0.1) for where, p in zip((tt, torch.optim), pairs, strict=True)]
    for step in range(4):
        for (first, second), optimizer in zip(pairs, made, strict=True):
            first.grad = torch.arange(3.0) - step
            second.grad = None if step % 2 else torch.arange(2.0) + step
            optimizer.step()
    for mine, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, theirs)


@every_optimizer
def test_compiled_step_breaks_no_graph(name: str, options: dict[str, Any]) -> None:
    models = network(), network()
    models[1].load_state_dict(models[0].state_dict())
    made = [getattr(tt, name)(m.parameters(), **options) for m in models]
    torch._dynamo.reset()  # it counts the compilations of other tests
    compiled = torch.compile(made[0].step, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        for model in models:
            for i, p in enumerate(model.parameters()):
                p.grad = torch.randn(
                    p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(seed + 9 * i)
                )
        compiled()
        made[1].step()
    for mine, theirs in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(mine, theirs)
