# SPDX-License-Identifier: MIT
"""clip_grad_norm_ and clip_grad_value_ beside torch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tilegrad as tg
from helpers import Device, host
from tilegrad import reference as ref
from tilegrad.nn.utils import clip_grad_norm_, clip_grad_value_

Array = NDArray[Any]
INF, NAN = math.inf, math.nan
RTOL = {"float32": 1e-6, "float64": 1e-13}


def parameters(
    gradients: Sequence[Array | None], dtype: str, device: Device
) -> list[tg.nn.Parameter]:
    result = []
    for g in gradients:
        p = tg.nn.Parameter(device.put(np.zeros(np.shape(g) if g is not None else 2, dtype)))
        if g is not None:
            p.grad = np.asarray(g, dtype)
        result.append(p)
    return result


def torch_parameters(gradients: Sequence[Array | None], dtype: str) -> list[torch.nn.Parameter]:
    result = []
    for g in gradients:
        shape = np.shape(g) if g is not None else (2,)
        p = torch.nn.Parameter(torch.zeros(shape, dtype=getattr(torch, dtype)))
        if g is not None:
            p.grad = torch.tensor(np.asarray(g, dtype))
        result.append(p)
    return result


def check_beside_torch(
    gradients: Sequence[Array | None], dtype: str, max_norm: float, norm_type: float, device: Device
) -> None:
    ours, theirs = parameters(gradients, dtype, device), torch_parameters(gradients, dtype)
    norm = clip_grad_norm_(ours, max_norm, norm_type)
    want = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert isinstance(norm, np.floating if device.name == "cpu" else tg.Array)
    assert norm.shape == ()
    np.testing.assert_allclose(host(norm), want.numpy(), rtol=RTOL[dtype], equal_nan=True)
    for p, q in zip(ours, theirs, strict=True):
        if q.grad is None:
            assert p.grad is None
            continue
        np.testing.assert_allclose(
            host(p.grad), q.grad.numpy(), rtol=2 * RTOL[dtype], equal_nan=True
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm_type", [1, 2.0, INF])
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 1e6, INF])
def test_clipping_follows_torch(
    dtype: str, norm_type: float, max_norm: float, device: Device
) -> None:
    rng = np.random.default_rng(1)
    shapes = [(3, 5), (), (1,), (1031,), (0, 4)]
    gradients = [rng.standard_normal(s) * 10.0**i for i, s in enumerate(shapes)]
    if norm_type == INF:  # of nothing torch takes no maximum
        del gradients[-1]
    check_beside_torch([*gradients[:2], None, *gradients[2:]], dtype, max_norm, norm_type, device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm_type", [1, 2.0, INF])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_gradients_that_are_not_finite_follow_torch(
    dtype: str, norm_type: float, bad: float, device: Device
) -> None:
    gradients = [np.arange(40.0), np.array([1.0, bad, -2.0])]
    check_beside_torch(gradients, dtype, 1.0, norm_type, device)


@pytest.mark.parametrize("norm_type", [1, 2.0, INF])
def test_zero_gradients_stay_zero(norm_type: float, device: Device) -> None:
    for max_norm in (0.0, 1.0):
        check_beside_torch([np.zeros(7), np.zeros((2, 3))], "float32", max_norm, norm_type, device)


def test_a_norm_below_the_bound_leaves_every_bit(rng: np.random.Generator, device: Device) -> None:
    g = rng.standard_normal(1000).astype(np.float32)
    (p,) = parameters([g], "float32", device)
    buffer = p.grad
    norm = clip_grad_norm_(p, 1e9)
    assert np.array_equal(host(p.grad), g)
    assert p.grad is buffer
    assert float(norm) == pytest.approx(np.linalg.norm(g.astype(np.float64)), rel=1e-6)


@pytest.mark.parametrize(("scale", "max_norm"), [(1e30, 2e29), (1e-30, 1.0)])
def test_squares_that_leave_float32_do_not_hurt(
    scale: float, max_norm: float, device: Device
) -> None:
    g = np.array([3.0, -4.0], np.float32) * np.float32(scale)
    (p,) = parameters([g], "float32", device)
    norm = clip_grad_norm_([p], max_norm)
    want, (clipped,) = ref.clip_grad_norm([g], max_norm)
    assert float(norm) == pytest.approx(float(want), rel=1e-6)
    np.testing.assert_allclose(host(p.grad), clipped, rtol=1e-6)


@pytest.mark.parametrize("norm_type", [1, 2.0, INF])
def test_one_parameter_a_generator_and_none(norm_type: float, device: Device) -> None:
    for make in (lambda p: p, lambda p: (q for q in [p]), lambda p: [p]):
        p = tg.nn.Parameter(device.put(np.zeros(2)))
        p.grad = np.array([3.0, 4.0])
        norm = clip_grad_norm_(make(p), 0.5, norm_type)
        want, (clipped,) = ref.clip_grad_norm([np.array([3.0, 4.0])], 0.5, norm_type)
        assert float(norm) == pytest.approx(float(want), rel=1e-12)
        np.testing.assert_allclose(host(p.grad), clipped, rtol=1e-12)
    for nothing in ([], [tg.nn.Parameter(device.put(np.zeros(3)))]):
        assert float(clip_grad_norm_(nothing, 1.0, norm_type)) == 0.0


@pytest.mark.parametrize("bad", [NAN, INF])
def test_error_if_nonfinite_touches_nothing(bad: float, device: Device) -> None:
    gradients = [np.arange(40.0), np.array([1.0, bad])]
    ours = parameters(gradients, "float32", device)
    with pytest.raises(RuntimeError, match=r"clip_grad_norm_: the norm .* (nan|inf)"):
        clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    for p, g in zip(ours, gradients, strict=True):
        np.testing.assert_array_equal(host(p.grad), g.astype(np.float32))
    (fine,) = parameters([np.array([3.0, 4.0])], "float32", device)
    assert float(clip_grad_norm_(fine, 1.0, error_if_nonfinite=True)) == 5.0


@pytest.mark.parametrize(
    ("arguments", "value"),
    [((-1.0,), "-1"), ((NAN,), "nan"), ((1.0, 3.0), "3"), ((1.0, 0.0), "0"), ((1.0, NAN), "nan")],
)
def test_illegal_norms_are_refused_and_change_nothing(
    arguments: tuple[float, ...], value: str, device: Device
) -> None:
    p = tg.nn.Parameter(device.put(np.zeros(2)))
    p.grad = np.array([3.0, 4.0])
    with pytest.raises(ValueError, match=f"clip_grad_norm_.*got {value}"):
        clip_grad_norm_([p], *arguments)
    assert host(p.grad).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm_type", [1, 2.0, INF])
def test_norm_and_bits_do_not_depend_on_the_number_of_threads(dtype: str, norm_type: float) -> None:
    g = np.random.default_rng(4).standard_normal(200_003).astype(dtype)
    before, results = tg.num_threads(), []
    try:
        for n in (1, 2, 3, 4):
            tg.set_num_threads(n)
            p, q = parameters([g, g[:77]], dtype, Device("cpu"))
            results.append((clip_grad_norm_([p, q], 1.0, norm_type), p.grad, q.grad))
    finally:
        tg.set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


# ---- clip_grad_value_ ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip_value", [0, 0.0, 1e-3, 0.7, 1e30, INF])
def test_clipping_by_value_has_the_bits_of_torch(
    dtype: str, clip_value: float, device: Device
) -> None:
    rng = np.random.default_rng(1)
    gradients: list[Array | None] = [
        rng.standard_normal(shape) * 10.0**i
        for i, shape in enumerate([(3, 5), (), (1,), (1031,), (0, 4)])
    ]
    odd = np.array([NAN, INF, -INF, 0.0, -0.0, 0.7, -0.7, 1e-3, 1e-40])
    gradients += [None, odd]
    ours, theirs = parameters(gradients, dtype, device), torch_parameters(gradients, dtype)
    buffers = [p.grad for p in ours]
    assert clip_grad_value_(ours, clip_value) is None
    torch.nn.utils.clip_grad_value_(theirs, clip_value)
    for p, q, buffer in zip(ours, theirs, buffers, strict=True):
        assert p.grad is buffer
        if q.grad is not None:
            np.testing.assert_array_equal(host(p.grad), q.grad.numpy())
    (want,) = ref.clip_grad_value([odd.astype(dtype)], float(np.dtype(dtype).type(clip_value)))
    np.testing.assert_array_equal(host(ours[-1].grad), want)


def test_values_of_one_parameter_a_generator_and_none_are_clipped(device: Device) -> None:
    for make in (lambda p: p, lambda p: (q for q in [p]), lambda p: [p]):
        p = tg.nn.Parameter(device.put(np.zeros(2)))
        p.grad = np.array([3.0, -4.0])
        clip_grad_value_(make(p), 3.5)
        assert host(p.grad).tolist() == [3.0, -3.5]
    clip_grad_value_([], 1.0)
    clip_grad_value_(tg.nn.Parameter(device.put(np.zeros(3))), 1.0)


def test_gradients_of_bfloat16_parameters_are_clipped_in_float32(device: Device) -> None:
    p = tg.nn.Parameter(tg.zeros(3, "bfloat16", device=device.name))
    p.grad = np.array([1.001, -1.001, 0.3], np.float32)
    clip_grad_value_(p, 1.0005)
    want = np.array([1.0005, -1.0005, 0.3], np.float32)
    np.testing.assert_array_equal(host(p.grad), want)


@pytest.mark.parametrize("clip_value", [-1.0, -INF, NAN])
def test_illegal_clip_values_are_refused_and_change_nothing(
    clip_value: float, device: Device
) -> None:
    p = tg.nn.Parameter(device.put(np.zeros(2)))
    p.grad = np.array([3.0, 4.0])
    with pytest.raises(ValueError, match=f"clip_grad_value_: clip_value must .* got {clip_value}"):
        clip_grad_value_([p], clip_value)
    assert host(p.grad).tolist() == [3.0, 4.0]
