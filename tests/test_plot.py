# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import math
import sys
from itertools import combinations

import numpy as np
import pytest

from tilegrad._callbacks import History
from tilegrad.plot import plot_history

pytest.importorskip("matplotlib", reason="the extra plot is not installed")

FULL = {
    "train_loss": [0.55, 0.40, 0.36, 0.33],
    "val_loss": [0.40, 0.35, 0.31, 0.32],
    "train_accuracy": [0.80, 0.85, 0.87, 0.906],
    "val_accuracy": [0.85, 0.88, 0.89, 0.905],
}


def curves(axes):
    """The drawn curves by colour; the rule of the best epoch has two points of one x."""
    lines = [
        line for line in axes.get_lines() if len(set(line.get_xdata())) == len(line.get_xdata())
    ]
    return {line.get_color(): np.asarray(line.get_ydata(), float) for line in lines}


def rule(axes):
    rules = [line for line in axes.get_lines() if len(line.get_xdata()) == 2]
    return [line.get_xdata()[0] for line in rules if len(set(line.get_xdata())) == 1]


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_two_panels_show_every_number(tmp_path):
    path = tmp_path / "curves.png"
    figure = plot_history(FULL, path, title="a run")
    loss, accuracy = figure.axes
    assert [loss.get_title(loc="left"), accuracy.get_title(loc="left")] == ["Loss", "Accuracy, %"]
    train, validation = curves(loss).values()
    assert train.tolist() == FULL["train_loss"]
    assert validation.tolist() == FULL["val_loss"]
    train, validation = curves(accuracy).values()
    np.testing.assert_allclose(train, 100 * np.array(FULL["train_accuracy"]))
    np.testing.assert_allclose(validation, 100 * np.array(FULL["val_accuracy"]))
    assert {"training", "validation", "best epoch"} <= set(words(loss))
    assert rule(loss) == rule(accuracy) == [3]
    heading, summary = (text.get_text() for text in figure.texts)
    assert heading == "a run"
    assert summary == (
        "After 4 epochs: validation loss 0.320, accuracy 90.5 %; lowest loss in epoch 3"
    )
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_names_of_close_curves_do_not_overlap_or_leave_the_figure():
    figure = plot_history(FULL)  # the accuracies end 0.1 % apart
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    for axes in figure.axes:
        boxes = [
            text.get_window_extent(renderer)
            for text in axes.texts
            if text.get_text() in ("training", "validation")
        ]
        assert len(boxes) == 2
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    ends = [max(t.get_window_extent(renderer).x1 for t in axes.texts) for axes in figure.axes]
    assert ends[0] < figure.axes[1].get_tightbbox(renderer).x0  # not into the second panel


def test_one_epoch_shows_its_points():
    figure = plot_history({name: values[:1] for name, values in FULL.items()})
    for axes in figure.axes:
        lines = axes.get_lines()
        assert [line.get_marker() for line in lines] == ["o", "o"]
        assert axes.get_xticks().tolist() == [1]
    assert "After 1 epoch: " in figure.texts[1].get_text()


def test_without_validation_the_training_loss_decides():
    figure = plot_history({"train_loss": [3.0, 1.0, 2.0], "train_accuracy": [0.1, 0.6, 0.5]})
    assert [len(curves(axes)) for axes in figure.axes] == [1, 1]
    assert rule(figure.axes[0]) == [2]
    assert "training loss 2.000, accuracy 50.0 %" in figure.texts[1].get_text()


def test_without_accuracy_there_is_one_panel():
    nothing = [math.nan, math.nan]
    figure = plot_history({"train_loss": [2.0, 1.0], "val_accuracy": nothing})
    assert len(figure.axes) == 1


def test_values_that_are_no_numbers_leave_gaps(tmp_path):
    losses = [0.5, 0.4, None, math.inf, 0.2, math.nan]
    figure = plot_history({"train_loss": losses}, tmp_path / "x.svg")
    (shown,) = curves(figure.axes[0]).values()
    assert np.isnan(shown).tolist() == [False, False, True, True, False, True]
    assert rule(figure.axes[0]) == [5]
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_nothing_finite_says_so(tmp_path):
    figure = plot_history(
        {"train_loss": [math.nan] * 3, "val_loss": [math.inf] * 3}, tmp_path / "x.png"
    )
    assert words(figure.axes[0]) == ["no finite value"]
    assert rule(figure.axes[0]) == []


def test_history_and_its_json_give_the_same_picture(tmp_path):
    history = History()
    history.add(train_loss=2.0, val_loss=1.5, train_accuracy=0.5)
    history.add(train_loss=math.nan, val_loss=1.0, train_accuracy=0.75, val_accuracy=0.5)
    plot_history(history, tmp_path / "a.png")
    plot_history(json.loads(json.dumps(history.to_dict())), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_many_epochs_have_no_markers_and_few_ticks():
    losses = [1 / (1 + i) for i in range(500)]
    axes = plot_history({"train_loss": losses}).axes[0]
    assert axes.get_lines()[0].get_marker() in ("", "None")
    assert len(axes.get_xticks()) <= 12


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        ({"train_loss": []}, "at least one epoch; got none"),
        ({}, "at least one epoch; got none"),
        ({"train_loss": [1.0, 2.0], "val_loss": [1.0]}, "val_loss must have 2 values.*got 1"),
    ],
)
def test_unusable_history_is_an_error(history, rule):
    with pytest.raises(ValueError, match=rule):
        plot_history(history)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "tilegrad\[plot\]"'):
        plot_history(FULL)
