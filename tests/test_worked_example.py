# SPDX-License-Identifier: MIT
"""The worked example: a 2-3-1 network by hand, from forward pass to a stopping rule."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, host
from tilegrad import nn

X, Y = np.array([[1.0, 1.0]], np.float32), np.array([[0.0]], np.float32)
START = {
    "0.weight": np.array([[-0.0053, 0.3793], [-0.5820, -0.5204], [-0.2723, 0.1896]], np.float32),
    "0.bias": np.array([-0.0140, 0.5607, -0.0628], np.float32),
    "1.weight": np.array([[0.1528, -0.1745, -0.1135]], np.float32),
    "1.bias": np.array([-0.5516], np.float32),
}
END = {
    "0.weight": np.array(
        [[0.01424004, -0.5907864, -0.27549535], [0.39883757, -0.52918637, 0.18640439]]
    ).T,
    "0.bias": np.array([0.00554004, 0.5519136, -0.06599568]),
    "1.weight": np.array([[0.3475135, -0.05529078, 0.03760847]]),
    "1.bias": np.array([-0.22443289]),
}
FIRST_LOSS, LAST_LOSS, PREDICTION = 0.334550, 0.000327707, -0.0174781
RATE, EPOCHS, STEP = 0.01, 100, 1e-4


def network(device: Device, dtype: Any = np.float32) -> nn.Sequential:
    model = nn.Sequential(
        nn.Linear(2, 3, activation="sigmoid", dtype=dtype), nn.Linear(3, 1, dtype=dtype)
    )
    model.to(device.name)
    model.load_state_dict({name: value.astype(dtype) for name, value in START.items()})
    return model


def loss_of(model: nn.Module, x: Any, y: Any) -> Any:
    return host(tg.mse_loss(model.predict(x), y))[()]


def test_a1_a_layer_of_any_width_and_depth(device: Device, rng: np.random.Generator) -> None:
    for sizes in ((3, 1), (4, 7, 10), (2, 5, 1, 33, 3)):
        x = rng.standard_normal((6, sizes[0]))
        y, want = device.put(x), x
        for i, o in itertools.pairwise(sizes):
            w, b = rng.standard_normal((o, i)), rng.standard_normal(o)
            y = tg.linear(y, device.put(w), device.put(b), "tanh")
            want = np.tanh(want @ w.T + b)
        np.testing.assert_allclose(device.get(y), want, rtol=1e-12, atol=1e-13)


def test_a2_forward_pass(device: Device) -> None:
    x = device.put(np.array([[1.0, 1.0]]))
    w1 = device.put(np.array([[0.8, 0.2], [0.4, 0.9], [0.3, 0.5]]))
    w2 = device.put(np.array([[0.3, 0.5, 0.9]]))
    hidden, z = tg.linear(x, w1, activation="sigmoid", save_preactivation=True)
    np.testing.assert_allclose(device.get(z), [[1, 1.3, 0.8]], rtol=1e-15)
    np.testing.assert_allclose(device.get(hidden), [[0.731059, 0.785835, 0.689974]], atol=5e-7)
    y = tg.linear(hidden, w2)
    np.testing.assert_allclose(device.get(y), [[1.233212]], atol=5e-7)
    assert float(tg.mse_loss(y, device.put(np.zeros((1, 1))))) == pytest.approx(1.520812, abs=5e-7)


def test_a3_chain_rule(device: Device) -> None:
    model, loss_fn = network(device, np.float64), nn.MSELoss()
    x, y = device.put(X.astype(np.float64)), device.put(Y.astype(np.float64))
    out = model(x)
    loss_fn(out, y)
    model.backward(loss_fn.backward())
    hidden = host(tg.linear(x, model[0].weight.data, model[0].bias.data, "sigmoid"))[0]
    w = host(model[1].weight.data)[0]
    error = (host(y) - host(out)).item()
    slope = -2 * error * w * hidden * (1 - hidden)  # dC/dz of the hidden nodes
    np.testing.assert_allclose(host(model[0].weight.grad), np.outer(slope, X[0]), rtol=1e-14)
    np.testing.assert_allclose(host(model[0].bias.grad), slope, rtol=1e-14)
    h = 1e-6
    for name, p in model.named_parameters():
        gradient = host(p.grad)
        for i in np.ndindex(p.shape):
            values = host(p.data).copy()
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[i] += sign * h
                p.data = moved
                sides.append(loss_of(model, x, y))
            p.data = values
            assert gradient[i] == pytest.approx((sides[0] - sides[1]) / (2 * h), abs=1e-9), (
                name,
                i,
            )


def finite_difference_descent(device: Device) -> tuple[nn.Sequential, list[float]]:
    """A4: a forward difference for every weight, then one step along all of them."""
    model, losses = network(device), []
    x, y = device.put(X), device.put(Y)
    for _ in range(EPOCHS):
        loss = loss_of(model, x, y)
        losses.append(float(loss))
        gradients = []
        for p in model.parameters():
            values, gradient = host(p.data).copy(), np.zeros(p.shape, p.dtype)
            for i in np.ndindex(p.shape):
                moved = values.copy()
                moved[i] += np.float32(STEP)
                p.data = moved
                gradient[i] = (loss_of(model, x, y) - loss) / np.float32(STEP)
            p.data = values
            gradients.append(gradient)
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.data = host(p.data) - np.float32(RATE) * gradient
    return model, losses


def back_propagation_descent(device: Device) -> tuple[nn.Sequential, list[float]]:
    model, loss_fn = network(device), nn.MSELoss()
    optimizer, losses = tg.optim.SGD(model.parameters(), RATE), []
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        losses.append(float(loss_fn(model(device.put(X)), device.put(Y))))
        model.backward(loss_fn.backward())
        optimizer.step()
    return model, losses


def assert_weights(model: nn.Module, want: dict[str, Array], bound: float) -> None:
    for name, p in model.named_parameters():
        values = host(want[name])
        np.testing.assert_allclose(host(p.data), values, rtol=0, atol=bound, err_msg=name)


def test_a4_finite_difference_descent(device: Device) -> None:
    model, losses = finite_difference_descent(device)
    assert losses[0] == pytest.approx(FIRST_LOSS, abs=1e-6)
    assert losses[-1] == pytest.approx(LAST_LOSS, abs=1e-6)
    assert model.predict(X).item() == pytest.approx(PREDICTION, abs=5e-6)
    assert_weights(model, END, 5e-5)


def test_a5_back_propagation_goes_the_same_way(device: Device) -> None:
    model, losses = back_propagation_descent(device)
    assert losses[0] == pytest.approx(FIRST_LOSS, abs=1e-6)
    assert_weights(model, END, 1e-4)
    descended, other = finite_difference_descent(Device("cpu"))
    assert_weights(model, descended.state_dict(), 1e-4)
    np.testing.assert_allclose(losses, other, rtol=0, atol=1e-4)
    step_model = network(device)
    step = tg.TrainStep(step_model, nn.MSELoss(), tg.optim.SGD(step_model.parameters(), RATE))
    step_losses = [float(step(X, Y)) for _ in range(EPOCHS)]
    bound = 0.0 if device.name == "cpu" else 1e-6
    np.testing.assert_allclose(step_losses, losses, rtol=0, atol=bound)
    assert_weights(step_model, model.state_dict(), bound)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_a6_descent_stops_when_every_weight_has_settled(epsilon: float, device: Device) -> None:
    def descend(limit: int) -> tuple[nn.Sequential, int, float]:
        model = network(device, np.float64)
        step = tg.TrainStep(model, nn.MSELoss(), tg.optim.SGD(model.parameters(), 0.05))
        change = np.inf
        for epoch in range(limit):
            before = [host(p.data).copy() for p in model.parameters()]
            step(X.astype(np.float64), Y.astype(np.float64))
            pairs = zip(before, model.parameters(), strict=True)
            change = max(np.abs(host(p.data) - b).max() for b, p in pairs)
            if change < epsilon:
                return model, epoch + 1, change
        return model, limit, change

    model, epochs, change = descend(10_000)
    other = network(device, np.float64)
    result = tg.descend(
        other, nn.MSELoss(), tg.optim.SGD(other.parameters(), 0.05), X.astype(np.float64),
        Y.astype(np.float64), tolerance=epsilon,
    )  # fmt: skip
    assert (result.iterations, result.converged, result.change) == (epochs, True, change)
    assert_weights(other, model.state_dict(), 0.0)
    assert 5 < epochs < 1000
    assert change < epsilon
    # Every weight moves by at most rate * |gradient|, so the error is as small as the change.
    assert abs(model.predict(X.astype(np.float64)).item()) < 20 * epsilon
    _, epochs_limited, change_limited = descend(4)
    assert epochs_limited == 4
    assert change_limited >= epsilon
