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
from tilegrad import _cpu

DEVICES = ("cpu",)
ISAS = tuple(_cpu.supported_isas())

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full") or os.environ.get("TILEGRAD_TEST_FULL", "0") != "0":
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in set(slow)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for them every device, and on the cpu every instruction set."""
    wants_device, wants_isa = (name in metafunc.fixturenames for name in ("device", "isa"))
    if wants_device and wants_isa:
        pairs = [
            (device, isa) for device in DEVICES for isa in (ISAS if device == "cpu" else ("",))
        ]
        ids = [isa if device == "cpu" else device for device, isa in pairs]
        metafunc.parametrize(("device", "isa"), pairs, indirect=True, ids=ids)
    elif wants_device:
        metafunc.parametrize("device", DEVICES, indirect=True)
    elif wants_isa:
        metafunc.parametrize("isa", ISAS, indirect=True)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Device:
    return Device(request.param)


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
