# SPDX-License-Identifier: MIT
"""The dense layer, with bias and activation fused into the matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backends import of
from ._operands import Array, Operand, Wrt

_ALL = ("input", "weight", "bias")


def _options(op: str, args: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return activation_args as the backend reads them."""
    if args is None:
        return None
    try:
        return {name: float(value) for name, value in args.items()}
    except (AttributeError, TypeError, ValueError):
        raise TypeError(f"{op}: activation_args must map names to numbers; got {args!r}") from None


def linear(
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    save_preactivation: bool = False,
    out: Any = None,
) -> Any:
    """Apply a dense layer: a product with weight, a bias and an activation, in one pass.

    Math: y = f(z), z[..., o] = sum_i input[..., i] weight[o, i] + bias[o]

    Args:
        input: `(..., in_features)`, float32, float64 or bfloat16. Strided operands are packed into
            workspace.
        weight: `(out_features, in_features)`, dtype of input.
        bias: `(out_features,)`, dtype of input, or None.
        activation: None, "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu",
            "gelu" (error function), "gelu_tanh" (its approximation), "silu", "softplus", "mish",
            "hardtanh", "relu6", "hardsigmoid" or "hardswish".
        activation_args: Its options by name: negative_slope for leaky_relu, alpha for elu, beta
            and threshold for softplus, min_val and max_val for hardtanh.
        save_preactivation: Return z too: the backward pass of the smooth rectifiers takes it.
        out: C-contiguous array for y, or with `save_preactivation` a pair of them for (y, z).

    Returns:
        y, `(..., out_features)`; with `save_preactivation` the pair (y, z).

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If sizes do not fit, or the activation or its argument is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, w = np.array([[1.0, 2.0]]), np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> tg.linear(x, w, np.array([0.5, 0.5])).tolist()
        [[3.5, -0.5]]
        >>> tg.linear(x, w, np.array([0.5, 0.5]), "relu").tolist()
        [[3.5, 0.0]]

    Source: torch.nn.functional.linear
    """
    if activation_args is not None:
        activation_args = _options("linear", activation_args)
    return of(input).linear(
        input, weight, bias, activation, activation_args, save_preactivation, out
    )


def linear_backward(
    grad_output: Operand,
    input: Operand,
    weight: Operand,
    bias: Operand | None = None,
    activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output: Operand | None = None,
    preactivation: Operand | None = None,
    wrt: Wrt = _ALL,
    accumulate: bool = False,
    out: tuple[Array | None, Array | None, Array | None] | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Differentiate `linear`.

    The derivative of the activation is taken from `output` where that suffices, else from
    `preactivation`; with neither the layer is computed again.

    Math: dz = dy f'(z), dinput = dz weight, dweight = dz^T input, dbias = sum over rows of dz

    Args:
        grad_output: dy, `(..., out_features)`, dtype of input.
        input: As in the forward call. Strided operands are packed into workspace.
        weight: As in the forward call.
        bias: As in the forward call.
        activation: As in the forward call.
        activation_args: As in the forward call.
        output: The forward call's y. Suffices for all but gelu, gelu_tanh, silu, a leaky_relu or
            elu of negative argument, and a hardtanh whose bounds 16-bit dtypes would round.
        preactivation: The forward call's z.
        wrt: "input", "weight", "bias" or a tuple of them: the gradients that are wanted.
        accumulate: Add to the dweight and dbias in `out` instead of overwriting them.
        out: `(dinput, dweight, dbias)`, C-contiguous, None where a new array is wanted. For a
            bfloat16 input dweight and dbias may both be float32: not rounded, and right to add
            many gradients up in.

    Returns:
        Always `(dinput, dweight, dbias)`, also where `wrt` is one name; None stands for what is not
        in `wrt`, or where there is no bias.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If sizes do not fit, an option is unknown, or `accumulate` lacks its arrays.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, w, b = np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]), np.array([0.0])
        >>> dx, dw, db = tg.linear_backward(np.array([[10.0]]), x, w, b)
        >>> dx.tolist(), dw.tolist(), db.tolist()
        ([[30.0, 50.0]], [[10.0, 20.0]], [10.0])
    """
    if activation_args is not None:
        activation_args = _options("linear_backward", activation_args)
    gradients: tuple[Array | None, Array | None, Array | None] = of(input).linear_backward(
        grad_output,
        input,
        weight,
        bias,
        activation,
        activation_args,
        output,
        preactivation,
        None if wrt is _ALL else wrt,  # None is all of them, and quicker to read
        accumulate,
        out,
    )
    return gradients
