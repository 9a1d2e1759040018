# SPDX-License-Identifier: MIT
"""The written model of `gpu_model`, op by op: what each kernel moves, multiplies and waits for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from .gpu_model import H200, ITEM, Chip, Prediction, largest, product, stream

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
        254
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
    tail = Prediction(chip.launch, "launch")  # the mean of the rows' losses
    return one + tail if one.seconds > alone else Prediction(alone, "row", one.kernels) + tail


def linear(
    rows: int, i: int, o: int, dtype: str, *, training: bool, saves: bool, chip: Chip = H200
) -> Prediction:
    """Predict a layer's forward product, and for training its three gradients.

    Args:
        rows: Of x.
        i: Features that come in.
        o: Features that go out.
        dtype: Of all.
        training: With the gradients.
        saves: Whether the preactivation is written beside the output.
        chip: The constants.
    """
    item = ITEM[dtype]
    out = float(item * rows * o)
    forward = product(rows, o, i, dtype, "NT", extra=out * (training and saves), chip=chip)
    if not training:
        return forward
    masked = stream(2 * out, out, resident=512, packets=2, flops=20.0 * rows * o, chip=chip)
    dx = product(rows, i, o, dtype, "NN", chip=chip)
    dw = product(o, i, rows, dtype, "TN", chip=chip)
    return forward + masked + dx + dw


def optimizer(parameters: int, floats: int, launches: int = 1, chip: Chip = H200) -> Prediction:
    """Predict an update of all parameters, with what the call costs the host."""
    device = stream(4.0 * (floats - 1) * parameters, 4.0 * parameters, packets=3, chip=chip)
    host = chip.update + (launches - 1) * chip.call
    return device if device.seconds > host else Prediction(host, "host", "one kernel")


def train_step(
    widths: Sequence[int], batch: int, dtype: str, state: int, chip: Chip = H200
) -> Prediction:
    """Predict one replay of the step's graph: a kernel for all where it is small, else many.

    Args:
        widths: Of the layers, with the input's.
        batch: Rows.
        dtype: Of parameters and activations.
        state: Arrays of the optimiser beside the parameters.
        chip: The constants.
    """
    layers = list(pairwise(widths))
    if _takes_one_kernel(layers, batch, dtype):
        return _one_kernel(layers, batch, chip)
    nodes = []
    for i, o in layers:
        nodes.append(product(batch, o, i, dtype, "NT", chip=chip))
    nodes.append(cross_entropy(batch, widths[-1], dtype, chip=chip))
    for number, (i, o) in enumerate(layers):
        out = float(ITEM[dtype] * batch * o)
        nodes.append(stream(2 * out, out, resident=512, packets=2, chip=chip))
        nodes.append(product(o, i, batch, dtype, "TN", chip=chip))
        if number:  # nobody needs the gradient of the input
            nodes.append(product(batch, i, o, dtype, "NN", chip=chip))
    count = sum(i * o + o for i, o in layers)
    nodes.append(stream(4.0 * (2 + state) * count, 4.0 * (1 + state) * count, chip=chip))
    seconds = sum(one.seconds for one in nodes)
    longest = max(nodes, key=lambda one: one.seconds)
    waits = len(nodes) * chip.launch > seconds / 2
    return Prediction(seconds, "launch" if waits else longest.bound, f"{len(nodes)} kernels")


# as in csrc/cuda/train_step.cu and train_step/schedule.hpp: rows, columns, cycles a step of k
_STEP_TILES = ((16, 32, 8), (32, 32, 12), (64, 64, 48))
_STEP_TILE, _HEAD = 1500, 2e-6  # cycles of a tile beside its steps; seconds of the last layer
_BARRIER, _START = 1.2e-6, 3e-6  # of the whole grid; of a grid that is resident at once
_MOST_ROWS, _MOST_WIDTH, _MOST_CLASSES, _MOST_PRODUCTS = 1024, 8192, 128, 1 << 29


def _takes_one_kernel(layers: Sequence[tuple[int, int]], batch: int, dtype: str) -> bool:
    return (
        dtype == "float32"
        and batch <= _MOST_ROWS
        and layers[-1][1] <= _MOST_CLASSES
        and max(max(layer) for layer in layers) <= _MOST_WIDTH
        and max(batch * i * o for i, o in layers) <= _MOST_PRODUCTS
    )


def _one_kernel(layers: Sequence[tuple[int, int]], batch: int, chip: Chip) -> Prediction:
    def phase(m: int, n: int, k: int) -> float:
        """Return the seconds of a product: the tiles of the block that has most, one by one."""
        return min(
            math.ceil(math.ceil(m / rows) * math.ceil(n / cols) / chip.multiprocessors)
            * (k * cycles + _STEP_TILE) / chip.clock
            for rows, cols, cycles in _STEP_TILES
        )  # fmt: skip

    products = [phase(batch, o, i) for i, o in layers[:-1]]
    products += [phase(batch, i, o) for i, o in layers[1:-1]]  # input gradients below the head
    products += [phase(o, i, batch) for i, o in layers]
    barriers = 2 * len(layers) - 2
    seconds = _START + barriers * _BARRIER + _HEAD + sum(products)
    waits = _START + barriers * _BARRIER > seconds / 2
    return Prediction(seconds, "launch" if waits else "shared memory", "one kernel")


def fused_mlp(
    rows: int, width: int, layers: int, *, training: bool, chip: Chip = H200
) -> Prediction:
    """Predict a small network in bfloat16 that stays on chip.

    Math: max(products, rows moved) + launch; products of tiles so narrow run at half of the rate.

    Args:
        rows: Samples.
        width: Of every layer.
        layers: How many.
        training: With gradients: forward, forward once more, and two products a layer.
        chip: The constants.

    Example:
        >>> fused_mlp(1 << 21, 64, 5, training=False).bound
        'tensor cores'
    """
    products = 2.0 * layers * rows * width * width * (4 if training else 1)
    rate = chip.tensor / 2  # a warpgroup waits for its own layer before the next
    seconds, bound = largest({
        "tensor cores": products / rate,
        "memory": 2.0 * rows * width * (5 if training else 2) / chip.copy,
    })  # fmt: skip
    exposed = (chip.launch + chip.fill) * (3 if training else 1)
    return Prediction(seconds + exposed, bound, "on chip")


def host_call(chip: Chip = H200) -> Prediction:
    """Predict what a call of an op costs Python."""
    return Prediction(chip.call, "host")
