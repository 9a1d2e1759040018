# SPDX-License-Identifier: MIT
"""k_fold splits; cross_validate trains on the folds and reports mean and spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from fit_runs import X, Y
from helpers import Device, assert_same_bits, error
from tilegrad import _random, data, nn

# ---- k_fold -----------------------------------------------------------------------------------


@given(n=st.integers(2, 60), seed=st.integers(0, 2**64 - 1), shuffle=st.booleans(), k=st.data())
def test_every_row_is_held_back_once(n: int, seed: int, shuffle: bool, k: st.DataObject) -> None:
    folds = k.draw(st.integers(2, n))
    parts = data.k_fold(n, folds, seed=seed, shuffle=shuffle)
    assert len(parts) == folds
    held = [rows.tolist() for _, rows in parts]
    assert sorted(row for rows in held for row in rows) == list(range(n))
    assert [len(rows) for rows in held] == [n // folds + (i < n % folds) for i in range(folds)]
    for train, rows in parts:
        assert sorted([*train.tolist(), *rows.tolist()]) == list(range(n))
        assert (np.diff(train) > 0).all()
        assert (np.diff(rows) > 0).all()
    if not shuffle:
        assert [row for rows in held for row in rows] == list(range(n))


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    k=st.integers(2, 6),
    shuffle=st.booleans(),
)
def test_stratified_folds_hold_every_class_in_proportion(
    sizes: list[int], k: int, shuffle: bool
) -> None:
    labels = np.repeat(np.arange(len(sizes)) * 3 - 4, np.array(sizes) + k)
    labels = np.random.default_rng(0).permutation(labels)
    parts = data.k_fold(len(labels), k, shuffle=shuffle, stratify=labels, seed=1)
    counts = [len(rows) for _, rows in parts]
    assert max(counts) - min(counts) <= 1
    for label in np.unique(labels):
        found = [np.count_nonzero(labels[rows] == label) for _, rows in parts]
        assert sum(found) == np.count_nonzero(labels == label)
        assert max(found) - min(found) <= 1


def test_folds_follow_from_the_seed_alone() -> None:
    def held(**options: Any) -> list[list[int]]:
        return [rows.tolist() for _, rows in data.k_fold(50, 4, **options)]

    assert held(seed=3) == held(seed=3)
    assert held(seed=3) != held(seed=4)
    assert held(seed=0) == held()
    # Checkpoints and reports of older versions name these very rows, on any NumPy.
    assert held(seed=3)[3] == [3, 4, 9, 11, 12, 13, 14, 16, 30, 35, 41, 47]
    split = data.train_test_split(np.arange(50), test_size=13, seed=3)[1]
    assert sorted(split.tolist()) not in held(seed=3), "a stream of its own"


BAD: list[tuple[dict[str, Any], type[Exception], tuple[str, ...]]] = [
    ({"n": 5, "k": 1}, ValueError, ("k must be from 2 to", "5", "got 1")),
    ({"n": 5, "k": 6}, ValueError, ("k must be from 2", "got 6")),
    ({"n": 1, "k": 2}, ValueError, ("k must be",)),
    ({"n": 5.0}, TypeError, ("n must be an integer", "5.0")),
    ({"n": 5, "k": True}, TypeError, ("k must be an integer", "True")),
    ({"n": 5, "k": 2, "seed": -1}, ValueError, ("seed", "-1")),
    ({"n": 3, "k": 2, "stratify": [0, 0, 1]}, TypeError, ("numpy.ndarray", "list")),
    ({"n": 4, "k": 2, "stratify": np.zeros(3)}, ValueError, ("(4,)", "(3,)")),
    ({"n": 4, "k": 3, "stratify": np.array([0, 0, 0, 1])}, ValueError, ("class of 1", "k 3")),
]


@pytest.mark.parametrize(("options", "kind", "parts"), BAD)
def test_bad_folds_are_named(
    options: dict[str, Any], kind: type[Exception], parts: tuple[str, ...]
) -> None:
    with error(kind, "k_fold", *parts):
        data.k_fold(**options)


# ---- cross_validate ---------------------------------------------------------------------------


def maker(device: str) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        nn.Linear(4, 8, activation="gelu"), nn.Dropout(0.2), nn.Linear(8, 3)
    ).to(device)


def adam(model: nn.Module) -> tg.optim.Optimizer:
    return tg.optim.Adam(model.parameters(), lr=0.02)


def validate(device: str = "cpu", **options: Any) -> tg.CrossValidation:
    given = {"loss_fn": nn.CrossEntropyLoss(), "make_optimizer": adam, "epochs": 3, "k": 3}
    given |= {"batch_size": 16, "progress": False, **options}
    make, x, y = given.pop("make_model", maker(device)), given.pop("x", X), given.pop("y", Y)
    return tg.cross_validate(make, x, y, **given)


def test_each_fold_is_the_run_that_it_is_said_to_be(device: Device) -> None:
    tg.manual_seed(77)
    state = _random.get_state()
    result = validate(
        device.name, seed=5, stratify=Y, make_scheduler=lambda o: tg.optim.lr_scheduler.StepLR(o, 1)
    )
    assert _random.get_state() == state, "the stream goes on as if nothing had been"
    for i, (train, held) in enumerate(data.k_fold(len(X), 3, seed=5, stratify=Y)):
        tg.manual_seed(5 + i)
        model = maker(device.name)()
        optimizer = adam(model)
        history = tg.fit(
            model, nn.CrossEntropyLoss(), optimizer, (X[train], Y[train]), (X[held], Y[held]),
            epochs=3, batch_size=16, seed=5 + i, progress=False,
            scheduler=tg.optim.lr_scheduler.StepLR(optimizer, 1),
        )  # fmt: skip
        mine = result.histories[i]
        assert mine.train_loss == history.train_loss
        assert mine.learning_rate == history.learning_rate
        assert result.val_loss[i] == history.val_loss[-1] == mine.val_loss[-1]
        assert result.val_accuracy[i] == history.val_accuracy[-1]
        assert result.rows[i] == len(held)


def test_mean_and_spread_are_those_of_the_folds() -> None:
    result = validate(k=5, epochs=8)
    for name in ("val_loss", "val_accuracy"):
        values = getattr(result, name)
        assert len(values) == 5
        assert result.mean[name] == pytest.approx(np.mean(values), rel=1e-14)
        assert result.std[name] == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert result.mean["val_accuracy"] > 0.85
    assert result.std["val_loss"] > 0
    assert sum(result.rows) == len(X)


def test_it_prints_a_table() -> None:
    result = tg.CrossValidation([0.5, 0.25, 0.75], [0.9, 0.8, 1.0], [40, 40, 39])
    assert str(result).splitlines() == [
        "3-fold cross-validation      val_loss  val_accuracy",
        "fold 1, 40 rows                0.5000        0.9000",
        "fold 2, 40 rows                0.2500        0.8000",
        "fold 3, 39 rows                0.7500        1.0000",
        "mean                           0.5000        0.9000",
        "standard deviation             0.2500        0.1000",
    ]


def test_regression_has_a_loss_and_no_accuracy(device: Device) -> None:
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    result = validate(
        x=x, y=2 * x - 1, make_model=lambda: nn.Linear(1, 1).to(device.name), epochs=40,
        batch_size=8, loss_fn=nn.MSELoss(), k=4,
        make_optimizer=lambda model: tg.optim.SGD(model.parameters(), lr=0.3),
    )  # fmt: skip
    assert result.val_accuracy == []
    assert list(result.mean) == list(result.std) == ["val_loss"]
    assert result.mean["val_loss"] < 1e-9
    assert "accuracy" not in str(result)


def test_scores_are_those_of_the_weights_that_early_stopping_restores() -> None:
    stopping = tg.EarlyStopping("val_loss", patience=2)

    def eager(model: nn.Module) -> tg.optim.Optimizer:
        return tg.optim.Adam(model.parameters(), lr=0.5)  # soon gets worse

    result = validate(epochs=30, make_optimizer=eager, callbacks=[stopping])
    lengths = [len(history.epochs) for history in result.histories]
    assert max(lengths) < 30
    for loss, history in zip(result.val_loss, result.histories, strict=True):
        assert loss == min(history.val_loss) < history.val_loss[-1]


def test_a_transform_changes_what_is_trained_on() -> None:
    noise = data.GaussianNoise(sigma=0.5, clip=False)
    plain, noisy = validate(), validate(transform=noise)
    assert plain.val_loss != noisy.val_loss
    assert noisy.val_loss == validate(transform=noise).val_loss


def test_modes_stream_and_arrays_are_left_as_they_were() -> None:
    loss_fn, before = nn.CrossEntropyLoss().eval(), X.copy()
    tg.manual_seed(1)
    state = _random.get_state()

    def fails() -> nn.Module:
        raise KeyError("no model")

    with pytest.raises(KeyError, match="no model"):
        validate(make_model=fails)
    assert _random.get_state() == state
    validate(loss_fn=loss_fn)
    assert not loss_fn.training
    assert_same_bits(X, before)


def test_progress_is_a_line_a_fold(capsys: pytest.CaptureFixture[str]) -> None:
    result = validate(progress=True)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 3)
    assert lines[1].startswith(
        f"fold 2/3  val_loss {result.val_loss[1]:.4f}  val_accuracy {result.val_accuracy[1]:.4f}  "
        "3 epochs  "
    )
    validate()
    assert capsys.readouterr().err == ""


def test_a_fold_without_accuracy_counts_as_nan() -> None:
    y = np.full(len(Y), -100)
    held = data.k_fold(len(Y), 3)[1][1]
    y[held] = Y[held]
    result = validate(y=y)
    assert np.isnan(result.val_accuracy).tolist() == [True, False, True]
    assert math.isnan(result.mean["val_accuracy"])
    assert math.isnan(result.std["val_accuracy"])


MODEL = maker("cpu")()


@pytest.mark.parametrize(
    ("options", "kind", "op", "parts"),
    [
        ({"x": X.tolist()}, TypeError, "cross_validate", ("x must be a numpy.ndarray", "list")),
        ({"y": Y[:5]}, ValueError, "cross_validate", ("one length", "120 and 5")),
        ({"make_model": lambda: MODEL}, TypeError, "cross_validate", ("a new model", "twice")),
        ({"seed": -1}, ValueError, "cross_validate", ("seed", "-1")),
        ({"k": 1}, ValueError, "k_fold", ("k must be", "1")),
        ({"epochs": 0}, ValueError, "fit", ("epochs", "0")),
        ({"loss_fn": print}, TypeError, "fit", ("loss_fn must be a Module",)),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], kind: type[Exception], op: str, parts: tuple[str, ...]
) -> None:
    with error(kind, op, *parts):
        validate(**options)
