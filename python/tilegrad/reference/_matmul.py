# SPDX-License-Identifier: MIT
"""Matrix products and the dense layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ._activations import ACTIVATIONS
from ._arrays import Array, f64, pick, quiet, sum_to


def _transposed(x: Array, transpose: bool) -> Array:
    return np.swapaxes(x, -1, -2) if transpose else x


@quiet()
def matmul(
    a: ArrayLike, b: ArrayLike, *, transpose_a: bool = False, transpose_b: bool = False
) -> Array:
    """Return c[..., i, j] = sum_p a[..., i, p] b[..., p, j]; batches and 1-D as NumPy."""
    return np.asarray(_transposed(f64(a), transpose_a) @ _transposed(f64(b), transpose_b))


@quiet()
def matmul_backward(
    grad_output: ArrayLike,
    a: ArrayLike,
    b: ArrayLike,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    wrt: str | Sequence[str] = ("a", "b"),
) -> Any:
    """Return da = dc b^T, db = a^T dc, each transposed back, summed over its broadcast batches."""
    a, b = f64(a), f64(b)
    left = _transposed(a, transpose_a) if a.ndim > 1 else a[None, :]  # (..., m, k)
    right = _transposed(b, transpose_b) if b.ndim > 1 else b[:, None]  # (..., k, n)
    grad = f64(grad_output).reshape((left @ right).shape)  # (..., m, n)
    da = _transposed(sum_to(grad @ right.swapaxes(-1, -2), left.shape), transpose_a)
    db = _transposed(sum_to(left.swapaxes(-1, -2) @ grad, right.shape), transpose_b)
    return pick(wrt, a=da.reshape(a.shape), b=db.reshape(b.shape))


@quiet()
def linear(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    save_preactivation: bool = False,
) -> Any:
    """Return y = f(z), z = x weight^T + bias; or (y, z) with save_preactivation."""
    z = f64(input) @ f64(weight).T + (0.0 if bias is None else f64(bias))
    forward, _ = ACTIVATIONS[activation or "identity"]
    y = forward(z, **(activation_args or {}))
    return (y, z) if save_preactivation else y


@quiet()
def linear_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    wrt: str | Sequence[str] = ("input", "weight", "bias"),
) -> tuple[Array | None, Array | None, Array | None]:
    """Return dz = dy f'(z); dx = dz weight, dweight = dz^T x, dbias = sum over rows of dz."""
    x, w = f64(input), f64(weight)
    _, z = linear(x, w, bias, save_preactivation=True)
    _, backward = ACTIVATIONS[activation or "identity"]
    dz = backward(grad_output, z, **(activation_args or {}))
    rows = math.prod(x.shape[:-1])
    dz_rows, x_rows = dz.reshape(rows, w.shape[0]), x.reshape(rows, w.shape[1])
    wanted = {wrt} if isinstance(wrt, str) else set(wrt)
    return (
        dz @ w if "input" in wanted else None,
        dz_rows.T @ x_rows if "weight" in wanted else None,
        dz_rows.sum(axis=0) if "bias" in wanted and bias is not None else None,
    )


@quiet()
def fused_mlp(
    input: ArrayLike,
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike | None] | None = None,
    activation: str | None = "relu",
    output_activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output_activation_args: Mapping[str, float] | None = None,
) -> Array:
    """Return a_L of a_0 = x, a_{l+1} = f_l(a_l weights[l]^T + biases[l])."""
    a = f64(input)
    for layer, weight in enumerate(weights):
        bias = None if biases is None else biases[layer]
        is_last = layer + 1 == len(weights)
        f = (
            (output_activation, output_activation_args)
            if is_last
            else (activation, activation_args)
        )
        a = linear(a, weight, bias, f[0], activation_args=f[1])
    return a


@quiet()
def fused_mlp_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike | None] | None = None,
    activation: str | None = "relu",
    output_activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output_activation_args: Mapping[str, float] | None = None,
    wrt: str | Sequence[str] = ("input", "weights", "biases"),
) -> tuple[Array | None, Any, Any]:
    """Return dx, dweights and dbiases: linear_backward of each layer from the last one on."""
    hidden, output = (activation, activation_args), (output_activation, output_activation_args)
    count = len(weights)
    given = [None] * count if biases is None else list(biases)
    functions = [hidden] * (count - 1) + [output]
    inputs = [f64(input)]
    for weight, bias, (name, args) in zip(weights, given, functions, strict=True):
        inputs.append(linear(inputs[-1], weight, bias, name, activation_args=args))
    gradient: Any = f64(grad_output)
    dweights: list[Any] = [None] * count
    dbiases: list[Any] = [None] * count
    for layer in reversed(range(count)):
        name, args = functions[layer]
        gradient, dweights[layer], dbiases[layer] = linear_backward(
            gradient, inputs[layer], weights[layer], given[layer], name, activation_args=args
        )
    wanted = {wrt} if isinstance(wrt, str) else set(wrt)
    return (
        gradient if "input" in wanted else None,
        tuple(dweights) if "weights" in wanted else None,
        tuple(dbiases) if "biases" in wanted and biases is not None else None,
    )
