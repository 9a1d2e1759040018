# SPDX-License-Identifier: MIT
"""Fixtures: the device, the instruction set and the number of threads an op runs with."""

from __future__ import annotations

import itertools
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
THREADS = (1, 2)
# Compute capabilities of the simulated device, for tests that ask for them. 7.5 has no asynchronous
# copies; what 8.0 has in common with 9.0 need not be tried at random twice.
CAPABILITIES = {"forward": (75, 80, 90), "reverse": (80, 90), "random": (90,)}
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
    config.addinivalue_line("markers", "not_on_cpu(reason): about the kernels of cuda and sim")
    config.addinivalue_line(
        "markers", "simulated(name, rule): on sim, only the values of a parameter that satisfy rule"
    )
    config.addinivalue_line(
        "markers", "on_cpu(name, rule): on the cpu, only the values that satisfy rule"
    )
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
    """Leave out what is slow, what belongs to no chosen device, and what is too long for sim."""
    full = config.getoption("--full") or os.environ.get("TILEGRAD_TEST_FULL", "0") != "0"
    chosen = devices(config)
    left_out = {
        item
        for item in items
        if (not full and item.get_closest_marker("slow"))
        or device_of(item) not in (None, *chosen)
        or is_not_for(item, "sim", "simulated")
        or is_not_for(item, "cpu", "on_cpu")
    }
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def device_of(item: pytest.Item) -> str | None:
    """Return the device that a test runs on; None if it names none."""
    call, names = getattr(item, "callspec", None), getattr(item, "fixturenames", ())
    if call is not None and "device" in call.params:
        name: str = call.params["device"][0]
        return name
    return "cpu" if "isa" in names or "threads" in names else None


def is_not_for(item: pytest.Item, device: str, marker: str) -> bool:
    """Apply the test's `marker(name, rule)`: on the device only the cases that satisfy the rule."""
    if device_of(item) != device:
        return False
    call = item.callspec  # type: ignore[attr-defined]
    markers = item.iter_markers(marker)
    return not all(rule(call.params[name]) for name, rule in (mark.args for mark in markers))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for them every device, and on the cpu every ISA and thread count.

    A test that says `@pytest.mark.cpu_only(reason)` is about the cpu alone: its threads, strides;
    one that says `@pytest.mark.not_on_cpu(reason)` about all the others.
    """
    known = ("device", "isa", "threads", "compute_capability")
    wanted = [name for name in known if name in metafunc.fixturenames]
    if not wanted:
        return
    ways = variants(metafunc.config, "isa" in wanted)
    if metafunc.definition.get_closest_marker("not_on_cpu"):  # left out again where there is none
        ways = [way for way in ways if way[0] != "cpu"] or [("sim", "forward")]
    elif "device" not in wanted or metafunc.definition.get_closest_marker("cpu_only"):
        ways = [("cpu", isa) for isa in (ISAS if "isa" in wanted else ("",))]
    rows, ids = [], []
    for device, way in ways:
        isa = way if device == "cpu" else ""
        counts = THREADS if device == "cpu" and "threads" in wanted else THREADS[:1]
        simulated = device == "sim" and "compute_capability" in wanted
        capabilities = CAPABILITIES[way] if simulated else (0,)
        for count, capability in itertools.product(counts, capabilities):
            values = {"device": (device, way), "isa": isa, "threads": count}
            values["compute_capability"] = capability
            rows.append([values[name] for name in wanted])
            label = [isa or device] if "isa" in wanted or "device" in wanted else []
            label += [way] if device == "sim" else []
            label += [str(count)] if len(counts) > 1 else []
            label += [f"cc{capability}"] if capability else []
            ids.append("-".join(label))
    metafunc.parametrize(wanted, rows, indirect=True, ids=ids)


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


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    tg.set_num_threads(count)
    return count


@pytest.fixture
def compute_capability(request: pytest.FixtureRequest) -> Iterator[int]:
    """Make the simulator a device of a compute capability; 0 leaves a real device as it is."""
    value: int = request.param
    if value == 0:
        yield 0
        return
    sim = backends.at(backends.SIM)
    major, minor = sim.properties(backends.SIM)["compute_capability"]
    sim._set_compute_capability(value)
    yield value
    sim._set_compute_capability(10 * major + minor)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's function: the same data for every device, ISA and thread."""
    return np.random.default_rng([ord(c) for c in request.function.__name__])
