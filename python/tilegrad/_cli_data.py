# SPDX-License-Identifier: MIT
"""Find the images that ``tilegrad train`` was asked for, and say where they came from."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from .data import Dataset, load_digits, load_fashion_mnist, load_idx, load_mnist
from .data._datasets import DEBIAN_FASHION, find_files, set_of

NAMES = ("auto", "digits", "fashion-mnist", "mnist")
# Below a folder, in the order in which they are looked at: torchvision's layout too.
_SUBFOLDERS = ("fashion-mnist", "FashionMNIST/raw", "mnist", "MNIST/raw")


@dataclass(frozen=True)
class Found:
    """A data set, with words for the user.

    Attributes:
        dataset: The images.
        slug: Short name, for a folder.
        source: Where they came from.
        reason: Why these, if the user left the choice open, else "".
    """

    dataset: Dataset
    slug: str
    source: str
    reason: str = ""


def find_data(name: str) -> Found:
    """Load a data set by name or from a folder.

    Args:
        name: One of `NAMES`, or a folder with four IDX files.

    Returns:
        The data set and where it was found.

    Raises:
        FileNotFoundError: If it is nowhere; the text lists the places and the way out.
        ValueError: If a file is damaged or files do not fit together.

    Example:
        >>> find_data("digits").slug
        'digits'
    """
    if name == "auto":
        return _auto()
    if name == "digits":
        return _digits()
    if name == "fashion-mnist":
        found = _fashion_mnist()
        # Not found: the loader says it best.
        return found or Found(load_fashion_mnist(), name, "")
    if name == "mnist":
        root = os.environ.get("TILEGRAD_DATA", "")
        return Found(load_mnist(), name, f"below {root} (TILEGRAD_DATA)")
    if not os.path.isdir(name):
        raise FileNotFoundError(
            f"--data: must be {', '.join(NAMES)} or a folder; got {name!r}, which is "
            f"{'a file' if os.path.exists(name) else 'no such folder'}"
        )
    return _folder(name)


def _auto() -> Found:
    found = _fashion_mnist(
        "the default where it is installed; elsewhere the digits that come with tilegrad"
    )
    if found is not None:
        return found
    root = os.environ.get("TILEGRAD_DATA")
    places = f"{root} (TILEGRAD_DATA) and {DEBIAN_FASHION}" if root else DEBIAN_FASHION
    return _digits(
        f"Fashion-MNIST is not in {places}; to train on it: apt-get install dataset-fashion-mnist"
    )


def _digits(reason: str = "") -> Found:
    return Found(load_digits(), "digits", "embedded in tilegrad", reason)


def _fashion_mnist(reason: str = "") -> Found | None:
    """Look where `load_fashion_mnist` looks, a place at a time, so that the place is known."""
    root = os.environ.get("TILEGRAD_DATA")
    for place, words in ((root, f"below {root} (TILEGRAD_DATA)"), (DEBIAN_FASHION, "")):
        if place:
            try:
                dataset = load_fashion_mnist(place)
            except FileNotFoundError:
                continue
            return Found(dataset, "fashion-mnist", words or f"from {place}", reason)
    return None


def _folder(root: str) -> Found:
    """Read four IDX files of any image size; known sets get their class names."""
    files = find_files("--data", root, subfolders=_SUBFOLDERS, system=(), hint="")
    place, source = os.path.dirname(files[0]), f"from {os.path.dirname(files[0])}"
    parts = [load_idx(file) for file in files]
    known = set_of(parts[1])
    if known == "Fashion-MNIST":
        return Found(load_fashion_mnist(place), "fashion-mnist", source)
    if known == "MNIST":
        return Found(load_mnist(place), "mnist", source)
    train_images, train_labels, test_images, test_labels = parts
    for images, labels, at in (
        (train_images, train_labels, 0),
        (test_images, test_labels, 2),
    ):
        if images.dtype != np.uint8 or images.ndim != 3 or images.size == 0:
            raise ValueError(
                f"--data: {files[at]}: images must be uint8 of shape (n, rows, columns), n at "
                f"least 1; got {images.dtype} of shape {images.shape}"
            )
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"--data: {files[at + 1]}: labels must be uint8, one for each of "
                f"{len(images)} images; got {labels.dtype} of shape {labels.shape}"
            )
    if test_images.shape[1:] != train_images.shape[1:]:
        raise ValueError(
            f"--data: {files[2]}: images must be of the size of the training images, "
            f"{train_images.shape[1:]}; got {test_images.shape[1:]}"
        )
    classes = int(train_labels.max()) + 1
    if int(test_labels.max()) >= classes:
        raise ValueError(
            f"--data: {files[3]}: labels must be below {classes}, as in training; "
            f"got {int(test_labels.max())}"
        )
    name = os.path.basename(os.path.abspath(root)) or "images"
    dataset = Dataset(
        name,
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        tuple(str(i) for i in range(classes)),
        max_pixel=max(1, int(train_images.max())),
    )
    return Found(dataset, name, source)
