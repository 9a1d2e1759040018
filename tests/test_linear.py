# SPDX-License-Identifier: MIT
"""linear: every fused activation, exact on integers, bounded error, equal bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import (
    FLOATS,
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    bad_outs,
    error,
    frozen,
    tolerance,
)
from linear_inputs import ACTIVATIONS, IDS, SMALL, STEEPEST, backward_bounds, operands
from tilegrad import reference
from tilegrad.bench.cases import LinearCase


@pytest.mark.simulated("case", lambda case: case.flops <= 2**22)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_linear_exact_on_integers(
    device: Device, isa: str, threads: int, case: LinearCase, dtype: Any, rng: np.random.Generator
) -> None:
    x = rng.integers(-4, 5, (case.rows, case.in_features)).astype(dtype)
    weight = rng.integers(-4, 5, (case.out_features, case.in_features)).astype(dtype)
    bias = rng.integers(-9, 10, case.out_features).astype(dtype)
    z = x.astype(np.float64) @ weight.T.astype(np.float64)
    for given_bias, expected in ((None, z), (bias, z + bias)):
        for name, want in ((None, expected), ("relu", np.maximum(expected, 0))):
            put_bias = None if given_bias is None else device.put(given_bias, offset=1)
            put_x, put_weight = device.put(x, offset=3), device.put(weight, offset=5)
            with device.guarded_out(z.shape, dtype, offset=1) as out:
                assert tg.linear(put_x, put_weight, put_bias, name, out=out) is out
            assert_exact(out, want.astype(dtype), what=str(name))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "args", "function", "_from_output"), ACTIVATIONS, ids=IDS)
def test_linear_activation_matches_torch_and_reference(
    device: Device,
    isa: str,
    name: str | None,
    args: dict[str, float] | None,
    function: Any,
    _from_output: bool,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    for lead, inputs, outputs in [
        ((5,), 7, 33),
        ((64,), 100, 17),
        ((1,), 130, 96),
        ((33,), 19, 129),
        ((40,), 130, 10),
        ((300,), 40, 70),
    ]:
        x = rng.standard_normal((*lead, inputs)).astype(dtype)
        weight = rng.standard_normal((outputs, inputs)).astype(dtype)
        bias = rng.standard_normal(outputs).astype(dtype)
        scale = np.abs(x.astype(np.float64)) @ np.abs(weight.T) + np.abs(bias)
        for b in (bias, None):
            what = f"{(*lead, inputs, outputs)}, bias {b is not None}"
            b64 = None if b is None else torch.from_numpy(b).double()
            z64 = F.linear(torch.from_numpy(x).double(), torch.from_numpy(weight).double(), b64)
            want_z, want_y = z64.numpy(), function(z64).numpy()
            put_b = None if b is None else device.put(b)
            y, z = tg.linear(
                device.put(x),
                device.put(weight),
                put_b,
                name,
                activation_args=args,
                save_preactivation=True,
            )
            y_alone = tg.linear(
                device.put(x), device.put(weight), put_b, name, activation_args=args
            )
            y, z, y_alone = device.get(y), device.get(z), device.get(y_alone)
            assert y.dtype == z.dtype == dtype
            bound = tolerance(dtype, inputs) * scale
            assert_close(z, want_z, bound, what=f"z, {what}")
            bound = STEEPEST * bound + 8 * np.finfo(dtype).eps * np.abs(want_y)
            assert_close(y, want_y, bound, what=f"y, {what}")
            assert_close(
                y, reference.linear(x, weight, b, name, activation_args=args), bound, what=what
            )
            assert_same_bits(y_alone, y, what=f"y with and without z, {what}")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "name",
    [
        "sigmoid",
        "tanh",
        "relu",
        "elu",
        "selu",
        "gelu",
        "silu",
        "softplus",
        "mish",
        "hardtanh",
        "relu6",
        "hardsigmoid",
        "hardswish",
    ],
)
def test_linear_fused_activation_equals_the_activation(
    device: Device, isa: str, name: str, dtype: Any, rng: np.random.Generator
) -> None:
    """The formula exists once: fused, it is the function of that name up to rounding."""
    x, weight = (rng.standard_normal(s).astype(dtype) for s in ((33, 20), (65, 20)))
    y, z = device.ops.linear(x, weight, None, name, save_preactivation=True)
    expected = getattr(device.ops, name)(z)
    assert_close(y, expected, 4 * np.finfo(dtype).eps * (np.abs(expected) + np.finfo(dtype).tiny))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.simulated("case", lambda case: np.prod(case) <= 400_000)
@pytest.mark.parametrize(
    "case",
    [(1, 784, 512), (32, 784, 512), (128, 784, 512), (300, 130, 10), (37, 41, 43), (2, 300, 130)],
)
def test_linear_same_bits_for_any_threads_alignment_and_layout(
    device: Device, isa: str, case: tuple[int, int, int], dtype: Any, rng: np.random.Generator
) -> None:
    rows, inputs, outputs = case
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    weight = rng.standard_normal((outputs, inputs)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    tg.set_num_threads(1)
    expected = tg.linear(*(device.put(v, offset=0) for v in (x, weight, bias)), "gelu")
    for threads in device.threads(2, 3, 4):
        tg.set_num_threads(threads)
        assert_same_bits(tg.linear(x, weight, bias, "gelu"), expected, what=f"{threads} threads")
    tg.set_num_threads(2)
    biases, forms = device.layouts(np.stack([bias, bias])), device.layouts(x)
    for (name, left), right in zip(forms.items(), device.layouts(weight).values(), strict=True):
        assert_same_bits(tg.linear(left, right, biases[name][1], "gelu"), expected, what=name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_takes_any_leading_axes(
    device: Device, isa: str, compute_capability: int, dtype: Any, rng: np.random.Generator
) -> None:
    for lead in [(), (1,), (6,), (2, 3), (2, 3, 5), (0,), (2, 0, 3)]:
        dy, x, weight, bias = operands(rng, lead, 17, 9, dtype)
        y, z = tg.linear(
            device.put(x), device.put(weight), device.put(bias), "relu", save_preactivation=True
        )
        want_y, want_z = reference.linear(x, weight, bias, "relu", save_preactivation=True)
        assert_exact(device.get(y), want_y.astype(dtype))
        assert_exact(device.get(z), want_z.astype(dtype))
        grads = tg.linear_backward(
            device.put(dy), device.put(x), device.put(weight), device.put(bias), "relu", output=y
        )
        expected = reference.linear_backward(dy, x, weight, bias, "relu")
        bounds = backward_bounds(dy, x, weight, dtype, 0)
        for gradient, want, bound in zip(grads, expected, bounds, strict=True):
            assert_close(device.get(gradient), want, bound, what=str(lead))
            assert device.get(gradient).dtype == dtype


@pytest.mark.parametrize("name", [None, *dict.fromkeys(a[0] for a in ACTIVATIONS[1:])])
def test_linear_propagates_nan(device: Device, isa: str, name: str | None) -> None:
    x, weight, bias = (
        np.ones((4, 40), np.float32),
        np.ones((33, 40), np.float32),
        np.zeros(33, np.float32),
    )
    x[1, 3], bias[5], weight[7, 0] = np.nan, np.nan, np.inf
    y = device.ops.linear(x, weight, bias, name)
    assert np.isnan(y[1]).all()
    assert np.isnan(y[:, 5]).all()
    others = np.delete(np.delete(y, 1, axis=0), [5, 7], axis=1)
    assert np.isfinite(others).all()
    assert not np.isnan(y[[0, 2, 3], 7]).any()


def test_linear_with_out(device: Device, rng: np.random.Generator) -> None:
    x, weight, bias = (device.put(v) for v in operands(rng, (6,), 5, 4, np.float32)[1:])
    want_y, want_z = tg.linear(x, weight, bias, "tanh", save_preactivation=True)
    with (
        device.guarded_out((6, 4), np.float32, 1) as y,
        device.guarded_out((6, 4), np.float32, 3) as z,
    ):
        got = tg.linear(x, weight, bias, "tanh", save_preactivation=True, out=(y, z))
        assert got[0] is y
        assert got[1] is z
    assert_same_bits(y, want_y)
    assert_same_bits(z, want_z)


def test_linear_takes_torchs_calls_and_returns_fresh_arrays(rng: np.random.Generator) -> None:
    _, x, weight, bias = (frozen(v) for v in operands(rng, (6,), 5, 4, np.float32))
    first = tg.linear(x, weight, bias)
    second = tg.linear(input=x, weight=weight, bias=bias)
    assert_same_bits(first, second)
    assert not np.shares_memory(first, second)
    assert_same_bits(tg.linear(x, weight), tg.linear(x, weight, bias=None))
    y, z = tg.linear(x, weight, bias, save_preactivation=True)
    assert not np.shares_memory(y, z)
    gradients = tg.linear_backward(first, x, weight, bias)
    assert not any(np.shares_memory(g, v) for g in gradients for v in (first, x, weight, bias))


# ---- errors ------------------------------------------------------------------------------------


def test_linear_refuses_shapes_dtypes_and_options() -> None:
    x, weight, bias = np.ones((2, 3)), np.ones((4, 3)), np.ones(4)
    for args, parts in [
        ((x, np.ones((4, 2))), ("(2, 3)", "(4, 2)")),
        ((np.ones(()), weight), ("input", "()")),
        ((x, np.ones(3)), ("weight", "(3,)")),
        ((x, np.ones((1, 4, 3))), ("weight", "(1, 4, 3)")),
        ((x, weight, np.ones(3)), ("bias", "(4,)", "(3,)")),
        ((x, weight, np.ones((1, 4))), ("bias", "(1, 4)")),
        ((x, weight, bias, "maxout"), ("activation", "maxout")),
        ((x, weight, bias, "prelu"), ("activation", "prelu")),
        ((x, weight, bias, ""), ("activation", "''")),
    ]:
        with error(ValueError, "linear", *parts):
            tg.linear(*args)
    for args in [
        (x.astype(np.float32), weight, bias),
        (x, weight.astype(np.float32), bias),
        (x, weight, bias.astype(np.float32)),
    ]:
        with error(TypeError, "linear", "float32", "float64"):
            tg.linear(*args)
    for name, options in [
        ("elu", {"slope": 1.0}),
        ("softplus", {"alpha": 1.0}),
        ("relu", {"alpha": 1.0}),
        (None, {"alpha": 1.0}),
    ]:
        with error(ValueError, "linear", "activation_args", str(name)):
            tg.linear(x, weight, bias, name, activation_args=options)
    with error(ValueError, "linear", "min_val must be at most max_val; got 1 and 0.5"):
        tg.linear(x, weight, bias, "hardtanh", activation_args={"min_val": 1.0, "max_val": 0.5})
    for options in ({"alpha": "x"}, 3.0, {"alpha": None}):
        with error(TypeError, "linear", "activation_args"):
            tg.linear(x, weight, bias, "elu", activation_args=options)
    with error(TypeError, "linear", "activation"):
        tg.linear(x, weight, bias, 3)
    with error(TypeError, "linear", "list"):
        tg.linear(x, weight, [1.0] * 4)


def test_linear_refuses_out() -> None:
    x, weight, bias = np.ones((2, 3)), np.ones((4, 3)), np.ones(4)
    for name, (out, kind, part) in bad_outs((2, 4), np.float64).items():
        with error(kind, "linear", "out", part):
            tg.linear(x, weight, bias, out=out)
            pytest.fail(f"accepted out with another {name}")
    memory = np.ones(40)
    with error(ValueError, "linear", "out", "overlap"):
        tg.linear(memory[:6].reshape(2, 3), weight, bias, out=memory[5:13].reshape(2, 4))
    square = np.ones((4, 4))
    for args in ((square, np.ones((4, 4))), (np.ones((4, 4)), square)):
        with error(ValueError, "linear", "out", "overlap"):
            tg.linear(*args, out=square)
    with error(ValueError, "linear", "out", "overlap"):
        tg.linear(np.ones((1, 3)), weight, memory[:4], out=memory[:4].reshape(1, 4))
    with error(ValueError, "linear", "overlap"):
        y = np.empty((2, 4))
        tg.linear(x, weight, bias, save_preactivation=True, out=(y, y))
    with pytest.raises((TypeError, ValueError), match=r"^linear: .*out"):
        tg.linear(x, weight, bias, save_preactivation=True, out=np.empty((2, 4)))
