# SPDX-License-Identifier: MIT
"""The oracle's losses of one element at a time: every gradient against torch and differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from oracle_checks import Array, assert_close, assert_gradient, rng_for
from tilegrad.reference._pointwise_losses import POINTWISE, pointwise_loss

SHAPE = (4, 5)
REDUCTIONS = ("none", "mean", "sum")
BOTH = ("input", "target")


def _normal(rng: np.random.Generator) -> Array:
    return rng.normal(0, 2, SHAPE)


def _share(rng: np.random.Generator) -> Array:
    return rng.uniform(0.1, 0.9, SHAPE)


def _positive(rng: np.random.Generator) -> Array:
    return rng.uniform(0.05, 4, SHAPE)


def _sign(rng: np.random.Generator) -> Array:
    return np.sign(rng.normal(size=SHAPE))


# name, how its operands are drawn, those that torch differentiates, options
CASES: list[tuple[str, tuple[Any, ...], tuple[str, ...], dict[str, Any]]] = [
    ("l1_loss", (_normal, _normal), BOTH, {}),
    *(("smooth_l1_loss", (_normal, _normal), BOTH, {"beta": b}) for b in (0.0, 0.5, 1.0, 3.0)),
    *(("huber_loss", (_normal, _normal), BOTH, {"delta": d}) for d in (0.3, 1.0, 3.0)),
    ("binary_cross_entropy", (_share, _share), BOTH, {}),
    ("binary_cross_entropy_with_logits", (_normal, _share), BOTH, {}),
    (
        "binary_cross_entropy_with_logits",
        (_normal, _share),
        BOTH,
        {"pos_weight": np.arange(1.0, 6)},
    ),
    *(
        ("poisson_nll_loss", (_positive, _positive), BOTH, {"log_input": log, "full": full})
        for log in (True, False)
        for full in (True, False)
    ),
    ("gaussian_nll_loss", (_normal, _normal, _positive), (*BOTH, "var"), {}),
    ("gaussian_nll_loss", (_normal, _normal, _positive), (*BOTH, "var"), {"full": True}),
    ("kl_div", (_normal, _positive), BOTH, {}),
    ("kl_div", (_normal, _normal), BOTH, {"log_target": True}),
    *(
        ("margin_ranking_loss", (_normal, _normal, _sign), ("input1", "input2"), {"margin": m})
        for m in (0.0, 0.5)
    ),
    *(("hinge_embedding_loss", (_normal, _sign), ("input",), {"margin": m}) for m in (1.0, 0.2)),
    ("hinge_embedding_loss", (_normal, _normal), ("input",), {}),
    ("soft_margin_loss", (_normal, _sign), ("input",), {}),
]
pytestmark = [  # torch warns where it broadcasts, and of the name of kl_div's mean
    pytest.mark.filterwarnings("ignore:Using a target size"),
    pytest.mark.filterwarnings("ignore:reduction"),
]
every_case = pytest.mark.parametrize(("name", "draws", "wrt", "options"), CASES)


def check(
    name: str, operands: list[Array], wrt: tuple[str, ...], reduction: str, **options: Any
) -> None:
    """Compare the loss and its gradients with torch's, for a grad_output that is not one."""
    names = POINTWISE[name][1]
    leaves = [
        torch.tensor(x, dtype=torch.float64, requires_grad=n in wrt)
        for x, n in zip(operands, names, strict=True)
    ]
    there = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    want = getattr(F, name)(*leaves, reduction=reduction, **there)
    upstream = np.asarray(rng_for(name).normal(size=tuple(want.shape)))
    gradients = torch.autograd.grad(
        want, [leaf for leaf in leaves if leaf.requires_grad], torch.tensor(upstream)
    )
    got, mine = pointwise_loss(
        name, *operands, reduction=reduction, grad_output=upstream, wrt=wrt, **options
    )
    assert_close(got, want.detach().numpy())
    for ours, theirs in zip(mine if len(wrt) > 1 else [mine], gradients, strict=True):
        assert_close(ours, theirs.numpy())


@every_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pointwise_loss_matches_torch(
    name: str, draws: Any, wrt: tuple[str, ...], options: Any, reduction: str
) -> None:
    rng = rng_for(name, draws, wrt)
    operands = [draw(rng) for draw in draws]
    check(name, operands, wrt, reduction, **options)
    if not name.startswith("binary"):  # these must have one shape
        check(name, [operands[0], *(x[:1] for x in operands[1:])], wrt, reduction, **options)


@every_case
def test_pointwise_loss_matches_differences(
    name: str, draws: Any, wrt: tuple[str, ...], options: Any
) -> None:
    rng = rng_for(name, wrt)
    operands = [draw(rng) for draw in draws]
    for at, operand in enumerate(POINTWISE[name][1]):
        if operand not in wrt:
            continue

        def loss(x: Array, at: int = at) -> Array:
            return pointwise_loss(name, *operands[:at], x, *operands[at + 1 :], **options)[0]

        gradient = pointwise_loss(name, *operands, wrt=operand, **options)[1]
        assert_gradient(loss, operands[at], np.ones(()), gradient)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "name", ["l1_loss", "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"]
)
def test_weighted_pointwise_loss_matches_torch(name: str, reduction: str) -> None:
    rng = rng_for(name)
    operands = [_share(rng), _share(rng)]
    check(name, operands, BOTH, reduction, weight=rng.uniform(0.1, 2, SHAPE))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pointwise_losses_have_torchs_edges(reduction: str) -> None:
    zeros, ones = np.zeros(3), np.ones(3)
    ends = np.array([0.0, 1.0, 0.5])
    for name in ("l1_loss", "smooth_l1_loss", "huber_loss"):
        check(name, [ends, ends], BOTH, reduction)  # ties
    for target in (zeros, ones, ends, np.array([0.2, 0.7, 0.4])):
        check("binary_cross_entropy", [ends, target], ("input",), reduction)  # clamped logarithms
    check("kl_div", [ends, ends], BOTH, reduction)  # 0 log 0
    for logit in (-800.0, 800.0):
        check("binary_cross_entropy_with_logits", [logit * ones, ends], ("input",), reduction)
        # torch's exp overflows from 710 on
        check("soft_margin_loss", [0.8 * logit * ones, ends * 2 - 1], ("input",), reduction)
    check(
        "margin_ranking_loss", [ends, ends, ones], ("input1", "input2"), reduction
    )  # at the bound
    check("gaussian_nll_loss", [ends, zeros, np.full(3, 1e-9)], (*BOTH, "var"), reduction)
    # Stirling beyond 1; torch's gradient of a target of 0 is NaN, from a term that does not count
    check("poisson_nll_loss", [ends, ends], ("input",), reduction, full=True)
    check("poisson_nll_loss", [ends, ends + 0.5], BOTH, reduction, full=True)
    check("hinge_embedding_loss", [ones, -ones], ("input",), reduction)


def test_batchmean_of_kl_div_divides_by_the_batch() -> None:
    rng = rng_for("batchmean")
    check("kl_div", [_normal(rng), _positive(rng)], BOTH, "batchmean")
