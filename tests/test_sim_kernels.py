# SPDX-License-Identifier: MIT
"""Kernels of a user in the simulator: launches, arguments, traces, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import sim

KERNELS = (Path(__file__).parent / "cpp" / "own_kernels.cu").read_text()
NAMES = (
    "strided", "coalesced", "unguarded", "static_sum", "dynamic_sum", "shuffle_sum", "racing_sum",
    "conflict", "where",
)  # fmt: skip
SCHEDULES = ("forward/eager", "reverse/lazy", "random:7")


def line(mark: str) -> int:
    (number,) = [n for n, text in enumerate(KERNELS.split("\n"), 1) if f"// [{mark}]" in text]
    return number


@pytest.fixture(scope="module")
def module() -> sim.KernelModule:
    return tg.sim.compile(KERNELS, name="mine.cu")


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> Iterator[str]:
    before = tg.sim.schedule()
    tg.sim.set_schedule(request.param)
    yield request.param
    tg.sim.set_schedule(before)


def on_sim(*shape: int, dtype: str = "float32") -> tg.Array:
    values = np.random.default_rng(0).integers(-50, 50, shape)  # whole: sums are exact
    return tg.asarray(values.astype(dtype), device="sim")


# ---- results ------------------------------------------------------------------------------------


def test_kernels_and_their_parameters_are_known(module: sim.KernelModule) -> None:
    assert tuple(module.kernels) == tuple(f"{name}_kernel" for name in NAMES)
    assert module.strided_kernel is module.kernels["strided_kernel"]
    assert module.strided_kernel.parameters == ("float32*", "float32*", "int32")
    assert module.where_kernel.parameters == ("int32*", "int64", "bool", "uint8")
    assert repr(module).startswith("mine.cu: strided_kernel(float32*, float32*, int32), ")
    with pytest.raises(AttributeError, match="no kernel other; there are strided_kernel, "):
        module.other  # noqa: B018


@pytest.mark.parametrize("n", [1, 31, 256, 1000])
@pytest.mark.parametrize("name", ["strided_kernel", "coalesced_kernel"])
def test_a_copy_copies(module: sim.KernelModule, name: str, n: int, schedule: str) -> None:
    x, y = on_sim(n), tg.full((n + 1,), -7.0, device="sim")
    module.kernels[name][-(-n // 128), 128](y, x, n)
    np.testing.assert_array_equal(y.numpy(), np.append(x.numpy(), -7))


@pytest.mark.parametrize(
    ("name", "block", "dynamic_bytes"),
    [("static_sum", 128, 0), ("dynamic_sum", 64, 256), ("shuffle_sum", 32, 0)],
)
def test_a_block_works_together(
    module: sim.KernelModule, name: str, block: int, dynamic_bytes: int, schedule: str
) -> None:
    x, y = on_sim(3, block), tg.empty((3,), dtype="float64", device="sim")
    module.kernels[f"{name}_kernel"][3, block, dynamic_bytes](y, x)
    np.testing.assert_array_equal(y.numpy(), x.numpy().sum(axis=1))


def test_a_grid_has_three_axes_and_scalars_arrive(module: sim.KernelModule) -> None:
    y = tg.zeros((6, 8), dtype="int32", device="sim")
    module.where_kernel[(2, 3), (4, 2, 1)](y, 8, True, np.uint8(200))
    expected = 100 * np.arange(6)[:, None] + np.arange(8) + 200
    np.testing.assert_array_equal(y.numpy(), expected)
    module.where_kernel[(2, 3), (4, 2)](y, 8, False, 200)
    np.testing.assert_array_equal(y.numpy(), expected - 200)


def test_views_are_passed_by_their_first_element(module: sim.KernelModule) -> None:
    x, y = on_sim(4, 32), tg.zeros((4, 32), device="sim")
    module.coalesced_kernel[1, 32](y[2], x[1], 32)
    np.testing.assert_array_equal(y.numpy()[2], x.numpy()[1])
    assert not y.numpy()[[0, 1, 3]].any()


def test_another_thread_has_shared_memory_of_its_own(module: sim.KernelModule) -> None:
    def total(seed: int) -> tuple[float, float]:
        values = np.random.default_rng(seed).integers(0, 9, 128).astype(np.float32)
        y = tg.empty((1,), dtype="float64", device="sim")
        for _ in range(6):  # in its first launches what is shared memory is learnt
            module.static_sum_kernel[1, 128](y, tg.asarray(values, device="sim"))
        return y.item(), values.sum()

    with ThreadPoolExecutor(2) as pool:
        for found, expected in pool.map(total, range(8)):
            assert found == expected


# ---- what a trace and a fault say ---------------------------------------------------------------


def site(trace: sim.Trace, mark: str, space: str, op: str) -> tuple[int, int, int, int]:
    (found,) = [
        each
        for each in trace.sites
        if (each.file, each.line, each.space, each.op) == ("mine.cu", line(mark), space, op)
    ]
    return found.requests, found.sectors, found.ideal, found.worst


@pytest.mark.parametrize("op", ["load", "store"])
@pytest.mark.parametrize(
    # 1024 elements are 128 sectors of 32 bytes, 32 requests of a warp. With 8 elements a thread
    # each of the 32 lanes is in a sector of its own.
    ("name", "grid", "expected"),
    [("strided", 1, (32, 1024, 128, 32)), ("coalesced", 8, (32, 128, 128, 4))],
)
def test_coalescing_is_counted(
    module: sim.KernelModule, name: str, grid: int, expected: tuple[int, ...], op: str
) -> None:
    x, y = on_sim(1024), tg.empty((1024,), device="sim")
    with tg.sim.trace() as t:
        module.kernels[f"{name}_kernel"][grid, 128](y, x, 1024)
    assert site(t, name, "global", op) == expected
    assert [(each.kernel, each.grid) for each in t.launches] == [(f"{name}_kernel", (grid, 1, 1))]
    assert {each.kernel for each in t.sites} == {f"{name}_kernel"}
    assert not t.races
    assert not t.out_of_bounds
    np.testing.assert_array_equal(y.numpy(), x.numpy())


@pytest.mark.parametrize(("pitch", "wavefronts"), [(32, 32), (33, 1)])
def test_bank_conflicts_are_counted(module: sim.KernelModule, pitch: int, wavefronts: int) -> None:
    y = tg.empty((32,), device="sim")
    with tg.sim.trace() as t:
        module.conflict_kernel[1, 32](y, pitch)
    assert site(t, "column", "shared", "load") == (1, wavefronts, 1, wavefronts)
    np.testing.assert_array_equal(y.numpy(), np.arange(32))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_missing_barrier_is_a_race(module: sim.KernelModule, schedule: str) -> None:
    y = tg.empty((64,), dtype="float64", device="sim")
    with tg.sim.trace(schedule) as t:
        module.racing_sum_kernel[1, 64](y, on_sim(64))
    assert t.races
    for race in t.races:
        assert {(a.file, a.line) for a in (race.first, race.second)} == {
            ("mine.cu", line("racing store")),
            ("mine.cu", line("race")),
        }
        assert (race.variable, race.bytes, race.space) == ("racing", 64 * 4, "shared")
    assert f"mine.cu:{line('race')}" in str(t)
    with tg.sim.trace(schedule) as t:
        module.static_sum_kernel[1, 128](y, on_sim(128))
    assert t.sites
    assert not t.races


def test_ops_and_own_kernels_share_a_trace(module: sim.KernelModule) -> None:
    x, y = on_sim(64), tg.empty((64,), device="sim")
    with tg.sim.trace() as t:
        module.coalesced_kernel[1, 64](y, tg.relu(x), 64)
    assert [each.kernel for each in t.launches] == ["activation_kernel<float>", "coalesced_kernel"]
    files = {each.file for each in t.sites}
    assert "mine.cu" in files
    assert any(file.startswith("csrc/cuda/") for file in files)
    assert "?" not in files
    np.testing.assert_array_equal(y.numpy(), np.maximum(x.numpy(), 0))


def test_an_access_out_of_bounds_names_the_line(module: sim.KernelModule) -> None:
    x, y = on_sim(1024), tg.empty((1024,), device="sim")  # a page: its guard follows
    who = r"thread \(0,0,0\) of block \(8,0,0\)"
    place = rf"offset 4096 .* {who}, mine\.cu:{line('unguarded')}$"
    with pytest.raises(RuntimeError, match=f"out of bounds: it reads at {place}"):
        module.unguarded_kernel[9, 128](y, x, 2.0)
    with pytest.raises(RuntimeError, match=place), tg.sim.trace() as t:
        module.unguarded_kernel[9, 128](y, x, 2.0)
    (found,) = t.out_of_bounds
    assert (found.offset, found.bytes, found.access.op) == (4096, 4096, "load")
    assert (found.access.file, found.access.line) == ("mine.cu", line("unguarded"))
    module.unguarded_kernel[8, 128](y, x, 2.0)  # the next launch works
    np.testing.assert_array_equal(y.numpy(), 2 * x.numpy())


# ---- arguments ----------------------------------------------------------------------------------

WRONG_CALLS = [
    (lambda x: (x, x), TypeError, r"takes 3 arguments; got 2"),
    (lambda x: (x, x, 3.5), ValueError, r"argument 3 must be int32; got 3\.5"),
    (lambda x: (x, x, 2**31), ValueError, r"argument 3 must be int32; got 2147483648"),
    (lambda x: (x, x.numpy(), 4), TypeError, r"argument 2 must be an Array on sim; got ndarray"),
    (
        lambda x: (on_sim(4, dtype="float64"), x, 4),
        TypeError,
        r"argument 1 must be of float32; got float64",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "text"), WRONG_CALLS, ids=range(len(WRONG_CALLS)))
def test_wrong_arguments_are_refused(
    module: sim.KernelModule,
    arguments: Callable[[tg.Array], tuple[object, ...]],
    error: type[Exception],
    text: str,
) -> None:
    with pytest.raises(error, match=r"^coalesced_kernel\(float32\*, float32\*, int32\): " + text):
        module.coalesced_kernel[1, 32](*arguments(on_sim(4)))


def test_wrong_launches_are_refused(module: sim.KernelModule) -> None:
    kernel = module.coalesced_kernel
    for configuration in (1, (1,), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match=r"coalesced_kernel\[grid, block\]"):
            kernel[configuration]
    for sizes in (-1, 0, (1, 1, 1, 1), (), 2**31, (1, 65536), (1, 1, 65536)):
        with pytest.raises(ValueError, match="coalesced_kernel: grid is one to three sizes from 1"):
            kernel[sizes, 32]
    for sizes in (0, 1025, (1, 1, 65)):
        with pytest.raises(ValueError, match="coalesced_kernel: block is one to three sizes"):
            kernel[1, sizes]
    with pytest.raises(ValueError, match="coalesced_kernel: a block has at most 1024 threads"):
        kernel[1, (32, 64)]
    with pytest.raises(ValueError, match="coalesced_kernel: shared memory cannot be negative"):
        kernel[1, 32, -1]
    x, y = on_sim(4), on_sim(4)
    kernel[(1, 1, 1), (4, 8, 32)](y, x, 0)
    with pytest.raises(RuntimeError, match="bytes of dynamic shared memory"):
        kernel[1, 32, 1 << 20](y, x, 4)
    with pytest.raises(RuntimeError, match="null pointer: it reads at address 0"):
        kernel[1, 32](y, None, 4)
    kernel[1, 32](y, x, 4)
