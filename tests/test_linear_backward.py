# SPDX-License-Identifier: MIT
"""linear_backward: every fused activation, every source of the derivative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import (
    FLOATS,
    Array,
    Device,
    assert_close,
    assert_exact,
    assert_same_bits,
    bad_outs,
    error,
)
from linear_inputs import ACTIVATIONS, IDS, SMALL, backward_bounds, operands
from tilegrad import reference
from tilegrad.bench.cases import LinearCase


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("name", "args", "function", "from_output"), ACTIVATIONS, ids=IDS)
def test_linear_backward_matches_torch_from_every_source(
    device: Device,
    isa: str,
    name: str | None,
    args: dict[str, float] | None,
    function: Any,
    from_output: bool,
    dtype: Any,
    rng: np.random.Generator,
) -> None:
    cases = [(1, 1, 1), (5, 7, 33), (64, 20, 10), (33, 100, 65), (9, 7, 512), (70, 20, 257)]
    for rows, inputs, outputs in device.cases(cases, np.prod, within=2**18):
        dy, x, weight, bias = operands(rng, (rows,), inputs, outputs, dtype)
        x64, w64, b64 = (
            torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, weight, bias)
        )
        y64 = function(F.linear(x64, w64, b64))
        want = torch.autograd.grad(y64, (x64, w64, b64), torch.from_numpy(dy).double())
        put = [device.put(v) for v in (dy, x, weight, bias)]
        y, z = tg.linear(*put[1:], name, activation_args=args, save_preactivation=True)
        sources: dict[str, dict[str, Any]] = {
            "recomputed": {},
            "preactivation": {"preactivation": z},
            "both": {"output": y, "preactivation": z},
        }
        if from_output:
            sources["output"] = {"output": y}
        bounds = backward_bounds(dy, x, weight, dtype, 24)
        for source, options in sources.items():
            got = tg.linear_backward(*put, name, activation_args=args, **options)
            assert isinstance(got, tuple)
            for what, gradient, expected, bound in zip(
                ("dinput", "dweight", "dbias"), got, want, bounds, strict=True
            ):
                gradient = device.get(gradient)
                assert gradient.dtype == dtype
                label = f"{what} from {source}, {(rows, inputs, outputs)}"
                assert_close(gradient, expected.numpy(), bound, what=label)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu"])
def test_linear_backward_with_an_insufficient_output_computes_again(
    device: Device, isa: str, name: str, rng: np.random.Generator
) -> None:
    dy, x, weight, bias = operands(rng, (5,), 7, 9, np.float64)
    y = device.ops.linear(x, weight, bias, name)
    got = device.ops.linear_backward(dy, x, weight, bias, name, output=y)
    want = reference.linear_backward(dy, x, weight, bias, name)
    bounds = backward_bounds(dy, x, weight, np.float64, 24)
    for gradient, expected, bound in zip(got, want, bounds, strict=True):
        assert_close(gradient, expected, bound)


@pytest.mark.simulated("case", lambda case: case.flops <= 2**22)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_linear_backward_exact_on_integers(
    device: Device, isa: str, threads: int, case: LinearCase, dtype: Any, rng: np.random.Generator
) -> None:
    dy = rng.integers(-4, 5, (case.rows, case.out_features)).astype(dtype)
    x = rng.integers(-4, 5, (case.rows, case.in_features)).astype(dtype)
    weight = rng.integers(-4, 5, (case.out_features, case.in_features)).astype(dtype)
    bias = rng.integers(-9, 10, case.out_features).astype(dtype)
    z = x @ weight.T + bias
    dz = np.where(z > 0, dy, 0).astype(np.float64)
    expected = (dz @ weight, dz.T @ x, dz.sum(axis=0))
    shapes = (x.shape, weight.shape, bias.shape)
    with (
        device.guarded_out(shapes[0], dtype, 1) as dx,
        device.guarded_out(shapes[1], dtype, 3) as dweight,
        device.guarded_out(shapes[2], dtype, 5) as dbias,
    ):
        out = (dx, dweight, dbias)
        got = tg.linear_backward(
            *(device.put(v, offset=1) for v in (dy, x, weight, bias)),
            "relu",
            output=device.put(np.maximum(z, 0)),
            out=out,
        )
        assert all(g is o for g, o in zip(got, out, strict=True))
    for what, gradient, want in zip(("dinput", "dweight", "dbias"), got, expected, strict=True):
        assert_exact(gradient, want.astype(dtype), what=what)


@pytest.mark.parametrize("dtype", FLOATS)
def test_linear_backward_accumulates_into_given_arrays(
    device: Device, isa: str, threads: int, dtype: Any, rng: np.random.Generator
) -> None:
    cases = [(3, 4, 5), (33, 65, 17), (128, 300, 130), (0, 4, 5)]
    for rows, inputs, outputs in device.cases(cases, np.prod, within=2**19):
        dy, x, weight = (
            rng.integers(-4, 5, s).astype(dtype)
            for s in ((rows, outputs), (rows, inputs), (outputs, inputs))
        )
        bias = np.zeros(outputs, dtype)
        dx, dweight, dbias = (
            g.astype(dtype) for g in reference.linear_backward(dy, x, weight, bias)
        )
        dy, x, weight, bias = (device.put(v) for v in (dy, x, weight, bias))
        with (
            device.guarded_out(x.shape, dtype, 1) as out_x,
            device.guarded_out(weight.shape, dtype, 1) as out_weight,
            device.guarded_out(bias.shape, dtype, 1) as out_bias,
        ):
            out_weight.fill(7)
            out_bias.fill(-3)
            for times in (1, 2):
                tg.linear_backward(
                    dy, x, weight, bias, accumulate=True, out=(out_x, out_weight, out_bias)
                )
                assert_exact(out_x, dx)  # never added to
                assert_exact(out_weight, 7 + times * dweight)
                assert_exact(out_bias, -3 + times * dbias)
            got = tg.linear_backward(
                dy, x, weight, bias, wrt="bias", accumulate=True, out=(None, None, out_bias)
            )
        assert got[:2] == (None, None)
        assert_exact(out_bias, -3 + 3 * dbias)
        assert_exact(out_weight, 7 + 2 * dweight)


@pytest.mark.parametrize(
    "wrt",
    [
        "input",
        "weight",
        "bias",
        ("input",),
        ("weight", "bias"),
        ["bias", "input"],
        ("input", "weight"),
        ("bias", "weight", "input"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [None, "tanh", "silu"])
def test_linear_backward_returns_none_for_what_is_not_asked(
    device: Device,
    isa: str,
    threads: int,
    wrt: Any,
    name: str | None,
    rng: np.random.Generator,
) -> None:
    dy, x, weight, bias = (device.put(v) for v in operands(rng, (6,), 5, 4, np.float64))
    everything = tg.linear_backward(dy, x, weight, bias, name)
    got = tg.linear_backward(dy, x, weight, bias, name, wrt=wrt)
    assert isinstance(got, tuple)
    names = {wrt} if isinstance(wrt, str) else set(wrt)
    for which, gradient, full in zip(("input", "weight", "bias"), got, everything, strict=True):
        if which in names:
            assert_same_bits(gradient, full, what=which)
        else:
            assert gradient is None
    without_bias = tg.linear_backward(dy, x, weight, None, name)
    assert without_bias[2] is None
    assert without_bias[0] is not None
    assert without_bias[1] is not None


def test_linear_backward_out_entries_may_be_none(device: Device, rng: np.random.Generator) -> None:
    dy, x, weight, bias = (device.put(v) for v in operands(rng, (6,), 5, 4, np.float64))
    expected = tg.linear_backward(dy, x, weight, bias)
    for given in range(3):
        out: list[Array | None] = [None, None, None]
        with device.guarded_out(expected[given].shape, np.float64) as array:
            out[given] = array
            got = tg.linear_backward(dy, x, weight, bias, out=tuple(out))
            assert got[given] is array
        for gradient, want in zip(got, expected, strict=True):
            assert_same_bits(gradient, want)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.simulated("case", lambda case: np.prod(case) <= 2**20)
@pytest.mark.parametrize("case", [(128, 784, 512), (33, 130, 65), (1024, 64, 10), (1, 300, 257)])
def test_linear_backward_same_bits_for_any_threads_and_layout(
    device: Device, isa: str, case: tuple[int, int, int], dtype: Any, rng: np.random.Generator
) -> None:
    rows, inputs, outputs = case
    dy = rng.standard_normal((rows, outputs)).astype(dtype)
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    weight = rng.standard_normal((outputs, inputs)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    z = device.ops.linear(x, weight, bias)
    views = [device.layouts(v) for v in (dy, x, weight, z)]
    dy, x, weight, bias, z = (device.put(v) for v in (dy, x, weight, bias, z))
    tg.set_num_threads(1)
    expected = tg.linear_backward(dy, x, weight, bias, "gelu", preactivation=z)
    for threads in device.threads(2, 3, 4):
        tg.set_num_threads(threads)
        got = tg.linear_backward(dy, x, weight, bias, "gelu", preactivation=z)
        for gradient, want in zip(got, expected, strict=True):
            assert_same_bits(gradient, want, what=f"{threads} threads")
    tg.set_num_threads(2)
    for name in views[0]:
        a, b, c, d = (view[name] for view in views)
        got = tg.linear_backward(a, b, c, bias, "gelu", preactivation=d)
        for gradient, want in zip(got, expected, strict=True):
            assert_same_bits(gradient, want, what=name)


def test_linear_backward_refuses() -> None:
    dy, x, weight, bias = np.ones((2, 4)), np.ones((2, 3)), np.ones((4, 3)), np.ones(4)
    with error(ValueError, "linear_backward", "grad_output", "(2, 4)", "(2, 3)"):
        tg.linear_backward(x, x, weight, bias)
    with error(ValueError, "linear_backward", "output", "(2, 4)", "(4, 2)"):
        tg.linear_backward(dy, x, weight, bias, "tanh", output=np.ones((4, 2)))
    with error(ValueError, "linear_backward", "preactivation", "(2, 4)", "(4, 2)"):
        tg.linear_backward(dy, x, weight, bias, "gelu", preactivation=np.ones((4, 2)))
    with error(TypeError, "linear_backward", "float32", "float64"):
        tg.linear_backward(dy, x, weight, bias, "gelu", preactivation=np.ones((2, 4), np.float32))
    for wrt in ("x", ("input", "y"), ()):
        with error(ValueError, "linear_backward", "wrt"):
            tg.linear_backward(dy, x, weight, bias, wrt=wrt)
    for out in (None, (None, None, None), (None, np.zeros((4, 3)), None)):
        with error(ValueError, "linear_backward", "accumulate"):
            tg.linear_backward(dy, x, weight, bias, accumulate=True, out=out)
    for position, shape in enumerate([(2, 3), (4, 3)]):
        for name, (bad, kind, part) in bad_outs(shape, np.float64).items():
            out = [None, None, None]
            out[position] = bad
            with error(kind, "linear_backward", "out", part):
                tg.linear_backward(dy, x, weight, bias, out=tuple(out))
                pytest.fail(f"accepted out with another {name}")
    for out in (np.zeros((2, 3)), (None, None), 3):
        with pytest.raises((TypeError, ValueError), match=r"^linear_backward: .*out"):
            tg.linear_backward(dy, x, weight, bias, out=out)
    square = np.ones((4, 4))
    with error(ValueError, "linear_backward", "overlap"):
        tg.linear_backward(square, np.ones((4, 4)), square, out=(square, None, None))
    with error(ValueError, "linear_backward", "overlap"):
        tg.linear_backward(
            np.ones((4, 4)), np.ones((4, 4)), np.ones((4, 4)), out=(square, square, None)
        )
