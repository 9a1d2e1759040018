# SPDX-License-Identifier: MIT
"""The model of a GPU's time: floors, examples by hand, and that its kernels are the library's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import backends
from tilegrad.bench import gpu_model, gpu_op_model
from tilegrad.bench.device import Workbench
from tilegrad.bench.device_workloads import all_cases
from tilegrad.bench.device_workloads import matmul as matmul_cases

CASES = all_cases(Workbench())
CHIP = gpu_model.H200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_case_has_a_prediction_that_no_unit_forbids(case: Any) -> None:
    assert case.predicted is not None
    seconds = case.predicted.seconds
    if case.family == "host":
        return
    if case.family != "train_step":  # whose weights stay in L2
        assert seconds > case.bytes / CHIP.copy
    on_tensor_cores = "f32" not in case.name or any(w in case.name for w in ("tf32", "tensor_core"))
    assert seconds > case.flops / (CHIP.tensor if on_tensor_cores else CHIP.fma)
    assert seconds < 1
    assert case.predicted.bound


def test_predictions_grow_with_the_work() -> None:
    for rows in (64, 512, 4096):
        for dtype in ("bfloat16", "float32"):
            one = gpu_model.product(rows, 4096, 4096, dtype, "NT").seconds
            assert gpu_model.product(2 * rows, 4096, 4096, dtype, "NT").seconds >= 0.99 * one
            assert gpu_model.product(rows, 4096, 8192, dtype, "NT").seconds > one
    small, large = (gpu_op_model.cross_entropy(n, 32768, "bfloat16").seconds for n in (4096, 8192))
    assert small < large < 2 * small
    step = [
        gpu_op_model.train_step((784, 512, 10), n, "float32", 0).seconds for n in (32, 512, 8192)
    ]
    assert step == sorted(step)
    small = gpu_op_model.train_step((784, 512, 10), 128, "float32", 0)
    assert small.kernels == "one kernel"
    assert small.seconds < gpu_op_model.train_step((784, 512, 10), 128, "bfloat16", 0).seconds


def test_what_limits_a_kernel_is_named() -> None:
    product = gpu_model.tensor_product
    assert gpu_model.ladder("naive", 4096, "float32").bound == "shared memory"
    assert product(8192, 8192, 8192, "bfloat16").bound == "tensor cores"
    assert product(8192, 8192, 8192, "float32", older=True, products=3).bound == "tensor cores"
    assert product(8, 4096, 14336, "bfloat16").bound == "memory"
    whole = product(512, 512, 65536, "bfloat16", tile=(128, 256, 1))
    parts = product(512, 512, 65536, "bfloat16")
    assert parts.kernels == "tile 128x256, k in 16"
    assert (whole.launches, parts.launches) == (1, 2)
    assert parts.seconds < whole.seconds / 3
    few = gpu_model.stream(1e9, 1e9, resident=256)
    assert few.bound == "loads under way"
    assert gpu_model.stream(1e3, 1e3).bound == "launch"
    whole, odd = (gpu_model.product(4096, n, 4096, "bfloat16").seconds for n in (4096, 4095))
    assert 1.05 * whole < odd < 1.5 * whole  # one operand is copied first
    assert gpu_op_model.optimizer(1000, 7).bound == "host"


def test_constants_have_sources() -> None:
    for name, value, source in CHIP.constants():
        assert value > 0, name
        # nothing is called measured before a result is stored
        assert source.startswith(("published: ", "assumption: ", "goal: ", "132 x ")), name


# what: prediction, microseconds worked out by hand from the constants
BY_HAND = {
    # 8 bytes an element, a launch, a load
    "relu": (gpu_op_model.activation("relu", "forward", "float32", 100_000_000, 1),
             8e8 / 4.3e6 + 1.5 + 0.8),
    # weights, gradients and two states read, all but the gradients written: 28 bytes
    "Adam": (gpu_op_model.optimizer(180_355_072, 7), 28 * 180.355072 / 4.3 + 1.5 + 0.8),
    # a bf16 read and written; two sums over the rows
    "cross-entropy": (gpu_op_model.cross_entropy(8192, 32768, "bfloat16"),
                      4 * 8192 * 32768 / 4.3e6 + 1.5 + 0.8 + 2 * 1.5),
    # 16 x 32 tiles on 132 multiprocessors: 4 turns; launch, fill, the last 132 tiles' stores
    "large product": (gpu_model.product(4096, 4096, 4096, "bfloat16"),
                      4 * 2 * 128 * 256 * 4096 / (790e6 / 132) + 1.5 + 1.5
                      + 132 * 128 * 256 * 2 / 4.3e6),
    # b is read once; c in 3 pieces costs a second kernel
    "one row": (gpu_model.product(1, 4096, 4096, "bfloat16", "NT"),
                2 * 4096 * 4096 / 4.3e6 + 1.5 + 1.5 + 1.5 + 0.8),
    # 32 x 32 tiles, 8 turns; 17 cycles for 64 sums of a warp, 256 of them a tile, 0.9 of the slots
    "float32 product": (gpu_model.product(4096, 4096, 4096, "float32"),
                        8 * 17 / 64 / 32 * 128 * 128 * 4096 / 0.9 / 1980 + 1.5 + 2 * 0.8),
    # 4 arrays of 64 columns of bf16: x and y, twice; no unit but memory counts
    "fused MLP": (gpu_op_model.fused_mlp(1 << 21, 64, 5, training=False),
                  2**21 * 64 * 2 * 2 / 4.3e6 + 1.5 + 1.5),
    # 16384 blocks' rows on 132: 125 turns of 4 x 348 + 5 x (348 + 256 + 64) cycles
    "fused MLP training": (gpu_op_model.fused_mlp(1 << 21, 64, 5, training=True),
                           2**21 * 64 * 2 * 2 / 4.3e6 + 3.0
                           + 125 * 4732 * 132 * 4096 / 790e6 + 2 * 1.5 + 1.5),
    # start, 4 barriers, head; tiles: forward, dx, W2, W1 (two turns), W0; 4 more things to start
    "step": (gpu_op_model.train_step((784, 512, 512, 10), 128, "float32", 0),
             3 + 4 * 1.2 + 2
             + (784 * 8 + 2 * 512 * 8 + 128 * 8 + 2 * 128 * 12 + 128 * 48 + 7 * 1500) / 1980
             + 4 * 1.5),
}  # fmt: skip


@pytest.mark.parametrize("what", BY_HAND)
def test_predictions_are_what_a_hand_works_out(what: str) -> None:
    predicted, by_hand = BY_HAND[what]
    assert 1e6 * predicted.seconds == pytest.approx(by_hand, rel=0.01)


# how far above its roof a large case may be, and why
FACTORS = {
    "matmul": 1.6,  # waves; odd operands are copied first
    "linear": 1.6,  # dz between the products
    "activation": 2.0,  # gelu's instructions
    "fused_mlp": 5.0,  # of 128 columns the backward pass goes layer by layer
}
LARGE = [
    case for case in CASES
    if (case.flops > 1e11 or case.bytes > 5e8)
    and case.family != "train_step" and not case.family.endswith("_ladder")
]  # fmt: skip


@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.id)
def test_large_cases_are_near_their_roof(case: Any) -> None:
    rate = CHIP.fma if "f32" in case.name else CHIP.tensor
    roof = max(case.bytes / CHIP.copy, case.flops / rate)
    assert roof < case.predicted.seconds < FACTORS.get(case.family, 1.15) * roof


# ---- the choices are the library's --------------------------------------------------------------


def sim() -> Any:
    return backends.at(backends.SIM)


@pytest.fixture
def hopper() -> Iterator[Any]:
    module = sim()
    major, minor = module.properties(backends.SIM)["compute_capability"]
    module._set_compute_capability(90)
    yield module
    module._set_compute_capability(10 * major + minor)


@pytest.mark.parametrize("shape", matmul_cases.SHAPES, ids=str)
def test_a_prediction_has_the_kernel_and_tile_of_the_library(
    shape: tuple[int, int, int, str],
) -> None:
    m, n, k, layout = shape
    whole = [length % 8 == 0 for length in (m if layout[0] == "T" else k,
                                            k if layout[1] == "T" else n)]  # fmt: skip
    rung = sim()._matmul_choice(1, m, n, k, 2, 90, layout[1] == "T", *whole)
    predicted = gpu_model.product(m, n, k, "bfloat16", layout)
    if rung == "tensor_core":
        assert predicted.kernels == "tile 128x128"
        return
    assert rung == "hopper"
    rows, cols, pieces = sim()._hopper_choice(1, m, n, k, 132)
    named = f"tile {rows}x{cols}" + f", k in {pieces}" * (pieces > 1)
    product = gpu_model.tensor_product(m, n, k, "bfloat16")
    assert (product.kernels, predicted.launches >= product.launches) == (named, True)
    # the library's model of tiles is another one than this: they agree on what is good
    tiles = [(a, b, c) for a, b in ((64, 128), (128, 128), (128, 256)) for c in (1, 2, 3, 4, 8, 16)
             if c == 1 or (k >= 256 * c and -(-m // a) * -(-n // b) * c <= 132)]  # fmt: skip
    best = min(gpu_model.tensor_product(m, n, k, "bfloat16", tile=t).seconds for t in tiles)
    assert product.seconds <= 1.2 * best


def test_the_tile_of_a_tf32_product_is_the_librarys() -> None:
    for m, n, k in ((4096, 4096, 4096), (128, 1100, 512), (1024, 1024, 8192)):
        tile = sim()._hopper_choice(1, m, n, k, 132, 4)
        assert gpu_model.tile_of(m, n, k, "float32") == tile


BORDERS = [
    ((784, 512, 512, 10), 128), ((784, 512, 512, 10), 1024), ((5, 3), 1024), ((5, 3), 1025),
    ((5, 128), 4), ((5, 129), 4), ((8192, 4), 4), ((8193, 4), 4), ((4, 8192, 4), 4),
    ((4, 8193, 4), 4), ((8,) * 9, 16), ((512, 512, 128), 819), ((512, 512, 128), 1024),
    ((1024, 128), 1024), ((1024, 256, 128), 900), ((1024, 256, 128), 901), ((1024, 1024, 64), 234),
    ((1024, 1024, 64), 235), ((1, 1), 1),
]  # fmt: skip


@pytest.mark.parametrize(("widths", "rows"), BORDERS, ids=str)
def test_a_step_by_one_kernel_is_predicted_where_the_library_takes_it(
    widths: tuple[int, ...], rows: int, hopper: Any
) -> None:
    taken = hopper._takes_network_step(rows, list(widths))
    assert gpu_op_model.takes_one_kernel(widths, rows, "float32") == taken
    assert not gpu_op_model.takes_one_kernel(widths, rows, "bfloat16")
    one = gpu_op_model.train_step(widths, rows, "float32", 0).kernels == "one kernel"
    assert one == taken


def test_borders_are_on_both_sides() -> None:
    taken = [gpu_op_model.takes_one_kernel(*border, "float32") for border in BORDERS]
    assert 5 <= sum(taken) <= len(BORDERS) - 5
    assert not gpu_op_model.takes_one_kernel((8,) * 10, 16, "float32")


# widths, rows, dtype: rows below and above where sums over rows are cut; products by every rung
STEPS = [
    ((16, 12, 12, 10), 24, "float32"), ((64, 64, 64, 10), 300, "float32"),
    ((64, 64, 10), 128, "bfloat16"), ((64, 64, 64, 10), 1024, "bfloat16"),
    ((64, 64, 10), 5000, "bfloat16"),
]  # fmt: skip


@pytest.mark.parametrize(("widths", "rows", "dtype"), STEPS, ids=str)
def test_a_step_has_as_many_kernels_as_the_trace_shows(
    widths: tuple[int, ...], rows: int, dtype: str, hopper: Any
) -> None:
    pytest.importorskip("elftools")
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    modules = [
        tg.nn.Linear(i, o, activation="relu" if o != widths[-1] else None, dtype=dtype)
        for i, o in pairwise(widths)
    ]
    model = tg.nn.Sequential(*modules).to("sim")
    step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    step._one_kernel = False
    x = rng.standard_normal((rows, widths[0])).astype("f4")
    batch = [tg.asarray(x.astype(dtype), device="sim"),
             tg.asarray(rng.integers(0, widths[-1], rows), device="sim")]  # fmt: skip
    with tg.sim.trace("forward/eager") as found:
        step(*batch)  # and what only a first step does
        step(*batch)
    names = [launch.kernel.split("<")[0] for launch in found.launches]
    (*_, last) = (i for i, name in enumerate(names) if name == "store_step_state_kernel")
    graph = names[last + 1 :]
    chip = gpu_model.Chip(multiprocessors=hopper.properties(backends.SIM)["multiprocessors"])
    predicted = gpu_op_model._layers(widths, rows, dtype, 0, chip)
    assert predicted.launches == len(graph), graph


@pytest.mark.parametrize("width", [16, 64, 65, 128])
@pytest.mark.parametrize("training", [False, True])
def test_a_fused_network_has_as_many_kernels_as_the_trace_shows(
    width: int, training: bool, hopper: Any, rng: np.random.Generator
) -> None:
    pytest.importorskip("elftools")
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16

    def put(*shape: int) -> Any:
        return tg.asarray(rng.standard_normal(shape).astype(bfloat16), device="sim")

    rows, layers = 300, 3
    x, weights = put(rows, width), [put(width, width) for _ in range(layers)]
    biases = [put(width) for _ in range(layers)]
    with tg.sim.trace("forward/eager") as found:
        y = tg.fused_mlp(x, weights, biases)
        if training:
            tg.fused_mlp_backward(y, x, weights, biases)
    chip = gpu_model.Chip(multiprocessors=hopper.properties(backends.SIM)["multiprocessors"])
    predicted = gpu_op_model.fused_mlp(rows, width, layers, training=training, chip=chip)
    names = [launch.kernel for launch in found.launches]
    assert predicted.launches == len(names), names
    fused = sum(name.startswith("fused_mlp") for name in names)
    assert (fused == len(names)) == (predicted.kernels == "on chip")
