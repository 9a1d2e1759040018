# SPDX-License-Identifier: MIT
"""The oracle's losses of a row: every gradient against torch and differences, torch's edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from oracle_checks import INF, NAN, Array, assert_close, assert_gradient, rng_for
from row_loss_cases import CASES, OPERANDS, REDUCTIONS, Case, torch_answer
from tilegrad import reference as ref

# Long rows say nothing new of a formula, and a loss may be the difference of two long sums.
every_case = pytest.mark.parametrize("case", [c for c in CASES if c.size <= 400], ids=str)


def functions(op: str) -> tuple[Any, Any, Any]:
    return tuple(getattr(ref, f"{op}{end}") for end in ("", "_backward", "_value_and_grad"))  # type: ignore[return-value]


def check(op: str, operands: tuple[Any, ...], reduction: str, **options: Any) -> None:
    """Compare loss and gradients with torch's, for a grad_output that is not one and for one."""
    value, backward, both = functions(op)
    wrt = OPERANDS[op]
    options["reduction"] = reduction
    loss = value(*operands, **options)
    g = np.asarray(rng_for(op).normal(size=np.shape(loss)))
    want, gradients = torch_answer(op, operands, wrt, g, **options)
    assert_close(loss, want)
    mine = backward(g, *operands, wrt=wrt, **options)
    for ours, theirs in zip(mine if len(wrt) > 1 else [mine], gradients, strict=True):
        assert_close(ours, theirs, rtol=1e-11)
    _, ones = torch_answer(op, operands, wrt, np.ones(np.shape(loss)), **options)
    again, mine = both(*operands, wrt=wrt, **options)
    assert_close(again, want)
    for ours, theirs in zip(mine if len(wrt) > 1 else [mine], ones, strict=True):
        assert_close(ours, theirs, rtol=1e-11)


@every_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_row_loss_matches_torch(case: Case, reduction: str) -> None:
    check(case.op, case.operands("float64"), reduction, **case.all_options("float64"))


@pytest.mark.parametrize("case", [c for c in CASES if c.size <= 70], ids=str)
def test_row_loss_matches_differences(case: Case) -> None:
    value, backward, _ = functions(case.op)
    operands, options = case.operands("float64"), case.all_options("float64")
    if np.isnan(value(*operands, **options)):
        return  # a mean over nothing
    for at, name in enumerate(OPERANDS[case.op]):

        def loss(x: Array, at: int = at) -> Any:
            return value(*operands[:at], x, *operands[at + 1 :], **options)

        gradient = backward(1.0, *operands, wrt=name, **options)
        assert_gradient(loss, operands[at], np.ones(()), gradient)


# ---- edges: where torch has a kink, an infinity or a NaN ----------------------------------------

ROWS = np.array([[1.0, 0, 2, 1], [NAN, 1, 0, 0.5], [1, NAN, 0.5, 2], [1, 0, 0.25, -INF]])
TARGET = np.array([0, 0, 0, 3])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_losses_have_torchs_edges(reduction: str) -> None:
    w = np.array([0.5, 1, 0, 2])
    for p in (1, 2):
        check("multi_margin_loss", (ROWS[:3], TARGET[:3]), reduction, p=p, weight=w)
        check("multi_margin_loss", (ROWS[0], np.array(2)), reduction, p=p, margin=-0.5)
        check("multi_margin_loss", (ROWS[0], np.array([1])), reduction, p=p)
        check("multi_margin_loss", (ROWS[:1], np.array(1)), reduction, p=p)
        check("multi_margin_loss", (np.array(0.5), np.array(0)), reduction, p=p)
    check("multi_margin_loss", (ROWS[3:], TARGET[3:]), reduction)  # an infinite loss
    lists = np.array([[0, -1, -1, -1], [0, 3, -1, 2], [-1, 0, 0, 0], [2, 2, 0, -1]])
    check("multilabel_margin_loss", (ROWS[:, :4], lists), reduction)
    check("multilabel_margin_loss", (ROWS, np.array([[0, 1, 2, 3]] * 4)), reduction)
    check("multilabel_margin_loss", (np.array(0.5), np.array(0)), reduction)
    check("nll_loss", (ROWS, TARGET), reduction, weight=np.array([1.0, 1, 1, 0]))
    check("nll_loss", (ROWS, np.full(4, -100)), reduction)
    check("nll_loss", (ROWS[0], np.array(-100)), reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_soft_margin_of_several_labels_has_torchs_edges(reduction: str, share: float) -> None:
    for x in (800.0, -800.0, INF, -INF, NAN, 0.0):
        operands = np.array([[x], [1.0]]), np.full((2, 1), share)
        # torch's derivative by the target is rounded twice
        check("multilabel_soft_margin_loss", operands, reduction)
    for shape in ((0, 3), (3, 0), (0,)):
        check("multilabel_soft_margin_loss", (np.zeros(shape), np.zeros(shape)), reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0, 3.0, INF])
def test_triplets_have_torchs_edges(reduction: str, p: float) -> None:
    origin, one, two = np.zeros((1, 2)), np.array([[1.0, 0]]), np.array([[2.0, 0]])
    both = np.array([[1.0, -1]])  # two maxima
    cases = [(origin, one, two), (origin, two, one), (origin, two, 1.5 * one), (origin,) * 3]
    cases += [(origin, one, np.array([[NAN, 0]])), (origin, np.array([[NAN, 0]]), 9 * two)]
    cases += [(origin, both, two), (origin, both, both)]
    for operands in cases:
        for swap in (False, True):
            for eps in (0.0, 1e-6)[: 1 if operands is cases[0] else 2]:  # the first is at the bound
                options = {"p": p, "swap": swap, "eps": eps}
                check("triplet_margin_loss", operands, reduction, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0, 0.5, NAN])
def test_cosines_have_torchs_edges(reduction: str, sign: float) -> None:
    zero, a, b = np.zeros((1, 2)), np.array([[1.0, 0]]), np.array([[0.0, 3]])
    bad, tiny = np.array([[1.0, NAN]]), np.array([[1e-8, 1e-7]])
    for operands in ((zero, a), (zero, zero), (a, b), (a, a), (bad, b), (tiny, b), (tiny, tiny)):
        for margin in (0.0, -0.25, 1.5):
            target = np.array([sign])
            check("cosine_embedding_loss", (*operands, target), reduction, margin=margin)


@pytest.mark.parametrize("op", OPERANDS)
def test_refusals_of_the_oracle(op: str) -> None:
    value = functions(op)[0]
    case = next(case for case in CASES if case.op == op)
    operands, options = case.operands("float64"), case.all_options("float64")
    with pytest.raises(ValueError, match="reduction: must be"):
        value(*operands, **{**options, "reduction": "average"})
    if op in ("nll_loss", "multi_margin_loss", "multilabel_margin_loss"):
        bad = np.full(np.shape(operands[1]), 77)
        with pytest.raises(ValueError, match=rf"{op}: target must be in .*; got 77"):
            value(operands[0], bad)
    with pytest.raises(ValueError, match="wrt: must name some of"):
        functions(op)[1](1.0, *operands, wrt="weight", **options)


def test_known_values() -> None:
    log_p = np.log(np.array([[0.88, 0.12]]))
    assert_close(ref.nll_loss(log_p, np.array([0])), 0.127833, atol=5e-7)
    scores = np.array([[0.1, 0.2, 0.4, 0.8]])
    # the examples of torch.nn.MultiMarginLoss and torch.nn.MultiLabelMarginLoss
    assert_close(ref.multi_margin_loss(scores, np.array([3])), 0.325)
    assert_close(ref.multilabel_margin_loss(scores, np.array([[3, 0, -1, 1]])), 0.85)
    assert float(torch.nn.MultiLabelMarginLoss()(
        torch.tensor(scores), torch.tensor([[3, 0, -1, 1]])
    )) == pytest.approx(0.85)  # fmt: skip
