# SPDX-License-Identifier: MIT
"""tilegrad.torch: memory, torch.compile, autocast, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

import tilegrad.torch as tt
from torch_operands import Tensor, leaf


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
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(loss(x), x, create_graph=True)[0].sum().backward()


def kept(run: Callable[[], Tensor]) -> list[int]:
    """Return the addresses of what autograd keeps of a call."""
    addresses = []

    def note(tensor: Tensor) -> Tensor:
        addresses.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        result = run()
    assert result.requires_grad
    return addresses


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_a_frozen_layer_does_not_keep_its_input(activation: str | None) -> None:
    x, weight = leaf(4, 6), leaf(3, 6)
    assert x.data_ptr() in kept(lambda: tt.linear(x, weight, None, activation))
    weight.requires_grad_(False)
    assert x.data_ptr() not in kept(lambda: tt.linear(x, weight, None, activation))


def test_cross_entropy_keeps_its_gradient_and_not_the_logits() -> None:
    x = leaf(4, 6)
    addresses = kept(lambda: tt.cross_entropy(x, torch.arange(4)))
    assert len(addresses) == 1
    assert x.data_ptr() not in addresses


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: tt.activation(x, "swish"), ValueError, "must be one of"),
        (lambda x: tt.activation(x, "relu", {"slope": 1.0}), ValueError, "options must be"),
        (lambda x: torch.ops.tilegrad.activation(x, "save", []), ValueError, "must be one of"),
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


@pytest.mark.parametrize(
    "call",
    [
        tt.relu,
        lambda x: tt.linear(x, torch.ones(3, 5).double()),
        lambda x: tt.cross_entropy(x, torch.tensor([0, 1])),
        lambda x: tt.fused_mlp(x, [torch.ones(3, 5).double()]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own call
def test_forward_mode_is_refused(call: Callable[[Tensor], Tensor]) -> None:
    x = leaf(2, 5).detach()
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        torch.func.jvp(call, (x,), (torch.ones_like(x),))


def test_weights_of_classes_that_want_a_gradient_are_refused() -> None:
    weight = torch.ones(5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match=r"pass weight\.detach\(\)"):
        tt.cross_entropy(leaf(2, 5), torch.tensor([0, 1]), weight)


def test_operands_without_memory_beside_some_with_it_are_refused() -> None:
    x, w = torch.ones(1, 3), torch.ones(4, 3)
    assert tt.linear(x.to("meta"), w.to("meta"), None, "relu").shape == (1, 4)
    for operands in ((x, w.to("meta")), (x.to("meta"), w)):
        with pytest.raises(RuntimeError, match="must be on one device"):
            tt.linear(*operands)


def test_cross_entropy_casts_probabilities_under_autocast() -> None:
    x, p = leaf(4, 5, dtype=torch.bfloat16), torch.full((4, 5), 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(tt.cross_entropy(x, p), F.cross_entropy(x, p))


def test_tilegrad_alone_does_not_load_torch() -> None:
    code = "import sys, tilegrad; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["linear", "relu", "cross_entropy", "fused_mlp"])
def test_activation_checkpointing_recomputes(name: str, reentrant: bool) -> None:
    x, w, b = leaf(5, 4), leaf(4, 4), leaf(4)
    target = torch.arange(5) % 4
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": lambda x: tt.linear(tt.linear(x, w, b, "gelu"), w),
        "relu": lambda x: tt.relu(tt.tanh(x)),
        "cross_entropy": lambda x: tt.cross_entropy(tt.tanh(x), target),
        "fused_mlp": lambda x: tt.fused_mlp(x, [w, w], [b, b]),
    }
    call = calls[name]
    call(x).sum().backward()
    want, x.grad = x.grad, None
    checkpoint(call, x, use_reentrant=reentrant).sum().backward()
    assert want is not None
    assert x.grad is not None
    assert torch.equal(x.grad, want)


def test_an_older_pytorch_is_refused_in_words() -> None:
    code = "import torch; torch.__version__ = '2.6.1+cpu'; import tilegrad.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    text = "ImportError: tilegrad.torch needs PyTorch 2.7 or later; got 2.6.1+cpu"
    assert done.stderr.splitlines()[-1] == text
