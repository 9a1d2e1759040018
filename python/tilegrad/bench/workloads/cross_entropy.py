# SPDX-License-Identifier: MIT
"""Cross-entropy: the mean loss and its gradient, as a training step needs them."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, empty, jitted, random, tensors

_SHAPES = ((128, 10), (1024, 1000), (4096, 32_000))
_QUICK = _SHAPES[:2]
_NUMPY_LARGEST = 10_000_000  # elements; beyond it NumPy takes seconds
_COMPILED = (4096, 32_000)  # for torch.compile, which takes long to compile
# What holds torch.compile (2.13) to an instruction set: left to ATEN_CPU_CAPABILITY=avx2 alone, its
# loss is off by 6 %.
_SIMD_BITS = {"generic": 1, "avx2": 256}
_ROWS_AT_ONCE = 256  # of the expected result: float64 temporaries of all rows would be gigabytes


def cases() -> list[Case]:
    """Return the cases, loss and gradient together."""
    return [
        Case("cross_entropy", f"{rows}x{classes} value and grad",
             FLOAT * 2 * rows * classes + 8 * rows, 6 * rows * classes,
             partial(build, rows, classes), (rows, classes) in _QUICK)
        for rows, classes in _SHAPES
    ]  # fmt: skip


def build(rows: int, classes: int) -> Contest:
    """Return the contest of one shape; the tiny calls use it too."""
    x = random("logits", rows, classes)
    target = np.random.default_rng(0).integers(0, classes, rows)
    peers: dict[str, Call] = {}
    left_out: dict[str, str] = {}
    if x.size <= _NUMPY_LARGEST:
        scratch, index = empty(rows, classes), np.arange(rows)
        peers["numpy"] = lambda: _numpy(x, target, scratch, index)
    if (pt := torch()) is not None:
        tx, tt = tensors(x, target)
        leaf = pt.from_numpy(x).requires_grad_()
        loss_of = pt.nn.functional.cross_entropy

        def autograd() -> Any:
            loss = loss_of(leaf, tt)
            return (loss, *pt.autograd.grad(loss, leaf))

        every = pt.arange(rows)

        def by_hand() -> Any:
            logs = pt.log_softmax(tx, 1)
            loss = pt.nn.functional.nll_loss(logs, tt)
            gradient = logs.exp_()
            gradient[every, tt] -= 1
            return loss, gradient.div_(rows)

        peers |= {"torch autograd": autograd, "torch by hand": by_hand}
        if (rows, classes) == _COMPILED:
            held = _SIMD_BITS.get(os.environ.get("TILEGRAD_CPU", ""))
            fused = pt.compile(loss_of, options={"cpp.simdlen": held} if held else None)

            def compiled() -> Any:
                loss = fused(leaf, tt)
                return (loss, *pt.autograd.grad(loss, leaf))

            try:
                compiled()
                peers["torch compile"] = compiled
            except Exception as error:  # of the compilers below it: there are many kinds
                reason = str(error).strip() or type(error).__name__
                left_out["torch compile"] = reason.splitlines()[0]
    if jax() is not None:
        peers["jax"] = jitted(jax().value_and_grad(_jax_loss), x, target)
    return contest(
        lambda: tg.cross_entropy_value_and_grad(x, target),
        peers,
        lambda: _expected(x, target),
        left_out=left_out,
    )


def _jax_loss(x: Any, target: Any) -> Any:
    """Return the mean loss in the way that jax compiles best, of four that were tried."""
    picked = jax().numpy.take_along_axis(x, target[:, None], 1)[:, 0]
    return jax().numpy.mean(jax().nn.logsumexp(x, 1) - picked)


def _numpy(x: Array, target: Array, out: Array, index: Array) -> Any:
    np.subtract(x, x.max(1, keepdims=True), out=out)
    picked = out[index, target]
    np.exp(out, out=out)
    sums = out.sum(1, keepdims=True)
    loss = np.mean(np.log(sums[:, 0]) - picked)
    out /= sums
    out[index, target] -= 1
    out /= len(x)
    return loss, out


def _expected(x: Array, target: Array) -> Any:
    loss, gradient = 0.0, np.empty_like(x)
    for i in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(i, i + _ROWS_AT_ONCE)
        part, slope = reference.cross_entropy_value_and_grad(x[rows], target[rows], reduction="sum")
        loss += float(part) / len(x)
        gradient[rows] = slope / len(x)
    return loss, gradient
