# SPDX-License-Identifier: MIT
"""Find and read whole data sets of labelled images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._idx import load_idx
from ._split import train_test_split

_HERE = os.path.dirname(__file__)
DEBIAN_FASHION = "/usr/share/datasets/fashion-mnist"
_STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Fashion-MNIST bears MNIST's file names, so only the content tells one from the other.
_FIRST_LABELS = {
    "Fashion-MNIST": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
    "MNIST": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
}
_NO_VARIABLE = "the environment variable TILEGRAD_DATA (not set)"
_DIGITS = tuple("0123456789")
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Hold labelled images as stored, split into a training part and a test part.

    `train()` and `test()` give them as a network takes them.

    Args:
        name: What the data set is called.
        train_images: uint8, `(n, rows, columns)`.
        train_labels: int64, `(n,)`, numbers into `class_names`.
        test_images: uint8, `(m, rows, columns)`.
        test_labels: int64, `(m,)`.
        class_names: One name for each class.
        max_pixel: The value of full ink: 255, but 16 for the digits.

    Example:
        >>> from tilegrad import data
        >>> data.load_digits()
        Dataset('UCI digits', train (1437, 8, 8), test (360, 8, 8), 10 classes)
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    max_pixel: int

    def train(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the training part, one flat row of floats for each image.

        Math: x = pixel / max_pixel

        Returns:
            `(x, y)`: a new float32 array in [0, 1], `(n, rows * columns)`, and the labels, `(n,)`.

        Example:
            >>> from tilegrad import data
            >>> x, y = data.load_digits().train()
            >>> x.shape, x.dtype.name, float(x.min()), float(x.max()), y.shape
            ((1437, 64), 'float32', 0.0, 1.0, (1437,))
        """
        return self._flat(self.train_images), self.train_labels

    def test(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the test part in the form of `train()`.

        Returns:
            `(x, y)`: a new float32 array in [0, 1], `(m, rows * columns)`, and the labels, `(m,)`.

        Example:
            >>> from tilegrad import data
            >>> x, y = data.load_digits().test()
            >>> x.shape, y.shape
            ((360, 64), (360,))
        """
        return self._flat(self.test_images), self.test_labels

    def _flat(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale to [0, 1] and flatten, in one pass."""
        rows, columns = images.shape[1:]
        flat = images.reshape(len(images), rows * columns)
        scaled: NDArray[np.float32] = np.divide(flat, np.float32(self.max_pixel), dtype=np.float32)
        return scaled

    def __repr__(self) -> str:
        """Name the sizes instead of printing pixels."""
        return (
            f"Dataset({self.name!r}, train {self.train_images.shape}, "
            f"test {self.test_images.shape}, {len(self.class_names)} classes)"
        )


def load_digits() -> Dataset:
    """Return the 1797 handwritten digits that come with the package.

    The images are 8 x 8 counts from 0 to 16. They are the test part of "Optical Recognition of
    Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
    https://doi.org/10.24432/C50P49, licence CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/),
    repacked as IDX files.

    The split is always the same: `train_test_split(images, labels, test_size=360, seed=0,
    stratify=labels)`, which is 1437 images to train on and 360 to test on, 35 to 37 of each digit.

    Returns:
        The data set; new arrays with each call.

    Example:
        >>> from tilegrad import data
        >>> digits = data.load_digits()
        >>> digits.train_images.shape, digits.test_images.shape, digits.max_pixel
        ((1437, 8, 8), (360, 8, 8), 16)
    """
    images = load_idx(os.path.join(_HERE, "digits-images-idx3-ubyte.gz"))
    labels = load_idx(os.path.join(_HERE, "digits-labels-idx1-ubyte.gz")).astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=360, seed=0, stratify=labels
    )
    return Dataset(
        "UCI digits", train_images, train_labels, test_images, test_labels, _DIGITS, max_pixel=16
    )


def load_fashion_mnist(root: str | os.PathLike[str] | None = None) -> Dataset:
    """Read Fashion-MNIST, 60000 + 10000 images of clothes, 28 x 28, 10 classes.

    Debian and Ubuntu have it as a package: `apt-get install dataset-fashion-mnist`. Nothing is
    downloaded here. Source: H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747, MIT licence.

    Args:
        root: Folder with the four IDX files (plain or .gz, also in its subfolder `fashion-mnist`
            or torchvision's `FashionMNIST/raw`). A folder given here is the only place looked at.
            None looks into the same places below the environment variable TILEGRAD_DATA, then
            into /usr/share/datasets/fashion-mnist.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: If no place has all four files; the text lists the places.
        ValueError: If a file is damaged, or the files do not fit together or hold MNIST.

    Example:
        >>> from tilegrad import data
        >>> data.load_fashion_mnist("/no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: load_fashion_mnist: no place has the four files; looked at ...
    """
    files = find_files(
        "load_fashion_mnist",
        root,
        subfolders=("fashion-mnist", "FashionMNIST/raw"),
        system=(DEBIAN_FASHION,),
        hint="apt-get install dataset-fashion-mnist, or ",
    )
    return _read_images("load_fashion_mnist", "Fashion-MNIST", files, _FASHION)


def load_mnist(root: str | os.PathLike[str] | None = None) -> Dataset:
    """Read MNIST, 60000 + 10000 images of handwritten digits, 28 x 28.

    Nothing is downloaded here: put the four files into a folder. Source: Y. LeCun, C. Cortes,
    C. Burges, "The MNIST database of handwritten digits" (1998).

    Args:
        root: Folder with the four IDX files (plain or .gz, also in its subfolder `mnist` or
            torchvision's `MNIST/raw`). A folder given here is the only place looked at. None
            looks into the same places below the environment variable TILEGRAD_DATA.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: If no place has all four files; the text lists the places.
        ValueError: If a file is damaged, or the files do not fit together or hold Fashion-MNIST.

    Example:
        >>> from tilegrad import data
        >>> data.load_mnist("/no/such/folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: load_mnist: no place has the four files; looked at ...
    """
    files = find_files("load_mnist", root, subfolders=("mnist", "MNIST/raw"), system=(), hint="")
    return _read_images("load_mnist", "MNIST", files, _DIGITS)


def find_files(
    op: str,
    root: str | os.PathLike[str] | None,
    *,
    subfolders: tuple[str, ...],
    system: tuple[str, ...],
    hint: str,
) -> list[str]:
    """Find a folder with all four files.

    Args:
        op: Name for the error text.
        root: The caller's folder, or None.
        subfolders: Where the set may lie below a folder. They come before the folder itself,
            which may hold another set with the same file names.
        system: Where the operating system's package puts the files.
        hint: How to install the set, for the error text.

    Returns:
        The four files, in the order of `_STEMS`.

    Raises:
        FileNotFoundError: If there is no such folder.

    Example:
        >>> find_files("op", "/no", subfolders=(), system=(), hint="")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: op: no place has the four files; looked at /no (no such folder). ...
    """
    base = os.fsdecode(root) if root is not None else os.environ.get("TILEGRAD_DATA", "")
    places = [os.path.join(base, sub) for sub in subfolders] + [base] if base else []
    if root is None:
        places.extend(system)
    looked = []
    for place in places:
        found = [_file(place, stem) for stem in _STEMS]
        files = [file for file in found if file is not None]
        if len(files) == len(_STEMS):
            return files
        missing = [stem for stem, file in zip(_STEMS, found, strict=True) if file is None]
        state = f"lacks {', '.join(missing)}" if files else "has none of them"
        looked.append(f"{place} ({state if os.path.isdir(place) else 'no such folder'})")
    if not base:
        looked.append("the folder root, which is empty" if root is not None else _NO_VARIABLE)
    raise FileNotFoundError(
        f"{op}: no place has the four files; looked at {'; '.join(looked)}. Way out: {hint}put "
        f"{', '.join(_STEMS)} (plain or .gz) into a folder and give that as root or in the "
        "environment variable TILEGRAD_DATA"
    )


def set_of(labels: NDArray[Any]) -> str | None:
    """Tell a known set by its first ten training labels.

    Args:
        labels: The training labels, in the order of the file.

    Returns:
        "Fashion-MNIST", "MNIST", or None for labels of another set.

    Example:
        >>> set_of(np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5]))
        'MNIST'
    """
    first = tuple(labels.ravel()[:10].tolist())
    return next((name for name, known in _FIRST_LABELS.items() if known == first), None)


def _file(place: str, stem: str) -> str | None:
    """Return the file of that stem: plain, packed, or with the dot that some mirrors write."""
    for name in (stem, stem + ".gz", stem.replace("-idx", ".idx")):
        path = os.path.join(place, name)
        if os.path.isfile(path):
            return path
    return None


def _read_images(op: str, name: str, files: list[str], class_names: tuple[str, ...]) -> Dataset:
    """Read the four files and check that they belong together.

    Args:
        op: Name for the error texts.
        name: Name of the data set.
        files: The four files, in the order of `_STEMS`.
        class_names: One name for each class.

    Returns:
        The data set.

    Raises:
        ValueError: If a file breaks a rule of the set.
    """
    train_images, train_labels, test_images, test_labels = (load_idx(file) for file in files)
    for images, file in ((train_images, files[0]), (test_images, files[2])):
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise ValueError(
                f"{op}: {file}: images must be uint8 of shape (n, 28, 28); got {_kind(images)}"
            )
    for labels, images, file in (
        (train_labels, train_images, files[1]),
        (test_labels, test_images, files[3]),
    ):
        if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{op}: {file}: labels must be uint8 of shape {images.shape[:1]}, one for each "
                f"image; got {_kind(labels)}"
            )
        if labels.size and int(labels.max()) >= len(class_names):
            raise ValueError(
                f"{op}: {file}: labels must be below {len(class_names)}; got {int(labels.max())}"
            )
    known = set_of(train_labels)
    if known not in (None, name):
        raise ValueError(
            f"{op}: {files[1]}: the files must hold {name}; got those of {known} "
            "(they have the same names: keep the sets in folders of their own)"
        )
    return Dataset(
        name,
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        class_names,
        max_pixel=255,
    )


def _kind(array: NDArray[Any]) -> str:
    """Name dtype and shape for an error text."""
    return f"{array.dtype} of shape {array.shape}"
