# SPDX-License-Identifier: MIT
"""ctc_loss beside torch and the reference: values, gradients, equal bits, the module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from ctc_inputs import Batch, answers, check, draw, packed, same, state_error, torch_answer
from helpers import FLOATS, Device, assert_close, assert_same_bits, tolerance
from tilegrad import nn
from tilegrad import reference as ref

REDUCTIONS = ("none", "mean", "sum")
NAN = float("nan")
every_dtype = pytest.mark.parametrize("dtype", FLOATS)

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
    t = batch.targets
    if device.name == "cpu":
        for other in (np.asfortranarray(t), np.repeat(t, 2, 1)[:, ::2], t[::-1].copy()[::-1]):
            strided = replace(batch, targets=other)
            same(answers(device, strided, "mean"), want, f"strides {other.strides}")
    for count in device.threads(1, 2, 3):
        tg.set_num_threads(count)
        same(answers(device, batch, "mean"), want, f"{count} threads")


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
