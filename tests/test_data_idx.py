# SPDX-License-Identifier: MIT
"""The IDX reader."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from idx_files import IDX_CODES, idx_bytes, idx_header
from tilegrad import data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@settings(deadline=None)
@given(
    array=st.sampled_from(sorted(IDX_CODES)).flatmap(
        lambda kind: hnp.arrays(kind, hnp.array_shapes(max_dims=4, min_side=0, max_side=5))
    ),
    packed=st.booleans(),
)
def test_load_idx_round_trip(folder: Path, array: np.ndarray, packed: bool) -> None:
    file = folder / "round-trip"
    content = idx_bytes(array)
    file.write_bytes(gzip.compress(content) if packed else content)
    got = data.load_idx(file)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    assert got.shape == array.shape
    assert got.tobytes() == array.tobytes()  # NaN payloads too
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert got.flags.aligned


def test_load_idx_large_file_comes_whole(folder: Path) -> None:
    values = np.arange(1_500_000, dtype=np.int32).reshape(3, -1)
    for content in (idx_bytes(values), gzip.compress(idx_bytes(values), 1)):
        (folder / "large").write_bytes(content)
        np.testing.assert_array_equal(data.load_idx(folder / "large"), values)


def test_load_idx_takes_str_bytes_and_path(folder: Path) -> None:
    file = folder / "paths"
    file.write_bytes(idx_bytes(np.arange(3, dtype=np.uint8)))
    for path in (file, str(file), os.fsencode(file)):
        assert data.load_idx(path).tolist() == [0, 1, 2]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "rule", "value"),
    [
        (b"", "the header starts with 4 bytes", "0 bytes"),
        (b"\0\0\x08", "the header starts with 4 bytes", "3 bytes"),
        (b"\x89PNG\r\n", "two zero bytes", "0x89504e47"),
        (b"\0\1\x08\1\0\0\0\0", "two zero bytes", "0x00010801"),
        (idx_header(0x0A, (1,)) + b"\0", "the type code must be one of 0x08", "0x0a"),
        (b"\0\0\x08\0\0", "the number of axes must be in [1, 32]", "0"),
        (idx_header(0x08, (1,) * 33) + b"\0", "the number of axes must be in [1, 32]", "33"),
        (idx_header(0x08, (1, 1, 1))[:-1], "3 axes need 12 header bytes", "11"),
        (
            idx_header(0x0C, (2, 3)) + bytes(23),
            "shape (2, 3) of int32 needs 24 data bytes",
            "23",
        ),
        (idx_header(0x0D, (2,)) + bytes(9), "shape (2,) of float32 needs 8 data bytes", "9"),
        (idx_header(0x08, (2,)), "shape (2,) of uint8 needs 2 data bytes", "0"),
        (idx_header(0x08, (0, 7)) + b"\0", "shape (0, 7) of uint8 needs 0 data bytes", "1"),
        (idx_header(0x0E, (2**32 - 1,)) + bytes(64), "needs 34359738360 data bytes", "64"),
        (
            idx_header(0x0E, (2**32 - 1,) * 4) + bytes(64),
            "the sizes must fit the address space",
            "shape (4294967295,",
        ),
        (
            idx_header(0x08, (0, 2**32 - 1, 2**32 - 1)),
            "the sizes must fit the address space",
            "shape (0,",
        ),
    ],
)
def test_load_idx_names_file_rule_and_value(
    folder: Path, content: bytes, rule: str, value: str, packed: bool
) -> None:
    file = folder / "broken-file"
    file.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^load_idx: .*broken-file: ") as caught:
            data.load_idx(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert rule in text
    # How much follows the data is not known before unpacking it all.
    trailing = {"9": "more than 8", "1": "more than 0"}.get(value) if packed else None
    assert f"; got {trailing or value}" in text
    assert peak < 4 << 20, "a claimed size must not be allocated"


def test_load_idx_reads_the_shape_before_many_axes_of_one(folder: Path) -> None:
    (folder / "axes").write_bytes(idx_header(0x08, (1,) * 32) + b"\5")
    assert data.load_idx(folder / "axes").shape == (1,) * 32


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_load_idx_refuses_every_truncation_and_extension(folder: Path, packed: bool) -> None:
    content = idx_bytes(np.arange(6, dtype=np.int16).reshape(2, 3))
    content = gzip.compress(content) if packed else content
    file = folder / "cut"
    for length in range(len(content)):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="load_idx"):
            data.load_idx(file)
    file.write_bytes(content + b"\1")
    with pytest.raises(ValueError, match="load_idx"):
        data.load_idx(file)


def corruptions(file: Path, content: bytes) -> Iterator[tuple[int, np.ndarray | None]]:
    """Change each byte to each other value: yield its place and what is read, None if refused."""
    file.write_bytes(content)
    # In place: rewriting the whole file thousands of times is slow on some file systems.
    with file.open("r+b", buffering=0) as stream:
        for place, right in enumerate(content):
            for byte in {*range(256)} - {right}:
                stream.seek(place)
                stream.write(bytes([byte]))
                try:
                    got = data.load_idx(file)
                except ValueError as error:
                    got = None if str(file) in str(error) else pytest.fail(str(error))
                yield place, got
            stream.seek(place)
            stream.write(bytes([right]))


def test_load_idx_one_corrupt_byte_is_refused_or_keeps_the_shape(folder: Path) -> None:
    content = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))
    refused = Counter()
    for place, got in corruptions(folder / "corrupt", content):
        if got is None:
            refused[place] += 1
        else:
            assert got.shape == (2, 3)
            assert got.dtype == (np.int8 if place == 2 else np.uint8)
    # Every other header is refused, but for the type code: int8 has the size of uint8.
    assert refused == {place: 255 - (place == 2) for place in range(12)}


def test_load_idx_one_corrupt_gzip_byte_is_refused_or_changes_nothing(folder: Path) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = gzip.compress(idx_bytes(values), mtime=0)
    refused = Counter()
    for place, got in corruptions(folder / "corrupt.gz", content):
        if got is None:
            refused[place] += 1
        else:
            np.testing.assert_array_equal(got, values)
    # Magic, method, checksum and length hold no byte that could be another.
    for place in (0, 1, 2, *range(len(content) - 8, len(content))):
        assert refused[place] == 255


def test_load_idx_missing_file_gives_a_hint(folder: Path) -> None:
    (folder / "packed.gz").write_bytes(b"")
    (folder / "unpacked").write_bytes(b"")
    for path, hint in (
        (folder / "packed", f"there is {folder / 'packed.gz'}"),
        (folder / "unpacked.gz", f"there is {folder / 'unpacked'}"),
        (folder / "no" / "file", f"folder {folder / 'no'} does not exist"),
        (folder / "file", "load_fashion_mnist()"),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            data.load_idx(path)
        assert str(caught.value).startswith(f"load_idx: {path}: the file must exist")
        assert hint in str(caught.value)


def test_load_idx_folder_is_an_os_error(folder: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        data.load_idx(folder)
