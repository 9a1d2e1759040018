# SPDX-License-Identifier: MIT
"""Fill parameters with initial values: torch.nn.init's functions, arguments and defaults.

Each takes a Parameter, or an array of any device, fills it in place and returns it. Values are
drawn from the stream of ``tilegrad.manual_seed`` on the CPU and copied to where the parameter is,
so one seed gives the same bits on every device and machine. A uniform draw of n values consumes
ceil(n / 4) counters of the stream, a normal one ceil(n / 2). Values of bfloat16 are float32 ones,
rounded.

Weights that are given already need no function: ``layer.weight.data = values`` copies them.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeVar

import numpy as np

from tilegrad.array import Array as DeviceArray
from tilegrad.nn._init import normal, uniform
from tilegrad.nn.parameter import Parameter, copy_into, dtype_of

Target = TypeVar("Target")  # a Parameter, a numpy.ndarray or a tilegrad.Array


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which an activation asks for larger initial weights.

    Math: linear and sigmoid 1; tanh 5/3; relu sqrt(2); leaky_relu sqrt(2 / (1 + slope^2));
    selu 3/4.

    Args:
        nonlinearity: One of these names.
        param: The slope of leaky_relu; None is 0.01. Others have none.

    Returns:
        The gain.

    Raises:
        TypeError: A slope that is no number.
        ValueError: Another name, or a slope that is not finite.

    Example:
        >>> calculate_gain("tanh"), calculate_gain("leaky_relu", 1.0)
        (1.6666666666666667, 1.0)

    Source: torch.nn.init.calculate_gain.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else _number("calculate_gain", "negative_slope", param)
        return math.sqrt(2 / (1 + slope**2))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75}
    if nonlinearity not in gains:
        raise ValueError(
            f"calculate_gain: nonlinearity must be one of {[*gains, 'leaky_relu']}; got "
            f"{nonlinearity!r}"
        )
    return gains[nonlinearity]


def zeros_(tensor: Target) -> Target:
    """Fill with 0.

    Args:
        tensor: What to fill.

    Returns:
        The same object.

    Example:
        >>> zeros_(np.ones(2))
        array([0., 0.])

    Source: torch.nn.init.zeros_.
    """
    return _filled("zeros_", tensor, 0.0)


def ones_(tensor: Target) -> Target:
    """Fill with 1.

    Args:
        tensor: What to fill.

    Returns:
        The same object.

    Example:
        >>> ones_(np.zeros(2))
        array([1., 1.])

    Source: torch.nn.init.ones_.
    """
    return _filled("ones_", tensor, 1.0)


def constant_(tensor: Target, val: float) -> Target:
    """Fill with one value.

    Args:
        tensor: What to fill.
        val: The value.

    Returns:
        The same object.

    Raises:
        TypeError: The value is no number.

    Example:
        >>> constant_(Parameter(np.zeros(2)), 0.5).data
        array([0.5, 0.5])

    Source: torch.nn.init.constant_.
    """
    if not isinstance(val, numbers.Real):
        raise TypeError(f"constant_: val must be a number; got {val!r}")
    return _filled("constant_", tensor, float(val))


def eye_(tensor: Target) -> Target:
    """Fill a matrix with 1 on its diagonal and 0 elsewhere: a layer that starts as the identity.

    Args:
        tensor: What to fill, with 2 axes.

    Returns:
        The same object.

    Raises:
        ValueError: Another number of axes.

    Example:
        >>> eye_(np.empty((2, 3)))
        array([[1., 0., 0.],
               [0., 1., 0.]])

    Source: torch.nn.init.eye_.
    """
    buffer = _buffer("eye_", tensor)
    if buffer.ndim != 2:
        raise ValueError(f"eye_: tensor must have 2 axes; got shape {buffer.shape}")
    copy_into(buffer, np.eye(*buffer.shape).astype(buffer.dtype), "eye_")
    return tensor


def uniform_(tensor: Target, a: float = 0.0, b: float = 1.0) -> Target:
    """Draw from the uniform distribution on [a, b).

    Math: a + (b - a) u, u of 24 (float64: 32) random bits, rounded once: b itself may come out.

    Args:
        tensor: What to fill.
        a: Lower bound.
        b: Upper bound, at least a.

    Returns:
        The same object.

    Raises:
        TypeError: A bound is no number.
        ValueError: A bound is not finite, or b is below a.

    Example:
        >>> import tilegrad as tg
        >>> tg.manual_seed(0)
        >>> uniform_(np.empty(2), -1, 1).round(4)
        array([-0.2019,  0.761 ])

    Source: torch.nn.init.uniform_.
    """
    low, high = _number("uniform_", "a", a), _number("uniform_", "b", b)
    if high < low:
        raise ValueError(f"uniform_: b must be at least a; got a = {a}, b = {b}")
    return _uniform("uniform_", tensor, low, high)


def normal_(tensor: Target, mean: float = 0.0, std: float = 1.0) -> Target:
    """Draw from the normal distribution.

    Math: mean + std z, z = Phi^-1 of 64 random bits: tails to 9 standard deviations.

    Args:
        tensor: What to fill.
        mean: Mean.
        std: Standard deviation, at least 0.

    Returns:
        The same object.

    Raises:
        TypeError: mean or std is no number.
        ValueError: One is not finite, or std is negative.

    Example:
        >>> import tilegrad as tg
        >>> tg.manual_seed(0)
        >>> normal_(np.empty(2)).round(4)
        array([ 0.2558, -0.7202])

    Source: torch.nn.init.normal_; the inverse distribution function: Wichura, AS 241 (1988).
    """
    centre, spread = _number("normal_", "mean", mean), _number("normal_", "std", std)
    if spread < 0:
        raise ValueError(f"normal_: std must be at least 0; got {std}")
    return _normal("normal_", tensor, centre, spread)


def xavier_uniform_(tensor: Target, gain: float = 1.0) -> Target:
    """Draw uniformly so that signals keep their size forward and backward, for tanh and sigmoid.

    Math: U(-b, b), b = gain sqrt(6 / (fan_in + fan_out)).

    Args:
        tensor: What to fill, with at least 2 axes: (out, in), further ones multiply both fans.
        gain: Factor, such as ``calculate_gain("tanh")``.

    Returns:
        The same object.

    Raises:
        ValueError: Fewer than 2 axes, or a gain that is not finite.

    Example:
        >>> w = xavier_uniform_(np.empty((2, 4)))  # sqrt(6 / 6) = 1
        >>> bool(np.abs(w).max() <= 1)
        True

    Source: Glorot and Bengio 2010; torch.nn.init.xavier_uniform_.
    """
    bound = math.sqrt(3) * _xavier_std("xavier_uniform_", tensor, gain)
    return _uniform("xavier_uniform_", tensor, -bound, bound)


def xavier_normal_(tensor: Target, gain: float = 1.0) -> Target:
    """Draw from a normal distribution with the spread of `xavier_uniform_`.

    Math: N(0, s^2), s = gain sqrt(2 / (fan_in + fan_out)).

    Args:
        tensor: What to fill, with at least 2 axes.
        gain: Factor, such as ``calculate_gain("tanh")``.

    Returns:
        The same object.

    Raises:
        ValueError: Fewer than 2 axes, or a gain that is not finite.

    Example:
        >>> w = xavier_normal_(np.empty((100, 100)))  # sqrt(2 / 200) = 0.1
        >>> bool(abs(w.std() - 0.1) < 0.005)
        True

    Source: Glorot and Bengio 2010; torch.nn.init.xavier_normal_.
    """
    return _normal("xavier_normal_", tensor, 0.0, _xavier_std("xavier_normal_", tensor, gain))


def kaiming_uniform_(
    tensor: Target, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Target:
    """Draw uniformly so that signals keep their size through relu and its kin.

    Math: U(-b, b), b = gain sqrt(3 / fan).

    Args:
        tensor: What to fill, with at least 2 axes: (out, in), further ones multiply both fans.
        a: Negative slope, where the activation is leaky_relu.
        mode: "fan_in" keeps the size of the forward pass, "fan_out" that of the backward pass.
        nonlinearity: Name of the activation, as for `calculate_gain`.

    Returns:
        The same object.

    Raises:
        ValueError: Fewer than 2 axes, or an unknown mode or activation.

    Example:
        >>> w = kaiming_uniform_(np.empty((2, 6)), nonlinearity="relu")  # sqrt(2) sqrt(3 / 6) = 1
        >>> bool(np.abs(w).max() <= 1)
        True

    Source: He, Zhang, Ren, Sun 2015; torch.nn.init.kaiming_uniform_.
    """
    bound = math.sqrt(3) * _kaiming_std("kaiming_uniform_", tensor, a, mode, nonlinearity)
    return _uniform("kaiming_uniform_", tensor, -bound, bound)


def kaiming_normal_(
    tensor: Target, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Target:
    """Draw from a normal distribution with the spread of `kaiming_uniform_`.

    Math: N(0, s^2), s = gain / sqrt(fan).

    Args:
        tensor: What to fill, with at least 2 axes.
        a: Negative slope, where the activation is leaky_relu.
        mode: "fan_in" keeps the size of the forward pass, "fan_out" that of the backward pass.
        nonlinearity: Name of the activation, as for `calculate_gain`.

    Returns:
        The same object.

    Raises:
        ValueError: Fewer than 2 axes, or an unknown mode or activation.

    Example:
        >>> w = kaiming_normal_(np.empty((100, 200)), nonlinearity="relu")  # sqrt(2 / 200) = 0.1
        >>> bool(abs(w.std() - 0.1) < 0.005)
        True

    Source: He, Zhang, Ren, Sun 2015; torch.nn.init.kaiming_normal_.
    """
    std = _kaiming_std("kaiming_normal_", tensor, a, mode, nonlinearity)
    return _normal("kaiming_normal_", tensor, 0.0, std)


def _buffer(op: str, tensor: Any) -> Any:
    """Return the array of a target, of a dtype that can be drawn."""
    buffer = tensor.data if isinstance(tensor, Parameter) else tensor
    if not isinstance(buffer, (np.ndarray, DeviceArray)):
        raise TypeError(
            f"{op}: tensor must be a Parameter or an array; got {type(tensor).__name__}"
        )
    if dtype_of(buffer) not in ("float32", "float64", "bfloat16"):
        raise TypeError(
            f"{op}: tensor must have dtype float32, float64 or bfloat16; got {dtype_of(buffer)}"
        )
    return buffer


def _filled(op: str, tensor: Target, value: float) -> Target:
    buffer = _buffer(op, tensor)
    copy_into(buffer, np.full(buffer.shape, value, buffer.dtype), op)
    return tensor


def _uniform(op: str, tensor: Target, low: float, high: float) -> Target:
    buffer = _buffer(op, tensor)
    copy_into(buffer, uniform(buffer.shape, low, high, dtype_of(buffer)), op)
    return tensor


def _normal(op: str, tensor: Target, mean: float, std: float) -> Target:
    buffer = _buffer(op, tensor)
    copy_into(buffer, normal(buffer.shape, mean, std, dtype_of(buffer)), op)
    return tensor


def _number(op: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} must be a number; got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{op}: {name} must be finite; got {value}")
    return float(value)


def _fans(op: str, tensor: Any) -> tuple[int, int]:
    shape = _buffer(op, tensor).shape
    if len(shape) < 2:
        raise ValueError(f"{op}: tensor must have at least 2 axes, (out, in); got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _xavier_std(op: str, tensor: Any, gain: float) -> float:
    fans = sum(_fans(op, tensor))
    factor = _number(op, "gain", gain)
    return factor * math.sqrt(2 / fans) if fans else 0.0  # without fans there is nothing to fill


def _kaiming_std(op: str, tensor: Any, a: float, mode: str, nonlinearity: str) -> float:
    fan_in, fan_out = _fans(op, tensor)
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"{op}: mode must be 'fan_in' or 'fan_out'; got {mode!r}")
    fan = fan_in if mode == "fan_in" else fan_out
    gain = calculate_gain(nonlinearity, a)
    return gain / math.sqrt(fan) if fan else 0.0
