# SPDX-License-Identifier: MIT
"""The file behind save and load: safetensors, with a state as JSON in its metadata.

The one key ``tilegrad`` holds the text; the text has the checksum, shape and dtype of each tensor,
and at its end its own checksum. So every byte is checked, and nothing in a file is ever executed.
Equal states give equal files: safetensors orders the tensors, but of several keys the order varies.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._files import Path, write_whole
from tilegrad.array import _CODES, _numpy_dtype
from tilegrad.array import Array as DeviceArray

Array: TypeAlias = NDArray[Any]

_FORMAT = 1
_KEY, _CHECK = "tilegrad", "tilegrad.crc32"
_MARK = f'"{_CHECK}": "'  # far from the key: what damages one leaves the other
_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8",
           "int8": "I8", "int16": "I16", "uint16": "U16", "uint32": "U32", "uint64": "U64",
           "bool": "BOOL", "float16": "F16", "bfloat16": "BF16"}  # fmt: skip


def import_safetensors(op: str) -> Any:
    """Return the package safetensors.

    Args:
        op: Name for the error text.

    Raises:
        ImportError: It is not installed; the text names the extra.
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            f"{op}: needs the package safetensors; install it with: pip install 'tilegrad[io]'"
        ) from error
    return safetensors


def encode(value: Any, name: str, tensors: dict[str, Array]) -> Any:
    """Return a value as JSON has it; arrays go to ``tensors`` under their dotted names."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, DeviceArray):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.name not in _DTYPES:
            raise TypeError(f"save: {name} has a dtype that no file holds; got {value.dtype}")
        if name in tensors:  # {"a.b": array, "a": {"b": array}}
            raise TypeError(f"save: two arrays have the name {name}; rename one")
        tensors[name] = np.asarray(value, order="C")
        return {"$tensor": name}
    if isinstance(value, np.generic):
        return {"$scalar": [value.dtype.name, value.item()]}
    if isinstance(value, tuple):
        return {"$tuple": [encode(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [encode(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and not key.startswith("$") for key in value
    ):
        return {key: encode(v, f"{name}.{key}", tensors) for key, v in value.items()}
    raise TypeError(
        f"save: {name} must be made of numbers, strings, arrays, lists and dicts with string keys; "
        f"got {value!r}"
    )


def decode(value: Any, tensors: Mapping[str, Array]) -> Any:
    """Return what ``encode`` was given."""
    if isinstance(value, list):
        return [decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$scalar" in value:
        name, number = value["$scalar"]
        return _dtype(name).type(number)
    if "$tuple" in value:
        return tuple(decode(v, tensors) for v in value["$tuple"])
    return {key: decode(v, tensors) for key, v in value.items()}


def _dtype(name: str) -> np.dtype[Any]:
    return _numpy_dtype(_CODES[name]) if name == "bfloat16" else np.dtype(name)


def _describe(tensor: Array) -> dict[str, Any]:
    crc = zlib.crc32(tensor.reshape(-1).view(np.uint8).data)
    return {"dtype": tensor.dtype.name, "shape": list(tensor.shape), "crc32": f"{crc:08x}"}


def seal(state: Mapping[str, Any]) -> str:
    """Return a state as JSON whose last entry is the checksum of all before it."""
    text = json.dumps(state)[:-1] + ", " + _MARK
    return f'{text}{zlib.crc32(text.encode()):08x}"}}'


def _unseal(text: str) -> dict[str, Any]:
    body = text[:-10]  # without 8 digits, a quote and a brace
    if text != f'{body}{zlib.crc32(body.encode()):08x}"}}' or not body.endswith(_MARK):
        raise ValueError("it is damaged: the checksum of its metadata is wrong")
    state: dict[str, Any] = json.loads(text)
    del state[_CHECK]
    return state


def write(path: Path, tensors: Mapping[str, Array], state: Mapping[str, Any]) -> None:
    """Put tensors and state in the place of a file, in one step."""
    described = {name: _describe(tensor) for name, tensor in tensors.items()}
    metadata = {_KEY: seal({"format": _FORMAT, **state, "tensors": described})}
    content = import_safetensors("save").numpy.save(dict(tensors), metadata=metadata)
    write_whole(path, content, "save")


def _read_bfloat16(package: Any, path: Path) -> dict[str, Array]:
    """Return the tensors of bfloat16, which not every version of safetensors gives to NumPy."""
    dtype = _dtype("bfloat16")
    with open(path, "rb") as file:
        content = package.deserialize(file.read())
    return {
        name: np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"]).copy()
        for name, tensor in content
        if tensor["dtype"] == "BF16"
    }


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any] | None]:
    """Return the tensors and the checked state; None for a file that ``save`` did not write."""
    package = import_safetensors("load")
    with open(path, "rb"):  # Python's own errors for what is missing, a folder or forbidden
        pass
    try:
        with package.safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            for name, kind in kinds.items():
                if kind not in _DTYPES.values():
                    raise ValueError(f"{name} has dtype {kind}, which NumPy does not have")
            tensors = {
                name: file.get_tensor(name) for name, kind in kinds.items() if kind != "BF16"
            }
        if len(tensors) < len(kinds):
            tensors.update(_read_bfloat16(package, path))
    except package.SafetensorError as error:
        raise ValueError(f"it is no whole safetensors file; {error}") from error
    if _KEY not in metadata and not any(_MARK in text for text in metadata.values()):
        return tensors, None
    state = _unseal(metadata.get(_KEY, ""))
    if state["format"] != _FORMAT:
        raise ValueError(
            f"its format must be {_FORMAT}; got {state['format']} (from another version of "
            "tilegrad?)"
        )
    described: dict[str, Any] = state["tensors"]
    if described.keys() != tensors.keys():
        raise ValueError(
            f"it is damaged: tensors {sorted(described.keys() ^ tensors.keys())} are in the header "
            "or in the metadata alone"
        )
    for name, tensor in tensors.items():
        if _describe(tensor) != described[name]:
            raise ValueError(
                f"it is damaged: {name} must be {described[name]}; got {_describe(tensor)}"
            )
    return tensors, state
