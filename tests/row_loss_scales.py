# SPDX-License-Identifier: MIT
"""How far rounding may take the losses with one value a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from row_loss_cases import OPERANDS, Array


def scales(
    op: str, operands: tuple[Any, ...], g: Any, **options: Any
) -> tuple[Array, dict[str, Array]]:
    """Return the sizes that errors are relative to: of the loss, and of each gradient.

    They are the sums of the magnitudes of what the result is made of; a bound is a sum's tolerance
    times them.
    """
    reduction = options.pop("reduction", "mean")
    x, *others = (np.asarray(operand, np.float64) for operand in operands)
    upstream = np.abs(np.asarray(g, np.float64))
    with np.errstate(all="ignore"):
        rows, slopes, divisor = _SCALES[op](x, *others, **options)
        if reduction == "none":
            total = rows
        else:
            divisor = divisor if reduction == "mean" else 1.0
            total, upstream = rows.sum() / np.float64(divisor), upstream / np.float64(divisor)
        upstream = np.broadcast_to(upstream, rows.shape)
        shapes = dict(zip(OPERANDS[op], map(np.shape, operands), strict=False))
        found = {}
        for name, slope in slopes.items():
            if op == "nll_loss" and x.ndim != 1:
                product = np.expand_dims(upstream, 1) * slope
            else:
                product = upstream[..., None] * slope
            shape = shapes[name]
            lead = product.ndim - len(shape)
            product = product.sum(axis=tuple(range(lead)))
            axes = tuple(i for i, n in enumerate(shape) if n == 1 and product.shape[i] != 1)
            found[name] = product.sum(axis=axes, keepdims=True)
    return np.asarray(total), found


Scale = tuple[Array, dict[str, Array], float]


def _nll_scale(x: Array, t: Array, weight: Any = None, ignore_index: int = -100) -> Scale:
    axis = 0 if x.ndim == 1 else 1
    index = np.where(t == ignore_index, 0, t).astype(int)
    w = np.ones(x.shape[axis]) if weight is None else np.float64(weight)
    kept = np.where(t == ignore_index, 0.0, w[index])
    rows = kept * np.take_along_axis(np.abs(x), np.expand_dims(index, axis), axis).squeeze(axis)
    slopes = np.broadcast_to(np.expand_dims(kept, axis), x.shape)
    return rows, {"input": slopes}, float(kept.sum())


def _multi_margin_scale(
    x: Array, t: Array, p: int = 1, margin: float = 1.0, weight: Any = None
) -> Scale:
    two = np.atleast_2d(x)
    count, classes = two.shape
    index = t.reshape(count).astype(int)
    w = np.ones(classes) if weight is None else np.float64(weight)
    share = w[index] / classes
    z = abs(margin) + np.abs(two[np.arange(count), index])[:, None] + np.abs(two)
    slope = (share * (p * z ** (p - 1)).sum(-1))[:, None] * np.ones(classes)
    rows = (share * (z**p).sum(-1)).reshape(t.shape)
    return rows, {"input": slope.reshape(*t.shape, classes)}, count


def _multilabel_margin_scale(x: Array, t: Array) -> Scale:
    two, lists = np.atleast_2d(np.abs(x)), np.atleast_2d(t).astype(int)
    classes = two.shape[-1]
    listed = np.cumprod(lists >= 0, axis=-1).sum(-1)
    rows = listed * (1 + 2 * two.max(-1))
    often = np.array([max(np.bincount(row[row >= 0], minlength=1)) for row in lists])
    slope = np.maximum(listed / classes, often)[:, None] * np.ones(classes)
    return rows.reshape(x.shape[:-1]), {"input": slope.reshape(x.shape)}, len(two)


def _labels_scale(x: Array, t: Array, weight: Any = None) -> Scale:
    w = np.broadcast_to(1.0 if weight is None else np.float64(weight), x.shape) / x.shape[-1]
    terms = w * (np.abs(t) + np.abs(1 - t)) * (1 + np.abs(x))
    rows = np.asarray(terms.sum(-1))
    # torch's gradient of target is the difference of two logarithms
    return rows, {"input": terms, "target": w * (1 + np.abs(x))}, rows.size


def _triplet_scale(
    a: Array, b: Array, n: Array, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6,
    swap: bool = False,
) -> Scale:  # fmt: skip
    a, b, n = np.broadcast_arrays(a, b, n)
    norms, slopes = [], []
    for d in (a - b + eps, a - n + eps, b - n + eps):
        size = np.abs(d)
        if np.isinf(p):
            norm = size.max(-1, initial=0.0)
            slope = np.ones(d.shape)
        else:
            norm = (size**p).sum(-1) ** (1 / p)
            slope = (size / norm[..., None]) ** (p - 1)
        norms.append(norm)
        slopes.append(np.where(norm[..., None] > 0, slope, 0.0))
    third = 1.0 if swap else 0.0
    rows = margin + norms[0] + norms[1] + third * norms[2]
    every = slopes[0] + slopes[1] + third * slopes[2]
    return rows, {"anchor": every, "positive": every, "negative": every}, rows.size


def _cosine_scale(x1: Array, x2: Array, t: Array, margin: float = 0.0) -> Scale:
    shape = np.broadcast_shapes(x1.shape[:-1], x2.shape[:-1], t.shape)
    x1, x2 = (np.broadcast_to(x, (*shape, x.shape[-1])) for x in (x1, x2))
    length1, length2 = (np.sqrt((x * x).sum(-1) + 1e-12) for x in (x1, x2))
    rows = 1 + abs(margin) + np.abs(x1 * x2).sum(-1) / (length1 * length2)
    unit1, unit2 = np.abs(x1) / length1[..., None], np.abs(x2) / length2[..., None]
    slopes = {"input1": (unit1 + unit2) / length1[..., None]}
    slopes["input2"] = (unit1 + unit2) / length2[..., None]
    return rows, slopes, rows.size


_SCALES: dict[str, Callable[..., Scale]] = {
    "nll_loss": _nll_scale,
    "multi_margin_loss": _multi_margin_scale,
    "multilabel_margin_loss": _multilabel_margin_scale,
    "multilabel_soft_margin_loss": _labels_scale,
    "triplet_margin_loss": _triplet_scale,
    "cosine_embedding_loss": _cosine_scale,
}
