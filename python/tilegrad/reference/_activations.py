# SPDX-License-Identifier: MIT
"""Elementwise activations: f above, f' below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, f64, pick, quiet

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946

_erfc: Callable[[Array], Array] = np.vectorize(math.erfc, otypes=[np.float64])


def identity(input: ArrayLike) -> Array:
    """Return y = x."""
    return np.array(input, dtype=np.float64)


def identity_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy."""
    return np.array(grad_output, dtype=np.float64)


def sigmoid(input: ArrayLike) -> Array:
    """Return y = 1 / (1 + exp(-x)), written with exp(-|x|), which cannot overflow."""
    x = f64(input)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


@quiet()
def sigmoid_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy s(x) (1 - s(x)), and 1 - s(x) = s(-x)."""
    return f64(grad_output) * sigmoid(input) * sigmoid(-f64(input))


def tanh(input: ArrayLike) -> Array:
    """Return y = (e^x - e^-x) / (e^x + e^-x)."""
    return np.tanh(f64(input))


@quiet()
def tanh_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy (1 - tanh(x)^2)."""
    return f64(grad_output) * (1.0 - np.tanh(f64(input)) ** 2)


def relu(input: ArrayLike) -> Array:
    """Return y = max(x, 0)."""
    return np.maximum(f64(input), 0.0)


def relu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = 0 where x <= 0, else dy (also where x is NaN, as torch)."""
    return np.where(f64(input) <= 0, 0.0, f64(grad_output))


@quiet()
def leaky_relu(input: ArrayLike, negative_slope: float = 0.01) -> Array:
    """Return y = x where x > 0, else negative_slope x."""
    x = f64(input)
    return np.where(x > 0, x, negative_slope * x)


@quiet()
def leaky_relu_backward(
    grad_output: ArrayLike, input: ArrayLike, negative_slope: float = 0.01
) -> Array:
    """Return dx = dy where x > 0, else negative_slope dy."""
    return f64(grad_output) * np.where(f64(input) > 0, 1.0, negative_slope)


@quiet()
def elu(input: ArrayLike, alpha: float = 1.0) -> Array:
    """Return y = x where x > 0, else alpha (exp(x) - 1)."""
    x = f64(input)
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


@quiet()
def elu_backward(grad_output: ArrayLike, input: ArrayLike, alpha: float = 1.0) -> Array:
    """Return dx = dy where x > 0, else dy alpha exp(x) (so alpha dy at 0, as torch)."""
    x = f64(input)
    return f64(grad_output) * np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0)))


def selu(input: ArrayLike) -> Array:
    """Return y = scale elu(x, alpha), with the constants that keep mean 0 and variance 1."""
    return SELU_SCALE * elu(input, SELU_ALPHA)


def selu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = scale dy elu'(x, alpha)."""
    return SELU_SCALE * elu_backward(grad_output, input, SELU_ALPHA)


_GELU_SCALE, _GELU_CUBIC = math.sqrt(2.0 / math.pi), 0.044715


@quiet()
def gelu(input: ArrayLike, approximate: str = "none") -> Array:
    """Return y = x P(x), P(x) = erfc(-x / sqrt 2) / 2, or (1 + tanh(a (x + 0.044715 x^3))) / 2."""
    x = f64(input)
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x)))
    return 0.5 * x * _erfc(-x * math.sqrt(0.5))


@quiet()
def gelu_backward(grad_output: ArrayLike, input: ArrayLike, approximate: str = "none") -> Array:
    """Return dx = dy (P(x) + x P'(x)); for erf P'(x) = exp(-x^2 / 2) / sqrt(2 pi)."""
    x = f64(input)
    if approximate == "tanh":
        t = np.tanh(_GELU_SCALE * (x + _GELU_CUBIC * x * x * x))
        slope = 0.5 * (1.0 - t * t) * _GELU_SCALE * (1.0 + 3.0 * _GELU_CUBIC * x * x)
        return f64(grad_output) * (0.5 * (1.0 + t) + x * slope)
    slope = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return f64(grad_output) * (0.5 * _erfc(-x * math.sqrt(0.5)) + x * slope)


@quiet()
def silu(input: ArrayLike) -> Array:
    """Return y = x s(x), s the sigmoid."""
    return f64(input) * sigmoid(input)


@quiet()
def silu_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy s(x) (1 + x (1 - s(x)))."""
    x = f64(input)
    return f64(grad_output) * sigmoid(x) * (1.0 + x * sigmoid(-x))


@quiet()
def softplus(input: ArrayLike, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return y = log(1 + exp(beta x)) / beta, and x where beta x > threshold."""
    x = f64(input)
    return np.where(beta * x > threshold, x, np.logaddexp(0.0, beta * x) / beta)


@quiet()
def softplus_backward(
    grad_output: ArrayLike, input: ArrayLike, beta: float = 1.0, threshold: float = 20.0
) -> Array:
    """Return dx = dy s(beta x), and dy where beta x > threshold."""
    u = beta * f64(input)
    return f64(grad_output) * np.where(u > threshold, 1.0, sigmoid(u))


@quiet()
def mish(input: ArrayLike) -> Array:
    """Return y = x tanh(log(1 + exp(x)))."""
    return f64(input) * np.tanh(np.logaddexp(0.0, f64(input)))


@quiet()
def mish_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy (t + x s (1 - t^2)), t = tanh(log(1 + exp(x))), 1 - t^2 = 1 / cosh^2."""
    x = f64(input)
    u = np.logaddexp(0.0, x)
    return np.asarray(f64(grad_output) * (np.tanh(u) + x * sigmoid(x) / np.cosh(u) ** 2))


@quiet()
def hardtanh(input: ArrayLike, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """Return y = min(max(x, min_val), max_val)."""
    return np.clip(f64(input), min_val, max_val)


@quiet()
def hardtanh_backward(
    grad_output: ArrayLike, input: ArrayLike, min_val: float = -1.0, max_val: float = 1.0
) -> Array:
    """Return dx = 0 where x <= min_val or x >= max_val, else dy (also where x is NaN, as torch)."""
    x = f64(input)
    return np.where((x <= min_val) | (x >= max_val), 0.0, f64(grad_output))


def relu6(input: ArrayLike) -> Array:
    """Return y = min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0)


def relu6_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy where 0 < x < 6, else 0."""
    return hardtanh_backward(grad_output, input, 0.0, 6.0)


def hardsigmoid(input: ArrayLike) -> Array:
    """Return y = min(max(x + 3, 0), 6) / 6."""
    return np.clip(f64(input) + 3.0, 0.0, 6.0) / 6.0


@quiet()
def hardsigmoid_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = dy / 6 where -3 < x < 3, else 0 (also where x is NaN, as torch)."""
    return np.where(np.abs(f64(input)) < 3.0, f64(grad_output) / 6.0, 0.0)


@quiet()
def hardswish(input: ArrayLike) -> Array:
    """Return y = x min(max(x + 3, 0), 6) / 6."""
    return f64(input) * hardsigmoid(input)


@quiet()
def hardswish_backward(grad_output: ArrayLike, input: ArrayLike) -> Array:
    """Return dx = 0 where x <= -3, dy (x / 3 + 1/2) where x < 3, else dy."""
    x, dy = f64(input), f64(grad_output)
    return np.where(x <= -3.0, 0.0, np.where(x >= 3.0, dy, dy * (x / 3.0 + 0.5)))


def _slopes(x: Array, weight: ArrayLike) -> Array:
    """Return a view of weight that broadcasts along the second axis of x."""
    w = f64(weight)
    return w.reshape(()) if w.size == 1 else w.reshape(w.size, *(1,) * (x.ndim - 2))


@quiet()
def prelu(input: ArrayLike, weight: ArrayLike) -> Array:
    """Return y = x where x > 0, else w[c] x, c along the second axis."""
    x = f64(input)
    return np.where(x > 0, x, _slopes(x, weight) * x)


@quiet()
def prelu_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    wrt: str | Sequence[str] = ("input", "weight"),
) -> Any:
    """Return dx = dy where x > 0, else w[c] dy; dw[c] = sum of x dy over the other x."""
    x, dy = f64(input), f64(grad_output)
    w = _slopes(x, weight)
    terms = np.where(x > 0, 0.0, x * dy)
    shape = np.shape(weight)
    axes = tuple(axis for axis in range(x.ndim) if w.ndim == 0 or axis != 1)
    return pick(wrt, input=np.where(x > 0, dy, w * dy), weight=terms.sum(axis=axes).reshape(shape))


# Name in linear -> (f, its backward).
ACTIVATIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "identity": (identity, identity_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "relu": (relu, relu_backward),
    "leaky_relu": (leaky_relu, leaky_relu_backward),
    "elu": (elu, elu_backward),
    "selu": (selu, selu_backward),
    "gelu": (gelu, gelu_backward),
    "gelu_tanh": (partial(gelu, approximate="tanh"), partial(gelu_backward, approximate="tanh")),
    "silu": (silu, silu_backward),
    "softplus": (softplus, softplus_backward),
    "mish": (mish, mish_backward),
    "hardtanh": (hardtanh, hardtanh_backward),
    "relu6": (relu6, relu6_backward),
    "hardsigmoid": (hardsigmoid, hardsigmoid_backward),
    "hardswish": (hardswish, hardswish_backward),
}
