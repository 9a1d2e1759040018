# SPDX-License-Identifier: MIT
"""ctc_loss beside torch and the reference: values, gradients, equal bits, the module."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import FLOATS, Array, Device, assert_close, assert_same_bits, frozen, tolerance
from tilegrad import nn
from tilegrad import reference as ref

REDUCTIONS = ("none", "mean", "sum")
INF, NAN = float("inf"), float("nan")
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


@dataclass(frozen=True)
class Batch:
    """The arguments of a call, on the host."""

    log_probs: Array
    targets: Array
    input_lengths: Any
    target_lengths: Any
    blank: int = 0

    def on(self, device: Device) -> tuple[Any, ...]:
        there = device.put(self.log_probs), device.put(self.targets)
        return (*there, self.input_lengths, self.target_lengths, self.blank)

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.on(Device("cpu"))


def log_softmax(x: Array) -> Array:
    return np.asarray(ref.log_softmax(x, -1))


def draw(
    rng: np.random.Generator, shape: tuple[int, int, int, int], dtype: Any = np.float64,
    ragged: bool = True,
) -> Batch:  # fmt: skip
    """Return random sequences of (times, samples, classes, most labels); the first is full."""
    times, samples, classes, labels = shape
    y = log_softmax(rng.normal(0, 2, (times, samples, classes))).astype(dtype)
    blank = classes // 2
    targets = rng.integers(0, max(classes - 1, 1), (samples, labels))
    targets += (targets >= blank) & (classes > 1)  # the blank is no label
    input_lengths = np.full(samples, times)
    target_lengths = np.full(samples, labels)
    if ragged and samples > 1:
        input_lengths[1:] = rng.integers(0, times + 1, samples - 1)
        target_lengths[1:] = rng.integers(0, labels + 1, samples - 1)
    return Batch(frozen(y), frozen(targets), input_lengths, target_lengths, blank)


def packed(batch: Batch) -> Batch:
    """Return the same targets one after the other."""
    rows = zip(batch.targets, batch.target_lengths, strict=True)
    return replace(batch, targets=np.concatenate([row[:count] for row, count in rows]))


def torch_answer(
    batch: Batch, reduction: str, zero_infinity: bool, g: Any, through: bool = False
) -> tuple[Array, Array]:
    """Return torch's loss and gradient in float64, through a log_softmax or without it."""
    leaf = torch.tensor(batch.log_probs, dtype=torch.float64, requires_grad=True)
    y = F.log_softmax(leaf, -1) if through else leaf
    lengths = (torch.tensor(batch.input_lengths), torch.tensor(batch.target_lengths))
    targets = torch.tensor(batch.targets.astype(np.int64))
    loss = F.ctc_loss(y, targets, *lengths, batch.blank, reduction, zero_infinity)
    loss.backward(torch.tensor(np.asarray(g, np.float64)))
    return loss.detach().numpy(), leaf.grad.numpy()


def state_error(device: Device, batch: Batch) -> float:
    """Bound the error of a state: what its steps round, in float64, and compute less exactly.

    A state is a sum of one log-probability and one logarithm of at most 3 a step. The logarithm is
    as exact as float64 on the cpu, on a device as the dtype: a polynomial or two of 2 ulp.
    """
    y = np.asarray(batch.log_probs, np.float64)
    largest = np.abs(np.where(np.isfinite(y), y, 0)).max(axis=-1, initial=0)
    sizes = largest.sum(axis=0).max(initial=0) + 2 * len(y)
    step = np.finfo(np.float64 if device.name == "cpu" else batch.log_probs.dtype).eps
    return tolerance(np.float64, 2 * len(y)) * float(sizes) + 4 * float(step) * len(y)


def check(
    device: Device, batch: Batch, reduction: str, zero_infinity: bool, g: Any, torchs: bool = True
) -> None:
    """Compare loss and gradient with the reference and with torch."""
    dtype = batch.log_probs.dtype
    eps, state = float(np.finfo(dtype).eps), state_error(device, batch)
    options = (reduction, zero_infinity)
    want = ref.ctc_loss(*batch.arguments, *options)
    want_grad = ref.ctc_loss_backward(g, *batch.arguments, *options)
    # An exponential to 2 ulp, a share with three states in its exponent, their difference, g.
    bound = np.abs(np.asarray(g)).max(initial=0) * (6 * eps + 3 * state)
    terms = len(batch.input_lengths) if reduction == "sum" else 1
    loss_bound = eps * np.abs(want) + state * terms
    there = batch.on(device)
    with device.guarded_out(want.shape, dtype) as out:
        tg.ctc_loss(*there, *options, out=out)
        loss = device.get(out)
    with device.guarded_out(batch.log_probs.shape, dtype) as out:
        tg.ctc_loss_backward(device.put(np.asarray(g, dtype)), *there, *options, out=out)
        gradient = device.get(out)
    assert_close(loss, want, loss_bound, what="loss")
    assert_close(gradient, want_grad, bound, what="gradient")
    if torchs:
        value, slope = torch_answer(batch, *options, g)
        assert_close(loss, value, loss_bound, what="torch's loss")
        assert_close(gradient, slope, bound, what="torch's gradient")


# times, samples, classes, labels: pairs of states below, at and above 8, 32 and 128
SHAPES = [
    (1, 1, 1, 0), (1, 1, 2, 1), (2, 1, 3, 0), (5, 3, 4, 2), (13, 4, 7, 6), (17, 2, 5, 7),
    (19, 3, 5, 8), (40, 2, 9, 15), (40, 3, 2, 16), (80, 2, 33, 31), (90, 1, 65, 32),
    (70, 5, 130, 33), (300, 1, 50, 127), (150, 16, 32, 30), (20, 140, 6, 4), (260, 2, 3, 128),
]  # fmt: skip


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.simulated("shape", lambda s: s[0] * s[1] * (s[3] + 20) < 80_000)
def test_ctc_loss_matches_reference_and_torch(
    device: Device, isa: str, shape: tuple[int, int, int, int], dtype: Any,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    batch = draw(rng, shape, dtype)
    g = rng.standard_normal(shape[1]).astype(dtype)
    for reduction in REDUCTIONS:
        for zero_infinity in (False, True):
            upstream = g if reduction == "none" else np.asarray(dtype(-1.5))
            check(device, batch, reduction, zero_infinity, upstream)
            if device.name == "sim":
                break


@every_dtype
def test_gradient_through_log_softmax_is_torchs(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    for shape in [(12, 3, 5, 4), (40, 2, 30, 10)]:
        batch = draw(rng, shape, dtype)
        x = rng.normal(0, 2, shape[:3]).astype(dtype)
        there = device.put(x)
        for reduction in ("mean", "sum"):
            y = tg.log_softmax(there, -1)
            rest = (*batch.on(device)[1:], reduction, True)
            dy = tg.ctc_loss_backward(-0.75, y, *rest)
            dx = device.get(tg.log_softmax_backward(dy, there, -1))
            logits = replace(batch, log_probs=x)
            value, slope = torch_answer(logits, reduction, True, -0.75, through=True)
            # Every log-probability is off by eps of its logit and log-sum, the same for a row.
            offset = float(np.finfo(dtype).eps) * (4 + np.abs(x).max())
            state = state_error(device, batch) + offset * shape[0]
            assert_close(tg.ctc_loss(y, *rest), value, np.abs(value) * 1e-7 + state * shape[1])
            assert_close(dx, slope, shape[2] * (8 * np.finfo(dtype).eps + 3 * state))


@every_dtype
def test_long_sequences_stay_accurate(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    """States are float64: over 2000 times torch's float32 gradient is off by 5e-3, this by 1e-7."""
    batch = draw(rng, (2000, 1, 40, 60 if device.name == "sim" else 200), dtype)
    wide = replace(batch, log_probs=batch.log_probs.astype(np.float64))
    want = ref.ctc_loss_backward(1.0, *wide.arguments, "sum")
    there = batch.on(device)
    loss, gradient = tg.ctc_loss_value_and_grad(*there, "sum")
    eps = float(np.finfo(dtype).eps)
    close = (
        4 * eps if device.name == "cpu" else 16 * eps
    )  # there its steps have errors of their own
    rounding = tolerance(np.float64, 4000) * 2000 * 12 if dtype == np.float64 else 0
    assert_close(gradient, want, close + rounding)
    wanted = ref.ctc_loss(*wide.arguments, "sum")
    assert_close(loss, wanted, close * np.abs(wanted))
    if dtype == np.float32:
        leaf = torch.tensor(batch.log_probs, requires_grad=True)
        lengths = (torch.tensor(batch.input_lengths), torch.tensor(batch.target_lengths))
        targets = torch.tensor(batch.targets)
        F.ctc_loss(leaf, targets, *lengths, batch.blank, "sum").backward()
        theirs = np.abs(leaf.grad.numpy() - want).max()
        assert np.abs(device.get(gradient) - want).max() < theirs / 100


# ---- the forms of a call ------------------------------------------------------------------------


def answers(device: Device, batch: Batch, reduction: str = "none") -> tuple[Array, Array]:
    pair = tg.ctc_loss_value_and_grad(*batch.on(device), reduction)
    return device.get(pair[0]), device.get(pair[1])


def same(one: tuple[Array, ...], other: tuple[Array, ...], what: str) -> None:
    for a, b in zip(one, other, strict=True):
        assert_same_bits(a, b, what=what)


@every_dtype
def test_packed_targets_and_any_integers_give_the_same_bits(
    device: Device, dtype: Any, rng: np.random.Generator
) -> None:
    batch = draw(rng, (14, 4, 6, 5), dtype)
    want = answers(device, batch)
    tight = packed(batch)
    for kind in "bhilqBHILQ":
        for form in (batch, tight):
            integers = replace(form, targets=form.targets.astype(kind))
            same(answers(device, integers), want, kind)
    shapes = [(tuple, int), (list, int), (tuple, np.int16)]
    for make, item in shapes:
        lengths = [make(item(n) for n in x) for x in (batch.input_lengths, batch.target_lengths)]
        form = Batch(batch.log_probs, batch.targets, *lengths, batch.blank)
        same(answers(device, form), want, f"{make} of {item}")
    for convert in (
        lambda x: x.astype(np.uint8), lambda x: np.repeat(x, 2)[::2], torch.tensor, device.put
    ):  # fmt: skip
        lengths = [convert(x) for x in (batch.input_lengths, batch.target_lengths)]
        form = Batch(batch.log_probs, batch.targets, *lengths, batch.blank)
        same(answers(device, form), want, str(convert))
    loss = tg.ctc_loss(*batch.on(device), "none")
    assert_same_bits(loss, want[0], what="the loss alone")
    ones = device.put(np.ones(4, dtype))
    gradient = tg.ctc_loss_backward(ones, *batch.on(device), "none")
    assert_same_bits(gradient, want[1], what="the gradient alone")


def test_wrt_and_out_of_the_gradient(device: Device, rng: np.random.Generator) -> None:
    batch = draw(rng, (6, 2, 4, 2))
    there = (1.0, *batch.on(device))
    want = device.get(tg.ctc_loss_backward(*there))
    out = device.put(np.full(batch.log_probs.shape, NAN))
    assert tg.ctc_loss_backward(*there, wrt="log_probs", out=out) is out
    (only,) = tg.ctc_loss_backward(*there, wrt=("log_probs",))
    (_, (other,)) = tg.ctc_loss_value_and_grad(*there[1:], wrt=("log_probs",))
    for gradient in (out, only, other):
        assert_same_bits(gradient, want)


@every_dtype
def test_a_sample_has_the_same_bits_alone_and_among_others(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    batch = draw(rng, (23, 5, 6, 9), dtype)
    loss, gradient = answers(device, batch)
    for n in range(5):
        y = np.ascontiguousarray(batch.log_probs[:, n])
        lengths = (int(batch.input_lengths[n]),), (int(batch.target_lengths[n]),)
        labels = np.ascontiguousarray(batch.targets[n, : lengths[1][0]])
        alone = Batch(y, labels, *lengths, batch.blank)
        same(answers(device, alone), (loss[n], gradient[:, n]), f"sample {n}")
        no_axis = replace(alone, input_lengths=np.array(lengths[0][0]))
        same(answers(device, no_axis), (loss[n], gradient[:, n]), "lengths without an axis")
        row = replace(alone, targets=labels[None])
        same(answers(device, row), (loss[n], gradient[:, n]), "targets (1, S)")
        one = tg.ctc_loss(*alone.on(device), "mean")
        divisor = max(1, lengths[1][0])
        assert_close(one, loss[n] / divisor, np.finfo(dtype).eps * np.abs(loss[n]))


@every_dtype
def test_bits_do_not_depend_on_layout_or_threads(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    batch = draw(rng, (31, 7, 11, 12), dtype)
    want = answers(device, batch, "mean")
    rest = batch.on(device)[1:]
    for name, y in device.layouts(batch.log_probs).items():
        pair = tg.ctc_loss_value_and_grad(y, *rest, "mean")
        same((device.get(pair[0]), device.get(pair[1])), want, name)
    for name, targets in device.layouts(batch.targets.astype(np.float64)).items():
        if device.name != "cpu":
            break
        cast = np.empty_like(targets, dtype=np.int64)
        cast[...] = targets
        same(answers(device, replace(batch, targets=cast)), answers(device, batch), name)
    for count in device.threads(1, 2, 3):
        tg.set_num_threads(count)
        same(answers(device, batch, "mean"), want, f"{count} threads")


# ---- edges --------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_samples_without_a_path(
    device: Device, isa: str, dtype: Any, zero_infinity: bool, rng: np.random.Generator
) -> None:
    """Two repeats in four times; none; too short; no time, with labels and without; no labels."""
    y = log_softmax(rng.normal(0, 1, (4, 6, 3))).astype(dtype)
    targets = np.array([[1, 1, 1], [1, 2, 1], [2, 2, 2], [1, 1, 1], [1, 2, 1], [1, 1, 1]])
    batch = Batch(y, targets, (4, 4, 2, 0, 0, 3), (3, 3, 2, 1, 0, 0))
    for reduction in REDUCTIONS:
        g = np.ones(6, dtype) if reduction == "none" else np.asarray(dtype(2))
        check(device, batch, reduction, zero_infinity, g)
    loss, gradient = answers(device, batch)
    assert np.isinf(loss).tolist() == [True, False, True, True, False, False]
    assert np.isnan(gradient[:4, 0]).all()
    assert not gradient[2:, 2].any()  # after its two times
    assert not gradient[:, 3].any()
    # A gradient of zero stays one, whatever comes from above.
    upstream = device.put(np.array([NAN, 1, INF, NAN, 1, 1], dtype))
    zeroed = device.get(tg.ctc_loss_backward(upstream, *batch.on(device), "none", True))
    assert not zeroed[:, [0, 2, 3]].any()
    assert np.isfinite(zeroed).all()


@every_dtype
def test_batches_of_nothing(device: Device, dtype: Any) -> None:
    """Torch refuses an empty batch or time; a mean over nothing is NaN, as everywhere."""
    nothing = Batch(np.zeros((4, 0, 3), dtype), np.zeros((0, 2), int), (), ())
    loss = {r: device.get(tg.ctc_loss(*nothing.on(device), r)) for r in REDUCTIONS}
    assert np.isnan(loss["mean"])
    assert loss["sum"] == 0
    assert loss["none"].shape == (0,)
    assert answers(device, nothing)[1].shape == (4, 0, 3)
    assert answers(device, replace(nothing, targets=np.zeros(0, int)))[0].shape == (0,)
    no_time = Batch(np.zeros((0, 2, 3), dtype), np.ones((2, 2), int), (0, 0), (0, 2))
    loss, gradient = answers(device, no_time)
    assert loss.tolist() == [0, INF]
    assert gradient.shape == (0, 2, 3)


@every_dtype
def test_impossible_classes_are_no_paths(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    """log_probs of -inf: torch's loss, and a gradient of 0 where torch has NaN."""
    x = rng.normal(0, 1, (6, 3, 5))
    x[1, 0, 0] = x[2, 0, 3] = x[3, 1, 1] = -INF
    x[:, 2, 2] = -INF  # label 2 of the last sample: no path
    batch = Batch(log_softmax(x).astype(dtype), np.array([[1, 2], [1, 1], [1, 2]]), [6, 5, 6], [2, 2, 2])  # noqa: E501  # fmt: skip
    g = rng.standard_normal(3).astype(dtype)
    check(device, batch, "none", False, g, torchs=False)
    value, slope = torch_answer(batch, "none", False, g)
    loss = device.get(tg.ctc_loss(*batch.on(device), "none"))
    assert loss[2] == INF
    assert_close(loss, value, 1e-5)
    gradient = device.get(tg.ctc_loss_backward(device.put(g), *batch.on(device), "none"))
    possible = ~np.isneginf(x)
    assert np.isnan(slope[:5, :2][~possible[:5, :2]]).all()
    assert not gradient[:, :2][~possible[:, :2]].any()
    assert_close(gradient[possible], slope[possible], 1e-5)


@every_dtype
def test_nan_stays_in_its_sample_and_its_times(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    batch = draw(rng, (9, 4, 5, 3), dtype, ragged=False)
    y = batch.log_probs.copy()
    y[2, 1, batch.blank] = NAN
    y[7:, 2] = NAN  # beyond its length
    bad = replace(batch, log_probs=y, input_lengths=np.array([9, 8, 7, 9]))
    loss, gradient = answers(device, bad)
    assert np.isnan(loss).tolist() == [False, True, False, False]
    assert np.isnan(gradient[:8, 1]).all()
    assert not gradient[8, 1].any()
    assert not gradient[7:, 2].any()
    check(device, bad, "none", True, np.ones(4, dtype))


@every_dtype
def test_blank_may_be_any_class_and_a_label(
    device: Device, isa: str, dtype: Any, rng: np.random.Generator
) -> None:
    y = log_softmax(rng.normal(0, 1, (7, 3, 4))).astype(dtype)
    targets = np.array([[1, 0, 2], [2, 2, 1], [0, 0, 3]])
    for blank in range(4):
        batch = Batch(y, targets, (7, 7, 6), (3, 3, 3), blank)
        check(device, batch, "none", False, np.ones(3, dtype), torchs=False)
        value, slope = torch_answer(batch, "none", False, np.ones(3))
        loss, gradient = answers(device, batch)
        assert_close(loss, value, 8 * np.finfo(dtype).eps * np.abs(value))
        for n in range(3):  # torch forgets a state at the last time of a target that ends in it
            rows = slice(batch.input_lengths[n] - (targets[n, -1] == blank))
            assert_close(gradient[rows, n], slope[rows, n], 32 * np.finfo(dtype).eps)


@every_dtype
def test_a_label_that_is_no_class(device: Device, dtype: Any, rng: np.random.Generator) -> None:
    """An error on the cpu; elsewhere NaN and a gradient of zero. Behind a target's end it is none.

    The reductions of the other samples go on.
    """
    batch = draw(rng, (8, 3, 4, 3), dtype, ragged=False)
    targets = np.where(batch.targets == 0, 0, batch.targets)
    targets[:, 2] = 99
    good = replace(batch, targets=targets, target_lengths=(2, 2, 2))
    want = answers(device, good)
    assert np.isfinite(want[0]).all()
    for bad, kind in ((4, np.int64), (-1, np.int32), (2**63 + 5, np.uint64), (-100, np.int8)):
        wrong = targets.astype(kind)
        wrong[1, 1] = bad
        call = replace(good, targets=wrong)
        if device.name == "cpu":
            out = np.full(batch.log_probs.shape, 7, dtype)
            rule = rf": targets must be in \[0, 4\); got {bad}"
            with pytest.raises(ValueError, match=f"^ctc_loss{rule}"):
                tg.ctc_loss(*call.arguments)
            with pytest.raises(ValueError, match=f"^ctc_loss_value_and_grad{rule}"):
                tg.ctc_loss_value_and_grad(*call.arguments)
            with pytest.raises(ValueError, match=f"^ctc_loss_backward{rule}"):
                tg.ctc_loss_backward(1.0, *call.arguments, out=out)
            assert (out == 7).all()
            continue
        loss, gradient = answers(device, call)
        assert np.isnan(loss[1])
        assert not gradient[:, 1].any()
        for n in (0, 2):
            same((loss[n], gradient[:, n]), (want[0][n], want[1][:, n]), f"sample {n}")
        assert np.isnan(device.get(tg.ctc_loss(*call.on(device), "sum", True)))


@pytest.mark.parametrize("lengths", [(4.0, 4.0), np.ones(2), np.ones(2, bool), (True, True), "ab",
                                     None, 4, (4, None), {4, 3}])  # fmt: skip
def test_lengths_that_are_no_integers_are_refused(device: Device, lengths: Any) -> None:
    y, t = device.put(np.zeros((4, 2, 3))), device.put(np.ones((2, 1), int))
    for name, arguments in (
        ("input_lengths", (lengths, (1, 1))), ("target_lengths", ((4, 4), lengths))
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"^ctc_loss: {name} must (hold|be)"):
            tg.ctc_loss(y, t, *arguments)


@pytest.mark.skipif(tg.info()["backends"]["sim"] is not None, reason="this build has no simulator")
def test_lengths_of_another_device_are_refused() -> None:
    away = tg.asarray(np.array([4, 4]), device="sim")
    with pytest.raises(TypeError, match="ctc_loss: target_lengths is on sim"):
        tg.ctc_loss(np.zeros((4, 2, 3)), np.ones((2, 1), int), (4, 4), away)


@pytest.mark.not_on_cpu("about shared memory, which holds the states where there is enough of it")
def test_states_of_many_labels_lie_in_workspace(
    device: Device, compute_capability: int, rng: np.random.Generator
) -> None:
    shape = (700, 2, 4, 690) if compute_capability != 75 else (1400, 1, 4, 1380)
    batch = draw(rng, shape, np.float32, ragged=False)
    targets = np.arange(batch.targets.size).reshape(batch.targets.shape) % 3
    check(device, replace(batch, targets=targets, blank=3), "sum", False, np.float32(1))


# ---- the module ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_module_follows_torch(device: Device, reduction: str, rng: np.random.Generator) -> None:
    batch = draw(rng, (12, 3, 5, 4))
    for zero_infinity in (False, True):
        ours = nn.CTCLoss(batch.blank, reduction, zero_infinity)
        theirs = torch.nn.CTCLoss(batch.blank, reduction, zero_infinity)
        leaf = torch.tensor(batch.log_probs, requires_grad=True)
        lengths = (torch.tensor(batch.input_lengths), torch.tensor(batch.target_lengths))
        want = theirs(leaf, torch.tensor(batch.targets), *lengths)
        for given in (False, True):
            g = rng.standard_normal(want.shape) if given else np.ones(want.shape)
            leaf.grad = None
            want.backward(torch.tensor(g), retain_graph=True)
            value = ours(*batch.on(device)[:4])
            assert_close(value, want.detach().numpy(), 1e-12)
            gradient = ours.backward(device.put(np.asarray(g)) if given else None)
            assert_close(gradient, leaf.grad.numpy(), 1e-12)
            with pytest.raises(RuntimeError, match="second backward"):
                ours.backward()
        assert_same_bits(ours.eval()(*batch.on(device)[:4]), device.get(value)[()])


def test_module_has_no_plan_and_checks_its_options() -> None:
    with pytest.raises(ValueError, match="CTCLoss: reduction must be"):
        nn.CTCLoss(reduction="avg")
    model = nn.Sequential(nn.Linear(3, 4))
    step = tg.TrainStep(model, nn.CTCLoss(), tg.optim.SGD(model.parameters(), 0.1))
    with pytest.raises(TypeError, match="CTCLoss has no plan"):
        step(np.zeros((5, 3), np.float32), np.array([1]))
