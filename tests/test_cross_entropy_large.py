# SPDX-License-Identifier: MIT
"""Logits with more than 2^32 elements, and rows further apart than 32 bits can say.

Such a case has to cost little. Logits are pages that nobody wrote, which the system maps to one
page of zeros. A gradient is a window in which most rows share their memory, so that gigabytes are
written and few are used. What runs where:

    cpu   loss and gradient, every row written; strides beyond 2^31 elements
    sim   the loss; a gradient of so many elements would take minutes
    cuda  loss and gradient, softmax too, where the device has the memory (make gpu-check)
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, tolerance
from tilegrad import backends

linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="memory as Linux maps it")

CLASSES = 1 << 20
ROWS = (1 << 12) + 3  # so that CLASSES * ROWS is above 2^32
COUNTED = (0, 1, ROWS - 2, ROWS - 1)  # the last two begin beyond 2^32 elements
_NO_RESERVE = 0x4000


def zeros(*shape: int) -> Array:
    """Return float32 zeros of which only what is written takes memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
    return np.frombuffer(mmap.mmap(-1, 4 * math.prod(shape), flags), np.float32).reshape(shape)


class Window:
    """Rows of float32 that share one piece of memory, but for the last `own` of them."""

    def __init__(self, rows: int, classes: int, own: int) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mmap.restype = ctypes.c_void_p
        row = 4 * classes
        assert row % mmap.PAGESIZE == 0
        self.size = rows * row
        file = os.memfd_create("rows")
        os.ftruncate(file, (own + 1) * row)
        self.start = self._map(None, self.size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        for i in range(rows):
            part = max(i - (rows - own) + 1, 0)
            self._map(self.start + i * row, row, mmap.MAP_SHARED | 0x10, file, part * row)
        os.close(file)
        memory = (ctypes.c_byte * self.size).from_address(self.start)
        self.array = np.frombuffer(memory, np.float32).reshape(rows, classes)

    def _map(self, at: int | None, size: int, flags: int, file: int, offset: int) -> int:
        start = self.libc.mmap(
            ctypes.c_void_p(at), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE,
            flags | _NO_RESERVE, file, ctypes.c_long(offset),
        )  # fmt: skip
        assert start not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
        return int(start)

    def close(self) -> None:
        del self.array
        self.libc.munmap(ctypes.c_void_p(self.start), ctypes.c_size_t(self.size))


def draw(rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the rows that count and their targets."""
    x = rng.standard_normal((len(COUNTED), CLASSES)).astype(np.float32)
    return x, np.array([3, CLASSES - 1, 77, CLASSES - 2])


def targets(t: Array) -> Array:
    every = np.full(ROWS, -100)
    every[list(COUNTED)] = t
    return every


def there(device: Device, x: Array) -> Any:
    """Hand the array's own memory to the device: the simulator's is the host's."""
    return backends.at(backends.SIM).from_dlpack(x) if device.name == "sim" else device.put(x)


@linux
@pytest.mark.simulated("reduction", lambda reduction: reduction == "none")
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_loss_of_more_than_2_to_the_32_logits(
    device: Device, reduction: str, rng: np.random.Generator
) -> None:
    if device.name == "sim" and backends.at(backends.SIM).schedule() != "forward/eager":
        pytest.skip("gigabytes under one schedule: nothing here depends on it")
    few, t = draw(rng)
    x = zeros(ROWS, CLASSES)
    assert x.size > 2**32
    x[list(COUNTED)] = few
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    loss = device.get(tg.cross_entropy(there(device, x), device.put(targets(t)), **options))
    want = device.ops.cross_entropy(few, t, **options)
    if reduction == "none":
        assert not np.delete(loss, COUNTED).any()
        assert_same_bits(loss[list(COUNTED)], want)
    else:
        assert_close(loss, want, tolerance(np.float32, len(COUNTED)) * want)


@linux
@pytest.mark.cpu_only("memory that rows share; a device's is in the next test")
def test_the_gradient_of_more_than_2_to_the_32_logits(
    device: Device, rng: np.random.Generator
) -> None:
    few, t = draw(rng)
    x, window = zeros(ROWS, CLASSES), Window(ROWS, CLASSES, 2)
    x[list(COUNTED)] = few
    dx, every = window.array, targets(t)
    every[list(COUNTED[:2])] = -100  # their gradients would lie where all others do
    dx[-3:] = np.nan
    tg.cross_entropy_backward(2.0, x, every, reduction="sum", out=dx)
    want = tg.cross_entropy_backward(2.0, few[2:], t[2:], reduction="sum")
    assert_same_bits(dx[-2:], want)
    assert not dx[-3].any()
    assert not dx[0].any()
    del dx
    window.close()


@linux
@pytest.mark.cpu_only("elsewhere an array has no strides")
@pytest.mark.parametrize("shape", [(3, 10), (3, 10, 4)], ids=str)
def test_rows_further_apart_than_32_bits(
    device: Device, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    apart = 2**31 + 40  # elements; 2^33 bytes
    memory = zeros(shape[0] * apart)
    strides = {2: (4 * apart, 4), 3: (4 * apart, 16, 4)}[len(shape)]
    x = np.lib.stride_tricks.as_strided(memory, shape, strides)
    x[...] = rng.standard_normal(shape)
    indices = zeros(shape[0] * apart).view(np.int32)
    t = np.lib.stride_tricks.as_strided(indices, x[:, 0].shape, (4 * apart, 4)[: x.ndim - 1])
    t[...] = rng.integers(0, shape[1], t.shape)
    got = tg.cross_entropy_value_and_grad(x, t, reduction="none")
    want = tg.cross_entropy_value_and_grad(x.copy(), t.copy(), reduction="none")
    for one, other in zip(got, want, strict=True):
        assert_same_bits(one, other)
    assert_same_bits(tg.softmax(x, 1), tg.softmax(x.copy(), 1))


@pytest.mark.not_on_cpu("its memory is the system's")
@pytest.mark.simulated("op", lambda op: False)
@pytest.mark.parametrize("op", ["cross_entropy", "in_place", "softmax", "columns"])
def test_a_device_writes_more_than_2_to_the_32_elements(
    device: Device, op: str, rng: np.random.Generator
) -> None:
    few, t = draw(rng)
    half = few.astype(np.float16)
    try:
        x = tg.full((ROWS, CLASSES), 0.0, dtype=np.float16, device=device.name)
        y = x if op == "in_place" else tg.empty((ROWS, CLASSES), np.float16, device=device.name)
    except RuntimeError as error:
        if "out of device memory" not in str(error):
            raise
        pytest.skip(f"needs {4 * ROWS * CLASSES >> 30} GiB of device memory")
    for i, row in zip(COUNTED, half, strict=True):
        x[i : i + 1]._assign(device.put(row[None]))
    if op == "softmax":
        want = device.get(tg.softmax(device.put(half), 1))
        tg.softmax(x, 1, out=y)
    elif op == "columns":
        shape = (ROWS, CLASSES // 64, 64)
        want = device.get(tg.softmax(device.put(half.reshape(-1, *shape[1:])), 1))
        want = want.reshape(half.shape)
        tg.softmax(x.reshape(shape), 1, out=y.reshape(shape))
    else:
        want = device.get(tg.cross_entropy_backward(2.0, device.put(half), device.put(t),
                                                    reduction="sum"))  # fmt: skip
        every = device.put(targets(t))
        tg.cross_entropy_backward(2.0, x, every, reduction="sum", out=y)
    for i, row in zip(COUNTED, want, strict=True):
        assert_same_bits(device.get(y[i : i + 1])[0], row)
    other = device.get(y[ROWS - 3 : ROWS - 2])
    assert_same_bits(other, np.full_like(other, device.get(y[2:3])[0, 0]))
