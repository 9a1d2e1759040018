# SPDX-License-Identifier: MIT
"""The oracle itself: every backward by central differences, every op against torch, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from activation_ops import hardsigmoid
from oracle_checks import (
    INF,
    NAN,
    Array,
    Case,
    assert_close,
    assert_gradient,
    rng_for,
    torch_value_and_grads,
)
from tilegrad import reference as ref

# ---- activations -------------------------------------------------------------------------------

TORCH_ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "identity": lambda x: x * 1,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "mish": F.mish,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "hardsigmoid": hardsigmoid,
    "hardswish": F.hardswish,
}
ACTIVATION_CASES: list[tuple[str, Case]] = [
    *((name, {}) for name in TORCH_ACTIVATIONS),
    *(("leaky_relu", {"negative_slope": s}) for s in (0.0, 0.3, 1.0, 1.5, -0.2)),
    *(("elu", {"alpha": a}) for a in (0.0, 0.5, 2.0, -1.0)),
    *(("softplus", {"beta": b, "threshold": t}) for b, t in ((0.5, 3.0), (4.0, 20.0), (-1.0, 2.0))),
    ("hardtanh", {"min_val": -2.5, "max_val": 0.75}),
]
SHAPES: list[tuple[int, ...]] = [(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (2, 0, 3)]


def test_activations_table_is_the_torch_table() -> None:
    assert set(ref.ACTIVATIONS) == set(TORCH_ACTIVATIONS)


@pytest.mark.parametrize(("name", "options"), ACTIVATION_CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_activation_matches_differences_and_torch(
    name: str, options: Case, shape: tuple[int, ...]
) -> None:
    forward, backward = ref.ACTIVATIONS[name]
    rng = rng_for(name, options, shape)
    x, dy = rng.normal(0, 3, shape), rng.normal(size=shape)
    x = np.asarray(np.where(np.abs(x) < 0.01, 0.5, x))  # no difference may straddle a kink
    assert_gradient(lambda x: forward(x, **options), x, dy, backward(dy, x, **options))
    y, (dx,) = torch_value_and_grads(lambda x: TORCH_ACTIVATIONS[name](x, **options), [x], dy)
    assert_close(forward(x, **options), y)
    assert_close(backward(dy, x, **options), dx)


EDGES = np.array([-INF, -1e4, -746, -80, -30, -9, -1e-9, 0, 1e-9, 9, 30, 80, 746, 1e4, INF, NAN])


@pytest.mark.parametrize(("name", "options"), ACTIVATION_CASES)
def test_activation_edges_match_torch(name: str, options: Case) -> None:
    forward, backward = ref.ACTIVATIONS[name]
    x = np.concatenate([EDGES, -EDGES])
    y, (dx,) = torch_value_and_grads(lambda x: TORCH_ACTIVATIONS[name](x, **options), [x])
    assert_close(forward(x, **options), y, atol=1e-15)
    if name in ("elu", "selu"):  # torch: NaN in its vector loop, dy in the scalar tail of it
        dx = np.where(np.isnan(x), NAN, dx)
    if name in ("hardtanh", "relu6", "hardsigmoid"):  # torch: 0 in its vector loop, dy in the tail
        dx = np.where(np.isnan(x), 0.0 if name == "hardsigmoid" else 1.0, dx)
    # torch's 1 - tanh^2 cancels, then meets x: 30 * 2^-53 is its own error
    assert_close(backward(np.ones(x.shape), x, **options), dx, atol=1e-14)


def test_gelu_and_sigmoid_keep_their_small_tails() -> None:
    # Mills' ratio: P(-x) = pdf(x) / x (1 - 1/x^2 + 3/x^4 - ...), where 1 + erf would give 0
    x = 30.0
    tail = math.exp(-x * x / 2) / math.sqrt(2 * math.pi) / x * (1 - x**-2 + 3 * x**-4 - 15 * x**-6)
    assert_close(ref.gelu(-x), -x * tail, rtol=1e-9, atol=0)
    assert_close(ref.sigmoid(-700.0), math.exp(-700), rtol=1e-12, atol=0)
    assert_close(ref.sigmoid_backward(1.0, 80.0), math.exp(-80), rtol=1e-12, atol=0)


# ---- matmul and linear -------------------------------------------------------------------------

MATMUL_SHAPES = [
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((3,), (2, 3, 4)),
    ((2, 4, 3), (3,)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((1, 2, 3), (4, 3, 2)),
    ((2, 1, 2, 3), (2, 3, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((1, 2, 3), (0, 3, 2)),
]


def _matmul_cases() -> Iterator[tuple[tuple[int, ...], tuple[int, ...], bool, bool]]:
    for a, b in MATMUL_SHAPES:
        for ta, tb in itertools.product((False, True), repeat=2):
            if (len(a) > 1 or not ta) and (len(b) > 1 or not tb):
                yield a, b, ta, tb


@pytest.mark.parametrize(("a_shape", "b_shape", "ta", "tb"), list(_matmul_cases()))
def test_matmul_matches_differences_and_torch(
    a_shape: tuple[int, ...], b_shape: tuple[int, ...], ta: bool, tb: bool
) -> None:
    rng = rng_for(a_shape, b_shape, ta, tb)
    a, b = rng.normal(size=a_shape), rng.normal(size=b_shape)
    a = a.swapaxes(-1, -2) if ta else a
    b = b.swapaxes(-1, -2) if tb else b
    options: Case = {"transpose_a": ta, "transpose_b": tb}
    dc = np.asarray(rng.normal(size=np.shape(ref.matmul(a, b, **options))))
    da, db = ref.matmul_backward(dc, a, b, **options)
    assert_gradient(lambda a: ref.matmul(a, b, **options), a, dc, da)
    assert_gradient(lambda b: ref.matmul(a, b, **options), b, dc, db)

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.matmul(a.mT if ta else a, b.mT if tb else b)

    c, grads = torch_value_and_grads(product, [a, b], dc)
    assert_close(ref.matmul(a, b, **options), c)
    assert_close(da, grads[0])
    assert_close(db, grads[1])


def test_wrt_selects_in_input_order() -> None:
    a, b, dc = np.ones((2, 3)), np.full((3, 4), 2.0), np.ones((2, 4))
    da, db = ref.matmul_backward(dc, a, b, wrt=("b", "a"))
    assert (da.shape, db.shape) == (a.shape, b.shape)
    assert_close(ref.matmul_backward(dc, a, b, wrt="b"), db)
    assert_close(ref.matmul_backward(dc, a, b, wrt=("a",)), da)
    for bad in ("c", (), ("a", "c")):
        with pytest.raises(ValueError, match="wrt: must name some of"):
            ref.matmul_backward(dc, a, b, wrt=bad)


def test_transposing_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="axis"):
        ref.matmul(np.ones(3), np.ones((3, 2)), transpose_a=True)


LINEAR_SHAPES = [((3,), 2), ((1, 1), 1), ((4, 3), 5), ((2, 3, 4), 2), ((0, 3), 2), ((2, 0), 3)]


@pytest.mark.parametrize(("name", "options"), [(None, {}), *ACTIVATION_CASES])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("x_shape", "out_features"), LINEAR_SHAPES)
def test_linear_matches_differences_and_torch(
    name: str | None, options: Case, with_bias: bool, x_shape: tuple[int, ...], out_features: int
) -> None:
    rng = rng_for(name, options, with_bias, x_shape)
    inputs: list[Any] = [rng.normal(size=x_shape), rng.normal(size=(out_features, x_shape[-1]))]
    if with_bias:
        inputs.append(rng.normal(size=out_features))
    z = inputs[0] @ inputs[1].T + (inputs[2] if with_bias else 0)
    kinked = bool((np.abs(z) < 0.05).any())
    dy = rng.normal(size=z.shape)

    def forward(x: Array, weight: Array, bias: Array | None = None) -> Any:
        return ref.linear(x, weight, bias, name, activation_args=options)

    bias = inputs[2] if with_bias else None
    grads = ref.linear_backward(dy, inputs[0], inputs[1], bias, name, activation_args=options)
    for i, x in enumerate(inputs):

        def at(x: Array, i: int = i) -> Any:
            changed = list(inputs)
            changed[i] = x
            return forward(*changed)

        if not kinked:
            assert_gradient(at, x, dy, grads[i])
    activation = TORCH_ACTIVATIONS[name or "identity"]
    y, torch_grads = torch_value_and_grads(
        lambda *inputs: activation(F.linear(*inputs), **options), inputs, dy
    )
    assert_close(forward(*inputs), y)
    for got, want in zip(grads, torch_grads, strict=False):
        assert_close(got, want)
    assert (grads[2] is None) == (not with_bias)


def test_linear_saves_the_preactivation_and_honours_wrt() -> None:
    x, w, b = np.ones((2, 3)), np.ones((4, 3)), np.full(4, -5.0)
    y, z = ref.linear(x, w, b, "relu", save_preactivation=True)
    assert_close(z, np.full((2, 4), -2.0))
    assert_close(y, np.zeros((2, 4)))
    for wrt in ("input", ("weight",), ("input", "bias")):
        grads = ref.linear_backward(y, x, w, b, "relu", wrt=wrt)
        wanted = {wrt} if isinstance(wrt, str) else set(wrt)
        asked = [name in wanted for name in ("input", "weight", "bias")]
        assert [grad is not None for grad in grads] == asked


# ---- softmax -----------------------------------------------------------------------------------

SOFTMAX_SHAPES = [((), 0), ((), -1), ((1,), 0), ((5,), 0), ((3, 4), 1), ((3, 4), 0), ((3, 4), -1)]
SOFTMAX_SHAPES += [((2, 3, 4), 1), ((2, 3, 4), -3), ((2, 3, 1), 2), ((0, 3), 1), ((2, 0), 1)]


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "dim"), SOFTMAX_SHAPES)
@pytest.mark.parametrize("spread", [1.0, 80.0])
@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_softmax_matches_differences_and_torch(
    name: str, shape: tuple[int, ...], dim: int, spread: float, offset: float
) -> None:
    forward, backward = getattr(ref, name), getattr(ref, name + "_backward")
    rng = rng_for(name, shape, dim, spread, offset)
    x, dy = np.asarray(offset + rng.normal(0, spread, shape)), np.asarray(rng.normal(size=shape))
    if offset == 0:
        assert_gradient(lambda x: forward(x, dim), x, dy, backward(dy, x, dim))
    else:  # shifted inputs are rounded; the result is that of the unshifted ones
        assert_close(forward(x, dim), forward(x - offset, dim))
    y, (dx,) = torch_value_and_grads(lambda x: getattr(F, name)(x, dim), [x], dy)
    assert_close(forward(x, dim), y, atol=1e-13)
    assert_close(backward(dy, x, dim), dx, atol=1e-13)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_edges_match_torch(name: str) -> None:
    rows = [[80.0, -80, 0], [-INF, 1, 2], [-INF, -INF, 3], [-INF] * 3, [INF, 0, 1], [NAN, 0, 1]]
    x, dy = np.array(rows), np.tile([1.0, 2, -0.5], (len(rows), 1))
    y, (dx,) = torch_value_and_grads(lambda x: getattr(F, name)(x, 1), [x], dy)
    assert_close(getattr(ref, name)(x, 1), y)
    assert_close(getattr(ref, name + "_backward")(dy, x, 1), dx)


# ---- the module itself -------------------------------------------------------------------------


def test_every_export_exists_and_every_backward_has_its_forward() -> None:
    for name in ref.__all__:
        assert getattr(ref, name) is not None
        if name.endswith("_backward"):
            assert name.removesuffix("_backward") in ref.__all__


def test_inputs_are_never_changed_nor_returned() -> None:
    x = np.linspace(-2, 2, 5)
    before = x.copy()
    for name, (forward, backward) in ref.ACTIVATIONS.items():
        for result in (forward(x), backward(x, x)):
            assert not np.shares_memory(result, x), name
    assert not np.shares_memory(ref.dropout(x, training=False, seed=0), x)
    assert_close(x, before, rtol=0, atol=0)
