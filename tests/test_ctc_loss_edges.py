# SPDX-License-Identifier: MIT
"""ctc_loss at its edges: no path, no batch, -inf, NaN, blanks as labels, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from ctc_inputs import Batch, answers, check, draw, log_softmax, same, torch_answer
from helpers import FLOATS, Device, assert_close

REDUCTIONS = ("none", "mean", "sum")
INF, NAN = float("inf"), float("nan")
every_dtype = pytest.mark.parametrize("dtype", FLOATS)


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
    y = log_softmax(x).astype(dtype)
    batch = Batch(y, np.array([[1, 2], [1, 1], [1, 2]]), [6, 5, 6], [2, 2, 2])
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
    targets = batch.targets.copy()
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


class Unreadable:
    """As a sparse tensor of PyTorch."""

    def tolist(self) -> list[int]:
        raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")


@pytest.mark.parametrize("lengths", [(4.0, 4.0), np.ones(2), np.ones(2, bool), (True, True), "ab",
                                     None, 4, (4, None), {4, 3}])  # fmt: skip
def test_lengths_that_are_no_integers_are_refused(device: Device, lengths: Any) -> None:
    y, t = device.put(np.zeros((4, 2, 3))), device.put(np.ones((2, 1), int))
    for name, arguments in (
        ("input_lengths", (lengths, (1, 1))), ("target_lengths", ((4, 4), lengths))
    ):  # fmt: skip
        with pytest.raises(TypeError, match=f"^ctc_loss: {name} must (hold|be)"):
            tg.ctc_loss(y, t, *arguments)


def test_lengths_that_their_library_cannot_read_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^ctc_loss: target_lengths could not be read: .*storage"):
        tg.ctc_loss(np.zeros((4, 2, 3)), np.ones((2, 1), int), (4, 4), Unreadable())


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
