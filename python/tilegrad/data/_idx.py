# SPDX-License-Identifier: MIT
"""Read IDX files, the format of MNIST and its relatives."""

from __future__ import annotations

import math
import os
import struct
import sys
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# Type codes of the format's description (LeCun, Cortes, Burges: the MNIST database).
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE = 1 << 20
# NumPy 1.x allows 32 axes.
_MAX_AXES = 32


def load_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read one IDX file, plain or gzip-compressed (told by its content, not by its name).

    Memory is taken for the data that is there, not for what the header claims, so that a damaged
    header cannot ask for terabytes.

    Args:
        path: The file.

    Returns:
        A new, writable, C-contiguous array of the file's shape. Its dtype is uint8, int8, int16,
        int32, float32 or float64 in the machine's byte order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file breaks a rule of the format; the text names file, rule and value.

    Example:
        >>> import pathlib, tempfile
        >>> from tilegrad import data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
        ...     _ = file.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        ...     data.load_idx(file).tolist()
        [7, 8, 9]
    """
    file = os.fsdecode(path)
    try:
        with open(file, "rb") as stream:
            compressed = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            if compressed:
                return _read_gzip(file, stream)
            return _read(file, stream, os.fstat(stream.fileno()).st_size)
    except FileNotFoundError:
        raise FileNotFoundError(_missing(file)) from None


def _read_gzip(file: str, stream: BinaryIO) -> NDArray[Any]:
    """Read an IDX file through gzip.

    Args:
        file: Path for the error texts.
        stream: The packed bytes.

    Returns:
        The array.

    Raises:
        ValueError: If the bytes are not gzip data of one whole IDX file.
    """
    # Imported here: most programs that import the package never unpack a file.
    import gzip
    import zlib

    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            return _read(file, unpacked, None)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _broken(file, "the gzip data must be whole", f"{error} (copy it again)") from error


def _read(file: str, stream: Any, size: int | None) -> NDArray[Any]:
    """Read header and data from a binary stream.

    Args:
        file: Path for the error texts.
        stream: The (unpacked) bytes.
        size: Their number if it is known before reading.

    Returns:
        The array.

    Raises:
        ValueError: If the bytes are not one whole IDX file.
    """
    dtype, shape = _read_header(file, stream)
    # A zero size must not hide an overflow in the others, which NumPy would refuse anyway.
    if math.prod(max(n, 1) for n in shape) * dtype.itemsize > sys.maxsize:
        raise _broken(file, "the sizes must fit the address space", f"shape {shape}")
    claimed = math.prod(shape) * dtype.itemsize
    rule = f"shape {shape} of {dtype.newbyteorder('=')} needs {claimed} data bytes"
    if size is not None:
        present = size - 4 - 4 * len(shape)
        if present != claimed:
            raise _broken(file, rule, f"{present}")
    raw = _read_data(stream, claimed)
    if len(raw) < claimed:
        raise _broken(file, rule, f"{len(raw)}")
    # This read also makes gzip compare its checksum at the end of the data.
    if stream.read(1):
        raise _broken(file, rule, f"more than {claimed}")
    stored = np.frombuffer(raw, dtype=dtype)
    return stored.astype(dtype.newbyteorder("="), copy=False).reshape(shape)


def _read_header(file: str, stream: BinaryIO) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Read magic number and sizes.

    Args:
        file: Path for the error texts.
        stream: The bytes, at their start.

    Returns:
        The stored (big-endian) dtype and the shape.

    Raises:
        ValueError: If the header breaks a rule.
    """
    magic = stream.read(4)
    if len(magic) < 4:
        raise _broken(file, "the header starts with 4 bytes", f"{len(magic)} bytes: {magic!r}")
    if magic[:2] != b"\0\0":
        raise _broken(
            file, "an IDX file starts with two zero bytes (or is gzip)", f"0x{magic.hex()}"
        )
    code, axes = magic[2], magic[3]
    if code not in _DTYPES:
        known = ", ".join(f"0x{key:02x}" for key in _DTYPES)
        raise _broken(file, f"the type code must be one of {known}", f"0x{code:02x}")
    if not 1 <= axes <= _MAX_AXES:
        raise _broken(file, f"the number of axes must be in [1, {_MAX_AXES}]", f"{axes}")
    sizes = stream.read(4 * axes)
    if len(sizes) < 4 * axes:
        raise _broken(
            file, f"{axes} axes need {4 * axes} header bytes for their sizes", f"{len(sizes)}"
        )
    return np.dtype(_DTYPES[code]), struct.unpack(f">{axes}I", sizes)


def _read_data(stream: Any, count: int) -> bytearray:
    """Read until that many bytes are there or the stream ends.

    Args:
        stream: The bytes; one read may return fewer than asked for.
        count: The most bytes to read.

    Returns:
        The bytes. A bytearray, because an array on it is writable.
    """
    raw = bytearray()
    while len(raw) < count:
        piece = stream.read(min(_PIECE, count - len(raw)))
        if not piece:
            break
        raw += piece
    return raw


def _broken(file: str, rule: str, value: str) -> ValueError:
    """Make the error for a file that breaks a rule."""
    return ValueError(f"load_idx: {file}: {rule}; got {value}")


def _missing(file: str) -> str:
    """Say what could be meant by a path that does not exist."""
    twin = file[: -len(".gz")] if file.endswith(".gz") else file + ".gz"
    folder = os.path.dirname(os.path.abspath(file))
    if os.path.isfile(twin):
        hint = f"there is {twin}"
    elif not os.path.isdir(folder):
        hint = f"the folder {folder} does not exist either"
    else:
        hint = "load_fashion_mnist() and load_mnist() find their files by themselves"
    return f"load_idx: {file}: the file must exist; got no such file ({hint})"
