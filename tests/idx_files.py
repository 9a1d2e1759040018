# SPDX-License-Identifier: MIT
"""Write IDX files, for the tests of what reads them."""

from __future__ import annotations

import struct

import numpy as np

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_header(code: int, shape: tuple[int, ...]) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    return idx_header(code, array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()
