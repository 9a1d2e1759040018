# SPDX-License-Identifier: MIT
"""Transforms of images: what they do, where their random numbers come from, how they resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_same_bits, error
from tilegrad import data, nn

N, H, W = 200, 6, 5
IMAGES = np.random.default_rng(1).random((N, H, W)).astype(np.float32) + 1  # no zeros
COLOURS = np.random.default_rng(2).random((N, 3, H, W))

RANDOM: dict[str, Callable[[], data.Transform]] = {
    "shift": lambda: data.RandomShift(2),
    "shift in one direction": lambda: data.RandomShift((0, 3)),
    "horizontal": lambda: data.RandomHorizontalFlip(),
    "vertical": lambda: data.RandomVerticalFlip(0.3),
    "noise": lambda: data.GaussianNoise(sigma=0.2, clip=False),
    "all": lambda: data.Compose(
        [data.RandomShift(1), data.RandomHorizontalFlip(), data.Normalize(0.5, 0.25),
         data.GaussianNoise(sigma=0.1, clip=False)]
    ),
}  # fmt: skip
each = pytest.mark.parametrize("name", RANDOM)


def shifted(image: Array, down: int, right: int, fill: float) -> Array:
    """Move one image, pixel by pixel."""
    result = np.full_like(image, fill)
    height, width = image.shape[-2:]
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                result[..., i, j] = image[..., i - down, j - right]
    return result


@pytest.mark.parametrize("images", [IMAGES, COLOURS], ids=["grey", "colours"])
@pytest.mark.parametrize(("pixels", "fill"), [(2, 0.0), ((1, 0), -1.5), ((0, 7), 0.0), (0, 9.0)])
def test_every_image_is_shifted_by_some_whole_pixels(
    images: Array, pixels: Any, fill: float
) -> None:
    most = pixels if isinstance(pixels, tuple) else (pixels, pixels)
    moved = data.RandomShift(pixels, fill)(images, seed=5)
    assert (moved.dtype, moved.shape) == (images.dtype, images.shape)
    assert moved.flags.c_contiguous
    found: dict[tuple[int, int], int] = {}
    for image, result in zip(images, moved, strict=True):
        shifts = [
            (a, b)
            for a in range(-most[0], most[0] + 1)
            for b in range(-most[1], most[1] + 1)
            if np.array_equal(shifted(image, a, b, fill), result)
        ]
        # Two shifts that leave nothing of the image look the same.
        assert len(shifts) == 1 or (result == fill).all()
        found[shifts[0]] = found.get(shifts[0], 0) + 1
    if most[1] < W:
        assert len(found) == (2 * most[0] + 1) * (2 * most[1] + 1)  # each occurs


def test_shifts_are_uniform() -> None:
    image = np.zeros((1, 7, 7))
    image[0, 3, 3] = 1
    count = 50_000
    moved = data.RandomShift(2)(np.broadcast_to(image[0], (count, 7, 7)), seed=1)
    places = np.bincount(moved.reshape(count, -1).argmax(1), minlength=49)
    expected = count / 25
    assert np.count_nonzero(places) == 25
    chi2 = float(((places[places > 0] - expected) ** 2 / expected).sum())
    assert chi2 < 51.2  # 24 degrees of freedom: p = 0.001; the draw is fixed


@pytest.mark.parametrize("images", [IMAGES, COLOURS], ids=["grey", "colours"])
@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("name", "axis"), [("Horizontal", -1), ("Vertical", -2)])
def test_some_images_are_mirrored_others_are_not(
    name: str, axis: int, p: float, images: Array
) -> None:
    before = images.copy()
    result = getattr(data, f"Random{name}Flip")(p)(images, seed=3)
    mirrored = np.flip(images, axis)
    flipped = np.array([np.array_equal(a, b) for a, b in zip(result, mirrored, strict=True)])
    for i, image in enumerate(result):
        assert_same_bits(image, mirrored[i] if flipped[i] else images[i])
    assert abs(flipped.sum() - p * N) <= 4 * math.sqrt(N * p * (1 - p))
    assert_same_bits(images, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_normal_and_differs_from_image_to_image(dtype: Any) -> None:
    images = np.full((400, 20, 25), 0.5, dtype)
    noisy = data.GaussianNoise(0.25, 2.0, clip=False)(images, seed=4)
    assert noisy.dtype == dtype
    noise = (noisy.astype(np.float64) - 0.75) / 2
    n = noise.size
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((noise**power).mean() - moment) < 4 * math.sqrt(variance / n)
    rows = noise.reshape(400, -1)
    between = np.mean(rows[1:] * rows[:-1])
    assert abs(between) < 4 / math.sqrt(n)
    clipped = data.GaussianNoise(0.25, 2.0)(images, seed=4)
    assert_same_bits(clipped, np.clip(noisy, 0, 1))


def test_normalize_shifts_and_scales() -> None:
    assert_same_bits(data.Normalize(0.25, 2.0)(IMAGES), (IMAGES - np.float32(0.25)) / np.float32(2))
    mean, std = [0.1, 0.2, 0.3], [1.0, 2.0, 4.0]
    got = data.Normalize(mean, std)(COLOURS)
    for c in range(3):
        assert_same_bits(got[:, c], (COLOURS[:, c] - mean[c]) / std[c])
    rows = IMAGES.reshape(N, -1)
    assert data.Normalize(0.5, 0.5)(rows).shape == rows.shape


@each
def test_an_images_change_depends_on_seed_epoch_and_row_alone(name: str) -> None:
    transform = RANDOM[name]()
    images = COLOURS
    whole = transform(images, seed=7, epoch=3)
    assert_same_bits(RANDOM[name]()(images, seed=7, epoch=3), whole)
    rows = np.array([150, 3, 77, 78])
    assert_same_bits(transform(images[rows], seed=7, epoch=3, rows=rows), whole[rows])
    assert not np.array_equal(transform(images, seed=8, epoch=3), whole)
    assert not np.array_equal(transform(images, seed=7, epoch=4), whole)
    assert transform(images[:0]).shape == (0, *images.shape[1:])


def test_parts_of_a_composition_draw_apart_and_in_order() -> None:
    class Words(data.Transform):
        def apply(self, images: Array, words: Array) -> Array:
            seen.append(words)
            return images + 1

    class Twice(data.Transform):
        random = False

        def apply(self, images: Array, words: Array) -> Array:
            assert words.size == 0
            return images * 2

    seen: list[Array] = []
    first, second, twice = Words(), Words(), Twice()
    flat = data.Compose([first, twice, second])
    np.testing.assert_array_equal(flat(np.zeros((40, 1))), np.full((40, 1), 3.0))
    assert len(np.unique(np.concatenate(seen))) == 80
    data.Compose([data.Compose([first, second])])(np.zeros((40, 1)))
    for one, other in zip(seen[:2], seen[2:], strict=True):  # what draws nothing does not count
        np.testing.assert_array_equal(one, other)
    fixed = flat.without_random()
    assert fixed is not None
    np.testing.assert_array_equal(fixed(np.ones((3, 1))), np.full((3, 1), 2.0))
    assert first.without_random() is None
    assert data.Compose([first]).without_random() is None


def test_words_are_pinned() -> None:
    # Runs of older versions must resume with these very images, on any NumPy.
    words = data._random.row_words(7, 3, 1, np.array([0, 1, 12345]))
    assert words.tolist() == [12381728116861348388, 18257420830440905145, 1906044525829875524]


def test_words_are_uniform_and_independent() -> None:
    rows = np.arange(100_000)
    words = data._random.row_words(0, 0, 0, rows)
    assert len(np.unique(words)) == len(rows)
    bits = (words[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).astype(np.float64)
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(len(rows))
    for other in [(0, 0, 1), (0, 1, 0), (1, 0, 0)]:
        flips = words ^ data._random.row_words(*other, rows)
        changed = (flips[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)).mean(0)
        assert np.abs(changed - 0.5).max() < 4.5 * 0.5 / math.sqrt(len(rows))
    neighbours = np.corrcoef(words[1:].astype(float), words[:-1].astype(float))[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(len(rows))


# ---- in a loader ----------------------------------------------------------------------------


def loader_of(name: str, batch_size: int = 32, shuffle: bool = True, seed: int = 9) -> Any:
    return data.DataLoader(
        IMAGES, np.arange(N), batch_size=batch_size, shuffle=shuffle, seed=seed,
        transform=RANDOM[name](),
    )  # fmt: skip


def epoch_of(loader: Any) -> Array:
    """Return the images of an epoch in the order of their rows."""
    result = np.full(IMAGES.shape, np.nan, np.float32)
    for x, rows in loader:
        assert x.flags.c_contiguous
        result[rows] = x
    return result


@each
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_changes_inputs_anew_in_each_epoch(name: str, shuffle: bool) -> None:
    loader = loader_of(name, shuffle=shuffle)
    before = IMAGES.copy()
    first, second = epoch_of(loader), epoch_of(loader)
    assert not np.array_equal(first, second)
    assert_same_bits(first, RANDOM[name]()(IMAGES, seed=9, epoch=0))
    assert_same_bits(second, RANDOM[name]()(IMAGES, seed=9, epoch=1))
    assert_same_bits(epoch_of(loader_of(name, 7, not shuffle)), first)
    assert_same_bits(IMAGES, before)


@each
@pytest.mark.parametrize("done", [1, 5])
def test_a_resumed_loader_hands_out_the_same_images(name: str, done: int) -> None:
    whole, stopped = loader_of(name), loader_of(name)
    epoch_of(whole)
    epoch_of(stopped)
    expected = [x for x, _ in whole]
    batches = iter(stopped)
    for _ in range(done):
        next(batches)
    state = json.loads(json.dumps(stopped.state_dict()))
    other = loader_of(name, seed=0)
    other.load_state_dict(state)
    got = [x for x, _ in other]
    for one, wanted in zip(got, expected[done:], strict=True):
        assert_same_bits(one, wanted)


def test_a_loader_tells_its_transform() -> None:
    shift = data.RandomShift((1, 2))
    loader = data.DataLoader(IMAGES, transform=shift)
    assert loader.transform is shift
    assert "drop_last=False, transform=RandomShift(pixels=(1, 2), fill=0); epoch" in repr(loader)
    assert data.DataLoader(IMAGES).transform is None
    both = data.Compose([data.Normalize([0.0], 1), data.RandomVerticalFlip()])
    assert repr(both) == "Compose([Normalize(mean=[0.0], std=1.0), RandomVerticalFlip(p=0.5)])"


# ---- in fit ---------------------------------------------------------------------------------

LABELS = np.random.default_rng(3).integers(0, 3, N)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(H * W, 8, activation="tanh"), nn.Linear(8, 3))


def augmented() -> data.Transform:
    return RANDOM["all"]()


def train(device: Device, epochs: int, given: Any, checkpoint: Path | None = None,
          **options: Any) -> tuple[nn.Sequential, tg.History]:  # fmt: skip
    tg.manual_seed(2)
    model = network().to(device.name)
    optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
    history = tg.fit(
        model, nn.CrossEntropyLoss(), optimizer, given, options.pop("validation", None),
        epochs=epochs, batch_size=64, seed=4, checkpoint=checkpoint, progress=False, **options,
    )  # fmt: skip
    return model, history


def test_fit_augments_the_training_set_alone(device: Device) -> None:
    held = IMAGES[:50].copy()
    options = {"validation": (held, LABELS[:50]), "transform": augmented()}
    model, history = train(device, 2, (IMAGES, LABELS), **options)
    loader = data.DataLoader(
        IMAGES, LABELS, batch_size=64, shuffle=True, seed=4, transform=augmented()
    )
    same, _ = train(device, 2, loader)
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert_same_bits(one.data, other.data)
    plain, _ = train(device, 2, (IMAGES, LABELS))
    assert not np.array_equal(device.get(plain[1].weight.data), device.get(model[1].weight.data))
    scores = model.predict(held)
    assert history.val_accuracy[-1] == np.mean(scores.argmax(1) == LABELS[:50])
    # Training accuracy: normalised as in training, but not shifted, mirrored or noisy.
    scores = model.predict(data.Normalize(0.5, 0.25)(IMAGES))
    assert history.train_accuracy[-1] == np.mean(scores.argmax(1) == LABELS)


def test_fit_resumes_bit_for_bit(device: Device, tmp_path: Path) -> None:
    straight, history = train(device, 4, (IMAGES, LABELS), transform=augmented())
    path = tmp_path / "checkpoint"
    train(device, 2, (IMAGES, LABELS), path, transform=augmented())
    resumed, rest = train(device, 4, (IMAGES, LABELS), path, transform=augmented())
    assert rest.train_loss == history.train_loss
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert_same_bits(one.data, other.data)


def test_a_run_saved_in_the_middle_of_an_epoch_resumes_bit_for_bit(
    device: Device, tmp_path: Path
) -> None:
    def parts() -> tuple[Any, ...]:
        tg.manual_seed(2)
        model = network().to(device.name)
        optimizer = tg.optim.Adam(model.parameters(), lr=0.01)
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        loader = data.DataLoader(
            IMAGES, LABELS, batch_size=32, shuffle=True, seed=4, transform=augmented()
        )
        return model, optimizer, loader, step

    def run(loader: Any, step: Any, epochs: int) -> None:
        while loader.epoch < epochs:
            for x, y in loader:
                step(x, y)

    model, _, loader, step = parts()
    run(loader, step, 3)
    stopped, optimizer, loader, step = parts()
    run(loader, step, 1)
    for i, (x, y) in enumerate(loader):
        step(x, y)
        if i == 2:
            tg.save(tmp_path / "middle", stopped, optimizer, loader=loader)
            break
    resumed, optimizer, loader, step = parts()
    loader.load_state_dict({**loader.state_dict(), "seed": 99})
    tg.load(tmp_path / "middle", resumed, optimizer, loader=loader)
    run(loader, step, 3)
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert_same_bits(one.data, other.data)


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "op", "parts"),
    [
        (lambda: data.RandomShift(-1), ValueError, "RandomShift", ("at least 0", "-1")),
        (lambda: data.RandomShift(1.5), TypeError, "RandomShift", ("integer", "1.5")),
        (lambda: data.RandomShift((1, 2, 3)), ValueError, "RandomShift", ("one number or two",)),
        (lambda: data.RandomShift(1)(np.zeros((3, 4))), ValueError, "RandomShift",
         ("(n, height, width)", "(3, 4)", "nn.Flatten")),
        (lambda: data.RandomVerticalFlip(0)(np.zeros(3)), ValueError, "RandomVerticalFlip",
         ("(3,)",)),
        (lambda: data.RandomHorizontalFlip(1.1), ValueError, "RandomHorizontalFlip", ("1.1",)),
        (lambda: data.RandomHorizontalFlip("1"), TypeError, "RandomHorizontalFlip", ("'1'",)),
        (lambda: data.RandomHorizontalFlip(math.nan), ValueError, "RandomHorizontalFlip", ("nan",)),
        (lambda: data.GaussianNoise(sigma=-1), ValueError, "GaussianNoise", ("at least 0", "-1")),
        (lambda: data.GaussianNoise(math.inf), ValueError, "GaussianNoise", ("mean", "inf")),
        (lambda: data.GaussianNoise("0"), TypeError, "GaussianNoise", ("mean must be a number",)),
        (lambda: data.GaussianNoise()(np.zeros((2, 3), int)), TypeError, "GaussianNoise",
         ("int64",)),
        (lambda: data.Normalize(0, 0), ValueError, "Normalize", ("std must be above 0",)),
        (lambda: data.Normalize(math.nan, 1), ValueError, "Normalize", ("mean must be a finite",)),
        (lambda: data.Normalize([[1.0]], 1), ValueError, "Normalize", ("[[1.0]]",)),
        (lambda: data.Normalize([0, 0], 1)(COLOURS), ValueError, "Normalize",
         ("(n, 2,", "(200, 3")),
        (lambda: data.Normalize(0, 1)(np.zeros(3, "u1")), TypeError, "Normalize", ("uint8",)),
        (lambda: data.Compose([np.negative]), TypeError, "Compose", ("Transform objects",)),
        (lambda: data.Transform()(np.zeros(3)), TypeError, "Transform", ("does not define apply",)),
        (lambda: data.RandomShift(1)([1.0]), TypeError, "RandomShift", ("numpy.ndarray", "list")),
        (lambda: data.RandomShift(1)(IMAGES, rows=np.arange(3)), ValueError, "RandomShift",
         ("200 images", "(3,)")),
        (lambda: data.RandomShift(1)(IMAGES, seed=-1), ValueError, "RandomShift", ("seed", "-1")),
        (lambda: data.RandomShift(1)(IMAGES, epoch=2**64), ValueError, "RandomShift", ("epoch",)),
        (lambda: data.DataLoader(IMAGES, transform=np.negative), TypeError, "DataLoader",
         ("transform must be a Transform", "negative")),
        (lambda: train(Device("cpu"), 1, data.DataLoader(IMAGES, LABELS), transform=augmented()),
         ValueError, "fit", ("a DataLoader has its own",)),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    call: Callable[[], Any], kind: type[Exception], op: str, parts: tuple[str, ...]
) -> None:
    with error(kind, op, *parts):
        call()
