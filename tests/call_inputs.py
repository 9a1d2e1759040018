# SPDX-License-Identifier: MIT
"""A legal call of every public op, for the tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Call = dict[str, Any]
ELEMENTWISE = (
    "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu",
    "softplus", "mish", "hardtanh", "relu6",
    "hardsigmoid", "hardswish",
)  # fmt: skip
# Losses of one element at a time that take an input and a target.
ELEMENTWISE_LOSSES = (
    "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "poisson_nll_loss", "kl_div", "hinge_embedding_loss",
    "soft_margin_loss",
)  # fmt: skip
# What the beginnings of names have in common that take no floats of 16 bits.
NOT_16_BIT = (
    *ELEMENTWISE_LOSSES,
    "gaussian_nll_loss",
    "margin_ranking_loss",
    "ctc_loss",
    "dropout",
    "nll_loss",
    "multi_margin_loss",
    "multilabel_",
    "triplet_margin_loss",
    "cosine_embedding_loss",
)


def ramp(*shape: int, start: float = -1.0) -> Any:
    """Return float64 numbers from start to one."""
    return np.linspace(start, 1, int(np.prod(shape))).reshape(shape)


def each_array(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a value of a call with the function applied to its array, or to a list's arrays."""
    if isinstance(value, list):
        return [each_array(function, v) for v in value]
    return function(value) if isinstance(value, np.ndarray) else value


def legal_calls(
    fill: Callable[..., Any] = ramp, rows: int = 4, inner: int = 3, columns: int = 6
) -> dict[str, Call]:
    """Return a legal call of every public op; each result has the form of one (rows, columns).

    But for ctc_loss, which has `inner` samples of `rows` times and `columns` classes.

    `fill` makes an operand of a shape; `start=0.5` asks it for positive ones.
    """
    calls: dict[str, Call] = {}

    def elementwise(name: str, **more: Any) -> None:
        calls[name] = {"input": fill(rows, columns), **more}
        calls[f"{name}_backward"] = {"grad_output": fill(rows, columns), **calls[name]}

    for name in ELEMENTWISE:
        elementwise(name)
    for name in ("softmax", "log_softmax"):
        elementwise(name, dim=1)
    elementwise("dropout", p=0.5, seed=1, offset=0)
    elementwise("prelu", weight=fill(columns))
    calls["prelu_backward"]["wrt"] = "input"
    product = {"a": fill(rows, inner), "b": fill(inner, columns)}
    calls["matmul"] = product
    calls["matmul_backward"] = {"grad_output": fill(rows, columns), **product, "wrt": "a"}
    layer = {"input": fill(rows, inner), "weight": fill(columns, inner), "bias": fill(columns)}
    calls["linear"] = layer
    calls["linear_backward"] = {"grad_output": fill(rows, columns), **layer}
    network = {
        "input": fill(rows, inner),
        "weights": [fill(columns, inner), fill(columns, columns)],
        "biases": [fill(columns), fill(columns, start=0.5)],
    }
    calls["fused_mlp"] = network
    calls["fused_mlp_backward"] = {"grad_output": fill(rows, columns), **network}

    def loss(name: str, wrt: str = "input", **operands: Any) -> None:
        calls[name] = {**operands, "reduction": "none"}
        calls[f"{name}_value_and_grad"] = {**operands, "wrt": wrt}
        calls[f"{name}_backward"] = {
            "grad_output": fill(rows, columns), **calls[name], "wrt": wrt,
        }  # fmt: skip

    for name in ELEMENTWISE_LOSSES:
        pair = {"input": fill(rows, columns), "target": fill(rows, columns)}
        if name == "binary_cross_entropy":
            pair = {key: 1 / (1 + fill(rows, columns, start=0.5)) for key in pair}
        if name == "kl_div":
            pair["target"] = fill(rows, columns, start=0.5)
        if name in ("mse_loss", "l1_loss", "huber_loss") or name.startswith("binary"):
            pair["weight"] = fill(rows, columns, start=0.5)
        loss(name, **pair)
    normal = {"input": fill(rows, columns), "target": fill(rows, columns)}
    loss("gaussian_nll_loss", **normal, var=fill(rows, columns, start=0.5))
    scores = {"input1": fill(rows, columns), "input2": fill(rows, columns)}
    loss("margin_ranking_loss", "input1", **scores, target=fill(rows, columns))
    classes = {
        "input": fill(rows, inner, columns),
        "target": np.zeros((rows, columns), np.int64),
        "weight": fill(inner, start=0.5),
    }
    calls["cross_entropy"] = {**classes, "reduction": "none"}
    calls["cross_entropy_value_and_grad"] = dict(classes)
    calls["cross_entropy_backward"] = {
        "grad_output": fill(rows, columns), **classes, "reduction": "none",
    }  # fmt: skip
    counts = tuple(1 + n % max(1, rows // 2) for n in range(inner))  # labels of each sample
    labels = 1 + np.arange(sum(counts)) % max(columns - 1, 1)
    sequences = {
        "log_probs": fill(rows, inner, columns),
        "targets": np.asarray(labels % columns),
        "input_lengths": (rows,) * inner,
        "target_lengths": counts,
    }
    calls["ctc_loss"] = {**sequences, "reduction": "none"}
    calls["ctc_loss_value_and_grad"] = dict(sequences)
    calls["ctc_loss_backward"] = {"grad_output": fill(inner), **calls["ctc_loss"]}
    calls |= row_loss_calls(fill, rows, inner, columns)
    return calls


def row_loss_calls(
    fill: Callable[..., Any], rows: int, inner: int, columns: int
) -> dict[str, Call]:
    """Return the calls of the losses with one value a row: of most the loss is (rows,)."""
    calls: dict[str, Call] = {}

    def loss(name: str, result: tuple[int, ...] = (rows,), **operands: Any) -> None:
        calls[name] = {**operands, "reduction": "none"}
        calls[f"{name}_value_and_grad"] = dict(operands)
        calls[f"{name}_backward"] = {"grad_output": fill(*result), **calls[name]}

    x, weight = fill(rows, columns), fill(columns, start=0.5)
    classes = np.arange(rows, dtype=np.int32) % columns
    images = {"input": fill(rows, inner, columns), "target": np.zeros((rows, columns), np.int64)}
    loss("nll_loss", (rows, columns), **images, weight=fill(inner, start=0.5))
    loss("multi_margin_loss", input=x, target=classes, weight=weight)
    lists = np.tile(np.where(np.arange(columns) < 2, np.arange(columns), -1), (rows, 1))
    loss("multilabel_margin_loss", input=x, target=lists)
    loss("multilabel_soft_margin_loss", input=x, target=x, weight=weight)
    loss("triplet_margin_loss", anchor=x, positive=fill(rows, columns, start=0.5), negative=-x)
    signs = np.where(np.arange(rows) % 2 == 0, 1, -1)
    loss("cosine_embedding_loss", input1=x, input2=fill(rows, columns, start=0.5), target=signs)
    for name in ("triplet_margin_loss_backward", "cosine_embedding_loss_backward"):
        calls[name]["wrt"] = "anchor" if name.startswith("triplet") else "input1"
    return calls
