# SPDX-License-Identifier: MIT
"""Connectionist temporal classification, by the lattice of Graves et al., section 4."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, f64, quiet
from ._losses import _reduce

Labels = NDArray[np.intp]


def _walk(y: Array, extended: Labels) -> Array:
    """Return log alpha (T, states): alpha_t(s) = y_t(s) sum over the states that lead to s."""
    alpha = np.full((len(y), len(extended)), -np.inf)
    alpha[0, :2] = y[0, extended[:2]]
    # From s - 2 one may come to a label that differs from the one there, never to a blank.
    skips = np.flatnonzero(extended[2:] != extended[:-2]) + 2
    for t in range(1, len(y)):
        alpha[t] = alpha[t - 1]
        alpha[t, 1:] = np.logaddexp(alpha[t, 1:], alpha[t - 1, :-1])
        alpha[t, skips] = np.logaddexp(alpha[t, skips], alpha[t - 1, skips - 2])
        alpha[t] += y[t, extended]
    return alpha


def _sample(y: Array, labels: Labels, blank: int) -> tuple[float, Array]:
    """Return -log of the likelihood, and the shares (T, C) of the paths that have c at t."""
    extended = np.full(2 * len(labels) + 1, blank)
    extended[1::2] = labels
    shares = np.zeros(y.shape)
    if len(y) == 0:
        return (0.0 if len(labels) == 0 else np.inf), shares
    alpha, beta = _walk(y, extended), _walk(y[::-1], extended[::-1])[::-1, ::-1]
    log_likelihood = np.logaddexp.reduce(alpha[-1, -2:])
    log_share = alpha + beta - y[:, extended] - log_likelihood  # y is in both
    share = np.where(np.isneginf(y[:, extended]), 0.0, np.exp(log_share))
    for s, c in enumerate(extended):
        shares[:, c] += share[:, s]
    return float(-log_likelihood), shares


def _samples(
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: int,
) -> Iterator[tuple[float, Array, int]]:
    """Yield each sample's loss, shares and number of labels."""
    y, t = f64(log_probs), np.asarray(targets)
    y = y[:, None] if y.ndim == 2 else y
    times, counts = np.atleast_1d(input_lengths), np.atleast_1d(target_lengths)
    starts = np.cumsum(counts) - counts if t.ndim == 1 else np.arange(len(counts)) * t.shape[1]
    for n, (time, count, start) in enumerate(zip(times, counts, starts, strict=True)):
        labels = t.reshape(-1)[start : start + count].astype(np.intp)
        bad = labels[(labels < 0) | (labels >= y.shape[2])]
        if bad.size:
            raise ValueError(f"ctc_loss: targets must be in [0, {y.shape[2]}); got {bad[0]}")
        yield (*_sample(y[:time, n], labels, blank), int(count))


@quiet()
def ctc_loss(
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Return -log sum over paths of their probabilities; mean: each over its number of labels."""
    samples = list(_samples(log_probs, targets, input_lengths, target_lengths, blank))
    losses = np.array([loss for loss, _, _ in samples])
    if zero_infinity:
        losses[np.isposinf(losses)] = 0.0
    if reduction == "mean":
        losses = losses / [max(1, count) for _, _, count in samples]
    if reduction == "none" and np.ndim(log_probs) == 2:
        return np.asarray(losses[0])
    return _reduce(losses, reduction, len(samples))


@quiet()
def ctc_loss_backward(
    grad_output: ArrayLike,
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Return g (exp(log_probs) - shares), torch's gradient: right under a log_softmax only."""
    y = f64(log_probs)
    samples = list(_samples(y, targets, input_lengths, target_lengths, blank))
    grad = np.zeros((y.shape[0], len(samples), y.shape[-1]))
    g = np.broadcast_to(f64(grad_output), len(samples))
    for n, (loss, shares, count) in enumerate(samples):
        if zero_infinity and np.isposinf(loss):
            continue
        factor = g[n] / (len(samples) * max(1, count) if reduction == "mean" else 1.0)
        probs = np.exp(y.reshape(grad.shape)[: len(shares), n])
        grad[: len(shares), n] = factor * (probs - shares) if np.isfinite(loss) else np.nan
    return grad.reshape(y.shape)


def ctc_loss_value_and_grad(
    log_probs: ArrayLike,
    targets: ArrayLike,
    input_lengths: ArrayLike,
    target_lengths: ArrayLike,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[Array, Array]:
    """Return (loss, gradient) for a grad_output of one."""
    rest = (targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
    return ctc_loss(log_probs, *rest), ctc_loss_backward(1.0, log_probs, *rest)
