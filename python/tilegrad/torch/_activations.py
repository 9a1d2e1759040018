# SPDX-License-Identifier: MIT
"""Activations as differentiable operators, under their names in torch.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import tilegrad
from tilegrad import _cpu
from tilegrad.ops.activation_smooth import check_approximate

from ._exchange import operand, tensor
from ._library import define, differentiate, differentiate_once, refuse_forward_mode

# The options of the activations that have some, in the order in which operators take their values.
OPTIONS = {
    "leaky_relu": {"negative_slope": 0.01},
    "elu": {"alpha": 1.0},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
}
_NAMES = (
    "identity", "relu", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "gelu", "gelu_tanh", "silu",
    "softplus", "mish", "hardtanh", "relu6", "hardsigmoid", "hardswish",
)  # fmt: skip
# Whether the derivative of an activation with its usual options can be taken from its result.
_USES_OUTPUT = {name: bool(_cpu.activation_uses_output(name, None)) for name in _NAMES}


def check_name(activation: str) -> None:
    """Raise ValueError unless an activation has this name."""
    if activation not in _USES_OUTPUT:
        raise ValueError(f"activation: must be one of {list(_USES_OUTPUT)}; got {activation!r}")


def option_values(activation: str, options: Mapping[str, float] | None) -> list[float]:
    """Return the values of an activation's options as operators take them.

    Raises:
        ValueError: If the activation has no such option.
    """
    check_name(activation)
    known = OPTIONS.get(activation, {})
    given = {} if options is None else dict(options)
    if not given.keys() <= known.keys():
        raise ValueError(f"{activation}: options must be among {list(known)}; got {sorted(given)}")
    return [float(value) for value in (known | given).values()]


def options_of(activation: str, values: Sequence[float]) -> dict[str, float] | None:
    """Return an operator's values as tilegrad's `activation_args`.

    Raises:
        ValueError: No activation has this name; an operator may be called with any text.
    """
    check_name(activation)
    names = OPTIONS.get(activation)
    return None if names is None else dict(zip(names, values, strict=True))


def _is_short(number: float) -> bool:
    """Return whether every dtype has this number: bfloat16 its 8 bits, float16 its exponent."""
    digits, exponent = math.frexp(number)
    fits = digits * 256 % 1 == 0 and -14 < exponent <= 15
    return fits or number == 0 or math.isinf(number)


def uses_output(activation: str, values: Sequence[float]) -> bool:
    """Return whether the activation's derivative can be taken from its result."""
    # The rule of the C++ function of this name, which torch.compile cannot look into.
    falls = activation in ("leaky_relu", "elu") and values[0] < 0
    rounds = activation == "hardtanh" and not all(_is_short(v) for v in values)
    return _USES_OUTPUT[activation] and not falls and not rounds


def _function(activation: str, suffix: str = "") -> tuple[Any, dict[str, Any]]:
    """Return tilegrad's function of an activation and what it takes besides options."""
    if activation == "gelu_tanh":
        return getattr(tilegrad, f"gelu{suffix}"), {"approximate": "tanh"}
    return getattr(tilegrad, activation + suffix), {}


def _activation(input: torch.Tensor, activation: str, values: list[float]) -> torch.Tensor:
    options = options_of(activation, values) or {}
    function, fixed = _function(activation)
    return tensor(function(operand(input), **options, **fixed))


def _activation_backward(
    grad_output: torch.Tensor, saved: torch.Tensor, activation: str, values: list[float]
) -> torch.Tensor:
    options = options_of(activation, values) or {}
    function, fixed = _function(activation, "_backward")
    x = operand(saved)
    # Where the result is what was saved, the input is not read.
    output = x if uses_output(activation, values) else None
    return tensor(function(operand(grad_output), x, **options, **fixed, output=output))


def _fake(input: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(input, memory_format=torch.contiguous_format)


_forward = define(
    "activation(Tensor input, str activation, float[] options) -> Tensor", _activation, _fake
)
_backward = define(
    "activation_backward(Tensor grad_output, Tensor saved, str activation, float[] options)"
    " -> Tensor",
    _activation_backward,
    _fake,
)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    input, ctx.activation, ctx.values = inputs
    ctx.save_for_backward(output if uses_output(ctx.activation, ctx.values) else input)


def _differentiate(
    ctx: Any, saved: tuple[torch.Tensor], grad_output: torch.Tensor
) -> tuple[torch.Tensor, None, None]:
    return _backward(grad_output, *saved, ctx.activation, ctx.values), None, None


differentiate(_forward, _setup, _differentiate)
differentiate_once(_backward)


def activation(
    input: torch.Tensor, activation: str, options: Mapping[str, float] | None = None
) -> torch.Tensor:
    """Apply an activation by its name.

    Args:
        input: float32, float64 or bfloat16, any shape.
        activation: A name that `tilegrad.linear` knows, such as "relu" or "gelu_tanh".
        options: Its options by name, such as `{"negative_slope": 0.1}`.

    Returns:
        f(input), a new contiguous tensor.

    Raises:
        ValueError: If the activation or an option is unknown.

    Example:
        >>> activation(torch.tensor([-2.0, 3.0]), "leaky_relu", {"negative_slope": 0.5})
        tensor([-1.,  3.])
    """
    refuse_forward_mode(activation, input)
    result: torch.Tensor = _forward(input, activation, option_values(activation, options))
    return result


def relu(input: torch.Tensor) -> torch.Tensor:
    """Apply max(x, 0); see `tilegrad.relu`."""
    return activation(input, "relu")


def leaky_relu(input: torch.Tensor, negative_slope: float = 0.01) -> torch.Tensor:
    """Apply x where x > 0, else negative_slope x; see `tilegrad.leaky_relu`."""
    return activation(input, "leaky_relu", {"negative_slope": negative_slope})


def sigmoid(input: torch.Tensor) -> torch.Tensor:
    """Apply 1 / (1 + exp(-x)); see `tilegrad.sigmoid`."""
    return activation(input, "sigmoid")


def tanh(input: torch.Tensor) -> torch.Tensor:
    """Apply the hyperbolic tangent; see `tilegrad.tanh`."""
    return activation(input, "tanh")


def elu(input: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Apply x where x > 0, else alpha (exp(x) - 1); see `tilegrad.elu`."""
    return activation(input, "elu", {"alpha": alpha})


def selu(input: torch.Tensor) -> torch.Tensor:
    """Apply the self-normalising elu; see `tilegrad.selu`."""
    return activation(input, "selu")


def gelu(input: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    """Apply x Phi(x), or its tanh approximation; see `tilegrad.gelu`."""
    check_approximate("gelu", approximate)
    return activation(input, "gelu" if approximate == "none" else "gelu_tanh")


def silu(input: torch.Tensor) -> torch.Tensor:
    """Apply x sigmoid(x); see `tilegrad.silu`."""
    return activation(input, "silu")


def softplus(input: torch.Tensor, beta: float = 1.0, threshold: float = 20.0) -> torch.Tensor:
    """Apply log(1 + exp(beta x)) / beta; see `tilegrad.softplus`."""
    return activation(input, "softplus", {"beta": beta, "threshold": threshold})


def mish(input: torch.Tensor) -> torch.Tensor:
    """Apply x tanh(softplus(x)); see `tilegrad.mish`."""
    return activation(input, "mish")


def hardtanh(input: torch.Tensor, min_val: float = -1.0, max_val: float = 1.0) -> torch.Tensor:
    """Clip to [min_val, max_val]; see `tilegrad.hardtanh`."""
    return activation(input, "hardtanh", {"min_val": min_val, "max_val": max_val})


def relu6(input: torch.Tensor) -> torch.Tensor:
    """Clip to [0, 6]; see `tilegrad.relu6`."""
    return activation(input, "relu6")


def hardsigmoid(input: torch.Tensor) -> torch.Tensor:
    """Clip x / 6 + 1 / 2 to [0, 1]; see `tilegrad.hardsigmoid`."""
    return activation(input, "hardsigmoid")


def hardswish(input: torch.Tensor) -> torch.Tensor:
    """Apply x hardsigmoid(x); see `tilegrad.hardswish`."""
    return activation(input, "hardswish")
