# SPDX-License-Identifier: MIT
"""Softmax and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._arrays import Array, f64, pick, quiet, sum_to


@quiet()
def softmax(input: ArrayLike, dim: int) -> Array:
    """Return y_c = exp(x_c - m) / sum_k exp(x_k - m) with m = max x, so that exp <= 1."""
    x = f64(input)
    e = np.exp(x - x.max(axis=dim, keepdims=True, initial=-np.inf))
    return np.asarray(e / e.sum(axis=dim, keepdims=True))


@quiet()
def softmax_backward(grad_output: ArrayLike, input: ArrayLike, dim: int) -> Array:
    """Return dx_c = y_c (dy_c - sum_k dy_k y_k)."""
    dy, y = f64(grad_output), softmax(input, dim)
    return np.asarray(y * (dy - (dy * y).sum(axis=dim, keepdims=True)))


@quiet()
def log_softmax(input: ArrayLike, dim: int) -> Array:
    """Return y_c = x_c - m - log sum_k exp(x_k - m) with m = max x."""
    x = f64(input)
    shifted = x - x.max(axis=dim, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=dim, keepdims=True)))


@quiet()
def log_softmax_backward(grad_output: ArrayLike, input: ArrayLike, dim: int) -> Array:
    """Return dx_c = dy_c - softmax(x)_c sum_k dy_k."""
    dy = f64(grad_output)
    return np.asarray(dy - softmax(input, dim) * dy.sum(axis=dim, keepdims=True))


def _reduce(values: Array, reduction: str, divisor: float) -> Array:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: must be 'none', 'mean' or 'sum'; got {reduction!r}")
    if reduction == "none":
        return values
    return np.asarray(values.sum() / (np.float64(divisor) if reduction == "mean" else 1.0))


def _reduce_backward(
    grad_output: ArrayLike, shape: tuple[int, ...], reduction: str, divisor: float
) -> Array:
    grad = f64(grad_output) / (np.float64(divisor) if reduction == "mean" else 1.0)
    return np.broadcast_to(grad, shape)


def _cross_entropy_rows(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[Array, Array, NDArray[np.bool_], float]:
    """Return each row's loss, s = d loss / d(-logp) (classes last), the kept rows, the divisor."""
    x, t, e = f64(input), np.asarray(target), label_smoothing
    class_axis = 0 if x.ndim == 1 else 1
    logp = np.moveaxis(log_softmax(x, class_axis), class_axis, -1)  # (..., C)
    classes = logp.shape[-1]
    w = np.ones(classes) if weight is None else f64(weight)
    if t.shape == x.shape:  # class probabilities
        share = w * ((1.0 - e) * np.moveaxis(f64(t), class_axis, -1) + e / classes)
        rows = np.asarray(-(share * logp).sum(axis=-1))
        return rows, share, np.ones(rows.shape, dtype=np.bool_), rows.size
    kept = np.asarray(t != ignore_index)
    bad = t[kept & ((t < 0) | (t >= classes))]
    if bad.size:
        raise ValueError(f"cross_entropy: target must be in [0, {classes}); got {bad.flat[0]}")
    index = np.where(kept, t, 0).astype(np.intp)
    rows = -(1.0 - e) * w[index] * np.take_along_axis(logp, index[..., None], axis=-1)[..., 0]
    if e > 0:  # not merged with the line above: 0 * -inf would be NaN where e is 0
        rows = rows - e / classes * (w * logp).sum(axis=-1)
    share = w * ((1.0 - e) * (index[..., None] == np.arange(classes)) + e / classes)
    return np.where(kept, rows, 0.0), share, kept, float(w[index][kept].sum())


@quiet()
def cross_entropy(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Return -sum_c w_c ((1-e) q_c + e/C) logp_c, q = target or its onehot; mean: / sum w_t."""
    rows, _, _, divisor = _cross_entropy_rows(input, target, weight, ignore_index, label_smoothing)
    return _reduce(rows, reduction, divisor)


@quiet()
def cross_entropy_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: str | Sequence[str] = "input",
) -> Any:
    """Return dx_c = g (softmax(x)_c sum_k s_k - s_c), s_c = w_c ((1-e) q_c + e/C); 0 if ignored.

    Of probabilities q: dq_c = -g (1-e) w_c logp_c.
    """
    rows, share, kept, divisor = _cross_entropy_rows(
        input, target, weight, ignore_index, label_smoothing
    )
    grad = _reduce_backward(grad_output, rows.shape, reduction, divisor)
    dlogp = np.where(kept[..., None], -share * grad[..., None], 0.0)
    class_axis = 0 if np.ndim(input) == 1 else 1
    dx = log_softmax_backward(np.moveaxis(dlogp, -1, class_axis), input, class_axis)
    logp = np.moveaxis(log_softmax(input, class_axis), class_axis, -1)
    w = 1.0 if weight is None else f64(weight)
    dq = -(1.0 - label_smoothing) * w * logp * grad[..., None]
    return pick(wrt, input=dx, target=np.moveaxis(dq, -1, class_axis))


def cross_entropy_value_and_grad(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    wrt: str | Sequence[str] = "input",
) -> tuple[Array, Any]:
    """Return (loss, gradients) for a grad_output of one."""
    options = (target, weight, ignore_index, reduction, label_smoothing)
    return cross_entropy(input, *options), cross_entropy_backward(1.0, input, *options, wrt=wrt)


def _squared_error(
    input: ArrayLike, target: ArrayLike, weight: ArrayLike | None
) -> tuple[Array, Array, float]:
    """Return the differences, the weights broadcast to them, and what a mean divides by."""
    x = f64(input)
    diff = np.asarray(x - f64(target))
    if weight is None:
        return diff, np.ones(diff.shape), diff.size
    w = f64(weight)
    if w.shape != x.shape:
        raise ValueError(f"mse_loss: weight must have input's shape {x.shape}; got {w.shape}")
    return diff, np.broadcast_to(w, diff.shape), float(w.sum())


@quiet()
def mse_loss(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    weight: ArrayLike | None = None,
) -> Array:
    """Return w (x - t)^2 an element; a mean divides by n, or by the sum of weight where given."""
    diff, w, divisor = _squared_error(input, target, weight)
    return _reduce(np.asarray(w * diff**2), reduction, divisor)


@quiet()
def mse_loss_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    weight: ArrayLike | None = None,
    *,
    wrt: str | Sequence[str] = "input",
) -> Any:
    """Return dx = 2 g w (x - t), dt = -dx, each summed back to the shape that was broadcast."""
    diff, w, divisor = _squared_error(input, target, weight)
    dx = 2.0 * _reduce_backward(grad_output, diff.shape, reduction, divisor) * w * diff
    return pick(wrt, input=sum_to(dx, np.shape(input)), target=sum_to(-dx, np.shape(target)))


def mse_loss_value_and_grad(
    input: ArrayLike,
    target: ArrayLike,
    reduction: str = "mean",
    weight: ArrayLike | None = None,
    *,
    wrt: str | Sequence[str] = "input",
) -> tuple[Array, Any]:
    """Return (loss, gradients) for a grad_output of one."""
    grads = mse_loss_backward(1.0, input, target, reduction, weight, wrt=wrt)
    return mse_loss(input, target, reduction, weight), grads
