# SPDX-License-Identifier: MIT
"""Elementwise activations: f above, f' below."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from ._arrays import Array, f64, quiet

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
}
