# SPDX-License-Identifier: MIT
"""fit: callbacks, early stopping and progress."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from fit_runs import VALIDATION, network, quick
from helpers import Device, host
from tilegrad import manual_seed, optim
from tilegrad._callbacks import Callback, EarlyStopping, Training
from tilegrad.optim.lr_scheduler import StepLR


def test_callbacks_are_called_in_order_with_the_state() -> None:
    calls: list[Any] = []

    class Log(Callback):
        def on_train_begin(self, training: Training) -> None:
            calls.append(("begin", training.epoch, training.batches, training.epochs))

        def on_epoch_begin(self, training: Training) -> None:
            calls.append(("epoch", training.epoch))

        def on_batch_end(self, training: Training) -> None:
            assert math.isfinite(training.loss)
            calls.append(training.batch)

        def on_epoch_end(self, training: Training) -> None:
            calls.append(("end", training.history.epochs[-1]))
            training.stop = training.epoch == 2

        def on_train_end(self, training: Training) -> None:
            calls.append("done")

    quick(callbacks=[Log()], epochs=5, batch_size=50)
    first = [("epoch", 1), 1, 2, ("end", 1)]
    assert calls == [("begin", 0, 2, 5), *first, ("epoch", 2), 1, 2, ("end", 2), "done"]


class Scripted(Callback):
    """Put given validation losses into the history, and remember each epoch's weights."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses
        self.weights: list[bytes] = []

    def on_epoch_end(self, training: Training) -> None:
        training.history.val_loss[-1] = self.losses[training.epoch - 1]
        self.weights.append(weights_of(training.model))


def weights_of(model: Any) -> bytes:
    return b"".join(host(p.data).tobytes() for p in model.parameters())


@pytest.mark.parametrize(
    ("losses", "options", "epochs", "best"),
    [
        ([3, 2, 1, 1, 1.5, 0], {"patience": 2}, 5, 3),
        ([3, 2, 2.5, 1, 2, 2, 2], {"patience": 2}, 6, 4),
        ([1, 0.95, 0.89, 0.85, 0.84], {"patience": 2, "min_delta": 0.1}, 5, 3),
        ([1, 2, 3, 3, 2, 9], {"patience": 2, "mode": "max"}, 5, 3),
        ([math.nan, math.nan, 5, 6, 4], {"patience": 3}, 5, 5),
        ([math.nan] * 5, {"patience": 2}, 2, None),
        ([2, 1, 3, 4, 5], {"patience": 9}, 5, 2),
        ([2, 1, 3, 4, 5], {"patience": 9, "restore_best": False}, 5, None),
    ],
)
def test_early_stopping_stops_and_restores(
    losses: list[float], options: dict[str, Any], epochs: int, best: int | None
) -> None:
    model, scripted, stopping = network(), Scripted(losses), EarlyStopping(**options)
    history = quick(
        model=model, epochs=len(losses), validation=VALIDATION, callbacks=[scripted, stopping]
    )
    assert len(history.epochs) == epochs
    assert len(set(scripted.weights)) == epochs
    expected = scripted.weights[-1 if best is None else best - 1]
    assert weights_of(model) == expected
    assert stopping.stopped is (epochs < len(losses) or stopping.bad >= stopping.patience)
    if best is not None:
        assert stopping.best_epoch == best


def test_early_stopping_restores_and_resumes_on_every_device(
    device: Device, tmp_path: Path
) -> None:
    losses = [3.0, 1.0, 2.0, 2.0, 2.0, 2.0]

    def run(epochs: int, checkpoint: Path | None) -> tuple[Any, EarlyStopping, Scripted]:
        manual_seed(1)
        model, scripted = network().to(device.name), Scripted(losses)
        stopping = EarlyStopping(patience=3)
        quick(
            model=model, optimizer=optim.Adam(model.parameters(), lr=0.02), epochs=epochs,
            validation=VALIDATION, callbacks=[scripted, stopping], checkpoint=checkpoint,
        )  # fmt: skip
        return model, stopping, scripted

    path = tmp_path / "checkpoint"
    straight, stopping, scripted = run(6, None)
    assert (stopping.stopped, stopping.best, stopping.best_epoch) == (True, 1.0, 2)
    assert len(scripted.weights) == 5
    assert weights_of(straight) == scripted.weights[1]
    run(4, path)  # the best weights, of epoch 2, are in the file
    resumed, stopping, scripted = run(6, path)
    assert (stopping.stopped, stopping.best_epoch, len(scripted.weights)) == (True, 2, 1)
    assert weights_of(resumed) == weights_of(straight)


def test_early_stopping_starts_afresh_in_a_new_run() -> None:
    stopping = EarlyStopping(patience=1)
    for _ in range(2):
        scripted = Scripted([1, 2, 3])
        history = quick(epochs=3, validation=VALIDATION, callbacks=[scripted, stopping])
        assert history.epochs == [1, 2]
        assert (stopping.best, stopping.best_epoch) == (1, 1)


def test_early_stopping_needs_its_measurement() -> None:
    with pytest.raises(ValueError, match="val_loss needs validation data; got none"):
        quick(callbacks=[EarlyStopping()])
    with pytest.raises(ValueError, match="train_accuracy was not measured"):
        quick(callbacks=[EarlyStopping("train_accuracy")], accuracy_samples=0)
    quick(callbacks=[EarlyStopping("train_accuracy", mode="max")])


@pytest.mark.parametrize(
    "options",
    [{"monitor": "seconds"}, {"patience": 0}, {"patience": 1.5}, {"min_delta": -1},
     {"min_delta": math.nan}, {"mode": "best"}],
)  # fmt: skip
def test_early_stopping_refuses_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"EarlyStopping: {next(iter(options))} must be"):
        EarlyStopping(**options)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    history = quick(validation=VALIDATION, epochs=10, progress=True)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, len(lines)) == ("", 10)
    assert "\r" not in err
    assert "\x1b" not in err
    assert lines[0].startswith(f"epoch  1/10  train_loss {history.train_loss[0]:.4f}  val_loss ")
    for word in ("train_accuracy ", "val_accuracy ", " s  ", " samples/s"):
        assert word in lines[9]
    assert "lr" not in err


def test_the_rate_is_shown_when_it_changes(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    quick(model=model, optimizer=optimizer, scheduler=StepLR(optimizer, 1, 0.1), progress=True)
    lines = capsys.readouterr().err.splitlines()
    assert "  lr 0.5  " in lines[0]
    assert "  lr 0.05  " in lines[1]


def test_without_progress_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    quick()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_terminal_gets_a_bar_where_tqdm_is_installed(
    monkeypatch: pytest.MonkeyPatch, tqdm: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    quick(progress=True, batch_size=10)
    text = terminal.getvalue()
    assert ("\r" in text and "0/9" in text) is tqdm
    shown = [line.split("\r")[-1] for line in text.rstrip("\n").split("\n")]
    assert [line.startswith(f"epoch {i}/2  train_loss") for i, line in enumerate(shown, 1)] == [
        True, True,
    ]  # fmt: skip


def test_the_bar_is_taken_away_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)

    class Stop(Callback):
        def on_batch_end(self, training: Training) -> None:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        quick(progress=True, callbacks=[Stop()])
    assert terminal.getvalue().endswith("\r")  # tqdm has blanked its line


def test_early_stopping_knows_which_way_an_accuracy_is_better() -> None:
    assert EarlyStopping("val_accuracy").mode == "max"
    assert EarlyStopping("train_loss").mode == "min"
    assert EarlyStopping("val_accuracy", mode="min").mode == "min"
