# SPDX-License-Identifier: MIT
"""Trainings that are interrupted, resumed or cannot write."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import time

import pytest

from cli_runs import assert_one_line, digits, history_of, python, tensors_of
from tilegrad import _cli_train
from tilegrad._cli_settings import Settings
from tilegrad._save import load
from tilegrad.cli import main


def interrupt_in_epoch(monkeypatch, epoch: int) -> None:
    def begin(self, training):
        if training.epoch == epoch:
            raise KeyboardInterrupt

    monkeypatch.setattr(_cli_train._Place, "on_epoch_begin", begin)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    options = ("--epochs", "6", "--patience", "5", "--optimizer", "adamw", "--seed", "3")
    assert digits(tmp_path / "whole", *options) == 0
    with monkeypatch.context() as patch:
        interrupt_in_epoch(patch, 4)
        assert digits(tmp_path / "run", *options) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'run' / 'checkpoint.safetensors'} is whole, as of epoch 3" in error
    command = shlex.split(error.split("Go on with: ")[1])
    assert command[0] == "tilegrad"
    assert main(command[1:]) == 0
    whole, run = (tmp_path / folder / "model.safetensors" for folder in ("whole", "run"))
    assert run.read_bytes() == whole.read_bytes()
    whole, run = (tmp_path / folder / "checkpoint.safetensors" for folder in ("whole", "run"))
    assert tensors_of(run) == tensors_of(whole)  # the state beside them has the seconds
    whole, run = (history_of(tmp_path / folder) for folder in ("whole", "run"))
    assert run["history"]["val_loss"] == whole["history"]["val_loss"]
    assert run["settings"] == whole["settings"]
    seconds = sum(run["history"]["seconds"][3:])  # of the three epochs of the second call alone
    assert run["samples_per_second"] == pytest.approx(3 * 1293 / seconds)


def test_a_finished_run_can_be_resumed_to_nothing_left(tmp_path, capsys):
    assert digits(tmp_path, "--epochs", "2") == 0
    before = (tmp_path / "model.safetensors").read_bytes()
    assert digits(tmp_path, "--resume") == 0
    assert "no epoch was left to train" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_more_epochs_where_no_schedule_counts_on_them(tmp_path, capsys):
    assert digits(tmp_path, "--epochs", "2", "--schedule", "none", "--quiet") == 0
    assert digits(tmp_path, "--resume", "--epochs", "3", "--quiet") == 0
    assert history_of(tmp_path)["history"]["epochs"] == [1, 2, 3]
    assert digits(tmp_path, "--epochs", "2", "--quiet") == 0
    capsys.readouterr()
    assert digits(tmp_path, "--resume", "--epochs", "3") == 1
    assert_one_line(capsys, "train", "the cosine schedule was laid out for 2 epochs")


def test_an_interruption_before_the_first_checkpoint(tmp_path, monkeypatch, capsys):
    assert digits(tmp_path, "--epochs", "1", "--quiet") == 0
    model = (tmp_path / "model.safetensors").read_bytes()
    interrupt_in_epoch(monkeypatch, 1)
    assert digits(tmp_path) == 130
    assert "interrupted before a first epoch was saved" in capsys.readouterr().err
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert (tmp_path / "model.safetensors").read_bytes() == model


def test_ctrl_c_leaves_a_whole_checkpoint(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    run = python("train", "--data", "digits", "--out", str(tmp_path), "--epochs", "100000")
    try:
        end = time.monotonic() + 60
        while not checkpoint.exists() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        _, error = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130, error
    assert "Traceback" not in error
    assert re.search(r"is whole, as of epoch \d+\. Go on with: tilegrad train --resume", error)
    settings = json.loads((tmp_path / "settings.json").read_text())
    settings["hidden"] = tuple(settings["hidden"])
    load(checkpoint, _cli_train.build_model((64, 128, 10), Settings(**settings)))


def test_a_disk_that_is_full(tmp_path):
    resource = pytest.importorskip("resource", reason="limits on file sizes are a thing of Unix")
    run = python(
        "train", "--data", "digits", "--epochs", "2", "--out", str(tmp_path / "run"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    last = error.splitlines()[-1]
    assert last.startswith("tilegrad train: ")
    assert os.strerror(errno.EFBIG) in last
    assert "Traceback" not in error
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"settings.json"}


def test_results_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    def full(path, model):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(_cli_train, "save", full)
    assert digits(tmp_path, "--epochs", "1", "--quiet") == 1
    assert_one_line(capsys, "train", "model.safetensors: No space left on device")


@pytest.mark.parametrize(
    ("content", "rule"),
    [("{", "settings.json is damaged"), ("[]", "must have data, hidden"), (None, "there is no ")],
)
def test_resuming_from_what_is_no_run(tmp_path, capsys, content, rule):
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
        (tmp_path / "checkpoint.safetensors").write_bytes(b"")
    assert digits(tmp_path, "--resume") == 1
    assert_one_line(capsys, "train", rule)


def test_resuming_with_other_settings_or_a_damaged_checkpoint(tmp_path, capsys):
    assert digits(tmp_path, "--epochs", "1", "--quiet") == 0
    capsys.readouterr()
    assert digits(tmp_path, "--resume", "--lr", "0.25") == 1
    assert_one_line(capsys, "train", "--lr was 0.005 in the run to resume; got 0.25")
    file = tmp_path / "checkpoint.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    assert digits(tmp_path, "--resume", "--quiet") == 1
    assert_one_line(capsys, "train", "checkpoint.safetensors")
