# SPDX-License-Identifier: MIT
"""fit: what it computes and measures, and what it refuses."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fit_runs import TRAIN, VALIDATION, Handmade, X, Y, network, quick
from tilegrad import TrainStep, _random, cross_entropy, manual_seed, nn, optim
from tilegrad._callbacks import Callback, History, Training
from tilegrad.data import DataLoader
from tilegrad.optim.lr_scheduler import StepLR


def test_it_learns() -> None:
    manual_seed(0)
    history = quick(validation=VALIDATION, epochs=15, batch_size=16)
    assert history.val_accuracy[-1] > 0.93
    assert history.train_accuracy[-1] > 0.93
    assert history.train_loss[-1] < 0.4 * history.train_loss[0]
    assert history.epochs == list(range(1, 16))


@pytest.mark.parametrize("given", ["arrays", "loader"])
def test_it_equals_a_loop_of_train_steps_bit_for_bit(given: str) -> None:
    manual_seed(1)
    model = network()
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    loader = DataLoader(TRAIN, batch_size=16, shuffle=True, seed=3)
    step = TrainStep(model, nn.CrossEntropyLoss(), optimizer, max_norm=0.3)
    losses, rates = [], []
    for epoch in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        total = 0.0
        for x, y in loader:
            total += float(step(x, y)) * len(x)
        losses.append(total / 90)
        optimizer.param_groups[0]["lr"] = 0.02 * 0.5 ** (epoch + 1)
    manual_seed(1)
    other = network()
    optimizer = optim.Adam(other.parameters(), lr=0.02)
    data = TRAIN if given == "arrays" else DataLoader(TRAIN, batch_size=16, shuffle=True, seed=3)
    history = quick(
        model=other, optimizer=optimizer, data=data, epochs=4, batch_size=16, max_norm=0.3, seed=3,
        scheduler=StepLR(optimizer, 1, 0.5), validation=VALIDATION,
    )  # fmt: skip
    assert history.train_loss == losses
    assert history.learning_rate == rates
    for mine, expected in zip(other.parameters(), model.parameters(), strict=True):
        np.testing.assert_array_equal(mine.data, expected.data)


def test_measurements_are_those_of_eval_mode() -> None:
    model, loss_fn = network(0.5), nn.CrossEntropyLoss()
    history = quick(model=model, loss_fn=loss_fn, validation=VALIDATION)
    for (x, y), loss, accuracy in (
        (VALIDATION, history.val_loss[-1], history.val_accuracy[-1]),
        (TRAIN, None, history.train_accuracy[-1]),
    ):
        scores = model.predict(x)
        assert accuracy == np.mean(scores.argmax(1) == y)
        if loss is not None:
            assert loss == pytest.approx(float(cross_entropy(scores, y)), rel=1e-6)
    assert all(s > 0 for s in history.seconds)
    for rate, seconds in zip(history.samples_per_second, history.seconds, strict=True):
        assert rate == pytest.approx(90 / seconds)


def test_means_over_uneven_batches_weight_the_samples() -> None:
    x = np.arange(7, dtype=np.float32)[:, None]
    model = nn.Linear(1, 1)
    model.weight.data = np.ones((1, 1), np.float32)
    model.bias.data = np.zeros(1, np.float32)  # type: ignore[union-attr]
    validation = DataLoader(x, 0 * x, batch_size=3)
    for reduction in ("mean", "sum"):
        history = quick(
            model=model, loss_fn=nn.MSELoss(reduction), data=(x, 0 * x), batch_size=4, epochs=1,
            optimizer=optim.SGD(model.parameters(), lr=0.0), validation=validation,
        )  # fmt: skip
        mean = float(np.mean(x**2))  # the losses of the batches are float32
        assert history.val_loss == pytest.approx([mean], rel=1e-7) == history.train_loss
        assert history.val_accuracy == history.train_accuracy == []


def test_ignored_rows_do_not_count_in_accuracy() -> None:
    y = Y.copy()
    y[::2] = -100
    model = network(0)
    history = quick(model=model, data=(X, y), validation=(X, y), epochs=1)
    right = model.predict(X).argmax(1) == y
    assert history.val_accuracy == history.train_accuracy == [np.mean(right[1::2])]


def test_training_accuracy_uses_evenly_spaced_rows_or_none() -> None:
    model = network(0)
    history = quick(model=model, accuracy_samples=40, epochs=1)
    assert history.train_accuracy == [np.mean(model.predict(X[:90:3]).argmax(1) == Y[:90:3])]
    assert quick(accuracy_samples=0).train_accuracy == []


def test_probability_targets_have_a_loss_but_no_accuracy() -> None:
    soft = np.eye(3, dtype=np.float32)[Y]
    history = quick(data=(X, soft), validation=(X, soft))
    assert len(history.val_loss) == 2
    assert history.val_accuracy == history.train_accuracy == []


def test_evaluation_does_no_gradient_work_and_draws_no_random_number() -> None:
    seen: list[tuple[bool, bool, Any]] = []

    class Probe(Callback):
        def on_epoch_end(self, training: Training) -> None:
            part = list(training.model.modules())[1]
            seen.append((training.model.training, training.loss_fn.training, part._saved))

    quick(validation=VALIDATION, callbacks=[Probe()], epochs=1)
    assert seen == [(False, False, None)]
    offsets = []
    for validation in (None, VALIDATION):
        manual_seed(0)
        quick(validation=validation)
        offsets.append(_random.get_state())
    assert offsets[0] == offsets[1]


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_restored(training: bool) -> None:
    model, loss_fn = network(), nn.CrossEntropyLoss()
    list(model)[1].train(training)
    loss_fn.train(not training)
    quick(model=model, loss_fn=loss_fn, validation=VALIDATION)
    assert [m.training for m in model.modules()] == [True, True, training, True]
    assert loss_fn.training is not training


class Halved(nn.Module):
    """A loss without a plan."""

    def __init__(self) -> None:
        super().__init__()
        self.loss_fn = nn.CrossEntropyLoss()

    def forward(self, *args: Any) -> Any:
        return self.loss_fn(*args) / 2

    def backward(self, grad_output: Any = None, input_grad: bool = True) -> Any:
        return self.loss_fn.backward() / 2


@pytest.mark.parametrize("max_norm", [None, 0.3])
def test_a_model_without_a_plan_trains_in_the_long_form_with_the_same_bits(
    max_norm: float | None,
) -> None:
    results = []
    for wrap in (lambda model: model, Handmade):
        manual_seed(4)
        model = network()
        history = quick(model=wrap(model), max_norm=max_norm, epochs=3, batch_size=16)
        weights = [p.data.tobytes() for p in model.parameters()]
        results.append((weights, history.train_loss, _random.get_state()))
    assert results[0] == results[1]


def test_a_loss_without_a_plan_works() -> None:
    manual_seed(0)
    history = quick(loss_fn=Halved(), epochs=15, batch_size=16, validation=VALIDATION)
    assert history.val_accuracy[-1] > 0.9
    assert history.train_loss[0] < 1.0


def test_a_batch_that_does_not_fit_is_no_missing_plan() -> None:
    model = network()
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(TypeError, match="float64"):
        quick(model=model, data=(X.astype(np.float64), Y))
    with pytest.raises(ValueError, match=r"linear: .*\(16, 3\)"):
        quick(model=model, data=(X[:, :3].copy(), Y), batch_size=16)
    with pytest.raises(ValueError, match="3"):
        quick(model=model, data=(X, Y + 1))
    with pytest.raises(ValueError, match="reduction 'mean' or 'sum'"):
        quick(model=model, loss_fn=nn.CrossEntropyLoss(reduction="none"))
    for parameter, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.data, old)
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"data": (X.astype(np.float64), Y)}, TypeError, "x must have the parameters' dtype"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, "CrossEntropyLoss needs"),
        ({"optimizer": optim.SGD(network().parameters(), 0.1)}, ValueError, "the optimizer holds"),
    ],
)
def test_errors_bear_the_name_of_what_was_called(
    options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=f"^fit: {text}"):
        quick(model=network(), **options)


def test_a_wrong_dtype_does_not_lead_to_the_long_form() -> None:
    class Counting(nn.Linear):
        calls = 0

        def forward(self, input: Any) -> Any:
            self.calls += 1
            return super().forward(input)

    model = Counting(4, 3)
    with pytest.raises(TypeError, match="float64"):
        quick(model=model, data=(X.astype(np.float64), Y))
    assert model.calls == 0
    quick(model=model)
    assert model.calls > 0


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"data": [X, Y]}, TypeError, "data must be a tuple .* or a DataLoader; got list"),
    ({"data": (X, Y, Y)}, TypeError, "got 3 arrays"),
    ({"data": X}, TypeError, "got ndarray"),
    ({"data": (X, Y[:5])}, ValueError, "length"),
    ({"data": (X.tolist(), Y)}, TypeError, "ndarray"),
    ({"data": DataLoader(X)}, ValueError, "inputs and targets; got 1"),
    ({"data": (X[:0], Y[:0])}, ValueError, "data must have at least one batch"),
    ({"data": DataLoader(X, Y, batch_size=200, drop_last=True)}, ValueError, "at least one batch"),
    ({"validation": (X[:0], Y[:0])}, ValueError, "validation must have at least one batch"),
    ({"validation": X}, TypeError, "validation must be"),
    ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1; got 0"),
    ({"epochs": 1.5}, ValueError, "got 1.5"),
    ({"epochs": True}, ValueError, "got True"),
    ({"batch_size": 0}, ValueError, "batch_size must be at least 1; got 0"),
    ({"callbacks": [print]}, TypeError, "must be Callback objects"),
    ({"loss_fn": print}, TypeError, "loss_fn must be a Module"),
    ({"max_norm": math.nan}, ValueError, "max_norm must be at least 0; got nan"),
    ({"accuracy_samples": -1}, ValueError, "accuracy_samples must be at least 0; got -1"),
    ({"seed": -1}, ValueError, "seed must be in"),
    ({"checkpoint": "/nonexistent/file"}, FileNotFoundError, "folder must exist; got /nonexistent"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "kind", "match"), BAD)
def test_bad_arguments_are_named(
    options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    with pytest.raises(kind, match=match):
        quick(**options)


def test_a_scheduler_of_another_optimizer_is_refused() -> None:
    other = optim.SGD(network().parameters())
    with pytest.raises(ValueError, match="scheduler must be that of this optimizer"):
        quick(scheduler=StepLR(other, 1))


def test_history_pads_what_was_not_measured_and_is_json() -> None:
    history = History()
    history.add(train_loss=3.0, val_loss=None)
    history.add(train_loss=math.inf, val_loss=2.0)
    history.add(train_loss=1.0)
    assert history.epochs == [1, 2, 3]
    np.testing.assert_array_equal(history.val_loss, [math.nan, 2.0, math.nan])
    assert history.val_accuracy == []
    assert history.best_epoch == 2
    text = json.dumps(history.to_dict(), allow_nan=False)
    assert json.loads(text)["val_loss"] == [None, 2.0, None]
    assert json.loads(text)["train_loss"] == [3.0, None, 1.0]
    assert json.loads(text)["best_epoch"] == 2
    other = History()
    other.load_state_dict(json.loads(json.dumps(history.state_dict())))
    assert repr(other) == repr(history)
    assert History().best_epoch is None


@pytest.mark.parametrize(
    "change",
    [{"epochs": [1, 3]}, {"train_loss": [1.0]}, {"val_loss": ["a", "b"]}, {"more": []}],
)
def test_history_refuses_lists_that_do_not_fit(change: dict[str, Any]) -> None:
    history = History()
    history.add(train_loss=1.0)
    history.add(train_loss=2.0)
    before = repr(history)
    with pytest.raises(ValueError, match="History: "):
        history.load_state_dict({**history.state_dict(), **change})
    assert repr(history) == before


def test_a_validation_set_is_measured_on_the_batches_that_its_loader_gives() -> None:
    x, y = VALIDATION
    model = network()
    loader = DataLoader(x, y, batch_size=12, drop_last=True)  # 24 of 30 rows
    history = quick(model=model, validation=loader, epochs=1)
    want = cross_entropy(model.predict(x[:24]), y[:24])
    assert history.val_loss == [pytest.approx(float(want), rel=1e-6)]
    right = model.predict(x[:24]).argmax(axis=1) == y[:24]
    assert history.val_accuracy == [right.mean()]
