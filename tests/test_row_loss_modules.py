# SPDX-License-Identifier: MIT
"""The losses with one value a row as modules: torch.nn's twins, devices, one training step."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn as T  # noqa: N812

import tilegrad as tg
from helpers import Device, assert_close, assert_same_bits, host
from row_loss_cases import OPERANDS, REDUCTIONS
from test_train_step import CLASSES, FEATURES, assert_same_run, batches, build, check, sgd
from tilegrad import nn

Draw = Callable[[np.random.Generator], tuple[Any, ...]]


def _scores(rng: np.random.Generator) -> Any:
    return rng.standard_normal((8, 3))


def _with_classes(rng: np.random.Generator) -> tuple[Any, ...]:
    return _scores(rng), rng.integers(0, 3, 8)


def _with_lists(rng: np.random.Generator) -> tuple[Any, ...]:
    lists = np.tile(np.array([2, 0, -1]), (8, 1))
    lists[3] = [1, -1, 0]
    return _scores(rng), lists


def _with_shares(rng: np.random.Generator) -> tuple[Any, ...]:
    return _scores(rng), rng.random((8, 3))


def _triplet(rng: np.random.Generator) -> tuple[Any, ...]:
    return tuple(_scores(rng) for _ in range(3))


def _pairs(rng: np.random.Generator) -> tuple[Any, ...]:
    return _scores(rng), _scores(rng), np.where(rng.random(8) < 0.5, 1, -1)


WEIGHT = np.array([1.0, 2.0, 0.5])
# name: (class, operands, options)
MODULES: dict[str, tuple[str, str, Draw, dict[str, Any]]] = {
    "nll": ("NLLLoss", "nll_loss", _with_classes, {}),
    "nll-options": ("NLLLoss", "nll_loss", _with_classes, {"weight": WEIGHT, "ignore_index": 2}),
    "multi-margin": ("MultiMarginLoss", "multi_margin_loss", _with_classes, {}),
    "multi-margin-options": (
        "MultiMarginLoss",
        "multi_margin_loss",
        _with_classes,
        {"p": 2, "margin": 0.5, "weight": WEIGHT},
    ),
    "labels": ("MultiLabelMarginLoss", "multilabel_margin_loss", _with_lists, {}),
    "soft": ("MultiLabelSoftMarginLoss", "multilabel_soft_margin_loss", _with_shares, {}),
    "soft-options": (
        "MultiLabelSoftMarginLoss",
        "multilabel_soft_margin_loss",
        _with_shares,
        {"weight": WEIGHT},
    ),
    "triplet": ("TripletMarginLoss", "triplet_margin_loss", _triplet, {}),
    "triplet-options": (
        "TripletMarginLoss",
        "triplet_margin_loss",
        _triplet,
        {"margin": 3.0, "p": 1.5, "eps": 1e-3, "swap": True},
    ),
    "cosine": ("CosineEmbeddingLoss", "cosine_embedding_loss", _pairs, {}),
    "cosine-options": ("CosineEmbeddingLoss", "cosine_embedding_loss", _pairs, {"margin": 0.3}),
}
every_module = pytest.mark.parametrize("name", MODULES)


def flat(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


@every_module
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_module_follows_torch(
    name: str, reduction: str, device: Device, rng: np.random.Generator
) -> None:
    kind, op, draw, options = MODULES[name]
    operands = draw(rng)
    wanted = OPERANDS[op] if op != "multilabel_soft_margin_loss" else ("input",)
    there = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    for given in (False, True):
        loss_fn = getattr(nn, kind)(**options, reduction=reduction)
        leaves = [torch.tensor(x, requires_grad=at < len(wanted)) for at, x in enumerate(operands)]
        want = getattr(T, kind)(**there, reduction=reduction)(*leaves)
        g = rng.standard_normal(want.shape) if given else np.ones(want.shape)
        want.backward(torch.tensor(g))
        here = [device.put(x) for x in operands]
        value = loss_fn(*here)
        assert_close(value, want.detach().numpy(), 1e-13)
        found = loss_fn.backward(device.put(np.asarray(g)) if given else None)
        assert len(flat(found)) == len(wanted)
        for gradient, leaf in zip(flat(found), leaves, strict=False):
            assert_close(gradient, leaf.grad.numpy(), 1e-12)
        with pytest.raises(RuntimeError, match="second backward"):
            loss_fn.backward()
        loss_fn.eval()
        assert_same_bits(loss_fn(*here), host(value)[()])
        with pytest.raises(RuntimeError, match="eval mode"):
            loss_fn.backward()
        loss_fn.train()
        loss_fn(*here)
        assert loss_fn.backward(input_grad=False) is None


@every_module
def test_arguments_of_a_module_are_torchs(name: str) -> None:
    kind = MODULES[name][0]
    left_out = {"size_average", "reduce"}
    theirs = inspect.signature(getattr(T, kind)).parameters.values()
    mine = inspect.signature(getattr(nn, kind)).parameters.values()
    wanted = [(p.name, p.default) for p in theirs if p.name not in left_out]
    assert [(p.name, p.default) for p in mine] == wanted


def test_class_weights_follow_the_scores(device: Device, rng: np.random.Generator) -> None:
    for kind, draw in (
        (nn.NLLLoss, _with_classes),
        (nn.MultiMarginLoss, _with_classes),
        (nn.MultiLabelSoftMarginLoss, _with_shares),
    ):
        loss_fn, operands = kind(weight=WEIGHT), draw(rng)
        expected, gradient = loss_fn(*operands), loss_fn.backward()
        there = [device.put(x) for x in operands]
        assert float(loss_fn(*there)) == pytest.approx(float(expected), rel=1e-13)
        assert_close(loss_fn.backward(device.put(np.array(1.0))), gradient, 1e-14)
        assert loss_fn(*operands) == expected


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.MultiMarginLoss(p=3), "MultiMarginLoss: p must be 1 or 2; got 3"),
        (
            lambda: nn.MultiMarginLoss(weight=np.ones((2, 2))),
            r"MultiMarginLoss: weight must have one axis; got shape \(2, 2\)",
        ),
        (
            lambda: nn.TripletMarginLoss(margin=0),
            "TripletMarginLoss: margin must be greater than 0; got 0",
        ),
        *(
            (
                lambda kind=kind: kind(reduction="avg"),
                "must be one of 'none', 'mean', 'sum'; got 'avg'",
            )
            for kind in (
                nn.NLLLoss,
                nn.MultiMarginLoss,
                nn.MultiLabelMarginLoss,
                nn.MultiLabelSoftMarginLoss,
                nn.TripletMarginLoss,
                nn.CosineEmbeddingLoss,
            )
        ),
    ],
)
def test_modules_refuse_unknown_options(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


# ---- nll_loss in a training step ----------------------------------------------------------------


def log_probabilities(dtype: Any) -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 17, activation="tanh", dtype=dtype),
        nn.Linear(17, CLASSES, dtype=dtype),
        nn.LogSoftmax(1),
    )


NLL: dict[str, Callable[[str], Any]] = {
    "mean": lambda dtype: nn.NLLLoss(),
    "sum": lambda dtype: nn.NLLLoss(reduction="sum"),
    "ignore": lambda dtype: nn.NLLLoss(ignore_index=2),
    "weight": lambda dtype: nn.NLLLoss(np.linspace(0.5, 2, CLASSES).astype(dtype)),
    "all": lambda dtype: nn.NLLLoss(np.linspace(0.5, 2, 9).astype(dtype)[::2], 1, "sum"),
}


@pytest.mark.parametrize("loss", NLL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_equals_the_long_form_for_nll(loss: str, dtype: str, threads: int) -> None:
    check(log_probabilities, lambda: NLL[loss](dtype), data=batches(dtype), dtype=dtype)


def test_step_with_nll_is_that_with_cross_entropy(device: Device) -> None:
    losses = []
    for make, loss_fn in ((log_probabilities, nn.NLLLoss()), (None, nn.CrossEntropyLoss())):
        model: Any = build(log_probabilities, "f8")
        model = model if make else nn.Sequential(model[0], model[1])
        model.to(device.name)
        step = tg.TrainStep(model, loss_fn, sgd(model))
        losses.append([float(host(step(x, t))) for x, t in batches("f8")[:4]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12)
    assert losses[0][3] != losses[0][0]


def test_step_with_nll_takes_class_indices_of_any_integer_type() -> None:
    plain = check(log_probabilities, nn.NLLLoss)
    for integer in ("int8", "uint64"):
        data = [(x, t.astype(integer)) for x, t in batches()]
        assert_same_run(check(log_probabilities, nn.NLLLoss, data=data), plain)


def test_step_with_nll_refuses_what_it_cannot_do() -> None:
    model = build(log_probabilities)
    x, t = batches()[0]
    for reduction, target, kind, text in (
        ("none", t, ValueError, "TrainStep: NLLLoss needs reduction 'mean' or 'sum'; got 'none'"),
        ("mean", t.astype("f4"), TypeError, "nll_loss: target must hold class indices"),
        ("mean", t + CLASSES, ValueError, r"nll_loss: target must be in \[0, 5\)"),
    ):
        step = tg.TrainStep(model, nn.NLLLoss(reduction=reduction), sgd(model))
        with pytest.raises(kind, match=text):
            step(x, target)
    one: Any = nn.MultiMarginLoss()
    with pytest.raises(TypeError, match="TrainStep: MultiMarginLoss has no plan"):
        tg.TrainStep(model, one, sgd(model))(x, t)
