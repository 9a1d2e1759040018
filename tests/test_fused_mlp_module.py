# SPDX-License-Identifier: MIT
"""nn.FusedMLP beside the Linear layers that it is made of, also after they have been changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from half_inputs import BFLOAT16, bits
from helpers import Array, Device, assert_close, assert_same_bits, host
from tilegrad import nn


def layers(dtype: Any = "f4") -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 24, activation="tanh", dtype=dtype),
        nn.Linear(24, 24, activation="tanh", dtype=dtype),
        nn.Linear(24, 4, dtype=dtype),
    )


def test_module_is_a_sequence_of_linear_layers(device: Device, rng: np.random.Generator) -> None:
    """The same initial values, names, results and gradients, bit for bit in wide floats."""
    tg.manual_seed(3)
    one = nn.FusedMLP(6, 24, 4, 3, "tanh").to(device.name)
    tg.manual_seed(3)
    other = layers().to(device.name)
    other.load_state_dict(one.state_dict())
    x, dy = (rng.standard_normal((2, 9, n)).astype("f4") for n in (6, 4))
    for step in range(2):  # the second adds to the gradients
        results = [model(device.put(x)) for model in (one, other)]
        assert_same_bits(*results)
        assert_same_bits(one.backward(device.put(dy)), other.backward(device.put(dy)))
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            assert_same_bits(p.grad, q.grad, what=f"{name} step {step}")
    assert_same_bits(one.predict(x), other.predict(x))
    with pytest.raises(RuntimeError, match="no training-mode forward"):
        one.backward(device.put(dy))


def test_a_frozen_parameter_keeps_its_gradient(device: Device) -> None:
    model = nn.FusedMLP(3, 5, 2, 2).to(device.name)
    x, dy = device.put(np.ones((4, 3), "f4")), device.put(np.ones((4, 2), "f4"))
    model(x)
    model.backward(dy)
    first = model[0].weight
    kept = host(first.grad).copy()
    first.requires_grad = False
    model(x)
    assert model.backward(dy, input_grad=False) is None
    assert_same_bits(first.grad, kept)
    before, after = kept, host(model[1].weight.grad)
    assert before.shape != after.shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_is_the_long_form(device: Device, dtype: str) -> None:
    rng = np.random.default_rng(4)
    x, target = rng.standard_normal((70, 6)).astype("f4"), rng.integers(0, 4, 70)
    losses = []
    for kind in ("plan", "long"):
        tg.manual_seed(1)
        model = nn.FusedMLP(6, 24, 4, 3, dtype=dtype).to(device.name)
        optimizer = tg.optim.Adam(model.parameters(), 0.01)
        loss_fn = nn.CrossEntropyLoss()
        batch = x if dtype == "float32" else x.astype(tg.full(1, 0, dtype).dtype)
        data = device.put(batch) if dtype == "float32" else BFLOAT16.put(device, batch)
        labels, found = device.put(target), []
        step = tg.TrainStep(model, loss_fn, optimizer)
        for _ in range(4):
            if kind == "plan":
                found.append(float(step(data, labels)))
                continue
            optimizer.zero_grad()
            found.append(float(loss_fn(model(data), labels)))
            model.backward(loss_fn.backward(), input_grad=False)
            optimizer.step()
        losses.append(found)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_sizes_of_the_module_are_checked() -> None:
    for arguments, kind, part in (
        ((3, 4, 5, 0), ValueError, "layers"),
        ((3, 4, 5, 17), ValueError, "at most 16"),
        ((3, 4.0, 5, 2), TypeError, "hidden_features"),
        ((0, 4, 5, 2), ValueError, "in_features"),
        ((3, 4, 5, 2, "rleu"), ValueError, "rleu"),
    ):
        with pytest.raises(kind, match=part):
            nn.FusedMLP(*arguments)


# ---- changes after construction ------------------------------------------------------------------


def replace(model: nn.FusedMLP, **modules: nn.Module) -> None:
    for name, module in modules.items():
        model[int(name.removeprefix("at"))] = module


def set_activation(model: nn.FusedMLP, names: list[str | None]) -> None:
    for i, name in enumerate(names):
        model[i].activation = name


def tie(model: nn.FusedMLP) -> None:
    model[1].weight = model[2].weight


def narrow(model: nn.FusedMLP) -> None:
    model[0].weight, model[0].in_features = nn.Parameter(np.ones((8, 3), "f4")), 3


def leak(model: nn.FusedMLP) -> None:
    model[1].activation, model[1].activation_args = "leaky_relu", {"negative_slope": 0.5}


def without_bias(model: nn.FusedMLP) -> None:
    model[1].bias = None


class Doubled(nn.Linear):
    def forward(self, input: Array) -> Array:
        return super().forward(super().forward(input))


CHANGES: dict[str, Callable[[nn.FusedMLP], None]] = {
    "one activation": lambda m: set_activation(m, ["gelu"]),
    "every activation": lambda m: set_activation(m, ["silu", "silu", "silu", None]),
    "the last activation": lambda m: set_activation(m, ["tanh", "tanh", "tanh", "sigmoid"]),
    "no activation": lambda m: set_activation(m, [None, None, None]),
    "an option": leak,
    "a layer of linear": lambda m: replace(m, at1=nn.Linear(8, 8, activation="mish")),
    "a wider layer": lambda m: replace(
        m, at1=nn.Linear(8, 20, activation="tanh"), at2=nn.Linear(20, 8, activation="tanh")),
    "a module of another kind": lambda m: replace(m, at1=nn.ELU()),
    "one layer more": lambda m: setattr(m, "4", nn.Linear(4, 2)),
    "a weight of another shape": narrow,
    "a shared weight": tie,
    "no bias": without_bias,
    "a subclass": lambda m: replace(m, at2=Doubled(8, 8)),
    "a frozen layer": lambda m: m[1].requires_grad_(False),
    "a frozen weight": lambda m: setattr(m[2].weight, "requires_grad", False),
    "nothing to train": lambda m: m.requires_grad_(False),
}  # fmt: skip


def passes(model: nn.Module, device: Device, x: Array, dy: Array) -> list[Any]:
    model.zero_grad()
    results = [model(device.put(x)), model.backward(device.put(dy))]
    return [*map(host, results), *(p.grad if p.grad is None else host(p.grad).copy()
                                   for p in model.parameters())]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_counts(device: Device, change: str, rng: np.random.Generator) -> None:
    """The layers say what is computed: to the bit what they give one after the other."""
    model = nn.FusedMLP(6, 8, 4, 4, "tanh")
    before = [name for name, _ in model.named_parameters()]
    CHANGES[change](model)
    model.to(device.name)
    plain = nn.Sequential(*model)
    out = model[len(model) - 1].weight.shape[0]
    x = rng.standard_normal((9, model[0].weight.shape[1])).astype("f4")
    dy = rng.standard_normal((9, out)).astype("f4")
    if change == "a subclass":  # it cannot go back through two uses
        model.eval()
        assert_same_bits(host(model(device.put(x))), host(plain(device.put(x))))
        return
    results = [passes(each, device, x, dy) for each in (model, plain)]
    for i, (mine, right) in enumerate(zip(*results, strict=True)):
        assert (mine is None) == (right is None), i
        if mine is not None:
            assert_same_bits(mine, right, what=str(i))
    assert_same_bits(model.predict(x), plain.predict(x))
    assert [*model] == [*plain]
    assert repr(model).split("(", 1)[1] == repr(plain).split("(", 1)[1]
    changed = {"a module of another kind", "one layer more", "a shared weight", "no bias"}
    assert ([name for name, _ in model.named_parameters()] == before) == (change not in changed)


def test_a_change_between_two_steps_counts(device: Device, rng: np.random.Generator) -> None:
    """A forward pass, a change, another one; and eval mode, whose pass is recorded on the cpu."""
    model = nn.FusedMLP(6, 8, 4, 3).to(device.name)
    x, dy = (rng.standard_normal((5, n)).astype("f4") for n in (6, 4))
    plain = nn.Sequential(*model)
    for name in ("relu", "gelu", "tanh"):
        set_activation(model, [name, name])
        for mine, right in zip(*(passes(m, device, x, dy) for m in (model, plain)), strict=True):
            assert_same_bits(mine, right, what=name)
        assert_same_bits(model.predict(x), plain.predict(x), what=name)
        model.eval()
        assert_same_bits(host(model(device.put(x))), host(plain(device.put(x))), what=name)
        with pytest.raises(RuntimeError, match="no training-mode forward"):
            model.backward(device.put(dy))
        model.train()


@pytest.mark.parametrize("name", ["gelu", "hardtanh", None])
@pytest.mark.on_cpu("name", lambda name: True)
def test_a_changed_activation_counts_in_bfloat16(device: Device, name: str | None) -> None:
    """Where one op runs the passes too: what a network made with that activation gives."""
    rng = np.random.default_rng(2)
    model, made = (nn.FusedMLP(6, 24, 4, 3, f, dtype="bfloat16") for f in ("relu", name))
    made.load_state_dict(model.state_dict())
    set_activation(model, [name, name])
    x, dy = (BFLOAT16.round(rng.standard_normal((70, n))) for n in (6, 4))
    results = []
    for each in (model.to(device.name), made.to(device.name)):
        y = each(BFLOAT16.put(device, x))
        dx = each.backward(BFLOAT16.put(device, dy))
        results.append([bits(y), bits(dx), *(host(p.grad) for p in each.parameters())])
    for mine, right in zip(*results, strict=True):
        assert_same_bits(mine, right)


def test_an_activation_of_the_module_is_refused() -> None:
    model = nn.FusedMLP(3, 4, 2, 2)
    for name in ("activation", "output_activation", "activation_args", "output_activation_args"):
        with pytest.raises(AttributeError, match=rf"{name} belongs to the layers"):
            setattr(model, name, None)
    model.note = "any other attribute is free"


def test_layers_that_do_not_fit_are_refused(device: Device) -> None:
    model = nn.FusedMLP(3, 4, 2, 3)
    model[1] = nn.Linear(4, 5)
    model.to(device.name)
    for mode in (True, False):
        with pytest.raises(ValueError, match="inner sizes differ"):
            model.train(mode)(device.put(np.ones((2, 3), "f4")))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_state_comes_back_on_another_device(device: Device, dtype: str) -> None:
    """The state of a network that was trained, in a new one and in a Sequential."""
    rng = np.random.default_rng(5)
    model = nn.FusedMLP(6, 24, 4, 3, "tanh", dtype=dtype).to(device.name)
    x, dy = (BFLOAT16.round(rng.standard_normal((10, n))) for n in (6, 4))

    def put(v: Array) -> Any:
        return BFLOAT16.put(device, v) if dtype == "bfloat16" else device.put(v.astype("f4"))

    model(put(x))
    model.backward(put(dy))
    tg.optim.SGD(model.parameters(), 0.5).step()
    others = [nn.FusedMLP(6, 24, 4, 3, "tanh", dtype=dtype), layers(dtype)]
    want = model.eval()(put(x))
    for other in others:
        other.to(device.name).load_state_dict(model.state_dict())
        assert list(other.state_dict()) == list(model.state_dict())
        got = other.eval()(put(x))
        if dtype == "float32" or isinstance(other, nn.FusedMLP):
            assert_same_bits(bits(got), bits(want))
        else:
            assert_close(BFLOAT16.get(got), BFLOAT16.get(want), 4 * BFLOAT16.eps, what="y")
    back = others[0].to("cpu")
    for p, q in zip(back.parameters(), model.to("cpu").parameters(), strict=True):
        assert_same_bits(bits(p.data), bits(q.data))


def test_frozen_layers_of_a_network_on_chip(device: Device) -> None:
    """What is trained gets the gradients that it gets where nothing is frozen."""
    rng = np.random.default_rng(6)
    x, dy = (BFLOAT16.round(rng.standard_normal((70, n))) for n in (6, 4))
    model = nn.FusedMLP(6, 24, 4, 3, dtype="bfloat16").to(device.name)
    found = []
    for frozen in ((), ("0.weight", "1.bias"), tuple(n for n, _ in model.named_parameters())):
        model.requires_grad_(True).zero_grad()
        for name, p in model.named_parameters():
            p.requires_grad = name not in frozen
        model(BFLOAT16.put(device, x))
        dx = model.backward(BFLOAT16.put(device, dy))
        found.append((bits(dx), {n: p.grad for n, p in model.named_parameters()}))
        for name, gradient in found[-1][1].items():
            assert (gradient is None) == (name in frozen), name
        found[-1] = (found[-1][0], {n: host(g).copy() for n, g in found[-1][1].items()
                                    if g is not None})  # fmt: skip
    for dx, gradients in found[1:]:
        assert_same_bits(dx, found[0][0])
        for name, gradient in gradients.items():
            assert_same_bits(gradient, found[0][1][name], what=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_train_step_of_a_changed_network(device: Device, dtype: str) -> None:
    """Recorded as the layers are when the step is first taken."""
    rng = np.random.default_rng(7)
    x, target = BFLOAT16.round(rng.standard_normal((30, 6))), rng.integers(0, 4, 30)
    batch = BFLOAT16.put(device, x) if dtype == "bfloat16" else device.put(x.astype("f4"))
    for names in (["gelu", "gelu"], ["tanh", "relu"]):
        losses = []
        for form in ("plan", "long"):
            tg.manual_seed(1)
            model = nn.FusedMLP(6, 24, 4, 3, dtype=dtype)
            set_activation(model, names)
            model.to(device.name)
            loss_fn, labels = nn.CrossEntropyLoss(), device.put(target)
            optimizer = tg.optim.SGD(model.parameters(), 0.5)
            step, found = tg.TrainStep(model, loss_fn, optimizer), []
            for _ in range(3):
                if form == "plan":
                    found.append(float(step(batch, labels)))
                    continue
                optimizer.zero_grad()
                found.append(float(loss_fn(model(batch), labels)))
                model.backward(loss_fn.backward(), input_grad=False)
                optimizer.step()
            losses.append(found)
        assert_close(np.array(losses[0]), np.array(losses[1]), 1e-5 if dtype == "float32" else 0.02,
                     what=str(names))  # fmt: skip
        assert losses[0][-1] < losses[0][0]
