# SPDX-License-Identifier: MIT
"""The oracle of ctc_loss: against every path written out, differences and torch, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from oracle_checks import (
    INF,
    NAN,
    Array,
    assert_close,
    assert_gradient,
    rng_for,
    torch_value_and_grads,
)
from tilegrad import reference as ref

REDUCTIONS = ("none", "mean", "sum")


def merged(path: Sequence[int], blank: int) -> list[int]:
    """Return what a path says: repeats merged, then blanks dropped."""
    return [c for i, c in enumerate(path) if c != blank and (i == 0 or c != path[i - 1])]


def written_out(y: Array, labels: Sequence[int], blank: int) -> tuple[float, Array]:
    """Return the loss and the shares of the paths by trying all C^T of them."""
    times, classes = y.shape
    total, shares = 0.0, np.zeros(y.shape)
    for path in itertools.product(range(classes), repeat=times):
        if merged(path, blank) != list(labels):
            continue
        likelihood = float(np.exp(y[np.arange(times), path].sum()))
        total += likelihood
        shares[np.arange(times), path] += likelihood
    with np.errstate(all="ignore"):
        return float(-np.log(total)), shares / total


def log_probs(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(ref.log_softmax(rng.normal(0, 2, shape), -1))


@pytest.mark.parametrize(
    ("times", "classes", "labels"),
    [
        (1, 2, [1]), (1, 1, []), (3, 2, []), (3, 2, [1]), (3, 2, [1, 1]), (4, 3, [1, 2]),
        (4, 3, [2, 2]), (5, 3, [1, 2, 1]), (5, 3, [1, 1, 1]), (6, 3, [2, 2, 1]), (5, 4, [3, 1, 3]),
        (0, 3, []), (0, 3, [1]), (2, 3, [1, 1]), (2, 4, [1, 2, 3]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("last_is_blank", [False, True])
def test_the_lattice_sums_every_path(
    times: int, classes: int, labels: list[int], last_is_blank: bool
) -> None:
    blank = classes - 1 if last_is_blank else 0
    labels = [c - 1 for c in labels] if last_is_blank else labels
    y = log_probs(rng_for(times, classes, labels), times, classes)
    loss, shares = written_out(y, labels, blank)
    call: Any = (y, np.array(labels, int), (times,), (len(labels),), blank)
    for reduction in REDUCTIONS:
        factor = max(1, len(labels)) if reduction == "mean" else 1
        assert_close(ref.ctc_loss(*call, reduction), loss / factor)
        want = np.exp(y) - shares if np.isfinite(loss) else np.full(y.shape, NAN)
        got = ref.ctc_loss_backward(1.5, *call, reduction)
        assert_close(got, 1.5 / factor * want, atol=1e-13)
    if not np.isfinite(loss):
        assert_close(ref.ctc_loss(*call, zero_infinity=True), 0.0)
        assert_close(ref.ctc_loss_backward(1.5, *call, zero_infinity=True), np.zeros(y.shape))


# shape of the log-probabilities, targets, input lengths, target lengths, blank
BATCHES: list[tuple[tuple[int, ...], Any, list[int], list[int], int]] = [
    ((4, 1, 3), [[1, 2]], [4], [2], 0),
    ((6, 3, 4), [[1, 1, 2], [3, 2, 9], [9, 9, 9]], [6, 4, 5], [3, 2, 0], 0),
    ((6, 3, 4), [1, 1, 2, 3, 2], [6, 4, 5], [3, 2, 0], 0),
    ((7, 2, 3), [[0, 2, 0], [2, 2, 0]], [7, 6], [3, 3], 1),
    ((5, 4), [3, 1], [5], [2], 2),
    ((6, 2, 3), [[1, 0, 2], [0, 0, 1]], [6, 6], [3, 3], 0),  # the blank as a label
    ((30, 2, 5), [[1, 2, 3, 4, 4, 1, 2], [1, 1, 1, 1, 1, 1, 9]], [30, 11], [7, 6], 0),
]


@pytest.mark.parametrize(("shape", "targets", "times", "counts", "blank"), BATCHES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_batches_match_differences_and_torch(
    shape: tuple[int, ...], targets: Any, times: Any, counts: Any, blank: int, reduction: str
) -> None:
    rng = rng_for(shape, targets, reduction)
    x = rng.normal(0, 1, shape)
    y = np.asarray(ref.log_softmax(x, -1))
    rest: Any = (np.array(targets), times, counts, blank, reduction)
    loss = ref.ctc_loss(y, *rest)
    dy = np.asarray(rng.normal(size=np.shape(loss)))
    raw = ref.ctc_loss_backward(dy, y, *rest)
    through = ref.log_softmax_backward(raw, x, -1)
    if np.size(x) < 100:
        assert_gradient(lambda x: ref.ctc_loss(ref.log_softmax(x, -1), *rest), x, dy, through)
    assert_close(through, raw, atol=1e-13)  # its rows add up to zero

    def torchs(y: torch.Tensor) -> torch.Tensor:
        lengths = (torch.tensor(times), torch.tensor(counts))
        return F.ctc_loss(y, torch.tensor(targets), *lengths, blank, reduction)

    value, (gradient,) = torch_value_and_grads(torchs, [y], dy)
    assert_close(loss, value)
    assert_close(raw, gradient, rtol=1e-10, atol=1e-13)
    value, (gradient,) = torch_value_and_grads(lambda x: torchs(F.log_softmax(x, -1)), [x], dy)
    assert_close(loss, value)
    assert_close(through, gradient, rtol=1e-10, atol=1e-13)
    pair = ref.ctc_loss_value_and_grad(y, *rest)
    assert_close(pair[0], loss)
    assert_close(pair[1], ref.ctc_loss_backward(np.ones(dy.shape), y, *rest))


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_samples_without_a_path_match_torch(zero_infinity: bool) -> None:
    y = log_probs(rng_for("none"), 4, 5, 3)
    targets = np.array([[1, 1, 1], [1, 2, 1], [2, 2, 2], [1, 1, 1], [1, 2, 1]])
    # two repeats in four times; none; one; no time at all, with labels and without
    times, counts = [4, 4, 2, 0, 0], [3, 3, 2, 1, 0]
    lengths = (torch.tensor(times), torch.tensor(counts))
    for reduction in REDUCTIONS:
        value, (gradient,) = torch_value_and_grads(
            lambda y, r=reduction: F.ctc_loss(
                y, torch.tensor(targets), *lengths, 0, r, zero_infinity
            ),
            [y],
        )
        rest: Any = (targets, times, counts, 0, reduction, zero_infinity)
        assert_close(ref.ctc_loss(y, *rest), value)
        assert_close(ref.ctc_loss_backward(1.0, y, *rest), gradient, atol=1e-13)


def test_a_target_that_ends_in_the_blank_has_the_true_gradient_where_torch_has_not() -> None:
    x = rng_for("blank").normal(0, 1, (5, 3))
    rest: Any = (np.array([1, 0]), (5,), (2,))
    y = np.asarray(ref.log_softmax(x, -1))
    raw = ref.ctc_loss_backward(1.0, y, *rest)
    assert_gradient(lambda x: ref.ctc_loss(ref.log_softmax(x, -1), *rest), x, np.ones(()), raw)
    _, (gradient,) = torch_value_and_grads(
        lambda y: F.ctc_loss(y, torch.tensor([1, 0]), torch.tensor([5]), torch.tensor([2])), [y]
    )
    assert_close(raw[:-1], gradient[:-1], atol=1e-13)
    assert abs(gradient[-1].sum()) > 0.01  # torch leaves one of the two last states out


def test_impossible_classes_have_no_gradient_where_torch_has_nan() -> None:
    x = rng_for("masked").normal(0, 1, (5, 4))
    x[1, 0] = x[2, 3] = x[3, 1] = -INF
    y = np.asarray(ref.log_softmax(x, -1))
    rest: Any = (np.array([1, 2]), (5,), (2,))
    raw = ref.ctc_loss_backward(1.0, y, *rest)
    lengths = (torch.tensor([5]), torch.tensor([2]))
    value, (gradient,) = torch_value_and_grads(
        lambda y: F.ctc_loss(y, torch.tensor([1, 2]), *lengths), [y]
    )
    assert_close(ref.ctc_loss(y, *rest), value)
    np.testing.assert_array_equal(np.isnan(gradient), np.isneginf(x))
    assert_close(raw, np.where(np.isneginf(x), 0.0, gradient), atol=1e-13)


def test_nothing_to_average_and_labels_that_are_no_class() -> None:
    nothing = np.zeros((4, 0, 3))
    rest: Any = (np.zeros((0, 2), int), (), ())
    assert np.isnan(ref.ctc_loss(nothing, *rest))
    assert ref.ctc_loss(nothing, *rest, reduction="sum") == 0
    assert ref.ctc_loss(nothing, *rest, reduction="none").shape == (0,)
    assert ref.ctc_loss_backward(1.0, nothing, *rest).shape == (4, 0, 3)
    y = log_probs(rng_for("bad"), 4, 1, 3)
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=f"got {bad}"):
            ref.ctc_loss(y, np.array([[1, bad]]), (4,), (2,))
    assert np.isfinite(ref.ctc_loss(y, np.array([[1, 99]]), (4,), (1,)))  # it does not count
