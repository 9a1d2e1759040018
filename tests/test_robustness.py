# SPDX-License-Identifier: MIT
"""Each test here reproduces a crash, a hang or a leak that was found once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tilegrad as tg
from helpers import Device
from tilegrad import _cpu, nn


def test_changing_the_thread_count_during_a_product_is_safe() -> None:
    """Scratch memory is sized by the thread limit: a call must see one limit throughout."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((256, 700)).astype(np.float32)
    b = rng.standard_normal((700, 900)).astype(np.float32)
    before = tg.num_threads()
    expected = tg.matmul(a, b)
    stop = threading.Event()

    def toggle() -> None:
        while not stop.is_set():
            for count in (2, 64, 1, 5):
                tg.set_num_threads(count)
                time.sleep(0.0003)

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        for _ in range(150):
            np.testing.assert_array_equal(tg.matmul(a, b), expected)
    finally:
        stop.set()
        thread.join()
        tg.set_num_threads(before)


def test_one_train_step_in_two_threads_is_refused_not_mixed_up(device: Device) -> None:
    width = 30 if device.name == "sim" else 600
    model = nn.Sequential(nn.Linear(width, width, activation="relu"), nn.Linear(width, 10))
    model.to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.0))
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal((width // 3, width)).astype(np.float32) for _ in range(2)]
    target = rng.integers(0, 10, width // 3)
    expected = [float(step.forward_backward(x, target)) for x in batches]
    wrong, refused = [], []

    def attempt(which: int) -> object:
        try:
            return step.forward_backward(batches[which], target)
        except RuntimeError as error:
            refused.append(str(error))
            return None

    def train(which: int) -> None:
        for _ in range(20):
            loss = attempt(which)
            if loss is not None and float(loss) != expected[which]:  # type: ignore[arg-type]
                wrong.append(which)

    threads = [threading.Thread(target=train, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all("already running" in text for text in refused)


def test_workspace_does_not_grow_with_the_number_of_sizes() -> None:
    tg.release_memory()
    for n in range(1, 200):
        tg.relu(np.zeros((n, 1024), np.float32)[::-1])  # negative stride: packed into workspace
    kept_results = 200 * 1024 * 4 * 16  # the pool keeps some results; it has its own bound
    assert tg.release_memory() < 4 * 200 * 1024 * 4 + kept_results


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: tg.matmul(np.empty((2**31, 0), np.float32), np.empty((0, 2**30), np.float32)),
            "matmul: the result is too large; got shape",
        ),
        (
            lambda: tg.mse_loss(
                np.zeros((274177, 1), np.float32),
                np.broadcast_to(np.float32(0), (1, 67280421310721)),
            ),
            "mse_loss: the result is too large",
        ),
        (
            lambda: tg.mse_loss_backward(
                np.float32(1),
                np.zeros((16, 1), np.float32),
                np.broadcast_to(np.float32(0), (1, 2**60)),
            ),
            "mse_loss_backward: the result is too large",
        ),
        (
            lambda: _cpu.random_uniform((1,) * 400, False, 0.0, 1.0, 0, 0),
            "at most 32 axes",
        ),
        (
            lambda: _cpu.random_uniform((-1,), False, 0.0, 1.0, 0, 0),
            "a size must be at least 0",
        ),
    ],
)
def test_sizes_beyond_memory_are_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_items_without_bytes_are_no_floats() -> None:
    with pytest.raises(TypeError, match="relu: input must have dtype float32, float64 or bfloat16"):
        tg.relu(np.zeros(3, np.dtype([])))


def test_a_number_too_large_for_a_float_is_refused() -> None:
    x = np.ones(2)
    with pytest.raises(TypeError, match="mse_loss_backward: grad_output must be a number"):
        tg.mse_loss_backward(10**400, x, x)


def test_products_without_elements_do_not_walk_their_batch() -> None:
    start = time.perf_counter()
    result = tg.matmul(np.empty((2**40, 0, 3), np.float32), np.zeros((3, 4), np.float32))
    assert result.shape == (2**40, 0, 4)
    assert time.perf_counter() - start < 1


def test_the_gil_is_free_while_operands_are_packed() -> None:
    x = np.zeros((3000, 3000), np.float32).T
    ticks, stop = [], threading.Event()

    def tick() -> None:
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    for _ in range(5):
        tg.relu(x)
    stop.set()
    thread.join()
    assert len(ticks) > 5


def test_sizes_of_layers_may_be_numpy_integers_and_bad_ones_harm_nothing() -> None:
    layer = nn.Linear(np.int32(4), np.int64(9) + 1)
    assert layer(np.zeros((2, 4), np.float32)).shape == (2, 10)
    for sizes in ((3.0, 2), (3, 2.5), ("3", 2), (True, 2)):
        with pytest.raises(TypeError, match=r"Linear: (in|out)_features must be an integer; got"):
            nn.Linear(*sizes)  # type: ignore[arg-type]
    nn.Linear(3, 2)  # the random stream is as it was


def test_an_array_in_the_place_of_a_parameter_is_refused() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"Linear: weight is a Parameter; assign the array to its"):
        layer.weight = np.zeros((2, 3), np.float32)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    with pytest.raises(
        TypeError, match=r"linear: weight must be .* got Parameter \(pass its .data"
    ):
        tg.linear(np.zeros((1, 3), np.float32), layer.weight)


def test_an_optimiser_of_another_model_is_refused() -> None:
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(ValueError, match="holds none of the model's parameters"):
        tg.TrainStep(model, nn.MSELoss(), tg.optim.SGD(other.parameters()))


def test_a_batch_of_another_dtype_is_named() -> None:
    model = nn.Linear(3, 2)
    step = tg.TrainStep(model, nn.MSELoss(), tg.optim.SGD(model.parameters()))
    with pytest.raises(TypeError, match="x must have the parameters' dtype float32; got float64"):
        step(np.zeros((1, 3)), np.zeros((1, 2), np.float32))


def test_gradcheck_counts_the_gradients_it_is_given() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match="one gradient for each of a, b, c"):
        tg.gradcheck(lambda a, b, c: a * b * c, (x, x, x), backward=lambda g, a, b, c: (g, g))


@pytest.mark.parametrize("value", [None, "a"])
def test_options_that_are_no_numbers_are_named(value: object) -> None:
    p = nn.Parameter(np.ones(2))
    with pytest.raises(TypeError, match="Adam: lr must be a number"):
        tg.optim.Adam([p], lr=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Dropout: p must be a number"):
        nn.Dropout(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dropout: p must be a number"):
        tg.dropout(np.ones(2), value)  # type: ignore[arg-type]


def test_arguments_in_another_order_are_named(tmp_path: Path) -> None:
    model = tg.nn.Linear(2, 1)
    path, sgd = tmp_path / "x.safetensors", tg.optim.SGD(model.parameters())
    for op in (tg.save, tg.load):
        name = op.__name__
        with pytest.raises(TypeError, match=f"^{name}: path must be a path; got Linear"):
            op(model, path)
        with pytest.raises(TypeError, match=f"^{name}: model must be a Module; got dict"):
            op(path, model.state_dict())
        with pytest.raises(TypeError, match=f"^{name}: optimizer must be an Optimizer; got StepLR"):
            op(path, model, tg.optim.lr_scheduler.StepLR(sgd, 1))
    x, stopping = np.zeros((4, 2), "f4"), tg.EarlyStopping()
    with pytest.raises(TypeError, match="callbacks must be a list; got one Callback"):
        tg.fit(model, tg.nn.MSELoss(), sgd, (x, x[:, :1]), epochs=1, callbacks=stopping)
    with pytest.raises(TypeError, match=r"such as model.parameters\(\); got Linear"):
        tg.optim.SGD([model])


def test_memory_that_is_not_there_is_named_with_its_size() -> None:
    wide = np.broadcast_to(np.float32(1), (1 << 23, 1))  # more than there are addresses
    with pytest.raises(MemoryError, match=r"^\d{15} bytes could not be allocated"):
        tg.matmul(wide, np.broadcast_to(np.float32(1), (1, 1 << 23)))
