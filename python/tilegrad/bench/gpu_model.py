# SPDX-License-Identifier: MIT
"""A written model of each kernel's time on an H200: what is to be expected before a measurement.

A time is the largest of what the work asks of each unit (tensor cores or multiply-add, memory, L2,
shared memory, special functions), taken over whole waves of tiles on the multiprocessors, plus what
nothing hides: the launch, the first loads, the last stores. The model has been fitted to nothing.
`tilegrad bench cuda` puts each prediction beside what was measured, and one that misses says what
is not yet understood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from tilegrad import backends

ITEM = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
_BITS16 = ("bfloat16", "float16")


def _known(value: float, source: str) -> float:
    """Declare a constant of the chip with the place it is from."""
    return field(default=value, metadata={"source": source})


@dataclass(frozen=True)
class Chip:
    """What the model takes an H200 to be; each constant with its source.

    Example:
        >>> chip = Chip()
        >>> round(chip.tensor / 1e12), round(chip.copy / 1e12, 1)
        (790, 4.3)
    """

    multiprocessors: float = _known(132, "published: NVIDIA, H200")
    clock: float = _known(1.98e9, "published: NVIDIA, boost, Hz; less under a power limit")
    copy: float = _known(
        4.3e12, "assumption: 0.9 of the published 4.8 TB/s, read and written together"
    )
    tensor: float = _known(
        790e12, "assumption: 0.8 of the published 989 TFLOP/s of bf16, random data"
    )
    tf32: float = _known(395e12, "assumption: half of the 16-bit rate")
    older: float = _known(0.65, "assumption: what mma.sync reaches of wgmma's rate")
    fma: float = _known(66.9e12, "132 x 128 lanes x 2 x clock, float32; float64 half")
    special: float = _known(4.18e12, "132 x 16 lanes x clock: exp2 and the like")
    issue: float = _known(3.35e13, "132 x 4 x 32 lanes x clock: instructions of threads a second")
    l2: float = _known(8.3e12, "published: what fast.cu's 704 TFLOP/s with 128x256 tiles ask of L2")
    latency: float = _known(0.8e-6, "assumption: a load from memory under load")
    launch: float = _known(1.5e-6, "assumption: from one kernel's end to the next one's work")
    fill: float = _known(1.5e-6, "assumption: a tile's pipeline from its first load to full")
    slack: float = _known(0.9, "assumption: addresses, barriers and tails of a loop of FMA")
    call: float = _known(2.0e-6, "goal: what a call costs the host")
    update: float = _known(12e-6, "assumption: what an optimiser's step costs the host")

    def constants(self) -> list[tuple[str, float, str]]:
        """Return each constant's name, value and source."""
        return [(one.name, getattr(self, one.name), one.metadata["source"]) for one in fields(self)]


H200 = Chip()


@dataclass(frozen=True)
class Prediction:
    """A predicted time.

    Attributes:
        seconds: Of one call.
        bound: What most of it is spent on.
        kernels: What was assumed: tiles, splits, passes.
        launches: How many kernels are started.
    """

    seconds: float
    bound: str
    kernels: str = ""
    launches: int = 1

    def __add__(self, other: Prediction) -> Prediction:
        """Return the prediction of both, one after the other."""
        longer = self if self.seconds >= other.seconds else other
        seconds, launches = self.seconds + other.seconds, self.launches + other.launches
        return Prediction(seconds, longer.bound, longer.kernels, launches)


def largest(parts: dict[str, float]) -> tuple[float, str]:
    """Return the longest of the times that the units ask for, and the unit."""
    name = max(parts, key=lambda key: parts[key])
    return parts[name], name


def stream(
    read: float,
    written: float,
    *,
    resident: int = 2048,
    packets: int = 1,
    special: float = 0,
    flops: float = 0,
    instructions: float = 0,
    kernels: str = "one pass",
    chip: Chip = H200,
) -> Prediction:
    """Predict a pass over memory.

    Math: max((r + w) / copy, r latency / (SM resident 16 packets), special, flops) + launch.

    Args:
        read: Bytes.
        written: Bytes.
        resident: Threads on a multiprocessor at a time.
        packets: Loads of 16 bytes that a thread has on their way.
        special: Exponentials and the like.
        flops: Other operations.
        instructions: Of all threads together, where they were counted.
        kernels: In words.
        chip: The constants.

    Example:
        >>> stream(4.3e9, 0).bound, round(stream(4.3e9, 0).seconds * 1e3, 2)
        ('memory', 1.0)
    """
    flying = chip.multiprocessors * resident * packets * 16
    seconds, bound = largest({
        "memory": (read + written) / chip.copy,
        "loads under way": read * chip.latency / flying,
        "special functions": special / chip.special,
        "arithmetic": flops / chip.fma / chip.slack,
        "instructions": instructions / chip.issue,
    })  # fmt: skip
    exposed = chip.launch + chip.latency
    return Prediction(seconds + exposed, bound if seconds > exposed else "launch", kernels)


# name: (rows, columns of a tile, blocks on a multiprocessor), then for 32 threads and one k: fma,
# trips to the load unit, instructions. The load unit makes one trip a cycle, the lanes do four fma.
_RUNGS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "naive": ((32, 8, 8), (1, 33, 3)),
    "coalesced": ((8, 32, 8), (1, 2, 3)),
    "shared": ((32, 32, 2), (1, 2, 3)),
    "tile_1d": ((64, 64, 2), (8, 3, 11)),
    "tile_2d": ((128, 128, 2), (64, 16, 80)),
    "vectorized": ((128, 128, 2), (64, 6, 68)),
    "double_buffered": ((128, 128, 2), (64, 6, 68)),
    "warp_tile": ((128, 128, 2), (64, 4, 68)),
}


def library() -> Any:
    """Return a module that can be asked which kernel the library takes: every build has this."""
    return backends.at(backends.SIM)


def fma_product(
    m: int, n: int, k: int, dtype: str, rung: str, extra: float = 0, chip: Chip = H200
) -> Prediction:
    """Predict a product without tensor cores.

    Example:
        >>> p = fma_product(4096, 4096, 4096, "float32", "shared")
        >>> round(2 * 4096**3 / p.seconds / H200.fma, 2), p.bound
        (0.11, 'shared memory')
    """
    (rows, cols, together), (fma, trips, instructions) = _RUNGS[rung]
    if dtype == "float64" and rung not in ("naive", "coalesced", "shared"):
        rows, cols = max(rows // 2, 32), max(cols // 2, 32)
    per_fma, unit = largest({
        "arithmetic": fma / 4 * (2 if dtype == "float64" else 1),
        "shared memory": trips,
        "issue": instructions / 4,
    })  # fmt: skip
    cycles = per_fma / (32 * fma) * rows * cols * k / chip.slack
    tiles = math.ceil(m / rows) * math.ceil(n / cols)
    # blocks of one multiprocessor share its units: what counts is how many tiles the fullest has
    work = math.ceil(tiles / chip.multiprocessors) * cycles / chip.clock
    moved = ITEM[dtype] * (m * k + k * n + m * n) + extra
    reused = tiles * (rows + cols) * k * ITEM[dtype]
    through_l2 = reused / (1 if together < 8 else 8) / chip.l2  # 8 warps share a line in L1
    parts = {unit: work, "memory": moved / chip.copy, "L2": through_l2}
    seconds, bound = largest(parts)
    exposed = chip.launch + 2 * chip.latency
    return Prediction(seconds + exposed, bound if seconds > exposed else "launch", rung)


def tile_of(
    m: int, n: int, k: int, dtype: str, *, older: bool = False, chip: Chip = H200
) -> tuple[int, int, int]:
    """Return rows and columns of a tile of c, and the pieces of k, as the kernels choose them.

    Example:
        >>> tile_of(8192, 8192, 8192, "bfloat16"), tile_of(1, 4096, 4096, "bfloat16")
        ((128, 256, 1), (64, 128, 3))
    """
    if older:
        return 128, 128, 1
    count = int(chip.multiprocessors)
    rows, cols, pieces = library()._hopper_choice(1, m, n, k, count, ITEM[dtype])
    return rows, cols, pieces


def tensor_product(
    m: int,
    n: int,
    k: int,
    dtype: str,
    *,
    older: bool = False,
    extra: float = 0,
    products: int = 1,
    tile: tuple[int, int, int] | None = None,
    chip: Chip = H200,
) -> Prediction:
    """Predict a product on tensor cores.

    Math: max(waves of tiles, bytes / copy, bytes of all tiles / l2) + launch, fill, last stores.

    Args:
        m: Rows.
        n: Columns.
        k: Length of the sums.
        dtype: Of the operands; float32 is rounded to tf32.
        older: By mma.sync: the rung tensor_core, and operands that the copy engine cannot read.
        extra: Bytes that the epilogue moves besides.
        products: Of the tensor cores for each one: 3 for float32 from tf32.
        tile: Rows, columns and pieces of k. Default: those that the kernels choose.
        chip: The constants.

    Example:
        >>> p = tensor_product(8192, 8192, 8192, "bfloat16")
        >>> p.bound, p.kernels, p.seconds > 2 * 8192**3 / 790e12
        ('tensor cores', 'tile 128x256', True)
    """
    rows, cols, pieces = tile or tile_of(m, n, k, dtype, older=older, chip=chip)
    rate = chip.tensor if dtype in _BITS16 else chip.tf32
    rate *= (chip.older if older else 1.0) / products
    item = ITEM[dtype]
    # blocks with the widest tiles work in pairs that fetch columns of b for each other
    pair = 2 if cols == 256 else 1
    tiles = math.ceil(m / (rows * pair)) * pair * math.ceil(n / cols) * pieces
    step = 128 // item
    length = step * math.ceil(math.ceil(k / step) / pieces)
    brought = min(m, rows) + min(n, cols) / pair  # what lies outside c is not fetched
    waves = math.ceil(tiles / chip.multiprocessors)
    sums = 8.0 * m * n * pieces if pieces > 1 else 0.0  # written and read in float32
    seconds, bound = largest({
        "tensor cores": waves * 2 * rows * cols * length * chip.multiprocessors / rate,
        "memory": (item * (m * k + k * n + m * n) + extra) / chip.copy,
        "L2": (tiles * brought * length * item + sums) / chip.l2,
    })  # fmt: skip
    last = item / chip.copy * min(tiles * rows * cols, chip.multiprocessors * rows * cols, m * n)
    exposed = chip.launch + chip.fill + last + (chip.launch + chip.latency) * (pieces > 1)
    text = f"tile {rows}x{cols}" + (f", k in {pieces}" if pieces > 1 else "")
    bound = bound if seconds > exposed else "launch"
    return Prediction(seconds + exposed, bound, text, 1 + (pieces > 1))


def rung_of(m: int, n: int, k: int, dtype: str, layout: str = "NN") -> str:
    """Return the rung of the ladder that a call takes on an H200.

    Example:
        >>> rung_of(4096, 4096, 4096, "float32"), rung_of(128, 10, 512, "bfloat16", "NT")
        ('warp_tile', 'tensor_core')
    """
    whole = [length % 8 == 0 for length, _ in _lines(m, n, k, layout)]
    rung: str = library()._matmul_choice(1, m, n, k, ITEM[dtype], 90, layout[1] == "T", *whole)
    return rung


def _lines(m: int, n: int, k: int, layout: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return, of each operand, the length of a line and the size."""
    return (m if layout[0] == "T" else k, m * k), (k if layout[1] == "T" else n, k * n)


def _copied(m: int, n: int, k: int, layout: str) -> list[int]:
    """Return the sizes of the operands whose lines are no whole 16 bytes: copied for hopper."""
    return [size for length, size in _lines(m, n, k, layout) if length % 8]


def product(
    m: int, n: int, k: int, dtype: str, layout: str = "NN", extra: float = 0, chip: Chip = H200
) -> Prediction:
    """Predict a product as a call chooses its kernel.

    Example:
        >>> product(4096, 4096, 4096, "float32").kernels
        'warp_tile'
        >>> product(4095, 4097, 4099, "bfloat16").bound
        'tensor cores'
    """
    rung = rung_of(m, n, k, dtype, layout)
    if rung == "hopper":
        result = tensor_product(m, n, k, dtype, extra=extra, chip=chip)
        for size in _copied(m, n, k, layout):
            result += stream(ITEM[dtype] * size, ITEM[dtype] * size, chip=chip)
        return result
    if rung == "tensor_core":
        return tensor_product(m, n, k, dtype, older=True, extra=extra, chip=chip)
    return fma_product(m, n, k, dtype, rung, extra, chip)


def ladder(rung: str, n: int, dtype: str, chip: Chip = H200) -> Prediction:
    """Predict a rung of the matmul ladder on square operands."""
    if rung == "hopper":
        return tensor_product(n, n, n, dtype, chip=chip)
    if rung == "hopper_tf32":  # b is turned first, so that it runs along k
        item = ITEM[dtype]
        turned = stream(item * n * n, item * n * n, kernels="one pass", chip=chip)
        return tensor_product(n, n, n, dtype, chip=chip) + turned
    if rung in ("tensor_core", "tf32x3"):
        products = 3 if rung == "tf32x3" else 1
        return tensor_product(n, n, n, dtype, older=True, products=products, chip=chip)
    return fma_product(n, n, n, dtype, rung, chip=chip)
