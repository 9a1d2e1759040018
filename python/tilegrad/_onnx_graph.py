# SPDX-License-Identifier: MIT
"""A graph of ONNX operators while it is made."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._makers import host_dtype

Size: TypeAlias = "int | str"  # of an axis; a string names one of any size


def import_onnx() -> Any:
    """Return the package onnx.

    Raises:
        ImportError: It is not installed; the text names the extra.
    """
    try:
        import onnx
        import onnx.checker
        import onnx.helper
    except ImportError as error:
        raise ImportError(
            "onnx.export: needs the package onnx; install it with: pip install 'tilegrad[onnx]'"
        ) from error
    return onnx


class Graph:
    """Nodes and constants in order, all tensors of one dtype but for shapes and conditions.

    Args:
        onnx: The package.
        dtype: "float32", "float64" or "bfloat16".
        opset: Version of the operators.
    """

    def __init__(self, onnx: Any, dtype: str, opset: int) -> None:
        self.onnx, self.dtype, self.opset = onnx, dtype, opset
        self.scope = ""  # the module that makes nodes
        self.taken: set[str] = set()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._weights: dict[int, str] = {}
        self._scalars: dict[float, str] = {}

    def new_name(self, wish: str) -> str:
        """Return a name that nothing has yet."""
        name, number = wish, 1
        while name in self.taken:
            number += 1
            name = f"{wish}_{number}"
        self.taken.add(name)
        return name

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add an operator; return the name of its result."""
        name = self.new_name(f"{self.scope}.{operator}" if self.scope else operator)
        self._nodes.append(
            self.onnx.helper.make_node(operator, inputs, [name], name=name, **attributes)
        )
        return name

    def add_weight(self, key: int, name: str, value: NDArray[Any]) -> None:
        """Add a parameter under its own name."""
        self.taken.add(name)
        self._constants.append(self._tensor(name, value))
        self._weights[key] = name

    def weight(self, parameter: Any) -> str:
        """Return the name of a parameter that was added."""
        return self._weights[id(parameter)]

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant; return its name."""
        name = self.new_name("constant")
        self._constants.append(self._tensor(name, value))
        return name

    def scalar(self, value: float) -> str:
        """Return the name of a number of the graph's dtype."""
        if value not in self._scalars:
            self._scalars[value] = self.constant(np.asarray(value, host_dtype(self.dtype)))
        return self._scalars[value]

    def _tensor(self, name: str, value: NDArray[Any]) -> Any:
        kind = self._kind(value.dtype.name)
        raw = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        return self.onnx.helper.make_tensor(name, kind, value.shape, raw, raw=True)

    def _kind(self, dtype: str) -> Any:
        names = {"float32": "FLOAT", "float64": "DOUBLE"}
        return getattr(self.onnx.TensorProto, names.get(dtype, dtype.upper()))

    def finish(
        self,
        input_name: str,
        input_shape: tuple[Size, ...],
        result: str,
        output_name: str,
        output_shape: tuple[Size, ...],
    ) -> Any:
        """Return the model whose output is a result of the graph under another name."""
        helper, kind = self.onnx.helper, self._kind(self.dtype)
        last = self._nodes[-1] if self._nodes else None
        if last is not None and last.output[0] == result:
            last.output[0] = output_name
        else:  # a model that does nothing
            self._nodes.append(helper.make_node("Identity", [result], [output_name]))
        graph = helper.make_graph(
            self._nodes,
            "model",
            [helper.make_tensor_value_info(input_name, kind, input_shape)],
            [helper.make_tensor_value_info(output_name, kind, output_shape)],
            self._constants,
        )
        from tilegrad import __version__

        operators = [helper.make_opsetid("", self.opset)]
        return helper.make_model(
            graph,
            producer_name="tilegrad",
            producer_version=__version__,
            opset_imports=operators,
            ir_version=helper.find_min_ir_version_for(operators),
        )
