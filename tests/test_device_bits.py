# SPDX-License-Identifier: MIT
"""Every op on a device: the same bits in every schedule, at every address, in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from call_inputs import NOT_16_BIT, Call, each_array, legal_calls
from conftest import SCHEDULES
from half_inputs import BFLOAT16, FLOAT16, Half, bits
from helpers import Device, assert_same_bits
from tilegrad import backends

HALVES: dict[str, Half] = {"bfloat16": BFLOAT16, "float16": FLOAT16}
DTYPES = ("float32", "float64", *HALVES)
# (rows, inner, columns): inside one tile; across the edges of several, in rows and in columns.
SIZES = [(5, 3, 7), (70, 19, 132), (33, 300, 40)]
OPS = [(op, dtype) for op in legal_calls() for dtype in DTYPES
       if dtype not in HALVES or not op.startswith(NOT_16_BIT)]  # fmt: skip


def calls_of(op: str, size: tuple[int, int, int]) -> Call:
    """Return a call with random operands: the same ones at every call."""
    rng = np.random.default_rng([ord(c) for c in op])

    def fill(*shape: int, start: float = -1.0) -> Any:
        x = rng.standard_normal(shape)
        return np.abs(x) + start if start > 0 else x

    return legal_calls(fill, *size)[op]


def put(device: Device, call: Call, dtype: str, offset: int) -> Call:
    def there(x: Any) -> Any:
        if x.dtype.kind != "f":
            return device.put(x, offset)
        if dtype in HALVES:
            return HALVES[dtype].put(device, x, offset)
        return device.put(x.astype(dtype), offset)

    return {name: each_array(there, value) for name, value in call.items()}


def answers(op: str, call: Call) -> list[Any]:
    result = getattr(tg, op)(**call)
    parts = result if isinstance(result, tuple) else (result,)
    flat = [y for x in parts for y in (x if isinstance(x, tuple) else (x,))]
    return [bits(x) if x._dtype in (2, 3) else x.numpy() for x in flat]


@pytest.mark.not_on_cpu("about schedules, addresses and runs of a device")
@pytest.mark.parametrize(("op", "dtype"), OPS)
def test_an_op_has_the_same_bits_at_every_address_and_in_every_run(
    device: Device, op: str, dtype: str
) -> None:
    for size in SIZES:
        call = calls_of(op, size)
        want = answers(op, put(device, call, dtype, 0))
        for offset in (0, 1, 2, 3):
            got = answers(op, put(device, call, dtype, offset))
            for one, other in zip(got, want, strict=True):
                assert_same_bits(one, other, what=f"{size} at offset {offset}")


@pytest.mark.skipif(tg.info()["backends"]["sim"] is not None, reason="this build has no simulator")
@pytest.mark.parametrize(("op", "dtype"), OPS)
def test_an_op_has_the_same_bits_in_every_schedule(op: str, dtype: str) -> None:
    sim, device = backends.at(backends.SIM), Device("sim")
    before = sim.schedule()
    try:
        for size in SIZES:
            call, results = put(device, calls_of(op, size), dtype, 0), {}
            for name in (*SCHEDULES.values(), "random:11/random"):
                sim._set_schedule(name)
                results[name] = answers(op, call)
            first = results.pop(SCHEDULES["forward"])
            for name, got in results.items():
                for one, other in zip(got, first, strict=True):
                    assert_same_bits(one, other, what=f"{size} under {name}")
    finally:
        sim._set_schedule(before)


@pytest.mark.not_on_cpu("the same numbers as the cpu's")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["random_uniform", "random_normal"])
def test_random_numbers_are_the_cpus(device: Device, op: str, dtype: Any) -> None:
    module, cpu = backends.at(backends.place_of(device.name)), backends.at(None)
    for shape in [(), (1,), (3,), (4,), (5,), (33, 7), (1021,), (0,)]:
        for options in [(-1.0, 1.0), (-0.3, 0.7), (0.0, 1e-3)]:
            for seed, offset in [(0, 0), (2**64 - 1, 7), (12345, 2**64 - 3)]:
                arguments = (shape, dtype == np.float64, *options, seed, offset)
                got = device.get(getattr(module, op)(*arguments))
                assert_same_bits(got, getattr(cpu, op)(*arguments))


@pytest.mark.not_on_cpu("the same weights as the cpu's")
def test_initial_weights_are_the_cpus(device: Device) -> None:
    tg.manual_seed(5)
    here = tg.nn.Linear(33, 17)
    tg.manual_seed(5)
    there = tg.nn.Linear(33, 17).to(device.name)
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        assert isinstance(one.data, tg.Array)
        assert_same_bits(one.data, other.data)
