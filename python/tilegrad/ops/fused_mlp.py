# SPDX-License-Identifier: MIT
"""A small network of dense layers as one op: on a Hopper GPU it never leaves the chip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ..backends import of
from ._operands import Array, Operand, Wrt
from .linear import _options

_ALL = ("input", "weights", "biases")
_Gradients: TypeAlias = "tuple[Array | None, ...]"


def fused_mlp(
    input: Operand,
    weights: Sequence[Operand],
    biases: Sequence[Operand | None] | None = None,
    activation: str | None = "relu",
    output_activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output_activation_args: Mapping[str, float] | None = None,
    out: Array | None = None,
) -> Array:
    """Apply dense layers one after another: what `linear` gives layer by layer, in one call.

    Bfloat16 and float16 networks of up to 128 features in every layer stay on the chip of a Hopper
    GPU: weights in shared memory, what layers hand on in registers.

    Math: a_0 = input, a_{l+1} = f_l(a_l weights[l]^T + biases[l]), y = a_layers

    Args:
        input: `(..., in_features)`, float32, float64 or bfloat16, on a device float16 too. Strided
            operands are packed into workspace.
        weights: 1 to 16 arrays, each `(out_features, in_features)` of its layer, dtype of input.
        biases: As many arrays, each `(out_features,)` or None; or None for no bias at all.
        activation: f of every layer but the last one, a name that `linear` knows.
        output_activation: f of the last layer.
        activation_args: Options of the activation by name, as for `linear`.
        output_activation_args: Options of the output activation by name.
        out: C-contiguous array for y.

    Returns:
        y, `(..., out_features)` of the last layer. Where dtype has 16 bits each a_l is rounded.

    Raises:
        TypeError: If an operand is no array of a supported dtype, dtypes differ, or weights or
            biases are no list or tuple.
        ValueError: If sizes do not fit, or an activation or its argument is unknown.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, last = np.array([[1.0, 2.0]]), np.ones((1, 2))
        >>> first = np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> tg.fused_mlp(x, [first, last]).tolist()
        [[3.0]]

    Source: Mueller et al., Real-time Neural Radiance Caching for Path Tracing (2021), section 4
    """
    if activation_args is not None:
        activation_args = _options("fused_mlp", activation_args)
    if output_activation_args is not None:
        output_activation_args = _options("fused_mlp", output_activation_args)
    result: Array = of(input).fused_mlp(
        input,
        weights,
        biases,
        activation,
        output_activation,
        activation_args,
        output_activation_args,
        out,
    )
    return result


def fused_mlp_backward(
    grad_output: Operand,
    input: Operand,
    weights: Sequence[Operand],
    biases: Sequence[Operand | None] | None = None,
    activation: str | None = "relu",
    output_activation: str | None = None,
    *,
    activation_args: Mapping[str, float] | None = None,
    output_activation_args: Mapping[str, float] | None = None,
    wrt: Wrt = _ALL,
    accumulate: bool = False,
    out: tuple[Any, Any, Any] | None = None,
) -> tuple[Array | None, _Gradients | None, _Gradients | None]:
    """Differentiate `fused_mlp`; the forward pass is computed again, so that nothing is kept of it.

    Math: dz_l = da_{l+1} f_l'(z_l), da_l = dz_l weights[l], dweights[l] = dz_l^T a_l,
        dbiases[l] = sum over rows of dz_l

    Args:
        grad_output: dy, `(..., out_features)`, dtype of input.
        input: As in the forward call. Strided operands are packed into workspace.
        weights: As in the forward call.
        biases: As in the forward call.
        activation: As in the forward call.
        output_activation: As in the forward call.
        activation_args: As in the forward call.
        output_activation_args: As in the forward call.
        wrt: "input", "weights", "biases" or a tuple of them: the gradients that are wanted.
        accumulate: Add to the dweights and dbiases in `out` instead of overwriting them.
        out: `(dinput, dweights, dbiases)`, the latter two lists of arrays, C-contiguous; None
            where new arrays are wanted. For an input of 16 bits dweights and dbiases may all be
            float32: not rounded, and right to add many gradients up in.

    Returns:
        Always `(dinput, dweights, dbiases)`, also where `wrt` is one name. The latter two are
        tuples with one array for each layer, None where there is no bias; None stands for what is
        not in `wrt`, and for dbiases without biases.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If sizes do not fit, an option is unknown, or `accumulate` lacks its arrays.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x, last = np.array([[1.0, 2.0]]), np.ones((1, 2))
        >>> first = np.array([[1.0, 1.0], [1.0, -1.0]])
        >>> dx, dw, db = tg.fused_mlp_backward(np.array([[10.0]]), x, [first, last])
        >>> dx.tolist(), [w.tolist() for w in dw], db
        ([[10.0, 10.0]], [[[10.0, 20.0], [0.0, 0.0]], [[30.0, 0.0]]], None)
    """
    if activation_args is not None:
        activation_args = _options("fused_mlp_backward", activation_args)
    if output_activation_args is not None:
        output_activation_args = _options("fused_mlp_backward", output_activation_args)
    gradients: tuple[Array | None, _Gradients | None, _Gradients | None] = of(
        input
    ).fused_mlp_backward(
        grad_output,
        input,
        weights,
        biases,
        activation,
        output_activation,
        activation_args,
        output_activation_args,
        None if wrt is _ALL else wrt,
        accumulate,
        out,
    )
    return gradients
