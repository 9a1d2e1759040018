# SPDX-License-Identifier: MIT
"""Layers, losses, optimisers, files and training on every device."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fit_runs
import tilegrad as tg
from helpers import Array, Device, assert_close, assert_same_bits, error, host, tolerance
from tilegrad import backends, nn
from tilegrad._save import load, save

DEVICES = [name for name in ("sim", "cuda") if tg.info()["backends"][name] is None]


@pytest.fixture(params=DEVICES)
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def network(dtype: Any = np.float32) -> nn.Sequential:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(5, 7, activation="gelu", dtype=dtype),
        nn.Dropout(0.25),
        nn.Linear(7, 3, dtype=dtype),
    )


def train(model: nn.Module, optimizer: Any, device: Device, steps: int = 3) -> list[float]:
    """Train in the long form; NumPy data, put where the model is."""
    rng, loss_fn, losses = np.random.default_rng(1), nn.CrossEntropyLoss(), []
    tg.manual_seed(8)
    for _ in range(steps):
        x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
        optimizer.zero_grad()
        loss = loss_fn(model(device.put(x.astype(next(model.parameters()).dtype))), device.put(t))
        model.backward(loss_fn.backward(), input_grad=False)
        optimizer.step()
        losses.append(float(loss))
    return losses


def values(model: nn.Module) -> dict[str, Array]:
    return {name: host(p.data).copy() for name, p in model.named_parameters()}


def assert_near(a: dict[str, Array], b: dict[str, Array], length: int = 64) -> None:
    for name, value in a.items():
        bound = tolerance(value.dtype, length) * (np.abs(b[name]).max() + 1)
        assert_close(value, b[name], bound, what=name)


# ---- moving -------------------------------------------------------------------------------------


def test_a_module_moves_there_and_back_with_its_gradients(where: str) -> None:
    model = network()
    train(model, tg.optim.SGD(model.parameters(), 0.1), Device("cpu"), 1)
    model[2].bias.zero_grad()
    parameters = list(model.parameters())
    before = [(p.data.copy(), None if p.grad is None else p.grad.copy()) for p in parameters]
    assert model.to(where) is model
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    for p, (data, grad) in zip(parameters, before, strict=True):
        assert isinstance(p.data, tg.Array)
        assert p.data.device == p.device == backends.place_name(backends.place_of(where))
        assert_same_bits(p.data, data)
        assert (p.grad is None) == (grad is None)
        if grad is not None:
            assert_same_bits(p.grad, grad)
    addresses = [p.data._pointer for p in parameters]
    model.to(where)
    assert [p.data._pointer for p in parameters] == addresses
    model.to("cpu")
    for p, (data, grad) in zip(parameters, before, strict=True):
        assert type(p.data) is np.ndarray
        assert_same_bits(p.data, data)
        if grad is not None:
            assert_same_bits(p.grad, grad)


def test_a_module_that_does_not_move_keeps_what_its_forward_saved(device: Device) -> None:
    model = network().to(device.name)
    y = model(device.put(np.ones((2, 5), "f4")))
    model.to(device.name)
    assert model.backward(y).shape == (2, 5)
    if device.name != "cpu":
        model(device.put(np.ones((2, 5), "f4")))
        model.to("cpu")
        with pytest.raises(RuntimeError, match="there is no training-mode forward"):
            model.backward(np.ones((2, 3), "f4"))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_optimiser_follows_a_model_that_moves(name: str, device: Device) -> None:
    options = {"momentum": 0.9} if name == "SGD" else {"amsgrad": True}
    results = []
    for there in ("cpu", device.name):
        model = network(np.float64)
        optimizer = getattr(tg.optim, name)(model.parameters(), lr=0.05, **options)
        losses = train(model, optimizer, Device("cpu"), 2)
        model.to(there)
        losses += train(model, optimizer, Device(there), 2)
        state = next(iter(optimizer.state.values()))
        buffers = [v for v in state.values() if not isinstance(v, int)]
        assert all(backends.place_name(backends.place_of_array(b)) == model[0].weight.device
                   for b in buffers)  # fmt: skip
        model.to("cpu")
        losses += train(model, optimizer, Device("cpu"), 2)
        assert all(state["step"] == 6 for state in optimizer.state.values() if state)
        results.append((losses, values(model)))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-12)
    assert_near(results[1][1], results[0][1], 1000)


def test_state_dicts_are_read_on_any_device(where: str) -> None:
    here, there = network(), network().to(where)
    there[0].weight.data = here[0].weight.data + 1  # NumPy's into a device buffer
    address = there[0].weight.data._pointer
    here.load_state_dict(there.state_dict())
    assert_same_bits(here[0].weight.data, there[0].weight.data)
    here[2].bias.data = np.full(3, 5, "f4")
    there.load_state_dict(here.state_dict())
    assert there[0].weight.data._pointer == address
    assert host(there[2].bias.data).tolist() == [5] * 3
    before = values(there)
    with pytest.raises(ValueError, match=r"2\.bias: shape must be \(3,\); got \(4,\)"):
        there.load_state_dict({**here.state_dict(), "2.bias": np.zeros(4, "f4")})
    with error(TypeError, "Parameter.data", "float32", "float64"):
        there[2].bias.data = tg.zeros(3, np.float64, device=where)
    for name, value in values(there).items():
        assert_same_bits(value, before[name])
    there[2].bias.grad = np.ones(3, "f4")
    assert there[2].bias.grad.device.startswith(where)
    optimizer = tg.optim.Adam(there.parameters())
    train(there, optimizer, Device(where), 2)
    other = tg.optim.Adam(here.parameters())
    other.load_state_dict(optimizer.state_dict())
    again = tg.optim.Adam(there.parameters())
    again.load_state_dict(other.state_dict())
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert type(other.state[p]["exp_avg"]) is np.ndarray
        assert_same_bits(other.state[p]["exp_avg"], optimizer.state[q]["exp_avg"])
        assert_same_bits(again.state[q]["exp_avg_sq"], optimizer.state[q]["exp_avg_sq"])
        assert again.state[q]["exp_avg"]._pointer != optimizer.state[q]["exp_avg"]._pointer


def test_a_module_is_copied_on_its_device(where: str) -> None:
    model = network().to(where)
    other = copy.deepcopy(model)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert p is not q
        assert p.data._pointer != q.data._pointer
        assert_same_bits(p.data, q.data)
    taken = nn.Parameter(model[0].weight.data)
    assert taken.data._pointer != model[0].weight.data._pointer
    with error(TypeError, "Parameter", "float32, float64 or bfloat16", "Array of int64"):
        nn.Parameter(tg.zeros(3, np.int64, device=where))


# ---- layers, losses, predict --------------------------------------------------------------------


def test_layers_compute_as_on_the_cpu(device: Device, rng: np.random.Generator) -> None:
    layers = [
        nn.Linear(6, 6, activation="silu", dtype=np.float64), nn.ReLU(), nn.GELU("tanh"), nn.SELU(),
        nn.Softmax(-1), nn.LogSoftmax(0), nn.Flatten(0), nn.Identity(), nn.LeakyReLU(-0.2),
        nn.Dropout(0.5), nn.Dropout(0.0), nn.Sigmoid(), nn.Tanh(), nn.SiLU(), nn.ELU(0.3),
    ]  # fmt: skip
    x, results = rng.standard_normal((4, 6)), []
    for place in ("cpu", device.name):
        there = Device(place)
        for layer in layers:
            layer.to(place)
            tg.manual_seed(4)
            y = layer(there.put(x))
            dx = layer.backward(y)
            results.append((layer, host(y), host(dx)))
    for (layer, y, dx), (_, y2, dx2) in zip(
        results[: len(layers)], results[len(layers) :], strict=True
    ):
        assert_close(y2, y, 1e-13 * (1 + np.abs(y)), what=f"{layer}")
        assert_close(dx2, dx, 1e-12 * (1 + np.abs(dx).max()), what=f"{layer} backward")


def test_gradients_accumulate_on_a_device(device: Device, rng: np.random.Generator) -> None:
    model = nn.Linear(5, 4, dtype=np.float64).to(device.name)
    x, dy = device.put(rng.standard_normal((3, 5))), device.put(rng.standard_normal((3, 4)))
    model(x)
    model.backward(dy)
    once = [host(p.grad).copy() for p in model.parameters()]
    model.bias.zero_grad()
    model(x)
    assert model.backward(dy, input_grad=False) is None
    assert_close(model.weight.grad, 2 * once[0], 1e-14 * (1 + np.abs(once[0])))
    assert_same_bits(model.bias.grad, once[1])
    model.requires_grad_(False)
    model.zero_grad()
    model(x)
    assert model.backward(dy).shape == (3, 5)
    assert model.weight.grad is None


def test_class_weights_follow_the_scores(where: str, rng: np.random.Generator) -> None:
    weight = np.array([1.0, 2.0, 0.5])
    loss_fn = nn.CrossEntropyLoss(weight)
    x, t = rng.standard_normal((4, 3)), np.array([0, 2, 1, 2])
    expected, grad = loss_fn(x, t), loss_fn.backward()
    there = Device(where)
    assert float(loss_fn(there.put(x), there.put(t))) == pytest.approx(float(expected), rel=1e-13)
    assert_close(loss_fn.backward(there.put(np.array(1.0))), grad, 1e-14)
    assert loss_fn(x, t) == expected


def test_predict_gives_back_what_it_was_given(device: Device, rng: np.random.Generator) -> None:
    model = network().to(device.name)
    x = rng.standard_normal((10, 5)).astype("f4")
    want = network().predict(x)
    for batch_size in (None, 1, 3, 10, 100):
        y = model.predict(x, batch_size)
        assert type(y) is np.ndarray
        assert_close(y, want, tolerance("f4", 16))
        there = model.predict(device.put(x), batch_size)
        assert type(there) is type(device.put(x))
        assert_same_bits(there, y)
    assert model.predict(x[:0]).shape == (0, 3)
    assert model.predict(device.put(x)[:0], 4).shape == (0, 3)
    assert all(m.training for m in model.modules())


def test_an_output_out_of_range_gives_nan_and_no_gradient_row(where: str) -> None:
    there = Device(where)
    loss_fn = nn.CrossEntropyLoss(reduction="none")
    x = there.put(np.zeros((3, 4), "f4"))
    loss = host(loss_fn(x, there.put(np.array([1, 4, -1]))))
    assert np.isnan(loss).tolist() == [False, True, True]
    gradient = host(loss_fn.backward())
    assert not gradient[1:].any()
    assert gradient[0].any()


# ---- fit, save, load ----------------------------------------------------------------------------


def test_fit_trains_on_a_device(device: Device) -> None:
    runs = []
    for place in ("cpu", device.name):
        run = fit_runs.Run("adam", 1)
        run.model.to(place)
        runs.append((run.fit(3), values(run.model)))
    (here, weights), (there, other) = runs
    np.testing.assert_allclose(there.train_loss, here.train_loss, rtol=1e-5)
    np.testing.assert_allclose(there.val_loss, here.val_loss, rtol=1e-5)
    assert there.val_accuracy == here.val_accuracy
    assert there.train_loss[-1] < there.train_loss[0]
    for name, value in other.items():
        assert_close(value, weights[name], 1e-4 * np.abs(weights[name]).max(), what=name)


def test_fit_of_a_module_without_a_plan_and_with_class_weights(device: Device) -> None:
    losses = []
    for place in ("cpu", device.name):
        tg.manual_seed(2)
        model = fit_runs.network()
        wrapped = fit_runs.Handmade(model).to(place)
        loss_fn = nn.CrossEntropyLoss(np.array([1.0, 2.0, 3.0], "f4"))
        optimizer = tg.optim.SGD(model.parameters(), 0.1)
        history = fit_runs.quick(
            model=wrapped, loss_fn=loss_fn, optimizer=optimizer, validation=fit_runs.VALIDATION,
            batch_size=32, epochs=2, max_norm=1.0,
        )  # fmt: skip
        losses.append([*history.train_loss, *history.val_loss])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_a_run_on_a_device_resumes_bit_for_bit(where: str, tmp_path: Path) -> None:
    states = []
    for stop in (None, 2):
        run = fit_runs.Run("momentum", 1)
        run.model.to(where)
        path = tmp_path / f"checkpoint-{stop}"
        if stop is not None:
            run.fit(stop, path)
            run = fit_runs.Run("momentum", 5)
            run.model.to(where)
        run.fit(4, path)
        run.model.to("cpu")
        for state in run.optimizer.state.values():
            state.update({k: host(v) for k, v in state.items() if isinstance(v, tg.Array)})
        states.append(run.state())
    assert states[0] == states[1]


def test_files_know_no_device(where: str, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("here", "there", "back")]
    model = network()
    optimizer = tg.optim.Adam(model.parameters())
    train(model, optimizer, Device("cpu"), 2)
    save(paths[0], model, optimizer)
    other = network().to(where)
    its = tg.optim.Adam(other.parameters())
    load(paths[0], other, its)
    assert other[0].weight.device.startswith(where)
    save(paths[1], other, its)
    assert paths[1].read_bytes() == paths[0].read_bytes()
    back = network()
    mine = tg.optim.Adam(back.parameters())
    load(paths[1], back, mine)
    save(paths[2], back, mine)
    assert paths[2].read_bytes() == paths[0].read_bytes()
    losses = [train(m, o, Device(d)) for m, o, d in ((other, its, where), (back, mine, "cpu"))]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_gradcheck_of_functions_and_modules_on_a_device(where: str) -> None:
    there = Device(where)
    x = there.put(np.array([[0.5, -1.0, 2.0], [1.5, 0.3, -0.2]]))
    before = host(x).copy()
    assert tg.gradcheck(tg.tanh, x).elements == 6
    assert tg.gradcheck(tg.matmul, (x, there.put(np.ones((3, 2)))), wrt=("a", "b"))
    target = there.put(np.array([2, 0]))
    assert tg.gradcheck(tg.cross_entropy, (x, target), label_smoothing=0.1)
    assert_same_bits(x, before)
    model = nn.Sequential(nn.Linear(3, 2, activation="gelu", dtype=np.float64), nn.Dropout(0.5)).to(
        where
    )
    kept = values(model)
    assert tg.gradcheck(model, x).elements == 6 + 6 + 2
    for name, value in values(model).items():
        assert_same_bits(value, kept[name])
    wrong = tg.gradcheck(
        tg.tanh, x, backward=lambda g, a: tg.tanh_backward(g, tg.tanh(a)), raise_exception=False
    )
    assert not wrong
    with error(TypeError, "gradcheck", "float64", "float32"):
        tg.gradcheck(tg.relu, there.put(np.ones(3, "f4")))
