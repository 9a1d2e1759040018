# SPDX-License-Identifier: MIT
"""nn.init: torch's functions and spreads, the same bits on every device, what is refused."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tilegrad as tg
from helpers import Array, Device, assert_same_bits, error, host
from tilegrad import _random, nn
from tilegrad import reference as ref
from tilegrad.nn import init

NAMES = [
    "calculate_gain", "zeros_", "ones_", "constant_", "eye_", "uniform_", "normal_",
    "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_",
]  # fmt: skip
DTYPES = {"float32": np.float32, "float64": np.float64, "bfloat16": ml_dtypes.bfloat16}
DRAWS: dict[str, Callable[[Any], Any]] = {
    "uniform_": lambda w: init.uniform_(w, -0.3, 0.7),
    "normal_": lambda w: init.normal_(w, 0.5, 2.0),
    "xavier_uniform_": init.xavier_uniform_,
    "xavier_normal_": lambda w: init.xavier_normal_(w, 2.0),
    "kaiming_uniform_": lambda w: init.kaiming_uniform_(w, math.sqrt(5)),
    "kaiming_normal_": lambda w: init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
}
SHAPES = [(33, 7), (1, 1), (4, 3, 2), (5, 4, 3, 3)]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tg.manual_seed(11)


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_torchs(name: str) -> None:
    def arguments(function: Callable[..., Any]) -> list[tuple[str, Any]]:
        given = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in given if p.name != "generator"]

    assert arguments(getattr(init, name)) == arguments(getattr(torch.nn.init, name))


@pytest.mark.parametrize(
    ("nonlinearity", "param"),
    [("linear", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None),
     ("leaky_relu", None), ("leaky_relu", 0), ("leaky_relu", 0.2), ("leaky_relu", -3)],
)  # fmt: skip
def test_gains_are_torchs(nonlinearity: Any, param: Any) -> None:
    want = torch.nn.init.calculate_gain(nonlinearity, param)
    assert init.calculate_gain(nonlinearity, param) == want


SPREADS: list[tuple[str, dict[str, Any]]] = [
    ("xavier_uniform_", {}),
    ("xavier_uniform_", {"gain": 5 / 3}),
    ("xavier_normal_", {}),
    ("xavier_normal_", {"gain": 0.5}),
    *(
        (name, {"a": a, "mode": mode, "nonlinearity": nonlinearity})
        for name in ("kaiming_uniform_", "kaiming_normal_")
        for mode in ("fan_in", "fan_out")
        for a, nonlinearity in [(0, "leaky_relu"), (math.sqrt(5), "leaky_relu"), (0, "relu"),
                                (0, "tanh"), (0, "linear"), (0, "selu")]
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), SPREADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_and_deviations_are_torchs(
    name: str, options: dict[str, Any], shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    for kind in ("uniform", "normal"):
        monkeypatch.setattr(
            torch.nn.init, f"_no_grad_{kind}_", lambda _, a, b, __: theirs.append((a, b))
        )
        monkeypatch.setattr(
            torch.Tensor, f"{kind}_", lambda t, a, b, generator: theirs.append((a, b))
        )
        draw = getattr(init, kind)

        def watched(shape: Any, a: float, b: float, dtype: Any, draw: Any = draw) -> Any:
            ours.append((a, b))
            return draw(shape, a, b, dtype)

        monkeypatch.setattr(init, kind, watched)
    getattr(torch.nn.init, name)(torch.empty(shape), **options)
    getattr(init, name)(np.empty(shape), **options)
    assert len(ours) == 1
    assert ours == theirs


@pytest.mark.parametrize("shape", [(400, 500), (500, 400)])
@pytest.mark.parametrize("name", DRAWS)
def test_values_have_the_spread_that_torchs_have(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = torch.empty(shape, dtype=torch.float64)
    options: dict[str, tuple[Any, ...]] = {
        "uniform_": (-0.3, 0.7), "normal_": (0.5, 2.0), "xavier_normal_": (2.0,),
        "kaiming_uniform_": (math.sqrt(5),), "kaiming_normal_": (0, "fan_out", "relu"),
    }  # fmt: skip
    getattr(torch.nn.init, name)(theirs, *options.get(name, ()))
    want = theirs.numpy()
    got = DRAWS[name](np.empty(shape))
    n = got.size
    kurtosis = 3.0 if "normal" in name else 1.8
    spread = want.std()
    # Two samples: the difference of two means, and of two variances, has twice the variance.
    assert abs(got.mean() - want.mean()) < 4 * spread * math.sqrt(2 / n)
    assert abs(got.var() - want.var()) < 4 * spread**2 * math.sqrt(2 * (kurtosis - 1) / n)
    both = np.sort(np.concatenate([got.ravel(), want.ravel()]))
    counts = [np.searchsorted(np.sort(x.ravel()), both, side="right") for x in (got, want)]
    distance = np.abs(counts[0] - counts[1]).max() / n
    assert distance < 1.95 * math.sqrt(2 / n)  # Kolmogorov-Smirnov: 999 of 1000 true pairs
    if "uniform" in name:
        low, high = (-0.3, 0.7) if name == "uniform_" else (-math.inf, math.inf)
        assert low <= got.min()
        assert got.max() <= high
        assert np.abs(got).max() == pytest.approx(np.abs(want).max(), rel=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DRAWS)
def test_every_device_gets_the_same_bits(
    name: str, shape: tuple[int, ...], dtype: str, device: Device
) -> None:
    here = DRAWS[name](np.empty(shape, DTYPES[dtype]))
    used = _random.get_state()
    tg.manual_seed(11)
    parameter = nn.Parameter(np.full(shape, np.nan, DTYPES[dtype])).to(device.name)
    buffer = parameter.data
    assert DRAWS[name](parameter) is parameter
    assert parameter.data is buffer
    assert_same_bits(buffer, here)
    assert _random.get_state() == used
    n = math.prod(shape)
    assert used["offset"] == -(-n // 2 if "normal" in name else -n // 4)
    if dtype == "bfloat16":
        tg.manual_seed(11)
        assert_same_bits(here, DRAWS[name](np.empty(shape, np.float32)).astype(DTYPES[dtype]))
    tg.manual_seed(11)
    array = device.put(np.empty(shape, DTYPES[dtype]))
    assert DRAWS[name](array) is array
    assert_same_bits(array, here)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_the_references(dtype: str, isa: str, threads: int) -> None:
    w = init.uniform_(np.empty((5, 3), dtype), -2, 1)
    assert_same_bits(w.ravel(), ref.uniform(15, -2, 1, 11, 0, dtype))
    w = init.normal_(np.empty((5, 3), dtype), 3, 0.5)
    want = ref.normal(15, 3, 0.5, 11, 4, dtype)
    np.testing.assert_allclose(w.ravel(), want, rtol=4 * np.finfo(dtype).eps)
    assert _random.get_state()["offset"] == 4 + 8


CONSTANTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "zeros_": (init.zeros_, torch.nn.init.zeros_),
    "ones_": (init.ones_, torch.nn.init.ones_),
    "constant_": (lambda w: init.constant_(w, 0.1), lambda w: torch.nn.init.constant_(w, 0.1)),
    "eye_": (init.eye_, torch.nn.init.eye_),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 1), (0, 4)])
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_torchs_and_draw_nothing(
    name: str, shape: tuple[int, ...], dtype: str, device: Device
) -> None:
    before = _random.get_state()
    ours, theirs = CONSTANTS[name]
    parameter = nn.Parameter(np.full(shape, np.nan, DTYPES[dtype])).to(device.name)
    ours(parameter)
    want = theirs(torch.empty(shape, dtype=getattr(torch, dtype)))
    np.testing.assert_array_equal(
        host(parameter.data).astype(np.float64), want.to(torch.float64).numpy()
    )
    assert _random.get_state() == before


def test_a_layer_is_filled_where_it_is_and_trains_on(device: Device) -> None:
    layer = nn.Linear(6, 4).to(device.name)
    address = layer.weight.data
    init.kaiming_normal_(layer.weight, nonlinearity="relu")
    init.zeros_(layer.bias)
    assert layer.weight.data is address
    assert layer.weight.grad is None
    x: Array = np.ones((2, 6), np.float32)
    y = layer(device.put(x))
    want = x @ host(layer.weight.data).T
    np.testing.assert_allclose(host(y), want, rtol=1e-5, atol=1e-6)


def test_an_empty_tensor_is_left_alone() -> None:
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        for shape in [(0, 3), (3, 0), (0, 0)]:
            w = np.empty(shape)
            assert getattr(init, name)(w) is w
    assert _random.get_state()["offset"] == 0


def test_a_strided_array_is_filled_in_the_order_of_its_elements() -> None:
    want = init.normal_(np.empty((3, 4)))
    tg.manual_seed(11)
    assert_same_bits(init.normal_(np.empty((4, 3)).T), want)


W = np.empty((2, 3))


@pytest.mark.parametrize(
    ("call", "kind", "op", "parts"),
    [
        (lambda: init.zeros_([1.0]), TypeError, "zeros_", ("Parameter or an array", "list")),
        (lambda: init.ones_(np.empty(2, int)), TypeError, "ones_", ("float32", "int64")),
        (lambda: init.normal_(np.empty(2, "f2")), TypeError, "normal_", ("bfloat16", "float16")),
        (lambda: init.constant_(W, "1"), TypeError, "constant_", ("val must be a number", "'1'")),
        (lambda: init.eye_(np.empty(3)), ValueError, "eye_", ("2 axes", "(3,)")),
        (lambda: init.uniform_(W, 1, 0), ValueError, "uniform_", ("b must be at least a", "1")),
        (lambda: init.uniform_(W, math.nan), ValueError, "uniform_", ("a must be finite", "nan")),
        (lambda: init.uniform_(W, 0, math.inf), ValueError, "uniform_", ("b must be finite",)),
        (lambda: init.uniform_(W, True), TypeError, "uniform_", ("a must be a number", "True")),
        (lambda: init.normal_(W, 0, -1), ValueError, "normal_", ("std must be at least 0", "-1")),
        (lambda: init.normal_(W, "0"), TypeError, "normal_", ("mean must be a number",)),
        (lambda: init.xavier_normal_(np.empty(3)), ValueError, "xavier_normal_", ("2 axes",)),
        (lambda: init.xavier_uniform_(W, math.nan), ValueError, "xavier_uniform_", ("gain",)),
        (lambda: init.kaiming_uniform_(np.empty(3)), ValueError, "kaiming_uniform_", ("(3,)",)),
        (
            lambda: init.kaiming_normal_(W, mode="fan_avg"),
            ValueError,
            "kaiming_normal_",
            ("mode must be 'fan_in' or 'fan_out'", "fan_avg"),
        ),
        (
            lambda: init.kaiming_normal_(W, nonlinearity="gelu"),
            ValueError,
            "calculate_gain",
            ("nonlinearity must be one of", "leaky_relu", "'gelu'"),
        ),
        (
            lambda: init.calculate_gain("leaky_relu", True),
            TypeError,
            "calculate_gain",
            ("negative_slope must be a number", "True"),
        ),
    ],
)
def test_what_is_wrong_is_named(
    call: Callable[[], Any], kind: type[Exception], op: str, parts: tuple[str, ...]
) -> None:
    with error(kind, op, *parts):
        call()
    assert _random.get_state()["offset"] == 0, "a refused call draws nothing"
