# SPDX-License-Identifier: MIT
"""Bad calls of every op: the right error, a text with op, rule and value, and nothing changed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from call_inputs import Call, each_array, legal_calls, ramp
from helpers import Device, assert_same_bits, bad_outs, error, host
from tilegrad import ops

TABLE = legal_calls()
OPERANDS = [
    (op, name)
    for op, call in TABLE.items()
    for name, value in call.items()
    if isinstance(value, np.ndarray)
]
# Operands whose shape another one fixes: an only operand may have any.
SHAPED = [pair for pair in OPERANDS if [op for op, _ in OPERANDS].count(pair[0]) > 1]
FLOATS = [(op, name) for op, name in OPERANDS if TABLE[op][name].dtype.kind == "f"]
SEVERAL_RESULTS = ("linear_backward", "fused_mlp_backward")
WITH_OUT = [op for op in TABLE if not op.endswith("_value_and_grad") and op not in SEVERAL_RESULTS]


def _misaligned(x: Any) -> Any:
    raw = np.zeros(x.nbytes + 1, np.uint8)[1:]
    moved = raw[: x.nbytes].view(x.dtype).reshape(x.shape)
    moved[...] = x
    return moved


ANY_KIND: dict[str, Any] = {
    "list": (lambda x: x.tolist(), "list"),
    "tuple": (lambda x: tuple(x.tolist()), "tuple"),
    "string": (lambda x: "weight", "str"),
    "number": (lambda x: 3, "int"),
    "byte order": (lambda x: x.astype(x.dtype.newbyteorder()), "byte order"),
    "masked": (lambda x: np.ma.masked_array(x, mask=False), "mask"),
    "misaligned": (_misaligned, "align"),
    "complex": (lambda x: x.astype(np.complex128), "complex128"),
    "object": (lambda x: x.astype(object), "object"),
    "bool": (lambda x: x > 0, "bool"),
    "float16": (lambda x: x.astype(np.float16), "float16"),
}


CPU = Device("cpu")


def there(device: Device, call: Call) -> Call:
    """Return a call whose arrays are on the device."""
    return {k: each_array(device.put, v) for k, v in call.items()}


def flat(result: Any) -> list[Any]:
    """Return the arrays of a result, of a tuple, or of a loss and a tuple."""
    if not isinstance(result, tuple):
        return [result]
    return [array for part in result for array in flat(part)]


def refused(op: str, call: Call, kind: Any, *parts: object, device: Device = CPU) -> None:
    """Make the call; require the error, and every array in it as it was."""
    call = there(device, call)
    arrays = [v for v in call.values() if isinstance(v, (np.ndarray, tg.Array))]
    before = [host(a).tobytes() for a in arrays]
    with error(kind, op, *parts):
        getattr(tg, op)(**call)
    assert [host(a).tobytes() for a in arrays] == before


def test_the_table_has_every_op_and_its_calls_are_legal(device: Device) -> None:
    assert sorted(TABLE) == sorted(ops.__all__)
    for op, call in TABLE.items():
        getattr(tg, op)(**there(device, call))


@pytest.mark.not_on_cpu("the cpu refuses an Array; this is about what a device refuses")
@pytest.mark.parametrize(("op", "operand"), SHAPED)
def test_an_operand_on_another_device_is_refused(device: Device, op: str, operand: str) -> None:
    """Mixing is a TypeError that names both devices, whichever operand it is."""
    for here, away in ((device, CPU), (CPU, device)):
        call = there(here, TABLE[op])
        call[operand] = away.put(TABLE[op][operand])
        with error(TypeError, op, device.name, "is on"):
            getattr(tg, op)(**call)
    call = there(device, TABLE[op])
    for wrong in (TABLE[op][operand].tolist(), "weight"):
        with error(TypeError, op, operand, type(wrong).__name__):
            getattr(tg, op)(**{**call, operand: wrong})


@pytest.mark.parametrize("bad", ANY_KIND)
@pytest.mark.parametrize(("op", "operand"), OPERANDS)
def test_what_is_no_array_of_a_supported_kind_is_refused(op: str, operand: str, bad: str) -> None:
    if bad == "number" and op == "cross_entropy_value_and_grad" and operand == "target":
        bad = "string"  # there a scalar is a matter of shape
    make, part = ANY_KIND[bad]
    value = make(TABLE[op][operand])
    kinds: Any = TypeError
    if bad in ("float16", "complex") and operand == "target" and op.startswith("cross_entropy"):
        kinds = (TypeError, ValueError)  # floats of another shape: no class probabilities either
        part = ""
    refused(op, {**TABLE[op], operand: value}, kinds, operand, part)


@pytest.mark.parametrize(("op", "operand"), FLOATS)
def test_integers_and_mixed_floats_are_refused(device: Device, op: str, operand: str) -> None:
    call = TABLE[op]
    for dtype in ("int64", "uint8", "bool"):
        wrong = {**call, operand: call[operand].astype(dtype)}
        refused(op, wrong, TypeError, operand, dtype, device=device)
    if sum(name == op for name, _ in FLOATS) > 1:
        wrong = {**call, operand: call[operand].astype("f4")}
        refused(op, wrong, TypeError, "float32", "float64", device=device)


@pytest.mark.parametrize(("op", "operand"), SHAPED)
def test_shapes_that_do_not_fit_are_refused(device: Device, op: str, operand: str) -> None:
    call = TABLE[op]
    x = call[operand]
    axis = {"b": 0, "log_probs": 1}.get(operand, -1)
    wrong = np.concatenate([x, x.take([0], axis)], axis)
    part = str(wrong.shape).rstrip(")").rstrip(",")
    refused(op, {**call, operand: wrong}, ValueError, part, device=device)
    with pytest.raises(ValueError, match=f"^{op}: "):
        getattr(tg, op)(**there(device, {**call, operand: np.zeros((2, 2, 2, 2, 7), x.dtype)}))


@pytest.mark.parametrize("op", WITH_OUT)
def test_an_out_that_does_not_fit_is_refused(op: str) -> None:
    call = TABLE[op]
    shape = np.shape(getattr(tg, op)(**call))
    for name, (out, kind, part) in bad_outs(shape, np.float64).items():
        if isinstance(out, np.ndarray):
            base = out if out.base is None else out.base
            flags = base.flags.writeable
            base.setflags(write=True)
            base[...] = 7
            base.setflags(write=flags)
        before = np.array(out).tobytes()
        with error(kind, op, "out", part):
            getattr(tg, op)(**call, out=out)
        assert np.array(out).tobytes() == before, name


@pytest.mark.not_on_cpu("the same for outputs of a device")
@pytest.mark.parametrize("op", WITH_OUT)
def test_an_out_that_does_not_fit_on_a_device_is_refused(device: Device, op: str) -> None:
    call = there(device, TABLE[op])
    shape = getattr(tg, op)(**call).shape
    wrong = (*shape[:-1], shape[-1] + 1)
    outs: list[tuple[Any, type[Exception], str]] = [
        (device.put(np.full(wrong, 7.0)), ValueError, str(wrong)),
        (device.put(np.full((1, *shape), 7.0)), ValueError, "shape"),
        (device.put(np.full(shape, 7, np.float32)), TypeError, "float32"),
        (device.put(np.full(shape, 7, np.int64)), TypeError, "int64"),
        (np.full(shape, 7.0), TypeError, "ndarray"),
        ([[7.0] * shape[-1]] * shape[0], TypeError, "list"),
    ]
    for out, kind, part in outs:
        with error(kind, op, "out", part):
            getattr(tg, op)(**call, out=out)
        assert (host(out) == 7).all()


@pytest.mark.parametrize("op", WITH_OUT)
def test_an_out_that_overlaps_an_operand_in_part_is_refused(device: Device, op: str) -> None:
    call = TABLE[op]
    shape = np.shape(getattr(tg, op)(**call))
    size = int(np.prod(shape))
    for name, value in call.items():
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            continue
        before = np.concatenate([value.ravel(), np.zeros(size)])
        memory = device.put(before.copy())
        operand = memory[: value.size].reshape(value.shape)
        out = memory[value.size - 1 : value.size - 1 + size].reshape(shape)
        with error(ValueError, op, "out", "overlap"):
            getattr(tg, op)(**{**there(device, call), name: operand}, out=out)
        assert_same_bits(memory, before)


BACKWARD = [op for op in TABLE if op.endswith(("_backward", "_value_and_grad"))]


@pytest.mark.parametrize("op", BACKWARD)
def test_an_unknown_name_in_wrt_is_refused(device: Device, op: str) -> None:
    for wrt, part in (("inptu", "inptu"), (("inptu",), "inptu"), ("", "''")):
        refused(op, {**TABLE[op], "wrt": wrt}, ValueError, "wrt", part, device=device)
    refused(op, {**TABLE[op], "wrt": ()}, ValueError, "wrt", device=device)
    refused(op, {**TABLE[op], "wrt": 3}, TypeError, "wrt", device=device)


OPTIONS: list[tuple[str, Call, type[Exception], tuple[str, ...]]] = [
    *[
        (op, {"dim": dim}, ValueError, ("dim", "[-2, 1]", str(dim)))
        for op in ("softmax", "softmax_backward", "log_softmax", "log_softmax_backward")
        for dim in (2, -3, 2**40)
    ],
    *[
        (op, {"reduction": r}, ValueError, ("reduction", repr(r)))
        for op in TABLE
        if "loss" in op or "entropy" in op
        for r in ("median", "", "Mean")
    ],
    *[
        (op, {"label_smoothing": e}, ValueError, ("label_smoothing", "[0, 1]", str(e)))
        for op in TABLE
        if op.startswith("cross_entropy")
        for e in (-0.25, 1.5, np.nan)
    ],
    *[
        (op, {"activation": a}, ValueError, ("activation", a))
        for op in ("linear", "linear_backward")
        for a in ("rleu", "prelu", "", "RELU")
    ],
    *[
        (op, {"activation": a, "activation_args": args}, kind, (part,))
        for op in ("linear", "linear_backward")
        for a, args, kind, part in (
            ("elu", {"slope": 1.0}, ValueError, "slope"),
            ("relu", {"alpha": 1.0}, ValueError, "alpha"),
            (None, {"alpha": 1.0}, ValueError, "activation_args"),
            ("elu", {"alpha": "x"}, TypeError, "activation_args"),
            ("elu", 3, TypeError, "activation_args"),
        )
    ],
    ("linear", {"weight": ramp(6)}, ValueError, ("weight", "(6,)")),
    ("linear", {"input": np.float64(1)}, ValueError, ("input", "()")),
    ("linear_backward", {"accumulate": True}, ValueError, ("accumulate",)),
    *[
        ("linear_backward", {name: ramp(4, 5), "activation": a}, ValueError, (name, "(4, 5)"))
        for name, activations in (("output", (None, "relu")), ("preactivation", (None, "gelu")))
        for a in activations
    ],
    ("matmul", {"a": np.float64(2)}, ValueError, ("()",)),
    ("matmul", {"a": ramp(3), "transpose_a": True}, ValueError, ("transpose", "(3,)")),
    ("matmul", {"transpose_b": True}, ValueError, ("(4, 3)", "(3, 6)")),
    ("matmul", {"a": ramp(2, 4, 3), "b": ramp(5, 3, 6)}, ValueError, ("batch", "(2,)", "(5,)")),
    ("gelu", {"approximate": "erf"}, ValueError, ("approximate", "'erf'")),
    ("gelu", {"approximate": ramp(2)}, ValueError, ("approximate must be", "got")),
    ("gelu_backward", {"approximate": "erf"}, ValueError, ("approximate", "'erf'")),
    ("relu", {"inplace": True, "out": ramp(4, 6)}, ValueError, ("inplace", "out")),
    ("softmax", {"dtype": np.int32}, TypeError, ("dtype", "int32")),
    *[
        (op, change, ValueError, (next(iter(change)), *parts))
        for op in ("ctc_loss", "ctc_loss_backward", "ctc_loss_value_and_grad")
        for change, parts in (
            ({"blank": -1}, ("[0, 6)", "-1")),
            ({"blank": 6}, ("[0, 6)", "6")),
            ({"log_probs": ramp(4)}, ("(T, N, C)", "(4,)")),
            ({"log_probs": ramp(4, 3, 6, 1)}, ("(T, N, C)", "(4, 3, 6, 1)")),
            ({"targets": np.ones(5, np.int64)}, ("sum of target_lengths, 4", "(5,)")),
            ({"targets": np.ones((4, 2), np.int64)}, ("(3, S)", "(4, 2)")),
            ({"targets": np.array(1)}, ("(3, S)", "()")),
            ({"input_lengths": (4, 5, 4)}, ("[0, 4]", "got 5")),
            ({"input_lengths": (4, -1, 4)}, ("[0, 4]", "got -1")),
            ({"input_lengths": (4, 4)}, ("3 entries", "(4, 3, 6)", "got 2")),
            ({"input_lengths": np.full((3, 1), 4)}, ("one axis",)),
            ({"input_lengths": (4, 4, 2**64)}, ("64 bits", str(2**64))),
            ({"target_lengths": (1, 2, 2)}, ("sum",)),
            ({"target_lengths": (1, 2, -1)}, ("[0, 4]", "got -1")),
            ({"target_lengths": (1, 2, 1, 0)}, ("3 entries", "got 4")),
        )
    ],
    ("cross_entropy", {"input": np.float64(1)}, ValueError, ("input", "()")),
    ("cross_entropy", {"input": np.zeros((4, 0, 6))}, ValueError, ("(4, 0, 6)",)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "change", "kind", "parts"),
    OPTIONS,
    ids=[f"{op}-{re.sub(r'[^a-zA-Z0-9_.-]+', '_', str(o))[:40]}" for op, o, *_ in OPTIONS],
)
def test_an_option_out_of_range_is_refused(
    device: Device, op: str, change: Call, kind: type[Exception], parts: tuple[str, ...]
) -> None:
    change = {k: np.asarray(v) if isinstance(v, np.generic) else v for k, v in change.items()}
    refused(op, {**TABLE[op], **change}, kind, *parts, device=device)


@pytest.mark.parametrize("op", TABLE)
def test_a_call_still_works_after_a_refused_one(device: Device, op: str) -> None:
    call = there(device, TABLE[op])
    want = getattr(tg, op)(**call)
    first = next(name for name, value in TABLE[op].items() if isinstance(value, np.ndarray))
    with pytest.raises(TypeError):
        getattr(tg, op)(**{**call, first: [1.0]})
    again = getattr(tg, op)(**call)
    pairs = zip(flat(want), flat(again), strict=True)
    assert all(np.array_equal(host(a), host(b)) for a, b in pairs)
