# SPDX-License-Identifier: MIT
"""fit: checkpoints resume bit for bit, and Ctrl-C leaves them whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fit_runs import TRAIN, VALIDATION, Handmade, Run, network, quick
from tilegrad import _interrupts, _random, manual_seed, nn, optim
from tilegrad._callbacks import Callback, EarlyStopping, History, Training
from tilegrad._fit import fit
from tilegrad._save import load
from tilegrad.optim.lr_scheduler import StepLR


@pytest.mark.parametrize("name", ["adam", "momentum", "adamw", "plateau", "warm-up"])
@pytest.mark.parametrize("done", [1, 3])
def test_resuming_continues_bit_for_bit(tmp_path: Path, name: str, done: int) -> None:
    straight = Run(name, 1)
    straight.fit(5)
    path = tmp_path / "checkpoint"
    Run(name, 1).fit(done, path)
    resumed = Run(name, 99)  # other weights, order and random stream: all come from the file
    history = resumed.fit(5, path)
    assert history.epochs == [1, 2, 3, 4, 5]
    assert resumed.state() == straight.state()


def test_checkpoints_do_not_change_training(tmp_path: Path) -> None:
    plain = Run("adam", 2)
    plain.fit(3)
    saved = Run("adam", 2)
    saved.fit(3, tmp_path / "checkpoint")
    assert plain.state() == saved.state()


def script(tmp_path: Path, code: str, *args: object) -> subprocess.Popen[str]:
    folder = Path(__file__).parent
    source = str(Path(_interrupts.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{folder}"}
    head = """
import signal, sys
from pathlib import Path
from fit_runs import *
from tilegrad import nn
from tilegrad._callbacks import Callback
from tilegrad._fit import fit
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip


def test_a_new_process_continues_bit_for_bit(tmp_path: Path) -> None:
    straight = Run("adam", 1)
    straight.fit(4)
    path = tmp_path / "checkpoint"
    Run("adam", 1).fit(2, path)
    code = "run = Run('adam', 5); run.fit(4, Path(sys.argv[1])); print(run.state())"
    child = script(tmp_path, code, path)
    out, err = child.communicate(timeout=60)
    assert (out.strip(), err) == (straight.state(), "")


def test_a_stopped_run_stays_stopped_with_its_best_weights(tmp_path: Path) -> None:
    results = []
    for seed in (1, 2):
        run = Run("adam", seed)
        run.optimizer.param_groups[0]["lr"] = 2.0  # soon gets worse
        history = run.fit(30, tmp_path / "checkpoint")
        assert run.stopping.stopped
        results.append(run.state())
    assert results[0] == results[1]
    assert len(history.epochs) < 30
    assert history.best_epoch == run.stopping.best_epoch == len(history.epochs) - 2


def test_a_finished_run_is_only_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "checkpoint"
    run = Run("adam", 1)
    run.fit(3, path)
    content = path.read_bytes()
    model = network()
    optimizer = optim.Adam(model.parameters())
    history = quick(
        model=model, optimizer=optimizer, scheduler=StepLR(optimizer, 1), checkpoint=path,
        epochs=2, progress=True,
    )  # fmt: skip
    assert history.epochs == [1, 2, 3]
    assert path.read_bytes() == content
    assert capsys.readouterr().err == f"fit: resumed after epoch 3 from {path}\n"


def test_a_checkpoint_that_does_not_fit_stops_before_training(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    quick(checkpoint=path)
    content = path.read_bytes()
    model = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 3))
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(ValueError, match=rf"load: {path}: "):
        quick(model=model, checkpoint=path, epochs=3)
    with pytest.raises(ValueError, match=r"must be \[\]; got \['EarlyStopping'\]"):
        quick(checkpoint=path, epochs=3, callbacks=[EarlyStopping("train_loss")])
    assert path.read_bytes() == content
    for parameter, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(parameter.data, old)
    path.write_bytes(content[:-3])
    with pytest.raises(ValueError, match=rf"load: {path}: "):
        quick(checkpoint=path, epochs=3)
    assert path.read_bytes() == content[:-3]


def test_a_checkpoint_needs_the_extra_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"tilegrad\[io\]"):
        quick(checkpoint=tmp_path / "checkpoint")


class Interrupt(Callback):
    def __init__(self, method: str, epoch: int, action: Callable[[], object]) -> None:
        self.epoch, self.action = epoch, action
        setattr(self, method, self._act)

    def _act(self, training: Training) -> None:
        if training.epoch == self.epoch and (training.batch in (0, 3, 6)):
            self.action()


def throw() -> None:
    raise KeyboardInterrupt


def sigint() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("action", [throw, sigint])
@pytest.mark.parametrize("method", ["on_epoch_begin", "on_batch_end", "on_epoch_end"])
def test_an_interrupted_run_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, action: Callable[[], object]
) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        straight = Run("momentum", 1)
        straight.fit(4)
        path = tmp_path / "checkpoint"
        run = Run("momentum", 1)
        callbacks = [run.stopping, Interrupt(method, 3, action)]
        with pytest.raises(KeyboardInterrupt):
            fit(
                run.model, nn.CrossEntropyLoss(), run.optimizer, TRAIN, VALIDATION, epochs=4,
                batch_size=16, callbacks=callbacks, checkpoint=path, progress=False,
                scheduler=run.scheduler, seed=1, max_norm=0.5,
            )  # fmt: skip
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert all(m.training for m in run.model.modules())
    history = History()
    load(path, network(), history=history)
    assert history.epochs == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    resumed = Run("momentum", 3)
    resumed.fit(4, path)
    assert resumed.state() == straight.state()


def test_sigint_in_the_middle_of_a_step_waits_for_its_end() -> None:
    class Impatient(Handmade):
        def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
            if _random.get_state()["offset"] > 100:
                sigint()
            return super().backward(grad_output, input_grad)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        manual_seed(0)
        model = network()
        optimizer = optim.Adam(model.parameters())
        with pytest.raises(KeyboardInterrupt):
            quick(model=Impatient(model), optimizer=optimizer, epochs=50, batch_size=16)
    finally:
        signal.signal(signal.SIGINT, handler)
    steps = {state["step"] for state in optimizer.state.values()}
    assert len(steps) == 1  # every parameter has the same number of whole updates
    assert steps.pop() >= 2


def test_a_second_sigint_does_not_wait() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []
    try:
        interrupts = _interrupts.Interrupts()

        def twice() -> None:
            with interrupts, interrupts.held():
                sigint()
                reached.append("first")
                sigint()
                reached.append("second")

        with pytest.raises(KeyboardInterrupt):
            twice()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert reached == ["first"]


def test_a_sigint_that_a_destructor_swallows_is_raised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    swallowed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: swallowed.append(report.exc_type))
    reached = []

    class Unlucky:
        def __del__(self) -> None:
            sigint()

    def train() -> None:
        with _interrupts.Interrupts() as interrupts:
            Unlucky()  # Python prints what a destructor raises, and goes on
            reached.append("after the destructor")
            with interrupts.held():
                reached.append("the next batch")

    try:
        with pytest.raises(KeyboardInterrupt):
            train()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert swallowed == [KeyboardInterrupt]
    assert reached == ["after the destructor"]


def test_foreign_handlers_and_other_threads_are_left_alone() -> None:
    def mine(*_: Any) -> None:
        seen.append("mine")

    seen: list[Any] = []
    handler = signal.signal(signal.SIGINT, mine)
    try:
        history = quick(callbacks=[Interrupt("on_epoch_begin", 2, sigint)])
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, handler)
    assert seen == ["mine"]
    assert history.epochs == [1, 2]
    thread = threading.Thread(target=lambda: seen.append(quick().epochs))
    thread.start()
    thread.join()
    assert seen == ["mine", [1, 2]]


def test_a_real_sigint_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
class Tell(Callback):
    def on_epoch_begin(self, training):
        print(training.epoch, flush=True)
run = Run('adam', 1)
fit(run.model, nn.CrossEntropyLoss(), run.optimizer, TRAIN, epochs=10**6, batch_size=16, seed=1,
    callbacks=[Tell()], checkpoint=sys.argv[1], scheduler=run.scheduler, progress=False)
"""
    child = script(tmp_path, code, path)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == 4:
            child.send_signal(signal.SIGINT)
            break
    _, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]
    run, history = Run("adam", 7), History()
    load(path, run.model, run.optimizer, run.scheduler, history=history)
    assert len(history.epochs) >= 3
    straight = Run("adam", 1)
    quick(
        model=straight.model, optimizer=straight.optimizer, scheduler=straight.scheduler,
        epochs=len(history.epochs), batch_size=16, seed=1,
    )  # fmt: skip
    for mine, expected in zip(run.model.parameters(), straight.model.parameters(), strict=True):
        np.testing.assert_array_equal(mine.data, expected.data)
