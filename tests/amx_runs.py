# SPDX-License-Identifier: MIT
"""Run the checks of bfloat16 products on AMX tiles, in a process that emulates their instructions.

tests/cpp/amx_emulator.cpp must be loaded first (LD_PRELOAD). Prints how often each instruction ran.
"""

from __future__ import annotations

import ctypes
import json

import ml_dtypes
import numpy as np

import bfloat16_inputs as checks
import tilegrad as tg
from helpers import Array, assert_close, assert_same_bits
from tilegrad import _cpu

INSTRUCTIONS = (
    "ldtilecfg", "sttilecfg", "tilerelease", "tilezero", "tileload", "tilestore", "tdpbf16ps",
)  # fmt: skip
PAIRS = 16  # of a tile


def rounded(x: Array) -> Array:
    return x.astype(np.float32).astype(np.longdouble)


def in_the_order_of_the_manual(a: Array, b: Array) -> Array:
    """Return the float32 sums of TDPBF16PS, tile after tile of 32 steps, in plain NumPy."""
    m, k = a.shape
    n = b.shape[1]
    steps = -(-k // (2 * PAIRS)) * 2 * PAIRS
    left = np.zeros((m, steps), np.longdouble)  # holds a product of two and a float32 exactly
    right = np.zeros((steps, n), np.longdouble)
    left[:, :k], right[:k] = a, b
    sums = np.zeros((m, n), np.longdouble)
    for tile in range(0, steps, 2 * PAIRS):
        even = np.zeros((m, n), np.longdouble)
        odd = np.zeros((m, n), np.longdouble)
        for p in range(tile, tile + 2 * PAIRS, 2):
            even = rounded(even + left[:, p : p + 1] * right[p])
            odd = rounded(odd + left[:, p + 1 : p + 2] * right[p + 1])
        sums = rounded(sums + rounded(even + odd))
    return sums.astype(np.float32)


def check_order_of_sums(rng: np.random.Generator) -> None:
    for m, n, k in [(17, 18, 70), (33, 5, 32), (2, 40, 33)]:
        a, b = checks.normal(rng, (m, k)), checks.normal(rng, (k, n))
        want = in_the_order_of_the_manual(a, b)
        assert_same_bits(tg.matmul(a, b), want.astype(a.dtype), what=f"{(m, n, k)}")
        dw = np.empty((n, m), np.float32)  # the same sums, not rounded: dweight = dz^T x
        zero = np.zeros((n, m), a.dtype)
        tg.linear_backward(b, a.T.copy(), zero, wrt="weight", out=(None, dw, None))
        assert_same_bits(dw, want.T, what=f"{(m, n, k)} in float32")


def check_subnormal_operands_are_zero() -> None:
    """The one difference from the other instruction sets, by the processor's definition."""
    a = np.full((2, 3), 2.0**-130).astype(ml_dtypes.bfloat16)
    b = np.full((3, 4), 2.0**100).astype(a.dtype)
    assert_close(tg.matmul(a, b), np.zeros((2, 4)), 0.0)
    _cpu._set_isa("avx512")
    assert_close(tg.matmul(a, b), np.full((2, 4), 3 * 2.0**-30), 0.0)
    _cpu._set_isa("amx", emulated=True)


def main() -> None:
    _cpu._set_isa("amx", emulated=True)
    assert _cpu.isa() == "amx"
    rng = np.random.default_rng(0)
    for i, m in enumerate(checks.EDGES):
        for j, n in enumerate(checks.EDGES):
            checks.check_product(m, n, checks.STEPS[(3 * i + j) % 10], rng)
    for m, n, k in [
        (17, 33, 511),
        (33, 31, 513),
        (16, 32, 1025),
        (129, 1800, 513),
        *checks.BLOCKS[:4],
    ]:
        checks.check_product(m, n, k, rng)
    for m in (1, 3, 16):  # few rows: the other operand is read in place, or in broken tiles
        for n, k in [(80, 64), (81, 65), (130, 544)]:
            checks.check_product(m, n, k, rng)
            checks.check_linear(rng, m, k, n)
    checks.check_layouts(rng, (2, 35, 67))
    checks.check_layouts(rng, (18, 35, 67))
    checks.check_layouts(rng, (32, 32, 64))
    checks.check_batches(rng)
    checks.check_linear(rng, 33, 40, 18)
    checks.check_linear_backward(rng, 33, 40, 18)
    checks.check_special_values()
    checks.check_threads(rng)
    check_order_of_sums(rng)
    check_subnormal_operands_are_zero()
    count = ctypes.CDLL(None).amx_emulator_count
    count.restype = ctypes.c_int64
    print(json.dumps({name: count(i) for i, name in enumerate(INSTRUCTIONS)}))


if __name__ == "__main__":
    main()
