# SPDX-License-Identifier: MIT
"""fused_mlp and nn.FusedMLP: exact networks, rounding, edges, the module beside Linear layers."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from half_inputs import BFLOAT16, Half, bits, every_half, normal
from helpers import Array, Device, assert_close, assert_exact, assert_same_bits, error, host
from tilegrad import backends, reference

ROOT = Path(__file__).parents[1]
# Features of every layer's input and of the output, rows. One of each width that a kernel has, with
# what is narrower than it; two to eight layers; around the 64 rows of a warpgroup and the 128 of a
# block; more rows than the simulated device takes at once; networks that go layer by layer.
NETWORKS: list[tuple[tuple[int, ...], int]] = [
    ((16, 16, 16), 64), ((3, 16, 1), 1), ((5, 9, 9, 9, 2), 65), ((32, 32, 32), 63),
    ((24, 20, 32, 7), 129), ((64, 64, 64, 64, 64, 64), 128), ((3, 64, 64, 1), 700),
    ((8, *[40] * 7, 6), 70), ((40, 64, 17), 0), ((128, 128, 128), 65), ((9, 72, 100), 40),
    ((16, 16), 5), ((12, 130, 4), 3),
]  # fmt: skip
every_network = pytest.mark.parametrize(("features", "rows"), NETWORKS)


def integers(rng: np.random.Generator, features: tuple[int, ...], rows: int) -> tuple[Any, ...]:
    """Return dy, x, weights and biases whose results are small integers: exact in any order."""
    x, dy = (rng.integers(-2, 3, (rows, n)).astype(float) for n in (features[0], features[-1]))
    weights = []
    for into, out in pairwise(features):
        weight = np.zeros((out, into))
        weight[np.arange(out), rng.permutation(max(out, into))[:out] % into] = 1
        weights.append(weight * rng.choice([-1.0, 1.0], (out, 1)))
    biases = [rng.integers(-1, 3, n).astype(float) for n in features[1:]]
    return dy, x, weights, biases


def floats(
    rng: np.random.Generator, half: Half, features: tuple[int, ...], rows: int
) -> tuple[Any, ...]:
    x, dy = (normal(rng, half, (rows, n)) for n in (features[0], features[-1]))
    pairs = list(pairwise(features))
    weights = [half.round(rng.standard_normal((o, i)) / np.sqrt(i)) for i, o in pairs]
    return dy, x, weights, [half.round(0.5 * rng.standard_normal(o)) for _, o in pairs]


def there(device: Device, half: Half, value: Any, offset: int = 0) -> Any:
    if isinstance(value, list):
        return [there(device, half, v, offset) for v in value]
    return None if value is None else half.put(device, value, offset)


def zeros(device: Device, like: list[Array]) -> list[Any]:
    return [device.put(np.zeros(v.shape, np.float32)) for v in like]


@every_half
@every_network
def test_small_integers_are_exact(
    device: Device, half: Half, features: tuple[int, ...], rows: int, rng: np.random.Generator
) -> None:
    dy, x, weights, biases = integers(rng, features, rows)
    for b in (biases, None):
        want = reference.fused_mlp(x, weights, b)
        call = [there(device, half, v) for v in (x, weights, b)]
        assert_exact(half.get(tg.fused_mlp(*call)), want, what="y")
        gradients = reference.fused_mlp_backward(dy, x, weights, b)
        assert max(abs(g).max(initial=0) for g in (gradients[0], want)) <= 256
        out = (None, zeros(device, weights), None if b is None else zeros(device, b))
        got = tg.fused_mlp_backward(there(device, half, dy), *call, out=out)
        assert_exact(half.get(got[0]), gradients[0], what="dinput")
        for what, mine, right in zip(("dw", "db"), got[1:], gradients[1:], strict=True):
            assert (mine is None) == (right is None)
            for i, (g, w) in enumerate(zip(mine or (), right or (), strict=True)):
                assert_exact(host(g), w.astype(np.float32), what=f"{what}[{i}]")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_wide_floats_are_torchs(
    device: Device, dtype: Any, activation: str, rng: np.random.Generator
) -> None:
    features, rows = (7, 20, 33, 5), 37
    pairs = list(pairwise(features))
    shapes = [(rows, 7), *((o, i) for i, o in pairs), *((o,) for _, o in pairs)]
    values = [0.5 * rng.standard_normal(shape) for shape in shapes]
    leaves = [torch.tensor(value, requires_grad=True) for value in values]
    a: Any = leaves[0]
    for layer in range(3):
        a = torch.nn.functional.linear(a, leaves[1 + layer], leaves[4 + layer])
        a = getattr(torch.nn.functional, activation)(a) if layer < 2 else torch.tanh(a)
    dy = rng.standard_normal((rows, 5))
    wanted = [a.detach(), *torch.autograd.grad(a, leaves, torch.tensor(dy))]
    put = [device.put(v.detach().numpy().astype(dtype)) for v in leaves]
    call = (put[0], put[1:4], put[4:], activation, "tanh")
    dx, dw, db = tg.fused_mlp_backward(device.put(dy.astype(dtype)), *call)
    results = [tg.fused_mlp(*call), dx, *dw, *db]
    for i, (got, want) in enumerate(zip(results, wanted, strict=True)):
        bound = 300 * np.finfo(dtype).eps * float(want.abs().max())
        assert_close(device.get(got), want.numpy(), bound, what=str(i))


@every_half
def test_nan_and_infinity_stay_in_their_rows(device: Device, half: Half) -> None:
    """Padding does not make NaN of an infinity, and no row sees another one."""
    rng = np.random.default_rng(0)
    _, x, weights, biases = integers(rng, (5, 20, 20, 3), 70)
    call = [there(device, half, v) for v in (weights, biases)]
    clean = half.get(tg.fused_mlp(there(device, half, x), *call))
    x[3, 2], x[66, 0], x[9, 1] = np.nan, np.inf, -np.inf
    y = half.get(tg.fused_mlp(there(device, half, x), *call))
    assert_exact(np.delete(y, (3, 9, 66), 0), np.delete(clean, (3, 9, 66), 0))
    with np.errstate(invalid="ignore"):
        want = reference.fused_mlp(x, weights, biases)
    assert np.isnan(y[3]).all()
    assert_exact(y[[9, 66]], want[[9, 66]])


@every_half
@pytest.mark.parametrize("names", [("relu", "sigmoid"), ("hardtanh", "tanh"), ("relu", "relu6")])
def test_nan_and_infinity_of_gradients_are_the_networks(
    device: Device, half: Half, names: tuple[str, str]
) -> None:
    """What pads a layer adds none, also behind an activation of the last one."""
    dy, x, weights, biases = integers(np.random.default_rng(1), (5, 20, 20, 3), 70)
    x[3, 2], x[66, 0], dy[9, 1], dy[30, 0] = np.inf, np.nan, np.inf, np.nan
    with np.errstate(invalid="ignore", over="ignore"):
        want = reference.fused_mlp_backward(dy, x, weights, biases, *names)
    got = tg.fused_mlp_backward(*(there(device, half, v) for v in (dy, x, weights, biases)), *names)
    assert np.isfinite(want[0]).any(axis=1).sum() >= 66
    for mine, right in zip((got[0], *got[1], *got[2]), (want[0], *want[1], *want[2]), strict=True):
        found = half.get(mine)
        assert_exact(np.isnan(found), np.isnan(right))
        assert_exact(found[np.isinf(right)], right[np.isinf(right)])
        assert not np.isinf(found[np.isfinite(right)]).any()


@every_half
@pytest.mark.parametrize("output", ["sigmoid", "tanh", "relu6"])
def test_an_infinite_row_has_the_slope_of_its_end(device: Device, half: Half, output: str) -> None:
    """Infinity times the zeros that pad the last layer is NaN: it must not reach the row's dx."""
    dy, x, weights, biases = integers(np.random.default_rng(1), (5, 20, 20, 3), 70)
    weights = [np.ones_like(w) for w in weights]  # no zero meets the infinity inside
    x[3, 2] = np.inf
    call = [there(device, half, v) for v in (dy, x, weights, biases)]
    dx = half.get(tg.fused_mlp_backward(*call, "relu", output)[0])
    assert_exact(dx[3], np.zeros(5))
    assert np.isfinite(dx).all()


@every_half
def test_rows_beyond_the_last_add_nothing_to_gradients(device: Device, half: Half) -> None:
    """An infinite bias makes the rows of a tile that do not exist infinite too."""
    dy, x, weights, biases = integers(np.random.default_rng(0), (5, 20, 20, 3), 70)
    biases[0][4] = -np.inf
    weights[1][:, 4] = 0
    weights[1][2, 4] = 1
    with np.errstate(invalid="ignore"):
        want = reference.fused_mlp_backward(dy, x, weights, biases)
    call = [there(device, half, v) for v in (dy, x, weights, biases)]
    dx, dw, db = tg.fused_mlp_backward(*call)
    for got, right in zip((dx, *dw, *db), (want[0], *want[1], *want[2]), strict=True):
        assert_exact(half.get(got), half.round(right))


@every_half
def test_gradients_are_added_or_left_out_as_asked(device: Device, half: Half) -> None:
    rng = np.random.default_rng(0)
    dy, x, weights, biases = floats(rng, half, (9, 24, 24, 4), 70)
    call = [there(device, half, v) for v in (dy, x, weights, biases)]
    out = (None, zeros(device, weights), zeros(device, biases))
    dx, dw, db = tg.fused_mlp_backward(*call, out=out)
    for mine, given in zip((*dw, *db), (*out[1], *out[2]), strict=True):
        assert mine is given
    once = [host(g).copy() for g in (*dw, *db)]
    tg.fused_mlp_backward(*call, out=out, accumulate=True)
    for g, first in zip((*dw, *db), once, strict=True):
        assert_exact(host(g), 2 * first)
    only = tg.fused_mlp_backward(*call, wrt="weights")
    assert only[0] is None
    assert only[2] is None
    narrow = tg.fused_mlp_backward(*call)
    assert_same_bits(bits(narrow[0]), bits(dx))
    for g, first in zip((*narrow[1], *narrow[2]), once, strict=True):
        assert_exact(half.get(g), half.round(first))
    for g, other in zip(only[1], narrow[1], strict=True):
        assert_same_bits(bits(g), bits(other))
    with error(ValueError, "fused_mlp_backward", "accumulate"):
        tg.fused_mlp_backward(*call, accumulate=True)


@pytest.mark.not_on_cpu("about addresses on a device")
@every_half
def test_bits_do_not_depend_on_addresses(device: Device, half: Half) -> None:
    dy, x, weights, biases = floats(np.random.default_rng(0), half, (16, 64, 64, 8), 150)
    results = []
    for offset in (0, 1, 4):
        call = [there(device, half, v, offset) for v in (dy, x, weights, biases)]
        dx, dw, db = tg.fused_mlp_backward(*call)
        results.append([bits(r) for r in (tg.fused_mlp(*call[1:]), dx, *dw, *db)])
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert_same_bits(got, want)


def test_what_does_not_fit_is_refused(device: Device) -> None:
    x, w, v = (device.put(np.ones(s, np.float32)) for s in ((4, 3), (5, 3), (2, 5)))
    b = [device.put(np.ones(n, np.float32)) for n in (5, 2)]
    for op, head in (
        ("fused_mlp", ()),
        ("fused_mlp_backward", (device.put(np.ones((4, 2), "f")),)),
    ):
        function = getattr(tg, op)
        for arguments, kind, parts in (
            ((x, [v, w]), ValueError, ("weights[0]", "(2, 5)", "3")),
            ((x, [w, w]), ValueError, ("weights[1]", "(5, 3)", "5")),
            ((x, []), ValueError, ("weights", "1 to 16", "0")),
            ((x, [w] * 17), ValueError, ("weights", "17")),
            ((x, w), TypeError, ("weights", "list or tuple")),
            ((x, [w, v], b[:1]), ValueError, ("biases", "2", "1")),
            ((x, [w, v], b[::-1]), ValueError, ("biases[0]", "(5)", "(2)")),
            ((x, [w, v], b[0]), TypeError, ("biases", "list or tuple")),
            ((x, [w, 3.0]), TypeError, ("weights[1]", "float")),
            ((x, [w, v], None, "rleu"), ValueError, ("activation", "rleu")),
        ):
            with error(kind, op, *(p.replace("(5)", "(5").replace("(2)", "(2") for p in parts)):
                function(*head, *arguments)


def test_the_choice_of_kernels(tmp_path: Path) -> None:
    """Pure functions of the shape: what fits on chip, and what goes layer by layer."""
    program = tmp_path / "fused_mlp_choice_test"
    subprocess.run(
        [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror",
         "-DTILEGRAD_BACKEND=sim", "-I", ROOT / "csrc",
         ROOT / "tests/cpp/fused_mlp_choice_test.cpp", "-o", program],
        check=True,
    )  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(tg.info()["backends"]["sim"] is not None, reason="this build has no simulator")
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_networks_that_fit_stay_on_chip(activation: str) -> None:
    """One kernel forward, two backward; wider and older goes through matmul."""
    _, x, weights, biases = floats(np.random.default_rng(0), BFLOAT16, (16, 64, 64, 8), 30)
    device = Device("sim")
    dy = BFLOAT16.put(device, np.ones((30, 8)))
    call: list[Any] = [there(device, BFLOAT16, v) for v in (x, weights, biases)]
    sim = backends.at(backends.SIM)
    major, minor = sim.properties(backends.SIM)["compute_capability"]
    found = []
    try:
        for capability in (90, 80):
            sim._set_compute_capability(capability)
            with tg.sim.trace() as trace:
                tg.fused_mlp(*call, activation)
                tg.fused_mlp_backward(dy, *call, activation)
            found.append([launch.kernel for launch in trace.launches])
    finally:
        sim._set_compute_capability(10 * major + minor)
    assert [("fused_mlp" in k, "matmul" in k) for k in found[0]] == [(True, False)] * 3
    assert not any("fused_mlp" in kernel for kernel in found[1])
