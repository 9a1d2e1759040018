# SPDX-License-Identifier: MIT
"""train_test_split."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilegrad import data


@settings(deadline=None)
@given(
    count=st.integers(2, 60),
    seed=st.integers(0, 2**64 - 1),
    shuffle=st.booleans(),
    size=st.data(),
)
def test_split_parts_are_disjoint_and_complete(
    count: int, seed: int, shuffle: bool, size: st.DataObject
) -> None:
    test_count = size.draw(st.integers(1, count - 1))
    x = np.arange(3 * count).reshape(count, 3)
    index = np.arange(count)
    x_train, x_test, i_train, i_test = data.train_test_split(
        x, index, test_size=test_count, seed=seed, shuffle=shuffle
    )
    assert len(i_test) == test_count
    assert sorted([*i_train, *i_test]) == list(range(count))
    np.testing.assert_array_equal(x_train, x[i_train])
    np.testing.assert_array_equal(x_test, x[i_test])
    if not shuffle:
        assert [*i_train, *i_test] == list(range(count))
        assert np.shares_memory(x_train, x)
        assert np.shares_memory(x_test, x)
    else:
        assert not np.shares_memory(x_train, x)


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (8, 0.25, 2),
        (10, 0.25, 3),
        (10, 0.2, 2),
        (100, 0.07, 7),
        (9, 5 / 9, 5),
        (3, 1 / 3, 1),
        (5, 0.01, 1),
        (1797, 0.2, 360),
        (10, np.float32(0.5), 5),
        (10, 4, 4),
        (10, np.int64(9), 9),
    ],
)
def test_split_sizes(count: int, size: float, expected: int) -> None:
    train, test = data.train_test_split(np.arange(count), test_size=size)
    assert (len(train), len(test)) == (count - expected, expected)


def test_split_is_pinned_and_follows_the_seed() -> None:
    train, test = data.train_test_split(np.arange(10), test_size=3)
    assert (train.tolist(), test.tolist()) == ([5, 0, 2, 4, 3, 6, 1], [7, 9, 8])
    again = data.train_test_split(np.arange(10), test_size=3, seed=0)
    np.testing.assert_array_equal(again[0], train)
    different = data.train_test_split(np.arange(100), seed=1)[1].tolist()
    assert different != data.train_test_split(np.arange(100), seed=0)[1].tolist()
    drawn = [data.train_test_split(np.arange(100), seed=None)[1].tolist() for _ in range(2)]
    assert drawn[0] != drawn[1]
    # A loader with the same seed does not replay the split's order.
    (batch,) = data.DataLoader(np.arange(10), batch_size=10, shuffle=True)
    assert batch[0][:3].tolist() != test.tolist()


def test_split_twice_gives_three_parts() -> None:
    rest, test = data.train_test_split(np.arange(100), test_size=0.2)
    train, validation = data.train_test_split(rest, test_size=0.25)
    assert (len(train), len(validation), len(test)) == (60, 20, 20)
    assert sorted([*train, *validation, *test]) == list(range(100))


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(2, 20), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    where=st.data(),
)
def test_split_stratified_is_proportional(
    sizes: list[int], seed: int, where: st.DataObject
) -> None:
    labels = np.repeat(np.arange(len(sizes)) * 3 - 4, sizes)
    labels = np.random.default_rng(seed).permutation(labels)
    count = len(labels)
    test_count = where.draw(st.integers(len(sizes), count - len(sizes)))
    train, test, y_train, y_test = data.train_test_split(
        np.arange(count), labels, test_size=test_count, seed=seed, stratify=labels
    )
    assert len(test) == test_count
    assert sorted([*train, *test]) == list(range(count))
    np.testing.assert_array_equal(y_train, labels[train])
    np.testing.assert_array_equal(y_test, labels[test])
    for label, size in zip(np.unique(labels), sizes, strict=True):
        assert abs(np.count_nonzero(y_test == label) - size * test_count / count) < 1


def test_split_stratified_mixes_the_classes_and_takes_strings() -> None:
    labels = np.repeat(np.array(["cat", "dog"]), 50)
    train, test, y_train, _ = data.train_test_split(
        np.arange(100), labels, test_size=0.2, stratify=labels
    )
    assert Counter(y_train.tolist()) == {"cat": 40, "dog": 40}
    assert list(train) != sorted(train)
    assert np.count_nonzero(test < 50) == 10
    assert len(set(y_train[:20].tolist())) == 2


@pytest.mark.parametrize(
    ("arrays", "options", "error", "text"),
    [
        ((), {}, ValueError, "give at least one array; got none"),
        ((np.zeros(4), np.zeros(3)), {}, ValueError, r"same length; got \[4, 3\]"),
        (([1, 2, 3],), {}, TypeError, "array 0 must be a numpy.ndarray; got list"),
        ((np.zeros(4),), {"test_size": 0.0}, ValueError, r"in \(0, 1\); got 0.0"),
        ((np.zeros(4),), {"test_size": 1.0}, ValueError, r"in \(0, 1\); got 1.0"),
        ((np.zeros(4),), {"test_size": -0.5}, ValueError, r"in \(0, 1\); got -0.5"),
        ((np.zeros(4),), {"test_size": float("nan")}, ValueError, r"in \(0, 1\); got nan"),
        ((np.zeros(4),), {"test_size": 0}, ValueError, "at least one row; got test_size 0 for 4"),
        ((np.zeros(4),), {"test_size": 4}, ValueError, r"4 for 4 rows \(0 to train on\)"),
        ((np.zeros(4),), {"test_size": -1}, ValueError, "at least one row; got test_size -1"),
        ((np.zeros(4),), {"test_size": 0.9}, ValueError, r"0.9 for 4 rows \(0 to train on\)"),
        ((np.zeros(1),), {}, ValueError, "at least one row; got test_size 0.25 for 1"),
        ((np.zeros(0),), {}, ValueError, "at least one row; got test_size 0.25 for 0"),
        ((np.zeros(4),), {"test_size": "1"}, TypeError, "must be a float or an int; got '1'"),
        ((np.zeros(4),), {"test_size": None}, TypeError, "must be a float or an int; got None"),
        ((np.zeros(4),), {"test_size": True}, TypeError, "test_size must be an integer; got True"),
        ((np.zeros(4),), {"seed": 0.5}, TypeError, "seed must be an integer; got 0.5"),
        (
            (np.zeros(4),),
            {"shuffle": False, "stratify": np.zeros(4)},
            ValueError,
            "stratify needs shuffle=True; got shuffle=False",
        ),
        ((np.zeros(4),), {"stratify": [0, 0, 1, 1]}, TypeError, "stratify must be .* got list"),
        (
            (np.zeros(4),),
            {"stratify": np.zeros((4, 1))},
            ValueError,
            r"stratify must have shape \(4,\); got \(4, 1\)",
        ),
        (
            (np.zeros(4),),
            {"stratify": np.array([0, 0, 0, 1])},
            ValueError,
            r"at least 2 rows; got a class with 1 \(of 2 classes\)",
        ),
        (
            (np.zeros(6),),
            {"stratify": np.array([0, 0, 1, 1, 2, 2]), "test_size": 2},
            ValueError,
            "each of the 3 classes; got parts of 4 and 2 rows",
        ),
    ],
)
def test_split_refuses(arrays, options, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^train_test_split: .*{text}"):
        data.train_test_split(*arrays, **options)
