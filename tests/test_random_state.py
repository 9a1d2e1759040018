# SPDX-License-Identifier: MIT
"""The stream of random numbers and the dropout that draws from it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import _random, reference


@pytest.fixture(autouse=True)
def _same_stream_afterwards() -> Iterator[None]:
    state = _random.get_state()
    yield
    _random.set_state(state)


def test_stream_starts_at_seed_0() -> None:
    code = "from tilegrad import _random; print(_random.get_state())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'seed': 0, 'offset': 0}"


def test_dropout_draws_from_the_stream() -> None:
    x = np.ones(10)
    tg.manual_seed(5)
    first, second = tg.dropout(x), tg.dropout(x[:4])
    assert _random.get_state() == {"seed": 5, "offset": 4}  # ceil(10 / 4) + 1
    np.testing.assert_array_equal(first, tg.dropout(x, seed=5))
    np.testing.assert_array_equal(first, tg.dropout(x, seed=5, offset=0))
    np.testing.assert_array_equal(second, tg.dropout(x[:4], seed=5, offset=3))
    assert _random.get_state() == {"seed": 5, "offset": 4}  # a seed of one's own draws nothing
    np.testing.assert_array_equal(first, reference.dropout(x, 0.5, seed=5))


def test_dropout_that_drops_nothing_returns_its_input() -> None:
    x, out = np.arange(3.0), np.empty(3)
    before = _random.get_state()
    for options in ({"training": False}, {"p": 0.0}):
        assert tg.dropout(x, **options) is x
        assert tg.dropout(x, **options, out=out) is out
        np.testing.assert_array_equal(out, x)
        np.testing.assert_array_equal(tg.dropout_backward(x, x, **options, seed=1, offset=0), x)
        with pytest.raises(TypeError, match="dropout: input must"):
            tg.dropout([1.0, 2.0], **options)
        with pytest.raises(TypeError, match="dropout: input must"):
            tg.dropout(np.arange(3), **options)
    assert _random.get_state() == before


@pytest.mark.parametrize("p", [-0.1, 1.5, np.nan, np.inf])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_probability(p: float, training: bool) -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"dropout: p must be a probability in \[0, 1\]; got"):
        tg.dropout(x, p, training)
    with pytest.raises(ValueError, match="dropout_backward: p must be a probability"):
        tg.dropout_backward(x, x, p, training, seed=1, offset=0)


def test_dropout_seeds() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"dropout: seed must be in \[0, 2\*\*64\); got -1"):
        tg.dropout(x, seed=-1)
    with pytest.raises(ValueError, match="dropout: offset must be in"):
        tg.dropout(x, seed=1, offset=2**64)
    with pytest.raises(TypeError, match=r"dropout: seed must be an integer; got 1\.5"):
        tg.dropout(x, seed=1.5)
    with pytest.raises(ValueError, match="dropout: offset needs a seed"):
        tg.dropout(x, offset=3)
    with pytest.raises(
        ValueError, match=r"dropout_backward: grad_output must have shape \(3,\); got \(2,\)"
    ):
        tg.dropout_backward(np.ones(2), x, seed=1, offset=0)
    with pytest.raises(TypeError, match=r"dropout_backward: floating inputs must share one dtype"):
        tg.dropout_backward(np.ones(3, np.float32), x, seed=1, offset=0)
    with pytest.raises(TypeError, match="manual_seed: seed must be an integer; got True"):
        tg.manual_seed(True)
    with pytest.raises(ValueError, match="manual_seed: seed must be in"):
        tg.manual_seed(2**64)
    tg.manual_seed(np.uint64(2**64 - 1))
    assert _random.get_state()["seed"] == 2**64 - 1


def test_state_is_restored_and_checked() -> None:
    state = {"seed": 2**64 - 1, "offset": 2**64 - 1}
    _random.set_state(state)
    assert _random.get_state() == state
    assert _random.take(5) == (2**64 - 1, 2**64 - 1)
    assert _random.take(0) == (2**64 - 1, 1)  # the counter wraps
    with pytest.raises(ValueError, match="set_state: state must have seed and offset"):
        _random.set_state({"seed": 1})
    with pytest.raises(ValueError, match="set_state: offset must be in"):
        _random.set_state({"seed": 1, "offset": -1})
    assert _random.get_state() == {"seed": 2**64 - 1, "offset": 1}


def test_threads_never_share_a_counter() -> None:
    tg.manual_seed(9)
    taken: list[list[int]] = [[] for _ in range(4)]

    def draw(mine: list[int]) -> None:
        mine.extend(_random.take(1)[1] for _ in range(2000))

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in taken]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(offset for mine in taken for offset in mine) == list(range(8000))
