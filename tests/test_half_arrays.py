# SPDX-License-Identifier: MIT
"""Arrays of 16 bits at the border: which are taken, and how they may lie."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import tilegrad as tg
from call_inputs import NOT_16_BIT, each_array, legal_calls
from half_inputs import BFLOAT16, normal
from helpers import Array, Device, assert_same_bits, error, frozen, guarded_out, layouts
from softmax_oracle import every_name, forward

BF16 = np.dtype(ml_dtypes.bfloat16)
EVERY_CALL = sorted(op for op in legal_calls() if not op.startswith(NOT_16_BIT))
every_call = pytest.mark.parametrize("op", EVERY_CALL)


def put(x: Any) -> Any:
    """Return a floating operand in bfloat16, anything else as it is."""
    return each_array(lambda y: y.astype(BF16) if y.dtype.kind == "f" else y, x)


def random_calls(rng: np.random.Generator, *sizes: int) -> dict[str, dict[str, Any]]:
    def fill(*shape: int, start: float = -1.0) -> Array:
        x = rng.standard_normal(shape)
        return np.abs(x) + start if start > 0 else x

    calls = legal_calls(fill, *sizes)
    return {op: {name: put(x) for name, x in calls[op].items()} for op in EVERY_CALL}


def flat(result: Any) -> list[Array]:
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(x) for part in parts for x in (part if isinstance(part, tuple) else (part,))]


# ---- on the cpu --------------------------------------------------------------------------------


@every_call
def test_results_do_not_depend_on_how_operands_lie(
    isa: str, op: str, rng: np.random.Generator
) -> None:
    call = random_calls(rng, 5, 9, 18)[op]
    want = flat(getattr(tg, op)(**call))
    assert all(x.dtype == BF16 for x in want)
    names = [name for name, x in call.items() if isinstance(x, np.ndarray) and x.dtype == BF16]
    for name in names:
        for layout, x in {**layouts(call[name]), "read-only": frozen(call[name])}.items():
            for got, wanted in zip(flat(getattr(tg, op)(**{**call, name: x})), want, strict=True):
                assert_same_bits(got, wanted, what=f"{name} {layout}")


@every_call
def test_results_do_not_depend_on_threads(isa: str, op: str, rng: np.random.Generator) -> None:
    call = random_calls(rng, 130, 70, 300)[op]
    results = []
    for threads in (1, 2, 5):
        tg.set_num_threads(threads)
        results.append(flat(getattr(tg, op)(**call)))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert_same_bits(got, want)


def in_float32(call: dict[str, Any]) -> dict[str, Any]:
    return {
        name: each_array(lambda y: y.astype(np.float32) if y.dtype == BF16 else y, x)
        for name, x in call.items()
    }


@pytest.mark.parametrize(
    "op", [x for x in EVERY_CALL if not x.startswith(("matmul", "linear", "fused_mlp"))]
)
def test_an_op_is_that_of_float32_rounded_once(isa: str, op: str, rng: np.random.Generator) -> None:
    """Bit for bit: whole vectors, rows and columns in every kind of part that a thread takes."""
    for sizes in [(1, 1, 1), (3, 10, 2), (2, 1100, 15), (2, 30, 17), (2, 2000, 65), (40, 900, 1)]:
        call = random_calls(rng, *sizes)[op]
        if "softmax_backward" in op:  # it reads the rounded y
            call["output"] = forward(op.removesuffix("_backward"))(call["input"], 1)
        for reduction in ("none", "mean", "sum") if op.startswith("cross_entropy") else ("",):
            if reduction:
                call["reduction"] = reduction
                if "grad_output" in call and reduction != "none":
                    call["grad_output"] = np.array(1.75, BF16)
            wide = flat(getattr(tg, op)(**in_float32(call)))
            for got, want in zip(flat(getattr(tg, op)(**call)), wide, strict=True):
                assert_same_bits(got, want.astype(BF16), what=f"{reduction} {sizes}")


@every_name
@pytest.mark.parametrize("inner", [1, 2, 15, 16, 17, 33, 64, 65, 130])
def test_softmax_along_any_axis_is_that_of_float32(
    isa: str, name: str, inner: int, rng: np.random.Generator
) -> None:
    for classes in (1, 3, 100, 1025, 5000):
        x = (3 * rng.standard_normal((3, classes, inner))).astype(BF16)
        want = forward(name)(x.astype(np.float32), 1).astype(BF16)
        assert_same_bits(forward(name)(x, 1), want, what=str(x.shape))


def test_rounding_is_to_nearest_even_everywhere(isa: str, rng: np.random.Generator) -> None:
    """A product of float32 in front of the rounding: ties, denormals, overflow and NaN."""
    every = np.arange(2**16, dtype=np.uint16).view(BF16)
    ties = 0
    slopes = [1 + 2.0**-8, 1 + 2.0**-7, 1 - 2.0**-9, 3 + 2.0**-16, 2.0**-3, 2.0**-20, 2.0**100]
    for slope in [*slopes, *np.float32(rng.uniform(0.1, 4, 20))]:
        with np.errstate(all="ignore"):
            wide = every.astype(np.float32)
            product = np.where(wide < 0, wide * np.float32(slope), wide)
            want = product.astype(BF16)
        ties += np.count_nonzero(product.view(np.uint32) & 0xFFFF == 0x8000)
        assert_same_bits(tg.leaky_relu(every, float(np.float32(slope))), want, what=str(slope))
    assert ties > 1000
    same = tg.identity(every).view(np.uint16)
    is_nan = every.view(np.uint16) & 0x7FFF > 0x7F80
    np.testing.assert_array_equal(same[~is_nan], every.view(np.uint16)[~is_nan])
    quiet = every.view(np.uint16)[is_nan] | 0x40  # sign and payload stay
    np.testing.assert_array_equal(same[is_nan], quiet)


def test_a_python_number_is_rounded_once() -> None:
    """Through float32 this one would come to lie on a tie, and be rounded down."""
    number = 1 + 2.0**-8 + 2.0**-40
    gradient = tg.cross_entropy_backward(number, np.zeros((1, 1), BF16), np.zeros((1, 1), BF16))
    assert float(gradient[0, 0]) == 0
    x, t = np.zeros((1, 2), BF16), np.array([0])
    half = tg.cross_entropy_backward(number, x, t, reduction="sum")
    assert half.astype(float).tolist() == [[-(1 + 2.0**-7) / 2, (1 + 2.0**-7) / 2]]


def test_empty_and_0d_arrays(isa: str) -> None:
    for shape in [(0,), (3, 0), (0, 3), (2, 0, 5)]:
        x = np.empty(shape, BF16)
        for y in (tg.gelu(x), tg.gelu_backward(x, x), tg.softmax(x, -1), tg.log_softmax(x, 0)):
            assert y.shape == shape
            assert y.dtype == BF16
    one = tg.relu(np.array(1.5, BF16))
    assert one.shape == ()
    assert one == 1.5
    assert tg.relu(BF16.type(-1.5)) == 0  # a NumPy scalar
    assert tg.softmax(np.array(7, BF16), 0) == 1
    nothing = np.empty((0, 3), BF16)
    targets = np.empty(0, np.int64)
    assert np.isnan(tg.cross_entropy(nothing, targets))
    assert type(tg.cross_entropy(nothing, targets, reduction="sum")) is ml_dtypes.bfloat16
    assert tg.cross_entropy_backward(1.0, nothing, targets).shape == (0, 3)
    assert not tg.matmul(np.empty((2, 0), BF16), np.empty((0, 3), BF16)).astype(float).any()
    a, b = np.ones((0, 2, 3), BF16), np.ones((3, 4), BF16)
    da, db = tg.matmul_backward(np.ones((0, 2, 4), BF16), a, b)
    assert da.shape == (0, 2, 3)
    assert not db.astype(float).any()


def test_results_are_written_to_out(isa: str, rng: np.random.Generator) -> None:
    for n in (1, 7, 64, 5000):
        x = normal(rng, BFLOAT16, (n,)).astype(BF16)
        for op in (tg.gelu, lambda x, out: tg.softmax(x, 0, out=out)):
            want = op(x, out=np.empty(n, BF16))
            with guarded_out((n,), BF16, 1) as out:
                assert op(x, out=out) is out
                assert_same_bits(out, want)
            inplace = x.copy()
            assert op(inplace, out=inplace) is inplace
            assert_same_bits(inplace, want)
        dy = x[::-1].copy()
        want = tg.gelu_backward(dy, x)
        assert_same_bits(tg.gelu_backward(dy, x, out=dy), want)
    x = np.ones(8, BF16)
    with error(ValueError, "relu", "overlap"):
        tg.relu(x[:-1], out=x[1:])
    for wrong in (np.float32, np.float16, "V2", BF16.newbyteorder()):
        with error(TypeError, "relu", "out"):
            tg.relu(x, out=np.zeros(8, wrong))
    with error(TypeError, "relu", "out", "float32", "bfloat16"):
        tg.relu(x.astype(np.float32), out=x)
    with error(ValueError, "relu", "read-only"):
        tg.relu(x, out=frozen(x))


# ---- without ml_dtypes -------------------------------------------------------------------------


def run(*lines: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_ml_dtypes_is_imported_only_for_a_bfloat16() -> None:
    first = ("import sys, numpy as np, tilegrad as tg", "x = np.ones((3, 3), np.float32)")
    uses = ("tg.relu(x); tg.softmax(x, 1, dtype='float64'); tg.asarray(x); tg.zeros(3)",)
    refused = ("try: tg.relu(np.zeros(3, 'V2'))", "except TypeError as e: print(e)")
    printed = run(*first, *uses, *refused, "print('ml_dtypes' in sys.modules)")
    assert printed.splitlines() == [
        "relu: input must have dtype float32, float64 or bfloat16; got |V2",
        "False",
    ]


def test_without_ml_dtypes_everything_else_works() -> None:
    first = (
        "import sys",
        "sys.modules['ml_dtypes'] = None",
        "import numpy as np, torch, tilegrad as tg",
        "print(tg.relu(np.array([-1.0, 2.0])).tolist())",
        "print(tg.relu(torch.tensor([-1.0, 2.0])).tolist())",
    )
    tensor = (
        "try: tg.relu(torch.ones(3, dtype=torch.bfloat16))",
        "except TypeError as e: print(e)",
    )
    makers = ("try: tg.zeros(3, 'bfloat16')", "except ImportError as e: print(e)")
    printed = run(*first, *tensor, *makers).splitlines()
    assert printed[:2] == ["[0.0, 2.0]"] * 2
    assert len(printed) == 4
    assert all("tilegrad[bf16]" in line for line in printed[2:])
    assert printed[2].startswith("relu: ")


# ---- other libraries, other devices ------------------------------------------------------------


class Legacy:
    """A producer from before DLPack 1."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, stream: None = None) -> Any:
        return self.tensor.__dlpack__()

    def __dlpack_device__(self) -> Any:
        return self.tensor.__dlpack_device__()


def test_torchs_bfloat16_shares_its_memory(rng: np.random.Generator) -> None:
    tensor = torch.from_numpy(rng.standard_normal((5, 9))).to(torch.bfloat16)
    for view in (tensor, tensor.T, tensor[1:, ::2], tensor[2, 3], tensor[:0]):
        want = view.double().numpy()
        for taken in (tg.asarray(view), tg.from_dlpack(view), tg.asarray(Legacy(view))):
            assert taken.dtype == BF16
            np.testing.assert_array_equal(taken.astype(np.float64), want)
        y = tg.relu(view)
        np.testing.assert_array_equal(y.astype(np.float64), np.maximum(want, 0))
    shared = tg.asarray(tensor)
    assert shared.ctypes.data == tensor.data_ptr()
    shared[0, 0] = 100
    assert tensor[0, 0] == 100
    del tensor  # the array keeps its memory
    assert shared[0, 0] == 100


def test_softmax_casts_to_and_from_bfloat16(rng: np.random.Generator) -> None:
    wide = rng.standard_normal((5, 9)).astype(np.float32)
    x = wide.astype(BF16)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    want = tg.softmax(x.astype(np.float32), 1)
    assert_same_bits(tg.softmax(x, 1, dtype=np.float32), want)
    assert_same_bits(tg.softmax(tensor, 1, dtype=np.float32), want)
    for name in (BF16, "bfloat16", ml_dtypes.bfloat16):
        assert_same_bits(tg.softmax(wide, 1, dtype=name), tg.softmax(x, 1))
        assert_same_bits(tg.softmax_backward(x, x, 1, dtype=name), tg.softmax_backward(x, x, 1))
    for of in (x, tensor):
        dx = tg.softmax_backward(want, of, 1, dtype=np.float32)
        assert_same_bits(dx, tg.softmax_backward(want, x.astype(np.float32), 1).astype(BF16))


def test_makers_know_the_name_bfloat16() -> None:
    for x in (tg.zeros(3, "bfloat16"), tg.ones((2, 3), BF16), tg.full(2, 1.5, "bfloat16")):
        assert x.dtype == BF16
    assert tg.empty((2, 0), "bfloat16").dtype == BF16
    assert tg.asarray([1.0, 2.0], "bfloat16").dtype == BF16


@pytest.mark.not_on_cpu("between the cpu and a device")
def test_bfloat16_goes_to_a_device_and_back(device: Device, rng: np.random.Generator) -> None:
    for shape in [(), (0, 3), (5, 9)]:
        x = np.asarray(rng.standard_normal(shape)).astype(BF16)
        there = tg.asarray(x, device=device.name)
        assert there.dtype_name == "bfloat16"
        for back in (there.numpy(), there.to("cpu"), tg.asarray(there, device="cpu")):
            assert_same_bits(back, x)
    there = tg.asarray(x.T, device=device.name)
    assert_same_bits(there.numpy(), x.T)
    assert_same_bits(tg.relu(there).numpy(), tg.relu(x.T))
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    assert_same_bits(tg.asarray(tensor.T, device=device.name).numpy(), x.T)


def test_torchs_bfloat16_is_taken_through_dlpack(device: Device, rng: np.random.Generator) -> None:
    """The way in and out for who has no ml_dtypes: torch's tensors in the device's memory."""
    x = normal(rng, BFLOAT16, (5, 9))
    if device.name == "cpu":
        y = tg.relu(torch.from_numpy(x).to(torch.bfloat16))
        np.testing.assert_array_equal(BFLOAT16.get(y), np.maximum(x, 0))
        return
    y = tg.relu(BFLOAT16.put(device, x))
    back = torch.from_dlpack(y)
    assert back.dtype == torch.bfloat16
    np.testing.assert_array_equal(back.cpu().double().numpy(), np.maximum(x, 0))
