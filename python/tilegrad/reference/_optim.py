# SPDX-License-Identifier: MIT
"""One update of one parameter, with the arithmetic of torch.optim, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, f64, quiet


def _penalised(
    w: Array, grad: ArrayLike, weight_decay: float, l1_decay: float, maximize: bool
) -> Array:
    """Return g, negative to maximise, + l1_decay sign(w) + weight_decay w."""
    sign = (w > 0).astype(np.float64) - (w < 0)
    return (-f64(grad) if maximize else f64(grad)) + l1_decay * sign + weight_decay * w


@quiet()
def sgd(
    param: ArrayLike,
    grad: ArrayLike,
    momentum_buffer: ArrayLike | None = None,
    *,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    l1_decay: float = 0.0,
) -> tuple[Array, Array | None]:
    """Return (w - lr v, v), v = momentum v + (1 - dampening) g, or v = g at first."""
    w = f64(param)
    g = _penalised(w, grad, weight_decay, l1_decay, maximize)
    if momentum == 0:
        return w - lr * g, None
    v = g
    if momentum_buffer is not None:
        v = momentum * f64(momentum_buffer) + (1 - dampening) * g
    return w - lr * (g + momentum * v if nesterov else v), v


@quiet()
def adam(
    param: ArrayLike,
    grad: ArrayLike,
    exp_avg: ArrayLike,
    exp_avg_sq: ArrayLike,
    step: int,
    max_exp_avg_sq: ArrayLike | None = None,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    maximize: bool = False,
    l1_decay: float = 0.0,
) -> tuple[Array, Array, Array, Array | None]:
    """Return w - lr m' / (sqrt(v') + eps), m, v: running means of g, g^2; m', v' without bias.

    step counts from 1. The fourth result is the running maximum of v, with amsgrad.
    """
    w = f64(param)
    g = _penalised(w, grad, weight_decay, l1_decay, maximize)
    m = f64(exp_avg) + (g - f64(exp_avg)) * (1 - betas[0])
    v = betas[1] * f64(exp_avg_sq) + (1 - betas[1]) * g * g
    top = np.maximum(v, 0.0 if max_exp_avg_sq is None else f64(max_exp_avg_sq)) if amsgrad else None
    denominator = np.sqrt(v if top is None else top) / math.sqrt(1 - betas[1] ** step) + eps
    return w - lr / (1 - betas[0] ** step) * m / denominator, m, v, top


@quiet()
def adamw(
    param: ArrayLike,
    grad: ArrayLike,
    exp_avg: ArrayLike,
    exp_avg_sq: ArrayLike,
    step: int,
    max_exp_avg_sq: ArrayLike | None = None,
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
    l1_decay: float = 0.0,
) -> tuple[Array, Array, Array, Array | None]:
    """Return adam's update of w (1 - lr weight_decay): the decay stays out of the running means."""
    w = f64(param) * (1 - lr * weight_decay)
    update = partial(adam, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad, maximize=maximize)
    return update(w, grad, exp_avg, exp_avg_sq, step, max_exp_avg_sq, l1_decay=l1_decay)


@quiet()
def rmsprop(
    param: ArrayLike,
    grad: ArrayLike,
    square_avg: ArrayLike,
    momentum_buffer: ArrayLike = 0.0,
    grad_avg: ArrayLike = 0.0,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    maximize: bool = False,
    l1_decay: float = 0.0,
) -> tuple[Array, Array, Array, Array]:
    """Return w - lr v, s, v, a: s, a running means of g^2, g; v = momentum v + g / (d + eps).

    d^2 = s, or s - a^2 with centered.
    """
    w = f64(param)
    g = _penalised(w, grad, weight_decay, l1_decay, maximize)
    s = alpha * f64(square_avg) + (1 - alpha) * g * g
    a = f64(grad_avg) + (1 - alpha) * (g - f64(grad_avg))
    v = momentum * f64(momentum_buffer) + g / (np.sqrt(s - a * a if centered else s) + eps)
    return w - lr * v, s, v, a


@quiet()
def adagrad(
    param: ArrayLike,
    grad: ArrayLike,
    sum: ArrayLike,
    step: int,
    *,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    maximize: bool = False,
    l1_decay: float = 0.0,
) -> tuple[Array, Array]:
    """Return w - lr' g / (sqrt(s) + eps) and s = sum + g^2; lr' = lr / (1 + (step - 1) lr_decay).

    step counts from 1.
    """
    w = f64(param)
    g = _penalised(w, grad, weight_decay, l1_decay, maximize)
    s = f64(sum) + g * g
    return w - lr / (1 + (step - 1) * lr_decay) * g / (np.sqrt(s) + eps), s


@quiet()
def clip_grad_value(grads: Sequence[ArrayLike], clip_value: float) -> list[Array]:
    """Return min(max(g, -clip_value), clip_value) of every g."""
    return [np.clip(f64(g), -clip_value, clip_value) for g in grads]


@quiet()
def clip_grad_norm(
    grads: Sequence[ArrayLike], max_norm: float, norm_type: float = 2.0
) -> tuple[Array, list[Array]]:
    """Return norm = |all grads as one vector| and every g min(1, max_norm / (norm + 1e-6))."""
    if norm_type not in (1, 2, math.inf):
        raise ValueError(f"clip_grad_norm: norm_type must be 1, 2 or inf; got {norm_type}")
    flat = np.concatenate([np.zeros(1), *(f64(g).ravel() for g in grads)])
    norm = np.asarray(np.linalg.norm(flat, norm_type))
    scale = np.minimum(1.0, max_norm / (norm + 1e-6))
    return norm, [f64(g) * scale for g in grads]
