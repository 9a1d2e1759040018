# SPDX-License-Identifier: MIT
"""Losses of one element at a time: a value and its derivatives, which the family reduces.

Each function with a leading underscore takes the operands broadcast to one shape and returns the
loss of every element and its derivative by every operand that has one, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, f64, pick, quiet, sum_to

Terms = tuple[Array, dict[str, Array]]

_LEAST = float(np.float32(1e-12))  # torch's bound of x (1 - x), a float in float64 too


def _l1(x: Array, t: Array) -> Terms:
    sign = np.sign(x - t)
    return np.abs(x - t), {"input": sign, "target": -sign}


def _smooth_l1(x: Array, t: Array, beta: float = 1.0) -> Terms:
    d = x - t
    near = np.abs(d) < beta
    slope = np.where(near, d / (beta or 1.0), np.sign(d))
    loss = np.where(near, 0.5 * d * d / (beta or 1.0), np.abs(d) - 0.5 * beta)
    return loss, {"input": slope, "target": -slope}


def _huber(x: Array, t: Array, delta: float = 1.0) -> Terms:
    d = x - t
    slope = np.clip(d, -delta, delta)
    loss = np.where(np.abs(d) <= delta, 0.5 * d * d, delta * (np.abs(d) - 0.5 * delta))
    return loss, {"input": slope, "target": -slope}


def _binary_cross_entropy(x: Array, t: Array) -> Terms:
    log_x, log_rest = np.maximum(np.log(x), -100.0), np.maximum(np.log1p(-x), -100.0)
    slope = (x - t) / np.maximum(x * (1.0 - x), _LEAST)
    dt = np.log1p(-x) - np.log(x)  # torch: the bounds of the logarithms are not in it
    return -t * log_x - (1.0 - t) * log_rest, {"input": slope, "target": dt}


def _binary_cross_entropy_with_logits(x: Array, t: Array, pos_weight: ArrayLike = 1.0) -> Terms:
    w = f64(pos_weight)
    loss_if_1, loss_if_0 = np.logaddexp(0.0, -x), np.logaddexp(0.0, x)  # -log s, -log(1 - s)
    dx = (1.0 - t) * np.exp(-loss_if_1) - w * t * np.exp(-loss_if_0)
    loss = (1.0 - t) * loss_if_0 + w * t * loss_if_1
    return loss, {"input": dx, "target": (w - 1.0) * loss_if_1 - x}


def _poisson_nll(
    x: Array, t: Array, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Terms:
    rate = np.exp(x) if log_input else x
    loss = rate - t * (x if log_input else np.log(x + eps))
    dx = rate - t if log_input else 1.0 - t / (x + eps)
    dt = -(x if log_input else np.log(x + eps)) * np.ones_like(t)
    if full:  # Stirling's formula for log t!
        large = t > 1.0
        safe = np.where(large, t, 1.0)
        stirling = safe * np.log(safe) - safe + 0.5 * np.log(2.0 * math.pi * safe)
        loss = loss + np.where(large, stirling, 0.0)
        dt = dt + np.where(large, np.log(safe) + 0.5 / safe, 0.0)
    return loss, {"input": dx, "target": dt}


def _gaussian_nll(x: Array, t: Array, var: Array, full: bool = False, eps: float = 1e-6) -> Terms:
    v = np.maximum(var, eps)  # torch: the derivative is that at v, also where var is below eps
    d = x - t
    loss = 0.5 * (np.log(v) + d * d / v) + (0.5 * math.log(2.0 * math.pi) if full else 0.0)
    return loss, {"input": d / v, "target": -d / v, "var": 0.5 * (1.0 / v - (d / v) ** 2)}


def _kl_div(x: Array, t: Array, log_target: bool = False) -> Terms:
    if log_target:
        p = np.exp(t)
        return p * (t - x), {"input": -p * np.ones_like(x), "target": p * (t - x + 1.0)}
    log_t = np.log(np.where(t == 0, 1.0, t))  # 0 log 0 = 0
    dt = log_t + t / t - x  # torch: NaN where t is 0
    loss = t * log_t - t * x
    return loss, {"input": -t * np.ones_like(x), "target": dt}


def _margin_ranking(x1: Array, x2: Array, t: Array, margin: float = 0.0) -> Terms:
    inside = margin - t * (x1 - x2)
    slope = np.where(inside >= 0.0, -t, 0.0)  # torch: a clamp passes the gradient at its bound
    return np.maximum(inside, 0.0), {
        "input1": slope,
        "input2": -slope,
        "target": np.where(inside >= 0.0, x2 - x1, 0.0),
    }


def _hinge_embedding(x: Array, t: Array, margin: float = 1.0) -> Terms:
    apart = np.where(t == 1.0, 0.0, np.maximum(margin - x, 0.0))
    near = np.where(t == -1.0, 0.0, x)
    slope = np.where((t == 1.0) | (margin - x < 0.0), 0.0, -1.0) + np.where(t == -1.0, 0.0, 1.0)
    return apart + near, {"input": slope}


def _soft_margin(x: Array, t: Array) -> Terms:
    return np.logaddexp(0.0, -t * x), {"input": -t * np.exp(-np.logaddexp(0.0, t * x))}


# Name -> (its terms, its operands, its options in torch's order).
POINTWISE: dict[str, tuple[Callable[..., Terms], tuple[str, ...], tuple[str, ...]]] = {
    "l1_loss": (_l1, ("input", "target"), ("reduction", "weight")),
    "smooth_l1_loss": (_smooth_l1, ("input", "target"), ("reduction", "beta")),
    "huber_loss": (_huber, ("input", "target"), ("reduction", "delta", "weight")),
    "binary_cross_entropy": (_binary_cross_entropy, ("input", "target"), ("weight", "reduction")),
    "binary_cross_entropy_with_logits": (
        _binary_cross_entropy_with_logits,
        ("input", "target"),
        ("weight", "reduction", "pos_weight"),
    ),
    "poisson_nll_loss": (
        _poisson_nll,
        ("input", "target"),
        ("log_input", "full", "eps", "reduction"),
    ),
    "gaussian_nll_loss": (_gaussian_nll, ("input", "target", "var"), ("full", "eps", "reduction")),
    "kl_div": (_kl_div, ("input", "target"), ("reduction", "log_target")),
    "margin_ranking_loss": (
        _margin_ranking,
        ("input1", "input2", "target"),
        ("margin", "reduction"),
    ),
    "hinge_embedding_loss": (_hinge_embedding, ("input", "target"), ("margin", "reduction")),
    "soft_margin_loss": (_soft_margin, ("input", "target"), ("reduction",)),
}
SUM_OF_WEIGHTS = ("l1_loss",)  # divides the weighted mean; elsewhere n does
_WRT: dict[str, str | tuple[str, ...]] = {
    "gaussian_nll_loss": ("input", "var"),
    "margin_ranking_loss": ("input1", "input2"),
}


@quiet()
def pointwise_loss(
    name: str,
    *operands: ArrayLike,
    reduction: str = "mean",
    weight: ArrayLike | None = None,
    grad_output: ArrayLike = 1.0,
    wrt: str | Sequence[str] = (),
    **options: Any,
) -> tuple[Array, Any]:
    """Return the loss of that name and, for the operands in wrt, grad_output times its gradient."""
    function, names, _ = POINTWISE[name]
    values = [f64(operand) for operand in operands]
    shapes = [value.shape for value in values]
    if names[-1] == "var" and shapes[2] == shapes[0][:-1] != shapes[0]:
        values[2] = values[2][..., None]  # the same along input's last axis
    full = np.broadcast_arrays(*values)
    if name == "binary_cross_entropy" and not all(((v >= 0) & (v <= 1)).all() for v in full):
        raise ValueError("binary_cross_entropy: input and target must be in [0, 1]")
    loss, slopes = function(*full, **options)
    w = np.broadcast_to(f64(1.0 if weight is None else weight), loss.shape)
    divisors = {
        "none": 1.0,
        "sum": 1.0,
        "mean": loss.size,
        "batchmean": shapes[0][0] if shapes[0] else 1.0,
    }
    if weight is not None and name in SUM_OF_WEIGHTS:
        divisors["mean"] = w.sum()
    divisor = np.float64(divisors[reduction])
    value = w * loss if reduction == "none" else (w * loss).sum() / divisor
    upstream = f64(grad_output) * w / divisor
    grads = {
        key: sum_to(np.asarray(upstream * slopes[key]), operand.shape).reshape(shape)
        for key, operand, shape in zip(names, values, shapes, strict=True)
        if key in slopes
    }
    return np.asarray(value), pick(wrt, **grads) if wrt else None


def _family(name: str) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Return the loss of that name, its backward function and the two in one."""
    _, names, order = POINTWISE[name]

    def options(args: tuple[Any, ...], more: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        given = {**dict(zip((*names, *order), args, strict=False)), **more}
        if given.get("pos_weight", 0) is None:
            del given["pos_weight"]
        return [given.pop(key) for key in names], given

    def forward(*args: Any, **more: Any) -> Array:
        operands, given = options(args, more)
        return pointwise_loss(name, *operands, **given)[0]

    def backward(grad_output: ArrayLike, *args: Any, wrt: Any = None, **more: Any) -> Any:
        operands, given = options(args, more)
        wrt = _WRT.get(name, names[0]) if wrt is None else wrt
        return pointwise_loss(name, *operands, grad_output=grad_output, wrt=wrt, **given)[1]

    def value_and_grad(*args: Any, wrt: Any = None, **more: Any) -> tuple[Array, Any]:
        return forward(*args, **more), backward(1.0, *args, wrt=wrt, **more)

    forward.__name__ = name
    backward.__name__, value_and_grad.__name__ = f"{name}_backward", f"{name}_value_and_grad"
    return forward, backward, value_and_grad


l1_loss, l1_loss_backward, l1_loss_value_and_grad = _family("l1_loss")
smooth_l1_loss, smooth_l1_loss_backward, smooth_l1_loss_value_and_grad = _family("smooth_l1_loss")
huber_loss, huber_loss_backward, huber_loss_value_and_grad = _family("huber_loss")
binary_cross_entropy, binary_cross_entropy_backward, binary_cross_entropy_value_and_grad = _family(
    "binary_cross_entropy"
)
(
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    binary_cross_entropy_with_logits_value_and_grad,
) = _family("binary_cross_entropy_with_logits")
poisson_nll_loss, poisson_nll_loss_backward, poisson_nll_loss_value_and_grad = _family(
    "poisson_nll_loss"
)
gaussian_nll_loss, gaussian_nll_loss_backward, gaussian_nll_loss_value_and_grad = _family(
    "gaussian_nll_loss"
)
kl_div, kl_div_backward, kl_div_value_and_grad = _family("kl_div")
margin_ranking_loss, margin_ranking_loss_backward, margin_ranking_loss_value_and_grad = _family(
    "margin_ranking_loss"
)
hinge_embedding_loss, hinge_embedding_loss_backward, hinge_embedding_loss_value_and_grad = _family(
    "hinge_embedding_loss"
)
soft_margin_loss, soft_margin_loss_backward, soft_margin_loss_value_and_grad = _family(
    "soft_margin_loss"
)
