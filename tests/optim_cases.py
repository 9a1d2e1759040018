# SPDX-License-Identifier: MIT
"""Optimisers, the options that they are tested with, and torch's beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Device, host

CASES = [
    pytest.param("SGD", {"lr": 0.1}, id="sgd"),
    pytest.param("SGD", {"lr": 0.0}, id="sgd-lr0"),
    pytest.param("SGD", {"lr": 0.1, "weight_decay": 0.3}, id="sgd-decay"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, id="sgd-momentum"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}, id="sgd-dampening"),
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}, id="sgd-nesterov"),
    pytest.param(
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        id="sgd-all",
    ),
    pytest.param("Adam", {}, id="adam"),
    pytest.param("Adam", {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-3}, id="adam-betas"),
    pytest.param("Adam", {"lr": 0.1, "betas": (0.0, 0.0)}, id="adam-betas0"),
    pytest.param("Adam", {"lr": 0.1, "weight_decay": 0.2}, id="adam-decay"),
    pytest.param("Adam", {"lr": 0.1, "amsgrad": True}, id="adam-amsgrad"),
    pytest.param("Adam", {"lr": 0.1, "maximize": True, "weight_decay": 0.2}, id="adam-maximize"),
    pytest.param("AdamW", {"lr": 0.1}, id="adamw"),
    pytest.param("AdamW", {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}, id="adamw-amsgrad"),
    pytest.param("AdamW", {"lr": 0.1, "weight_decay": 0.0, "maximize": True}, id="adamw-maximize"),
    pytest.param("RMSprop", {}, id="rmsprop"),
    pytest.param("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-3}, id="rmsprop-alpha"),
    pytest.param("RMSprop", {"lr": 0.1, "alpha": 0.3, "weight_decay": 0.2}, id="rmsprop-decay"),
    pytest.param("RMSprop", {"lr": 0.02, "momentum": 0.9}, id="rmsprop-momentum"),
    pytest.param("RMSprop", {"alpha": 0.9, "centered": True, "eps": 1e-3}, id="rmsprop-centered"),
    pytest.param(
        "RMSprop",
        {"alpha": 0.4, "eps": 1e-2, "weight_decay": 0.1, "momentum": 0.5, "centered": True,
         "maximize": True},
        id="rmsprop-all",
    ),
    pytest.param("RMSprop", {"lr": 0.1, "alpha": 0.0, "maximize": True}, id="rmsprop-alpha0"),
    pytest.param("Adagrad", {}, id="adagrad"),
    pytest.param("Adagrad", {"lr": 0.3, "lr_decay": 0.1}, id="adagrad-lr_decay"),
    pytest.param("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.4}, id="adagrad-initial"),
    pytest.param("Adagrad", {"lr": 0.1, "weight_decay": 0.2, "eps": 0.1}, id="adagrad-decay"),
    pytest.param(
        "Adagrad",
        {"lr": 0.2, "lr_decay": 0.02, "weight_decay": 0.1, "initial_accumulator_value": 0.1,
         "eps": 1e-4, "maximize": True},
        id="adagrad-all",
    ),
]  # fmt: skip

# The same with the penalty that torch has no option for.
L1_CASES = [
    pytest.param("SGD", {"lr": 0.1, "momentum": 0.9}, id="sgd"),
    pytest.param("SGD", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}, id="sgd-maximize"),
    pytest.param("Adam", {"lr": 0.05, "amsgrad": True, "weight_decay": 0.1}, id="adam"),
    pytest.param("AdamW", {"lr": 0.05, "weight_decay": 0.2}, id="adamw"),
    pytest.param("RMSprop", {"momentum": 0.5, "eps": 1e-3}, id="rmsprop"),
    pytest.param(
        "RMSprop", {"alpha": 0.9, "centered": True, "eps": 1e-2, "maximize": True}, id="centered"
    ),
    pytest.param("Adagrad", {"lr": 0.1, "weight_decay": 0.1}, id="adagrad"),
]
# For comparisons without torch.
OWN_CASES = [
    *CASES,
    *(
        pytest.param(case.values[0], {**case.values[1], "l1_decay": 0.03}, id=f"{case.id}-l1")  # type: ignore[dict-item]
        for case in L1_CASES
    ),
]
NAMES = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")

SHAPES = [(5,), (33, 7), (), (1,), (0, 3), (1031,)]
# Errors are measured against the largest weight so far: one that crosses zero, the largest of a
# tensor of one element, has no relative error.
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


class Pair:
    """The same weights under both libraries, ours on a device, fed the same gradients."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: str, device: Device):
        rng = np.random.default_rng(7)
        values = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
        self.rng, self.dtype, self.device = rng, dtype, device
        self.ours = [tg.nn.Parameter(device.put(v)) for v in values]
        self.theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
        self.largest = [float(np.abs(v).max(initial=1e-3)) for v in values]

    def optimisers(self, name: str, **options: Any) -> tuple[Any, Any]:
        ours = getattr(tg.optim, name)(self.ours, **options)
        return ours, getattr(torch.optim, name)(self.theirs, **options)

    def gradients(self, present: Sequence[bool] | None = None) -> None:
        present = [True] * len(self.ours) if present is None else present
        for here, p, q in zip(present, self.ours, self.theirs, strict=True):
            if not here:
                p.grad, q.grad = None, None
                continue
            g = np.asarray(self.rng.standard_normal(p.shape) * 10.0 ** self.rng.integers(-3, 2))
            p.grad = g.astype(self.dtype)
            q.grad = torch.tensor(g.astype(self.dtype))

    def check(self, what: str = "weights") -> None:
        for i, (p, q) in enumerate(zip(self.ours, self.theirs, strict=True)):
            want = q.detach().numpy()
            self.largest[i] = max(self.largest[i], float(np.abs(want).max(initial=0)))
            error = np.abs(host(p.data) - want).max(initial=0) / self.largest[i]
            assert error <= TOLERANCE[self.dtype], f"{what}: parameter {i} is off by {error:.3g}"
