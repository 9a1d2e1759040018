# SPDX-License-Identifier: MIT
"""The elementwise activations: where results are written, ways to call, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from activation_ops import Op, every_dtype, every_op, values
from helpers import (
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    bad_outs,
    error,
    frozen,
)
from tilegrad import reference

INPLACE = ("relu", "leaky_relu", "elu", "selu", "silu")


@every_dtype
@every_op
def test_activation_writes_out_and_nothing_else(
    device: Device, isa: str, op: Op, dtype: Any, rng: np.random.Generator
) -> None:
    for shape in [(), (0,), (1,), (15,), (33,), (1021,), (7, 9), (3, 5, 7)]:
        x = device.put(frozen(values(rng, shape, dtype)))
        dy = device.put(frozen(np.asarray(rng.standard_normal(shape), dtype=dtype)))
        y, dx = op.forward(x), op.backward(dy, x)
        for offset in (0, 1, 3):
            with device.guarded_out(shape, dtype, offset) as out:
                assert op.forward(x, out=out) is out
            assert_same_bits(out, y)
            with device.guarded_out(shape, dtype, offset) as out:
                assert op.backward(dy, x, out=out) is out
            assert_same_bits(out, dx)


@every_dtype
@every_op
def test_activation_out_may_be_an_operand(
    device: Device, isa: str, threads: int, op: Op, dtype: Any, rng: np.random.Generator
) -> None:
    size = 70_001 if device.name != "sim" else 1_501
    x = device.put(values(rng, (size,), dtype))
    dy = device.put(rng.standard_normal(size).astype(dtype))
    y, dx = op.forward(x), op.backward(dy, x)
    with device.guarded_out(x.shape, dtype, 1) as memory:
        device.copy(memory, x)
        assert op.forward(memory, out=memory) is memory
        assert_same_bits(memory, y)
        device.copy(memory, dy)
        op.backward(memory, x, out=memory)
        assert_same_bits(memory, dx, what="out is grad_output")
        device.copy(memory, x)
        op.backward(dy, memory, out=memory)
        assert_same_bits(memory, dx, what="out is input")
        with_output = op.backward(dy, x, output=y)
        device.copy(memory, y)
        op.backward(dy, x, output=memory, out=memory)
        assert_same_bits(memory, with_output, what="out is output")


@every_dtype
@pytest.mark.parametrize("name", INPLACE)
def test_activation_inplace_on_a_device(
    device: Device, name: str, dtype: Any, rng: np.random.Generator
) -> None:
    x, function = device.put(values(rng, (5, 33), dtype)), getattr(tg, name)
    expected = function(x)
    for call in (lambda v: function(v, inplace=True), lambda v: function(v, inplace=True, out=v)):
        target = x.copy()
        assert call(target) is target
        assert_same_bits(target, expected)
    with error(ValueError, name, "inplace"):
        function(x, inplace=True, out=x.copy())


@every_dtype
@pytest.mark.parametrize("name", INPLACE)
def test_activation_inplace(isa: str, name: str, dtype: Any, rng: np.random.Generator) -> None:
    x = values(rng, (5, 33), dtype)
    function = getattr(tg, name)
    expected = function(x)
    for call in (lambda v: function(v, inplace=True), lambda v: function(v, inplace=True, out=v)):
        target = x.copy()
        assert call(target) is target
        assert_same_bits(target, expected)
    with error(ValueError, name, "inplace"):
        function(x, inplace=True, out=np.empty_like(x))
    with error(TypeError, name, "contiguous"):
        function(x[:, ::2], inplace=True)
    with error(ValueError, name, "read-only"):
        function(frozen(x), inplace=True)


@every_op
def test_activation_returns_fresh_arrays(isa: str, op: Op) -> None:
    for shape in [(), (0,), (3,), (4, 5)]:
        x = frozen(np.ones(shape, np.float32))
        first, second = op.forward(x), op.forward(x)
        gradient = op.backward(x, x)
        for result in (first, second, gradient):
            assert type(result) is np.ndarray
            assert result.shape == shape
            assert result.flags.c_contiguous
            assert result.flags.writeable
            assert not np.shares_memory(result, x)
        assert not np.shares_memory(first, second)
    kept = op.forward(np.full(1000, 0.75, np.float32))
    copy = kept.copy()
    for _ in range(3):
        op.forward(np.full(1000, 1.5, np.float32))
    np.testing.assert_array_equal(kept, copy)


def test_activation_takes_numpy_scalars_and_broadcast_views(isa: str) -> None:
    assert float(tg.relu(np.float32(3))) == 3
    assert tg.sigmoid(np.float64(0)).dtype == np.float64
    ones = np.broadcast_to(np.float32(2), (6, 7))
    assert_exact(tg.relu(ones), np.full((6, 7), 2, np.float32))
    column = np.broadcast_to(np.arange(3.0)[:, None], (3, 40))
    np.testing.assert_array_equal(tg.relu_backward(ones, ones), ones)
    np.testing.assert_array_equal(tg.relu_backward(column, column), column)


def test_activation_takes_torchs_calls() -> None:
    x = np.array([-2.0, -0.5, 0.0, 1.5])
    t = torch.from_numpy(x)
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("relu", (), {}),
        ("relu", (False,), {}),
        ("relu", (), {"inplace": False}),
        ("leaky_relu", (0.3,), {}),
        ("leaky_relu", (0.3, False), {}),
        ("leaky_relu", (), {"negative_slope": 0.3, "inplace": False}),
        ("elu", (0.7,), {}),
        ("elu", (0.7, False), {}),
        ("elu", (), {"alpha": 0.7}),
        ("selu", (False,), {}),
        ("silu", (False,), {}),
        ("gelu", (), {"approximate": "none"}),
        ("gelu", (), {"approximate": "tanh"}),
    ]
    for name, args, options in calls:
        expected = getattr(F, name)(t, *args, **options).numpy()
        assert_close(getattr(tg, name)(x, *args, **options), expected, 1e-15)
        assert_close(getattr(tg, name)(input=x, **options), getattr(F, name)(t, **options), 1e-15)
    target = x.copy()
    assert tg.relu(target, True) is target
    assert tg.leaky_relu(target, 0.1, True) is target
    with pytest.raises(TypeError):
        tg.gelu(x, "tanh")  # keyword-only in torch
    assert_close(tg.leaky_relu_backward(x, x, 0.3), reference.leaky_relu_backward(x, x, 0.3), 1e-15)
    assert_close(tg.elu_backward(x, x, 0.7), reference.elu_backward(x, x, 0.7), 1e-15)


@every_op
def test_activation_backward_wrt(device: Device, op: Op, rng: np.random.Generator) -> None:
    x, dy = (device.put(v) for v in rng.standard_normal((2, 3, 4)))
    expected = op.backward(dy, x)
    assert_same_bits(op.backward(dy, x, wrt="input"), expected)
    for wrt in (("input",), ["input"]):
        result = op.backward(dy, x, wrt=wrt)
        assert isinstance(result, tuple)
        assert len(result) == 1
        assert_same_bits(result[0], expected)
    with device.guarded_out(x.shape, x.dtype) as out:
        assert op.backward(dy, x, wrt="input", out=out) is out
    assert_same_bits(out, expected)
    with device.guarded_out(x.shape, x.dtype) as out:
        assert op.backward(dy, x, wrt=("input",), out=(out,))[0] is out
    assert_same_bits(out, expected)
    y = op.forward(x)
    assert_same_bits(op.backward(dy, x, output=y, wrt="input"), op.backward(dy, x, output=y))


# ---- errors ------------------------------------------------------------------------------------


@every_op
def test_activation_refuses_out(op: Op) -> None:
    x = np.ones((3, 4), np.float32)
    for name, (out, kind, part) in bad_outs((3, 4), np.float32).items():
        with error(kind, op.name, "out", part):
            op.forward(x, out=out)
            pytest.fail(f"accepted out with another {name}")
        with error(kind, f"{op.name}_backward", "out", part):
            op.backward(x, x, out=out)
            pytest.fail(f"backward accepted out with another {name}")


@every_op
def test_activation_refuses_partial_overlap(op: Op) -> None:
    memory = np.ones(20)
    pairs = [
        (memory[:10], memory[1:11]),
        (memory[1:11], memory[:10]),
        (memory[:20:2], memory[5:15]),
        (memory[9::-1], memory[:10]),  # the same memory, backwards
    ]
    for x, out in pairs:
        with error(ValueError, op.name, "out", "overlap"):
            op.forward(x, out=out)
        other = np.ones(10)
        for operands in ((x, other), (other, x)):
            with error(ValueError, f"{op.name}_backward", "out", "overlap"):
                op.backward(*operands, out=out)
        with error(ValueError, f"{op.name}_backward", "out", "overlap"):
            op.backward(other, other, output=x, out=out)
    square = np.ones((4, 4))
    with error(ValueError, op.name, "out", "overlap"):
        op.forward(square.T, out=square)
    op.forward(memory[:10], out=memory[10:])  # neighbours are no overlap
    assert (memory[:10] == 1).all()


@every_op
def test_activation_backward_refuses(op: Op) -> None:
    name = f"{op.name}_backward"
    x = np.ones((3, 4))
    with error(ValueError, name, "grad_output", "(3, 4)", "(4, 3)"):
        op.backward(x.T, x)
    with error(ValueError, name, "grad_output", "(3, 4)", "(4,)"):
        op.backward(np.ones(4), x)  # no broadcasting
    with error(ValueError, name, "output", "(3, 4)", "(3,)"):
        op.backward(x, x, output=np.ones(3))
    with error(TypeError, name, "float32", "float64"):
        op.backward(x.astype(np.float32), x)
    with error(TypeError, name, "float32", "float64"):
        op.backward(x, x, output=x.astype(np.float32))
    for wrt in ("x", ("input", "x"), ()):
        with error(ValueError, f"{op.name}_backward", "wrt"):
            op.backward(x, x, wrt=wrt)
    with error(TypeError, f"{op.name}_backward", "wrt"):
        op.backward(x, x, wrt=3)


def test_activation_refuses_options() -> None:
    x = np.ones(3)
    for name in ("Tanh", "", "erf"):
        with error(ValueError, "gelu", "approximate", repr(name)):
            tg.gelu(x, approximate=name)
        with error(ValueError, "gelu_backward", "approximate", repr(name)):
            tg.gelu_backward(x, x, approximate=name)
    for call, op in [
        (lambda v: tg.elu(x, v), "elu"),
        (lambda v: tg.elu_backward(x, x, v), "elu_backward"),
        (lambda v: tg.leaky_relu(x, v), "leaky_relu"),
        (lambda v: tg.leaky_relu_backward(x, x, v), "leaky_relu_backward"),
    ]:
        for value in ("a", None, [1.0]):
            with error(TypeError, op):
                call(value)
