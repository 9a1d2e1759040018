# SPDX-License-Identifier: MIT
"""Activations: the piecewise ones that stand in for smooth ones."""

from __future__ import annotations

from ..backends import of
from ._operands import Array, Operand, Wrt, in_place


def hardtanh(
    input: Operand,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
    *,
    out: Array | None = None,
) -> Array:
    """Clamp each element to a range.

    Math: y = min(max(x, min_val), max_val)

    Args:
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        min_val: Lower end of the range.
        max_val: Upper end, at least min_val.
        inplace: Write the result to input, which is then C-contiguous.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype.
        ValueError: If `out` has another shape or overlaps input in part, or if min_val > max_val.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.hardtanh(np.array([-3.0, 0.5, 3.0]), -2.0).tolist()
        [-2.0, 0.5, 1.0]

    Source: torch.nn.functional.hardtanh
    """
    if inplace:
        out = in_place("hardtanh", input, out)
    result: Array = of(input).hardtanh(input, min_val, max_val, out)
    return result


def hardtanh_backward(
    grad_output: Operand,
    input: Operand,
    min_val: float = -1.0,
    max_val: float = 1.0,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `hardtanh`; the derivative at both ends is 0, as in torch.

    Math: dx = dy if min_val < x < max_val else 0

    Args:
        grad_output: Gradient of the result, input's shape and dtype.
        input: float32, float64 or bfloat16, any shape. A strided array is packed into workspace.
        min_val: As in the forward call.
        max_val: As in the forward call.
        output: The forward result, if kept: read instead of input.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be an operand.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or `wrt` names another input, or if min_val > max_val.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> tg.hardtanh_backward(np.ones(3), np.array([-1.0, 0.5, 3.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    result: Array = of(input).hardtanh_backward(
        grad_output, input, min_val, max_val, output, wrt, out
    )
    return result


def relu6(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Set negative elements to zero and those beyond 6 to 6.

    Math: y = min(max(x, 0), 6)

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
        >>> tg.relu6(np.array([-1.0, 2.0, 9.0])).tolist()
        [0.0, 2.0, 6.0]

    Source: Krizhevsky: Convolutional deep belief networks on CIFAR-10 (2010)
    """
    if inplace:
        out = in_place("relu6", input, out)
    result: Array = of(input).relu6(input, out)
    return result


def relu6_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `relu6`; the derivative at 0 and 6 is 0, as in torch.

    Math: dx = dy if 0 < x < 6 else 0

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
        >>> tg.relu6_backward(np.ones(3), np.array([0.0, 2.0, 9.0])).tolist()
        [0.0, 1.0, 0.0]
    """
    result: Array = of(input).relu6_backward(grad_output, input, output, wrt, out)
    return result


def hardsigmoid(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Approximate the sigmoid by a line between -3 and 3.

    Math: y = min(max(x + 3, 0), 6) / 6

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
        >>> tg.hardsigmoid(np.array([-4.0, 0.0, 4.0])).tolist()
        [0.0, 0.5, 1.0]

    Source: torch.nn.functional.hardsigmoid
    """
    if inplace:
        out = in_place("hardsigmoid", input, out)
    result: Array = of(input).hardsigmoid(input, out)
    return result


def hardsigmoid_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `hardsigmoid`; the derivative at -3, 3 and a NaN is 0, as in torch.

    Math: dx = dy / 6 if -3 < x < 3 else 0

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
        >>> tg.hardsigmoid_backward(np.array([6.0, 6.0]), np.array([0.0, 3.0])).tolist()
        [1.0, 0.0]
    """
    result: Array = of(input).hardsigmoid_backward(grad_output, input, output, wrt, out)
    return result


def hardswish(input: Operand, inplace: bool = False, *, out: Array | None = None) -> Array:
    """Approximate `silu` by pieces of a line and a parabola.

    Math: y = x min(max(x + 3, 0), 6) / 6

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
        >>> tg.hardswish(np.array([-4.0, 1.5, 4.0])).tolist()
        [-0.0, 1.125, 4.0]

    Source: Howard et al.: Searching for MobileNetV3 (2019)
    """
    if inplace:
        out = in_place("hardswish", input, out)
    result: Array = of(input).hardswish(input, out)
    return result


def hardswish_backward(
    grad_output: Operand,
    input: Operand,
    *,
    output: Operand | None = None,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `hardswish`; the derivative at -3 is 0 and at 3 it is 1, as in torch.

    Math: dx = dy (0 if x <= -3, x / 3 + 1/2 if x < 3, else 1)

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
        >>> tg.hardswish_backward(np.ones(3), np.array([-3.0, 0.0, 3.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    result: Array = of(input).hardswish_backward(grad_output, input, output, wrt, out)
    return result
