# SPDX-License-Identifier: MIT
"""Dense layers with their activation: forward alone, and forward with dx, dw and db."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

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
    rotating,
    some_rows,
)
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

from ._common import SHORT, compiled, size, tensors, unless_missing

# rows, in_features, out_features, activation, dtype
SHAPES = (
    (8192, 4096, 16384, "gelu_tanh", "bfloat16"),
    (8192, 1024, 4096, "gelu_tanh", "bfloat16"),
    (65536, 512, 512, "gelu_tanh", "bfloat16"),
    (4096, 1024, 4096, "gelu_tanh", "float16"),
    (8192, 1024, 4096, "relu", "float32"),
    (128, 784, 512, "relu", "float32"),
    (128, 512, 10, None, "float32"),
    (1023, 777, 1001, "gelu", "float32"),
)
_QUICK = SHAPES[1]
_FROM_OUTPUT = (None, "relu")  # whose derivative the output tells: no preactivation is kept


def cases(bench: Workbench) -> list[Case]:
    """Return the cases; a training pass is forward and backward together, as torch needs it."""
    result = []
    for shape in SHAPES:
        rows, i, o = (size(bench, part) for part in shape[:3])
        activation, dtype = shape[3:]
        label = f"{rows}x{i}->{o} {activation or 'plain'} {SHORT[dtype]}"
        flops = 2.0 * rows * i * o
        operands = rows * i + i * o + o
        for name, moved, work, build in (
            ("forward", operands + rows * o, flops, _forward),
            # forward; then dy, z, x and w read, dx, dw and db written
            ("training", 3 * operands + 3 * rows * o, 3 * flops, _training),
        ):
            item = ITEM[dtype]
            call = partial(build, bench, (rows, i, o), activation, dtype, item * moved)
            predicted = gpu_op_model.linear(
                rows, i, o, dtype, activation, training=name == "training",
                saves=activation not in _FROM_OUTPUT,
            )  # fmt: skip
            title = f"{label} {name}"
            result.append(
                Case("linear", title, item * moved, work, call, shape == _QUICK,
                     predicted=predicted)
            )  # fmt: skip
    return result


def _function(activation: str | None) -> Any:
    """Return the layer as users of torch write it."""
    f = torch().nn.functional
    after = {
        None: lambda z: z,
        "relu": f.relu,
        "gelu": f.gelu,
        "gelu_tanh": partial(f.gelu, approximate="tanh"),
    }[activation]
    return lambda x, w, b: after(f.linear(x, w, b))


def _operands(bench: Workbench, sizes: tuple[int, int, int], dtype: str, sets: range) -> Any:
    rows, i, o = sizes
    x = [bench.normal(dtype, rows, i) for _ in sets]
    w = [bench.normal(dtype, o, i, scale=i**-0.5) for _ in sets]
    b = [bench.normal(dtype, o) for _ in sets]
    return x, w, b


def _forward(
    bench: Workbench, sizes: tuple[int, int, int], activation: str | None, dtype: str, moved: float
) -> Contest:
    sets = range(bench.sets(moved))
    x, w, b = _operands(bench, sizes, dtype, sets)
    y = [bench.empty(dtype, sizes[0], sizes[2]) for _ in sets]

    def ours(n: int) -> Call:
        return lambda: tg.linear(x[n], w[n], b[n], activation, out=y[n])

    with unless_missing(bench):
        ours(0)()
    sides = rotating({OURS: ours}, len(sets))
    if torch() is not None:

        def theirs(function: Any) -> Call:
            return Rotation([partial(function, *tensors(x[n], w[n], b[n])) for n in sets])

        bench.peer(sides, "torch", lambda: theirs(_function(activation)))
        if bench.cuda:
            bench.peer(sides, "torch compile", lambda: theirs(compiled(_function(activation))))
    rows = some_rows(sizes[0])

    def expected() -> Any:
        part = np.stack([host(x[0][int(row)]) for row in rows])
        return [(reference.linear(part, host(w[0]), host(b[0]), activation), rows)]

    return checked(bench, sides, expected, TOLERANCE[dtype])


def _training(
    bench: Workbench, sizes: tuple[int, int, int], activation: str | None, dtype: str, moved: float
) -> Contest:
    sets = range(bench.sets(moved))
    x, w, b = _operands(bench, sizes, dtype, sets)
    dy = [bench.normal(dtype, sizes[0], sizes[2]) for _ in sets]
    from_output = activation in _FROM_OUTPUT

    def ours(n: int) -> Call:
        y = bench.empty(dtype, sizes[0], sizes[2])
        z = None if from_output else bench.empty(dtype, sizes[0], sizes[2])
        out = tuple(bench.empty(dtype, *part.shape) for part in (x[n], w[n], b[n]))

        def call() -> Any:
            if from_output:
                tg.linear(x[n], w[n], b[n], activation, out=y)
                given: dict[str, Any] = {"output": y}
            else:
                tg.linear(x[n], w[n], b[n], activation, save_preactivation=True, out=(y, z))
                given = {"preactivation": z}
            tg.linear_backward(dy[n], x[n], w[n], b[n], activation, **given, out=out)
            return (y, *out)

        return call

    with unless_missing(bench):
        ours(0)()
    sides = rotating({OURS: ours}, len(sets))
    if (pt := torch()) is not None:

        def theirs(function: Any) -> Call:
            def one(n: int) -> Call:
                leaves = [t.clone().requires_grad_() for t in tensors(x[n], w[n], b[n])]
                (given,) = tensors(dy[n])

                def call() -> Any:
                    y = function(*leaves)
                    return (y, *pt.autograd.grad(y, leaves, given))

                return call

            return Rotation([one(n) for n in sets])

        bench.peer(sides, "torch", lambda: theirs(_function(activation)))
        if bench.cuda:
            bench.peer(sides, "torch compile", lambda: theirs(compiled(_function(activation))))

    def expected() -> Any:
        return _expected(x[0], w[0], b[0], dy[0], activation)

    # bfloat16 products are rounded once more on their way: dz before dx, dw and db
    return checked(bench, sides, expected, 2 * TOLERANCE[dtype])


def _expected(x: Any, w: Any, b: Any, dy: Any, activation: str | None) -> Any:
    """Return y and the gradients in float64: by torch on the device, or by the reference."""
    if torch() is not None:
        leaves = [t.double().requires_grad_() for t in tensors(x, w, b)]
        y = _function(activation)(*leaves)
        gradients = torch().autograd.grad(y, leaves, tensors(dy)[0].double())
        return [host(y), *(host(gradient) for gradient in gradients)]
    x, w, b, dy = (host(part) for part in (x, w, b, dy))
    gradients = reference.linear_backward(dy, x, w, b, activation)
    return [reference.linear(x, w, b, activation), *gradients]
