# SPDX-License-Identifier: MIT
"""Softmax and log_softmax along the last axis and along the first."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.cases import SOFTMAX, SoftmaxCase
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, empty, jitted, random, tensors

_LARGEST = 10_000_000  # elements; larger ones are in cross_entropy
_QUICK = {"softmax 1024x1000@1 forward", "log_softmax 128x10@1 forward"}
_FLOPS = {"forward": 5, "backward": 4}  # an element: maximum, subtract, exp, add, divide


def cases() -> list[Case]:
    """Return the cases; `@` names the axis."""
    result = []
    for op in ("softmax", "log_softmax"):
        for shape in SOFTMAX:
            size = int(np.prod(shape.shape))
            if not shape.timed or size > _LARGEST:
                continue
            for way, build, arrays in (("forward", _forward, 2), ("backward", _backward, 3)):
                name = f"{op} {shape} {way}"
                result.append(
                    Case("softmax", name, arrays * FLOAT * size, _FLOPS[way] * size,
                         partial(build, op, shape), name in _QUICK)
                )  # fmt: skip
    return result


def _numpy(op: str, x: Array, dim: int, out: Array) -> Any:
    """Do what a NumPy user writes, without more temporaries than needed."""
    np.subtract(x, x.max(dim, keepdims=True), out=out)
    if op == "log_softmax":
        out -= np.log(np.exp(out).sum(dim, keepdims=True))
        return out
    np.exp(out, out=out)
    out /= out.sum(dim, keepdims=True)
    return out


def _forward(op: str, shape: SoftmaxCase) -> Contest:
    x = random("x", *shape.shape)
    out, out_numpy, out_torch = (empty(*shape.shape) for _ in range(3))
    dim, ours = shape.dim, getattr(tg, op)
    peers: dict[str, Call] = {"numpy": lambda: _numpy(op, x, dim, out_numpy)}
    if (pt := torch()) is not None:
        tx, tout = tensors(x, out_torch)
        usual = getattr(pt, op)
        kernel = getattr(pt.ops.aten, f"_{op}").out
        peers["torch"] = lambda: usual(tx, dim)
        peers["torch out="] = lambda: kernel(tx, dim, False, out=tout)
    if jax() is not None:
        peers["jax"] = jitted(partial(getattr(jax().nn, op), axis=dim), x)
    return contest(lambda: ours(x, dim, out=out), peers, lambda: getattr(reference, op)(x, dim))


def _backward(op: str, shape: SoftmaxCase) -> Contest:
    x, dy = random("x", *shape.shape), random("dy", *shape.shape)
    dx, dx_torch = empty(*shape.shape), empty(*shape.shape)
    dim, ours, y = shape.dim, getattr(tg, f"{op}_backward"), getattr(tg, op)(x, shape.dim)
    peers: dict[str, Call] = {}
    if (pt := torch()) is not None:
        tdy, ty, tdx = tensors(dy, y, dx_torch)
        packet = getattr(pt.ops.aten, f"_{op}_backward_data")
        usual, kernel, dtype = packet.default, packet.out, pt.float32
        target = {"grad_input" if op == "softmax" else "out": tdx}
        peers["torch"] = lambda: usual(tdy, ty, dim, dtype)
        peers["torch out="] = lambda: kernel(tdy, ty, dim, dtype, **target)
    if jax() is not None:
        peers["jax"] = jitted(partial(_jax_backward, op, dim), dy, y)
    return contest(
        lambda: ours(dy, x, dim, output=y, out=dx),
        peers,
        lambda: getattr(reference, f"{op}_backward")(dy, x, dim),
    )


def _jax_backward(op: str, dim: int, dy: Any, y: Any) -> Any:
    if op == "log_softmax":
        return dy - jax().numpy.exp(y) * dy.sum(dim, keepdims=True)
    return y * (dy - (dy * y).sum(dim, keepdims=True))
