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
from numpy.typing import NDArray

from tilegrad import reference as ref

Array = NDArray[Any]
Case = dict[str, Any]
INF, NAN = math.inf, math.nan


def assert_close(got: Any, want: Any, rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """Compare shapes and values (NaN equals NaN) and name the worst element."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - want) / (atol + rtol * np.abs(want)))
    error = np.where(np.isnan(error), INF, error)
    if error.size and error.max() > 1:
        worst = np.unravel_index(error.argmax(), error.shape)
        at = tuple(int(i) for i in worst)
        pytest.fail(
            f"{int((error > 1).sum())} of {error.size} differ; worst at {at}: "
            f"got {got[at]!r}, expected {want[at]!r} ({error[at]:.3g} x tolerance)"
        )


def central_difference(f: Callable[[Array], Any], x: Array, grad_output: Array) -> Array:
    """d sum(f(x) grad_output) / dx by Richardson's extrapolation of two central differences."""
    grad = np.zeros(x.shape)
    for i in np.ndindex(x.shape):

        def at(h: float, i: tuple[int, ...] = i) -> float:
            shifted = x.copy()
            shifted[i] += h
            return float((f(shifted) * grad_output).sum())

        wide, narrow = ((at(h) - at(-h)) / (2 * h) for h in (2e-3, 1e-3))
        grad[i] = (4 * narrow - wide) / 3
    return grad


def assert_gradient(f: Callable[[Array], Any], x: Array, grad_output: Array, got: Any) -> None:
    assert_close(got, central_difference(f, x, grad_output), rtol=1e-7, atol=1e-8)


def torch_value_and_grads(
    f: Callable[..., torch.Tensor], inputs: list[Array], grad_output: Array | None = None
) -> tuple[Array, list[Array]]:
    """Run f and its autograd; grad_output of None means ones."""
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs]
    value = f(*leaves)
    upstream = torch.ones_like(value) if grad_output is None else torch.as_tensor(grad_output)
    grads = torch.autograd.grad(value, leaves, upstream)
    return value.detach().numpy(), [g.numpy() for g in grads]


def rng_for(*key: object) -> np.random.Generator:
    return np.random.default_rng([ord(c) for c in repr(key)])


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
}
ACTIVATION_CASES: list[tuple[str, Case]] = [
    *((name, {}) for name in TORCH_ACTIVATIONS),
    *(("leaky_relu", {"negative_slope": s}) for s in (0.0, 0.3, 1.0, 1.5, -0.2)),
    *(("elu", {"alpha": a}) for a in (0.0, 0.5, 2.0, -1.0)),
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


# ---- cross_entropy -----------------------------------------------------------------------------

LOGIT_SHAPES: list[tuple[int, ...]] = [(4,), (1, 4), (5, 3), (3, 1), (2, 3, 4), (2, 4, 2, 3)]
EMPTY_SHAPES: list[tuple[int, ...]] = [(0, 3), (2, 3, 0), (0, 3, 2)]
REDUCTIONS = ["mean", "sum", "none"]


def _cross_entropy_problem(
    shape: tuple[int, ...], kind: str, weighted: bool, rng: np.random.Generator
) -> tuple[Array, Array, Array | None]:
    axis = 0 if len(shape) == 1 else 1
    classes = shape[axis]
    x = rng.normal(0, 2, shape)
    weight = rng.uniform(0.2, 2, classes) if weighted else None
    if kind == "probabilities":
        target = rng.uniform(size=shape)
        return x, target / target.sum(axis=axis, keepdims=True), weight
    target = np.asarray(rng.integers(0, classes, shape[:axis] + shape[axis + 1 :]))
    if kind == "ignored":
        target = np.where(rng.uniform(size=target.shape) < 0.4, -100, target)
    return x, target, weight


def _check_cross_entropy(
    x: Array, target: Array, weight: Array | None, dy: Array, options: Case
) -> None:
    def torch_loss(x: torch.Tensor) -> torch.Tensor:
        w = None if weight is None else torch.tensor(weight)
        return F.cross_entropy(x, torch.tensor(target), w, **options)

    loss, (dx,) = torch_value_and_grads(torch_loss, [x], dy)
    assert_close(ref.cross_entropy(x, target, weight, **options), loss)
    assert_close(ref.cross_entropy_backward(dy, x, target, weight, **options), dx)
    _, (dx,) = torch_value_and_grads(torch_loss, [x])
    value, grad = ref.cross_entropy_value_and_grad(x, target, weight, **options)
    assert_close(value, loss)
    assert_close(grad, dx)


@pytest.mark.parametrize("shape", LOGIT_SHAPES + EMPTY_SHAPES)
@pytest.mark.parametrize("kind", ["indices", "ignored", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_matches_differences_and_torch(
    shape: tuple[int, ...], kind: str, weighted: bool, reduction: str, smoothing: float
) -> None:
    rng = rng_for(shape, kind, weighted, reduction, smoothing)
    x, target, weight = _cross_entropy_problem(shape, kind, weighted, rng)
    options: Case = {"reduction": reduction, "label_smoothing": smoothing}
    loss = ref.cross_entropy(x, target, weight, **options)
    dy = np.asarray(rng.normal(size=np.shape(loss)))
    _check_cross_entropy(x, target, weight, dy, options)
    if not np.isnan(loss).any():
        grad = ref.cross_entropy_backward(dy, x, target, weight, **options)
        assert_gradient(lambda x: ref.cross_entropy(x, target, weight, **options), x, dy, grad)
    if 0 in shape and reduction == "mean":
        assert np.isnan(loss)


HARD_LOGITS: dict[str, Array] = {
    "80": np.array([[80.0, -80, 0], [-80, 80, 80]]),
    "offset": np.array([[1e4, 1e4 + 1, 1e4 - 2], [-1e4, -1e4 + 3, -1e4]]),
    "-inf not the target": np.array([[0.5, -INF, 1], [2, 1, -INF]]),
    "-inf the target": np.array([[-INF, 1, 2], [0.5, -INF, 1]]),
    "all -inf": np.array([[-INF, -INF, -INF], [1, 2, 3.0]]),
    "+inf": np.array([[INF, 0, 1], [1, 2, 3.0]]),
    "nan": np.array([[NAN, 0, 1], [1, 2, 3.0]]),
}
TARGETS: dict[str, Array] = {
    "indices": np.array([0, 1]),
    "first ignored": np.array([-100, 1]),
    "all ignored": np.array([-100, -100]),
    "probabilities": np.array([[1.0, 0, 0], [0.25, 0.75, 0]]),
}


@pytest.mark.parametrize("logits", HARD_LOGITS)
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("weight", [None, [1.0, 2, 0.5], [0.0, 1, 0], [0.0, 0, 0]])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_edges_match_torch(
    logits: str, targets: str, weight: list[float] | None, reduction: str, smoothing: float
) -> None:
    x, target = HARD_LOGITS[logits], TARGETS[targets]
    w = None if weight is None else np.array(weight)
    dy = np.ones(2 if reduction == "none" else ())
    options: Case = {"reduction": reduction, "label_smoothing": smoothing}
    _check_cross_entropy(x, target, w, dy, options)


def test_cross_entropy_ignore_index_may_be_a_class() -> None:
    x, target = np.array([[0.0, 1, 2], [3, 1, 0], [1, 1, 1]]), np.array([1, 0, 2])
    _check_cross_entropy(x, target, None, np.array(1.0), {"ignore_index": 1})
    _check_cross_entropy(x, target, None, np.ones(3), {"ignore_index": 0, "reduction": "none"})


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint64])
def test_cross_entropy_takes_any_integer_target(dtype: type) -> None:
    x, target = np.array([[0.0, 1, 2], [3, 1, 0]]), np.array([2, 0])
    assert_close(ref.cross_entropy(x, target.astype(dtype)), ref.cross_entropy(x, target))


def test_cross_entropy_known_value_and_refusals() -> None:
    # the probability of the right class is 0.88
    x = np.log(np.array([[0.88, 0.07, 0.05]]))
    assert_close(ref.cross_entropy(x, np.array([0])), 0.127833, atol=5e-7)
    for bad in (3, -1):
        with pytest.raises(ValueError, match=rf"target must be in \[0, 3\); got {bad}"):
            ref.cross_entropy(x, np.array([bad]))
    with pytest.raises(ValueError, match="reduction: must be"):
        ref.cross_entropy(x, np.array([0]), reduction="average")


# ---- mse_loss ----------------------------------------------------------------------------------

MSE_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    *((shape, shape) for shape in [(), (1,), (5,), (3, 4), (2, 3, 2), (0,), (0, 3)]),
    ((3, 4), (4,)),
    ((4,), (3, 4)),
    ((3, 1), (1, 4)),
    ((3, 4), ()),
    ((1, 3), (0, 3)),
]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("x_shape", "t_shape"), MSE_SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_mse_loss_matches_differences_and_torch(
    x_shape: tuple[int, ...], t_shape: tuple[int, ...], reduction: str, weighted: bool
) -> None:
    rng = rng_for(x_shape, t_shape, reduction, weighted)
    x, t = np.asarray(rng.normal(size=x_shape)), np.asarray(rng.normal(size=t_shape))
    weight = np.asarray(rng.uniform(0, 2, x_shape)) if weighted else None
    loss = ref.mse_loss(x, t, reduction, weight)
    dy = np.asarray(rng.normal(size=np.shape(loss)))
    dx, dt = ref.mse_loss_backward(dy, x, t, reduction, weight, wrt=("input", "target"))
    assert_close(ref.mse_loss_backward(dy, x, t, reduction, weight), dx)
    if not np.isnan(loss).any():
        assert_gradient(lambda x: ref.mse_loss(x, t, reduction, weight), x, dy, dx)
        assert_gradient(lambda t: ref.mse_loss(x, t, reduction, weight), t, dy, dt)

    def torch_loss(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        w = None if weight is None else torch.tensor(weight)
        loss: Any = F.mse_loss  # its stub lacks weight
        return loss(x, t, reduction=reduction, weight=w)  # type: ignore[no-any-return]

    y, grads = torch_value_and_grads(torch_loss, [x, t], dy)
    assert_close(loss, y)
    assert_close(dx, grads[0])
    assert_close(dt, grads[1])
    _, grads = torch_value_and_grads(torch_loss, [x, t])
    value, got = ref.mse_loss_value_and_grad(x, t, reduction, weight, wrt=("input", "target"))
    assert_close(value, y)
    for grad, want in zip(got, grads, strict=True):
        assert_close(grad, want)


def test_mse_loss_weight_rules() -> None:
    x, t = np.array([1.0, 2, 3]), np.zeros(3)
    assert_close(ref.mse_loss(x, t, weight=np.array([1.0, 0, 3])), 28 / 4)
    assert np.isnan(ref.mse_loss(x, t, weight=np.zeros(3)))
    with pytest.raises(ValueError, match=r"weight must have input's shape \(3,\); got \(1,\)"):
        ref.mse_loss(x, t, weight=np.ones(1))


# ---- random numbers ----------------------------------------------------------------------------

ONES = 0xFFFFFFFF
PI_COUNTER, PI_KEY = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0]
PHILOX_VECTORS = [  # Random123, kat_vectors
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (PI_COUNTER, PI_KEY, [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]


@pytest.mark.parametrize(("counter", "key", "words"), PHILOX_VECTORS)
def test_philox_known_answers(counter: list[int], key: list[int], words: list[int]) -> None:
    assert ref.philox4x32_10(counter, key).tolist() == words
    batch = ref.philox4x32_10([[counter] * 3] * 2, key)
    assert batch.shape == (2, 3, 4)
    assert (batch == np.array(words)).all()


def test_random_words_use_a_64_bit_counter_and_key() -> None:
    seed, offset = 0x299F31D0A4093822, 2**32 - 1
    words = ref.random_words(10, seed, offset)
    key = [0xA4093822, 0x299F31D0]
    expected = ref.philox4x32_10([[ONES, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], key).reshape(-1)
    assert words.tolist() == expected[:10].tolist()
    last = ref.random_words(8, seed, 2**64 - 1)  # the counter wraps
    assert last[:4].tolist() == ref.philox4x32_10([ONES, ONES, 0, 0], key).tolist()
    assert last[4:].tolist() == ref.random_words(4, seed, 0).tolist()
    assert ref.random_words(0, seed, 0).shape == (0,)


@pytest.mark.parametrize(("dtype", "bits"), [(np.float32, 24), (np.float64, 32)])
def test_uniform_is_the_top_bits_as_a_fraction(dtype: Any, bits: int) -> None:
    words = ref.random_words(1001, 5, 3)
    u = ref.uniform(1001, 0.0, 1.0, 5, 3, dtype)
    assert u.dtype == dtype
    assert [float(v) * 2**bits for v in u] == [int(w) >> (32 - bits) for w in words]
    for low, high in ((-0.3, 0.7), (1.00000003, 2.0)):  # as float32 the second spans exactly 1
        first, span = dtype(low), dtype(high) - dtype(low)
        scaled = ref.uniform(1001, low, high, 5, 3, dtype)
        assert scaled.dtype == dtype
        assert all(v == first + span * w for v, w in zip(scaled, u, strict=True))


def test_uniform_has_the_moments_of_a_uniform() -> None:
    u = ref.uniform(200_000, -1.0, 1.0, 0, 0).astype(np.float64)
    assert abs(u.mean()) < 5 * math.sqrt(1 / 3 / u.size)
    assert abs((u**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / u.size)
    assert u.min() >= -1
    assert u.max() <= 1


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(), (3,), (7, 5), (0,), (2, 3, 4)])
def test_dropout_keeps_words_at_or_above_the_threshold(p: float, shape: tuple[int, ...]) -> None:
    rng = rng_for(p, shape)
    x, dy = np.asarray(rng.normal(size=shape)), np.asarray(rng.normal(size=shape))
    y = ref.dropout(x, p, seed=11, offset=4)
    words = ref.random_words(x.size, 11, 4).tolist()
    expected = [v / (1 - p) if w >= p * 2**32 else 0.0 for v, w in zip(x.flat, words, strict=True)]
    assert_close(y, np.reshape(expected, shape))
    dx = ref.dropout_backward(dy, x, p, seed=11, offset=4)
    assert_gradient(lambda x: ref.dropout(x, p, seed=11, offset=4), x, dy, dx)
    assert_close(ref.dropout(x, p, False, seed=11), x)
    assert_close(ref.dropout_backward(dy, x, p, False, seed=11), dy)


def test_dropout_keeps_a_word_equal_to_the_threshold() -> None:
    words = ref.random_words(8, 2, 0).tolist()
    for i, word in enumerate(words):
        assert ref.dropout(np.ones(8), word / 2**32, seed=2)[i] > 0
        assert ref.dropout(np.ones(8), (word + 1) / 2**32, seed=2)[i] == 0


def test_dropout_rate_and_offset() -> None:
    x = np.ones(100_000)
    y = ref.dropout(x, 0.3, seed=1)
    assert abs((y == 0).mean() - 0.3) < 5 * math.sqrt(0.21 / x.size)
    assert_close(ref.dropout(x[:50_000], 0.3, seed=1, offset=12_500), y[50_000:])


# ---- optimisers --------------------------------------------------------------------------------


def _parameter_and_gradients(seed: int) -> tuple[Array, list[Array]]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(4, 3)), [rng.normal(0, 10.0**-i, (4, 3)) for i in range(10)]


def _torch_steps(make: Callable[..., Any], start: Array, grads: list[Array]) -> Iterator[Array]:
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimiser = make([parameter])
    for grad in grads:
        parameter.grad = torch.tensor(grad)
        optimiser.step()
        yield parameter.detach().numpy().copy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "maximize": True},
        {"momentum": 0.5, "dampening": 0.5, "weight_decay": 0.2, "maximize": True},
    ],
)
def test_sgd_matches_torch(seed: int, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    expected = _torch_steps(lambda p: torch.optim.SGD(p, lr=0.1, **options), w, grads)
    buffer = None
    for grad, want in zip(grads, expected, strict=True):
        w, buffer = ref.sgd(w, grad, buffer, lr=0.1, **options)
        assert_close(w, want)


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.05, "betas": (0.4, 0.6), "eps": 1e-3},
        {"betas": (0.0, 0.0)},
        {"weight_decay": 0.3},
        {"weight_decay": 0.0},
        {"amsgrad": True},
        {"maximize": True},
        {"amsgrad": True, "maximize": True, "weight_decay": 0.1, "lr": 0.02},
    ],
)
def test_adam_matches_torch(name: str, seed: int, options: Case) -> None:
    w, grads = _parameter_and_gradients(seed)
    make = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    expected = _torch_steps(lambda p: make(p, **options), w, grads)
    m, v, top = np.zeros_like(w), np.zeros_like(w), None
    for step, (grad, want) in enumerate(zip(grads, expected, strict=True), start=1):
        w, m, v, top = getattr(ref, name)(w, grad, m, v, step, top, **options)
        assert_close(w, want)
    assert (top is None) == (not options.get("amsgrad", False))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, INF])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
@pytest.mark.parametrize("kind", ["normal", "zero", "inf", "nan"])
def test_clip_grad_norm_matches_torch(norm_type: float, max_norm: float, kind: str) -> None:
    rng = rng_for(norm_type, max_norm, kind)
    grads = [rng.normal(size=shape) for shape in [(3, 4), (5,), ()]]
    grads = [np.asarray(g * (kind != "zero")) for g in grads]
    if kind in ("inf", "nan"):
        grads[1][2] = float(kind)
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = torch.tensor(grad)
    want = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)
    norm, clipped = ref.clip_grad_norm(grads, max_norm, norm_type)
    assert_close(norm, want.numpy())
    for got, parameter in zip(clipped, parameters, strict=True):
        assert parameter.grad is not None
        assert_close(got, parameter.grad.numpy())


def test_clip_grad_norm_of_nothing_is_zero() -> None:
    for norm_type in (1.0, 2.0, INF):
        norm, clipped = ref.clip_grad_norm([], 1.0, norm_type)
        assert norm == 0
        assert clipped == []
        norm, _ = ref.clip_grad_norm([np.zeros(0), np.full(4, 2.0)], 1.0, norm_type)
        assert norm == {1.0: 8.0, 2.0: 4.0, INF: 2.0}[norm_type]
    with pytest.raises(ValueError, match="norm_type must be 1, 2 or inf; got 3"):
        ref.clip_grad_norm([], 1.0, 3)


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
