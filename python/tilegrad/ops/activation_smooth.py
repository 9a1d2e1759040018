# SPDX-License-Identifier: MIT
"""Activations: the smooth rectifiers."""

from __future__ import annotations

from ..backends import of
from ._operands import Array, Operand, Wrt, in_place


def check_approximate(op: str, approximate: object) -> None:
    """Raise ValueError unless gelu has this form; an array has no one answer to `==`."""
    if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
        raise ValueError(f"{op}: approximate must be 'none' or 'tanh'; got {approximate!r}")


def _gelu_name(op: str, approximate: str) -> str:
    """Return the backend's name of gelu or gelu_backward in the asked form."""
    check_approximate(op, approximate)
    return op if approximate == "none" else op.replace("gelu", "gelu_tanh")


def elu(
    input: Operand, alpha: float = 1.0, inplace: bool = False, *, out: Array | None = None
) -> Array:
    """Bend negative elements towards -alpha by an exponential.

    Math: y = x if x > 0 else alpha (exp(x) - 1)

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        alpha: The result tends to -alpha far below 0.
        inplace: Write the result to input, which is then C-contiguous.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.elu(np.array([-np.inf, 0.0, 2.0]), 0.5).tolist()
        [-0.5, 0.0, 2.0]

    Source: Clevert, Unterthiner, Hochreiter: Fast and accurate deep network learning by ELUs (2016)
    """
    if inplace:
        out = in_place("elu", input, out)
    result: Array = of(input).elu(input, alpha, out)
    return result


def elu_backward(
    grad_output: Operand,
    input: Operand,
    alpha: float = 1.0,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `elu`; the derivative at 0 is alpha, as in torch.

    Math: dx = dy if x > 0 else dy alpha exp(x), where alpha exp(x) = y + alpha

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        alpha: As in the forward call.
        output: The forward result, if kept: spares the exponential if alpha >= 0.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> dy, x = np.ones(3), np.array([-np.inf, 0.0, 2.0])
        >>> tg.elu_backward(dy, x, 0.5).tolist()
        [0.0, 0.5, 1.0]
    """
    result: Array = of(input).elu_backward(grad_output, input, alpha, output, wrt, out)
    return result


def selu(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Apply the scaled ELU that keeps mean 0 and variance 1 through layers.

    Math: y = 1.0507 x if x > 0 else 1.0507 * 1.6733 (exp(x) - 1)

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        inplace: Write the result to input, which is then C-contiguous.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.selu(np.array([-np.inf, 0.0, 1.0])).round(4).tolist()
        [-1.7581, 0.0, 1.0507]

    Source: Klambauer, Unterthiner, Mayr, Hochreiter: Self-normalizing neural networks (2017)
    """
    if inplace:
        out = in_place("selu", input, out)
    result: Array = of(input).selu(input, out)
    return result


def selu_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `selu`.

    Math: dx = 1.0507 dy if x > 0 else 1.0507 * 1.6733 dy exp(x)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: The forward result, if kept: spares the exponential.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> dy, x = np.ones(2), np.array([-np.inf, 1.0])
        >>> tg.selu_backward(dy, x).round(4).tolist()
        [0.0, 1.0507]
    """
    result: Array = of(input).selu_backward(grad_output, input, output, wrt, out)
    return result


def gelu(input: Operand, *, approximate: str = "none", out: Array | None = None) -> Array:
    """Weigh each element by the probability that a normal variable is below it.

    Math: y = x P(x), P(x) = (1 + erf(x / sqrt(2))) / 2
        tanh: P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        approximate: "none" for the error function, "tanh" for the approximation.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `approximate` is neither, or `out` does not fit.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.gelu(np.array([0.0, 1.0])).round(4).tolist()
        [0.0, 0.8413]

    Source: Hendrycks, Gimpel: Gaussian error linear units (2016)
    """
    name = _gelu_name("gelu", approximate)
    result: Array = getattr(of(input), name)(input, out)
    return result


def gelu_backward(
    grad_output: Operand,
    input: Operand,
    *,
    approximate: str = "none",
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `gelu`.

    Math: dx = dy (P(x) + x P'(x)); erf: P'(x) = exp(-x^2 / 2) / sqrt(2 pi)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        approximate: As in the forward call.
        output: Taken as in every activation, but not read: it does not determine the derivative.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or an option has another value.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.gelu_backward(np.array([2.0]), np.array([0.0])).tolist()
        [1.0]
    """
    name = _gelu_name("gelu_backward", approximate)
    result: Array = getattr(of(input), name)(grad_output, input, output, wrt, out)
    return result


def silu(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Weigh each element by its sigmoid (also called swish).

    Math: y = x / (1 + exp(-x))

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        inplace: Write the result to input, which is then C-contiguous.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.silu(np.array([0.0, np.log(3.0)])).round(4).tolist()
        [0.0, 0.824]

    Source: Elfwing, Uchibe, Doya: Sigmoid-weighted linear units (2018)
    """
    if inplace:
        out = in_place("silu", input, out)
    result: Array = of(input).silu(input, out)
    return result


def silu_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `silu`.

    Math: dx = dy s (1 + x (1 - s)), s = sigmoid(x)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: Taken as in every activation, but not read: it does not determine the derivative.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.silu_backward(np.array([2.0]), np.array([0.0])).tolist()
        [1.0]
    """
    result: Array = of(input).silu_backward(grad_output, input, output, wrt, out)
    return result
