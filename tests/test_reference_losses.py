# SPDX-License-Identifier: MIT
"""The oracle's losses: gradients by central differences, values and edges against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from oracle_checks import (
    INF,
    NAN,
    Array,
    Case,
    assert_close,
    assert_gradient,
    rng_for,
    torch_value_and_grads,
)
from tilegrad import reference as ref

# ---- cross_entropy -----------------------------------------------------------------------------

LOGIT_SHAPES: list[tuple[int, ...]] = [(4,), (1, 4), (5, 3), (3, 1), (2, 3, 4), (2, 4, 2, 3)]
EMPTY_SHAPES: list[tuple[int, ...]] = [(0, 3), (2, 3, 0), (0, 3, 2)]
REDUCTIONS = ["mean", "sum", "none"]


def _cross_entropy_problem(
    shape: tuple[int, ...], kind: str, weighted: bool, rng: np.random.Generator
) -> tuple[Array, Array, Array | None]:
    axis = 0 if len(shape) == 1 else 1
    classes = shape[axis]
    x = rng.normal(0, 2, shape)
    weight = rng.uniform(0.2, 2, classes) if weighted else None
    if kind == "probabilities":
        target = rng.uniform(size=shape)
        return x, target / target.sum(axis=axis, keepdims=True), weight
    target = np.asarray(rng.integers(0, classes, shape[:axis] + shape[axis + 1 :]))
    if kind == "ignored":
        target = np.where(rng.uniform(size=target.shape) < 0.4, -100, target)
    return x, target, weight


def _check_cross_entropy(
    x: Array, target: Array, weight: Array | None, dy: Array, options: Case
) -> None:
    def torch_loss(x: torch.Tensor) -> torch.Tensor:
        w = None if weight is None else torch.tensor(weight)
        return F.cross_entropy(x, torch.tensor(target), w, **options)

    loss, (dx,) = torch_value_and_grads(torch_loss, [x], dy)
    assert_close(ref.cross_entropy(x, target, weight, **options), loss)
    assert_close(ref.cross_entropy_backward(dy, x, target, weight, **options), dx)
    _, (dx,) = torch_value_and_grads(torch_loss, [x])
    value, grad = ref.cross_entropy_value_and_grad(x, target, weight, **options)
    assert_close(value, loss)
    assert_close(grad, dx)


@pytest.mark.parametrize("shape", LOGIT_SHAPES + EMPTY_SHAPES)
@pytest.mark.parametrize("kind", ["indices", "ignored", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_matches_differences_and_torch(
    shape: tuple[int, ...], kind: str, weighted: bool, reduction: str, smoothing: float
) -> None:
    rng = rng_for(shape, kind, weighted, reduction, smoothing)
    x, target, weight = _cross_entropy_problem(shape, kind, weighted, rng)
    options: Case = {"reduction": reduction, "label_smoothing": smoothing}
    loss = ref.cross_entropy(x, target, weight, **options)
    dy = np.asarray(rng.normal(size=np.shape(loss)))
    _check_cross_entropy(x, target, weight, dy, options)
    if not np.isnan(loss).any():
        grad = ref.cross_entropy_backward(dy, x, target, weight, **options)
        assert_gradient(lambda x: ref.cross_entropy(x, target, weight, **options), x, dy, grad)
    if 0 in shape and reduction == "mean":
        assert np.isnan(loss)


HARD_LOGITS: dict[str, Array] = {
    "80": np.array([[80.0, -80, 0], [-80, 80, 80]]),
    "offset": np.array([[1e4, 1e4 + 1, 1e4 - 2], [-1e4, -1e4 + 3, -1e4]]),
    "-inf not the target": np.array([[0.5, -INF, 1], [2, 1, -INF]]),
    "-inf the target": np.array([[-INF, 1, 2], [0.5, -INF, 1]]),
    "all -inf": np.array([[-INF, -INF, -INF], [1, 2, 3.0]]),
    "+inf": np.array([[INF, 0, 1], [1, 2, 3.0]]),
    "nan": np.array([[NAN, 0, 1], [1, 2, 3.0]]),
}
TARGETS: dict[str, Array] = {
    "indices": np.array([0, 1]),
    "first ignored": np.array([-100, 1]),
    "all ignored": np.array([-100, -100]),
    "probabilities": np.array([[1.0, 0, 0], [0.25, 0.75, 0]]),
}


@pytest.mark.parametrize("logits", HARD_LOGITS)
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("weight", [None, [1.0, 2, 0.5], [0.0, 1, 0], [0.0, 0, 0]])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_edges_match_torch(
    logits: str, targets: str, weight: list[float] | None, reduction: str, smoothing: float
) -> None:
    x, target = HARD_LOGITS[logits], TARGETS[targets]
    w = None if weight is None else np.array(weight)
    dy = np.ones(2 if reduction == "none" else ())
    options: Case = {"reduction": reduction, "label_smoothing": smoothing}
    _check_cross_entropy(x, target, w, dy, options)


def test_cross_entropy_ignore_index_may_be_a_class() -> None:
    x, target = np.array([[0.0, 1, 2], [3, 1, 0], [1, 1, 1]]), np.array([1, 0, 2])
    _check_cross_entropy(x, target, None, np.array(1.0), {"ignore_index": 1})
    _check_cross_entropy(x, target, None, np.ones(3), {"ignore_index": 0, "reduction": "none"})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_cross_entropy_takes_any_integer_target(dtype: type) -> None:
    x, target = np.array([[0.0, 1, 2], [3, 1, 0]]), np.array([2, 0])
    assert_close(ref.cross_entropy(x, target.astype(dtype)), ref.cross_entropy(x, target))


def test_cross_entropy_known_value_and_refusals() -> None:
    # the probability of the right class is 0.88
    x = np.log(np.array([[0.88, 0.07, 0.05]]))
    assert_close(ref.cross_entropy(x, np.array([0])), 0.127833, atol=5e-7)
    for bad in (3, -1):
        with pytest.raises(ValueError, match=rf"target must be in \[0, 3\); got {bad}"):
            ref.cross_entropy(x, np.array([bad]))
    with pytest.raises(ValueError, match="reduction: must be"):
        ref.cross_entropy(x, np.array([0]), reduction="average")


# ---- mse_loss ----------------------------------------------------------------------------------

MSE_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    *((shape, shape) for shape in [(), (1,), (5,), (3, 4), (2, 3, 2), (0,), (0, 3)]),
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 1), (1, 4)),
    ((3, 4), ()),
    ((1, 3), (0, 3)),
]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("x_shape", "t_shape"), MSE_SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_mse_loss_matches_differences_and_torch(
    x_shape: tuple[int, ...], t_shape: tuple[int, ...], reduction: str, weighted: bool
) -> None:
    rng = rng_for(x_shape, t_shape, reduction, weighted)
    x, t = np.asarray(rng.normal(size=x_shape)), np.asarray(rng.normal(size=t_shape))
    weight = np.asarray(rng.uniform(0, 2, x_shape)) if weighted else None
    loss = ref.mse_loss(x, t, reduction, weight)
    dy = np.asarray(rng.normal(size=np.shape(loss)))
    dx, dt = ref.mse_loss_backward(dy, x, t, reduction, weight, wrt=("input", "target"))
    assert_close(ref.mse_loss_backward(dy, x, t, reduction, weight), dx)
    if not np.isnan(loss).any():
        assert_gradient(lambda x: ref.mse_loss(x, t, reduction, weight), x, dy, dx)
        assert_gradient(lambda t: ref.mse_loss(x, t, reduction, weight), t, dy, dt)

    def torch_loss(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        w = None if weight is None else torch.tensor(weight)
        loss: Any = F.mse_loss  # its stub lacks weight
        return loss(x, t, reduction=reduction, weight=w)  # type: ignore[no-any-return]

    y, grads = torch_value_and_grads(torch_loss, [x, t], dy)
    assert_close(loss, y)
    assert_close(dx, grads[0])
    assert_close(dt, grads[1])
    _, grads = torch_value_and_grads(torch_loss, [x, t])
    value, got = ref.mse_loss_value_and_grad(x, t, reduction, weight, wrt=("input", "target"))
    assert_close(value, y)
    for grad, want in zip(got, grads, strict=True):
        assert_close(grad, want)


def test_mse_loss_weight_rules() -> None:
    x, t = np.array([1.0, 2, 3]), np.zeros(3)
    assert_close(ref.mse_loss(x, t, weight=np.array([1.0, 0, 3])), 28 / 4)
    assert np.isnan(ref.mse_loss(x, t, weight=np.zeros(3)))
    with pytest.raises(ValueError, match=r"weight must have input's shape \(3,\); got \(1,\)"):
        ref.mse_loss(x, t, weight=np.ones(1))
