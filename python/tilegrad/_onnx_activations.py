# SPDX-License-Identifier: MIT
"""Activations as ONNX operators, by the name of their function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tilegrad._onnx_graph import Graph
from tilegrad.nn.activation import _Activation as Activation
from tilegrad.reference._activations import SELU_ALPHA, SELU_SCALE

__all__ = ["Activation", "add", "prelu"]

# log(1 + exp(-x)) / x is below half an ulp from here on.
_SOFTPLUS_IS_X = {"float32": 15.0, "bfloat16": 15.0, "float64": 34.0}


def _is_wide(graph: Graph) -> bool:
    """Tell whether operators with options are out: those are float32, and onnxruntime has none."""
    return graph.dtype == "float64"


def _binary(operator: str) -> Callable[[Graph, str, float], str]:
    return lambda graph, x, number: graph.node(operator, [x, graph.scalar(number)])


_plus, _times, _over = _binary("Add"), _binary("Mul"), _binary("Div")


def _where_above(graph: Graph, x: str, limit: float, above: str, below: str) -> str:
    return graph.node("Where", [graph.node("Greater", [x, graph.scalar(limit)]), above, below])


def _leaky_relu(graph: Graph, x: str, negative_slope: float = 0.01) -> str:
    if not _is_wide(graph):
        return graph.node("LeakyRelu", [x], alpha=float(negative_slope))
    return _where_above(graph, x, 0.0, x, _times(graph, x, negative_slope))


def _scaled_elu(graph: Graph, x: str, alpha: float, scale: float) -> str:
    # exp(min(x, 0)): what is not chosen must not overflow.
    low = graph.node("Min", [x, graph.scalar(0.0)])
    below = _times(graph, _plus(graph, graph.node("Exp", [low]), -1.0), scale * alpha)
    above = x if scale == 1 else _times(graph, x, scale)
    return _where_above(graph, x, 0.0, above, below)


def _elu(graph: Graph, x: str, alpha: float = 1.0) -> str:
    if not _is_wide(graph):
        return graph.node("Elu", [x], alpha=float(alpha))
    return _scaled_elu(graph, x, alpha, 1.0)


def _selu(graph: Graph, x: str) -> str:
    if not _is_wide(graph):
        return graph.node("Selu", [x], alpha=SELU_ALPHA, gamma=SELU_SCALE)
    return _scaled_elu(graph, x, SELU_ALPHA, SELU_SCALE)


def _gelu(graph: Graph, x: str) -> str:
    if graph.opset >= 20 and not _is_wide(graph):
        return graph.node("Gelu", [x])
    phi = _plus(graph, graph.node("Erf", [_times(graph, x, math.sqrt(0.5))]), 1.0)
    return _times(graph, graph.node("Mul", [x, phi]), 0.5)


def _gelu_tanh(graph: Graph, x: str) -> str:
    if graph.opset >= 20 and not _is_wide(graph):
        return graph.node("Gelu", [x], approximate="tanh")
    slope = math.sqrt(8 / math.pi)  # x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3)
    square = _plus(graph, _times(graph, graph.node("Mul", [x, x]), 0.044715 * slope), slope)
    return graph.node("Mul", [x, graph.node("Sigmoid", [graph.node("Mul", [x, square])])])


def _silu(graph: Graph, x: str) -> str:
    return graph.node("Mul", [x, graph.node("Sigmoid", [x])])


def _log_1_exp(graph: Graph, x: str) -> str:
    if not _is_wide(graph):
        return graph.node("Softplus", [x])
    small = graph.node("Exp", [graph.node("Neg", [graph.node("Abs", [x])])])
    rest = graph.node("Log", [_plus(graph, small, 1.0)])
    return graph.node("Add", [graph.node("Max", [x, graph.scalar(0.0)]), rest])


def _softplus(graph: Graph, x: str, beta: float = 1.0, threshold: float = 20.0) -> str:
    u = x if beta == 1 else _times(graph, x, beta)
    y = _log_1_exp(graph, u)
    y = y if beta == 1 else _over(graph, y, beta)
    if threshold >= _SOFTPLUS_IS_X[graph.dtype]:
        return y
    return _where_above(graph, u, threshold, x, y)


def _mish(graph: Graph, x: str) -> str:
    if graph.opset >= 18 and not _is_wide(graph):
        return graph.node("Mish", [x])
    return graph.node("Mul", [x, graph.node("Tanh", [_log_1_exp(graph, x)])])


def _hardtanh(graph: Graph, x: str, min_val: float = -1.0, max_val: float = 1.0) -> str:
    return graph.node("Clip", [x, graph.scalar(min_val), graph.scalar(max_val)])


def _hardsigmoid(graph: Graph, x: str) -> str:
    if not _is_wide(graph):
        return graph.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
    return _over(graph, _hardtanh(graph, _plus(graph, x, 3.0), 0.0, 6.0), 6.0)


def _hardswish(graph: Graph, x: str) -> str:
    if graph.opset >= 14 and not _is_wide(graph):
        return graph.node("HardSwish", [x])
    return graph.node("Mul", [x, _hardsigmoid(graph, x)])


def prelu(graph: Graph, x: str, slope: str) -> str:
    """Add the activation whose slopes are a tensor; return the name of its result."""
    if not _is_wide(graph):
        return graph.node("PRelu", [x, slope])
    return _where_above(graph, x, 0.0, x, graph.node("Mul", [x, slope]))


_FUNCTIONS: dict[str, Callable[..., str]] = {
    "identity": lambda graph, x: x,
    "relu": lambda graph, x: graph.node("Relu", [x]),
    "sigmoid": lambda graph, x: graph.node("Sigmoid", [x]),
    "tanh": lambda graph, x: graph.node("Tanh", [x]),
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "softplus": _softplus,
    "mish": _mish,
    "hardtanh": _hardtanh,
    "relu6": lambda graph, x: _hardtanh(graph, x, 0.0, 6.0),
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
}


def add(graph: Graph, x: str, function: str, options: Mapping[str, Any]) -> str:
    """Add an activation to a graph; return the name of its result."""
    return _FUNCTIONS[function](graph, x, **options)
