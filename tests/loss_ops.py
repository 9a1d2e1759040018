# SPDX-License-Identifier: MIT
"""The elementwise losses under test, in one table, and how exact each must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import Array, Device, frozen

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Array]


def normal(rng: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(rng.standard_normal(shape) * 3)


def share(rng: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(rng.uniform(0.01, 0.99, shape))


def positive(rng: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(np.exp(rng.normal(0, 1.5, shape)))


def sign(rng: np.random.Generator, shape: Shape) -> Array:
    return np.asarray(rng.choice([-1.0, 1.0], shape))


def softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


@dataclass(frozen=True)
class LossOp:
    """`scale` bounds the terms that the loss and its gradients add, for operands in float64."""

    name: str
    operands: dict[str, Draw]
    wrt: tuple[str, ...]  # what torch differentiates
    scale: Callable[..., Array]
    options: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    broadcasts: bool = True

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    def draw(self, rng: np.random.Generator, shapes: Sequence[Shape], dtype: Any) -> list[Array]:
        return [
            frozen(draw(rng, shape).astype(dtype))
            for draw, shape in zip(self.operands.values(), shapes, strict=False)
        ]

    def call(self, suffix: str, *arguments: Any, **more: Any) -> Any:
        return getattr(tg, self.name + suffix)(*arguments, **{**self.options, **more})

    def torch_answer(
        self, operands: Sequence[Array], grad_output: Any, **more: Any
    ) -> tuple[Array, list[Array]]:
        """Return the loss in float64 and the gradients of self.wrt."""
        leaves = [
            torch.tensor(x, dtype=torch.float64, requires_grad=name in self.wrt)
            for name, x in zip(self.operands, operands, strict=True)
        ]
        there = {
            key: torch.tensor(value, dtype=torch.float64)
            if isinstance(value, np.ndarray)
            else value
            for key, value in {**self.options, **more}.items()
        }
        expanded = leaves
        if "var" not in self.operands:  # soft_margin_loss broadcasts the target only
            full = torch.broadcast_shapes(*(leaf.shape for leaf in leaves))
            expanded = [leaf.expand(full) for leaf in leaves]
        loss = getattr(F, self.name)(*expanded, **there)
        loss.backward(
            torch.tensor(np.asarray(grad_output), dtype=torch.float64).reshape(loss.shape)
        )
        return loss.detach().numpy(), [leaf.grad.numpy() for leaf in leaves if leaf.requires_grad]

    def put(self, device: Device, operands: Sequence[Array]) -> list[Any]:
        return [device.put(x) for x in operands]


BOTH = ("input", "target")
PAIR = {"input": normal, "target": normal}


def _difference(x: Array, t: Array) -> Array:
    return np.abs(x - t) + (x - t) ** 2 + 1


def _poisson(x: Array, t: Array) -> Array:
    return (
        np.exp(x) + 1 / x + np.abs(t * x) + t + (t + 1) * np.abs(np.log(x)) + t * np.abs(np.log(t))
    )


def _counts(x: Array, t: Array) -> Array:
    return np.exp(x) + np.abs(t * x) + np.abs(x) + t + t * np.abs(np.log(t)) + 1


def _gaussian(x: Array, t: Array, var: Array) -> Array:
    d = x - t
    return np.abs(np.log(var)) + d**2 / var + np.abs(d) / var + 1 / var + (d / var) ** 2 + 1


def _logits(x: Array, t: Array) -> Array:
    return 4 * (softplus(np.abs(x)) + np.abs(x))


OPS = (
    LossOp("mse_loss", PAIR, BOTH, _difference, module="MSELoss"),
    LossOp("l1_loss", PAIR, BOTH, _difference, module="L1Loss"),
    *(
        LossOp("smooth_l1_loss", PAIR, BOTH, _difference, {"beta": beta}, "SmoothL1Loss")
        for beta in (1.0, 0.3, 4.0, 0.0)
    ),
    *(
        LossOp(
            "huber_loss", PAIR, BOTH, lambda x, t: 4 * _difference(x, t), {"delta": d}, "HuberLoss"
        )
        for d in (1.0, 0.3, 4.0)
    ),
    LossOp(
        "binary_cross_entropy",
        {"input": share, "target": share},
        BOTH,
        lambda x, t: 1 / (x * (1 - x)) - np.log(x) - np.log1p(-x),
        module="BCELoss",
        broadcasts=False,
    ),
    LossOp(
        "binary_cross_entropy_with_logits",
        {"input": normal, "target": share},
        BOTH,
        _logits,
        module="BCEWithLogitsLoss",
        broadcasts=False,
    ),
    LossOp(
        "poisson_nll_loss",
        {"input": normal, "target": positive},
        BOTH,
        _counts,
        {},
        "PoissonNLLLoss",
    ),
    LossOp(
        "poisson_nll_loss",
        {"input": normal, "target": positive},
        BOTH,
        _counts,
        {"full": True},
        "PoissonNLLLoss",
    ),
    *(
        LossOp(
            "poisson_nll_loss",
            {"input": positive, "target": positive},
            BOTH,
            _poisson,
            {"log_input": False, "full": full, "eps": eps},
            "PoissonNLLLoss",
        )
        for full, eps in ((False, 1e-8), (True, 0.5))
    ),
    *(
        LossOp(
            "gaussian_nll_loss",
            {"input": normal, "target": normal, "var": positive},
            (*BOTH, "var"),
            _gaussian,
            options,
            "GaussianNLLLoss",
        )
        for options in ({}, {"full": True, "eps": 0.25})
    ),
    LossOp(
        "kl_div",
        {"input": normal, "target": positive},
        BOTH,
        lambda x, t: (t + 1) * (np.abs(x) + np.abs(np.log(t)) + 1),
        module="KLDivLoss",
    ),
    LossOp(
        "kl_div",
        PAIR,
        BOTH,
        lambda x, t: np.exp(t) * (np.abs(t) + np.abs(x) + 1),
        {"log_target": True},
        "KLDivLoss",
    ),
    *(
        LossOp(
            "margin_ranking_loss",
            {"input1": normal, "input2": normal, "target": sign},
            ("input1", "input2", "target"),
            lambda a, b, t: np.abs(a) + np.abs(b) + 2,
            {"margin": margin},
            "MarginRankingLoss",
        )
        for margin in (0.0, 1.5)
    ),
    *(
        LossOp(
            "hinge_embedding_loss",
            {"input": normal, "target": draw},
            ("input",),
            lambda x, t: np.abs(x) + 3,
            {"margin": margin},
            "HingeEmbeddingLoss",
        )
        for draw, margin in ((sign, 1.0), (sign, 2.5), (normal, 1.0))
    ),
    LossOp(
        "soft_margin_loss",
        {"input": normal, "target": sign},
        ("input",),
        lambda x, t: softplus(np.abs(t * x)) + np.abs(t),
        module="SoftMarginLoss",
    ),
)
every_loss = pytest.mark.parametrize("op", OPS, ids=str)
# torch warns where it broadcasts, and of the name of kl_div's mean.
quiet = (
    pytest.mark.filterwarnings("ignore:Using a target size"),
    pytest.mark.filterwarnings("ignore:reduction"),
)
