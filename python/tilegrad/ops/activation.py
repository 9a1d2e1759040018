# SPDX-License-Identifier: MIT
"""Activations: the logistic ones and the piecewise linear ones."""

from __future__ import annotations

from ..backends import of
from ._operands import Array, Operand, Wrt, in_place


def identity(input: Operand, *, out: Array | None = None) -> Array:
    """Copy an array.

    Math: y = x

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.identity(np.array([1.0, -2.0])).tolist()
        [1.0, -2.0]

    Source: torch.nn.Identity, as a function
    """
    result: Array = of(input).identity(input, out)
    return result


def identity_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `identity`.

    Math: dx = dy

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: Taken as in every activation; not needed here.
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
        >>> tg.identity_backward(np.array([3.0]), np.array([1.0])).tolist()
        [3.0]
    """
    result: Array = of(input).identity_backward(grad_output, input, output, wrt, out)
    return result


def sigmoid(input: Operand, *, out: Array | None = None) -> Array:
    """Squash each element to (0, 1) by the logistic function.

    Math: y = 1 / (1 + exp(-x))

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.sigmoid(np.array([-np.inf, 0.0, np.inf])).tolist()
        [0.0, 0.5, 1.0]

    Source: torch.nn.functional.sigmoid
    """
    result: Array = of(input).sigmoid(input, out)
    return result


def sigmoid_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `sigmoid`.

    Math: dx = dy y (1 - y), y = sigmoid(x)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: The forward result, if kept: spares computing it again.
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
        >>> tg.sigmoid_backward(np.array([4.0]), np.array([0.0])).tolist()
        [1.0]
    """
    result: Array = of(input).sigmoid_backward(grad_output, input, output, wrt, out)
    return result


def tanh(input: Operand, *, out: Array | None = None) -> Array:
    """Squash each element to (-1, 1) by the hyperbolic tangent.

    Math: y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.tanh(np.array([-np.inf, 0.0, np.inf])).tolist()
        [-1.0, 0.0, 1.0]

    Source: torch.nn.functional.tanh
    """
    result: Array = of(input).tanh(input, out)
    return result


def tanh_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `tanh`.

    Math: dx = dy (1 - y^2), y = tanh(x)

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: The forward result, if kept: spares computing it again.
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
        >>> tg.tanh_backward(np.array([3.0, 3.0]), np.array([0.0, np.inf])).tolist()
        [3.0, 0.0]
    """
    result: Array = of(input).tanh_backward(grad_output, input, output, wrt, out)
    return result


def relu(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Replace negative elements by 0.

    Math: y = max(x, 0)

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
        >>> tg.relu(np.array([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 2.0]

    Source: Nair, Hinton: Rectified linear units improve restricted Boltzmann machines (2010)
    """
    if inplace:
        out = in_place("relu", input, out)
    result: Array = of(input).relu(input, out)
    return result


def relu_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `relu`; the derivative at 0 is 0, as in torch.

    Math: dx = dy if x > 0 else 0

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        output: The forward result, if kept: read instead of input.
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
        >>> dy, x = np.ones(3), np.array([-1.0, 0.0, 2.0])
        >>> tg.relu_backward(dy, x).tolist()
        [0.0, 0.0, 1.0]
    """
    result: Array = of(input).relu_backward(grad_output, input, output, wrt, out)
    return result


def leaky_relu(
    input: Operand, negative_slope: float = 0.01, inplace: bool = False, *, out: Array | None = None
) -> Array:
    """Multiply negative elements by a slope.

    Math: y = x if x > 0 else negative_slope x

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        negative_slope: Slope of the line below 0.
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
        >>> tg.leaky_relu(np.array([-4.0, 2.0]), 0.25).tolist()
        [-1.0, 2.0]

    Source: Maas, Hannun, Ng: Rectifier nonlinearities improve acoustic models (2013)
    """
    if inplace:
        out = in_place("leaky_relu", input, out)
    result: Array = of(input).leaky_relu(input, negative_slope, out)
    return result


def leaky_relu_backward(
    grad_output: Operand,
    input: Operand,
    negative_slope: float = 0.01,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `leaky_relu`; at 0 the slope below it counts, as in torch.

    Math: dx = dy if x > 0 else negative_slope dy

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        negative_slope: As in the forward call.
        output: The forward result, if kept: read instead of input if negative_slope >= 0.
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
        >>> dy, x = np.ones(3), np.array([-1.0, 0.0, 2.0])
        >>> tg.leaky_relu_backward(dy, x, 0.25).tolist()
        [0.25, 0.25, 1.0]
    """
    result: Array = of(input).leaky_relu_backward(
        grad_output, input, negative_slope, output, wrt, out
    )
    return result
