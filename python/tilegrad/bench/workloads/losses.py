# SPDX-License-Identifier: MIT
"""Losses but cross-entropy: the mean and its gradient, one of each kind of loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, random

_ELEMENTS, _ROWS, _COLS = 100_000, 1024, 1000
Operands = Callable[[], list[Array]]


def _numbers(*names: str) -> list[Array]:
    return [random(name, _ELEMENTS) for name in names]


def _rows(*names: str) -> list[Array]:
    return [random(name, _ROWS, _COLS) for name in names]


def _signs(count: int) -> Array:
    return np.where(random("signs", count) < 0, -1, 1).astype(np.float32)


def _shares(x: Array) -> Array:
    return (1 / (1 + np.exp(-x))).astype(np.float32)


def _classes() -> Array:
    return np.random.default_rng(0).integers(0, _COLS, _ROWS)


def _log_shares() -> Array:
    return np.asarray(tg.log_softmax(random("x", _ROWS, _COLS), 1))


# name: the operands, how many of them, from the first on, have a gradient
_LOSSES: dict[str, tuple[Operands, int]] = {
    "mse_loss": (lambda: _numbers("x", "t"), 1),
    "huber_loss": (lambda: _numbers("x", "t"), 1),
    "binary_cross_entropy_with_logits": (
        lambda: [random("x", _ELEMENTS), _shares(random("t", _ELEMENTS))], 1),
    "kl_div": (lambda: [random("x", _ELEMENTS), _shares(random("t", _ELEMENTS))], 1),
    "poisson_nll_loss": (lambda: [random("x", _ELEMENTS), _shares(random("t", _ELEMENTS))], 1),
    "soft_margin_loss": (lambda: [random("x", _ELEMENTS), _signs(_ELEMENTS)], 1),
    "triplet_margin_loss": (lambda: _rows("x", "y", "z"), 3),
    "multi_margin_loss": (lambda: [random("x", _ROWS, _COLS), _classes()], 1),
    "multilabel_soft_margin_loss": (
        lambda: [random("x", _ROWS, _COLS), _shares(random("t", _ROWS, _COLS))], 1),
    "nll_loss": (lambda: [_log_shares(), _classes()], 1),
}  # fmt: skip
_SHORT = {"binary_cross_entropy_with_logits": "bce_with_logits",
          "multilabel_soft_margin_loss": "multilabel_soft_margin"}  # fmt: skip
_OF_ROWS = ("triplet_margin_loss", "multi_margin_loss", "multilabel_soft_margin_loss", "nll_loss")
_CTC = (100, 32, 40, 20)  # steps, sequences, classes, labels of a sequence
_CTC_TOLERANCE = 1e-3  # torch sums its paths in float32
_OPTIONS = {"kl_div": {"reduction": "sum"}}  # torch warns of its mean
_OPERATIONS = 6  # an element, about


def cases() -> list[Case]:
    """Return the cases, loss and gradient together."""
    result = []
    for name, (_, gradients) in _LOSSES.items():
        size = _ROWS * _COLS if name in _OF_ROWS else _ELEMENTS
        arrays = 2 * gradients if name != "nll_loss" else 1  # which reads one element a row
        arrays += name not in ("triplet_margin_loss", "multi_margin_loss", "nll_loss")
        title = f"{_SHORT.get(name, name)} {size}"
        result.append(Case("losses", title, FLOAT * arrays * size, _OPERATIONS * size,
                           partial(_build, name), name == "mse_loss"))  # fmt: skip
    steps, sequences, classes, labels = _CTC
    size = steps * sequences * classes
    # alpha and beta: three additions of logarithms for each label, blank and step
    flops = 2 * 3 * _OPERATIONS * steps * sequences * (2 * labels + 1)
    result.append(Case("losses", f"ctc_loss {size}", FLOAT * 2 * size, flops, _build_ctc))
    return result


def _build(name: str) -> Contest:
    make, gradients = _LOSSES[name]
    operands = make()
    call = partial(getattr(tg, f"{name}_value_and_grad"), **_OPTIONS.get(name, {}))
    return contest(
        lambda: _flat(*call(*operands)),
        _torch(name, operands, gradients),
        partial(_expected, name, operands),
    )


def _build_ctc() -> Contest:
    steps, sequences, classes, labels = _CTC
    x = np.asarray(tg.log_softmax(random("ctc", steps, sequences, classes), 2))
    targets = np.random.default_rng(0).integers(1, classes, (sequences, labels))
    lengths = np.full(sequences, steps), np.full(sequences, labels)
    operands = [x, targets, *lengths]
    return contest(
        lambda: _flat(*tg.ctc_loss_value_and_grad(x, targets, *lengths)),
        _torch("ctc_loss", operands, 1),
        partial(_expected, "ctc_loss", operands),
        _CTC_TOLERANCE,
    )


def _flat(loss: Any, gradient: Any) -> tuple[Any, ...]:
    return (loss, *gradient) if isinstance(gradient, tuple) else (loss, gradient)


def _torch(name: str, operands: list[Array], gradients: int) -> dict[str, Call]:
    if (pt := torch()) is None:
        return {}
    given = [pt.from_numpy(operand) for operand in operands]
    leaves = [one.requires_grad_() for one in given[:gradients]]
    loss_of = partial(getattr(pt.nn.functional, name), **_OPTIONS.get(name, {}))

    def autograd() -> Any:
        loss = loss_of(*given)
        return (loss.detach(), *pt.autograd.grad(loss, leaves))

    return {"torch": autograd}


def _expected(name: str, operands: list[Array]) -> Any:
    wide = [one.astype(np.float64) if one.dtype.kind == "f" else one for one in operands]
    options = _OPTIONS.get(name, {})
    gradient = getattr(reference, f"{name}_backward")(1.0, *wide, **options)
    return _flat(getattr(reference, name)(*wide, **options), gradient)
