# SPDX-License-Identifier: MIT
"""ONNX files of models, for onnxruntime and others; imported by ``import tilegrad.onnx`` only.

The graph computes what the model does in eval mode. A standard operator stands where its definition
is ours; what an older opset lacks is written in smaller operators, and so are the activations of a
float64 model, since options of operators are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tilegrad import _onnx_activations as activations
from tilegrad import nn
from tilegrad._files import Path, write_whole
from tilegrad._makers import asarray
from tilegrad._onnx_graph import Graph, Size, import_onnx
from tilegrad.nn.parameter import dtype_of

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["export"]

_LOWEST = 13  # softmax along one axis, Clip with operands
_LARGEST = 2**31 - 2**20  # bytes that a message of protocol buffers holds, less the graph's own
_Shape: TypeAlias = "tuple[Size, ...]"


def export(
    model: nn.Module,
    path: Path | None = None,
    input_shape: Sequence[int | str] | None = None,
    *,
    input_names: Sequence[str] = ("input",),
    output_names: Sequence[str] = ("output",),
    opset_version: int | None = None,
) -> ModelProto:
    """Write a model as an ONNX file: what it computes in eval mode, with its weights.

    Weights keep the names that they have in ``state_dict``. Dropout is left out. The file is
    written whole or not at all, like those of ``tilegrad.save``; without a path nothing is written.

    Args:
        model: A Sequential of Linear layers (with their fused activations), activations, PReLU,
            Softmax, LogSoftmax, Flatten, Dropout, FusedMLP and such Sequentials, or one of these.
        path: The file; by custom it ends in ``.onnx``.
        input_shape: Size of each axis of the input; a string names an axis of any size. By default
            ``("batch", in_features)`` of the first layer.
        input_names: The name of the input.
        output_names: The name of the output.
        opset_version: Version of ONNX's operators, from 13; by default 20, for bfloat16 22, the
            first where all of them take it.

    Returns:
        The ``onnx.ModelProto``, checked by ``onnx.checker``.

    Raises:
        ImportError: The package onnx is not installed.
        TypeError: A module that has no ONNX form, with its name; or parameters of two dtypes.
        ValueError: A shape does not fit the model, a name is taken, an unknown opset, more than 2
            GiB.
        OSError: The file cannot be written; an old one is as it was.

    Example:
        >>> from tilegrad import nn
        >>> model = nn.Sequential(nn.Linear(4, 8, activation="relu"), nn.Dropout(), nn.Linear(8, 3))
        >>> [node.op_type for node in export(model).graph.node]
        ['Gemm', 'Relu', 'Gemm']

    Source: torch.onnx.export.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"onnx.export: takes a tilegrad.nn.Module; got {type(model).__name__}")
    onnx = import_onnx()
    _check_modules(model, "")
    size = sum(p.data.nbytes for p in model.parameters())
    if size > _LARGEST:
        raise ValueError(f"onnx.export: a file holds 2 GiB; the model has {size} bytes")
    dtype = _dtype(model)
    opset = _opset(onnx, opset_version, dtype)
    shape = _default_shape(model) if input_shape is None else _checked_shape(input_shape)
    input_name, output_name = _name("input_names", input_names), _name("output_names", output_names)
    graph = Graph(onnx, dtype, opset)
    for name, parameter in model.named_parameters():
        if name in (input_name, output_name):
            raise ValueError(f"onnx.export: {name!r} is the name of a parameter; choose another")
        graph.add_weight(id(parameter), name, np.asarray(asarray(parameter.data, device="cpu")))
    if input_name == output_name:
        raise ValueError(f"onnx.export: input and output must have two names; got {input_name!r}")
    graph.taken.update((input_name, output_name))
    result, out_shape = _add(graph, model, "", input_name, shape)
    made: ModelProto = graph.finish(input_name, shape, result, output_name, out_shape)
    onnx.checker.check_model(made, full_check=True)
    if path is not None:
        write_whole(path, made.SerializeToString(), "onnx.export")
    return made


def _dtype(model: nn.Module) -> str:
    kinds = {name: dtype_of(p.data) for name, p in model.named_parameters()}
    if len(set(kinds.values())) > 1:
        raise TypeError(f"onnx.export: the parameters must have one dtype; got {kinds}")
    return next(iter(kinds.values()), "float32")


def _opset(onnx: Any, version: int | None, dtype: str) -> int:
    lowest = 22 if dtype == "bfloat16" else _LOWEST
    highest = onnx.defs.onnx_opset_version()
    opset = max(20, lowest) if version is None else version
    if not lowest <= opset <= highest:
        raise ValueError(
            f"onnx.export: opset_version must be in [{lowest}, {highest}] for {dtype} and onnx "
            f"{onnx.__version__}; got {opset}"
        )
    return opset


def _name(argument: str, names: Sequence[str]) -> str:
    if isinstance(names, str) or len(names) != 1 or not isinstance(names[0], str) or not names[0]:
        raise ValueError(f"onnx.export: {argument} must hold one name; got {names!r}")
    return names[0]


def _checked_shape(shape: Sequence[int | str]) -> _Shape:
    valid = [
        bool(size) if isinstance(size, str) else hasattr(size, "__index__") and size >= 0
        for size in shape
    ]
    if isinstance(shape, str) or not all(valid):
        raise ValueError(f"onnx.export: input_shape must hold sizes and names of axes; got {shape}")
    return tuple(size if isinstance(size, str) else int(size) for size in shape)


def _default_shape(model: nn.Module) -> _Shape:
    """Return the shape that the first layer says, if nothing before it depends on the shape."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            return ("batch", module.in_features)
        if not isinstance(module, (nn.Sequential, nn.Dropout, activations.Activation)):
            break
    raise ValueError(
        "onnx.export: input_shape is needed where no Linear layer says it, such as "
        "input_shape=('batch', 28, 28)"
    )


# ---- modules: each returns the name and the shape of its result ---------------------------------


def _known(module: nn.Module) -> Any:
    """Return the class of _MODULES that a module is an instance of, or None."""
    return next((base for base in type(module).__mro__ if base in _MODULES), None)


def _check_modules(module: nn.Module, name: str) -> None:
    kind, known = type(module), _known(module)
    own_forward = known is not None and kind.forward is not known.forward
    if known is None or own_forward or "forward" in vars(module):
        raise TypeError(
            f"onnx.export: {name or 'the model'} is a {kind.__name__}, which has no ONNX form"
        )
    if _MODULES[known] is _sequential:
        for key, child in module._modules.items():
            _check_modules(child, f"{name}.{key}" if name else key)


def _add(graph: Graph, module: nn.Module, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    graph.scope = name
    return _MODULES[_known(module)](graph, module, name, x, shape)


def _sequential(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    for key, child in module._modules.items():
        x, shape = _add(graph, child, f"{name}.{key}" if name else key, x, shape)
    return x, shape


def _linear(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    if not shape or shape[-1] != module.in_features:
        raise ValueError(
            f"onnx.export: {name or 'the model'} takes (..., {module.in_features}); got {shape}"
        )
    weight = graph.weight(module.weight)
    bias = None if module.bias is None else graph.weight(module.bias)
    if len(shape) == 2:
        operands = [x, weight] if bias is None else [x, weight, bias]
        y = graph.node("Gemm", operands, transB=1)
    else:
        y = graph.node("MatMul", [x, graph.node("Transpose", [weight], perm=[1, 0])])
        y = y if bias is None else graph.node("Add", [y, bias])
    if module.activation is not None:
        y = activations.add(graph, y, module.activation, module.activation_args or {})
    return y, (*shape[:-1], module.out_features)


def _activation(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    function, options = module._native
    return activations.add(graph, x, function, options or {}), shape


def _prelu(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    channels = shape[1] if len(shape) > 1 else 1
    slopes = module.num_parameters
    if slopes != 1 and slopes != channels:
        raise ValueError(
            f"onnx.export: {name or 'the model'} has {slopes} slopes, one for each channel; got "
            f"an input of shape {shape}"
        )
    slope = graph.weight(module.weight)
    if slopes != 1 and len(shape) > 2:
        there = graph.constant(np.array([slopes] + [1] * (len(shape) - 2), np.int64))
        slope = graph.node("Reshape", [slope, there])
    return activations.prelu(graph, x, slope), shape


def _softmax(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    if not -len(shape) <= module.dim < len(shape):
        raise ValueError(
            f"onnx.export: {name or 'the model'} works along axis {module.dim}; got an input of "
            f"shape {shape}"
        )
    operator = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[module._op]
    return graph.node(operator, [x], axis=module.dim), shape


def _flatten(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    module._flat(tuple(1 if isinstance(size, str) else size for size in shape))  # its own errors
    start, end = module.start_dim % len(shape), module.end_dim % len(shape)
    if start == end:
        return x, shape
    inner = shape[start : end + 1]
    sizes = [size for size in inner if not isinstance(size, str)]
    joined: Size = (
        int(np.prod(sizes, dtype=np.int64))
        if len(sizes) == len(inner)
        else graph.new_name("x".join(map(str, inner)))
    )
    flat = (*shape[:start], joined, *shape[end + 1 :])
    if 0 in flat and not (start == 1 and end == len(shape) - 1):
        raise ValueError(
            f"onnx.export: {name or 'the model'} joins axes of {shape}, which has no elements"
        )
    if start == 1 and end == len(shape) - 1:
        return graph.node("Flatten", [x], axis=1), flat
    if sum(isinstance(size, str) for size in flat[start:]) <= 1:
        # 0 keeps the size of an axis in its place, -1 is what is left over.
        sizes = [0] * start + [-1 if isinstance(size, str) else size for size in flat[start:]]
        target = graph.constant(np.array(sizes, np.int64))
    elif graph.opset >= 15:
        parts = [graph.node("Shape", [x], start=0, end=start)] if start > 0 else []
        parts += [graph.constant(np.array([-1], np.int64))]
        parts += [graph.node("Shape", [x], start=end + 1)]
        target = graph.node("Concat", parts, axis=0)
    else:
        raise ValueError(
            f"onnx.export: {name or 'the model'} joins axes of {shape}, which is named behind them "
            f"too; that needs opset_version=15; got {graph.opset}"
        )
    return graph.node("Reshape", [x, target]), flat


def _same(graph: Graph, module: Any, name: str, x: str, shape: _Shape) -> tuple[str, _Shape]:
    return x, shape


_MODULES: dict[type, Callable[[Graph, Any, str, str, _Shape], tuple[str, _Shape]]] = {
    nn.Sequential: _sequential,
    nn.FusedMLP: _sequential,
    nn.Linear: _linear,
    nn.PReLU: _prelu,
    nn.Softmax: _softmax,
    nn.LogSoftmax: _softmax,
    nn.Flatten: _flatten,
    nn.Dropout: _same,
    activations.Activation: _activation,
}
