# SPDX-License-Identifier: MIT
"""fused_mlp element by element: within what float32 sums may differ by from exact ones.

The oracle is in float64 and rounds where the contract does. Beside each of its numbers stands a
radius that holds every order of float32 sums: a sum of n products errs by at most n eps of the
sum of magnitudes, f by some eps, and a rounding to 16 bits gives either its nearest number or,
where the radius reaches over a middle, a neighbour. So most hidden elements have radius 0 and most
results must be the oracle's to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pytest

import tilegrad as tg
from half_inputs import Half, bits, every_half, normal
from helpers import Array, Device, assert_close, assert_same_bits, host
from tilegrad import backends, reference

EPS = 2.0**-23  # of float32: twice what rounding to nearest errs by, so that truncation fits too
FORMULA = 16 * EPS  # what f, f' and their argument err by

# f' from y = f(z), where the contract takes it from there.
SLOPES: dict[str, Callable[[Array], Array]] = {
    "identity": np.ones_like,
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: (1 - y) * (1 + y),
    "relu": lambda y: np.where(y > 0, 1.0, 0.0),
    "leaky_relu": lambda y: np.where(y > 0, 1.0, 0.01),
    "elu": lambda y: np.where(y > 0, 1.0, y + 1),
    "selu": lambda y: np.where(y > 0, 1.0507009873554805, y + 1.7580993408473766),
    "hardtanh": lambda y: np.where(np.abs(y) < 1, 1.0, 0.0),
    "relu6": lambda y: np.where((y > 0) & (y < 6), 1.0, 0.0),
}
NAMES = list(reference.ACTIVATIONS)

Ball: TypeAlias = "tuple[Array, Array]"  # a number and how far from it a result may be


def ends(x: Ball) -> tuple[Array, Array]:
    return x[0] - x[1], x[0] + x[1]


def around(value: Array, low: Array, high: Array) -> Ball:
    return value, np.maximum(np.abs(high - value), np.abs(low - value))


def rounded(half: Half, x: Ball) -> Ball:
    """Round; it is monotone, so the ends bound what may come out."""
    return around(half.round(x[0]), *(half.round(end) for end in ends(x)))


def product(a: Ball, b: Ball, bias: Array | float = 0.0) -> Ball:
    """Return a b + bias by float32 sums in any order."""
    (x, dx), (y, dy) = a, b
    magnitudes = (np.abs(x) + dx) @ (np.abs(y) + dy) + np.abs(bias)
    radius = dx @ np.abs(y) + np.abs(x) @ dy + dx @ dy
    length = np.count_nonzero(np.abs(y) + dy, axis=0)  # adding 0 is exact
    return x @ y + bias, radius + (length + 2) * EPS * magnitudes


def applied(f: Callable[[Array], Array], x: Ball) -> Ball:
    """Return f of a ball so small that f has no turn in it, only steps."""
    value, radius = around(f(x[0]), *(f(end) for end in ends(x)))
    slope = np.abs(f(x[0] * (1 + FORMULA)) - value)
    return value, radius + slope + FORMULA * np.abs(value)


def times(a: Ball, b: Ball) -> Ball:
    (x, dx), (y, dy) = a, b
    return x * y, dx * np.abs(y) + np.abs(x) * dy + dx * dy + 4 * EPS * np.abs(x * y)


def exactly(x: Array) -> Ball:
    return x, np.zeros_like(x)


def turned(x: Ball) -> Ball:
    return x[0].T, x[1].T


@dataclass(frozen=True)
class Network:
    features: tuple[int, ...]
    rows: int
    hidden: str
    output: str

    @property
    def products(self) -> int:
        return self.rows * sum(i * o for i, o in pairwise(self.features))

    @property
    def layers(self) -> int:
        return len(self.features) - 1

    def name(self, layer: int) -> str:
        return self.hidden if layer + 1 < self.layers else self.output

    def __str__(self) -> str:
        width = "-".join(map(str, self.features))
        return f"{width} x {self.rows} {self.hidden} {self.output}"

    def passes(
        self, half: Half, place: str, dy: Array, x: Array, weights: list[Array],
        biases: list[Array],
    ) -> tuple[Ball, list[Ball]]:  # fmt: skip
        """Return y and [dx, *dweights, *dbiases], those of the parameters not rounded.

        On chip the gradient of a hidden layer is not rounded before it is multiplied by f';
        layer by layer on a device db is summed up in the pass that makes dz, not rounded yet.
        """
        a, slopes = [exactly(x)], []
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            forward, backward = reference.ACTIVATIONS[self.name(layer)]
            z = product(a[-1], exactly(weight.T), bias)
            a.append(rounded(half, applied(forward, z)))
            if self.name(layer) in SLOPES:
                slopes.append(applied(SLOPES[self.name(layer)], a[-1]))
            else:
                slopes.append(
                    applied(lambda v, f=backward: f(np.ones_like(v), v), rounded(half, z))
                )
        gradient, dw, db = exactly(dy), [], []
        for layer in reversed(range(self.layers)):
            exact = times(gradient, slopes[layer])
            dz = rounded(half, exact)
            dw.insert(0, product(turned(dz), a[layer]))
            summed = exact if place == "device" else dz
            db.insert(0, product(exactly(np.ones((1, self.rows))), summed))
            gradient = product(dz, exactly(weights[layer]))
            if layer == 0 or place != "chip":
                gradient = rounded(half, gradient)
        return a[-1], [gradient, *dw, *((v[0], r[0]) for v, r in db)]


def matrix(rng: np.random.Generator, out: int, into: int, dense: bool) -> Array:
    """Return a weight; a sparse one has three numbers a row, so that errors do not pile up."""
    if dense:
        return rng.standard_normal((out, into)) / np.sqrt(into)
    weight = np.zeros((out, into))
    for _ in range(3):
        columns = rng.permutation(max(out, into))[:out] % into
        weight[np.arange(out), columns] = 0.6 * rng.standard_normal(out)
    return weight


def networks() -> list[Network]:
    """Every width with every depth, and every activation inside and last, with every batch."""
    found = []
    rows = (1, 63, 64, 65, 1000)
    for i, (width, layers) in enumerate((w, n) for w in (16, 32, 64, 128) for n in range(2, 9)):
        batch = rows[i % 5] if width < 128 or rows[i % 5] < 1000 else 129
        name = ("relu", "tanh", "hardtanh")[i % 3]
        found.append(Network((width,) * (layers + 1), batch, name, NAMES[5 * i % 16]))
    for i, name in enumerate(NAMES):  # narrower than a kernel's columns; few enough to fit it
        width = (17, 9, 48, 40, 33)[i % 5]
        features = (1 + 6 * i % 23, *(width,) * (1 + i % 4), 1 + 5 * i % 19)
        found.append(Network(features, rows[(i + 2) % 5], name, NAMES[7 * i % 16]))
    return found


@every_half
@pytest.mark.simulated("network", lambda network: network.products <= 3e6)
@pytest.mark.parametrize("network", networks(), ids=str)
def test_every_element_is_within_float32_sums(device: Device, half: Half, network: Network) -> None:
    rng = np.random.default_rng(network.rows + network.layers)
    pairs = list(pairwise(network.features))
    x, dy = (normal(rng, half, (network.rows, network.features[i])) for i in (0, -1))
    weights = [half.round(matrix(rng, o, i, network.layers < 3)) for i, o in pairs]
    biases = [half.round(0.5 * rng.standard_normal(o)) for _, o in pairs]

    def put(value: Any) -> Any:
        return [put(v) for v in value] if isinstance(value, list) else half.put(device, value)

    operands = [put(v) for v in (x, weights, biases)]
    names = (network.hidden, network.output)
    on_chip = backends.of(operands[0]).fused_mlp_trains_on_chip(*operands, *names, None, None)
    results = []
    for _ in range(2):
        out = (None, *([device.put(np.zeros(v.shape, "f4")) for v in p] for p in (weights, biases)))
        y = tg.fused_mlp(*operands, *names)
        dx, dw, db = tg.fused_mlp_backward(put(dy), *operands, *names, out=out)
        results.append([bits(y), bits(dx), *(host(g).view(np.uint32) for g in (*dw, *db))])
    for once, again in zip(*results, strict=True):
        assert_same_bits(once, again)

    place = "chip" if on_chip else "cpu" if device.name == "cpu" else "device"
    want, gradients = network.passes(half, place, dy, x, weights, biases)
    assert_close(half.get(y), *want, what="y")
    assert np.median(want[1] / half.spacing(want[0])) <= 3, "the bounds say too little"
    got = [half.get(dx), *(host(g).astype(float) for g in (*dw, *db))]
    whats = ["dinput", *(f"d{p}[{i}]" for p in ("w", "b") for i in range(network.layers))]
    for what, mine, ball in zip(whats, got, gradients, strict=True):
        assert_close(mine, *ball, what=what)
        assert np.median(ball[1]) <= 0.5 * np.median(np.abs(ball[0])), "the bounds say too little"
