# SPDX-License-Identifier: MIT
"""Trainings from the command line: results, options, output."""

from __future__ import annotations

import json
import os
import re
import sys

import numpy as np
import pytest

from cli_runs import digits, history_of, tensors_of
from tilegrad import _cli_train, backends, data
from tilegrad._cli_report import flops_per_sample
from tilegrad._cli_settings import ACTIVATIONS, Settings
from tilegrad._save import load
from tilegrad.cli import main

PICTURES = ("curves.png", "confusion.png")
FILES = ("model.safetensors", *PICTURES, "history.json", "checkpoint.safetensors")


def test_digits_reach_97_percent_and_the_results_load(tmp_path, capsys):
    assert digits(tmp_path) == 0
    result = history_of(tmp_path)
    assert result["test_accuracy"] >= 0.97
    assert len(result["history"]["epochs"]) == result["settings"]["epochs"]
    for picture in PICTURES:
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    settings = Settings(**{**result["settings"], "hidden": tuple(result["settings"]["hidden"])})
    model = _cli_train.build_model((64, 128, 10), settings)
    load(tmp_path / "model.safetensors", model)
    x, y = data.load_digits().test()
    guess = model.predict(x).argmax(axis=1)
    right = int((guess == y).sum())
    assert right == result["test_right"]
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, guess), 1)
    assert result["confusion_matrix"] == counts.tolist()
    assert result["class_names"] == [str(digit) for digit in range(10)]
    text = capsys.readouterr()
    for line in (
        "data      UCI digits, embedded in tilegrad",
        "images: 1,293 to train on, 144 to validate, 360 to test; 8 x 8 pixels, 10 classes",
        "model     64-128-10, 9,610 parameters (float32); relu, dropout 0.1",
        f"test accuracy {100 * right / 360:.2f} %: {right} of 360 UCI digits images",
        f"model     {tmp_path / 'model.safetensors'}",
        f"curves    {tmp_path / 'curves.png'}",
        f"confusion {tmp_path / 'confusion.png'}",
        f"history   {tmp_path / 'history.json'}",
    ):
        assert line in text.out
    assert re.search(r"speed     [\d.]+ GFLOP/s, [\d.]+ % of this machine's FMA peak", text.out)
    assert text.err.count("\n") == settings.epochs  # one line an epoch
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "settings.json"}


def test_speed_is_counted_as_said(tmp_path):
    assert flops_per_sample((784, 512, 512, 10)) == 6 * 668_672 - 2 * 401_408
    assert digits(tmp_path, "--epochs", "2", "--quiet") == 0
    result = history_of(tmp_path)
    assert result["flops_per_sample"] == flops_per_sample((64, 128, 10)) == 40_448
    seconds = sum(result["history"]["seconds"])
    assert result["samples_per_second"] == pytest.approx(2 * 1293 / seconds)
    assert result["gflops"] == pytest.approx(2 * 1293 * 40_448 / seconds / 1e9)
    assert result["share_of_fma_peak"] == pytest.approx(
        result["gflops"] / result["fma_peak_gflops"]
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains(tmp_path, activation):
    arguments = ("--activation", activation, "--epochs", "12", "--hidden", "32", "--quiet")
    assert digits(tmp_path, *arguments, "--dropout", "0") == 0
    assert history_of(tmp_path)["test_accuracy"] > 0.85


@pytest.mark.parametrize(
    "options",
    [
        "--optimizer sgd --momentum 0.5 --lr 0.05 --weight-decay 1e-4",
        "--optimizer adamw --schedule step",
        "--optimizer rmsprop --momentum 0.5 --weight-decay 1e-4",
        "--optimizer adagrad --weight-decay 1e-4",
        "--hidden none --schedule none --label-smoothing 0.2",
        "--hidden 40,30,20 --dtype float64 --dropout 0.1",
        "--validation 0 --batch-size 1000 --lr 0.01",
        "--validation 0 --patience 3",
    ],
)
def test_options_reach_the_run(tmp_path, options):
    given = options.split()
    assert digits(tmp_path, "--epochs", "9", "--quiet", *given) == 0
    result = history_of(tmp_path)
    settings = result["settings"]
    for flag, value in zip(given[::2], given[1::2], strict=True):
        stored = settings[flag[2:].replace("-", "_")]
        if flag == "--hidden":
            stored = ",".join(map(str, stored)) or "none"
        assert type(stored)(value) == stored
    assert result["test_accuracy"] > 0.8
    assert bool(result["history"]["val_loss"]) == (settings["validation"] > 0)
    rates = result["history"]["learning_rate"]
    if settings["schedule"] == "none":
        assert set(rates) == {settings["lr"]}
    if settings["schedule"] == "step":
        expected = settings["lr"] * 0.1 ** (np.arange(9) // 3)
        np.testing.assert_allclose(rates, expected)


def test_early_stopping_keeps_the_best_weights(tmp_path, capsys):
    assert digits(tmp_path, "--patience", "2", "--epochs", "300", "--schedule", "none") == 0
    result = history_of(tmp_path)
    done, best = len(result["history"]["epochs"]), result["history"]["best_epoch"]
    assert done == best + 2 < 300
    assert f"with the weights of epoch {best}, the best of {done}" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_weights_with_any_threads(tmp_path):
    threads = backends.num_threads()
    for name, arguments in (
        ("a", ("--threads", "1")),
        ("b", ("--threads", "2")),
        ("c", ("--seed", "1")),
    ):
        assert digits(tmp_path / name, "--epochs", "3", "--quiet", *arguments) == 0
    a, b, c = (tmp_path / name / "model.safetensors" for name in "abc")
    assert a.read_bytes() == b.read_bytes()
    assert tensors_of(a) != tensors_of(c)
    assert backends.num_threads() == threads


def test_quiet_and_progress_options(tmp_path, capsys):
    assert digits(tmp_path, "--epochs", "2", "--quiet") == 0
    text = capsys.readouterr()
    assert re.fullmatch(r"UCI digits: test accuracy [\d.]+ %, .*\n", text.out)
    assert text.err == ""
    assert digits(tmp_path, "--epochs", "2", "--no-progress") == 0
    assert re.fullmatch(r"epoch 1/2 .*\nepoch 2/2 .*\n", capsys.readouterr().err)


def test_json_goes_to_a_file_or_alone_to_the_output(tmp_path, capsys):
    target = tmp_path / "result.json"
    assert digits(tmp_path / "run", "--epochs", "2", "--quiet", "--json", str(target)) == 0
    assert json.loads(target.read_text()) == history_of(tmp_path / "run")
    capsys.readouterr()
    assert digits(tmp_path / "run", "--epochs", "2", "--json", "-") == 0
    text = capsys.readouterr()
    assert json.loads(text.out) == history_of(tmp_path / "run")
    assert "test accuracy" in text.err


def test_a_loss_that_leaves_the_numbers_is_said(tmp_path, capsys):
    arguments = ("--optimizer", "sgd", "--lr", "1e30", "--epochs", "3", "--dropout", "0")
    assert digits(tmp_path, *arguments) == 0
    assert "the loss left the numbers: try a lower --lr" in capsys.readouterr().out
    assert None in history_of(tmp_path)["history"]["train_loss"]


def test_without_the_extras_it_trains_and_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert digits(tmp_path, "--epochs", "1") == 0
    text = capsys.readouterr().out
    assert "without safetensors nothing can be saved" in text
    assert 'not drawn: needs matplotlib; pip install "tilegrad[plot]"' in text
    assert {path.name for path in tmp_path.iterdir()} == {"history.json", "settings.json"}
    assert digits(tmp_path, "--resume") == 1
    assert "tilegrad[io]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.isdir(data._datasets.DEBIAN_FASHION),
    reason="needs Fashion-MNIST: apt-get install dataset-fashion-mnist",
)
def test_fashion_mnist_reaches_89_percent_within_15_epochs(tmp_path, monkeypatch):
    """Takes 40 to 80 s on 2 cores."""
    monkeypatch.delenv("TILEGRAD_DATA", raising=False)
    assert main(["train", "--out", str(tmp_path), "--quiet"]) == 0
    result = history_of(tmp_path)
    assert result["data"] == {
        "name": "Fashion-MNIST",
        "source": f"from {data._datasets.DEBIAN_FASHION}",
        "train": 54_000,
        "validation": 6_000,
        "test": 10_000,
    }
    assert len(result["history"]["epochs"]) <= 15
    assert result["test_accuracy"] >= 0.89
