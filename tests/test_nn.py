# SPDX-License-Identifier: MIT
"""Module and Parameter: registration, state, modes, gradients, hooks, buffers that never move."""

from __future__ import annotations

import gc
import re
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import assert_same_bits, error
from tilegrad import nn


class Two(nn.Module):
    """Registers in an order of its own, with a parameter beside its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(np.ones(2))
        self.last = nn.Linear(3, 2)
        self.first = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU())
        self.title = "no parameter"


def network(dtype: Any = np.float64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6, activation="tanh", dtype=dtype), nn.Linear(6, 3, dtype=dtype)
    )


def grads(model: nn.Module) -> list[Any]:
    return [None if p.grad is None else p.grad.copy() for p in model.parameters()]


# ---- registration and state -----------------------------------------------------------------


def test_names_come_in_order_of_registration() -> None:
    model = Two()
    assert [name for name, _ in model.named_parameters()] == [
        "scale", "last.weight", "last.bias", "first.0.weight",
    ]  # fmt: skip
    names = [name for name, _ in model.named_modules()]
    assert names == ["", "last", "first", "first.0", "first.1"]
    assert list(model.children()) == [model.last, model.first]
    assert list(model.parameters()) == [p for _, p in model.named_parameters()]


def test_assigning_and_deleting_attributes_registers_anew() -> None:
    model = Two()
    model.scale = None
    assert "scale" not in model.state_dict()
    model.extra = nn.Parameter(np.zeros(1))
    del model.last
    assert list(model.state_dict()) == ["extra", "first.0.weight"]
    with pytest.raises(AttributeError):
        _ = model.last
    model.first = nn.Linear(1, 1)
    assert list(model.state_dict()) == ["extra", "first.weight", "first.bias"]

    class Forgot(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match=r"Forgot: call super\(\)\.__init__\(\) first"):
        Forgot()


def test_a_shared_parameter_and_a_shared_module_are_listed_once() -> None:
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    model = nn.Sequential(a, b, a)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(model.modules())) == 3


def test_sequential_is_a_list_of_modules() -> None:
    layers = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    model = nn.Sequential(*layers)
    assert len(model) == 3
    assert list(model) == layers
    assert model[0] is layers[0]
    assert model[-1] is layers[2]
    with pytest.raises(IndexError):
        _ = model[3]
    with pytest.raises(TypeError, match=r"^Sequential: takes Modules; argument 1 "):
        nn.Sequential(layers[0], np.tanh)


def test_state_round_trip_copies_into_the_same_memory() -> None:
    tg.manual_seed(1)
    a, b = network(), network()
    addresses = [p.data.ctypes.data for p in b.parameters()]
    b.load_state_dict(a.state_dict())
    assert [p.data.ctypes.data for p in b.parameters()] == addresses
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert_same_bits(p.data, q.data)
    a[0].weight.data = a[0].weight.data + 1
    assert not np.array_equal(a[0].weight.data, b[0].weight.data)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    model = network()
    good = {name: value + 1 for name, value in model.state_dict().items()}
    before = {name: value.copy() for name, value in model.state_dict().items()}
    missing = {name: value for name, value in good.items() if name != "1.bias"}
    cases: list[tuple[Any, type[Exception], str]] = [
        (missing, ValueError, r"missing \['1\.bias'\], unexpected \[\]"),
        ({**good, "2.bias": good["1.bias"]}, ValueError, r"unexpected \['2\.bias'\]"),
        ({**good, "1.bias": np.zeros(4)}, ValueError, r"1\.bias: shape must be \(3,\); got \(4,\)"),
        ({**good, "1.bias": np.zeros((1, 3))}, ValueError, r"1\.bias.*\(1, 3\)"),
        ({**good, "1.bias": np.zeros(3, "f4")}, TypeError, r"1\.bias: dtype.*float64.*float32"),
        ({}, ValueError, "missing"),
    ]
    for state, kind, text in cases:
        with pytest.raises(kind, match=f"^load_state_dict: .*{text}"):
            model.load_state_dict(state)
        for name, value in model.state_dict().items():
            assert_same_bits(value, before[name])
    model.load_state_dict({**missing, "9.bias": np.zeros(1)}, strict=False)
    assert_same_bits(model[0].weight.data, good["0.weight"])
    assert_same_bits(model[1].bias.data, before["1.bias"])


# ---- parameters -----------------------------------------------------------------------------


def test_parameter_copies_and_keeps_its_buffers() -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    p = nn.Parameter(values)
    values[0, 0] = 99
    assert p.data[0, 0] == 0
    assert p.data.flags.c_contiguous
    assert (p.shape, p.dtype, p.size) == ((2, 3), np.float64, 6)
    address = p.data.ctypes.data
    p.data = np.ones((3, 2)).T
    assert p.grad is None
    p.grad = np.full((2, 3), 5.0)
    gradient = p.grad.ctypes.data
    p.zero_grad()
    assert p.grad is None
    p.grad = np.zeros((2, 3))
    assert (p.data.ctypes.data, p.grad.ctypes.data) == (address, gradient)
    p.grad = None
    assert p.grad is None
    assert hash(p) != hash(nn.Parameter(p.data))


def test_parameter_refuses_what_does_not_fit() -> None:
    p = nn.Parameter(np.zeros(3, "f4"))
    for name in ("data", "grad"):
        owner = f"Parameter.{name}"
        with error(ValueError, owner, "shape must be (3,); got (4,)"):
            setattr(p, name, np.zeros(4, "f4"))
        with error(TypeError, owner, "dtype must be float32; got float64"):
            setattr(p, name, np.zeros(3))
        with error(ValueError, owner, "shape must be (3,); got ()"):
            setattr(p, name, np.float32(1))
    assert p.grad is None, "a gradient that was refused must not count as one"
    assert not p.data.any()
    for bad in ([1.0, 2.0], np.zeros(3, np.int64), np.zeros(3, np.float16), 1.0, None):
        with pytest.raises(TypeError, match=r"^Parameter: data must be a float32, float64 or bflo"):
            nn.Parameter(bad)


def test_buffers_keep_their_address_through_training() -> None:
    model, loss_fn = network(), nn.MSELoss()
    x, t = np.ones((5, 4)), np.zeros((5, 3))
    optimizer = tg.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(model(x), t)
        model.backward(loss_fn.backward())
        optimizer.step()

    step()
    addresses = [(p.data.ctypes.data, p.grad.ctypes.data) for p in model.parameters()]
    for _ in range(3):
        step()
        model.zero_grad()
        model.to("cpu")
        gc.collect()
        step()
    assert addresses == [(p.data.ctypes.data, p.grad.ctypes.data) for p in model.parameters()]


# ---- modes and gradients --------------------------------------------------------------------


def test_modes_reach_every_module_and_return_self() -> None:
    model = Two()
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    model.first.train()
    assert [m.training for m in model.modules()] == [False, False, True, True, True]
    assert model.train() is model
    assert all(m.training for m in model.modules())
    assert model.requires_grad_(False) is model
    assert not any(p.requires_grad for p in model.parameters())
    assert model.to("cpu") is model


def test_gradients_accumulate_until_zero_grad(rng: np.random.Generator) -> None:
    model, x, dy = network(), rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    assert grads(model) == [None] * 4
    model(x)
    model.backward(dy)
    once = grads(model)
    model(x)
    model.backward(dy)
    for g, first in zip(grads(model), once, strict=True):
        np.testing.assert_allclose(g, 2 * first, rtol=1e-14)
    model.zero_grad()
    assert grads(model) == [None] * 4
    model(x)
    model.backward(dy)
    for g, first in zip(grads(model), once, strict=True):
        assert_same_bits(g, first)
    model[0].weight.zero_grad()  # one starts anew, the others go on
    model(x)
    model.backward(dy)
    for i, (g, first) in enumerate(zip(grads(model), once, strict=True)):
        np.testing.assert_allclose(g, first if i == 0 else 2 * first, rtol=1e-14)


MODULES = [
    nn.Linear(4, 4), nn.Linear(4, 4, activation="gelu"), nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(),
    nn.Softmax(1), nn.LogSoftmax(0), nn.Dropout(0.5), nn.Dropout(0.0), nn.Flatten(), nn.Identity(),
    nn.Sequential(nn.Linear(4, 4), nn.ELU()),
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda m: re.sub(r"\s+", "", repr(m)))
def test_backward_needs_a_training_forward_of_its_own(module: nn.Module) -> None:
    x = np.ones((3, 4), "f4")
    with pytest.raises(RuntimeError, match=r"backward: there is no training-mode forward"):
        module.backward(x)
    module(x)
    assert module.backward(x).shape == (3, 4)
    with pytest.raises(RuntimeError, match=r"second backward"):
        module.backward(x)
    module(x)
    module.eval()
    module(x)
    try:
        with pytest.raises(RuntimeError, match=r"eval mode"):
            module.backward(x)
    finally:
        module.train()
    module(x)
    assert module.backward(x, input_grad=False) is None
    module.zero_grad()


def test_a_module_used_twice_in_one_forward_is_refused() -> None:
    layer, x = nn.Linear(3, 3), np.ones((2, 3), "f4")
    model = nn.Sequential(layer, nn.ReLU(), layer)
    with pytest.raises(RuntimeError, match=r"^Linear: used twice in one forward pass"):
        model(x)
    assert model.eval()(x).shape == (2, 3)
    model.train()
    for _ in range(2):  # two passes are no problem
        layer(x)
        layer.backward(x)


def test_input_grad_is_left_out_where_not_asked(rng: np.random.Generator) -> None:
    model, x, dy = network(), rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    model(x)
    dx = model.backward(dy)
    with_dx = grads(model)
    assert dx.shape == x.shape
    model.zero_grad()
    model(x)
    assert model.backward(dy, input_grad=False) is None
    for g, first in zip(grads(model), with_dx, strict=True):
        assert_same_bits(g, first)


@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_a_frozen_parameter_has_no_gradient_and_others_keep_theirs(
    frozen: int, rng: np.random.Generator
) -> None:
    model, x, dy = network(), rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    model(x)
    dx, want = model.backward(dy), None
    want = grads(model)
    model.zero_grad()
    list(model.parameters())[frozen].requires_grad = False
    model(x)
    assert_same_bits(model.backward(dy), dx)
    for i, g in enumerate(grads(model)):
        if i == frozen:
            assert g is None
        else:
            assert_same_bits(g, want[i])
    model.requires_grad_(False)
    model.zero_grad()
    model(x)
    assert_same_bits(model.backward(dy), dx)
    assert grads(model) == [None] * 4


def test_hooks_fire_once_for_each_gradient_last_layer_first(rng: np.random.Generator) -> None:
    model, x, dy = network(), rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    names = {id(p): name for name, p in model.named_parameters()}
    seen: list[str] = []

    def hook(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        seen.append(names[id(parameter)])
        complete.append(parameter.grad.copy())

    complete: list[Any] = []
    remove = model.register_grad_ready_hook(hook)
    model[1].bias.requires_grad = False
    model(x)
    model.backward(dy)
    assert seen[0] == "1.weight"
    assert sorted(seen[1:]) == ["0.bias", "0.weight"]
    final = dict(model.named_parameters())
    for name, g in zip(seen, complete, strict=True):
        assert_same_bits(g, final[name].grad)
    remove()
    model(x)
    model.backward(dy)
    assert len(seen) == 3


def test_predict_runs_in_eval_mode_in_batches_and_restores_the_modes() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Tanh())
    model[0].eval()
    x = np.random.default_rng(0).standard_normal((10, 4)).astype("f4")
    want = model.predict(x)
    assert_same_bits(want, tg.tanh(tg.linear(x, model[0].weight.data, model[0].bias.data)))
    for batch_size in (1, 3, 10, 11):
        np.testing.assert_allclose(model.predict(x, batch_size), want, rtol=1e-6)
    assert model.predict(x[:0], 3).shape == (0, 3)
    assert [m.training for m in model.modules()] == [True, False, True, True]
    with pytest.raises(ValueError, match="predict: batch_size must be at least 1; got 0"):
        model.predict(x, 0)
    with pytest.raises(ValueError, match="linear"):
        model.predict(x[:, :3])
    assert [m.training for m in model.modules()] == [True, False, True, True]


def test_a_module_without_forward_or_backward_says_so() -> None:
    with pytest.raises(TypeError, match="Two: the class does not define forward"):
        Two()(np.ones(3))
    with pytest.raises(TypeError, match="Two: the class does not define backward"):
        Two().backward(np.ones(3))


def test_an_unknown_device_is_refused() -> None:
    model = network()
    with pytest.raises(ValueError, match="device: must be cpu, sim, cuda or cuda:N; got 'tpu'"):
        model.to("tpu")


def test_repr_shows_the_tree() -> None:
    model = nn.Sequential(nn.Linear(2, 3, activation="relu"), nn.Sequential(nn.Dropout(0.25)))
    assert repr(model) == (
        "Sequential(\n  (0): Linear(2, 3, activation='relu')\n"
        "  (1): Sequential(\n    (0): Dropout(p=0.25)\n  )\n)"
    )
    assert repr(nn.Linear(2, 3, bias=False)) == "Linear(2, 3, bias=False)"
    assert repr(nn.LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(nn.Flatten()) == "Flatten(start_dim=1, end_dim=-1)"
    assert repr(nn.Softmax(-1)) == "Softmax(dim=-1)"
    assert repr(nn.Parameter(np.zeros((2, 3)))) == "Parameter(shape=(2, 3), dtype=float64)"
