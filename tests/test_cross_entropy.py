# SPDX-License-Identifier: MIT
"""cross_entropy and its gradient: values beside torch's autograd and the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, frozen, tolerance
from tilegrad import reference as ref

DTYPES = ("float32", "float64")
SHAPES = [
    *[(c,) for c in (1, 10, 33)],
    *[(7, c) for c in (1, 2, 10, 16, 31, 33, 65)],
    (1, 10),
    (0, 10),
    (128, 10),
    *[(rows, c) for rows in (17, 65) for c in (17, 128, 129)],
    (19, 1000),
    (3, 32000),
    (3, 1000),
    (2, 3001),
    (5, 6, 4),
    (33, 20, 4),  # columns of many matrices
    (3, 130, 65),
    (3, 33, 2, 5),
    (2, 1000, 3),
    (4, 2, 1, 17),
    (2, 5, 0),
]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": True},
    "ignore": {"ignore_index": True},
    "smoothing": {"label_smoothing": 0.1},
    "all": {"weight": True, "ignore_index": True, "label_smoothing": 0.3},
    "smoothing-one": {"label_smoothing": 1.0},
    "shares": {"shares": True},
    "shares-all": {"shares": True, "weight": True, "label_smoothing": 0.25},
}


class Problem:
    """Logits, targets and options of one case, with the oracle's answers and their error bounds."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, ...],
        dtype: str,
        *,
        weight: bool = False,
        ignore_index: bool = False,
        shares: bool = False,
        label_smoothing: float = 0.0,
        spread: float = 3.0,
        shift: float = 0.0,
    ) -> None:
        self.dtype, self.axis = dtype, 0 if len(shape) == 1 else 1
        self.classes = shape[self.axis]
        rows = shape[: self.axis] + shape[self.axis + 1 :]
        self.logits = frozen((rng.standard_normal(shape) * spread + shift).astype(dtype))
        self.target = frozen(np.asarray(rng.integers(0, self.classes, rows)))
        if shares:
            q = rng.random(shape) ** 4
            self.target = frozen((q / q.sum(self.axis, keepdims=True)).astype(dtype))
        self.options: dict[str, Any] = {"label_smoothing": label_smoothing}
        if weight:
            self.options["weight"] = frozen(rng.uniform(0.2, 3, self.classes).astype(dtype))
        if ignore_index:
            self.options["ignore_index"] = int(rng.integers(0, self.classes))
        self.grad_rows = frozen(np.asarray(rng.standard_normal(rows)).astype(dtype))

    def grad_output(self, reduction: str) -> Any:
        return self.grad_rows if reduction == "none" else 1.7

    def torch_answer(self, reduction: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
        x = torch.tensor(self.logits, dtype=dtype, requires_grad=True)
        t = torch.tensor(self.target)
        options = dict(self.options, reduction=reduction)
        if "weight" in options:
            options["weight"] = torch.tensor(options["weight"], dtype=dtype)
        loss = F.cross_entropy(x, t.to(dtype) if t.is_floating_point() else t, **options)
        loss.backward(torch.tensor(self.grad_output(reduction), dtype=dtype))
        return loss.detach().numpy(), x.grad.numpy()

    def shares(self) -> tuple[Array, Array, float]:
        """Return s = w ((1 - e) q + e / C), classes last; the rows that count; a mean's divisor."""
        e, w = self.options["label_smoothing"], self.options.get("weight", np.ones(1))
        t = np.moveaxis(self.target, self.axis, -1) if self.target.dtype.kind == "f" else None
        if t is not None:
            rows = t.shape[:-1]
            return w * ((1 - e) * t + e / self.classes), np.ones(rows, bool), math.prod(rows)
        one_hot = self.target[..., None] == np.arange(self.classes)
        kept = self.target != self.options.get("ignore_index", -100)
        share = w * ((1 - e) * one_hot + e / self.classes) * kept[..., None]
        return share, kept, float((w * one_hot).sum(-1)[kept].sum())

    def bounds(self, reduction: str, beside: str = "") -> tuple[Any, Array]:
        """Return what rounding may do to the loss and to the gradient.

        With y = x - max: logp is y - log(sum exp y), so its error is relative to 1 + |y|, whatever
        the offset of the logits; the errors of C terms of a sum grow as sqrt(C). `beside` adds the
        error that torch makes in that dtype, whose sums may be sequential.
        """
        x = np.moveaxis(self.logits.astype(np.float64), self.axis, -1)
        y = np.abs(x - x.max(axis=-1, keepdims=True))
        logp = np.abs(ref.log_softmax(x, -1))
        share, kept, divisor = self.shares()
        divisor = divisor if reduction == "mean" and divisor else 1.0
        eps = tolerance(self.dtype, 2 * math.isqrt(self.classes))
        eps += tolerance(beside, self.classes) if beside else 0.0
        rows = np.where(kept, eps * (share * (1 + y + logp)).sum(-1), 0.0)
        g = np.abs(self.grad_rows) if reduction == "none" else np.full(rows.shape, 1.7)
        total = share.sum(-1, keepdims=True)
        dx = eps * g[..., None] / divisor * (total * np.exp(-logp) * (3 + y) + share)
        dx = np.moveaxis(dx + np.finfo(self.dtype).tiny, -1, self.axis)
        if reduction == "none":
            return rows, dx
        return (tolerance(self.dtype, rows.size) * (share * logp).sum() + rows.sum()) / divisor, dx


@pytest.mark.simulated("shape", lambda shape: np.prod(shape) <= 7_000)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy_follows_torch_and_the_reference(
    shape: tuple[int, ...],
    options: str,
    dtype: str,
    device: Device,
    isa: str,
    rng: np.random.Generator,
) -> None:
    problem = Problem(rng, shape, dtype, **OPTIONS[options])
    x, t, o = device.put(problem.logits), device.put(problem.target), dict(problem.options)
    if "weight" in o:
        o["weight"] = device.put(o["weight"])
    for reduction in ("none", "mean", "sum"):
        g = problem.grad_output(reduction)
        loss = tg.cross_entropy(x, t, reduction=reduction, **o)
        there = device.put(g) if reduction == "none" else g
        dx = tg.cross_entropy_backward(there, x, t, reduction=reduction, **o)
        assert device.get(loss).dtype == device.get(dx).dtype == dtype
        loss_bound, dx_bound = problem.bounds(reduction, beside="float64")
        want_loss, want_dx = problem.torch_answer(reduction)
        assert_close(device.get(loss), want_loss, loss_bound, what=f"{reduction} loss")
        assert_close(device.get(dx), want_dx, dx_bound, what=f"{reduction} gradient")
        loss_bound, dx_bound = problem.bounds(reduction)
        arguments = (problem.logits, problem.target)
        want_loss = ref.cross_entropy(*arguments, reduction=reduction, **problem.options)
        want_dx = ref.cross_entropy_backward(g, *arguments, reduction=reduction, **problem.options)
        assert_close(device.get(loss), want_loss, loss_bound, what=f"{reduction} loss")
        assert_close(device.get(dx), want_dx, dx_bound, what=f"{reduction} gradient")


@pytest.mark.not_on_cpu("how much shared memory a device has decides how a row is held")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", ["all", "shares"])
def test_a_long_row_on_devices_that_can_and_cannot_hold_it(
    device: Device, compute_capability: int, options: str, dtype: str, rng: np.random.Generator
) -> None:
    for classes in (6_000, 20_000):
        problem = Problem(rng, (2, classes), dtype, **OPTIONS[options])
        arguments = (problem.logits, problem.target)
        g = problem.grad_output("mean")
        dx = device.ops.cross_entropy_backward(g, *arguments, **problem.options)
        loss, _ = device.ops.cross_entropy_value_and_grad(*arguments, **problem.options)
        loss_bound, dx_bound = problem.bounds("mean", beside="float64")
        want_loss, want_dx = problem.torch_answer("mean")
        assert_close(loss, want_loss, loss_bound, what=f"loss of {classes}")
        assert_close(dx, want_dx, dx_bound, what=f"gradient of {classes}")


@pytest.mark.parametrize("options", ["plain", "all", "shares-all"])
@pytest.mark.parametrize("shape", [(33,), (64, 10), (3, 33, 2, 5), (19, 1000)], ids=str)
def test_cross_entropy_stays_close_to_torch_in_float32(
    shape: tuple[int, ...], options: str, device: Device, isa: str, rng: np.random.Generator
) -> None:
    problem = Problem(rng, shape, "float32", **OPTIONS[options])
    for reduction in ("none", "mean", "sum"):
        loss_bound, dx_bound = problem.bounds(reduction, beside="float32")
        want_loss, want_dx = problem.torch_answer(reduction, torch.float32)
        arguments = (problem.logits, problem.target)
        options = {"reduction": reduction, **problem.options}
        loss = device.ops.cross_entropy(*arguments, **options)
        g = problem.grad_output(reduction)
        dx = device.ops.cross_entropy_backward(g, *arguments, **options)
        assert_close(loss, want_loss, loss_bound)
        assert_close(dx, want_dx, dx_bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("spread", "shift"), [(80, 0), (3, 1e4), (3, -1e4), (0, 0), (0, 1e30)])
@pytest.mark.parametrize("shape", [(40, 10), (9, 33), (4, 1000), (3, 10, 7)], ids=str)
def test_far_logits_and_a_common_offset_lose_nothing(
    shape: tuple[int, ...], spread: float, shift: float, dtype: str, device: Device, isa: str,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    problem = Problem(rng, shape, dtype, spread=spread, shift=shift)
    if spread == 80:
        signs = np.where(rng.random(shape) < 0.5, np.float64(-80), np.float64(80))
        problem.logits = frozen(signs.astype(dtype))
    for reduction in ("none", "mean", "sum"):
        g = problem.grad_output(reduction)
        loss_bound, dx_bound = problem.bounds(reduction)
        arguments = (problem.logits, problem.target)
        want_loss = ref.cross_entropy(*arguments, reduction=reduction)
        want_dx = ref.cross_entropy_backward(g, *arguments, reduction=reduction)
        loss = device.ops.cross_entropy(*arguments, reduction=reduction)
        assert_close(loss, want_loss, loss_bound)
        dx = device.ops.cross_entropy_backward(g, *arguments, reduction=reduction)
        assert_close(dx, want_dx, dx_bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", [(10,), (130, 10), (9, 33), (5, 1000), (3, 33, 2, 5)], ids=str)
def test_loss_and_gradient_have_the_same_bits_alone_and_together(
    shape: tuple[int, ...],
    options: str,
    dtype: str,
    device: Device,
    isa: str,
    rng: np.random.Generator,
) -> None:
    problem = Problem(rng, shape, dtype, **OPTIONS[options])
    x, t, o = device.put(problem.logits), device.put(problem.target), dict(problem.options)
    if "weight" in o:
        o["weight"] = device.put(o["weight"])
    for reduction in ("none", "mean", "sum"):
        loss, dx = tg.cross_entropy_value_and_grad(x, t, reduction=reduction, **o)
        alone = tg.cross_entropy(x, t, reduction=reduction, **o)
        one = device.put(np.ones_like(problem.grad_rows)) if reduction == "none" else 1.0
        dx_alone = tg.cross_entropy_backward(one, x, t, reduction=reduction, **o)
        assert_same_bits(device.get(loss), device.get(alone), what=f"{reduction} loss")
        assert_same_bits(device.get(dx), device.get(dx_alone), what=f"{reduction} gradient")


def test_none_has_one_loss_for_each_row_and_its_own_grad_output(
    device: Device, rng: np.random.Generator
) -> None:
    x, t = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    g = np.array([0.0, 1.0, -2.0, 1e6, 1e-6, 3.0])
    dx = device.get(
        tg.cross_entropy_backward(device.put(g), device.put(x), device.put(t), reduction="none")
    )
    for i in range(6):
        alone = tg.cross_entropy_backward(g[i], x[i : i + 1], t[i : i + 1], reduction="sum")
        assert_close(dx[i], alone[0], 1e-14 * abs(g[i]))
    assert not dx[0].any()


@pytest.mark.parametrize(
    "g", [2.5, np.float64(2.5), np.float32(2.5), np.array(2.5), np.array(2.5, "f4")]
)
def test_grad_output_of_a_scalar_loss_is_any_scalar(device: Device, g: Any) -> None:
    x, t = np.array([[0.5, -1.0, 2.0]]), np.array([1])
    dtype = getattr(g, "dtype", np.dtype("f8"))
    x = x.astype(dtype)
    for reduction in ("mean", "sum"):
        want = 2.5 * ref.cross_entropy_backward(1.0, x, t, reduction=reduction)
        got = device.ops.cross_entropy_backward(g, x, t, reduction=reduction)
        assert_close(got, want, 10 * np.finfo(dtype).eps)


def test_the_gradient_of_a_row_sums_to_nothing(
    device: Device, isa: str, rng: np.random.Generator
) -> None:
    x = (rng.standard_normal((50, 257)) * 5).astype("f4")
    t = rng.integers(0, 257, 50)
    for smoothing in (0.0, 0.4):
        options = {"reduction": "sum", "label_smoothing": smoothing}
        dx = device.ops.cross_entropy_backward(1.0, x, t, **options)
        assert np.abs(dx.sum(axis=1, dtype=np.float64)).max() < 257 * 2e-7


def test_known_values(device: Device) -> None:
    x = device.put(np.log(np.array([[0.88, 0.12]])))
    loss = tg.cross_entropy(x, device.put(np.array([0])))
    assert float(loss) == pytest.approx(0.127833, abs=5e-7)  # -ln 0.88
    x = device.put(np.zeros((3, 8), np.float32))
    loss = tg.cross_entropy(x, device.put(np.array([1, 2, 7])))
    assert float(loss) == pytest.approx(math.log(8), rel=1e-6)


def test_two_classes_are_a_sigmoid(device: Device, isa: str, rng: np.random.Generator) -> None:
    z = rng.uniform(-30, 30, 200)
    x = np.stack([np.zeros(200), z], axis=1)
    shares = device.get(tg.softmax(device.put(x), 1))
    sigmoid = device.get(tg.sigmoid(device.put(z)))
    assert_close(shares[:, 1], sigmoid, 8e-15 * sigmoid)
    t = rng.integers(0, 2, 200)
    dx = tg.cross_entropy_backward(1.0, device.put(x), device.put(t), reduction="sum")
    assert_close(device.get(dx)[:, 1], sigmoid - t, 1e-14)
    loss = tg.cross_entropy(device.put(x), device.put(t), reduction="none")
    want = np.logaddexp(0.0, np.where(t == 1, -z, z))  # binary cross-entropy with logits
    assert_close(device.get(loss), want, 1e-14 * (1 + np.abs(z)))
