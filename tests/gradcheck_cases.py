# SPDX-License-Identifier: MIT
"""Calls of every op for gradcheck, away from the kinks of the functions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from row_loss_cases import DEFAULT_WRT as ROW_LOSSES
from tilegrad import reference

Array = NDArray[Any]
REDUCTIONS = ("none", "mean", "sum")
DTYPES = (np.int8, np.uint8, np.int64)


def normal(*shape: int, seed: int = 0) -> Array:
    """Draw values away from 0, where relu and its relatives have a kink."""
    values = np.random.default_rng([seed, *shape]).normal(size=shape)
    return np.asarray(values + np.copysign(0.05, values))


def cases() -> Iterator[Any]:
    def case(name: str, *inputs: Any, label: str = "", **options: Any) -> Any:
        shown = ",".join(f"{k}={v}" for k, v in options.items() if not isinstance(v, np.ndarray))
        return pytest.param(name, inputs, options, id="-".join(filter(None, [name, label, shown])))

    x = normal(3, 4)
    for name in (
        "identity", "sigmoid", "tanh", "relu", "selu", "silu", "softplus", "mish", "hardtanh",
        "relu6", "hardsigmoid", "hardswish",
    ):  # fmt: skip
        yield case(name, x)
        yield case(name, normal(2, 3, 2).T, label="strided")
    for slope in (0.01, 0.5, -0.5):
        yield case("leaky_relu", x, negative_slope=slope)
    for alpha in (1.0, 0.3, -0.3):
        yield case("elu", x, alpha=alpha)
    yield case("softplus", x, beta=2.0, threshold=1.0)
    yield case("hardtanh", x, min_val=-0.5, max_val=0.25)
    for slopes in (np.array([0.25]), np.array([0.25, -0.5, 1.5, 0.0])):
        yield case("prelu", x, slopes, label=f"{slopes.size}")
    yield case("prelu", normal(2, 3, 2), np.array([0.25, -0.5, 1.5]), label="channels")
    for approximate in ("none", "tanh"):
        yield case("gelu", x, approximate=approximate)
    for name in ("softmax", "log_softmax"):
        for dim in (0, 1, -1):
            yield case(name, normal(2, 3, 4), dim=dim)
        yield case(name, np.array(0.7), label="0d", dim=0)

    yield case("matmul", x, normal(4, 2))
    for ta in (False, True):
        for tb in (False, True):
            a, b = normal(3, 2) if ta else normal(2, 3), normal(4, 3) if tb else normal(3, 4)
            yield case("matmul", a, b, transpose_a=ta, transpose_b=tb)
    yield case("matmul", normal(4), normal(4, seed=1), label="dot")
    yield case("matmul", x, normal(4), label="vector")
    yield case("matmul", normal(3), normal(2, 3, 2), label="row")
    yield case("matmul", normal(2, 1, 2, 3), normal(3, 3, 2), label="batch")

    weight, bias = normal(5, 4), normal(5)
    for activation in (None, *reference.ACTIVATIONS):
        yield case("linear", x, weight, bias, activation=activation)
    yield case("linear", x, weight, label="without bias", activation="gelu")
    yield case("linear", normal(2, 2, 4), weight, bias, label="batch", activation="tanh")
    yield case("linear", x, weight, bias, activation="elu", activation_args={"alpha": -0.5})
    yield case("fused_mlp", x, weight, normal(2, 5), bias, normal(2))

    index = np.array([1, 3, 0])
    shares = np.random.default_rng(3).dirichlet(np.ones(4), size=3)
    class_weight = np.array([0.5, 2.0, 1.0, 0.25])
    away, positive, sign = normal(3, 4, seed=1), abs(x) + 0.1, np.sign(normal(3, 4, seed=2))
    share, other_share = 1 / (1 + np.exp(x)), 1 / (1 + np.exp(away))
    for reduction in REDUCTIONS:
        for name in ("l1_loss", "smooth_l1_loss", "huber_loss"):
            yield case(name, x, away, reduction=reduction)
        yield case("binary_cross_entropy", share, other_share, reduction=reduction, weight=abs(x))
        for p in (None, np.array([0.5, 2.0, 1.0, 3.0])):
            options = {"reduction": reduction, "pos_weight": p}
            yield case("binary_cross_entropy_with_logits", x, share, **options)
        for full in (False, True):
            yield case("poisson_nll_loss", x, positive, full=full, reduction=reduction)
            options = {"log_input": False, "full": full, "reduction": reduction}
            yield case("poisson_nll_loss", positive, abs(away) + 0.1, **options)
            yield case("gaussian_nll_loss", x, away, positive, full=full, reduction=reduction)
        yield case("kl_div", x, positive, reduction=reduction)
        yield case("kl_div", x, away, log_target=True, reduction=reduction)
        yield case("margin_ranking_loss", x, away, sign, reduction=reduction)
        yield case("hinge_embedding_loss", x, sign, reduction=reduction)
        yield case("soft_margin_loss", x, sign, reduction=reduction)
        yield case("mse_loss", x, away, reduction=reduction)
        yield case("mse_loss", x, normal(3, 4, seed=1), reduction=reduction, weight=abs(x))
        yield case("mse_loss", x, normal(4), label="broadcast", reduction=reduction, wrt="input")
        for smoothing in (0.0, 0.2):
            for w in (None, class_weight):
                options = {"weight": w, "reduction": reduction, "label_smoothing": smoothing}
                label = "weighted" if w is not None else ""
                yield case("cross_entropy", x, index, label=label, **options)
                yield case("cross_entropy", x, shares, label=f"{label} shares", **options)
        yield case("cross_entropy", x, index, ignore_index=3, reduction=reduction)
        images = normal(2, 3, 2, 2), np.array([[[0, 2], [1, 1]], [[2, 2], [0, 1]]])
        yield case("cross_entropy", *images, label="images", reduction=reduction)
    yield case("cross_entropy", normal(4), np.array(2), label="one row")
    for dtype in DTYPES:
        yield case("cross_entropy", x, index.astype(dtype), label=np.dtype(dtype).name)

        yield case("nll_loss", x, index, weight=class_weight, reduction=reduction)
        yield case("nll_loss", *images, label="images", ignore_index=2, reduction=reduction)
        for p in (1, 2):
            yield case("multi_margin_loss", x, index, p=p, weight=class_weight, reduction=reduction)
        lists = np.array([[1, -1, 0, 0], [3, 0, 2, -1], [-1, 1, 1, 1]])
        yield case("multilabel_margin_loss", x, lists, reduction=reduction)
        both: Any = {"wrt": ("input", "target"), "reduction": reduction}
        yield case("multilabel_soft_margin_loss", x, shares, weight=class_weight, **both)
        y, z = normal(3, 4, seed=1), normal(3, 4, seed=2)
        for p in (2.0, 1.0, math.inf, 0.5, 3.0):
            more: Any = {"p": p, "swap": p != 1, "margin": 2.0, "reduction": reduction}
            yield case("triplet_margin_loss", x, y, z, **more)
        signs = np.array([1, -1, -1])
        yield case("cosine_embedding_loss", x, y, signs, margin=-0.9, reduction=reduction)
    sequences = normal(6, 2, 4), np.array([[1, 1, 3], [2, 3, 0]]), (6, 4), (3, 2)
    for reduction in REDUCTIONS:
        yield case("ctc_loss", *sequences, 0, reduction, label=reduction)
    one_sample = normal(5, 3), np.array([2, 1]), np.array([5]), np.array([2]), 1
    yield case("ctc_loss", *one_sample, label="ends in the blank")

    for p in (0.0, 0.25, 1.0):
        yield case("dropout", normal(5, 7), p=p, seed=11, offset=5)
    yield case("dropout", x, p=0.5, training=False, seed=11, offset=5)


def default_wrt(name: str, inputs: tuple[Any, ...]) -> tuple[str, ...]:
    if name == "matmul":
        return ("a", "b")
    if name == "prelu":
        return ("input", "weight")
    if name == "linear":
        return ("input", "weight", "bias")[: len(inputs)]
    if name == "fused_mlp":
        return ("input", "weight0", "weight1", "bias0", "bias1")
    if name in ROW_LOSSES:
        return ROW_LOSSES[name]
    if name == "margin_ranking_loss":
        return ("input1", "input2", "target")
    if name == "gaussian_nll_loss":
        return ("input", "target", "var")
    one = name.startswith(("hinge", "soft_margin", "cross_entropy", "ctc"))
    loss = name.endswith(("_loss", "entropy", "logits", "kl_div"))
    return ("input", "target") if loss and not one else ("input",)
