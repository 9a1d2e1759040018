# SPDX-License-Identifier: MIT
"""Where `tilegrad train` looks for images, and what it takes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from cli_runs import assert_one_line, python
from idx_files import idx_bytes
from tilegrad import _cli_data, data
from tilegrad.cli import main

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def write_idx(folder: Path, train, train_labels, test, test_labels) -> Path:
    folder.mkdir(parents=True)
    for stem, array in zip(STEMS, (train, train_labels, test, test_labels), strict=True):
        (folder / stem).write_bytes(idx_bytes(array))
    return folder


@pytest.fixture
def fake_fashion(tmp_path):
    """Four small files that begin with Fashion-MNIST's own labels."""
    generator = np.random.default_rng(0)
    first = np.array([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], np.uint8)
    labels = np.concatenate([first, np.arange(50, dtype=np.uint8) % 10])
    images = generator.integers(0, 256, (60, 28, 28), np.uint8)
    return write_idx(tmp_path / "fake", images, labels, images[:20], labels[:20])


def test_auto_says_why_it_takes_the_digits(tmp_path, monkeypatch):
    monkeypatch.delenv("TILEGRAD_DATA", raising=False)
    monkeypatch.setattr(_cli_data, "DEBIAN_FASHION", str(tmp_path / "nowhere"))
    found = _cli_data.find_data("auto")
    assert found.slug == "digits"
    assert f"Fashion-MNIST is not in {tmp_path / 'nowhere'}" in found.reason
    assert "apt-get install dataset-fashion-mnist" in found.reason


def test_auto_takes_fashion_mnist_where_it_is(fake_fashion, monkeypatch):
    monkeypatch.setenv("TILEGRAD_DATA", str(fake_fashion))
    found = _cli_data.find_data("auto")
    assert (found.slug, found.dataset.name) == ("fashion-mnist", "Fashion-MNIST")
    assert found.source == f"below {fake_fashion} (TILEGRAD_DATA)"
    assert found.dataset.train_images.shape == (60, 28, 28)
    monkeypatch.delenv("TILEGRAD_DATA")
    monkeypatch.setattr(_cli_data, "DEBIAN_FASHION", str(fake_fashion))
    assert _cli_data.find_data("fashion-mnist").source == f"from {fake_fashion}"


def test_auto_does_not_hide_a_damaged_file(fake_fashion, monkeypatch, capsys, tmp_path):
    file = fake_fashion / STEMS[0]
    file.write_bytes(file.read_bytes()[:-1])
    monkeypatch.setenv("TILEGRAD_DATA", str(fake_fashion))
    assert main(["train", "--out", str(tmp_path / "run")]) == 1
    assert_one_line(capsys, "train", STEMS[0])


def test_a_folder_with_images_of_another_size(tmp_path, capsys):
    digits_set = data.load_digits()
    folder = write_idx(
        tmp_path / "small",
        digits_set.train_images,
        digits_set.train_labels.astype(np.uint8),
        digits_set.test_images,
        digits_set.test_labels.astype(np.uint8),
    )
    for name, source in (("a", str(folder)), ("b", "digits")):
        arguments = ("train", "--data", source, "--epochs", "3", "--out", str(tmp_path / name))
        assert main(arguments) == 0
    text = capsys.readouterr().out
    assert f"data      small, from {folder}" in text
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b  # the same images, however they are named


def test_a_known_set_in_a_folder_is_recognised(fake_fashion):
    found = _cli_data.find_data(str(fake_fashion))
    assert (found.slug, found.dataset.class_names[9]) == ("fashion-mnist", "Ankle boot")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({0: np.zeros((4, 3), np.uint8)}, "images must be uint8 of shape"),
        ({1: np.zeros(3, np.uint8)}, "labels must be uint8, one for each of 4 images"),
        ({2: np.zeros((2, 3, 4), np.uint8)}, "must be of the size of the training images"),
        ({3: np.full(2, 7, np.uint8)}, "labels must be below 1"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path, capsys, change, rule):
    parts = [
        np.zeros((4, 3, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 3, 3), np.uint8),
        np.zeros(2, np.uint8),
    ]
    for i, array in change.items():
        parts[i] = array
    folder = write_idx(tmp_path / "bad", *parts)
    assert main(["train", "--data", str(folder), "--out", str(tmp_path / "run")]) == 1
    assert_one_line(capsys, "train", rule)


def test_an_unknown_data_path_is_one_line_without_a_traceback(tmp_path):
    run = python("train", "--data", str(tmp_path / "fashon"), cwd=tmp_path)
    out, error = run.communicate(timeout=60)
    assert (run.returncode, out) == (1, "")
    assert error.count("\n") == 1
    assert re.match(r"tilegrad train: --data: must be auto, .* which is no such folder", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_set_that_is_not_installed(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TILEGRAD_DATA", str(tmp_path))
    for module in (_cli_data, data._datasets):
        monkeypatch.setattr(module, "DEBIAN_FASHION", str(tmp_path / "nowhere"))
    assert main(["train", "--data", name]) == 1
    assert_one_line(capsys, "train", "no place has the four files")
