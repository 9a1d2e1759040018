# SPDX-License-Identifier: MIT
"""Options that functions share: out, inplace, output, wrt, dtype."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import Device, assert_exact

ACTIVATIONS = [
    "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu",
    "softplus", "mish", "hardtanh", "relu6",
    "hardsigmoid", "hardswish",
]  # fmt: skip

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


@every_activation
def test_activation_out_and_inplace(device: Device, name: str) -> None:
    function, x = getattr(tg, name), device.put(np.linspace(-2, 2, 12).reshape(3, 4))
    want = function(x)
    out = device.put(np.full(x.shape, np.nan))
    assert function(x, out=out) is out
    assert_exact(out, want)
    if "inplace" not in inspect.signature(function).parameters:
        return
    with pytest.raises(ValueError, match=f"{name}: inplace=True writes to input"):
        function(x, inplace=True, out=out)
    assert function(x, inplace=True) is x
    assert_exact(x, want)
    assert function(x, inplace=True, out=x) is x
    if device.name != "cpu":  # there are no strides
        return
    strided = np.ones((3, 4)).T
    with pytest.raises(TypeError, match=f"{name}: out must be C-contiguous"):
        function(strided, inplace=True)


@every_activation
def test_activation_backward_from_output_is_that_from_input(device: Device, name: str) -> None:
    x = np.linspace(-2, 2, 11)
    dy = np.linspace(1, 3, 11)
    y, backward = getattr(device.ops, name)(x), getattr(device.ops, f"{name}_backward")
    np.testing.assert_allclose(backward(dy, x, output=y), backward(dy, x), rtol=1e-12)


@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "softmax", "log_softmax", "cross_entropy", "nll_loss"]
)
def test_wrt_gives_an_array_for_a_name_and_a_tuple_for_a_tuple(device: Device, name: str) -> None:
    backward = getattr(tg, f"{name}_backward")
    x = device.put(np.linspace(-1, 1, 6).reshape(2, 3))
    arguments: dict[str, tuple[Any, ...]] = {
        "softmax": (x, x, 1),
        "log_softmax": (x, x, 1),
        "cross_entropy": (1.0, x, device.put(np.array([0, 2]))),
        "nll_loss": (1.0, x, device.put(np.array([0, 2]))),
    }
    args = arguments.get(name, (x, x))
    want = backward(*args)
    assert_exact(backward(*args, wrt="input"), want)
    (only,) = backward(*args, wrt=("input",))
    assert_exact(only, want)
    out = device.put(np.empty(x.shape))
    (only,) = backward(*args, wrt=("input",), out=(out,))
    assert only is out
    assert_exact(out, want)
    assert backward(*args, wrt="input", out=out) is out
    with pytest.raises(ValueError, match=rf"{name}_backward: wrt may name input(, target)?; got"):
        backward(*args, wrt="bias")
    with pytest.raises(TypeError, match=f"{name}_backward: wrt must be a name or a tuple"):
        backward(*args, wrt=3)
    with pytest.raises(TypeError, match=f"{name}_backward: out must be a tuple"):
        backward(*args, wrt=("input",), out=out)


def test_wrt_of_several_inputs_keeps_the_order_of_inputs(device: Device) -> None:
    a, b, ops = np.arange(6.0).reshape(2, 3), np.arange(3.0), device.ops
    da, db = ops.matmul_backward(np.ones(2), a, b, wrt=("b", "a"))
    assert (da.shape, db.shape) == (a.shape, b.shape)
    dx, dt = ops.mse_loss_backward(1.0, a, b, wrt=["target", "input"])
    assert (dx.shape, dt.shape) == (a.shape, b.shape)
    dx, dw, db = ops.linear_backward(np.ones((2, 4)), a, np.ones((4, 3)), np.ones(4), wrt="weight")
    assert dx is None
    assert db is None
    np.testing.assert_array_equal(dw, np.ones((4, 2)) @ a)


@pytest.mark.not_on_cpu("the cpu casts")
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_takes_only_its_own_dtype_on_a_device(device: Device, name: str) -> None:
    x = device.put(np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4))
    function = getattr(tg, name)
    assert_exact(function(x, 1, dtype=np.float32), function(x, 1))
    with pytest.raises(TypeError, match=f"^{name}: an Array is not cast on its device"):
        function(x, 1, dtype=np.float64)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_dtype_casts_first(name: str) -> None:
    function, backward = getattr(tg, name), getattr(tg, f"{name}_backward")
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    wide = function(x, 1, dtype=np.float64)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, function(x.astype(np.float64), 1))
    np.testing.assert_array_equal(
        function(np.arange(4), 0, dtype="float32"), function(np.arange(4, dtype=np.float32), 0)
    )
    dy = np.linspace(0, 1, 8).reshape(2, 4)
    dx = backward(dy, x, 1, dtype=np.float64, output=wide)
    assert dx.dtype == np.float32
    leaf = torch.from_numpy(x).requires_grad_()
    getattr(F, name)(leaf, dim=1, dtype=torch.float64).backward(torch.from_numpy(dy))
    np.testing.assert_allclose(dx, leaf.grad.numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(backward(x, x, 1, dtype=np.float32), backward(x, x, 1))
    for bad in (np.float16, np.int64):
        with pytest.raises(TypeError, match=f"{name}: dtype must be float32, float64 or bfloat16"):
            function(x, 1, dtype=bad)
    with pytest.raises(TypeError, match=f"{name}: input must be an array; got list"):
        function([1.0, 2.0], 0, dtype=np.float32)
    with pytest.raises(ValueError, match=f"{name}_backward: out needs dtype to be input's"):
        backward(dy, x, 1, dtype=np.float64, out=np.empty_like(x))


def test_option_values_are_checked() -> None:
    x = np.ones(2)
    with pytest.raises(ValueError, match="gelu: approximate must be 'none' or 'tanh'; got 'erf'"):
        tg.gelu(x, approximate="erf")
    with pytest.raises(ValueError, match="gelu_backward: approximate must be"):
        tg.gelu_backward(x, x, approximate="erf")
    with pytest.raises(TypeError, match="linear: activation_args must map names to numbers"):
        tg.linear(x, np.ones((1, 2)), None, "elu", activation_args={"alpha": "high"})
    with pytest.raises(TypeError, match="linear_backward: activation_args must map"):
        tg.linear_backward(np.ones(1), x, np.ones((1, 2)), None, "elu", activation_args=[1.0])
    with pytest.raises(ValueError, match=r"linear: activation 'relu' takes no arguments"):
        tg.linear(x, np.ones((1, 2)), None, "relu", activation_args={"alpha": 1.0})


def test_arrays_of_other_libraries_are_read() -> None:
    x = torch.linspace(-1, 1, 5)
    for result in (tg.relu(x), tg.dropout(x, training=False), tg.softmax(x, 0, dtype=np.float64)):
        assert type(result) is np.ndarray
    np.testing.assert_array_equal(tg.relu(x), np.maximum(x.numpy(), 0))
