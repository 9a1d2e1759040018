# SPDX-License-Identifier: MIT
"""Which operands an op takes: arrays, torch tensors, DLPack; and which it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import FLOATS, Array, Device, assert_same_bits, error

ONES = np.ones((3, 3), np.float32)
CALLS: dict[str, Callable[[Any], Any]] = {
    "relu": tg.relu,
    "gelu": tg.gelu,
    "softmax": lambda x: tg.softmax(x, 0),
    "log_softmax": lambda x: tg.log_softmax(x, -1),
    "matmul": lambda x: tg.matmul(x, x),
    "linear": lambda x: tg.linear(x, x),
    "sigmoid_backward": lambda x: tg.sigmoid_backward(x, x),
    "softmax_backward": lambda x: tg.softmax_backward(x, x, 0),
    "matmul_backward": lambda x: tg.matmul_backward(x, x, x),
    "linear_backward": lambda x: tg.linear_backward(x, x, x),
}
SECOND: dict[str, Callable[[Any], Any]] = {
    "matmul": lambda x: tg.matmul(ONES, x),
    "linear": lambda x: tg.linear(ONES, x),
    "tanh_backward": lambda x: tg.tanh_backward(x, ONES),
    "elu_backward": lambda x: tg.elu_backward(ONES, ONES, output=x),
    "log_softmax_backward": lambda x: tg.log_softmax_backward(x, ONES, 0),
    "matmul_backward": lambda x: tg.matmul_backward(x, ONES, ONES),
    "linear_backward": lambda x: tg.linear_backward(x, ONES, ONES),
}


def misaligned() -> Array:
    return np.frombuffer(bytearray(4 * 9 + 1), np.float32, 9, 1).reshape(3, 3)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "list": (lambda: [[1.0] * 3] * 3, "asarray"),
    "tuple": (lambda: ((1.0,) * 3,) * 3, "asarray"),
    "float": (lambda: 1.0, "float"),
    "None": (lambda: None, "None"),
    "str": (lambda: "abc", "str"),
    "bytes": (lambda: b"abc", "bytes"),
    "range": (lambda: range(3), "range"),
    "int64": (lambda: np.ones((3, 3), np.int64), "int64"),
    "uint8": (lambda: np.ones((3, 3), np.uint8), "uint8"),
    "bool": (lambda: np.ones((3, 3), bool), "bool"),
    "float16": (lambda: np.ones((3, 3), np.float16), "float16"),
    "longdouble": (lambda: np.ones((3, 3), np.longdouble), "float"),
    "complex64": (lambda: np.ones((3, 3), np.complex64), "complex64"),
    "complex128": (lambda: np.ones((3, 3), np.complex128), "complex128"),
    "object": (lambda: np.ones((3, 3), object), "object"),
    "strings": (lambda: np.full((3, 3), "1"), "U1"),
    "dates": (lambda: np.zeros((3, 3), "datetime64[s]"), "datetime64"),
    "records": (lambda: np.zeros((3, 3), [("x", np.float32)]), "dtype"),
    "byte-swapped": (lambda: np.ones((3, 3), np.dtype(np.float32).newbyteorder()), "byte order"),
    "misaligned": (misaligned, "aligned"),
    "masked": (lambda: np.ma.masked_array(ONES, ONES == 1), "masked"),
    "torch float16": (lambda: torch.ones(3, 3, dtype=torch.float16), "float16"),
    "torch int64": (lambda: torch.ones(3, 3, dtype=torch.int64), "int64"),
    "torch with grad": (lambda: torch.ones(3, 3, requires_grad=True), "DLPack"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_operands_refused(kind: str) -> None:
    make, part = REFUSED[kind]
    for op, call in CALLS.items():
        with error(TypeError, op, part):
            call(make())
    for op, call in SECOND.items():
        if (op, kind) in {("matmul_backward", "float"), ("elu_backward", "None")}:
            continue  # a scalar is a grad_output (here of the wrong shape); output may be left out
        with error(TypeError, op, part):
            call(make())


@pytest.mark.not_on_cpu("what a device takes: Arrays that are there")
@pytest.mark.parametrize("kind", ["list", "float", "None", "str", "int64", "bool", "complex64"])
def test_operands_refused_on_a_device(device: Device, kind: str) -> None:
    there = device.put(ONES)
    make, part = REFUSED[kind]
    value = make()
    for call in (lambda x: tg.matmul(there, x), lambda x: tg.tanh_backward(x, there)):
        with pytest.raises(TypeError, match=r"^\w+: "):
            call(value)
    if kind in ("int64", "bool"):
        value = device.put(value)
        for op, call in CALLS.items():
            with error(TypeError, op, part, "float32"):
                call(value)
    with error(TypeError, "matmul", "b is on cpu", device.name):
        tg.matmul(there, torch.ones(3, 3))
    with error(TypeError, "matmul", device.name):
        tg.matmul(torch.ones(3, 3), there)


@pytest.mark.not_on_cpu("what a device takes: Arrays that are there")
def test_many_axes_are_taken_on_a_device(device: Device) -> None:
    for axes in (8, 20, 32):
        x = device.put(np.full((1,) * (axes - 1) + (3,), -2, np.float32))
        assert tg.relu(x).shape == x.shape
        assert (device.get(tg.softmax(x, axes - 1)) == np.float32(1 / 3)).all()


def test_operands_of_two_dtypes_are_refused() -> None:
    wide = np.ones((3, 3))
    for op, call in SECOND.items():
        with error(TypeError, op, "float32", "float64"):
            call(wide)
    with error(TypeError, "matmul", "float32", "float64"):
        tg.matmul(ONES, torch.ones(3, 3, dtype=torch.float64))


def test_subclasses_and_odd_views_are_read_as_arrays() -> None:
    class Tagged(np.ndarray):
        pass

    tagged = np.arange(-4.0, 5.0).reshape(3, 3).view(Tagged)
    result = tg.relu(tagged)
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, np.maximum(np.asarray(tagged), 0))
    record = np.zeros(5, [("x", np.float32), ("pad", np.float32), ("y", np.float64)])
    record["x"] = [-1, 2, -3, 4, 5]
    np.testing.assert_array_equal(tg.relu(record["x"]), [0, 2, 0, 4, 5])
    unusual = np.zeros(5, np.dtype([("x", np.float32), ("pad", np.uint8)]))[
        "x"
    ]  # stride of 5 bytes
    with error(TypeError, "relu", "aligned"):
        tg.relu(unusual)


def test_many_axes_are_taken() -> None:
    for axes in (8, 20, 32):
        x = np.full((1,) * (axes - 1) + (3,), -2, np.float32)
        assert tg.relu(x).shape == x.shape
        assert (tg.softmax(x, axes - 1) == np.float32(1 / 3)).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_tensors_are_read_without_a_copy(dtype: Any, rng: np.random.Generator) -> None:
    a, b = (rng.standard_normal((5, 5)).astype(dtype) for _ in range(2))
    ta, tb = torch.from_numpy(a), torch.from_numpy(b)
    for result, expected in [
        (tg.matmul(ta, tb), tg.matmul(a, b)),
        (tg.matmul(a, tb), tg.matmul(a, b)),
        (tg.matmul(ta.T, tb), tg.matmul(a.T, b)),
        (tg.linear(ta, tb, tb[0], "gelu"), tg.linear(a, b, b[0], "gelu")),
        (tg.softmax(ta, 0), tg.softmax(a, 0)),
        (tg.relu(ta[::2, 1:]), tg.relu(a[::2, 1:])),
        (tg.silu(ta.expand(3, 5, 5)), tg.silu(np.broadcast_to(a, (3, 5, 5)))),
        (tg.tanh_backward(ta, tb), tg.tanh_backward(a, b)),
    ]:
        assert type(result) is np.ndarray
        assert_same_bits(result, expected)
    # out that overlaps the tensor's memory is seen: it was not copied
    memory = torch.zeros(40, dtype=ta.dtype)
    with error(ValueError, "relu", "overlap"):
        tg.relu(memory[1:], out=memory.numpy()[:-1])
    with error(ValueError, "matmul", "overlap"):
        square = memory[:25].reshape(5, 5)
        tg.matmul(square, square, out=square.numpy())
    target = torch.full((6,), -1, dtype=ta.dtype)
    tg.relu(target, out=target.numpy())
    assert (target == 0).all()
    with error(TypeError, "relu", "out"):
        tg.relu(a, out=ta)  # out is a numpy.ndarray on the cpu


def test_any_object_with_dlpack_is_taken() -> None:
    class Foreign:
        def __init__(self, array: Array) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    class Broken(Foreign):
        def __dlpack__(self, **options: Any) -> Any:
            raise RuntimeError("no memory here")

    class Elsewhere(Foreign):
        def __dlpack_device__(self) -> Any:
            return (2, 0)

    x = np.float32([-1, 2])
    np.testing.assert_array_equal(tg.relu(Foreign(x)), [0, 2])
    np.testing.assert_array_equal(tg.matmul(Foreign(x), Foreign(x)), 5)
    with error(TypeError, "relu", "DLPack", "no memory here"):
        tg.relu(Broken(x))
    if not tg.cuda.is_available():  # memory of a GPU belongs to the cuda backend
        with error(RuntimeError, "device", "'cuda' cannot be used"):
            tg.relu(Elsewhere(x))
    with error(TypeError, "matmul", "another device"):
        tg.matmul(x, Elsewhere(x))


def test_references_are_given_back() -> None:
    x = np.ones((40, 40), np.float32)
    tensor = torch.ones(40, 40)
    before = sys.getrefcount(x), sys.getrefcount(tensor)
    for _ in range(10):
        y = tg.matmul(x, tensor)
        tg.relu(x, out=y)
        tg.linear_backward(x, x, x, out=(None, y, None))
        for bad in ([1], np.ones(3)):
            with pytest.raises((TypeError, ValueError)):
                tg.matmul(x, bad)
    assert (sys.getrefcount(x), sys.getrefcount(tensor)) == before
