# SPDX-License-Identifier: MIT
"""Losses with one value a row: each a formula, from which value and gradients follow.

A function with a leading underscore has the arguments of the public one. It returns the losses of
the rows, what takes their gradient back to each operand, what a mean divides by, and the reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, f64, pick, quiet, sum_to
from ._losses import _reduce, _reduce_backward

Backward = dict[str, Callable[[Array], Array]]
Terms = tuple[Array, Backward, float, str]

_SQUARED_EPS = float(np.float32(1e-12))  # torch adds it to squared lengths, a float in float64 too


def _checked(name: str, t: Any, low: int, classes: int) -> Any:
    bad = t[(t < low) | (t >= classes)]
    if bad.size:
        raise ValueError(f"{name}: target must be in [{low}, {classes}); got {bad.flat[0]}")
    return t.astype(np.intp)


def _nll_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Terms:
    """-w_t x_t; a mean divides by the sum of w_t."""
    x, t = f64(input), np.asarray(target)
    axis = 0 if x.ndim == 1 else 1
    rows = np.moveaxis(x, axis, -1)
    w = np.ones(rows.shape[-1]) if weight is None else f64(weight)
    kept = np.asarray(t != ignore_index)
    _checked("nll_loss", t[kept], 0, rows.shape[-1])
    index = np.where(kept, t, 0).astype(np.intp)
    onehot = (index[..., None] == np.arange(rows.shape[-1])) & kept[..., None]
    share = np.where(kept, w[index] if w.size else 0.0, 0.0)
    loss = np.where(kept, -share * np.where(onehot, rows, 0.0).sum(-1), 0.0)

    def dinput(g: Array) -> Array:
        return np.moveaxis(np.where(onehot, -(g * share)[..., None], 0.0), -1, axis)

    return loss, {"input": dinput}, float(share.sum()), reduction


def _hinge(z: Array, p: int = 1) -> tuple[Array, Array]:
    """max(0, z)^p and its slope; torch: both are 0 at a NaN."""
    above = np.where(z > 0, z, 0.0)
    return above**p, np.where(z > 0, p * above ** (p - 1), 0.0)


def _multi_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    p: int = 1,
    margin: float = 1.0,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Terms:
    """w_t / C sum over c != t of max(0, margin - x_t + x_c)^p."""
    x = np.atleast_2d(f64(input))
    count, classes = x.shape
    t = _checked("multi_margin_loss", np.asarray(target).reshape(count), 0, classes)
    each = np.arange(count)
    other = t[:, None] != np.arange(classes)
    share = (np.ones(classes) if weight is None else f64(weight))[t] / classes
    values, slopes = _hinge(np.where(other, margin - x[each, t][:, None] + x, -np.inf), p)

    def dinput(g: Array) -> Array:
        dx = slopes * (g.reshape(count) * share)[:, None]
        dx[each, t] = -dx.sum(-1)
        return np.asarray(dx.reshape(np.shape(input)))

    loss = (share * values.sum(-1)).reshape(np.shape(target))
    return loss, {"input": dinput}, count, reduction


def _multilabel_margin_loss(input: ArrayLike, target: ArrayLike, reduction: str = "mean") -> Terms:
    """1 / C sum over the listed t, and over c not listed, of max(0, 1 - x_t + x_c)."""
    x = np.atleast_2d(f64(input))
    classes = x.shape[-1]
    lists = _checked("multilabel_margin_loss", np.asarray(target).reshape(x.shape), -1, classes)
    loss, slope = np.zeros(len(x)), np.zeros(x.shape)
    for i, (row, entries) in enumerate(zip(x, lists, strict=True)):
        ends = np.flatnonzero(entries < 0)
        listed = entries[: ends[0]] if ends.size else entries
        rest = np.setdiff1d(np.arange(classes), listed)
        for t in listed:  # an entry that occurs twice counts twice
            value, one = _hinge(1.0 - row[t] + row[rest])
            loss[i] += value.sum() / classes
            slope[i, rest] += one / classes
            slope[i, t] -= one.sum() / classes

    def dinput(g: Array) -> Array:
        return (slope * g.reshape(-1, 1)).reshape(np.shape(input))

    shape = np.shape(input)[:-1]
    return loss.reshape(shape), {"input": dinput}, len(x), reduction


def _multilabel_soft_margin_loss(
    input: ArrayLike,
    target: ArrayLike,
    weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> Terms:
    """-1 / C sum_c w_c (t_c log s(x_c) + (1 - t_c) log s(-x_c)) with s the sigmoid."""
    x = f64(input)
    t = np.broadcast_to(f64(target), x.shape)
    w = np.broadcast_to(1.0 if weight is None else f64(weight), x.shape)
    share = w / np.float64(x.shape[-1])
    log_yes, log_no = -np.logaddexp(0.0, -x), -np.logaddexp(0.0, x)
    loss = -(w * (t * log_yes + (1.0 - t) * log_no)).sum(-1) / np.float64(x.shape[-1])
    backward: Backward = {
        "input": lambda g: (
            g[..., None] * share * ((1.0 - t) * np.exp(log_yes) - t * np.exp(log_no))
        ),
        "target": lambda g: sum_to(g[..., None] * share * -x, np.shape(target)),
    }
    return np.asarray(loss), backward, loss.size, reduction


def _distance(d: Array, p: float) -> tuple[Array, Array]:
    """The p-norm of each row and its derivative, 0 at a norm of 0; equal maxima share it."""
    size = np.abs(d)
    sign = np.where(d > 0, 1.0, np.where(d < 0, -1.0, 0.0))  # torch: 0 at a NaN
    if np.isinf(p):
        norm = size.max(-1, initial=0.0)
        top = size == norm[..., None]
        return norm, np.where(top, sign / np.maximum(top.sum(-1), 1)[..., None], 0.0)
    norm = (size**p).sum(-1) ** (1.0 / p)
    long = norm[..., None]
    slope = np.where((d == 0) & (p < 1), 0.0 * long, sign * (size / long) ** (p - 1.0))
    return norm, np.where(long == 0, 0.0, slope)


def _triplet_margin_loss(
    anchor: ArrayLike,
    positive: ArrayLike,
    negative: ArrayLike,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Terms:
    """max(0, margin + |a - p + eps| - |a - n + eps|); swap: |p - n + eps| where that is less."""
    names = {"anchor": anchor, "positive": positive, "negative": negative}
    shapes = {name: np.shape(value) for name, value in names.items()}
    a, b, n = np.broadcast_arrays(*map(f64, names.values()))
    near, d_near = _distance(a - b + eps, p)
    far, d_far = _distance(a - n + eps, p)
    share = np.ones(far.shape)  # of the gradient of the further distance that is a's
    d_swap = np.zeros(a.shape)
    if swap:
        other, d_swap = _distance(b - n + eps, p)
        share = np.where(far == other, 0.5, np.where(other < far, 0.0, 1.0))
        far = np.minimum(far, other)
    raw = np.asarray(margin + near - far)
    active = np.where(raw >= 0.0, 1.0, 0.0)  # torch: a clamp passes the gradient at its bound

    def parts(g: Array) -> dict[str, Array]:
        up = (g * active)[..., None]
        ab, an, bn = (
            up * d_near,
            -up * share[..., None] * d_far,
            -up * (1 - share)[..., None] * d_swap,
        )
        return {"anchor": ab + an, "positive": bn - ab, "negative": -an - bn}

    def of(name: str) -> Callable[[Array], Array]:
        return lambda g: sum_to(parts(g)[name], shapes[name])

    return np.maximum(raw, 0.0), {name: of(name) for name in names}, raw.size, reduction


def _cosine_embedding_loss(
    input1: ArrayLike,
    input2: ArrayLike,
    target: ArrayLike,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Terms:
    """1 - cos where t is 1, max(0, cos - margin) where t is -1, else 0."""
    x1, x2 = np.broadcast_arrays(f64(input1), f64(input2))
    t = np.asarray(target)
    shape = np.broadcast_shapes(x1.shape[:-1], t.shape)
    t = np.broadcast_to(t, shape)
    x1, x2 = (np.broadcast_to(x, (*shape, x.shape[-1])) for x in (x1, x2))
    square1, square2 = ((x * x).sum(-1) + _SQUARED_EPS for x in (x1, x2))
    length = np.sqrt(square1 * square2)
    cos = (x1 * x2).sum(-1) / length
    loss = np.where(t == 1, 1.0 - cos, np.where(t == -1, np.maximum(cos - margin, 0.0), 0.0))
    # torch: a clamp passes the gradient at its bound
    slope = np.where(t == 1, -1.0, np.where((t == -1) & (cos - margin >= 0.0), 1.0, 0.0))

    def toward(x: Array, y: Array, square: Array, to: tuple[int, ...]) -> Callable[[Array], Array]:
        def back(g: Array) -> Array:
            up = (g * slope)[..., None]
            return sum_to(up * (y / length[..., None] - (cos / square)[..., None] * x), to)

        return back

    backward: Backward = {
        "input1": toward(x1, x2, square1, np.shape(input1)),
        "input2": toward(x2, x1, square2, np.shape(input2)),
    }
    return np.asarray(loss), backward, loss.size, reduction


Function = Callable[..., Any]


def _family(terms: Callable[..., Terms], wrt: Sequence[str]) -> tuple[Function, Function, Function]:
    """Make X, X_backward and X_value_and_grad of a formula; wrt is their default."""
    default: Any = wrt[0] if len(wrt) == 1 else tuple(wrt)

    @quiet()
    def value(*operands: Any, **options: Any) -> Array:
        rows, _, divisor, reduction = terms(*operands, **options)
        return _reduce(rows, reduction, divisor)

    @quiet()
    def backward(grad_output: ArrayLike, *operands: Any, wrt: Any = default, **options: Any) -> Any:
        rows, back, divisor, reduction = terms(*operands, **options)
        g = _reduce_backward(grad_output, rows.shape, reduction, divisor)
        names = [wrt] if isinstance(wrt, str) else wrt
        return pick(wrt, **{k: np.asarray(f(g)) if k in names else g for k, f in back.items()})

    def value_and_grad(*operands: Any, wrt: Any = default, **options: Any) -> tuple[Array, Any]:
        return value(*operands, **options), backward(1.0, *operands, wrt=wrt, **options)

    name = (terms.__name__).removeprefix("_")
    value.__doc__ = f"Return {terms.__doc__}"
    backward.__doc__ = f"Return the gradients of `{name}` for the operands in wrt."
    value_and_grad.__doc__ = "Return (loss, gradients) for a grad_output of one."
    return value, backward, value_and_grad


nll_loss, nll_loss_backward, nll_loss_value_and_grad = _family(_nll_loss, ["input"])
multi_margin_loss, multi_margin_loss_backward, multi_margin_loss_value_and_grad = _family(
    _multi_margin_loss, ["input"]
)
(
    multilabel_margin_loss,
    multilabel_margin_loss_backward,
    multilabel_margin_loss_value_and_grad,
) = _family(_multilabel_margin_loss, ["input"])
(
    multilabel_soft_margin_loss,
    multilabel_soft_margin_loss_backward,
    multilabel_soft_margin_loss_value_and_grad,
) = _family(_multilabel_soft_margin_loss, ["input"])
triplet_margin_loss, triplet_margin_loss_backward, triplet_margin_loss_value_and_grad = _family(
    _triplet_margin_loss, ["anchor", "positive", "negative"]
)
(
    cosine_embedding_loss,
    cosine_embedding_loss_backward,
    cosine_embedding_loss_value_and_grad,
) = _family(_cosine_embedding_loss, ["input1", "input2"])
