# SPDX-License-Identifier: MIT
"""Linear on Linear in a plan: on a device dz of the lower layer leaves the upper one's product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tilegrad as tg
from half_inputs import BFLOAT16, FLOAT16, Half, bits
from helpers import Array, Device, assert_close, assert_same_bits, host
from linear_inputs import ACTIVATIONS, IDS
from tilegrad import backends, nn
from tilegrad._recorder import Recorder

pytestmark = pytest.mark.not_on_cpu("a plan of the cpu has the calls of the long form")

# rows, features of the lower layer's input, of what lies between, of the upper layer's output: for
# a rung with tensor cores and for one without, for any dtype, and for Hopper's rung.
SIZES = [(70, 9, 40, 33), (5, 7, 33, 17), (17, 3, 1, 2), (0, 3, 4, 5)]
LARGE = (140, 5, 136, 128)
DTYPES: dict[str, Half | None] = {
    "float32": None, "float64": None, "bfloat16": BFLOAT16, "float16": FLOAT16,
}  # fmt: skip


class Chain:
    """Operands of both backward passes, in float64 and on the device."""

    def __init__(
        self, device: Device, dtype: str, case: Any, size: tuple[int, ...], seed: int = 3
    ) -> None:
        rng = np.random.default_rng(seed)
        self.device, self.half, self.dtype = device, DTYPES[dtype], dtype
        self.name, self.args, self.function, self.from_output = case
        rows, inputs, middle, outputs = size
        self.z = self.exact(rng.standard_normal((rows, middle)))
        self.y = self.exact(self.function(torch.tensor(self.z)).numpy())
        # A bound of hardtanh may not be a number of 16 bits: y does not tell its side.
        if self.half is not None and "hard" in str(self.name):
            self.from_output = False
        self.x = self.exact(rng.standard_normal((rows, inputs)))
        self.upper = self.exact(rng.standard_normal((outputs, middle)))
        self.lower = self.exact(rng.standard_normal((middle, inputs)))
        self.dy = self.exact(rng.standard_normal((rows, outputs)))
        self.starts = [rng.standard_normal(s) for s in ((middle, inputs), (middle,))]

    def exact(self, x: Array) -> Array:
        if self.half is not None:
            return self.half.round(x)
        return x.astype(self.dtype).astype(np.float64)

    def put(self, x: Array, offset: int = 0) -> Any:
        if self.half is not None:
            return self.half.put(self.device, x, offset)
        return self.device.put(x.astype(self.dtype), offset)

    def get(self, x: Any) -> Array:
        return host(x) if self.half is None or x.dtype == np.float32 else self.half.get(x)

    def saved(self) -> Any:
        identity = self.name in (None, "identity")
        return None if identity else self.put(self.y if self.from_output else self.z)

    def record(
        self, bias: bool = True, weight: bool = True, between: bool = False, offset: int = 0
    ) -> tuple[Any, dict[str, Any]]:
        """Return a plan of both passes and its results; dz is in the buffer of the upper dx."""
        gradient = "float32" if self.half is not None else self.dtype
        upper = self.put(self.upper, offset)
        plan = backends.of(upper).Plan()
        got = {
            "dz": self.put(np.zeros_like(self.y), offset),
            "dx": self.put(np.zeros_like(self.x)),
            "upper": self.device.put(np.zeros(self.upper.shape, gradient)),
        }
        if weight:
            got["dw"] = self.device.put(self.starts[0].astype(gradient))
        if bias:
            got["db"] = self.device.put(self.starts[1].astype(gradient))
        dy, y, x, lower = (self.put(v, offset) for v in (self.dy, self.y, self.x, self.lower))
        plan.linear_backward(got["dz"], got["upper"], None, dy, y, upper, None, True, None, None)
        if between:
            got["copy"] = self.put(np.zeros_like(self.y))
            plan.activation(got["copy"], got["dz"], "relu", None)
        plan.linear_backward(
            got["dx"], got.get("dw"), got.get("db"), got["dz"], x, lower, self.saved(),
            self.from_output, self.name, self.args,
        )  # fmt: skip
        return plan, got

    def check(self, got: dict[str, Any], accumulate: bool) -> None:
        """Compare with float64: sums err by their length, 16-bit results by a rounding more."""
        kind = np.float32 if self.half is not None else np.dtype(self.dtype)
        eps = float(np.finfo(kind).eps)
        rows, outputs = self.dy.shape
        leaf = torch.tensor(self.z, requires_grad=True)
        (slope,) = torch.autograd.grad(self.function(leaf).sum(), leaf)
        dx, size = self.dy @ self.upper, np.abs(self.dy) @ np.abs(self.upper)
        dz = dx * slope.numpy()
        near = (2 * (outputs + 2) + 30) * eps * size
        if self.from_output:  # f' of a rounded y
            near += 4 * (self.half.eps if self.half else eps) * size
        stored = near + (0 if self.half is None else 0.5 * self.half.spacing(np.abs(dz) + near))
        assert_close(self.get(got["dz"]), dz, stored + eps * size, what="dz")
        starts = self.starts if accumulate else [0 * v for v in self.starts]
        for name, right, start in (("dw", self.x, starts[0]), ("db", np.ones(rows), starts[1])):
            if name in got:
                sums = np.abs(dz.T) @ np.abs(right) + np.abs(start)
                bound = stored.T @ np.abs(right) + (rows + 3) * eps * sums
                assert_close(self.get(got[name]), dz.T @ right + start, bound, what=name)


def every_result(got: dict[str, Any]) -> list[Array]:
    return [bits(v) if v.dtype.itemsize == 2 else host(v) for v in got.values()]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ACTIVATIONS, ids=IDS)
def test_gradients_of_a_chain(device: Device, dtype: str, case: Any) -> None:
    halves = dtype in ("bfloat16", "float16")
    for size in [*SIZES, *[LARGE] * halves] if case[0] == "relu" else SIZES[:1]:
        chain = Chain(device, dtype, case, size)
        plan, got = chain.record()
        seen = []
        for _ in range(3):  # call by call, captured, replayed
            plan.run((), False)
            seen.append(every_result(got))
        chain.check(got, accumulate=False)
        for again in seen[1:]:
            for a, b in zip(seen[0], again, strict=True):
                assert_same_bits(b, a)
        plan, got = chain.record(offset=3)
        plan.run((), True)
        chain.check(got, accumulate=True)
        assert_same_bits(every_result(got)[0], seen[0][0], what="operands that lie elsewhere")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["relu", "gelu", None])
def test_a_chain_of_wide_types_has_the_products_of_two_layers(
    device: Device, dtype: str, name: str | None
) -> None:
    case = ACTIVATIONS[[row[0] for row in ACTIVATIONS].index(name)]
    for size in SIZES:
        chain = Chain(device, dtype, case, size)
        plan, got = chain.record()
        plan.run((), False)
        operands = [chain.put(v) for v in (chain.dy, chain.y, chain.upper)]
        dy, upper, _ = tg.linear_backward(*operands)
        saved = {"output" if chain.from_output else "preactivation": chain.saved()}
        below = [chain.put(v) for v in (chain.x, chain.lower, chain.starts[1])]
        want = tg.linear_backward(dy, *below, name, **saved)
        for key, value in zip(("upper", "dx", "dw"), (upper, *want[:2]), strict=True):
            assert_same_bits(got[key], value, what=f"{key}, {size}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("parts", [(False, True), (True, False), (False, False)])
def test_a_chain_with_frozen_parameters(
    device: Device, dtype: str, parts: tuple[bool, bool]
) -> None:
    for case in (ACTIVATIONS[0], ACTIVATIONS[4]):
        chain = Chain(device, dtype, case, SIZES[0])
        plan, got = chain.record(*parts)
        plan.run((), False)
        chain.check(got, accumulate=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_read_between_two_layers_stays(device: Device, dtype: str) -> None:
    chain = Chain(device, dtype, ACTIVATIONS[4], SIZES[0])
    plan, got = chain.record(between=True)
    plan.run((), False)
    dx, _, _ = tg.linear_backward(*(chain.put(v) for v in (chain.dy, chain.y, chain.upper)))
    assert_same_bits(every_result({"dx": got["dz"]})[0], every_result({"dx": dx})[0])


def test_the_forward_pass_keeps_what_backward_needs_once() -> None:
    """y, which the next layer reads, and z only where f' cannot be taken from y."""
    x = np.zeros((6, 5), np.float32)
    kept = {}
    for name in (None, "relu", "tanh", "gelu", "silu"):
        recorder = Recorder()
        nn.Linear(5, 7, activation=name)._record(recorder, x)
        kept[name] = recorder.bytes // (6 * 7 * 4)
    assert kept == {None: 1, "relu": 1, "tanh": 1, "gelu": 2, "silu": 2}
