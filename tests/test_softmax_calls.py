# SPDX-License-Identifier: MIT
"""softmax and log_softmax: where results are written, ways to call, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import Device, assert_same_bits, bad_outs, error, frozen, guarded_out
from softmax_oracle import backward, every_dtype, every_name, forward


@every_name
@every_dtype
def test_softmax_of_no_axes_or_no_elements(device: Device, isa: str, name: str, dtype: Any) -> None:
    one = device.put(np.array(3, dtype))
    for dim in (0, -1):
        y = forward(name)(one, dim)
        assert y.shape == ()
        assert float(y) == (1 if name == "softmax" else 0)
        assert float(backward(name)(one, one, dim)) == 0
    for shape in [(0,), (3, 0), (0, 3), (2, 0, 3)]:
        for dim in range(len(shape)):
            x = device.put(np.empty(shape, dtype))
            assert forward(name)(x, dim).shape == shape
            assert backward(name)(x, x, dim).shape == shape


@every_name
@every_dtype
def test_softmax_out_may_be_an_operand(
    device: Device, isa: str, threads: int, name: str, dtype: Any, rng: np.random.Generator
) -> None:
    cases = [((37, 1009), 1), ((1009, 37), 0), ((9, 40, 31), 1), ((4, 1009), 1), ((37, 20), 1)]
    for shape, dim in device.cases(cases, lambda case: np.prod(case[0]), within=12_000):
        x, dy = (device.put(rng.standard_normal(shape).astype(dtype)) for _ in range(2))
        y = forward(name)(x, dim)
        dx = backward(name)(dy, x, dim, output=y)
        with device.guarded_out(shape, dtype, 1) as memory:
            device.copy(memory, x)
            assert forward(name)(memory, dim, out=memory) is memory
            assert_same_bits(memory, y)
            assert_same_bits(backward(name)(dy, x, dim, output=memory, out=memory), dx)
            device.copy(memory, dy)
            assert backward(name)(memory, x, dim, output=y, out=memory) is memory
            assert_same_bits(memory, dx)


@every_name
def test_softmax_calls(name: str, rng: np.random.Generator) -> None:
    x = frozen(rng.standard_normal((3, 4)))
    y = forward(name)(x, 1)
    for again in (
        forward(name)(x, dim=1),
        forward(name)(input=x, dim=-1),
        forward(name)(x, np.int64(1)),
    ):
        assert_same_bits(again, y)
        assert not np.shares_memory(again, y)
    with pytest.raises(TypeError):
        forward(name)(x)  # the axis is never guessed
    assert type(y) is np.ndarray
    dy = frozen(rng.standard_normal((3, 4)))
    dx = backward(name)(dy, x, 1)
    assert_same_bits(backward(name)(dy, x, dim=1, wrt="input"), dx)
    assert_same_bits(backward(name)(dy, x, 1, wrt=("input",))[0], dx)
    with guarded_out((3, 4), np.float64) as out:
        assert backward(name)(dy, x, 1, wrt=["input"], out=(out,))[0] is out
    assert_same_bits(out, dx)


@every_name
def test_softmax_casts_to_a_dtype_first(name: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 40)).astype(np.float32)
    dy = rng.standard_normal((3, 40))
    wide = x.astype(np.float64)
    y = forward(name)(x, 1, dtype=np.float64)
    assert_same_bits(y, forward(name)(wide, 1))
    assert_same_bits(
        forward(name)(np.arange(5), 0, dtype=np.float32),
        forward(name)(np.arange(5, dtype=np.float32), 0),
    )
    dx = backward(name)(dy, x, 1, dtype=np.float64)
    assert_same_bits(dx, backward(name)(dy, wide, 1).astype(np.float32))
    assert_same_bits(backward(name)(dy, x, 1, dtype=np.float64, output=y), dx)
    for dtype in (np.int64, np.float16, np.complex128):
        with error(TypeError, name, "dtype", np.dtype(dtype).name):
            forward(name)(x, 1, dtype=dtype)
    with error(TypeError, f"{name}_backward", "input must be an array; got tuple"):
        backward(name)(dy, (1, (2, 3)), 1, dtype=np.float64)
    with error(TypeError, name, "input of", "cannot be cast to float32"):
        forward(name)(np.zeros((2, 3), [("a", "f4"), ("b", "f4")]), 1, dtype=np.float32)


# ---- errors ------------------------------------------------------------------------------------


@every_name
def test_softmax_refuses_dims_and_shapes(name: str) -> None:
    x = np.ones((3, 4))
    for dim in (2, -3, 10**6):
        with error(ValueError, name, "dim", "[-2, 1]", str(dim)):
            forward(name)(x, dim)
        with error(ValueError, f"{name}_backward", "dim", "[-2, 1]", str(dim)):
            backward(name)(x, x, dim)
    for dim in (1.0, None, "1", (0, 1)):
        with error(TypeError, name, "dim"):
            forward(name)(x, dim)
    with error(ValueError, name, "dim", "1"):
        forward(name)(np.float32(1), 1)
    with error(ValueError, f"{name}_backward", "grad_output", "(3, 4)", "(4, 3)"):
        backward(name)(x.T, x, 0)
    with error(ValueError, f"{name}_backward", "output", "(3, 4)", "(4, 3)"):
        backward(name)(x, x, 0, output=x.T)
    with error(TypeError, f"{name}_backward", "float32", "float64"):
        backward(name)(x.astype(np.float32), x, 0)
    with error(TypeError, f"{name}_backward", "float32", "float64"):
        backward(name)(x, x, 0, output=x.astype(np.float32))
    for wrt in ("x", (), ("input", "x")):
        with error(ValueError, f"{name}_backward", "wrt"):
            backward(name)(x, x, 0, wrt=wrt)


@every_name
def test_softmax_refuses_out(name: str) -> None:
    x = np.ones((3, 4), np.float32)
    for what, (out, kind, part) in bad_outs((3, 4), np.float32).items():
        with error(kind, name, "out", part):
            forward(name)(x, 1, out=out)
            pytest.fail(f"accepted out with another {what}")
        with error(kind, f"{name}_backward", "out", part):
            backward(name)(x, x, 1, out=out)
            pytest.fail(f"backward accepted out with another {what}")
    memory = np.ones(20)
    x, out = memory[:12].reshape(3, 4), memory[1:13].reshape(3, 4)
    other = np.ones((3, 4))
    with error(ValueError, name, "out", "overlap"):
        forward(name)(x, 1, out=out)
    for operands in ((x, other), (other, x)):
        with error(ValueError, f"{name}_backward", "out", "overlap"):
            backward(name)(*operands, 1, out=out)
    with error(ValueError, f"{name}_backward", "out", "overlap"):
        backward(name)(other, other, 1, output=x, out=out)
    square = np.ones((4, 4))
    with error(ValueError, name, "out", "overlap"):
        forward(name)(square.T, 1, out=square)
