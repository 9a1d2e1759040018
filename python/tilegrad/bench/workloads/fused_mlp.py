# SPDX-License-Identifier: MIT
"""A small network as one op: five layers of 64 features, forward alone and with all gradients.

Its activation is tanh: near 0 the slope of relu would be one side's rounding or the other's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import Call, Case, Contest

from ._common import FLOAT, Array, contest, empty, jitted, random, tensors

LAYERS, WIDTH = 5, 64
_ROWS = (128, 1024, 16384)


def cases() -> list[Case]:
    """Return the cases; training is forward, then backward, which computes forward once more."""
    result = []
    parameters = LAYERS * WIDTH * (WIDTH + 1)
    for rows in _ROWS:
        product = 2.0 * rows * WIDTH * WIDTH
        label = f"{WIDTH}x{LAYERS} {rows}"
        result += [
            Case("fused_mlp", f"{label} inference", FLOAT * (2 * rows * WIDTH + parameters),
                 LAYERS * product, partial(_build, rows, False), rows == 1024),
            Case("fused_mlp", f"{label} training", FLOAT * (5 * rows * WIDTH + 3 * parameters),
                 3 * LAYERS * product, partial(_build, rows, True)),
        ]  # fmt: skip
    return result


def _build(rows: int, training: bool) -> Contest:
    x, dy = random("x", rows, WIDTH), random("dy", rows, WIDTH)
    scale = np.float32(WIDTH**-0.5)
    weights = [random(f"weight {layer}", WIDTH, WIDTH) * scale for layer in range(LAYERS)]
    biases = [random(f"bias {layer}", WIDTH) * np.float32(0.1) for layer in range(LAYERS)]
    y = empty(rows, WIDTH)

    def ours() -> Any:
        tg.fused_mlp(x, weights, biases, "tanh", out=y)
        if not training:
            return y
        dx, dweights, dbiases = tg.fused_mlp_backward(dy, x, weights, biases, "tanh")
        assert dweights is not None
        assert dbiases is not None
        return (y, dx, *dweights, *dbiases)

    peers: dict[str, Call] = {
        "numpy": partial(_numpy, x, weights, biases, dy if training else None)
    }
    if torch() is not None:
        peers["torch"] = _torch(x, weights, biases, dy if training else None)
    if jax() is not None:
        peers["jax"] = _jax(x, weights, biases, dy if training else None)
    return contest(ours, peers, lambda: _expected(x, weights, biases, dy if training else None))


def _numpy(x: Array, weights: list[Array], biases: list[Array], dy: Array | None) -> Any:
    inputs = [x]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        z = inputs[-1] @ w.T
        z += b
        inputs.append(np.tanh(z, out=z) if layer < LAYERS - 1 else z)
    if dy is None:
        return inputs[-1]
    dweights: list[Array] = []
    dbiases: list[Array] = []
    slope = dy
    for layer in reversed(range(LAYERS)):
        dweights.insert(0, slope.T @ inputs[layer])
        dbiases.insert(0, slope.sum(0))
        slope = slope @ weights[layer]
        if layer:
            slope *= 1 - inputs[layer] ** 2
    return (inputs[-1], slope, *dweights, *dbiases)


def _torch(x: Array, weights: list[Array], biases: list[Array], dy: Array | None) -> Call:
    pt = torch()
    leaves = [leaf.requires_grad_(dy is not None) for leaf in tensors(x, *weights, *biases)]
    linear = pt.nn.functional.linear

    def forward() -> Any:
        y = leaves[0]
        for layer in range(LAYERS):
            y = linear(y, leaves[1 + layer], leaves[1 + LAYERS + layer])
            y = pt.tanh(y) if layer < LAYERS - 1 else y
        return y

    if dy is None:
        inference: Call = pt.inference_mode()(forward)
        return inference
    (given,) = tensors(dy)

    def training() -> Any:
        y = forward()
        return (y.detach(), *pt.autograd.grad(y, leaves, given))

    return training


def _jax(x: Array, weights: list[Array], biases: list[Array], dy: Array | None) -> Call:
    def forward(x: Any, *parameters: Any) -> Any:
        for layer in range(LAYERS):
            x = x @ parameters[layer].T + parameters[LAYERS + layer]
            x = jax().numpy.tanh(x) if layer < LAYERS - 1 else x
        return x

    if dy is None:
        return jitted(forward, x, *weights, *biases)

    def training(dy: Any, *operands: Any) -> Any:
        y, back = jax().vjp(forward, *operands)
        return (y, *back(dy))

    return jitted(training, dy, x, *weights, *biases)


def _expected(x: Array, weights: list[Array], biases: list[Array], dy: Array | None) -> Any:
    names = ["tanh"] * (LAYERS - 1) + [None]
    inputs: list[Any] = [x.astype(np.float64)]
    for name, w, b in zip(names, weights, biases, strict=True):
        inputs.append(reference.linear(inputs[-1], w, b, name))
    if dy is None:
        return inputs[-1]
    slope: Any = dy.astype(np.float64)
    dweights: list[Any] = []
    dbiases: list[Any] = []
    for layer in reversed(range(LAYERS)):
        slope, dw, db = reference.linear_backward(
            slope, inputs[layer], weights[layer], biases[layer], names[layer]
        )
        dweights.insert(0, dw)
        dbiases.insert(0, db)
    return [inputs[-1], slope, *dweights, *dbiases]
