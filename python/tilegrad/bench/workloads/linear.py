# SPDX-License-Identifier: MIT
"""Dense layers of the multilayer perceptron: product, bias and relu; dx, dw and db backward.

Of the last layer, of ten classes, dx and dweight are timed by themselves too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.cases import LINEAR, LinearCase
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, contest, empty, jitted, random, tensors

_QUICK = {"32x784->512 relu forward", "128x512->10 backward"}


def cases() -> list[Case]:
    """Return the cases; the last layer, of ten classes, has no activation."""
    result = []
    for shape in LINEAR:
        if not shape.timed:
            continue
        rows, i, o = shape.rows, shape.in_features, shape.out_features
        activation = None if o == 10 else "relu"
        label = f"{shape} relu" if activation else str(shape)
        forward, backward = f"{label} forward", f"{label} backward"
        weights = o * i + o
        result += [
            Case("linear", forward, shape.bytes(FLOAT), shape.flops + rows * o,
                 partial(_forward, shape, activation), forward in _QUICK),
            Case("linear", backward,
                 FLOAT * (2 * rows * i + (2 if activation else 1) * rows * o + 2 * weights),
                 2 * shape.flops + 2 * rows * o,
                 partial(_backward, shape, activation), backward in _QUICK),
        ]  # fmt: skip
        if activation is None:
            moved = {"dx": rows * o + o * i + rows * i, "dweight": rows * o + rows * i + o * i}
            result += [
                Case("linear", f"{shape} {name}", FLOAT * count, shape.flops,
                     partial(_gradient, shape, name))
                for name, count in moved.items()
            ]  # fmt: skip
    return result


def _operands(shape: LinearCase) -> Any:
    rows, i, o = shape.rows, shape.in_features, shape.out_features
    return random("x", rows, i), random("weight", o, i), random("bias", o)


def _forward(shape: LinearCase, activation: str | None) -> Contest:
    x, w, b = _operands(shape)
    y, y_numpy, y_torch = (empty(shape.rows, shape.out_features) for _ in range(3))

    def numpy() -> Any:
        np.matmul(x, w.T, out=y_numpy)
        np.add(y_numpy, b, out=y_numpy)
        return np.maximum(y_numpy, 0, out=y_numpy) if activation else y_numpy

    peers: dict[str, Call] = {"numpy": numpy}
    if (pt := torch()) is not None:
        tx, tw, tb, ty = tensors(x, w, b, y_torch)
        twt, layer = tw.t(), pt.nn.functional.linear
        if activation:
            peers["torch"] = lambda: pt.relu_(layer(tx, tw, tb))
            peers["torch out="] = lambda: pt.relu_(pt.addmm(tb, tx, twt, out=ty))
        else:
            peers["torch"] = lambda: layer(tx, tw, tb)
            peers["torch out="] = lambda: pt.addmm(tb, tx, twt, out=ty)
    if jax() is not None:
        peers["jax"] = jitted(partial(_jax_layer, activation), x, w, b)
    return contest(
        lambda: tg.linear(x, w, b, activation, out=y),
        peers,
        lambda: reference.linear(x, w, b, activation),
    )


def _backward(shape: LinearCase, activation: str | None) -> Contest:
    x, w, b = _operands(shape)
    dy = random("dy", shape.rows, shape.out_features)
    y = tg.linear(x, w, b, activation)
    out = (empty(*x.shape), empty(*w.shape), empty(*b.shape))
    dx, dw, db = (empty(*operand.shape) for operand in (x, w, b))
    dz = empty(*dy.shape)

    def numpy() -> Any:
        d = np.multiply(dy, y > 0, out=dz) if activation else dy
        np.matmul(d, w, out=dx)
        np.matmul(d.T, x, out=dw)
        np.sum(d, axis=0, out=db)
        return dx, dw, db

    peers: dict[str, Call] = {"numpy": numpy}
    if (pt := torch()) is not None:
        tx, tw, tdy, ty, tdz = tensors(x, w, dy, y, dz)
        tdx, tdw, tdb = tensors(*(empty(*operand.shape) for operand in (x, w, b)))
        masked = pt.ops.aten.threshold_backward.grad_input

        def by_hand() -> Any:
            d = masked(tdy, ty, 0, grad_input=tdz) if activation else tdy
            pt.mm(d, tw, out=tdx)
            pt.mm(d.t(), tx, out=tdw)
            pt.sum(d, 0, out=tdb)
            return tdx, tdw, tdb

        peers["torch by hand"] = by_hand
        leaves = [t.clone().requires_grad_() for t in tensors(x, w, b)]
        z = pt.nn.functional.linear(*leaves)
        graph = pt.relu(z) if activation else z
        peers["torch autograd"] = lambda: pt.autograd.grad(graph, leaves, tdy, retain_graph=True)
    if jax() is not None:
        peers["jax"] = jitted(partial(_jax_backward, activation), x, w, dy, y)
    return contest(
        lambda: tg.linear_backward(dy, x, w, b, activation, output=y, out=out),
        peers,
        # the mask is y's: a z that rounds to another sign is not what is measured
        lambda: reference.linear_backward(dy * (y > 0) if activation else dy, x, w, b),
    )


def _gradient(shape: LinearCase, name: str) -> Contest:
    """Return the contest of one gradient of a layer without activation."""
    x, w, b = _operands(shape)
    dy = random("dy", shape.rows, shape.out_features)
    wanted, place = {"dx": ("input", 0), "dweight": ("weight", 1)}[name]
    left, right = (dy, w) if name == "dx" else (dy.T, x)
    out, out_numpy, out_torch = (empty(len(left), right.shape[1]) for _ in range(3))
    given = (out, None) if name == "dx" else (None, out)
    peers: dict[str, Call] = {"numpy": lambda: np.matmul(left, right, out=out_numpy)}
    if (pt := torch()) is not None:
        t_left, t_right, t_out = tensors(left, right, out_torch)
        peers["torch"] = lambda: pt.mm(t_left, t_right, out=t_out)
    if jax() is not None:
        peers["jax"] = jitted(
            lambda dy, other: (dy if name == "dx" else dy.T) @ other, dy, w if name == "dx" else x
        )
    return contest(
        lambda: tg.linear_backward(dy, x, w, b, wrt=(wanted,), out=(*given, None))[place],
        peers,
        lambda: reference.linear_backward(dy, x, w, b)[place],
    )


def _jax_layer(activation: str | None, x: Any, w: Any, b: Any) -> Any:
    y = x @ w.T + b
    return jax().nn.relu(y) if activation else y


def _jax_backward(activation: str | None, x: Any, w: Any, dy: Any, y: Any) -> Any:
    d = jax().numpy.where(y > 0, dy, 0) if activation else dy
    return d @ w, d.T @ x, d.sum(0)
