# SPDX-License-Identifier: MIT
"""A network as an ONNX file, written by hand: no package is needed to make what onnxruntime reads.

A message of protocol buffers is a row of fields: a key, which is the field's number times 8 plus
the way it is stored, then a number of 7 bits a byte (way 0) or a length and so many bytes (way 2).
Source: github.com/onnx/onnx, onnx/onnx.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._common import Array

_FLOAT, _INT = 1, 2  # a tensor's element type; an attribute's type
_IR_VERSION, _OPSET = 8, 13


def model(params: Sequence[Array]) -> bytes:
    """Return a model of dense layers with relu between them, for batches of any size.

    Args:
        params: Weight `(out, in)` and bias of each layer in turn, float32.

    Returns:
        The bytes of an ONNX file with input "x" and output "y".
    """
    layers = len(params) // 2
    nodes, name = [], "x"
    for i in range(layers):
        result = "y" if i == layers - 1 else f"z{i}"
        nodes.append(_node("Gemm", [name, f"p{2 * i}", f"p{2 * i + 1}"], result, transB=1))
        name = result
        if i < layers - 1:
            nodes.append(_node("Relu", [result], f"h{i}"))
            name = f"h{i}"
    graph = b"".join([
        *(_field(1, node) for node in nodes),
        _field(2, b"mlp"),
        *(_field(5, _tensor(f"p{i}", part)) for i, part in enumerate(params)),
        _field(11, _value("x", params[0].shape[1])),
        _field(12, _value("y", len(params[-1]))),
    ])  # fmt: skip
    operators = _field(1, b"") + _field(2, _OPSET)  # of the standard domain
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, operators)


def _varint(value: int) -> bytes:
    """Return a number, 7 bits a byte, the lowest first; the top bit says that more follow."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, value: int | bytes) -> bytes:
    """Return a field that holds a number or a message, a text or raw bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: int) -> bytes:
    named = b"".join(
        _field(5, _field(1, name.encode()) + _field(3, value) + _field(20, _INT))
        for name, value in attributes.items()
    )
    names = b"".join(_field(1, name.encode()) for name in inputs)
    return names + _field(2, output.encode()) + _field(4, operator.encode()) + named


def _tensor(name: str, values: Array) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    raw = np.ascontiguousarray(values, "<f4").tobytes()
    return sizes + _field(2, _FLOAT) + _field(8, name.encode()) + _field(9, raw)


def _value(name: str, features: int) -> bytes:
    """Return an input or output of shape (batch, features)."""
    shape = _field(1, _field(2, b"batch")) + _field(1, _field(1, features))
    tensor = _field(1, _FLOAT) + _field(2, shape)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))
