# SPDX-License-Identifier: MIT
"""The data sets: the embedded digits, MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idx_files import idx_bytes
from tilegrad import data
from tilegrad.data import _datasets

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# What the user has set; the fixture below takes it away from the other tests.
DATA_VARIABLE = os.environ.get("TILEGRAD_DATA", "")


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILEGRAD_DATA", raising=False)


# Digits


def test_load_digits_is_the_uci_test_set() -> None:
    here = Path(_datasets.__file__).parent
    images = data.load_idx(here / "digits-images-idx3-ubyte.gz")
    labels = data.load_idx(here / "digits-labels-idx1-ubyte.gz")
    assert images.shape == (1797, 8, 8)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images[0, :2].tolist() == [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    notice = (here / "README.md").read_text()
    for array in (images, labels):
        assert hashlib.sha256(array.tobytes()).hexdigest() in notice
    for text in (notice, data.load_digits.__doc__):
        assert "CC BY 4.0" in text
        assert "https://doi.org/10.24432/C50P49" in text
        assert "Alpaydin" in text
    assert sum(file.stat().st_size for file in here.glob("digits-*")) < 60_000


def test_load_digits_split_is_fixed_and_stratified() -> None:
    digits = data.load_digits()
    assert digits.train_images.dtype == np.uint8
    assert digits.train_labels.dtype == np.int64
    assert digits.train_images.shape == (1437, 8, 8)
    assert digits.test_images.shape == (360, 8, 8)
    assert np.bincount(digits.test_labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits.test_labels[:12].tolist() == [2, 3, 5, 3, 5, 7, 5, 6, 8, 9, 5, 0]
    here = Path(_datasets.__file__).parent
    stored = zip(
        data.load_idx(here / "digits-images-idx3-ubyte.gz"),
        data.load_idx(here / "digits-labels-idx1-ubyte.gz"),
        strict=True,
    )
    split = itertools.chain(
        zip(digits.train_images, digits.train_labels, strict=True),
        zip(digits.test_images, digits.test_labels, strict=True),
    )
    assert Counter((a.tobytes(), int(b)) for a, b in split) == Counter(
        (a.tobytes(), int(b)) for a, b in stored
    )


def test_dataset_train_and_test_give_flat_floats() -> None:
    digits = data.load_digits()
    for (x, y), images, labels in (
        (digits.train(), digits.train_images, digits.train_labels),
        (digits.test(), digits.test_images, digits.test_labels),
    ):
        assert x.dtype == np.float32
        assert x.shape == (len(images), 64)
        assert x.flags.c_contiguous
        assert x.min() == 0.0
        assert x.max() == 1.0
        np.testing.assert_array_equal(x.reshape(images.shape) * 16, images)
        assert y is labels


def test_dataset_is_frozen_and_new_with_each_call() -> None:
    digits = data.load_digits()
    with pytest.raises(AttributeError):
        digits.name = "other"  # type: ignore[misc]
    digits.train_images[:] = 0
    assert data.load_digits().train_images.any()
    assert repr(digits) == (
        "Dataset('UCI digits', train (1437, 8, 8), test (360, 8, 8), 10 classes)"
    )


# MNIST and Fashion-MNIST


def write_set(
    place: Path,
    *,
    labels: tuple[int, ...] = (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5),
    packed: bool = True,
    dots: bool = False,
) -> np.ndarray:
    place.mkdir(parents=True, exist_ok=True)
    images = np.arange(len(labels) * 784).astype(np.uint8).reshape(-1, 28, 28)
    arrays = (images, np.array(labels, np.uint8), images[:4], np.array(labels[:4], np.uint8))
    for stem, array in zip(STEMS, arrays, strict=True):
        name = stem.replace("-idx", ".idx") if dots else stem
        content = idx_bytes(array)
        if packed:
            (place / (name + ".gz")).write_bytes(gzip.compress(content, mtime=0))
        else:
            (place / name).write_bytes(content)
    return images


@pytest.mark.parametrize("loader", [data.load_mnist, data.load_fashion_mnist])
@pytest.mark.parametrize(("packed", "dots"), [(True, False), (False, False), (False, True)])
def test_load_images_from_root(tmp_path: Path, loader, packed: bool, dots: bool) -> None:
    images = write_set(tmp_path, packed=packed, dots=dots)
    for root in (tmp_path, str(tmp_path)):
        got = loader(root)
        np.testing.assert_array_equal(got.train_images, images)
        np.testing.assert_array_equal(got.test_images, images[:4])
        assert got.train_labels.tolist() == [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
        assert got.test_labels.tolist() == [3, 1, 4, 1]
        assert got.train_labels.dtype == got.test_labels.dtype == np.int64
        assert got.max_pixel == 255
        assert len(got.class_names) == 10
        x, y = got.train()
        np.testing.assert_allclose(x, images.reshape(-1, 784) / 255, rtol=1e-7)
        assert x.dtype == np.float32
        assert y is got.train_labels


def test_load_images_names_the_classes(tmp_path: Path) -> None:
    write_set(tmp_path)
    assert data.load_mnist(tmp_path).class_names == tuple("0123456789")
    assert data.load_fashion_mnist(tmp_path).class_names[5] == "Sandal"
    assert data.load_mnist(tmp_path).name == "MNIST"
    assert data.load_fashion_mnist(tmp_path).name == "Fashion-MNIST"


@pytest.mark.parametrize(
    ("loader", "subfolder"),
    [
        (data.load_mnist, "mnist"),
        (data.load_mnist, "MNIST/raw"),
        (data.load_fashion_mnist, "fashion-mnist"),
        (data.load_fashion_mnist, "FashionMNIST/raw"),
    ],
)
@pytest.mark.parametrize("by_variable", [False, True])
def test_load_images_prefers_the_subfolder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader, subfolder: str, by_variable: bool
) -> None:
    write_set(tmp_path, labels=(0,) * 9)
    write_set(tmp_path / subfolder, labels=(7,) * 9)
    if by_variable:
        monkeypatch.setenv("TILEGRAD_DATA", str(tmp_path))
    got = loader() if by_variable else loader(tmp_path)
    assert set(got.train_labels.tolist()) == {7}


def test_load_images_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("root", "variable", "system")):
        write_set(tmp_path / name, labels=(number,) * 9)
    monkeypatch.setattr(_datasets, "DEBIAN_FASHION", str(tmp_path / "system"))

    def first_label(root: Path | None = None) -> int:
        return int(data.load_fashion_mnist(root).train_labels[0])

    assert first_label() == 2
    monkeypatch.setenv("TILEGRAD_DATA", str(tmp_path / "variable"))
    assert first_label() == 1
    assert first_label(tmp_path / "root") == 0
    monkeypatch.setenv("TILEGRAD_DATA", str(tmp_path / "nowhere"))
    assert first_label() == 2
    monkeypatch.setenv("TILEGRAD_DATA", "")
    assert first_label() == 2
    # A wrong folder that somebody named must not be replaced by another silently.
    with pytest.raises(FileNotFoundError, match="no such folder"):
        first_label(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="root, which is empty"):
        data.load_fashion_mnist("")


def test_load_fashion_mnist_missing_lists_places_and_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_datasets, "DEBIAN_FASHION", str(tmp_path / "system"))
    with pytest.raises(FileNotFoundError) as caught:
        data.load_fashion_mnist()
    text = str(caught.value)
    for part in (
        "load_fashion_mnist: no place has the four files",
        f"{tmp_path / 'system'} (no such folder)",
        "TILEGRAD_DATA (not set)",
        "apt-get install dataset-fashion-mnist",
        *STEMS,
    ):
        assert part in text
    monkeypatch.setenv("TILEGRAD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        data.load_fashion_mnist()
    for part in ("fashion-mnist (no such", "raw (no such", f"{tmp_path} (has none", "system"):
        assert part in str(caught.value)


def test_load_mnist_missing_names_the_files_that_lack(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / f"{STEMS[2]}.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        data.load_mnist(tmp_path)
    text = str(caught.value)
    assert f"{tmp_path} (lacks {STEMS[2]})" in text
    assert "apt-get" not in text
    assert "TILEGRAD_DATA" in text
    with pytest.raises(FileNotFoundError, match=r"looked at .*TILEGRAD_DATA \(not set\)"):
        data.load_mnist()


@pytest.mark.parametrize(
    ("stem", "content", "text"),
    [
        (STEMS[0], idx_bytes(np.zeros((11, 27, 28), np.uint8)), r"\(n, 28, 28\); got uint8"),
        (STEMS[0], idx_bytes(np.zeros((11, 784), np.uint8)), r"got uint8 of shape \(11, 784\)"),
        (STEMS[0], idx_bytes(np.zeros((11, 28, 28), np.int8)), "got int8"),
        (STEMS[1], idx_bytes(np.zeros(10, np.uint8)), r"\(11,\), one for each image; got uint8"),
        (STEMS[1], idx_bytes(np.zeros(11, np.int32)), "got int32"),
        (STEMS[3], idx_bytes(np.zeros((4, 1), np.uint8)), r"got uint8 of shape \(4, 1\)"),
        (STEMS[3], idx_bytes(np.full(4, 10, np.uint8)), "labels must be below 10; got 10"),
        (STEMS[3], idx_bytes(np.zeros(4, np.uint8))[:-1], "needs 4 data bytes; got 3"),
    ],
)
def test_load_images_refuses_files_that_do_not_fit(
    tmp_path: Path, stem: str, content: bytes, text: str
) -> None:
    write_set(tmp_path, packed=False)
    (tmp_path / stem).write_bytes(content)
    with pytest.raises(ValueError, match=f"{stem}.*{text}"):
        data.load_mnist(tmp_path)


def test_load_images_tells_the_two_sets_apart(tmp_path: Path) -> None:
    mnist, fashion = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3), (9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0)
    write_set(tmp_path, labels=mnist)
    assert data.load_mnist(tmp_path).name == "MNIST"
    with pytest.raises(ValueError, match="must hold Fashion-MNIST; got those of MNIST"):
        data.load_fashion_mnist(tmp_path)
    write_set(tmp_path, labels=fashion)
    assert data.load_fashion_mnist(tmp_path).name == "Fashion-MNIST"
    with pytest.raises(ValueError, match="must hold MNIST; got those of Fashion-MNIST"):
        data.load_mnist(tmp_path)


def test_load_fashion_mnist_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEGRAD_DATA", DATA_VARIABLE)
    try:
        fashion = data.load_fashion_mnist()
    except FileNotFoundError as error:
        pytest.skip(f"Fashion-MNIST is not installed: {error}")
    assert fashion.train_images.shape == (60000, 28, 28)
    assert fashion.test_images.shape == (10000, 28, 28)
    assert np.bincount(fashion.train_labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test_labels).tolist() == [1000] * 10
    assert fashion.train_labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    # Mean and deviation that torchvision users normalise with.
    x, _ = fashion.train()
    assert round(float(x.mean(dtype=np.float64)), 4) == 0.2860
    assert round(float(x.std(dtype=np.float64)), 4) == 0.3530


def test_names_are_the_public_ones() -> None:
    assert data.__all__ == sorted(data.__all__)
    assert all(hasattr(data, name) for name in data.__all__)
