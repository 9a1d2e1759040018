# SPDX-License-Identifier: MIT
"""DataLoader: batches, order, resuming."""

from __future__ import annotations

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilegrad import data


def rows(loader: data.DataLoader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


@settings(deadline=None)
@given(
    count=st.integers(0, 70),
    batch_size=st.integers(1, 80),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
def test_loader_gives_each_sample_once_per_epoch(
    count: int, batch_size: int, shuffle: bool, drop_last: bool, seed: int
) -> None:
    x = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    y = np.arange(count)
    loader = data.DataLoader(
        x, y, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last
    )
    for epoch in range(2):
        assert loader.epoch == epoch
        batches = list(loader)
        assert len(batches) == len(loader)
        assert all(len(b) == batch_size for _, b in batches[:-1])
        for a, b in batches:
            np.testing.assert_array_equal(a, x[b])
            assert a.dtype == x.dtype
            assert a.flags.c_contiguous
        seen = [int(i) for _, b in batches for i in b]
        assert len(set(seen)) == len(seen)
        left = count % batch_size if drop_last else 0
        assert len(seen) == count - left
        if not shuffle:
            assert seen == list(range(count - left))


@settings(deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    where=st.data(),
)
def test_loader_resumed_equals_uninterrupted(
    count: int, batch_size: int, shuffle: bool, drop_last: bool, seed: int, where: st.DataObject
) -> None:
    def make(seed: int) -> data.DataLoader:
        return data.DataLoader(
            np.arange(count),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
        )

    whole = make(seed)
    expected = [rows(whole) for _ in range(3)]
    epoch = where.draw(st.integers(0, 2))
    batches = where.draw(st.integers(0, len(whole)))
    stopped = make(seed)
    for _ in range(epoch):
        rows(stopped)
    before = [b[0].tolist() for b in itertools.islice(stopped, batches)] if batches else []
    state = json.loads(json.dumps(stopped.state_dict()))
    assert (state["epoch"], state["position"]) == (epoch, batches)
    resumed = make(seed ^ 1)
    resumed.load_state_dict(state)
    assert resumed.seed == seed
    assert before + rows(resumed) == expected[epoch]
    assert resumed.epoch == epoch + 1
    for later in expected[epoch + 1 :]:
        assert rows(resumed) == later


def test_loader_state_inside_the_loop_stands_behind_the_batch() -> None:
    loader = data.DataLoader(np.arange(10), batch_size=4, shuffle=True, seed=1)
    expected = rows(data.DataLoader(np.arange(10), batch_size=4, shuffle=True, seed=1))
    states = [loader.state_dict() for _ in loader]
    assert [(s["epoch"], s["position"]) for s in states] == [(0, 1), (0, 2), (0, 3)]
    for done, state in enumerate(states, start=1):
        other = data.DataLoader(np.arange(10), batch_size=4, shuffle=True)
        other.load_state_dict(state)
        assert rows(other) == expected[done:]
        assert (other.epoch, other.position) == (1, 0)


def test_loader_shuffling_depends_on_seed_and_epoch_only() -> None:
    def epochs(seed: int) -> list[list[list[int]]]:
        loader = data.DataLoader(np.arange(50), batch_size=7, shuffle=True, seed=seed)
        return [rows(loader) for _ in range(3)]

    first = epochs(0)
    assert epochs(0) == first
    assert len({str(order) for order in (*first, *epochs(1))}) == 6
    assert first[0] != [list(range(k, min(k + 7, 50))) for k in range(0, 50, 7)]


def test_loader_order_is_pinned() -> None:
    # Checkpoints of older versions must resume with these very batches, on any NumPy.
    loader = data.DataLoader(np.arange(8), batch_size=8, shuffle=True, seed=7)
    loader.load_state_dict({**loader.state_dict(), "epoch": 3})
    assert rows(loader) == [[2, 5, 7, 3, 0, 6, 4, 1]]


def test_loader_shuffling_is_uniform() -> None:
    count, epochs = 5, 4000
    loader = data.DataLoader(np.arange(count), batch_size=count, shuffle=True, seed=0)
    table = np.zeros((count, count))
    for _ in range(epochs):
        table[np.arange(count), next(iter(loader))[0]] += 1
    expected = epochs / count
    chi2 = float(((table - expected) ** 2 / expected).sum())
    assert chi2 < 40.0  # 16 degrees of freedom: p = 0.0008; the draw is fixed


def test_loader_unshuffled_batches_are_views() -> None:
    x, y = np.zeros((5, 3)), np.arange(5)
    for a, b in data.DataLoader(x, y, batch_size=2):
        assert np.shares_memory(a, x)
        assert np.shares_memory(b, y)


@pytest.mark.parametrize("view", ["transposed", "reversed", "every other", "plain"])
def test_loader_shuffled_batches_are_contiguous_copies(view: str) -> None:
    base = np.arange(24.0).reshape(4, 6)
    x = {
        "transposed": base.T,
        "reversed": base[::-1],
        "every other": base[:, ::2],
        "plain": base,
    }[view]
    index = np.arange(len(x))
    for a, i in data.DataLoader(x, index, batch_size=3, shuffle=True):
        assert a.flags.c_contiguous
        assert not np.shares_memory(a, x)
        np.testing.assert_array_equal(a, x[i])


def test_loader_takes_one_tuple_or_one_array() -> None:
    x, y, z = np.arange(4), np.arange(4) * 2, np.arange(4) * 3
    flat = [[a.tolist() for a in batch] for batch in data.DataLoader(x, y, z, batch_size=3)]
    packed = [[a.tolist() for a in batch] for batch in data.DataLoader((x, y, z), batch_size=3)]
    assert flat == packed == [[[0, 1, 2], [0, 2, 4], [0, 3, 6]], [[3], [6], [9]]]
    assert [batch[0].tolist() for batch in data.DataLoader(x, batch_size=3)] == [[0, 1, 2], [3]]


def test_loader_tells_its_options() -> None:
    loader = data.DataLoader(np.arange(10), batch_size=4, shuffle=True, seed=5, drop_last=True)
    assert (loader.samples, loader.batch_size, loader.seed, len(loader)) == (10, 4, 5, 2)
    next(iter(loader))
    assert repr(loader) == (
        "DataLoader(10 samples, batch_size=4, shuffle=True, seed=5, drop_last=True; "
        "epoch 0, batch 1 of 2)"
    )
    assert data.DataLoader(np.zeros(1)).batch_size == 128
    assert len(data.DataLoader(np.zeros(3), batch_size=4, drop_last=True)) == 0


def test_loader_tells_its_arrays() -> None:
    x, y = np.arange(4), np.arange(8).reshape(4, 2)
    for loader in (data.DataLoader(x, y, shuffle=True), data.DataLoader((x, y))):
        assert isinstance(loader.arrays, tuple)
        assert len(loader.arrays) == 2
        assert loader.arrays[0] is x
        assert loader.arrays[1] is y
        with pytest.raises(AttributeError):
            loader.arrays = (x,)  # type: ignore[misc]


def test_loader_left_early_starts_a_new_epoch() -> None:
    reference = data.DataLoader(np.arange(9), batch_size=2, shuffle=True, seed=2)
    expected = [rows(reference) for _ in range(2)]
    loader = data.DataLoader(np.arange(9), batch_size=2, shuffle=True, seed=2)
    for _ in loader:
        break
    assert (loader.epoch, loader.position) == (0, 1)
    assert rows(loader) == expected[1]
    assert loader.epoch == 2


def test_loader_left_early_after_resuming_starts_a_new_epoch() -> None:
    loader = data.DataLoader(np.arange(6), batch_size=1)
    loader.load_state_dict({**loader.state_dict(), "position": 2})
    assert int(next(iter(loader))[0][0]) == 2
    assert (loader.epoch, loader.position) == (0, 3)
    assert rows(loader) == [[0], [1], [2], [3], [4], [5]]
    assert loader.epoch == 2


def test_loader_gathers_a_batch_of_a_strided_array_without_copying_it_all() -> None:
    x = np.zeros((1000, 1000)).T
    batches = iter(data.DataLoader(x, batch_size=2, shuffle=True))
    next(batches)
    tracemalloc.start()
    try:
        next(batches)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 50


def test_loader_goes_on_after_an_interrupt_with_its_own_state() -> None:
    loader = data.DataLoader(np.arange(9), batch_size=2, shuffle=True, seed=2)
    expected = rows(data.DataLoader(np.arange(9), batch_size=2, shuffle=True, seed=2))
    first = next(iter(loader))[0].tolist()
    loader.load_state_dict(loader.state_dict())
    assert [first, *rows(loader)] == expected


def test_loader_loops_may_be_nested() -> None:
    loader = data.DataLoader(np.arange(3), batch_size=1)
    pairs = [(int(a[0]), int(b[0])) for (a,) in loader for (b,) in loader]
    assert pairs == list(itertools.product(range(3), range(3)))


def test_loader_old_loop_leaves_a_loaded_state_alone() -> None:
    loader = data.DataLoader(np.arange(6), batch_size=1)
    running = iter(loader)
    next(running)
    loader.load_state_dict({**loader.state_dict(), "epoch": 8, "position": 4})
    assert [int(b[0][0]) for b in running] == [1, 2, 3, 4, 5]
    assert (loader.epoch, loader.position) == (8, 4)
    assert rows(loader) == [[4], [5]]


def test_loader_without_seed_draws_one_and_tells_it() -> None:
    drawn = [data.DataLoader(np.arange(40), shuffle=True, seed=None) for _ in range(2)]
    assert drawn[0].seed != drawn[1].seed
    again = data.DataLoader(np.arange(40), shuffle=True, seed=drawn[0].seed)
    assert rows(again) == rows(drawn[0])
    assert json.loads(json.dumps(float(drawn[0].seed))) == drawn[0].seed


@pytest.mark.parametrize(
    ("arrays", "options", "error", "text"),
    [
        ((), {}, ValueError, "give at least one array; got none"),
        (((),), {}, ValueError, "give at least one array; got none"),
        ((np.zeros(3), np.zeros(4)), {}, ValueError, r"same length; got \[3, 4\]"),
        ((np.float64(1), np.zeros(4)), {}, TypeError, "array 0 must be a numpy.ndarray; got float"),
        ((np.zeros(()),), {}, ValueError, "array 0 needs a first axis .* got a 0-d array"),
        (([1, 2], [3, 4]), {}, TypeError, r"array 0 must be .* got list .*np\.asarray"),
        ((np.zeros(4), 32), {}, TypeError, "array 1 must be .* got int .options go by keyword"),
        ((np.zeros(4),), {"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
        ((np.zeros(4),), {"batch_size": -5}, ValueError, "at least 1; got -5"),
        ((np.zeros(4),), {"batch_size": 2.0}, TypeError, "batch_size must be an integer; got 2.0"),
        ((np.zeros(4),), {"batch_size": True}, TypeError, "must be an integer; got True"),
        ((np.zeros(4),), {"seed": -1}, ValueError, r"seed must be in \[0, 2\*\*64\); got -1"),
        ((np.zeros(4),), {"seed": 2**64}, ValueError, "seed must be in"),
        ((np.zeros(4),), {"seed": "0"}, TypeError, "seed must be an integer; got '0'"),
        ((np.zeros(4),), {"shuffle": 1}, TypeError, "shuffle must be True or False; got 1"),
        ((np.zeros(4),), {"drop_last": None}, TypeError, "drop_last must be True or False; got N"),
    ],
)
def test_loader_refuses(arrays, options, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^DataLoader: .*{text}"):
        data.DataLoader(*arrays, **options)


def test_loader_takes_numpy_integers() -> None:
    loader = data.DataLoader(np.zeros(5), batch_size=np.int64(2), seed=np.uint8(3))
    assert json.loads(json.dumps(loader.state_dict())) == loader.state_dict()


MID_EPOCH = {
    "seed": 1,
    "epoch": 2,
    "position": 1,
    "samples": 10,
    "batch_size": 4,
    "shuffle": 1,
    "drop_last": 0,
}


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (None, TypeError, "state must be a dict; got NoneType"),
        ({}, ValueError, r"the keys must be .*; got \[\]"),
        ({**MID_EPOCH, "more": 1}, ValueError, "the keys must be .*'more'"),
        ({k: v for k, v in MID_EPOCH.items() if k != "seed"}, ValueError, "the keys must be"),
        ({**MID_EPOCH, "epoch": 1.0}, TypeError, "epoch must be an integer; got 1.0"),
        ({**MID_EPOCH, "epoch": -1}, ValueError, "epoch must be in .*; got -1"),
        ({**MID_EPOCH, "epoch": 2**64 - 1}, ValueError, "epoch must be in"),
        ({**MID_EPOCH, "seed": -1}, ValueError, "seed must be in .*; got -1"),
        ({**MID_EPOCH, "position": -1}, ValueError, "position must not be negative; got -1"),
        ({**MID_EPOCH, "position": 4}, ValueError, "position must be at most 3 batches; got 4"),
        ({**MID_EPOCH, "samples": 11}, ValueError, "samples must be equal; got 11 .* with 10"),
        ({**MID_EPOCH, "batch_size": 5}, ValueError, "batch_size must be equal; got 5 .* with 4"),
        ({**MID_EPOCH, "shuffle": 0}, ValueError, "shuffle must be equal; got 0 .* with 1"),
        ({**MID_EPOCH, "drop_last": 1}, ValueError, "drop_last must be equal; got 1 .* with 0"),
    ],
)
def test_loader_refuses_a_state_and_stays_as_it_was(
    state, error: type[Exception], text: str
) -> None:
    loader = data.DataLoader(np.arange(10), batch_size=4, shuffle=True, seed=9)
    before = loader.state_dict()
    with pytest.raises(error, match=rf"^DataLoader\.load_state_dict: .*{text}"):
        loader.load_state_dict(state)
    assert loader.state_dict() == before


def test_loader_takes_another_batch_size_at_the_start_of_an_epoch() -> None:
    loader = data.DataLoader(np.arange(12), batch_size=3, shuffle=True, seed=9)
    loader.load_state_dict({**MID_EPOCH, "position": 0})
    assert (loader.seed, loader.epoch, loader.position) == (1, 2, 0)
    assert loader.batch_size == 3
