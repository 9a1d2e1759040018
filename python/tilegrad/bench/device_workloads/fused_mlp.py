# SPDX-License-Identifier: MIT
"""Small networks of `nn.FusedMLP`: many samples, five layers of one width, one call for all."""

from __future__ import annotations

from functools import partial
from typing import Any

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench import gpu_op_model
from tilegrad.bench.device import (
    ITEM,
    TOLERANCE,
    Rotation,
    Workbench,
    checked,
    host,
    numpy_dtype,
    rotating,
    some_rows,
)
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import SHORT, compiled, size, tensors

LAYERS = 5
WIDTHS = (64, 128)
_SAMPLES = 1 << 21
_DTYPE = "bfloat16"


def cases(bench: Workbench) -> list[Case]:
    """Return the cases; training is forward and backward, which computes forward once more."""
    result = []
    rows = size(bench, _SAMPLES)
    for number in WIDTHS:
        width = size(bench, number)
        products = 2.0 * LAYERS * rows * width * width
        for way, arrays, work in (("inference", 2, 1), ("training", 5, 3)):
            moved = ITEM[_DTYPE] * (arrays * rows * width + work * LAYERS * width * width)
            predicted = gpu_op_model.fused_mlp(rows, width, LAYERS, training=way == "training")
            build = partial(_build, bench, rows, width, way == "training", moved)
            name = f"{width}x{LAYERS} {rows} {SHORT[_DTYPE]} {way}"
            result.append(
                Case("fused_mlp", name, moved, work * products, build, predicted=predicted)
            )
    return result


def _build(bench: Workbench, rows: int, width: int, training: bool, moved: float) -> Contest:
    sets = range(bench.sets(moved))
    x = [bench.normal(_DTYPE, rows, width) for _ in sets]
    dy = [bench.normal(_DTYPE, rows, width) for _ in sets] if training else x
    scale = (2 / width) ** 0.5  # relu halves the variance
    weights = [bench.normal(_DTYPE, width, width, scale=scale) for _ in range(LAYERS)]
    biases = [bench.normal(_DTYPE, width, scale=0.1) for _ in range(LAYERS)]

    def ours(i: int) -> Call:
        y = bench.empty(_DTYPE, rows, width)

        def call() -> Any:
            tg.fused_mlp(x[i], weights, biases, out=y)
            if not training:
                return y
            dx, dweights, dbiases = tg.fused_mlp_backward(dy[i], x[i], weights, biases)
            assert dweights is not None
            assert dbiases is not None
            return (y, dx, *dweights, *dbiases)

        return call

    sides = rotating({OURS: ours}, len(sets))
    if torch() is not None:

        def theirs(function: Any) -> Call:
            def one(i: int) -> Call:
                leaves = tensors(x[i], *weights, *biases)
                if not training:
                    return partial(function, *leaves)
                leaves = [leaf.clone().requires_grad_() for leaf in leaves]
                (given,) = tensors(dy[i])

                def call() -> Any:
                    y = function(*leaves)
                    return (y, *torch().autograd.grad(y, leaves, given))

                return call

            return Rotation([one(i) for i in sets])

        bench.peer(sides, "torch", lambda: theirs(_layers))
        if bench.cuda:
            bench.peer(sides, "torch compile", lambda: theirs(compiled(_layers)))
    chosen = some_rows(rows)

    def expected() -> Any:
        values, slopes = _expected(x[0], weights, biases, dy[0] if training else None)
        part = [(values[chosen], chosen)]
        return part if not slopes else [*part, (slopes[0][chosen], chosen), *slopes[1:]]

    # each layer rounds once, forward and backward
    return checked(bench, sides, expected, LAYERS * TOLERANCE[_DTYPE])


def _layers(x: Any, *parameters: Any, rounds: bool = False) -> Any:
    """Return the network as users of torch write it.

    Args:
        x: The samples.
        parameters: All weights, then all biases.
        rounds: Whether what a layer hands on is rounded as in bfloat16. Without it the relu of the
            next one would let pass, near zero, what the sides stop, and the other way round.
    """
    f = torch().nn.functional
    for layer in range(LAYERS):
        x = f.linear(x, parameters[layer], parameters[LAYERS + layer])
        x = f.relu(x) if layer < LAYERS - 1 else x
        if rounds:
            x = x + (x.detach().to(torch().bfloat16).double() - x.detach())
    return x


def _expected(x: Any, weights: Any, biases: Any, dy: Any) -> tuple[Any, list[Any]]:
    """Return y and all gradients in float64: by torch on the device, or by the reference."""
    if torch() is not None:
        leaves = [t.double().requires_grad_() for t in tensors(x, *weights, *biases)]
        y = _layers(*leaves, rounds=True)
        if dy is None:
            return host(y), []
        gradients = torch().autograd.grad(y, leaves, tensors(dy)[0].double())
        return host(y), [host(gradient) for gradient in gradients]
    inputs, wide = [host(x)], [host(w) for w in weights]
    names = ["relu"] * (LAYERS - 1) + [None]
    for name, w, b in zip(names, wide, biases, strict=True):
        y = reference.linear(inputs[-1], w, host(b), name)
        inputs.append(host(tg.asarray(y.astype(numpy_dtype(_DTYPE)))))
    if dy is None:
        return inputs[-1], []
    slope: Any = host(dy)
    dweights: list[Any] = []
    dbiases: list[Any] = []
    for layer in reversed(range(LAYERS)):
        slope, dw, db = reference.linear_backward(
            slope, inputs[layer], wide[layer], host(biases[layer]), names[layer]
        )
        dweights.insert(0, dw)
        dbiases.insert(0, db)
    return inputs[-1], [slope, *dweights, *dbiases]
