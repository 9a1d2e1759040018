# SPDX-License-Identifier: MIT
"""Optimisers and the options that they are tested with."""

from __future__ import annotations

import pytest

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
]
