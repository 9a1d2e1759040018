# SPDX-License-Identifier: MIT
"""Fixtures: the device, the instruction set and the number of threads an op runs with."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest

import tilegrad as tg
from helpers import Device
from tilegrad import _cpu, backends

ISAS = tuple(_cpu.supported_isas())
# The simulator runs every test under three orders of threads and of asynchronous copies: one alone
# can hide a missing barrier or wait.
SCHEDULES = {"forward": "forward/eager", "reverse": "reverse/lazy", "random": "random:7/random"}
BACKENDS = tuple(name for name, reason in tg.info()["backends"].items() if reason is None)

try:
    import torch
except ImportError:  # make test-oldest runs the tests that need no PyTorch
    pass
else:
    torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "tilegrad",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("tilegrad")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the tests marked slow too")
    parser.addoption(
        "--devices",
        default=",".join(BACKENDS),
        help="devices to run the tests of ops on, such as cuda or cpu,sim; default: all there are",
    )


def pytest_configure(config: pytest.Config) -> None:
    for name in devices(config):
        if name not in BACKENDS:
            reason = tg.info()["backends"].get(name, "no such device")
            raise pytest.UsageError(f"--devices: {name!r} cannot be used: {reason}")


def devices(config: pytest.Config) -> list[str]:
    return str(config.getoption("--devices")).split(",")


def variants(config: pytest.Config, with_isa: bool) -> list[tuple[str, str]]:
    """Return (device, ISA of the cpu or schedule of the simulator) for every way to run a test."""
    ways: dict[str, tuple[str, ...]] = {"sim": tuple(SCHEDULES), "cuda": ("",)}
    ways["cpu"] = ISAS if with_isa else ("",)
    return [(device, way) for device in devices(config) for way in ways[device]]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full") or os.environ.get("TILEGRAD_TEST_FULL", "0") != "0":
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for them every device, and on the cpu every instruction set.

    A test that says `@pytest.mark.cpu_only(reason)` is about the cpu alone: its threads, strides.
    """
    wants_device, wants_isa = (name in metafunc.fixturenames for name in ("device", "isa"))
    if wants_device:
        ways = variants(metafunc.config, wants_isa)
        if metafunc.definition.get_closest_marker("cpu_only"):
            ways = [way for way in ways if way[0] == "cpu"]
        ids = ["-".join(part for part in way if part) for way in ways]
        if wants_isa:
            ids = [way[1] if way[0] == "cpu" else name for way, name in zip(ways, ids, strict=True)]
            pairs = [(way, way[1] if way[0] == "cpu" else "") for way in ways]
            metafunc.parametrize(("device", "isa"), pairs, indirect=True, ids=ids)
        else:
            metafunc.parametrize("device", ways, indirect=True, ids=ids)
    elif wants_isa:
        metafunc.parametrize("isa", ISAS, indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    name, way = request.param
    if name != "sim":
        yield Device(name)
        return
    sim = backends.at(backends.SIM)
    before = sim.schedule()
    sim._set_schedule(SCHEDULES[way])
    yield Device(name)
    sim._set_schedule(before)


@pytest.fixture(autouse=True)
def _same_runtime_afterwards() -> Iterator[None]:
    """Restore the instruction set and the threads, whoever changed them."""
    isa, threads = _cpu.isa(), tg.num_threads()
    yield
    _cpu._set_isa(isa)
    tg.set_num_threads(threads)


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> str:
    """Force an instruction set of the cpu; empty for another device."""
    name: str = request.param
    if name:
        _cpu._set_isa(name)
        assert _cpu.isa() == name
    return name


@pytest.fixture(params=(1, 2))
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    tg.set_num_threads(count)
    return count


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's function: the same data for every device, ISA and thread."""
    return np.random.default_rng([ord(c) for c in request.function.__name__])
