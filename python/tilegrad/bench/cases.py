# SPDX-License-Identifier: MIT
"""The shapes on which ops are tested and timed: one list for correctness and for speed.

Tests run every case that is small enough; benchmarks run the cases marked `timed`. Sizes lie at,
just below and just above what a kernel may treat as a unit: a vector (4, 8, 16), a register tile
(14, 28, 32, 48), a cache block (64, 96, 128, 256); beside them ones, primes, tall, wide and empty
shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

EDGES = (14, 16, 28, 32, 48, 64, 96, 128, 256)  # sizes near which kernels change what they do


def around(size: int) -> tuple[int, int, int]:
    """Return the sizes just below, at and just above one.

    Args:
        size: The middle one.

    Returns:
        Three sizes.

    Example:
        >>> around(32)
        (31, 32, 33)
    """
    return (size - 1, size, size + 1)


@dataclass(frozen=True)
class MatmulCase:
    """A product `(m, k) x (k, n)`.

    Args:
        m: Rows of the result.
        n: Columns of the result.
        k: Length of each sum.
        timed: Whether benchmarks run it.

    Example:
        >>> MatmulCase(2, 3, 5).flops
        60
    """

    m: int
    n: int
    k: int
    timed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.n * self.k

    def bytes(self, item: int) -> int:
        """Return the bytes that must be moved at least: both operands read, the result written.

        Args:
            item: Bytes of an element.

        Returns:
            The number of bytes.

        Example:
            >>> MatmulCase(2, 3, 5).bytes(4)
            124
        """
        return item * (self.m * self.k + self.k * self.n + self.m * self.n)

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"


@dataclass(frozen=True)
class LinearCase:
    """A dense layer on `rows` samples.

    Args:
        rows: Samples.
        in_features: Length of a sample.
        out_features: Length of a result.
        timed: Whether benchmarks run it.

    Example:
        >>> LinearCase(32, 784, 512).flops
        25690112
    """

    rows: int
    in_features: int
    out_features: int
    timed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions of the forward pass; each of dx and dweight has as many."""
        return 2 * self.rows * self.in_features * self.out_features

    def bytes(self, item: int) -> int:
        """Return the bytes that the forward pass must move at least.

        Args:
            item: Bytes of an element.

        Returns:
            The number of bytes.

        Example:
            >>> LinearCase(2, 3, 5).bytes(4)
            144
        """
        rows, i, o = self.rows, self.in_features, self.out_features
        return item * (rows * i + o * i + o + rows * o)

    def __str__(self) -> str:
        return f"{self.rows}x{self.in_features}->{self.out_features}"


@dataclass(frozen=True)
class ElementCase:
    """An array for an elementwise op.

    Args:
        shape: Its shape.
        timed: Whether benchmarks run it.

    Example:
        >>> ElementCase((3, 4)).size
        12
    """

    shape: tuple[int, ...]
    timed: bool = False

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) or "0-d"


@dataclass(frozen=True)
class SoftmaxCase:
    """An array and the axis that is normalised.

    Args:
        shape: Its shape.
        dim: The axis, not negative.
        timed: Whether benchmarks run it.

    Example:
        >>> SoftmaxCase((4, 7, 5), 1).classes
        7
    """

    shape: tuple[int, ...]
    dim: int
    timed: bool = False

    @property
    def classes(self) -> int:
        """Length of the axis."""
        return self.shape[self.dim] if self.shape else 1

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape)) or '0-d'}@{self.dim}"


def _matmul_cases() -> tuple[MatmulCase, ...]:
    tiny = [(1, 1, 1), (1, 1, 7), (1, 9, 1), (2, 3, 5), (4, 4, 4), (7, 5, 3), (8, 16, 32)]
    empty = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 0, 1)]
    # each edge in each role, with odd partners
    edges = [(s, 33, 17) for edge in EDGES for s in around(edge)]
    edges += [(13, s, 19) for edge in EDGES for s in around(edge)]
    edges += [(15, 18, s) for edge in EDGES for s in around(edge)]
    cubes = [(s, s, s) for edge in (16, 32, 64) for s in around(edge)]
    primes = [(11, 13, 17), (37, 41, 43), (97, 101, 103), (61, 67, 263)]
    tall_wide = [(1031, 3, 5), (2, 1033, 7), (3, 5, 2053), (1, 515, 513), (515, 1, 513)]
    tall_wide += [(300, 10, 130), (10, 300, 130), (128, 10, 512), (4, 512, 512), (8, 511, 513)]
    blocks = [(127, 129, 257), (256, 256, 256), (191, 225, 385), (129, 530, 200), (290, 97, 1025)]
    cases = [MatmulCase(*shape) for shape in dict.fromkeys(tiny + empty + edges + cubes + primes)]
    cases += [MatmulCase(*shape) for shape in tall_wide + blocks]
    timed = [(s, s, s) for s in (64, 128, 256, 512, 1024, 2048, 4096)]
    timed += [(128, 10, 512), (128, 512, 10), (10, 512, 128), (1, 512, 512), (4, 512, 512)]
    timed += [(8, 512, 512)]
    shapes = {(c.m, c.n, c.k): c for c in cases}
    shapes.update({shape: MatmulCase(*shape, timed=True) for shape in timed})
    return tuple(shapes.values())


MATMUL = _matmul_cases()

LINEAR = (
    *(LinearCase(*s) for s in [(1, 1, 1), (0, 3, 4), (3, 0, 4), (3, 4, 0), (5, 3, 2), (2, 9, 7)]),
    *(
        LinearCase(*s)
        for s in [(31, 33, 32), (33, 17, 65), (14, 28, 48), (64, 96, 63), (7, 300, 129)]
    ),
    *(LinearCase(*s) for s in [(257, 13, 1), (1, 257, 129), (131, 137, 139), (1000, 3, 2)]),
    *(LinearCase(*s) for s in [(9, 7, 512), (65, 20, 257), (513, 9, 300), (40, 130, 10)]),
    LinearCase(1, 784, 512, timed=True),
    LinearCase(32, 784, 512, timed=True),
    LinearCase(32, 512, 512, timed=True),
    LinearCase(32, 512, 10, timed=True),
    LinearCase(128, 784, 512, timed=True),
    LinearCase(128, 512, 512, timed=True),
    LinearCase(128, 512, 10, timed=True),
    LinearCase(1024, 784, 512, timed=True),
)

ELEMENTS = (
    *(ElementCase((n,)) for n in (0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)),
    *(ElementCase((n,)) for n in (127, 128, 129, 255, 256, 257, 1021, 4095, 4096, 4097)),
    *(ElementCase(s) for s in [(), (1, 1), (0, 5), (5, 0), (3, 33), (2, 3, 5, 7), (257, 131)]),
    ElementCase((10_000,), timed=True),
    ElementCase((100_000,), timed=True),
    ElementCase((1_000_000,), timed=True),
    ElementCase((10_000_000,), timed=True),
)

SOFTMAX = (
    *(SoftmaxCase((3, n), 1) for n in (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)),
    *(SoftmaxCase((2, n), 1) for n in (127, 128, 129, 255, 256, 257, 1000, 1021, 4097, 40_000)),
    *(SoftmaxCase((n, 3), 0) for n in (0, 1, 2, 17, 33, 1000)),
    *(SoftmaxCase((5, n), 0) for n in (1, 7, 8, 15, 16, 17, 31, 32, 33, 64, 65, 129)),
    *(SoftmaxCase((4, 33, 5), dim) for dim in (0, 1, 2)),
    *(SoftmaxCase((2, 3, 1, 37, 2), dim) for dim in (0, 1, 2, 3, 4)),
    SoftmaxCase((), 0),
    SoftmaxCase((1,), 0),
    SoftmaxCase((1000,), 0),
    SoftmaxCase((0, 10), 1),
    SoftmaxCase((257, 131), 1),
    SoftmaxCase((128, 10), 1, timed=True),
    SoftmaxCase((1024, 1000), 1, timed=True),
    SoftmaxCase((1000, 1024), 0, timed=True),
    SoftmaxCase((4096, 32_000), 1, timed=True),
)
