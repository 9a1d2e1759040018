# SPDX-License-Identifier: MIT
"""A short, deterministic part of what fuzz_arguments.py runs for hours."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import tilegrad as tg
from fuzz_arguments import Fuzzer
from helpers import Device, error

CASES = {"cpu": 1500, "sim": 300}
THERE = [name for name in CASES if tg.info()["backends"][name] is None]


@pytest.mark.parametrize("name", THERE)
def test_mutated_calls_are_answered_or_refused_in_words(name: str) -> None:
    pytest.importorskip("torch", reason="its tensors are among the arguments")
    fuzzer = Fuzzer(name, seed=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).* are broadcast")  # a loss module says so
        for index in range(CASES[name]):
            fuzzer.run(index)
    summary = fuzzer.summary()
    assert summary["calls"] == CASES[name]
    # Both outcomes are common, so that neither is what is tried alone.
    assert CASES[name] / 4 < summary["accepted"] < 3 * CASES[name] / 4
    assert summary["compared with the reference"] > CASES[name] / 50


FLAGS = [
    ("matmul", (np.ones((2, 2)), np.ones((2, 2))), "transpose_a"),
    ("matmul", (np.ones((2, 2)), np.ones((2, 2))), "transpose_b"),
    ("linear", (np.ones((2, 2)), np.ones((2, 2))), "save_preactivation"),
    ("linear_backward", (np.ones((2, 2)),) * 3, "accumulate"),
    ("fused_mlp_backward", (np.ones((2, 2)), np.ones((2, 2)), [np.ones((2, 2))]), "accumulate"),
    ("poisson_nll_loss", (np.ones(2), np.ones(2)), "full"),
    ("poisson_nll_loss", (np.ones(2), np.ones(2)), "log_input"),
    ("kl_div", (np.ones(2), np.ones(2)), "log_target"),
    ("triplet_margin_loss", (np.ones((2, 2)),) * 3, "swap"),
    ("ctc_loss", (np.zeros((2, 1, 3)), np.ones(1, int), (2,), (1,)), "zero_infinity"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "name"), FLAGS)
def test_a_flag_that_has_no_one_truth_is_refused_by_name(
    op: str, operands: tuple[object, ...], name: str
) -> None:
    for value in ("False", [], np.array([True, False])):
        with error(TypeError, op, name, "must be True or False", type(value).__name__):
            getattr(tg, op)(*operands, **{name: value})
    for value in (True, np.bool_(False), 1):
        if name != "accumulate":  # which needs an out
            getattr(tg, op)(*operands, **{name: value})


def test_an_object_that_lies_about_its_device_is_refused_by_name() -> None:
    class Liar:
        def __init__(self, device: object) -> None:
            self.device = device

        def __dlpack_device__(self) -> object:
            if isinstance(self.device, Exception):
                raise self.device
            return self.device

        def __dlpack__(self, **_: object) -> None:
            raise AssertionError

    for device in (None, (), "cpu", (1,), ("cpu", 0), ValueError("no device"), (2**40, 0)):
        with error(TypeError, "relu", "input could not be read through DLPack"):
            tg.relu(Liar(device))  # type: ignore[arg-type]
    with error(TypeError, "softmax", "input could not be read through DLPack"):
        tg.softmax(Liar((1, 0)), 0, dtype=np.float32)  # type: ignore[arg-type]


def test_text_that_is_no_unicode_and_a_dtype_that_is_none_are_refused(device: Device) -> None:
    x = device.put(np.ones((2, 2)))
    with error(ValueError, "mse_loss", "reduction"):
        tg.mse_loss(x, x, reduction="\ud800")
    with error(ValueError, "matmul_backward", "wrt"):
        tg.matmul_backward(x, x, x, wrt="\ud800")
    for dtype in ("nonsense", "\ud800", -1, [1.0]):
        for op, operands in (("softmax", (x,)), ("softmax_backward", (x, x))):
            with error(TypeError, op, "dtype must be float32, float64 or bfloat16"):
                getattr(tg, op)(*operands, 1, dtype=dtype)
    for number in (np.ones(2), np.ma.masked):
        with error(TypeError, "softmax", "dim must be an integer"):
            tg.softmax(x, number)
    with pytest.raises(TypeError, match="clip_grad_norm_: max_norm must be a number; got str"):
        tg.nn.utils.clip_grad_norm_([], "1")


@pytest.mark.parametrize("layer", [tg.nn.Flatten(), tg.nn.Dropout()])
def test_a_layer_refuses_what_is_no_array(layer: tg.nn.Module) -> None:
    for value in (b"bytes", ..., 3, [1.0]):
        with pytest.raises(TypeError, match=r"(?i)^(flatten|dropout): input must be "):
            layer(value)
        layer(np.ones((2, 2)))
        with pytest.raises(TypeError, match=r"must be an? (array|numpy)"):
            layer.backward(value)  # type: ignore[arg-type]


def test_a_weight_that_is_no_array_is_refused() -> None:
    with pytest.raises(TypeError, match="MultiMarginLoss: weight must be an array; got float"):
        tg.nn.MultiMarginLoss(weight=1.0)  # type: ignore[arg-type]


def test_a_seed_is_one_integer() -> None:
    for value in (np.ones(2), np.ma.masked, True, 0.5):
        with error(TypeError, "dropout", "seed must be an integer"):
            tg.dropout(np.ones(2), seed=value)
