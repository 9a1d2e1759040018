# SPDX-License-Identifier: MIT
"""bfloat16 everywhere, float16 on cuda and sim: sums in float32, one rounding of the result.

The oracle is float64 on the rounded inputs. A result may err by half a spacing of its dtype and by
what the float32 arithmetic before it errs: nothing else, so no intermediate is rounded to 16 bits
unless the op says that it is one (softmax's backward pass reads the rounded y, linear's dz).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from activation_ops import Op, every_op, oracle_error
from half_inputs import Half, bits, every_half, normal, once, overflown
from helpers import Array, Device, assert_close, assert_same_bits
from linear_inputs import ACTIVATIONS, IDS, STEEPEST
from matmul_inputs import TRANSPOSES, swapped
from softmax_oracle import backward, every_name, expected_of, forward, relative_error
from test_cross_entropy import OPTIONS, Problem

EPS = float(np.finfo(np.float32).eps)
REDUCTIONS = ("none", "mean", "sum")

# (batch, m, n, k): below, at and above a fragment, a tile, a slice of k; sums that go round every
# ring of buffers; enough tiles for the choice of a large problem, with whole 16 bytes and without.
PRODUCTS = [
    (1, 1, 1, 1), (1, 5, 7, 3), (1, 8, 40, 64), (1, 9, 9, 15), (1, 9, 9, 16), (1, 17, 33, 31),
    (1, 33, 31, 130), (1, 64, 64, 64), (1, 65, 129, 33), (1, 130, 66, 24), (1, 12, 16, 500),
    (3, 40, 24, 72), (130, 16, 16, 64), (136, 9, 24, 72), (2, 3, 5, 0),
]  # fmt: skip


@every_half
@pytest.mark.parametrize("shape", PRODUCTS, ids=str)
def test_matmul_rounds_once(
    device: Device,
    isa: str,
    compute_capability: int,
    half: Half,
    shape: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> None:
    batch, m, n, k = shape
    a, b = normal(rng, half, (batch, m, k)), normal(rng, half, (batch, k, n))
    want = a @ b
    inside = (k + 1) * EPS * (np.abs(a) @ np.abs(b))
    for ta, tb in TRANSPOSES if batch < 96 else TRANSPOSES[1:3]:
        results = []
        for offset in (0, 1):
            left = half.put(device, swapped(a, ta), offset)
            right = half.put(device, swapped(b, tb), offset)
            c = tg.matmul(left, right, transpose_a=ta, transpose_b=tb)
            results.append(bits(c))
        assert_close(half.get(c), want, once(half, want, inside), what=f"{ta}, {tb}")
        assert_same_bits(results[1], results[0], what="unaligned operands")


@every_half
def test_matmul_sums_in_float32(
    device: Device, isa: str, compute_capability: int, half: Half
) -> None:
    """A sum of 16-bit numbers would stand still at a few hundred or thousand."""
    for k in (16, 2500):
        a, b = np.ones((9, k)), np.ones((k, 10))
        c = half.get(tg.matmul(half.put(device, a), half.put(device, b)))
        assert_close(c, np.full((9, 10), half.round(np.array(float(k)))), 0.0)


@every_half
def test_matmul_overflows_to_infinity_and_keeps_nan(
    device: Device, isa: str, compute_capability: int, half: Half
) -> None:
    a, b = np.zeros((20, 32)), np.eye(32, 24)
    a[:, 0] = half.largest
    b[0, 1] = 2.0
    a[3, 2], a[4, 2] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        want = overflown(half, a @ b)
    c = half.get(tg.matmul(half.put(device, a), half.put(device, b)))
    assert_close(c, want, 0.0)


@every_half
def test_matmul_backward_rounds_once(
    device: Device, isa: str, half: Half, rng: np.random.Generator
) -> None:
    a, b = normal(rng, half, (3, 33, 17)), normal(rng, half, (17, 40))
    dc = normal(rng, half, (3, 33, 40))
    da, db = tg.matmul_backward(*(half.put(device, x) for x in (dc, a, b)))
    want = dc @ b.T
    inside = 42 * EPS * (np.abs(dc) @ np.abs(b.T))
    assert_close(half.get(da), want, once(half, want, inside), what="da")
    want = np.einsum("bmk,bmn->kn", a, dc)
    inside = 101 * EPS * np.einsum("bmk,bmn->kn", np.abs(a), np.abs(dc))
    assert_close(half.get(db), want, once(half, np.abs(want), inside), what="db")


def wide(function: Any, x: Array) -> Array:
    """Apply a function of torch in float64."""
    result: Array = function(torch.from_numpy(x)).numpy()
    return result


@every_half
@pytest.mark.parametrize(("name", "args", "function", "_from_output"), ACTIVATIONS, ids=IDS)
def test_linear_rounds_its_results_once(
    device: Device, isa: str, compute_capability: int, half: Half, name: str | None,
    args: Any, function: Any, _from_output: bool, rng: np.random.Generator,
) -> None:  # fmt: skip
    for rows, inputs, outputs in [(5, 7, 33), (33, 40, 17), (1, 130, 40), (9, 16, 129)]:
        x, weight = normal(rng, half, (rows, inputs)), normal(rng, half, (outputs, inputs))
        bias = normal(rng, half, (outputs,))
        there = [half.put(device, v, offset) for v, offset in ((x, 0), (weight, 1), (bias, 3))]
        y, z = tg.linear(*there, name, activation_args=args, save_preactivation=True)
        want = x @ weight.T + bias
        inside = (inputs + 2) * EPS * (np.abs(x) @ np.abs(weight.T) + np.abs(bias))
        assert_close(half.get(z), want, once(half, want, inside), what="z")
        want_y = wide(function, want)
        inside = STEEPEST * inside + 8 * EPS * (np.abs(want_y) + 0.1)
        assert_close(half.get(y), want_y, once(half, want_y, inside), what="y")
        alone = tg.linear(*there, name, activation_args=args)
        assert_same_bits(bits(alone), bits(y), what="y with and without z")


@every_half
@pytest.mark.parametrize(("name", "args", "function", "from_output"), ACTIVATIONS, ids=IDS)
def test_linear_backward_rounds_dz_and_each_gradient(
    device: Device, isa: str, compute_capability: int, half: Half, name: str | None,
    args: Any, function: Any, from_output: bool, rng: np.random.Generator,
) -> None:  # fmt: skip
    for rows, inputs, outputs in [(5, 7, 33), (33, 40, 17), (70, 9, 40)]:
        x, weight = normal(rng, half, (rows, inputs)), normal(rng, half, (outputs, inputs))
        bias, dy = normal(rng, half, (outputs,)), normal(rng, half, (rows, outputs))
        there = [half.put(device, v) for v in (dy, x, weight, bias)]
        _, z_there = tg.linear(*there[1:], name, activation_args=args, save_preactivation=True)
        z = torch.tensor(half.get(z_there), requires_grad=True)
        (slope,) = torch.autograd.grad(function(z) * 1.0, z, torch.from_numpy(dy))
        dz = slope.numpy()
        got = tg.linear_backward(*there, name, activation_args=args, preactivation=z_there)
        # dz errs by its rounding and by that of f' in float32
        rounded = 0.5 * half.spacing(dz) + 30 * EPS * np.abs(dy)
        for what, gradient, left, right in (
            ("dinput", got[0], (dz, rounded), weight),
            ("dweight", got[1], (dz.T, rounded.T), x),
            ("dbias", got[2], (dz.T, rounded.T), np.ones(rows)),
        ):
            want = left[0] @ right
            products = np.abs(left[0]) @ np.abs(right)
            inside = left[1] @ np.abs(right) + (right.shape[0] + 2) * EPS * products
            assert_close(half.get(gradient), want, once(half, want, inside), what=what)
        again = tg.linear_backward(*there, name, activation_args=args)
        for one, other in zip(again, got, strict=True):
            assert_same_bits(bits(one), bits(other), what="z computed again")


@every_half
@every_op
def test_activation_of_every_number_rounds_once(
    device: Device, isa: str, half: Half, op: Op
) -> None:
    x = half.patterns()
    want = np.asarray(op.reference(x.astype(np.float64)))
    with np.errstate(over="ignore", invalid="ignore"):
        inside = np.maximum(4 * EPS * np.abs(want), 0.8 * EPS) + oracle_error(np.nan_to_num(x))
        if op.exact:
            inside = EPS * np.abs(want)
    y = half.get(op.forward(half.put(device, x)))
    close = np.abs(np.abs(want) - half.largest) < half.spacing(np.array(half.largest))
    bound = once(half, want, np.where(np.isfinite(inside), inside, 0))
    sure = ~close
    assert_close(y[sure], overflown(half, want)[sure], bound[sure])
    moved = op.forward(half.put(device, x, offset=3))
    assert_same_bits(half.get(moved), y, what="unaligned")


@every_half
@every_op
def test_activation_backward_rounds_once(
    device: Device, isa: str, half: Half, op: Op, rng: np.random.Generator
) -> None:
    x = half.patterns()
    x = x[np.isfinite(x) & (np.abs(x) < 1e4)][::7]
    dy = normal(rng, half, x.shape)
    want = op.reference_backward(dy, x)
    scale = np.maximum(np.abs(want), np.abs(dy))
    inside = 8 * EPS * scale + oracle_error(x) * np.abs(dy)
    dx = op.backward(half.put(device, dy), half.put(device, x))
    assert_close(half.get(dx), want, once(half, want, inside))
    if op.output_suffices:  # from y, which is rounded: the derivative of the x that y belongs to
        y = op.forward(half.put(device, x))
        dx = op.backward(half.put(device, dy), half.put(device, x), output=y)
        assert_close(half.get(dx), want, 4 * half.eps * scale, what="from y")


CLASSES = [1, 2, 7, 8, 9, 63, 64, 65, 256, 257, 1024, 1025, 2300]


@every_half
@every_name
@pytest.mark.parametrize("inner", [1, 3])
def test_softmax_rounds_once(
    device: Device,
    isa: str,
    compute_capability: int,
    half: Half,
    name: str,
    inner: int,
    rng: np.random.Generator,
) -> None:
    for classes in CLASSES if inner == 1 else CLASSES[:9]:
        shape = (5 if classes < 100 else 2, classes) if inner == 1 else (2, classes, inner)
        x, dy = 3 * normal(rng, half, shape), normal(rng, half, shape)
        x = half.round(x)
        want = expected_of(name, x, 1)
        relative = relative_error(x.astype(np.float32), 1)
        inside = relative * np.abs(want) if name == "softmax" else relative + 2 * EPS * np.abs(want)
        there = half.put(device, x)
        y = forward(name)(there, 1)
        assert_close(half.get(y), want, once(half, want, inside), what=str(shape))
        moved = forward(name)(half.put(device, x, offset=1), 1)
        assert_same_bits(bits(moved), bits(y), what="unaligned")
        share = half.get(y) if name == "softmax" else np.exp(half.get(y))
        if name == "softmax":
            product = share * dy
            want = share * (dy - product.sum(1, keepdims=True))
            size = share * (np.abs(dy) + np.abs(product).sum(1, keepdims=True))
        else:
            want = dy - share * dy.sum(1, keepdims=True)
            size = np.abs(dy) + share * np.abs(dy).sum(1, keepdims=True)
        inside = (12 + np.sqrt(classes)) * EPS * size
        dx = backward(name)(half.put(device, dy), there, 1, output=y)
        assert_close(half.get(dx), want, once(half, want, inside), what=f"dx of {shape}")
        again = backward(name)(half.put(device, dy, offset=1), there, 1)
        assert_same_bits(bits(again), bits(dx), what="y computed again")


class HalfProblem(Problem):
    """A problem whose numbers a 16-bit format has; bounds are those of float32 arithmetic."""

    def __init__(
        self, rng: np.random.Generator, half: Half, shape: tuple[int, ...], **options: Any
    ) -> None:
        super().__init__(rng, shape, "float32", **options)
        self.logits = half.round(self.logits)
        self.grad_rows = half.round(self.grad_rows)
        if self.target.dtype.kind == "f":
            self.target = half.round(self.target)
        if "weight" in self.options:
            self.options["weight"] = half.round(self.options["weight"])

    def grad_output(self, reduction: str) -> Any:
        return self.grad_rows if reduction == "none" else 1.75  # which every format has


@every_half
@pytest.mark.parametrize("options", OPTIONS)
def test_cross_entropy_rounds_once(
    device: Device,
    isa: str,
    compute_capability: int,
    half: Half,
    options: str,
    rng: np.random.Generator,
) -> None:
    for shape in [(7,), (1, 1), (7, 10), (3, 64), (5, 65), (3, 257), (2, 1025), (3, 33, 5)]:
        problem = HalfProblem(rng, half, shape, **OPTIONS[options])
        x, t, o = half.put(device, problem.logits), problem.target, dict(problem.options)
        t = half.put(device, t) if t.dtype.kind == "f" else device.put(t)
        if "weight" in o:
            o["weight"] = half.put(device, o["weight"])
        for reduction in REDUCTIONS:
            what = f"{reduction} of {shape}"
            g = problem.grad_output(reduction)
            there = half.put(device, g) if reduction == "none" else g
            loss = tg.cross_entropy(x, t, reduction=reduction, **o)
            dx = tg.cross_entropy_backward(there, x, t, reduction=reduction, **o)
            inside, dx_inside = problem.bounds(reduction, beside="float64")
            want, want_dx = problem.torch_answer(reduction)
            assert_close(half.get(loss), want, once(half, want, inside), what=what)
            bound = once(half, want_dx, 1.1 * dx_inside)  # bounds are for a grad_output of 1.7
            assert_close(half.get(dx), want_dx, bound, what=f"gradient, {what}")
            both = tg.cross_entropy_value_and_grad(x, t, reduction=reduction, **o)
            assert_same_bits(bits(both[0]), bits(loss), what=what)
            one = half.put(device, np.ones_like(problem.grad_rows))
            ones = tg.cross_entropy_backward(
                one if reduction == "none" else 1.0, x, t, reduction=reduction, **o
            )
            assert_same_bits(bits(both[1]), bits(ones), what=what)


@every_half
def test_results_stay_close_to_torchs(
    device: Device, isa: str, half: Half, rng: np.random.Generator
) -> None:
    """torch on the CPU in the same dtype: within 1 spacing where both round once, else 4 or 8."""
    x, w, bias = (normal(rng, half, s) for s in ((33, 40), (17, 40), (17,)))
    target = rng.integers(0, 40, 33)
    tx, tw, tb = (torch.from_numpy(v).to(half.torch) for v in (x, w, bias))
    put = [half.put(device, v) for v in (x, w, bias)]
    there = put[0]
    pairs: dict[str, tuple[Any, torch.Tensor, int]] = {
        "matmul": (tg.matmul(there, put[1], transpose_b=True), tx @ tw.T, 1),
        "linear": (tg.linear(*put), F.linear(tx, tw, tb), 1),
        "relu": (tg.relu(there), F.relu(tx), 0),
        "sigmoid": (tg.sigmoid(there), torch.sigmoid(tx), 1),
        "tanh": (tg.tanh(there), torch.tanh(tx), 1),
        "gelu": (tg.gelu(there), F.gelu(tx), 4),
        "silu": (tg.silu(there), F.silu(tx), 1),
        "softmax": (tg.softmax(there, 1), F.softmax(tx, 1), 1),
        "log_softmax": (tg.log_softmax(there, 1), F.log_softmax(tx, 1), 1),
        "cross_entropy": (
            tg.cross_entropy(there, device.put(target), reduction="none"),
            F.cross_entropy(tx, torch.from_numpy(target), reduction="none"),
            4,
        ),
    }
    products = np.abs(x) @ np.abs(w.T)
    for name, (got, wanted, spacings) in pairs.items():
        want = wanted.double().numpy()
        inside = 42 * EPS * products if name in ("matmul", "linear") else 0.0
        bound = spacings * half.spacing(want) * (1 + 1e-9) + inside
        assert_close(half.get(got), want, bound, what=name)
