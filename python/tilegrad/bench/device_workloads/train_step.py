# SPDX-License-Identifier: MIT
"""One training step of a multilayer perceptron: a graph of ours; torch eager, graph, compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import tilegrad as tg
from tilegrad.bench import gpu_op_model
from tilegrad.bench.device import ITEM, Workbench, host, tensor
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest, agree
from tilegrad.bench.workloads._common import FLOAT
from tilegrad.bench.workloads.train_step import _expected

from ._common import SHORT, compiled, size

SIZES = (784, 512, 512, 10)
_BATCHES = (
    (32, "float32"), (128, "float32"), (1024, "float32"), (65536, "float32"),
    (128, "bfloat16"), (1024, "bfloat16"), (65536, "bfloat16"),
)  # fmt: skip
_RATES = {"SGD": 0.1, "Adam": 1e-3}
_STATE = {"SGD": 0, "Adam": 2}  # arrays beside the parameters that are read and written
_STEPS_CHECKED = 3
_TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}  # of the losses
_LARGEST_CHECKED = 2048  # rows; a larger batch is compared between the sides only


def cases(bench: Workbench) -> list[Case]:
    """Return the cases: the same batch, which lies on the device, in every step."""
    result = []
    widths = tuple(size(bench, width) for width in SIZES)
    layers = [a * b for a, b in pairwise(widths)]
    parameters = sum(layers) + sum(widths[1:])
    for optimizer in _RATES:
        for rows, dtype in _BATCHES:
            if dtype != "float32" and optimizer != "SGD":
                continue
            batch = size(bench, rows)
            flops = batch * (6.0 * sum(layers) - 2 * layers[0])  # nobody needs the first dx
            moved = FLOAT * parameters * (2 + 2 * _STATE[optimizer])
            moved += ITEM[dtype] * batch * widths[0]
            build = partial(_build, bench, widths, batch, optimizer, dtype)
            name = f"{optimizer} batch {batch} {SHORT[dtype]}"
            quick = (optimizer, rows) == ("SGD", 128)
            predicted = gpu_op_model.train_step(widths, batch, dtype, _STATE[optimizer])
            result.append(Case("train_step", name, moved, flops, build, quick, False, predicted))
    return result


def _build(
    bench: Workbench, widths: tuple[int, ...], batch: int, optimizer: str, dtype: str
) -> Contest:
    x, target = bench.normal(dtype, batch, widths[0]), bench.classes(batch, widths[-1])
    start = [
        part
        for i, o in pairwise(widths)
        for part in (
            bench.normal(dtype, o, i, scale=i**-0.5), bench.normal(dtype, o, scale=1 / i)
        )
    ]  # fmt: skip
    layers = [
        tg.nn.Linear(i, o, activation="relu" if k < len(widths) - 2 else None, dtype=dtype)
        for k, (i, o) in enumerate(pairwise(widths))
    ]
    model = tg.nn.Sequential(*layers).to(bench.device)
    for parameter, values in zip(model.parameters(), start, strict=True):
        parameter.data = values
    update = getattr(tg.optim, optimizer)(model.parameters(), _RATES[optimizer])
    step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), update)
    sides: dict[str, Call] = {OURS: lambda: step(x, target)}
    slow_down: dict[str, Callable[[float], None]] = {OURS: partial(_rate, update)}
    if torch() is not None:
        for label in ("torch", "torch graph", "torch compile") if bench.cuda else ("torch",):
            how = partial(_torch, bench, label, start, tensor(x), tensor(target), optimizer)
            if (made := bench.attempt(label, how)) is not None:
                sides[label], slow_down[label] = made

    def check() -> None:
        losses = {}
        for side, call in sides.items():
            slow_down[side](_RATES[optimizer])
            losses[side] = [float(host(call())) for _ in range(_STEPS_CHECKED)]
        if batch <= _LARGEST_CHECKED:
            arrays = [host(part) for part in start]
            rows = host(x), host(target).astype(int)
            wanted = [float(part) for part in _expected(arrays, *rows, optimizer)]
        else:
            wanted = losses.get("torch", losses[OURS])
        for side, got in losses.items():
            # what was run to build a graph or compile has been undone, so all start alike
            agree({side: got}, wanted, _TOLERANCE[dtype])
            # a rate this small keeps weights, gradients and means from becoming denormal numbers
            slow_down[side](1e-7)

    return Contest(sides[OURS], {k: v for k, v in sides.items() if k != OURS}, check)


def _rate(optimizer: Any, rate: float) -> None:
    for group in optimizer.param_groups:
        if hasattr(group["lr"], "fill_"):  # of a captured graph: a tensor that it reads
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _torch(
    bench: Workbench, label: str, start: list[Any], x: Any, target: Any, optimizer: str
) -> tuple[Call, Callable[[float], None]]:
    """Return a step of torch, fresh from the start values, and what sets its learning rate."""
    pt = torch()
    modules: list[Any] = []
    for weight, bias in zip(start[::2], start[1::2], strict=True):
        layer = pt.nn.Linear(*weight.shape[::-1], device=x.device)
        layer.weight.data.copy_(tensor(weight))  # float32, as the masters of ours
        layer.bias.data.copy_(tensor(bias))
        modules += [layer, pt.nn.ReLU()]
    model, loss_of = pt.nn.Sequential(*modules[:-1]), pt.nn.CrossEntropyLoss()
    graphed = label == "torch graph"
    rate = pt.tensor(0.0, device=x.device) if graphed else 0.0  # building must not move the weights
    options: dict[str, Any] = {"fused": True}
    if graphed and optimizer == "Adam":
        options["capturable"] = True
    update = getattr(pt.optim, optimizer)(model.parameters(), rate, **options)

    def forward() -> Any:
        with pt.autocast(x.device.type, pt.bfloat16, enabled=x.dtype == pt.bfloat16):
            return loss_of(model(x), target)

    if label == "torch compile":
        forward = compiled(forward)

    def step() -> Any:
        update.zero_grad(set_to_none=True)
        loss = forward()
        loss.backward()
        update.step()
        return loss.detach()

    if not graphed:
        step()
        update.state.clear()
        return step, partial(_rate, update)
    for _ in range(3):
        step()
    bench.synchronize()
    graph = pt.cuda.CUDAGraph()
    stream = pt.cuda.current_stream()
    with pt.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        loss = step()
    for state in update.state.values():  # in place: the graph holds the addresses
        for value in state.values():
            if hasattr(value, "zero_"):
                value.zero_()

    def replay() -> Any:
        graph.replay()
        return loss

    return replay, partial(_rate, update)
