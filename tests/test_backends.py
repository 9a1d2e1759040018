# SPDX-License-Identifier: MIT
"""What can run here, on how many threads, and the memory it keeps."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import backends


def test_info_tells_what_is_there_and_why_the_rest_is_not() -> None:
    info = tg.info()
    assert info["version"] == tg.__version__
    assert info["isa"] in info["supported_isas"]
    assert info["num_threads"] == tg.num_threads()
    assert set(info["backends"]) == {"cpu", "sim", "cuda"}
    for name, reason in info["backends"].items():
        if reason is None:
            assert backends.place_name(backends.place_of(name)).split(":")[0] == name
        else:
            with pytest.raises(RuntimeError, match=re.escape(f"'{name}' cannot be used: {reason}")):
                backends.place_of(name)
    assert info["backends"]["cpu"] is None
    for bad in ("gpu", "cpu:1", "sim:0", "cuda:", "cuda:x", "cuda:-1", ""):
        with pytest.raises(ValueError, match="device: must be cpu, sim, cuda or cuda:N"):
            backends.place_of(bad)
    with pytest.raises(TypeError, match="device: must be a string, such as 'cpu'; got 0"):
        backends.place_of(0)  # type: ignore[arg-type]


def test_threads_are_set_and_results_do_not_depend_on_them() -> None:
    before = tg.num_threads()
    x = np.random.default_rng(0).normal(size=(300, 200))
    results = []
    try:
        for count in (1, 2):
            tg.set_num_threads(count)
            assert tg.num_threads() == count
            results.append(tg.matmul(x, x, transpose_b=True))
    finally:
        tg.set_num_threads(before)
    np.testing.assert_array_equal(*results)
    with pytest.raises(ValueError, match=r"set_num_threads: count must be in \[1, \d+\]; got 0"):
        tg.set_num_threads(0)


def test_release_memory_gives_back_what_a_large_result_used() -> None:
    tg.release_memory()
    y = tg.relu(np.ones(1 << 18))
    size = y.nbytes
    del y
    assert tg.release_memory() >= size
    assert tg.release_memory() == 0


def test_memory_freed_longest_ago_goes_first() -> None:
    """What is kept is bounded, and smaller results do not keep a large one from being kept."""
    tg.release_memory()
    x = np.ones((460, 1 << 18), np.float32)
    small = [tg.relu(x[:rows]) for rows in (40, 41, 42)]
    del small
    tg.relu(x)  # 460 MiB, for which 480 are taken
    assert 460 << 20 <= tg.release_memory() <= 512 << 20
    assert tg.release_memory() == 0
