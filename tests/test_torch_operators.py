# SPDX-License-Identifier: MIT
"""tilegrad.torch: operators under autograd, torch.compile and autocast, beside torch's own."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.library import opcheck

import tilegrad.torch as tt
from tilegrad import _cpu
from tilegrad.torch import _activations

Tensor = torch.Tensor
OPS = torch.ops.tilegrad
OPTIONS: dict[str, dict[str, float] | None] = {
    **dict.fromkeys(_activations._NAMES),
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 0.7},
    "softplus": {"beta": 2.0, "threshold": 3.0},
    "hardtanh": {"min_val": -0.5, "max_val": 0.7},
}
NAMES = sorted(OPTIONS)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14, torch.bfloat16: 2e-2}
every_activation = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", sorted(TOLERANCE, key=str))


def theirs(name: str) -> Callable[[Tensor], Tensor]:
    """Return torch's function of an activation, its options bound."""
    if name == "identity":
        return torch.clone
    if name == "hardsigmoid":  # torch's derivative is the float32 that is nearest to 1/6
        return lambda x: F.relu6(x + 3) / 6
    if name.startswith("gelu"):
        return lambda x: F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    function = getattr(torch if name in ("sigmoid", "tanh") else F, name)
    return lambda x: function(x, **(OPTIONS[name] or {}))


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def gradients(run: Callable[..., Tensor], *operands: Tensor) -> list[Tensor]:
    """Return the result of a function and the gradients of its operands."""
    fresh = [t.detach().clone().requires_grad_() for t in operands]
    result = run(*fresh)
    weight = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).reshape(result.shape)
    (result * weight).sum().backward()
    return [result.detach(), *(t.grad for t in fresh if t.grad is not None)]


def assert_same(
    run: Callable[..., Tensor], model: Callable[..., Tensor], *operands: Tensor
) -> None:
    """Compare values and gradients with those of torch in float64."""
    dtype = operands[0].dtype
    wide = [t.detach().double() for t in operands]
    mine, expected = gradients(run, *operands), gradients(model, *wide)
    assert len(mine) == len(expected)
    for got, value in zip(mine, expected, strict=True):
        assert got.dtype == dtype
        scale = float(value.abs().max()) + 1 if value.numel() else 1.0
        torch.testing.assert_close(got.double(), value, rtol=0, atol=TOLERANCE[dtype] * scale)


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


# ---- memory, modes, errors ---------------------------------------------------------------------


def test_strided_operands_are_read_where_they_are() -> None:
    wide = leaf(12, 8).detach()
    x, w = wide[::3, 1::2].requires_grad_(), leaf(4, 5).detach().t()[:5].requires_grad_()
    torch.testing.assert_close(tt.linear(x, w, None, "tanh"), torch.tanh(F.linear(x, w)))
    tt.linear(x, w, None, "tanh").sum().backward()
    assert x.grad is not None
    expanded = torch.ones(4, dtype=torch.float64).expand(3, 4)
    assert torch.equal(tt.relu(expanded), expanded)


def test_results_share_no_memory_with_operands() -> None:
    x = leaf(6).detach()
    for y in (tt.relu(x), tt.activation(x, "identity")):
        assert y.data_ptr() != x.data_ptr()
    before = x.clone()
    tt.activation(x, "identity").add_(1)
    assert torch.equal(x, before)


def test_an_operand_that_is_changed_before_backward_is_noticed() -> None:
    x = leaf(4)
    y = x * 1
    z = tt.relu(tt.gelu(y))
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_breaks_no_graph(dynamic: bool) -> None:
    weights, biases = [leaf(8, 6), leaf(3, 8)], [leaf(8), leaf(3)]

    def step(x: Tensor, t: Tensor) -> Tensor:
        hidden = tt.linear(tt.silu(x), weights[0], biases[0], "gelu_tanh")
        logits = tt.fused_mlp(hidden, weights[1:], biases[1:], "relu")
        return tt.cross_entropy(logits, t, label_smoothing=0.1)

    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (5, 5, 9):
        x, t = leaf(rows, 6), torch.arange(rows) % 3
        found = []
        for run in (compiled, step):
            for p in (*weights, *biases):
                p.grad = None
            run(x, t).backward()
            found.append([p.grad for p in (*weights, *biases)])
        for mine, expected in zip(*found, strict=True):
            assert torch.equal(mine, expected)


def test_autocast_casts_as_torch_does() -> None:
    layer, t = torch.nn.Linear(6, 3), torch.tensor([0, 1, 2, 0])
    x = leaf(4, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = tt.linear(x, layer.weight, layer.bias)
        assert y.dtype is F.linear(x, layer.weight, layer.bias).dtype is torch.bfloat16
        assert tt.fused_mlp(x, [layer.weight]).dtype is torch.bfloat16
        loss = tt.cross_entropy(y, t)
        assert loss.dtype is F.cross_entropy(y, t).dtype is torch.float32
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is torch.float32


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: tt.gelu(x).sum(),
        lambda x: tt.linear(x, leaf(5, 5)).sum(),
        lambda x: tt.cross_entropy(x, torch.tensor([0, 1, 2])),
        lambda x: tt.cross_entropy(x, torch.tensor([0, 1, 2]), reduction="none").sum(),
        lambda x: tt.fused_mlp(x, [leaf(5, 5)]).sum(),
    ],
)
def test_second_derivatives_are_refused(loss: Callable[[Tensor], Tensor]) -> None:
    x = leaf(3, 5)
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: tt.activation(x, "swish"), ValueError, "must be one of"),
        (lambda x: tt.activation(x, "relu", {"slope": 1.0}), ValueError, "options must be"),
        (lambda x: tt.gelu(x, approximate="erf"), ValueError, "'none' or 'tanh'"),
        (lambda x: tt.relu(x.half()), TypeError, "float16"),
        (lambda x: tt.relu(x.long()), TypeError, "int64"),
        (lambda x: tt.linear(x, torch.ones(3, 5)), TypeError, "dtype"),
        (lambda x: tt.linear(x, torch.ones(3, 4).double()), ValueError, "inner sizes differ"),
        (lambda x: tt.cross_entropy(x, torch.tensor([0, 9])), ValueError, "target must be in"),
        (lambda x: tt.relu(x.to("meta")).cpu(), NotImplementedError, "meta"),
    ],
)
def test_bad_input_is_refused(
    call: Callable[[Tensor], Tensor], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(leaf(2, 5).detach())


def test_tilegrad_alone_does_not_load_torch() -> None:
    code = "import sys, tilegrad; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
