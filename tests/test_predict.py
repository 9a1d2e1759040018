# SPDX-License-Identifier: MIT
"""predict on the CPU: a recorded plan gives the bits of the modules, whatever changed."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, assert_same_bits
from test_train_step import CLASSES, FEATURES, NETWORKS, build
from tilegrad import nn
from tilegrad.nn.module import Module


def rows(n: int = 16, dtype: Any = "f4", seed: int = 0) -> Array:
    x: Array = np.random.default_rng(seed).standard_normal((n, FEATURES)).astype(dtype)
    return x


def by_modules(model: nn.Module, x: Array) -> Array:
    modes = [(module, module.training) for module in model.modules()]
    y: Array = model.eval()(x)
    for module, mode in modes:
        module.__dict__["training"] = mode
    return y


def plans(model: nn.Module) -> list[Any]:
    return list((model.__dict__["_inference"] or {}).values())


def is_recorded(model: nn.Module) -> bool:
    return all(plan.native is not None for plan in plans(model)) and bool(plans(model))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_network_gives_the_bits_of_its_modules(
    network: str, dtype: str, threads: int
) -> None:
    model = build(NETWORKS[network], dtype)
    for n in (16, 1, 0, 16):
        x = rows(n, dtype, n)
        x = x.reshape(n, 3, 4) if network == "flatten" else x
        want = by_modules(model, x)
        for _ in range(2):
            assert_same_bits(model.predict(x), want)
    assert is_recorded(model)
    assert all(module.training for module in model.modules())


def test_a_result_is_the_caller_s() -> None:
    model = build(NETWORKS["relu"])
    first = model.predict(rows(seed=1))
    kept = first.copy()
    model.predict(rows(seed=2))
    assert_same_bits(first, kept)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_batches_fill_one_result(batch_size: int) -> None:
    model = build(NETWORKS["tanh"])
    x = rows(33)
    pieces = [by_modules(model, x[i : i + batch_size]) for i in range(0, 33, batch_size)]
    assert_same_bits(model.predict(x, batch_size), np.concatenate(pieces))


@pytest.mark.parametrize(
    "layout",
    [np.asfortranarray, lambda x: np.repeat(x, 2, 1)[:, ::2], lambda x: x[::-1].copy()[::-1]],
)
def test_inputs_of_every_layout(layout: Callable[[Array], Array]) -> None:
    model = build(NETWORKS["relu"])
    x = layout(rows())
    x.flags.writeable = False
    assert_same_bits(model.predict(x), by_modules(model, x))


def _in_place(model: Any) -> None:
    model[0].weight.data[3] *= 2


def _assigned(model: Any) -> None:
    model[1].bias.data = model[1].bias.data + 1


def _trained(model: Any) -> None:
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    step(rows(), np.arange(16) % CLASSES)


def _loaded(model: Any) -> None:
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})


def _parameter(model: Any) -> None:
    model[0].weight = nn.Parameter(model[0].weight.data[::-1].copy())


def _layer(model: Any) -> None:
    setattr(model, "2", nn.Linear(16, CLASSES, activation="tanh"))


def _longer(model: Any) -> None:
    setattr(model, "3", nn.Linear(CLASSES, 2))


def _shorter(model: Any) -> None:
    delattr(model, "2")


def _option(model: Any) -> None:
    model[0].activation_args = {"negative_slope": 0.9}


def _option_in_place(model: Any) -> None:
    model[0].activation_args["negative_slope"] = 0.9


def _forward(model: Any) -> None:
    before = model[2].forward
    model[2].forward = lambda x: 2 * before(x)


def _no_bias(model: Any) -> None:
    model[0].bias = None


CHANGES = [
    _in_place, _assigned, _trained, _loaded, _parameter, _layer, _longer, _shorter, _option,
    _option_in_place, _forward, _no_bias,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[1:])
def test_every_change_counts(change: Callable[[Any], None]) -> None:
    model = build(NETWORKS["leaky_relu"])
    x = rows()
    before = model.predict(x)
    change(model)
    want = by_modules(model, x)
    assert want.shape != before.shape or not np.array_equal(want, before)
    for _ in range(2):
        assert_same_bits(model.predict(x), want)


class Doubled(nn.Linear):
    """A user's layer with a forward pass of its own and the plan of its base."""

    def forward(self, input: Array) -> Array:
        return 2 * super().forward(input)


class Called(nn.Linear):
    """A user's layer that is called in a way of its own."""

    def __call__(self, *args: Any) -> Any:
        return 2 * super().__call__(*args)


class Own(Module):
    """A user's module without a plan."""

    def forward(self, input: Array) -> Array:
        self.seen = len(input)
        return input[:, ::-1] * 1


@pytest.mark.parametrize("kind", [Doubled, Called, lambda i, o: Own()])
def test_modules_without_a_plan_run_by_themselves(kind: Any) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 6), kind(6, 6), nn.Linear(6, 2))
    for _ in range(3):
        assert_same_bits(model.predict(rows()), by_modules(model, rows()))
    assert not is_recorded(model)


def test_copies_have_plans_of_their_own() -> None:
    model = build(NETWORKS["relu"])
    x = rows()
    want = model.predict(x)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model[0].weight.data *= 0
    for other in copies:
        assert_same_bits(other.predict(x), want)
        other[0].weight.data *= 0
        assert_same_bits(other.predict(x), model.predict(x))


def test_few_plans_are_kept_and_none_that_is_large() -> None:
    model = build(NETWORKS["relu"])
    for n in range(1, 40):
        assert_same_bits(model.predict(rows(n)), by_modules(model, rows(n)))
    assert len(plans(model)) <= 8
    model = nn.Sequential(nn.Linear(FEATURES, 1 << 15), nn.Linear(1 << 15, 2))
    x = rows(600)
    assert_same_bits(model.predict(x), by_modules(model, x))
    assert not is_recorded(model)


def test_what_does_not_fit_is_refused_as_by_the_modules() -> None:
    model = build(NETWORKS["relu"])
    model.predict(rows())
    with pytest.raises(ValueError, match="linear: inner sizes differ"):
        model.predict(rows()[:, 1:])
    with pytest.raises(TypeError, match="float64"):
        model.predict(rows(dtype="f8"))
    with pytest.raises(TypeError, match="list"):
        model.predict(rows().tolist())
    assert_same_bits(model.predict(rows()), by_modules(model, rows()))


def test_a_backward_pass_after_predict_is_refused() -> None:
    model = build(NETWORKS["relu"])
    model.predict(rows())
    y = model(rows())
    model.predict(rows())
    with pytest.raises(RuntimeError, match="eval mode"):
        model.backward(y)


def test_threads_may_predict_at_once() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 600, activation="tanh"), nn.Linear(600, 3)).eval()
    inputs = [rows(64, seed=i) for i in range(4)]
    wants = [model.predict(x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        same = [np.array_equal(model.predict(inputs[i]), wants[i]) for _ in range(50)]
        wrong.extend([i] * same.count(False))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_shallow_copy_has_plans_of_its_own() -> None:
    layer = nn.Linear(3, 2)
    x = np.ones((4, 3), np.float32)
    before = layer.predict(x)
    other = copy.copy(layer)
    other.activation = "relu"
    layer.weight.data = -np.ones((2, 3), np.float32)
    assert_same_bits(other.predict(x), np.maximum(layer.predict(x), 0))
    assert_same_bits(layer.eval()(x), layer.predict(x))
    assert before.shape == (4, 2)


def test_attributes_may_hold_arrays() -> None:
    layer = nn.Linear(3, 2)
    layer.history = [np.zeros(3)]
    x = np.ones((4, 3), np.float32)
    expected = layer.predict(x)
    layer.history[0] = np.ones(3)
    assert_same_bits(layer.predict(x), expected)


def test_a_class_patched_after_the_first_call_counts_once_a_module_is_touched() -> None:
    class Layer(nn.Linear):
        pass

    def doubled(self: Layer, input: Any) -> Any:
        return 2 * nn.Linear.forward(self, input)

    model, x = nn.Sequential(Layer(4, 3)), np.ones((5, 4), np.float32)
    before = model.predict(x)
    Layer.forward = doubled  # type: ignore[method-assign]
    np.testing.assert_array_equal(model.predict(x), before)  # as the guide says
    model[0].activation = None
    np.testing.assert_array_equal(model.predict(x), 2 * before)
    other = nn.Sequential(Layer(4, 3))
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.predict(x), 2 * before)
