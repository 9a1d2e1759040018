# SPDX-License-Identifier: MIT
"""Every layer, loss and container, forward and backward, beside torch.nn; initial values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from activation_ops import hardsigmoid
from helpers import Array, Device, assert_close, assert_same_bits, host, tolerance
from tilegrad import nn
from tilegrad import reference as ref

DTYPES = ("float32", "float64")
T = torch.nn

# Ours and torch's; both take (N, 6).
ELEMENTWISE: dict[str, tuple[Callable[[], nn.Module], Callable[[], T.Module]]] = {
    "identity": (nn.Identity, T.Identity),
    "sigmoid": (nn.Sigmoid, T.Sigmoid),
    "tanh": (nn.Tanh, T.Tanh),
    "relu": (nn.ReLU, T.ReLU),
    "leaky": (nn.LeakyReLU, T.LeakyReLU),
    "leaky-0.3": (lambda: nn.LeakyReLU(0.3), lambda: T.LeakyReLU(0.3)),
    "leaky-negative": (lambda: nn.LeakyReLU(-0.3), lambda: T.LeakyReLU(-0.3)),
    "elu": (nn.ELU, T.ELU),
    "elu-0.4": (lambda: nn.ELU(0.4), lambda: T.ELU(0.4)),
    "elu-negative": (lambda: nn.ELU(-0.4), lambda: T.ELU(-0.4)),
    "selu": (nn.SELU, T.SELU),
    "gelu": (nn.GELU, T.GELU),
    "gelu-tanh": (lambda: nn.GELU("tanh"), lambda: T.GELU("tanh")),
    "silu": (nn.SiLU, T.SiLU),
    "softmax": (lambda: nn.Softmax(1), lambda: T.Softmax(1)),
    "softmax-0": (lambda: nn.Softmax(0), lambda: T.Softmax(0)),
    "softmax-last": (lambda: nn.Softmax(-1), lambda: T.Softmax(-1)),
    "log_softmax": (lambda: nn.LogSoftmax(-2), lambda: T.LogSoftmax(-2)),
    "flatten": (nn.Flatten, T.Flatten),
    "flatten-all": (lambda: nn.Flatten(0), lambda: T.Flatten(0)),
    "flatten-middle": (lambda: nn.Flatten(1, 2), lambda: T.Flatten(1, 2)),
    "dropout-0": (lambda: nn.Dropout(0.0), lambda: T.Dropout(0.0)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(5, 6), (3, 4, 7), (2, 3, 4, 5)], ids=str)
def test_layer_follows_torch(
    layer: str, shape: tuple[int, ...], dtype: str, rng: np.random.Generator, device: Device
) -> None:
    if layer == "flatten-middle" and len(shape) == 2:
        shape = (*shape, 2)
    ours, theirs = (make() for make in ELEMENTWISE[layer])
    x = (rng.standard_normal(shape) * 3).astype(dtype)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    want = theirs(leaf)
    there = device.put(x)
    y = ours(there)
    dy = rng.standard_normal(y.shape).astype(dtype)
    want.backward(torch.tensor(dy, dtype=torch.float64))
    dx = ours.backward(device.put(dy))
    assert y.dtype == dx.dtype == dtype
    eps = tolerance(dtype, 16)
    assert_close(y, want.detach().numpy(), eps * (1 + np.abs(want.detach().numpy())), what="y")
    assert_close(dx, leaf.grad.numpy(), eps * (np.abs(dy).max() + 1), what="dx")
    assert_same_bits(ours.eval()(there), y, what="eval")


ACTIVATIONS: dict[str | None, tuple[dict[str, float], Callable[[], T.Module]]] = {
    None: ({}, T.Identity),
    "identity": ({}, T.Identity),
    "sigmoid": ({}, T.Sigmoid),
    "tanh": ({}, T.Tanh),
    "relu": ({}, T.ReLU),
    "leaky_relu": ({"negative_slope": 0.2}, lambda: T.LeakyReLU(0.2)),
    "elu": ({"alpha": 0.7}, lambda: T.ELU(0.7)),
    "selu": ({}, T.SELU),
    "gelu": ({}, T.GELU),
    "gelu_tanh": ({}, lambda: T.GELU("tanh")),
    "silu": ({}, T.SiLU),
    "softplus": ({"beta": 2.0, "threshold": 3.0}, lambda: T.Softplus(2.0, 3.0)),
    "mish": ({}, T.Mish),
    "hardtanh": ({"min_val": -0.5, "max_val": 2.0}, lambda: T.Hardtanh(-0.5, 2.0)),
    "relu6": ({}, T.ReLU6),
    "hardsigmoid": ({}, lambda: hardsigmoid),
    "hardswish": ({}, T.Hardswish),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [((7,), 5, 3), ((1,), 33, 10), ((2, 3), 12, 40), ((), 4, 2)])
def test_linear_follows_torch(
    sizes: tuple[tuple[int, ...], int, int], activation: str | None, bias: bool, dtype: str,
    rng: np.random.Generator, device: Device,
) -> None:  # fmt: skip
    rows, i, o = sizes
    args, make = ACTIVATIONS[activation]
    layer = nn.Linear(i, o, bias, activation, activation_args=args or None, dtype=dtype)
    twin = T.Linear(i, o, bias, dtype=torch.float64)
    for p, q in zip(layer.parameters(), twin.parameters(), strict=True):
        q.data = torch.tensor(p.data, dtype=torch.float64)
    layer.to(device.name)
    x = rng.standard_normal((*rows, i)).astype(dtype)
    dy = rng.standard_normal((*rows, o)).astype(dtype)
    leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    want = make()(twin(leaf))
    want.backward(torch.tensor(dy, dtype=torch.float64))
    y = layer(device.put(x))
    dx = layer.backward(device.put(dy))
    eps = 4 * tolerance(dtype, max(i, o, int(np.prod(rows))))
    assert_close(y, want.detach().numpy(), eps * (1 + np.abs(x).max()), what="y")
    scale = eps * np.abs(dy).max() * (1 + np.abs(x).max())
    assert_close(dx, leaf.grad.numpy(), scale, what="dx")
    for (name, p), q in zip(layer.named_parameters(), twin.parameters(), strict=True):
        assert p.grad.dtype == dtype
        assert_close(p.grad, q.grad.numpy(), scale, what=name)
    assert_same_bits(layer.eval()(device.put(x)), y)


LOSSES: dict[str, tuple[Callable[[str], Any], Callable[[str], Any], bool]] = {
    "mse": (lambda r: nn.MSELoss(r), lambda r: T.MSELoss(reduction=r), False),
    "cross_entropy": (
        lambda r: nn.CrossEntropyLoss(reduction=r),
        lambda r: T.CrossEntropyLoss(reduction=r),
        True,
    ),
    "cross_entropy-options": (
        lambda r: nn.CrossEntropyLoss(np.array([1.0, 2.0, 0.5]), 2, r, 0.1),
        lambda r: T.CrossEntropyLoss(
            torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), ignore_index=2, reduction=r,
            label_smoothing=0.1,
        ),
        True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_loss_module_follows_torch(
    loss: str, reduction: str, rng: np.random.Generator, device: Device
) -> None:
    ours, theirs, classes = LOSSES[loss]
    x = rng.standard_normal((8, 3))
    t: Any = rng.integers(0, 3, 8) if classes else rng.standard_normal((8, 3))
    for given in (False, True):
        loss_fn, leaf = ours(reduction), torch.tensor(x, requires_grad=True)
        want = theirs(reduction)(leaf, torch.tensor(t))
        g = rng.standard_normal(want.shape) if given else np.ones(want.shape)
        want.backward(torch.tensor(g))
        here, target = device.put(x), device.put(np.asarray(t))
        value = loss_fn(here, target)
        assert_close(value, want.detach().numpy(), 1e-13)
        dx = loss_fn.backward(device.put(np.asarray(g)) if given else None)
        assert_close(dx, leaf.grad.numpy(), 1e-13)
        with pytest.raises(RuntimeError, match="second backward"):
            loss_fn.backward()
        loss_fn.eval()
        assert_same_bits(loss_fn(here, target), host(value)[()])
        with pytest.raises(RuntimeError, match="eval mode"):
            loss_fn.backward()
        loss_fn.train()
        loss_fn(here, target)
        assert loss_fn.backward(input_grad=False) is None


def test_loss_modules_refuse_unknown_options() -> None:
    for make in (nn.MSELoss, lambda r: nn.CrossEntropyLoss(reduction=r)):
        with pytest.raises(ValueError, match="must be one of 'none', 'mean', 'sum'; got 'avg'"):
            make("avg")
    for e in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=f"^CrossEntropyLoss: label_smoothing .*got {e}"):
            nn.CrossEntropyLoss(label_smoothing=e)


# ---- initial values -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_values_are_uniform_within_torch_s_bound(dtype: str) -> None:
    tg.manual_seed(0)
    layer = nn.Linear(100, 400, dtype=dtype)
    for p in layer.parameters():
        assert p.dtype == dtype
        assert np.abs(p.data).max() <= 0.1
        assert p.data.max() > 0.097
        assert p.data.min() < -0.097
        assert abs(p.data.mean(dtype=np.float64)) < 5 * 0.1 / np.sqrt(3 * p.size)
    histogram = np.histogram(layer.weight.data, 10, (-0.1, 0.1))[0]
    assert np.abs(histogram - 4000).max() < 5 * np.sqrt(4000 * 0.9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_initial_values_are_the_references_on_every_instruction_set(
    dtype: str, isa: str, threads: int
) -> None:
    tg.manual_seed(123)
    first, second = nn.Linear(7, 33, dtype=dtype), nn.Linear(33, 5, dtype=dtype)
    offset = 0
    for layer in (first, second):
        bound = 1 / np.sqrt(layer.in_features)
        for p in (layer.weight, layer.bias):
            want = ref.uniform(p.size, -bound, bound, 123, offset, dtype).reshape(p.shape)
            assert_same_bits(p.data, want)
            offset += -(-p.size // 4)
    tg.manual_seed(123)
    again: Array = nn.Linear(7, 33, dtype=dtype).weight.data
    assert_same_bits(again, first.weight.data)


def test_layers_refuse_what_they_cannot_be() -> None:
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: nn.Linear(0, 3), ValueError, "Linear: in_features must be at least 1; got 0"),
        (lambda: nn.Linear(3, -1), ValueError, "Linear: out_features must be at least 1; got -1"),
        (lambda: nn.Linear(3, 3, activation="rleu"), ValueError, "rleu"),
        (lambda: nn.Linear(3, 3, activation="prelu"), ValueError, "prelu"),
        (
            lambda: nn.Linear(3, 3, activation="elu", activation_args={"slope": 1.0}),
            ValueError,
            "slope",
        ),
        (lambda: nn.Linear(3, 3, dtype=np.float16), TypeError, "float16"),
        (lambda: nn.Linear(3, 3, dtype=np.int32), TypeError, "int32"),
        (lambda: nn.Dropout(1.5), ValueError, r"Dropout: p must be a probability.*1\.5"),
        (lambda: nn.Dropout(np.nan), ValueError, "Dropout: p must be .*nan"),
        (lambda: nn.GELU("erf"), ValueError, "GELU: approximate must be .*'erf'"),
        (lambda: nn.Flatten(2)(np.zeros((2, 2))), ValueError, r"Flatten: axes 2 to -1.*\(2, 2\)"),
        (lambda: nn.Flatten(1, 0)(np.zeros((2, 2))), ValueError, "Flatten: start_dim 1"),
        (lambda: nn.Softmax(2)(np.zeros((2, 2))), ValueError, "softmax: .*2"),
        (lambda: nn.Linear(3, 3)(np.zeros((2, 4), "f4")), ValueError, r"linear: .*\(2, 4\)"),
        (lambda: nn.Linear(3, 3)(np.zeros((2, 3))), TypeError, "linear: .*float64"),
    ]
    for make, kind, text in cases:
        with pytest.raises(kind, match=text):
            make()


def test_dtype_of_a_layer_is_shown_unless_it_is_float32() -> None:
    assert repr(nn.Linear(4, 3)) == "Linear(4, 3)"
    assert repr(nn.Linear(4, 3, dtype=np.float64)) == "Linear(4, 3, dtype='float64')"
    half = nn.Linear(4, 3, activation="relu", dtype="bfloat16")
    assert repr(half) == "Linear(4, 3, activation='relu', dtype='bfloat16')"


@pytest.mark.parametrize(
    ("dtype", "got", "way_out"),
    [
        (torch.bfloat16, "torch.bfloat16", "bfloat16"),
        (torch.float64, "torch.float64", "float64"),
        (torch.float16, "torch.float16", "float32"),
        (np.float16, "float16", "float32"),
        ("bfloat17", "bfloat17", "float32"),
        (3, "3", "float32"),
    ],
)
def test_an_unknown_dtype_of_a_layer_is_refused(dtype: Any, got: str, way_out: str) -> None:
    with pytest.raises(TypeError) as caught:
        nn.Linear(4, 4, dtype=dtype)
    assert str(caught.value) == (
        f"Linear: dtype must be float32, float64 or bfloat16; got {got} (give it by name: "
        f'dtype="{way_out}")'
    )


@pytest.mark.parametrize(
    "name",
    ["ReLU", "LeakyReLU", "ELU", "SELU", "SiLU", "Mish", "Hardtanh", "ReLU6", "Hardsigmoid",
     "Hardswish", "Dropout"],
)  # fmt: skip
def test_inplace_is_taken_as_in_torch_and_changes_nothing(name: str) -> None:
    x = np.linspace(-4, 4, 9)
    before = x.copy()
    module = getattr(nn, name)(inplace=True).eval()
    np.testing.assert_array_equal(module(x), getattr(nn, name)().eval()(x))
    np.testing.assert_array_equal(x, before)


def test_a_loss_of_two_shapes_warns() -> None:
    with pytest.warns(UserWarning, match=r"HuberLoss: input \(4, 1\) and target \(4,\)"):
        nn.HuberLoss()(np.zeros((4, 1)), np.zeros(4))
