# SPDX-License-Identifier: MIT
"""Arrays of 16 bits at the border: what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tilegrad as tg
from half_inputs import HALVES
from helpers import Device, error

BF16 = np.dtype(ml_dtypes.bfloat16)
NO_BFLOAT16 = {
    "void": (np.zeros((3, 3), "V2"), "V2"),
    "record": (np.zeros((3, 3), [("bfloat16", np.uint16)]), "bfloat16', '<u2'"),
    "record of halves": (np.zeros((3, 3), [("x", np.float16)]), "f2"),
    "uint16": (np.zeros((3, 3), np.uint16), "uint16"),
    "float8": (np.zeros((3, 3), ml_dtypes.float8_e4m3fn), "float8_e4m3fn"),
    "int4": (np.zeros((3, 3), ml_dtypes.int4), "int4"),
    "byte-swapped": (np.zeros((3, 3), BF16.newbyteorder()), "byte order"),
    "misaligned": (np.frombuffer(bytearray(19), BF16, 9, 1).reshape(3, 3), "aligned"),
    "torch float16": (torch.zeros((3, 3), dtype=torch.float16), "float16"),
    "torch with grad": (torch.zeros(3, dtype=torch.bfloat16, requires_grad=True), "DLPack"),
}


@pytest.mark.parametrize("kind", NO_BFLOAT16)
def test_what_is_no_bfloat16_is_refused(kind: str) -> None:
    x, part = NO_BFLOAT16[kind]
    with error(TypeError, "relu", part):
        tg.relu(x)
    with error(TypeError, "softmax_backward", part):
        tg.softmax_backward(np.zeros((3, 3), BF16), x, 1)


SIXTEEN_BIT = ("matmul", "linear", "gelu", "softmax", "log_softmax", "cross_entropy")


def call_with(op: str, x: Any, target: Any) -> Any:
    function = getattr(tg, op)
    if op in ("matmul", "linear"):
        return function(x, x)
    if op == "gelu":
        return function(x)
    return function(x, target if op == "cross_entropy" else 1)


@pytest.mark.parametrize("op", SIXTEEN_BIT)
def test_the_cpu_refuses_float16_by_name(op: str) -> None:
    x, t = np.ones((3, 3), np.float16), np.zeros(3, np.int64)
    with error(TypeError, op, "float32, float64 or bfloat16", "float16"):
        call_with(op, x, t)
    with error(TypeError, op, "float32, float64 or bfloat16", "float16"):
        call_with(op, torch.from_numpy(x), t)
    arguments = {"matmul": (x, x, x), "linear": (x, x, x), "gelu": (x, x)}
    arguments["cross_entropy"] = (1.0, x, t)
    with error(TypeError, f"{op}_backward", "float32, float64 or bfloat16", "float16"):
        getattr(tg, f"{op}_backward")(*arguments.get(op, (x, x, 1)))


def test_dtypes_are_not_mixed_nor_cast(device: Device) -> None:
    halves = HALVES[:1] if device.name == "cpu" else HALVES
    x = {half.name: half.put(device, np.ones((3, 3))) for half in halves}
    x["float32"] = device.put(np.ones((3, 3), np.float32))
    for one in x:
        for other in x:
            if one == other:
                continue
            with error(TypeError, "matmul", one, other):
                tg.matmul(x[one], x[other])
            with error(TypeError, "linear", one, other):
                tg.linear(x[one], x[one], x[other][0])
            with error(TypeError, "softmax_backward", one, other):
                tg.softmax_backward(x[one], x[other], 1)
            with error(TypeError, "relu", "out", one, other):
                tg.relu(x[one], out=x[other])


def test_ops_without_16_bits_say_which_dtypes_they_take(device: Device) -> None:
    for half in HALVES[:1] if device.name == "cpu" else HALVES:
        x = half.put(device, np.ones((3, 3)))
        for op, call in {
            "ctc_loss": lambda x: tg.ctc_loss(x, x, (3,), (1,)),
            "ctc_loss_backward": lambda x: tg.ctc_loss_backward(1.0, x, x, (3,), (1,)),
            "dropout": lambda x: tg.dropout(x, 0.5, seed=1),
            "dropout_backward": lambda x: tg.dropout_backward(x, x, 0.5, seed=1, offset=0),
            "nll_loss": lambda x: tg.nll_loss(x, x),
            "multi_margin_loss": lambda x: tg.multi_margin_loss(x, x),
            "multilabel_soft_margin_loss": lambda x: tg.multilabel_soft_margin_loss(x, x),
            "triplet_margin_loss": lambda x: tg.triplet_margin_loss(x, x, x),
            "cosine_embedding_loss": lambda x: tg.cosine_embedding_loss(x, x, x),
        }.items():
            with error(TypeError, op, "float32 or float64", half):
                call(x)
