# SPDX-License-Identifier: MIT
"""Read data sets from disk, split, batch and augment them; nothing is ever downloaded.

Everything here is NumPy in, NumPy out, and every random choice follows from a seed: the same seed
gives the same split and the same batches on every machine and with every NumPy version.
"""

from ._datasets import Dataset, load_digits, load_fashion_mnist, load_mnist
from ._idx import load_idx
from ._loader import DataLoader
from ._split import k_fold, train_test_split
from ._transforms import (
    Compose,
    GaussianNoise,
    Normalize,
    RandomHorizontalFlip,
    RandomShift,
    RandomVerticalFlip,
    Transform,
)

__all__ = [
    "Compose",
    "DataLoader",
    "Dataset",
    "GaussianNoise",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomShift",
    "RandomVerticalFlip",
    "Transform",
    "k_fold",
    "load_digits",
    "load_fashion_mnist",
    "load_idx",
    "load_mnist",
    "train_test_split",
]
