# SPDX-License-Identifier: MIT
"""bfloat16 parameters: float32 gradients, float32 masters in the optimiser's state, files."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tilegrad as tg
from bfloat16_numpy import BF16, nearest, same_bits
from helpers import Device, assert_same_bits, error, host
from optim_cases import OWN_CASES
from tilegrad import _random, backends, nn
from tilegrad import reference as ref

# Below, at and above a vector of every instruction set, a chunk of the GPU's kernel and a prime.
SIZES = (0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 1031)
LONG = (4095, 4097, 16385)


class Twins:
    """bfloat16 parameters and float32 ones of the same values, fed the same gradients."""

    def __init__(self, device: Device, shapes: Sequence[Any], name: str, **options: Any) -> None:
        self.rng, self.device = np.random.default_rng(5), device
        values = [nearest(self.rng.standard_normal(shape).astype("f4")) for shape in shapes]
        self.halves = [nn.Parameter(device.put(v)) for v in values]
        self.wide = [nn.Parameter(device.put(v.astype("f4"))) for v in values]
        self.optimiser = getattr(tg.optim, name)(self.halves, **options)
        self.other = getattr(tg.optim, name)(self.wide, **options)

    def step(self, max_norm: float | None = None) -> None:
        for p, q in zip(self.halves, self.wide, strict=True):
            g = self.rng.standard_normal(p.shape) * 10.0 ** self.rng.integers(-3, 2)
            p.grad = q.grad = g.astype("f4")
        if max_norm is not None:
            norms = [nn.utils.clip_grad_norm_(ps, max_norm) for ps in (self.halves, self.wide)]
            assert_same_bits(norms[0], host(norms[1])[()])
        self.optimiser.step()
        self.other.step()

    def masters(self) -> list[Any]:
        return [self.optimiser.state[p]["master"] for p in self.halves]

    def check(self, what: object = "") -> None:
        for p, q, master in zip(self.halves, self.wide, self.masters(), strict=True):
            assert_same_bits(master, q.data, what=f"master {p.shape} {what}")
            assert same_bits(p.data, nearest(host(master))), f"{p} is not its master rounded {what}"


# ---- the update ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), OWN_CASES)
def test_the_master_is_what_a_float32_parameter_would_be(
    name: str, options: dict[str, Any], device: Device, isa: str
) -> None:
    shapes = [*SIZES, (), (3, 5), *(LONG if device.name == "cpu" else ())]
    twins = Twins(device, shapes, name, **options)
    for step in range(12 if device.name == "cpu" else 4):
        twins.step(max_norm=2.0 if step % 3 == 2 else None)
        twins.check(f"after step {step}")


def test_an_update_is_exact_arithmetic_rounded_once_ties_to_even(device: Device) -> None:
    """Beside 1 the spacing of bfloat16 is 2^-7: half of it is a tie, and goes to the even one."""
    spacing = 2.0**-7
    moves = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8]) * spacing / 4  # away from one, in quarters
    after = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]) * spacing
    p = nn.Parameter(device.put(np.ones(9, BF16)))
    optimiser = tg.optim.SGD([p], lr=0.5)
    p.grad = np.float32(-2) * moves.astype("f4")
    optimiser.step()
    np.testing.assert_array_equal(host(p.data).astype("f8"), 1 + after)
    np.testing.assert_array_equal(host(optimiser.state[p]["master"]), (1 + moves).astype("f4"))
    optimiser.step()  # from the masters: the rounding of the first step is not part of it
    np.testing.assert_array_equal(host(optimiser.state[p]["master"]), (1 + 2 * moves).astype("f4"))


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_updates_far_below_the_spacing_of_bfloat16_add_up(name: str, device: Device) -> None:
    """Without a master each would be rounded away, and no weight would ever move."""
    lr, steps = 2.0**-12, 64
    w = np.full(20, 1.0, "f4")
    p = nn.Parameter(device.put(w.astype(BF16)))
    optimiser = getattr(tg.optim, name)([p], lr=lr)
    alone = w.astype(BF16)
    m = v = np.zeros(20)
    for step in range(1, steps + 1):
        p.grad = np.ones(20, "f4")
        optimiser.step()
        if name == "SGD":
            alone = (alone.astype("f4") - np.float32(lr)).astype(BF16)
        else:
            after, m, v, _ = ref.adam(alone.astype("f8"), np.ones(20), m, v, step, lr=lr)
            alone = after.astype("f4").astype(BF16)
    assert (alone == 1).all(), "the simulation without a master shows what it is for"
    want = 1 - steps * lr  # Adam's steps are lr too, for gradients that never change
    np.testing.assert_allclose(host(optimiser.state[p]["master"]), want, rtol=1e-6)
    np.testing.assert_array_equal(host(p.data).astype("f4"), nearest(np.full(20, want, "f4")))
    assert want <= 1 - 2.0**-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_spoils_its_own_weight_only(
    bad: float, device: Device, isa: str
) -> None:
    p = nn.Parameter(device.put(np.ones(70, BF16)))
    optimiser = tg.optim.SGD([p], lr=0.5)
    for _ in range(2):
        g = np.ones(70, "f4")
        g[33] = bad
        p.grad = g
        optimiser.step()
    want = np.zeros(70, "f4")
    want[33] = -bad
    np.testing.assert_array_equal(host(p.data).astype("f4"), want)
    np.testing.assert_array_equal(host(optimiser.state[p]["master"]), want)


def update(device: Device, w: Any, r: Any, g: Any) -> None:
    module = backends.of(w)
    state = module.StepState()
    state.learning_rate = 0.1
    module.sgd_step([w], [g], None, 0, 0, False, 0, 0, False, state, [r])


@pytest.mark.parametrize("offset", [1, 3, 4])
def test_bits_do_not_depend_on_alignment_and_nothing_else_is_written(
    offset: int, device: Device, isa: str
) -> None:
    rng = np.random.default_rng(1)
    for size in SIZES:
        master, g = rng.standard_normal((2, size)).astype("f4")
        half = nearest(master)
        half[1::3] = 7  # was changed since
        want = np.where(nearest(master) == half, master, half.astype("f4"))
        update(
            device, aligned_w := device.put(want.copy()), device.put(nearest(want)), device.put(g)
        )
        for shift in ((offset, 0), (0, offset), (offset, offset)):
            with (
                device.guarded_out((size,), "f4", shift[0]) as w,
                device.guarded_out((size,), BF16, shift[1]) as r,
            ):
                device.copy(w, master)
                device.copy(r, half)
                update(device, w, r, device.put(g))
                assert same_bits(w, aligned_w)
                assert same_bits(r, nearest(host(aligned_w)))


def test_update_bits_do_not_depend_on_the_number_of_threads() -> None:
    results = []
    for threads in (1, 2, 3):
        tg.set_num_threads(threads)
        twins = Twins(Device("cpu"), [100_003, 5], "AdamW", lr=0.1)
        for _ in range(3):
            twins.step()
        results.append([*twins.masters(), *(p.data for p in twins.halves)])
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_native_call_refuses_what_is_no_bfloat16_parameter(device: Device) -> None:
    w, r = device.put(np.ones(3, "f4")), device.put(np.ones(3, BF16))
    with error(TypeError, "sgd_step", "dtype bfloat16", "float32"):
        update(device, w, device.put(np.ones(3, "f4")), w)
    with error(ValueError, "sgd_step", "shape", "(3,)", "(4,)"):
        update(device, w, device.put(np.ones(4, BF16)), w)
    wide = device.put(np.ones(3))
    with error(TypeError, "sgd_step", "gradients of bfloat16 parameters", "float32", "float64"):
        update(device, wide, r, wide)


# ---- values written from outside ----------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), OWN_CASES)
def test_values_that_are_written_replace_those_of_the_master(
    name: str, options: dict[str, Any], device: Device
) -> None:
    twins = Twins(device, [(40,), (3, 5)], name, **options)
    p, q = twins.halves[0], twins.wide[0]
    twins.step()
    whole = twins.rng.standard_normal(40).astype("f4").astype(BF16)
    p.data, q.data = whole, whole.astype("f4")
    twins.step()
    twins.check("after .data = ...")
    some = np.array([1.5, -0.0, 3e38, 1e-39], "f4").astype(BF16)
    device.copy(p.data[7:11], some)
    device.copy(q.data[7:11], some.astype("f4"))
    twins.step()
    twins.check("after .data[7:11] = ...")


def test_what_is_written_as_it_was_leaves_the_master_alone(device: Device) -> None:
    """The master's low bits are lost only where the value has changed."""
    twins = Twins(device, [(40,)], "SGD", lr=0.1)
    twins.step()
    assert not same_bits(nearest(host(twins.masters()[0])).astype("f4"), twins.masters()[0])
    twins.halves[0].data = twins.halves[0].data.copy()
    twins.step()
    twins.check()


def test_loading_weights_replaces_those_of_the_master(device: Device) -> None:
    layer = nn.Linear(5, 4, dtype="bfloat16")
    saved = {name: value.copy() for name, value in layer.state_dict().items()}
    layer.to(device.name)
    optimiser = tg.optim.Adam(layer.parameters(), lr=0.5)
    for p in layer.parameters():
        p.grad = np.ones(p.shape, "f4")
    optimiser.step()
    layer.load_state_dict(saved)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    optimiser.step()
    for name, p in layer.named_parameters():
        assert same_bits(p.data, saved[name])
        assert same_bits(optimiser.state[p]["master"], saved[name].astype("f4"))


# ---- parameters ---------------------------------------------------------------------------------


def test_gradients_of_bfloat16_values_are_float32(device: Device) -> None:
    p = nn.Parameter(device.put(np.ones((2, 3), BF16)))
    assert p.dtype == BF16
    assert p.grad is None
    assert p.grad_buffer().dtype == np.float32
    assert p.grad_buffer().shape == (2, 3)
    p.grad = np.ones((2, 3), "f4")
    assert_same_bits(p.grad, np.ones((2, 3), "f4"))
    for name, wanted, got in (("data", "bfloat16", "float32"), ("grad", "float32", "bfloat16")):
        with error(TypeError, f"Parameter.{name}", f"dtype must be {wanted}; got {got}"):
            setattr(p, name, np.ones((2, 3), got if got == "float32" else BF16))
    assert repr(p) == "Parameter(shape=(2, 3), dtype=bfloat16)"


@pytest.mark.not_on_cpu("an ndarray of bfloat16 is ml_dtypes' own")
def test_parameters_on_a_device_need_no_ml_dtypes(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tg.full(6, 1.0, "bfloat16", device=device.name)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    p = nn.Parameter(start)
    optimiser = tg.optim.AdamW([p], lr=0.25)
    p.grad = np.ones(6, "f4")
    optimiser.step()
    assert "bfloat16" in repr(p)
    p.data = start
    assert optimiser.state[p]["master"].numpy()[0] == pytest.approx(0.7475)
    with error(ImportError, "bfloat16", "ml_dtypes", "tilegrad[bf16]"):
        _ = p.dtype


@pytest.mark.parametrize("dtype", ["bfloat16", ml_dtypes.bfloat16, BF16], ids=str)
def test_initial_values_are_those_of_float32_rounded(dtype: Any) -> None:
    tg.manual_seed(4)
    wide, after = nn.Linear(7, 5), nn.Linear(3, 2)
    tg.manual_seed(4)
    half = nn.Linear(7, 5, dtype=dtype)
    for p, q in zip(half.parameters(), wide.parameters(), strict=True):
        assert same_bits(p.data, nearest(q.data))
    assert_same_bits(nn.Linear(3, 2).weight.data, after.weight.data)  # the stream went as far


def test_without_ml_dtypes_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _random.get_state()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with error(ImportError, "bfloat16", "ml_dtypes", "tilegrad[bf16]"):
        nn.Linear(2, 2, dtype="bfloat16")
    assert _random.get_state() == before


# ---- state --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), OWN_CASES)
@pytest.mark.parametrize("done", [0, 1, 5])
def test_loaded_state_continues_bit_for_bit(
    name: str, options: dict[str, Any], done: int, device: Device
) -> None:
    one, other = (Twins(device, [(5,), (4, 3), ()], name, **options) for _ in range(2))
    for _ in range(done):
        one.step()
    saved = copy.deepcopy(one.optimiser.state_dict())
    for values in saved["state"].values():
        assert next(key for key in values if key != "step") == "master"
        assert all(values[key].dtype == np.float32 for key in values if key != "step")
    for p, q in zip(other.halves, one.halves, strict=True):
        p.data = q.data
    other.optimiser.load_state_dict(saved)
    other.rng = copy.deepcopy(one.rng)
    for twins in (one, other, one, other):
        twins.step()
    one.check()
    for a, b in zip(one.halves, other.halves, strict=True):
        assert same_bits(a.data, b.data)
        states = (one.optimiser.state[a], other.optimiser.state[b])
        assert states[0].keys() == states[1].keys()
        assert all(same_bits(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: s.pop("master"), "buffers must be .*'master', 'exp_avg'"),
        (
            lambda s: s.update(master=s["master"].astype(BF16)),
            "master must be .*float32; got .*bfl",
        ),
        (lambda s: s.update(master=s["master"][:2]), r"master must be \(3,\)"),
        (lambda s: s.update(exp_avg=s["exp_avg"].astype(BF16)), "exp_avg must be .*float32"),
        (lambda s: [s.pop("exp_avg"), s.pop("exp_avg_sq")], "buffers must be"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change: Any, text: str) -> None:
    twins = Twins(Device("cpu"), [3], "Adam")
    twins.step()
    bad = copy.deepcopy(twins.optimiser.state_dict())
    change(bad["state"][0])
    with pytest.raises(ValueError, match=f"Adam.load_state_dict: parameter 0: {text}"):
        twins.optimiser.load_state_dict(bad)
    with pytest.raises(ValueError, match="buffers must be"):
        twins.other.load_state_dict(twins.optimiser.state_dict())  # float32 has no master
    twins.step()
    twins.check()


def test_masters_follow_to_a_device_and_back(device: Device) -> None:
    twins = Twins(Device("cpu"), [(40,), (3, 5)], "SGD", lr=0.1, momentum=0.9)
    for place in (device.name, "cpu", device.name):
        before = [host(p.data) for p in twins.halves]
        for p in (*twins.halves, *twins.wide):
            p.to(place)
        assert all(same_bits(a, p.data) for a, p in zip(before, twins.halves, strict=True))
        twins.step()
        twins.check(f"on {place}")
        assert all(backends.place_of_array(m) == backends.place_of(place) for m in twins.masters())


def test_one_group_may_mix_bfloat16_and_float32(device: Device) -> None:
    """One native call, one norm for all gradients."""
    twins = Twins(device, [(17,), (6,)], "Adam", lr=0.1)
    mixed = [twins.halves[0], nn.Parameter(twins.wide[1].data)]
    optimiser = tg.optim.Adam(mixed, lr=0.1)
    assert len(twins.optimiser._batches({id(p) for p in twins.halves})) == 1
    for _ in range(3):
        for p, q in zip(mixed, twins.wide, strict=True):
            p.grad = q.grad = twins.rng.standard_normal(p.shape).astype("f4")
        norms = [nn.utils.clip_grad_norm_(ps, 0.5) for ps in (mixed, twins.wide)]
        assert_same_bits(norms[0], host(norms[1])[()])
        assert len(optimiser._batches()) == 1
        optimiser.step()
        twins.other.step()
    assert_same_bits(optimiser.state[mixed[0]]["master"], twins.wide[0].data)
    assert_same_bits(mixed[1].data, twins.wide[1].data)
    assert "master" not in optimiser.state[mixed[1]]
