# SPDX-License-Identifier: MIT
"""tilegrad.torch: values and gradients of its operators, beside torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.library import opcheck

import tilegrad.torch as tt
from tilegrad import _cpu
from tilegrad.torch import _activations
from torch_operands import (
    OPTIONS,
    Tensor,
    assert_same,
    every_activation,
    every_dtype,
    gradients,
    leaf,
    theirs,
)

OPS = torch.ops.tilegrad


# ---- activations -------------------------------------------------------------------------------


@every_dtype
@every_activation
def test_activation_is_torchs(name: str, dtype: torch.dtype) -> None:
    x = leaf(7, 33, dtype=dtype)
    assert_same(lambda t: tt.activation(t, name, OPTIONS[name]), theirs(name), x)


@every_activation
def test_activation_has_a_function_of_torchs_name(name: str) -> None:
    if name in ("identity", "gelu_tanh"):
        return
    x = leaf(50)
    by_name = tt.activation(x, name, OPTIONS[name])
    assert torch.equal(getattr(tt, name)(x, **(OPTIONS[name] or {})), by_name)


@every_activation
def test_what_is_kept_of_an_activation_is_what_the_kernel_reads(name: str) -> None:
    cases = [OPTIONS[name]]
    if name in ("leaky_relu", "elu"):
        cases.append({key: -value for key, value in (OPTIONS[name] or {}).items()})
    if name == "hardtanh":
        bounds = (0, 0.25, 1.0078125, 1.01, 2.0**-14, 2.0**-15, 3e4, 65535, 1e6, math.inf)
        cases += [{"min_val": -high, "max_val": high} for high in bounds]
    for options in cases:
        values = _activations.option_values(name, options)
        uses = _cpu.activation_uses_output(name, _activations.options_of(name, values))
        assert _activations.uses_output(name, values) == uses


@every_activation
def test_activation_passes_opcheck(name: str) -> None:
    values = _activations.option_values(name, OPTIONS[name])
    opcheck(OPS.activation.default, (leaf(5, 3), name, values))


# ---- linear ------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6)])
@every_activation
def test_linear_is_torchs(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    operands = leaf(*shape, dtype=dtype), leaf(5, 6, dtype=dtype), leaf(5, dtype=dtype)
    f = theirs(name)
    assert_same(
        lambda x, w, b: tt.linear(x, w, b, name, activation_args=OPTIONS[name]),
        lambda x, w, b: f(F.linear(x, w, b)),
        *operands,
    )
    assert_same(
        lambda x, w: tt.linear(x, w, None, name, activation_args=OPTIONS[name]),
        lambda x, w: f(F.linear(x, w)),
        *operands[:2],
    )


@every_activation
def test_linear_passes_opcheck_and_gradcheck(name: str) -> None:
    x, w, b = leaf(4, 6), leaf(3, 6), leaf(3)
    values = _activations.option_values(name, OPTIONS[name])
    for op in (OPS.linear.default, OPS.linear_and_preactivation.default):
        if name != "identity" or op is OPS.linear.default:
            opcheck(op, (x, w, b, name, values))
            opcheck(op, (x, w, None, name, values))
    if name not in ("relu", "hardtanh", "relu6", "hardsigmoid", "hardswish", "leaky_relu"):
        # those have kinks, which differences step over
        assert torch.autograd.gradcheck(
            lambda *t: tt.linear(*t, name, activation_args=OPTIONS[name]), (x, w, b)
        )


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_linear_gives_the_gradients_that_are_asked_for(frozen: tuple[int, ...]) -> None:
    operands = [leaf(4, 6), leaf(3, 6), leaf(3)]
    for i in frozen:
        operands[i] = operands[i].detach()
    tt.linear(*operands, "gelu").sum().backward()
    mine = [t.grad for t in operands]
    for t in operands:
        t.grad = None
    F.gelu(F.linear(*operands)).sum().backward()
    for i, (got, tensor) in enumerate(zip(mine, operands, strict=True)):
        assert (got is None) == (i in frozen)
        if got is not None:
            torch.testing.assert_close(got, tensor.grad)


# ---- cross-entropy -----------------------------------------------------------------------------

LOGITS = {"vector": (5,), "rows": (6, 5), "pixels": (2, 5, 3, 4), "empty": (0, 5)}


@every_dtype
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", ["classes", "probabilities"])
@pytest.mark.parametrize("case", sorted(LOGITS))
def test_cross_entropy_is_torchs(case: str, kind: str, reduction: str, dtype: torch.dtype) -> None:
    shape = LOGITS[case]
    if case == "empty" and reduction == "mean":
        shape = (1, 5)  # a mean of nothing is NaN in both
    x = leaf(*shape, dtype=dtype)
    weight = torch.tensor([0.5, 2.0, 1.0, 0.25, 1.5], dtype=dtype)  # exact in every dtype
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    if kind == "classes":
        rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
        target = torch.arange(math.prod(rows)).reshape(rows) % 5
        options["ignore_index"] = 3
        assert_same(
            lambda t: tt.cross_entropy(t, target, weight, **options),
            lambda t: F.cross_entropy(t, target, weight.double(), **options),
            x,
        )
    else:
        p = torch.softmax(leaf(*shape, seed=3).detach(), dim=min(1, len(shape) - 1)).to(dtype)
        assert_same(
            lambda t, q: tt.cross_entropy(t, q, weight, **options),
            lambda t, q: F.cross_entropy(t, q, weight.double(), **options),
            x,
            p,
        )


def test_cross_entropy_passes_opcheck_and_gradcheck() -> None:
    x, t = leaf(6, 5), torch.tensor([0, 1, 2, 3, 4, 0])
    p, w = torch.softmax(leaf(6, 5, seed=1).detach(), 1).requires_grad_(), torch.rand(5).double()
    for reduction in ("mean", "sum", "none"):
        for target in (t, p):
            opcheck(OPS.cross_entropy.default, (x, target, w, -100, reduction, 0.1))
        assert torch.autograd.gradcheck(
            lambda a, b, r=reduction: tt.cross_entropy(a, b, w, -100, r, 0.1), (x, p)
        )
        assert torch.autograd.gradcheck(
            lambda a, r=reduction: tt.cross_entropy(a, t, w, 2, r, 0.1), (x,)
        )
    opcheck(OPS.cross_entropy_value_and_grad.default, (x, t, w, -100, "mean", 0.0))


# ---- fused MLP ---------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "leaky_relu"])
def test_fused_mlp_is_layers_of_torch(name: str, bias: bool, dtype: torch.dtype) -> None:
    x = leaf(9, 6, dtype=dtype)
    weights = [leaf(*s, dtype=dtype) for s in ((8, 6), (8, 8), (3, 8))]
    biases = [leaf(s, dtype=dtype) for s in (8, 8, 3)] if bias else []
    f = theirs(name)

    def run(x: Tensor, *rest: Tensor) -> Tensor:
        return tt.fused_mlp(
            x, rest[:3], rest[3:] or None, name, "sigmoid", activation_args=OPTIONS[name]
        )

    def model(x: Tensor, *rest: Tensor) -> Tensor:
        b = rest[3:] or (None, None, None)
        hidden = f(F.linear(f(F.linear(x, rest[0], b[0])), rest[1], b[1]))
        return torch.sigmoid(F.linear(hidden, rest[2], b[2]))

    assert_same(run, model, x, *weights, *biases)


def test_fused_mlp_passes_opcheck_and_gradcheck() -> None:
    x, weights = leaf(4, 5), [leaf(6, 5), leaf(2, 6)]
    biases = [leaf(6), leaf(2)]
    opcheck(OPS.fused_mlp.default, (x, weights, biases, "tanh", [], "identity", []))
    opcheck(OPS.fused_mlp.default, (x, weights, [], "elu", [0.5], "softplus", [1.0, 20.0]))
    assert torch.autograd.gradcheck(
        lambda a, *p: tt.fused_mlp(a, p[:2], p[2:], "softplus"), (x, *weights, *biases)
    )


@every_activation
def test_the_operator_with_the_preactivation_has_linears_gradients(name: str) -> None:
    values = _activations.option_values(name, OPTIONS[name])
    found = [
        gradients(run, leaf(4, 6), leaf(3, 6), leaf(3))
        for run in (
            lambda x, w, b: OPS.linear_and_preactivation(x, w, b, name, values)[0],
            lambda x, w, b: tt.linear(x, w, b, name, activation_args=OPTIONS[name]),
        )
    ]
    for mine, expected in zip(*found, strict=True):
        assert torch.equal(mine, expected)
