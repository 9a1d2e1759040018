# SPDX-License-Identifier: MIT
"""The written model of `gpu_model`, op by op: what each kernel moves, multiplies and waits for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add

from .gpu_model import (
    H200,
    ITEM,
    Chip,
    Prediction,
    largest,
    library,
    product,
    rung_of,
    stream,
    tile_of,
)

# registers of a thread allow so many blocks of 256 threads (the erf of gelu takes most of them)
_RESIDENT = {("gelu", "forward"): 1024, ("gelu", "backward"): 768}
# instructions an element: gelu's as counted (docs/architecture.md), the others' by their formulas
_INSTRUCTIONS = {"relu": 6, "gelu": 60, "gelu_tanh": 45, "silu": 30, "tanh": 30}


def activation(label: str, way: str, dtype: str, n: int, flops: int) -> Prediction:
    """Predict an activation or its gradient."""
    item = ITEM[dtype]
    backward = way == "backward"
    resident = _RESIDENT.get((label, way), 1536)
    return stream(
        item * n * (2 if backward else 1),
        item * n,
        resident=resident,
        packets=4,
        special=n * (label != "relu"),
        flops=float(flops * n),
        instructions=_INSTRUCTIONS[label] * n * (1.3 if backward else 1.0),
        kernels=f"{resident} threads a multiprocessor",
    )


def softmax(rows: int, classes: int, dtype: str, way: str) -> Prediction:
    """Predict softmax along rows that stay on chip, or its gradient."""
    n = rows * classes
    back = way == "backward"
    return stream(
        ITEM[dtype] * n * (1 + back), ITEM[dtype] * n, resident=1024, packets=2,
        special=0 if back else 2 * n, flops=6.0 * n, kernels="a row on chip",
    )  # fmt: skip


_READS = {"three_pass": 3, "online_warp": 2, "block_row": 2}  # of a logit; once in the others
ROW_BYTES = 8 * (200 << 10)  # that a cluster of 8 blocks holds in shared memory


def cross_entropy(
    rows: int, classes: int, dtype: str, rung: str | None = None, chip: Chip = H200
) -> Prediction:
    """Predict loss and gradient in one call.

    Example:
        >>> round(cross_entropy(8192, 32768, "bfloat16").seconds * 1e6)
        255
    """
    n, item = rows * classes, ITEM[dtype]
    longest = rung is None and classes * item > ROW_BYTES
    reads = 2 if longest else _READS.get(rung or "", 1)
    warps = rung in ("three_pass", "online_warp")  # a warp a row: the others wait less
    one = stream(
        reads * item * n + 8 * rows, item * n, resident=1024, packets=4, special=2 * n,
        instructions=20.0 * n, kernels=f"{reads} read{'s' * (reads > 1)}", chip=chip,
    )  # fmt: skip
    # few rows: each walks its row alone
    walk = reads * math.ceil(classes * item / (512 * (1 if warps else 16))) * chip.latency / 4
    alone = chip.launch + 2 * chip.latency + walk
    # before it the divisor of the mean, after it the mean of the rows' losses
    sums = _small(chip) + _small(chip)
    return sums + (one if one.seconds > alone else Prediction(alone, "row", one.kernels))


def _small(chip: Chip) -> Prediction:
    """Predict a kernel, or a copy, of a few bytes."""
    return Prediction(chip.launch, "launch")


def sum_rows(rows: int, cols: int, item: int, chip: Chip = H200) -> Prediction:
    """Predict the sums of the columns: a long one is cut into pieces, as csrc/cuda/reduce.cu does.

    Example:
        >>> [sum_rows(rows, 512, 4).launches for rows in (255, 256)]
        [1, 2]
    """
    width = min(1 << (cols - 1).bit_length(), 32)
    lines = min(1 << (rows - 1).bit_length(), 256 // width)
    tiles = math.ceil(cols / width)
    most = min(1024, math.ceil(1024 / tiles)) if tiles < 512 else 1
    pieces = max(1, min(rows // (16 * lines), most))
    one = stream(item * rows * cols, 4.0 * pieces * cols, chip=chip)
    return one + stream(4.0 * pieces * cols, 4.0 * cols, chip=chip) if pieces > 1 else one


def linear(
    rows: int, i: int, o: int, dtype: str, activation: str | None, *, training: bool, saves: bool,
    chip: Chip = H200,
) -> Prediction:  # fmt: skip
    """Predict a layer's forward product, or it and its three gradients.

    Args:
        rows: Of x.
        i: Features that come in.
        o: Features that go out.
        dtype: Of all.
        activation: None without one.
        training: With the gradients.
        saves: Whether the preactivation is written beside the output.
        chip: The constants.
    """
    saved = float(ITEM[dtype] * rows * o) * (training and saves)
    forward = product(rows, o, i, dtype, "NT", extra=saved, chip=chip)
    return forward + linear_backward(rows, i, o, dtype, activation, chip) if training else forward


def linear_backward(
    rows: int, i: int, o: int, dtype: str, activation: str | None, chip: Chip = H200
) -> Prediction:
    """Predict a layer's three gradients."""
    out = float(ITEM[dtype] * rows * o)
    if activation is None:
        first = sum_rows(rows, o, ITEM[dtype], chip)
    else:  # dz, and the sums of db in two passes
        first = stream(2 * out, out, resident=512, packets=2, flops=20.0 * rows * o, chip=chip)
        first += _small(chip)
    dx = product(rows, i, o, dtype, "NN", chip=chip)
    return first + dx + product(o, i, rows, dtype, "TN", chip=chip)


def optimizer(parameters: int, floats: int, launches: int = 1, chip: Chip = H200) -> Prediction:
    """Predict an update of all parameters, with what the call costs the host."""
    device = stream(4.0 * (floats - 1) * parameters, 4.0 * parameters, packets=3, chip=chip)
    host = chip.update + (launches - 1) * chip.call
    return device if device.seconds > host else Prediction(host, "host", "one kernel")


# on the device beside the graph: two copies of the batch, the state of the step, the loss's copy
_AROUND = 4


def train_step(
    widths: Sequence[int], batch: int, dtype: str, state: int, chip: Chip = H200
) -> Prediction:
    """Predict one step: a graph of one kernel where it is small, else of many, and what is around.

    Args:
        widths: Of the layers, with the input's.
        batch: Rows.
        dtype: Of parameters and activations.
        state: Arrays of the optimiser beside the parameters.
        chip: The constants.
    """
    if takes_one_kernel(widths, batch, dtype):
        graph = _one_kernel(list(pairwise(widths)), batch, chip)
    else:
        graph = _layers(widths, batch, dtype, state, chip)
    return replace(graph, seconds=graph.seconds + _AROUND * chip.launch)


def _layers(widths: Sequence[int], batch: int, dtype: str, state: int, chip: Chip) -> Prediction:
    """Predict a step's graph: forward, loss, backward from layer to layer, update."""
    layers, item = list(pairwise(widths)), ITEM[dtype]
    nodes = [product(batch, o, i, dtype, "NT", chip=chip) for i, o in layers]
    nodes.append(cross_entropy(batch, widths[-1], dtype, chip=chip))
    nodes.append(sum_rows(batch, widths[-1], item, chip))
    for number, (i, o) in reversed(list(enumerate(layers))):
        if number:  # nobody needs the gradient of the input
            # dz of the layer below: its product multiplies by the slope of what forward kept
            kept = float(item * batch * i)
            nodes.append(product(batch, i, o, dtype, "NN", extra=kept, chip=chip))
            tile = _leaves_sums(batch, i, o, dtype, chip)
            nodes.append(sum_rows(*((tile, i, 4) if tile else (batch, i, item)), chip))
        # gradients of weights are float32
        nodes.append(product(o, i, batch, dtype, "TN", extra=(4.0 - item) * o * i, chip=chip))
    count = sum(i * o + o for i, o in layers)
    nodes.append(stream(4.0 * (2 + state) * count, 4.0 * (1 + state) * count, chip=chip))
    result = reduce(add, nodes)
    waits = result.launches * chip.launch > result.seconds / 2
    bound = "launch" if waits else result.bound
    return replace(result, bound=bound, kernels=f"{result.launches} kernels")


def _leaves_sums(batch: int, i: int, o: int, dtype: str, chip: Chip) -> int:
    """Return how many rows of sums the product that makes dz leaves beside it for db; 0: none."""
    rung = rung_of(batch, i, o, dtype)
    whole = rung == "hopper" and tile_of(batch, i, o, dtype, chip=chip)[2] == 1
    return math.ceil(batch / 16) if dtype != "float32" and (whole or rung == "tensor_core") else 0


_HEAD = 2e-6  # seconds of the last layer
_BARRIER, _START = 1.2e-6, 3e-6  # of the whole grid; of a grid that is resident at once
_MOST_LAYERS, _MOST_ROWS, _MOST_WIDTH, _MOST_CLASSES = 8, 1024, 8192, 128
_MOST_PRODUCTS = 1 << 29


def takes_one_kernel(widths: Sequence[int], batch: int, dtype: str) -> bool:
    """Return whether the step is one kernel: takes_network_step of csrc/cuda/train_step.cu.

    Example:
        >>> [takes_one_kernel((784, 512, 512, 10), batch, "float32") for batch in (128, 1024)]
        [True, False]
    """
    layers = list(pairwise(widths))
    products = sum(batch * i * o * (3 if number else 2) for number, (i, o) in enumerate(layers))
    return (
        dtype == "float32"
        and 1 <= len(layers) <= _MOST_LAYERS
        and 1 <= batch <= _MOST_ROWS
        and min(widths) >= 1
        and max(widths) <= _MOST_WIDTH
        and widths[-1] <= _MOST_CLASSES
        and products <= _MOST_PRODUCTS
    )


def _one_kernel(layers: Sequence[tuple[int, int]], batch: int, chip: Chip) -> Prediction:
    count = int(chip.multiprocessors)

    def phase(m: int, n: int, k: int) -> float:
        """Return the seconds of a product: the tiles of the block that has most, one by one."""
        tiles, cycles = library()._step_tiles(m, n, k, count)
        return float(math.ceil(tiles / count) * cycles / chip.clock)

    products = [phase(batch, o, i) for i, o in layers[:-1]]
    products += [phase(batch, i, o) for i, o in layers[1:-1]]  # input gradients below the head
    products += [phase(o, i, batch) for i, o in layers]
    barriers = 2 * len(layers) - 2
    seconds = _START + barriers * _BARRIER + _HEAD + sum(products)
    waits = _START + barriers * _BARRIER > seconds / 2
    return Prediction(seconds, "launch" if waits else "shared memory", "one kernel")


# as in csrc/cuda/fused_mlp_choice.hpp and fused_mlp/: columns, and warpgroups of a block forward
_MLP_WARPGROUPS = {16: 4, 32: 4, 64: 4, 128: 3}
_MLP_TRAINS = 64  # columns: more do not fit
_FLOP = 4096  # of a multiprocessor's tensor cores in a cycle
_FINISH = 220  # cycles: a warpgroup's wait for a product, bias, f, rounding of 64 columns
_ONES = 64  # cycles: the product with ones that is db


def fused_mlp(
    rows: int, width: int, layers: int, *, training: bool, chip: Chip = H200
) -> Prediction:
    """Predict a small network in bfloat16: what stays on chip, and what goes layer by layer.

    Math: forward: max(layers max(w t, t + finish), bytes / copy) + launch, where w warpgroups of 64
    rows share the tensor cores for t cycles a product each. Backward, up to 64 columns, of 128 rows
    by two warpgroups: (layers - 1) (t + finish) forward once more, then layers (t + finish + 2 t +
    ones): while one of them multiplies for dW the other waits for it.

    Args:
        rows: Samples.
        width: Of every layer.
        layers: How many.
        training: With gradients, after a forward pass of its own.
        chip: The constants.

    Example:
        >>> fused_mlp(1 << 21, 64, 5, training=False).bound
        'memory'
        >>> [fused_mlp(1 << 21, n, 5, training=True).kernels for n in (64, 128)]
        ['on chip', 'forward on chip, backward by layers']
    """
    columns = next(each for each in _MLP_WARPGROUPS if width <= each)
    cycle = chip.multiprocessors * _FLOP / chip.tensor  # of tensor cores at the rate they reach
    product_cycles = 2.0 * 64 * columns * columns / _FLOP  # of 64 rows
    finish = _FINISH * columns / 64

    def on_chip(groups: int, cycles: float, arrays: int, launches: int) -> Prediction:
        turns = math.ceil(rows / (64 * groups) / chip.multiprocessors)
        seconds, bound = largest({
            "tensor cores": turns * cycles * cycle,
            "memory": 2.0 * rows * width * arrays / chip.copy,
        })  # fmt: skip
        exposed = launches * chip.launch + chip.fill
        return Prediction(seconds + exposed, bound, "on chip", launches)

    together = _MLP_WARPGROUPS[columns]
    layer = max(together * product_cycles, product_cycles + finish)
    forward = on_chip(together, layers * layer, 2, 1)
    if not training:
        return forward
    if columns <= _MLP_TRAINS:
        chained = product_cycles + finish
        cycles = (layers - 1) * chained + layers * (chained + 2 * product_cycles + _ONES)
        return forward + on_chip(2, cycles, 3, 2)
    result = forward
    for number in range(layers):
        last = number == layers - 1
        if not last:  # forward once more
            result += product(rows, width, width, "bfloat16", "NT", chip=chip)
        result += linear_backward(rows, width, width, "bfloat16", None if last else "relu", chip)
    return replace(result, kernels="forward on chip, backward by layers")


def host_call(chip: Chip = H200) -> Prediction:
    """Predict what a call of an op costs Python."""
    return Prediction(chip.call, "host")
