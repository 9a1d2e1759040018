# SPDX-License-Identifier: MIT
"""The confusion matrix, the scores of each class, and their picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilegrad as tg
from helpers import Device, error
from tilegrad import plot

TARGET = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
GUESS = np.array([0, 1, 0, 1, 2, 2, 2, 0, 2, 2])
COUNTS = [[2, 1, 0], [0, 1, 1], [1, 0, 4]]


@given(
    pairs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=40),
    dtypes=st.tuples(*[st.sampled_from(["i8", "i4", "u1", "u8"])] * 2),
)
def test_every_pair_is_counted_once(pairs: list[tuple[int, int]], dtypes: Any) -> None:
    target, guess = (np.array(c, d) for c, d in zip(zip(*pairs, strict=True), dtypes, strict=True))
    for classes in (None, 6):
        counts = tg.confusion_matrix(target, guess, classes)
        size = classes or max(max(pair) for pair in pairs) + 1
        assert (counts.shape, counts.dtype) == ((size, size), np.int64)
        for i, j in np.ndindex(counts.shape):
            assert counts[i, j] == pairs.count((i, j))


def test_it_takes_arrays_of_any_device_lists_and_scores(device: Device) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((10, 3)).astype(np.float32)
    scores[np.arange(10), GUESS] += 1
    for predicted in (device.put(GUESS), device.put(scores), GUESS.tolist()):
        assert tg.confusion_matrix(device.put(TARGET), predicted).tolist() == COUNTS
    wide = np.concatenate([scores, np.zeros((10, 1), np.float32)], axis=1)
    assert tg.confusion_matrix(TARGET, wide).shape == (4, 4), "the scores tell of a fourth class"
    pixels = tg.confusion_matrix(TARGET.reshape(5, 2), GUESS.reshape(5, 2))
    assert pixels.tolist() == COUNTS
    planes = np.moveaxis(scores.reshape(5, 2, 3), 2, 1)
    assert tg.confusion_matrix(TARGET.reshape(5, 2), planes).tolist() == COUNTS
    assert tg.confusion_matrix(TARGET[:0], GUESS[:0], 2).tolist() == [[0, 0], [0, 0]]


REPORT = """\
               precision  recall      f1  samples
ant               0.6667  0.6667  0.6667        3
bee               0.5000  0.5000  0.5000        2
cat               0.8000  0.8000  0.8000        5
mean              0.6556  0.6556  0.6556       10
weighted mean     0.7000  0.7000  0.7000       10
accuracy                          0.7000       10"""


def test_report_of_a_matrix_counted_by_hand() -> None:
    report = tg.classification_report(TARGET, GUESS, class_names=["ant", "bee", "cat"])
    assert str(report) == REPORT
    np.testing.assert_allclose(report.precision, [2 / 3, 1 / 2, 4 / 5], rtol=1e-15)
    np.testing.assert_allclose(report.recall, [2 / 3, 1 / 2, 4 / 5], rtol=1e-15)
    assert report.support.tolist() == [3, 2, 5]
    assert report.accuracy == 0.7
    assert report.weighted["recall"] == pytest.approx(report.accuracy)


@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_scores_follow_their_definitions(pairs: list[tuple[int, int]]) -> None:
    target, guess = (np.array(column) for column in zip(*pairs, strict=True))
    report = tg.classification_report(target, guess, 5)
    for c in range(5):
        hits = sum(pair == (c, c) for pair in pairs)
        taken, there = (sum(pair[side] == c for pair in pairs) for side in (1, 0))
        precision = hits / taken if taken else 0.0
        recall = hits / there if there else 0.0
        both = precision + recall
        assert report.precision[c] == pytest.approx(precision, rel=1e-14)
        assert report.recall[c] == pytest.approx(recall, rel=1e-14)
        assert report.f1[c] == pytest.approx(2 * precision * recall / both if both else 0.0)
        assert report.support[c] == there
    assert report.accuracy == pytest.approx(np.mean(target == guess))
    assert report.macro["f1"] == pytest.approx(report.f1.mean())
    means = np.average(report.precision, weights=report.support)
    assert report.weighted["precision"] == pytest.approx(means)


@pytest.mark.parametrize(
    ("arguments", "kind", "parts"),
    [
        ((np.zeros(3), GUESS[:3]), TypeError, ("target must be class indices", "float64")),
        ((TARGET, GUESS[:3]), ValueError, ("one shape", "(10,)", "(3,)")),
        ((TARGET, np.zeros((3, 10))), ValueError, ("along axis 1", "(3, 10)")),
        ((TARGET, np.zeros(10)), ValueError, ("along axis 1", "float64")),
        ((TARGET, GUESS, 2), ValueError, ("target must be in [0, 2)", "2")),
        ((TARGET % 2, GUESS, 2), ValueError, ("predicted must be in [0, 2)", "2")),
        ((TARGET - 1, GUESS), ValueError, ("target must be in [0,", "-1")),
        ((TARGET, GUESS, 3.0), TypeError, ("classes must be an integer", "3.0")),
        ((TARGET, GUESS, 0), ValueError, ("classes must be at least 1", "0")),
        ((TARGET[:0], GUESS[:0]), ValueError, ("classes must be at least 1", "0")),
    ],
)
def test_bad_arguments_are_named(
    arguments: tuple[Any, ...], kind: type[Exception], parts: tuple[str, ...]
) -> None:
    with error(kind, "confusion_matrix", *parts):
        tg.confusion_matrix(*arguments)


def test_every_class_needs_a_name() -> None:
    with error(ValueError, "classification_report", "each of the 3 classes", "got 2"):
        tg.classification_report(TARGET, GUESS, 3, class_names=["a", "b"])


# ---- the picture ------------------------------------------------------------------------------


def texts_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_picture_shows_every_count(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    figure = plot.confusion_matrix(COUNTS, path, class_names=["ant", "bee", "cat"], title="a test")
    axes = figure.axes[0]
    assert texts_of(figure) == [str(count) for row in COUNTS for count in row]
    for i, j in np.ndindex(3, 3):
        assert axes.texts[3 * i + j].get_position() == (j, i)  # columns are predictions
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == ["ant", "bee", "cat"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [text.get_text() for text in figure.texts] == ["a test", "7 of 10 right: 70.0 %"]
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    colours = axes.images[0].get_array()
    np.testing.assert_allclose(colours**2, np.array(COUNTS) / np.sum(COUNTS, 1, keepdims=True))


def test_the_picture_shows_shares_of_the_true_class(tmp_path: Path) -> None:
    figure = plot.confusion_matrix([[3, 1], [0, 0]], tmp_path / "x.svg", normalize=True)
    assert texts_of(figure) == ["75", "25", "0", "0"]
    assert "%" in figure.axes[0].get_ylabel()
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_all_of_it_lies_inside_the_figure() -> None:
    names = [f"a rather long name {i}" for i in range(12)]
    for matrix, labels in [(np.eye(12, dtype=int), names), ([[1]], None), (np.eye(2), None)]:
        figure = plot.confusion_matrix(matrix, class_names=labels, title="A long heading " * 4)
        renderer = figure.canvas.get_renderer()
        figure.draw(renderer)
        boxes = [text.get_window_extent(renderer) for text in figure.texts]
        boxes.append(figure.axes[0].get_tightbbox(renderer))
        for box in boxes:
            assert figure.bbox.x0 <= box.x0
            assert box.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= box.y0
            assert box.y1 <= figure.bbox.y1
        assert figure.axes[0].get_tightbbox(renderer).y1 < min(b.y0 for b in boxes[:-1])


def test_many_classes_have_colours_alone() -> None:
    figure = plot.confusion_matrix(np.eye(100, dtype=int))
    assert texts_of(figure) == []
    assert len(figure.axes[0].get_xticks()) <= 40


@pytest.mark.parametrize(
    ("matrix", "names", "part"),
    [
        ([[1, 2, 3], [4, 5, 6]], None, "(2, 3)"),
        ([1, 2], None, "(2,)"),
        (np.empty((0, 0)), None, "(0, 0)"),
        ([[1, -1], [0, 1]], None, "-1"),
        ([[1, 0], [0, 1]], ["a"], "2 names; got 1"),
    ],
)
def test_what_cannot_be_drawn_is_named(matrix: Any, names: Any, part: str) -> None:
    with error(ValueError, "plot.confusion_matrix", part):
        plot.confusion_matrix(matrix, class_names=names)


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "tilegrad\[plot\]"'):
        plot.confusion_matrix(COUNTS)
