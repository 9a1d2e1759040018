# SPDX-License-Identifier: MIT
"""Change batches of images at random, reproducibly: torchvision's names for NumPy arrays.

What happens to an image follows from the seed, the epoch and the number of its row alone. So it
does not depend on the batch size or on the images beside it, and a resumed epoch sees the same
images.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tilegrad import _cpu

from ._arrays import check_arrays
from ._random import WORD_LIMIT, check_int, check_seed, row_words


class Transform:
    """Base of what a DataLoader does to the inputs of each batch.

    A subclass defines ``apply(images, words)``: images `(n, ...)`, words `(n,)`, a random uint64
    for each image; it returns a new array and leaves the given one alone. One that uses no words
    sets ``random = False``: `fit` then applies it where it measures training accuracy, too.

    Example:
        >>> from tilegrad import data
        >>> class Invert(data.Transform):
        ...     random = False
        ...     def apply(self, images, words):
        ...         return 1 - images
        >>> Invert()(np.array([[0.25, 1.0]]))
        array([[0.75, 0.  ]])
    """

    random: ClassVar[bool] = True

    def apply(self, images: NDArray[Any], words: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the changed images.

        Args:
            images: The batch, `(n, ...)`.
            words: A random word for each image, `(n,)`; empty where ``random`` is False.

        Raises:
            TypeError: The subclass does not define it.
        """
        raise TypeError(f"{type(self).__name__}: the class does not define apply")

    def __call__(
        self,
        images: NDArray[Any],
        *,
        seed: int | None = 0,
        epoch: int = 0,
        rows: NDArray[np.intp] | None = None,
    ) -> NDArray[Any]:
        """Return the images as a DataLoader would hand them out.

        Args:
            images: A batch, the images along the first axis.
            seed: The loader's seed; None draws one.
            epoch: The loader's epoch.
            rows: Number of each image in the loader's arrays, `(n,)`; None counts from 0.

        Returns:
            A C-contiguous array.

        Raises:
            TypeError: images is no NumPy array, or seed or epoch no integer.
            ValueError: A shape, seed or epoch that does not fit.
        """
        name = type(self).__name__
        count = check_arrays(name, (images,))
        key = check_seed(name, seed)
        if not 0 <= check_int(name, "epoch", epoch) < WORD_LIMIT:
            raise ValueError(f"{name}: epoch must be in [0, 2**64); got {epoch}")
        numbers_of = np.arange(count) if rows is None else np.asarray(rows)
        if numbers_of.shape != (count,):
            raise ValueError(
                f"{name}: rows must have one number for each of the {count} images; got shape "
                f"{numbers_of.shape}"
            )
        draws = 0
        for part in self._parts():
            if part.random:
                words = row_words(key, epoch, draws, numbers_of)
                draws += 1
            else:
                words = np.empty(0, np.uint64)
            images = part.apply(images, words)
        return np.ascontiguousarray(images)

    def without_random(self) -> Transform | None:
        """Return what remains without the random parts; None if that is nothing."""
        kept = [part for part in self._parts() if not part.random]
        return Compose(kept) if kept else None

    def _parts(self) -> tuple[Transform, ...]:
        return (self,)

    def __repr__(self) -> str:
        """Show the options."""
        options = ", ".join(
            f"{name}={value.tolist() if isinstance(value, np.ndarray) else value!r}"
            for name, value in vars(self).items()
        )
        return f"{type(self).__name__}({options})"


class Compose(Transform):
    """Apply several transforms one after the other.

    Args:
        transforms: The transforms. One Compose in another is the same as all in one list.

    Raises:
        TypeError: Something else among them.

    Example:
        >>> from tilegrad import data
        >>> both = data.Compose([data.RandomShift(2), data.Normalize(0.5, 0.25)])
        >>> both(np.full((4, 8, 8), 0.5)).shape
        (4, 8, 8)

    Source: torchvision.transforms.Compose.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        for part in transforms:
            if not isinstance(part, Transform):
                raise TypeError(
                    f"Compose: transforms must be Transform objects; got {part!r} (make a class "
                    "with apply of what is a function)"
                )
        self.transforms = tuple(inner for part in transforms for inner in part._parts())

    def _parts(self) -> tuple[Transform, ...]:
        return self.transforms

    def __repr__(self) -> str:
        """Show the parts."""
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class RandomShift(Transform):
    """Move each image by whole pixels, up and down and to the sides; what comes in is `fill`.

    Math: y[i, j] = x[i - a, j - b]; a and b uniform in -pixels ... pixels, for each image anew.

    Args:
        pixels: Longest shift, at least 0: one number, or one along the height and one along the
            width.
        fill: Value of the pixels that come in.

    Raises:
        TypeError: pixels is no integer.
        ValueError: It is negative; or, when used, images without a height and a width.

    Example:
        >>> from tilegrad import data
        >>> images = np.arange(1, 10).reshape(1, 3, 3)
        >>> data.RandomShift(1)(images, seed=3)[0]
        array([[4, 5, 6],
               [7, 8, 9],
               [0, 0, 0]])

    Source: the translation of torchvision.transforms.RandomAffine, in whole pixels.
    """

    def __init__(self, pixels: int | tuple[int, int], fill: float = 0) -> None:
        given = pixels if isinstance(pixels, (tuple, list)) else (pixels, pixels)
        if len(given) != 2:
            raise ValueError(f"RandomShift: pixels must be one number or two; got {pixels!r}")
        self.pixels = tuple(check_int("RandomShift", "pixels", value) for value in given)
        if min(self.pixels) < 0:
            raise ValueError(f"RandomShift: pixels must be at least 0; got {pixels}")
        self.fill = fill

    def apply(self, images: NDArray[Any], words: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the shifted images."""
        height, width = _size(self, images)
        down, right = self.pixels
        shape = (*images.shape[:-2], height + 2 * down, width + 2 * right)
        padded = np.full(shape, self.fill, images.dtype)
        padded[..., down : down + height, right : right + width] = images
        windows = sliding_window_view(padded, (height, width), axis=(-2, -1))
        top = _below(words >> np.uint64(32), 2 * down + 1)
        left = _below(words & np.uint64(0xFFFFFFFF), 2 * right + 1)
        shifted: NDArray[Any] = windows[np.arange(len(images)), ..., top, left, :, :]
        return shifted


class _RandomFlip(Transform):
    """Mirror each image along an axis with a probability."""

    _axis: ClassVar[int]

    def __init__(self, p: float = 0.5) -> None:
        if isinstance(p, bool) or not isinstance(p, numbers.Real):
            raise TypeError(f"{type(self).__name__}: p must be a number; got {p!r}")
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1]; got {p}")
        self.p: float = float(p)

    def apply(self, images: NDArray[Any], words: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the images, some of them mirrored."""
        _size(self, images)
        chosen = words >> np.uint64(32) < np.uint64(round(self.p * 2**32))
        flipped: NDArray[Any] = images.copy()
        flipped[chosen] = np.flip(images[chosen], self._axis)
        return flipped


class RandomHorizontalFlip(_RandomFlip):
    """Mirror each image left to right with probability p.

    Args:
        p: The probability.

    Raises:
        TypeError: p is no number.
        ValueError: It is outside [0, 1]; or, when used, images without a height and a width.

    Example:
        >>> from tilegrad import data
        >>> data.RandomHorizontalFlip(1.0)(np.array([[[1, 2], [3, 4]]]))
        array([[[2, 1],
                [4, 3]]])

    Source: torchvision.transforms.RandomHorizontalFlip.
    """

    _axis = -1


class RandomVerticalFlip(_RandomFlip):
    """Mirror each image top to bottom with probability p.

    Args:
        p: The probability.

    Raises:
        TypeError: p is no number.
        ValueError: It is outside [0, 1]; or, when used, images without a height and a width.

    Example:
        >>> from tilegrad import data
        >>> data.RandomVerticalFlip(1.0)(np.array([[[1, 2], [3, 4]]]))
        array([[[3, 4],
                [1, 2]]])

    Source: torchvision.transforms.RandomVerticalFlip.
    """

    _axis = -2


class GaussianNoise(Transform):
    """Add a normal random number to each value.

    Math: y = x + n, n from N(mean, sigma^2); then max(0, min(1, y)) where clip.

    Args:
        mean: Mean of the noise.
        sigma: Standard deviation of the noise, at least 0.
        clip: Keep the values in [0, 1]; say False for data that are not.

    Raises:
        TypeError: mean or sigma is no number; or, when used, images other than float32 or float64.
        ValueError: mean or sigma is not finite, or sigma is negative.

    Example:
        >>> from tilegrad import data
        >>> noisy = data.GaussianNoise(sigma=0.1)(np.full((2, 50, 50), 0.5))
        >>> bool(abs((noisy - 0.5).std() - 0.1) < 0.005)
        True

    Source: torchvision.transforms.v2.GaussianNoise.
    """

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, clip: bool = True) -> None:
        for name, value in (("mean", mean), ("sigma", sigma)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"GaussianNoise: {name} must be a number; got {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"GaussianNoise: {name} must be finite; got {value}")
        if sigma < 0:
            raise ValueError(f"GaussianNoise: sigma must be at least 0; got {sigma}")
        self.mean, self.sigma, self.clip = float(mean), float(sigma), bool(clip)

    def apply(self, images: NDArray[Any], words: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the images with noise."""
        _check_float(self, images)
        noisy = np.empty(images.shape, images.dtype)
        shape, is_double = images.shape[1:], images.dtype == np.float64
        for i, word in enumerate(words.tolist()):  # each image has a stream of its own
            noisy[i] = _cpu.random_normal(shape, is_double, self.mean, self.sigma, word, 0)
        noisy += images
        return np.clip(noisy, 0, 1, out=noisy) if self.clip else noisy


class Normalize(Transform):
    """Shift and scale the values; nothing is random.

    Math: y = (x - mean) / std, with sequences for each channel of images (n, channels, h, w).

    Args:
        mean: A number, or one for each channel.
        std: A number above 0, or one for each channel.

    Raises:
        ValueError: A std that is not above 0, a value that is not finite; or, when used, another
            number of channels.
        TypeError: When used, images other than float32 or float64.

    Example:
        >>> from tilegrad import data
        >>> data.Normalize(0.5, 0.25)(np.array([[0.5, 1.0]]))
        array([[0., 2.]])

    Source: torchvision.transforms.Normalize.
    """

    random = False

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        for name, value in (("mean", self.mean), ("std", self.std)):
            if value.ndim > 1 or not np.isfinite(value).all():
                raise ValueError(
                    f"Normalize: {name} must be a finite number, or one for each channel; got "
                    f"{value.tolist()}"
                )
        if not (self.std > 0).all():
            raise ValueError(f"Normalize: std must be above 0; got {self.std.tolist()}")

    def apply(self, images: NDArray[Any], words: NDArray[np.uint64]) -> NDArray[Any]:
        """Return the scaled images."""
        _check_float(self, images)
        mean, std = (self._of_channels(value, images) for value in (self.mean, self.std))
        result: NDArray[Any] = (images - mean) / std
        return result

    def _of_channels(self, value: NDArray[Any], images: NDArray[Any]) -> NDArray[Any]:
        value = value.astype(images.dtype)
        if value.ndim == 0:
            return value
        if images.ndim < 4 or images.shape[-3] != len(value):
            raise ValueError(
                f"Normalize: images must be (n, {len(value)}, height, width) for "
                f"{len(value)} channels; got {images.shape}"
            )
        return value[:, None, None]


def _below(words: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Map words of 32 bits to the whole numbers below a count."""
    scaled: NDArray[np.uint64] = words * np.uint64(count) >> np.uint64(32)
    return scaled.astype(np.intp)


def _size(owner: Transform, images: NDArray[Any]) -> tuple[int, int]:
    if images.ndim < 3:
        raise ValueError(
            f"{type(owner).__name__}: images must be (n, height, width) or (n, channels, height, "
            f"width); got {images.shape} (reshape rows of pixels, and let the model begin with "
            "nn.Flatten)"
        )
    return images.shape[-2], images.shape[-1]


def _check_float(owner: Transform, images: NDArray[Any]) -> None:
    if images.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"{type(owner).__name__}: images must be float32 or float64; got {images.dtype} "
            "(call astype)"
        )
