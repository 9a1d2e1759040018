# SPDX-License-Identifier: MIT
"""TrainStep on every device: the batches that it takes, its memory, streams and threads."""

from __future__ import annotations

import copy
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from device_runs import (
    CLASSES,
    FEATURES,
    OPTIMISERS,
    STEPS,
    batches,
    network,
    train,
)  # fmt: skip
from helpers import Array, Device, error, host
from tilegrad import backends, nn

# ---- batches ------------------------------------------------------------------------------------


def test_batches_of_every_kind_are_read(device: Device) -> None:
    torch = pytest.importorskip("torch")

    def strided(a: Array) -> Array:
        return np.repeat(a, 2, axis=0)[::2]

    kinds: dict[str, Callable[[Array], Any]] = {
        "fortran": np.asfortranarray, "strided": strided, "torch": torch.from_numpy,
        "device": device.put, "reversed": lambda a: a[::-1].copy()[::-1],
    }  # fmt: skip
    expected = train(tg.TrainStep, device.name)
    for kind, wrap in kinds.items():
        data = [(wrap(x), wrap(t)) for x, t in batches()]
        for i, (x, t) in enumerate(batches()):  # mixed with NumPy's
            if i % 3 == 2:
                data[i] = (x, t)
        result = train(tg.TrainStep, device.name, data=data)
        try:
            result.assert_same(expected)
        except BaseException as failure:
            raise AssertionError(f"{kind}: {failure}") from failure


def test_a_batch_may_change_once_it_was_given(device: Device) -> None:
    data = [(x.copy(), t.copy()) for x, t in batches()]

    def scribble(i: int, model: nn.Module, optimizer: Any) -> None:
        if i:
            data[i - 1][0][...], data[i - 1][1][...] = np.nan, -1

    train(tg.TrainStep, device.name, data=data, between=scribble, accumulate=2).assert_same(
        train(tg.TrainStep, device.name, accumulate=2)
    )


BAD: dict[str, tuple[Callable[[Array, Array], tuple[Any, Any]], Any, str]] = {
    "features": (lambda x, t: (x[:, 1:], t), ValueError, "linear"),
    "dtype": (lambda x, t: (x.astype("f8"), t), TypeError, "float64"),
    "swapped": (lambda x, t: (x.astype(x.dtype.newbyteorder()), t), TypeError, "byte"),
    "rows": (lambda x, t: (x, t[:-1]), ValueError, "class indices"),
    "list": (lambda x, t: (x.tolist(), t), TypeError, "list"),
    "floats": (lambda x, t: (x, t.astype("f4")), ValueError, "class probabilities"),
    "bool": (lambda x, t: (x, t > 1), TypeError, "integer"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_batch_leaves_everything_as_it_was(bad: str, device: Device) -> None:
    make_bad, kind, text = BAD[bad]

    class Interrupted(tg.TrainStep):
        def __call__(self, x: Any, t: Any) -> Any:
            state = tg._random.get_state()
            with pytest.raises(kind, match=f"(?s){text}"):
                super().__call__(*make_bad(x, t))
            tg._random.set_state(state)
            return super().__call__(x, t)

    train(Interrupted, device.name, accumulate=2).assert_same(
        train(tg.TrainStep, device.name, accumulate=2)
    )


def test_a_target_out_of_range_gives_a_nan_loss_there(device: Device) -> None:
    tg.manual_seed(1)
    model = network().to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    x, t = batches()[0]
    bad = t.copy()
    bad[2] = CLASSES
    for _ in range(3):
        if device.name == "cpu":
            with error(ValueError, "cross_entropy", "got 3"):
                step(x, bad)
        else:
            assert np.isnan(float(step(x, bad)))
            assert all(np.isfinite(host(p.data)).all() for p in model.parameters())
        assert np.isfinite(float(step(x, t)))


def test_losses_are_not_overwritten_by_later_steps(device: Device) -> None:
    tg.manual_seed(1)
    model = network().to(device.name)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    late, at_once = [], []
    for x, t in batches():
        late.append(step(x, t))
        at_once.append(float(late[-1]))
    assert [float(loss) for loss in late] == at_once
    assert len(set(at_once)) == STEPS
    if device.name != "cpu":
        assert all(type(loss) is tg.Array and loss.shape == () for loss in late)


# ---- memory, streams, threads -------------------------------------------------------------------


@pytest.fixture
def no_leak(device: Device) -> Iterator[None]:
    module = backends.at(backends.place_of(device.name))
    if device.name == "cpu":
        yield
        return
    gc.collect()
    tg.release_memory()
    before = module.memory_in_use()
    yield
    gc.collect()
    tg.release_memory()
    assert module.memory_in_use() == before


def test_a_step_owns_its_memory(device: Device, no_leak: None) -> None:
    """What a graph reads and writes is handed to nobody else, and all of it is given back."""
    tg.manual_seed(1)
    model = network().to(device.name)
    step = tg.TrainStep(
        model, nn.CrossEntropyLoss(), OPTIMISERS["adam"](model), max_norm=0.5, accumulate=2
    )
    data = batches(sizes=(6, 6, 6, 6, 3, 3), steps=12)
    others = []
    for i, (x, t) in enumerate(data):
        step(x, t)
        gc.collect()
        tg.release_memory()
        others += [device.put(np.full(n, i, "f4")) for n in range(1, 40)]
    for i in range(len(data)):
        for other in others[39 * i : 39 * (i + 1)]:
            assert (host(other) == i).all()


def test_a_step_may_run_on_any_stream(device: Device, no_leak: None) -> None:
    expected = train(tg.TrainStep, device.name, optimiser="sgd")
    if device.name == "cpu":
        with pytest.raises(ValueError, match="the cpu has no streams"):
            tg.cuda.Stream(device.name)
        return
    streams = [tg.cuda.Stream(device.name) for _ in range(2)]
    place = backends.place_of(device.name)
    module = backends.at(place)
    shared = module.current_stream(place)

    def switch(i: int, model: nn.Module, optimizer: Any) -> None:
        tg.cuda.synchronize(device.name)  # one stream does not wait for the other
        module.set_stream(place, (shared, *(s.handle for s in streams))[i % 3])

    try:
        result = train(tg.TrainStep, device.name, optimiser="sgd", between=switch)
        tg.cuda.synchronize(device.name)
    finally:
        module.set_stream(place, shared)
    result.assert_same(expected)


def test_two_steps_run_in_two_threads(device: Device) -> None:
    """Each captures a graph while the other one allocates and launches."""

    def steps() -> list[float]:
        losses = []
        for _ in range(3):  # each new TrainStep captures anew
            step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.0))
            losses += [float(step(x, t)) for x, t in data]
        return losses

    tg.manual_seed(1)
    model = nn.Linear(FEATURES, CLASSES, activation="tanh").to(device.name)
    data = batches()
    expected = steps()
    models = [copy.deepcopy(model) for _ in range(3)]
    failures: list[Any] = []

    def work(own: nn.Module) -> None:
        try:
            for _ in range(2):
                losses = []
                for _ in range(3):
                    optimizer = tg.optim.SGD(own.parameters(), 0.0)
                    step = tg.TrainStep(own, nn.CrossEntropyLoss(), optimizer)
                    losses += [float(step(x, t)) for x, t in data]
                assert losses == expected
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(own,)) for own in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
