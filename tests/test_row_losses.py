# SPDX-License-Identifier: MIT
"""Losses with one value a row: beside torch and the reference, in every reduction and layout."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, frozen, tolerance
from row_loss_cases import (
    CASES,
    DEFAULT_WRT,
    OPERANDS,
    REDUCTIONS,
    Case,
    draw_case,
    torch_answer,
)
from row_loss_scales import scales
from tilegrad import reference as ref

DTYPES = ("float32", "float64")
every_op = pytest.mark.parametrize("op", OPERANDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# For tests that are not about shapes: whole vectors and parts, several rows, a broadcast operand.
SOME = {
    "nll_loss": ["(7, 65)-weighted", "(40, 9, 33)-weighted"],
    "multi_margin_loss": ["(7, 65)-p1-0.3", "(130, 128)-p2-1.0"],
    "multilabel_margin_loss": ["(7, 65)-3", "(130, 128)-3"],
    "multilabel_soft_margin_loss": ["(3, 4)-(4,)-target", "(130, 128)-(130, 128)", "(7, 65)-(65,)"],
    "triplet_margin_loss": [
        "((2, 1, 5), (1, 3, 5), (2, 3, 5))-swap",
        "(130, 128)-p2.0",
        "(130, 128)-pinf",
        "(5, 33)-p3.0",
    ],
    "cosine_embedding_loss": ["(1, 4)(3, 4)(3,)", "(130, 128)-0.4"],
}


def cases_of(op: str, device: Device, within: float = 6700) -> list[Case]:
    return device.cases([c for c in CASES if c.op == op], lambda c: c.size, within)


def some_of(op: str) -> list[Case]:
    found = [case for case in CASES if case.op == op and case.label in SOME[op]]
    assert len(found) == len(SOME[op])
    return found


def there(device: Device, x: Any) -> Any:
    return device.put(x) if isinstance(x, np.ndarray) else x


def flat(gradients: Any) -> tuple[Any, ...]:
    return gradients if isinstance(gradients, tuple) else (gradients,)


def layouts_of(device: Device, x: Array) -> dict[str, Any]:
    if x.dtype.kind == "f" or device.name != "cpu":
        return device.layouts(x)
    gapped = np.full([2 * n for n in x.shape], 99, x.dtype)[(slice(1, None, 2),) * x.ndim]
    gapped[...] = x
    flip = (slice(None, None, -1),) * x.ndim
    return {"offset 1": x, "gapped": gapped, "negative strides": x[flip].copy()[flip]}


def upstream(shape: tuple[int, ...], dtype: str) -> Any:
    rng = np.random.default_rng(3)
    return frozen(rng.standard_normal(shape).astype(dtype)) if shape else 0.75


# ---- values and gradients -----------------------------------------------------------------------


def check(op: str, operands: Any, device: Device, dtype: str, what: str, **options: Any) -> None:
    """Compare the three functions with torch and the reference, and with each other."""
    value, backward = getattr(tg, op), getattr(tg, f"{op}_backward")
    names = OPERANDS[op]
    on_device = [there(device, x) for x in operands]
    chosen = {name: there(device, x) for name, x in options.items()}
    loss = value(*on_device, **chosen)
    g = upstream(loss.shape, dtype)
    gradients = flat(backward(there(device, g), *on_device, wrt=names, **chosen))
    want, slopes = torch_answer(op, operands, names, np.asarray(g, np.float64), **options)
    row_scale, slope_scales = scales(op, operands, g, **options)
    size = 1 if op == "nll_loss" else max(np.shape(operands[0])[-1:], default=1)
    if dtype == "float64" and not loss.shape:  # torch adds the rows up in float64 too
        size += np.size(operands[0]) // max(size, 1)
    eps = tolerance(dtype, size + 8)  # 8 for an exp, a log1p and the divisions
    assert device.get(loss).dtype == dtype
    assert_close(loss, want, eps * row_scale, what=f"{what} loss")
    assert_close(loss, getattr(ref, op)(*operands, **options), eps * row_scale, what=what)
    theirs = flat(getattr(ref, f"{op}_backward")(g, *operands, wrt=names, **options))
    for name, got, expected, other in zip(names, gradients, slopes, theirs, strict=True):
        assert device.get(got).dtype == dtype
        repeated = np.size(want) // max(np.size(expected), 1) + 1
        bound = eps * max(repeated, 1) * slope_scales[name]
        assert_close(got, expected, bound, what=f"{what} d{name}")
        assert_close(got, other, bound, what=f"{what} d{name} of the reference")
    one = there(device, np.ones(loss.shape, dtype)) if loss.shape else 1.0
    ones = flat(backward(one, *on_device, wrt=names, **chosen))
    both, together = getattr(tg, f"{op}_value_and_grad")(*on_device, wrt=names, **chosen)
    assert_same_bits(both, loss, what=what)
    for got, alone in zip(flat(together), ones, strict=True):
        assert_same_bits(got, alone, what=what)


@every_op
@every_dtype
def test_row_losses_follow_torch(op: str, dtype: str, device: Device, isa: str) -> None:
    for case in cases_of(op, device):
        for reduction in REDUCTIONS:
            operands, options = case.operands(dtype), case.all_options(dtype)
            what = f"{case} {reduction}"
            check(op, operands, device, dtype, what, reduction=reduction, **options)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_problem_follows_torch(data: st.DataObject) -> None:
    case = data.draw(draw_case())
    dtype, reduction = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(REDUCTIONS))
    options = {**case.all_options(dtype), "reduction": reduction}
    check(case.op, case.operands(dtype), Device("cpu"), dtype, str(case), **options)


@every_op
def test_wrt_chooses_gradients_and_out_receives_them(op: str, device: Device) -> None:
    backward, both = getattr(tg, f"{op}_backward"), getattr(tg, f"{op}_value_and_grad")
    names = OPERANDS[op]
    for case in some_of(op):
        operands = [there(device, x) for x in case.operands("float32")]
        options = {k: there(device, v) for k, v in case.all_options("float32").items()}
        all_of = dict(zip(names, flat(backward(0.5, *operands, wrt=names, **options)), strict=True))
        default = backward(0.5, *operands, **options)
        assert isinstance(default, tuple) == (len(DEFAULT_WRT[op]) > 1)
        for name, got in zip(DEFAULT_WRT[op], flat(default), strict=True):
            assert_same_bits(got, all_of[name])
        for count in range(1, len(names) + 1):
            for wrt in itertools.permutations(names, count):
                got = backward(0.5, *operands, wrt=wrt, **options)
                assert isinstance(got, tuple)
                in_order = [name for name in names if name in wrt]
                outs = []
                for name, gradient in zip(in_order, got, strict=True):
                    assert_same_bits(gradient, all_of[name], what=f"{case} {wrt}")
                    outs.append(device.put(np.full(gradient.shape, np.nan, "f4")))
                again = backward(0.5, *operands, wrt=wrt, out=tuple(outs), **options)
                for one, out, name in zip(again, outs, in_order, strict=True):
                    assert one is out
                    assert_same_bits(out, all_of[name])
        for name in names:
            assert_same_bits(backward(0.5, *operands, wrt=name, **options), all_of[name])
            alone = both(*operands, wrt=name, **options)[1]
            assert_same_bits(alone, backward(1.0, *operands, wrt=name, **options))
        with pytest.raises(ValueError, match=rf"{op}_backward: wrt may name .*; got"):
            backward(1.0, *operands, wrt="margin", **options)


# ---- layouts, threads, alignment, outputs -------------------------------------------------------


@every_op
@every_dtype
def test_any_layout_gives_the_same_bits(op: str, dtype: str, device: Device, isa: str) -> None:
    names = OPERANDS[op]
    for case in some_of(op)[:2]:
        operands, options = case.operands(dtype), case.all_options(dtype)
        value, backward = getattr(device.ops, op), getattr(device.ops, f"{op}_backward")
        loss = value(*operands, reduction="none", **options)
        g = upstream(loss.shape, dtype)
        want = backward(g, *operands, wrt=names, reduction="none", **options)
        arrays = [layouts_of(device, x) for x in operands]
        weights = device.layouts(options["weight"]) if "weight" in options else {}
        upstreams = device.layouts(g)
        for layout in arrays[0]:
            moved = [forms.get(layout, forms["offset 1"]) for forms in arrays]
            more = {k: v for k, v in options.items() if k != "weight"}
            if weights:
                more["weight"] = weights.get(layout, weights["offset 2"])
            got = getattr(tg, op)(*moved, reduction="none", **more)
            assert_same_bits(got, loss, what=f"{case} {layout}")
            dy = upstreams.get(layout, upstreams["offset 3"])
            got = getattr(tg, f"{op}_backward")(dy, *moved, wrt=names, reduction="none", **more)
            for one, other in zip(flat(got), flat(want), strict=True):
                assert_same_bits(one, other, what=f"{case} {layout}")


@every_op
@every_dtype
@pytest.mark.cpu_only("its threads; alignment is in test_any_layout_gives_the_same_bits")
def test_bits_do_not_depend_on_threads(op: str, dtype: str, device: Device, isa: str) -> None:
    both = getattr(tg, f"{op}_value_and_grad")
    for case in [c for c in CASES if c.op == op and c.size >= 2000]:
        operands, options = case.operands(dtype), case.all_options(dtype)
        for reduction in ("mean", "none"):
            results = []
            for threads in (1, 2, 3, 4):
                tg.set_num_threads(threads)
                call = both(*operands, wrt=OPERANDS[op], reduction=reduction, **options)
                results.append([call[0], *flat(call[1])])
            for other in results[1:]:
                for got, want in zip(other, results[0], strict=True):
                    assert_same_bits(got, want, what=f"{case} {reduction}")


@every_op
@every_dtype
def test_out_receives_the_loss_and_nothing_beside_it_changes(
    op: str, dtype: str, device: Device
) -> None:
    value = getattr(tg, op)
    for case in some_of(op):
        if device.name == "sim" and case.size > 3000:
            continue
        operands = [device.put(frozen(x)) for x in case.operands(dtype)]
        options = {k: there(device, v) for k, v in case.all_options(dtype).items()}
        before = [device.get(x).tobytes() for x in operands]
        for reduction in REDUCTIONS:
            want = value(*operands, reduction=reduction, **options)
            with device.guarded_out(want.shape, dtype, 1) as out:
                assert value(*operands, reduction=reduction, out=out, **options) is out
                assert_same_bits(out, np.asarray(device.get(want)))
        assert [device.get(x).tobytes() for x in operands] == before


@every_op
@every_dtype
def test_gradients_are_written_within_their_array(op: str, dtype: str, device: Device) -> None:
    backward, names = getattr(tg, f"{op}_backward"), OPERANDS[op]
    for case in some_of(op):
        if device.name == "sim" and case.size > 3000:
            continue
        operands = [there(device, x) for x in case.operands(dtype)]
        options = {k: there(device, v) for k, v in case.all_options(dtype).items()}
        for name, x in zip(names, operands, strict=False):
            want = backward(1.0, *operands, wrt=name, **options)
            with device.guarded_out(x.shape, dtype, 3) as out:
                assert backward(1.0, *operands, wrt=name, out=out, **options) is out
                assert_same_bits(out, want, what=str(case))


@every_op
def test_a_scalar_grad_output_may_have_any_form(op: str, device: Device) -> None:
    backward = getattr(tg, f"{op}_backward")
    case = some_of(op)[0]
    operands = [there(device, x) for x in case.operands("float32")]
    options = {k: there(device, v) for k, v in case.all_options("float32").items()}
    want: Array = device.get(flat(backward(1.5, *operands, **options))[0])
    forms = [device.put(np.full((), 1.5, "f4")), device.put(np.full((1,), 1.5, "f4"))]
    if device.name == "cpu":
        forms.append(np.float32(1.5))
    for form in forms:
        assert_same_bits(flat(backward(form, *operands, **options))[0], want)
    with pytest.raises(ValueError, match=f"{op}_backward: grad_output must be a scalar"):
        backward(device.put(np.ones(2, "f4")), *operands, **options)
    options["reduction"] = "none"
    wrong = device.put(np.ones((*getattr(tg, op)(*operands, **options).shape, 2), "f4"))
    with pytest.raises(ValueError, match=f"{op}_backward: grad_output must have shape"):
        backward(wrong, *operands, **options)
