# SPDX-License-Identifier: MIT
"""Trainings that are killed (SIGKILL) at random moments and started again.

Run as a program it is the training: kill_runs.py CHECKPOINT EPOCHS.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from children import start
from tilegrad import fit, manual_seed, nn, optim
from tilegrad._callbacks import Callback, Training
from tilegrad._checkpoint import read

COMMAND = "import sys; from tilegrad.cli import main; sys.exit(main())"


class Tell(Callback):
    def on_train_begin(self, training: Training) -> None:
        print(training.epoch, flush=True)


def train(checkpoint: str, epochs: int) -> None:
    """Train with dropout, momentum and a schedule; a checkpoint after every three steps."""
    manual_seed(1)
    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 90)
    x = (rng.standard_normal((90, 4)) + 3 * np.eye(3, 4)[y]).astype(np.float32)
    model = nn.Sequential(nn.Linear(4, 8, activation="gelu"), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    fit(
        model, nn.CrossEntropyLoss(), optimizer, (x, y), epochs=epochs, batch_size=32, seed=1,
        callbacks=[Tell()], checkpoint=checkpoint, progress=False, accuracy_samples=0,
        scheduler=optim.lr_scheduler.StepLR(optimizer, 100, 0.9),
    )  # fmt: skip


def content(path: Path) -> tuple[int, dict[str, Any]]:
    """Return the number of epochs and all that a checkpoint holds but the times."""
    tensors, state = read(path)  # checks every byte
    assert state is not None
    history = dict(state["history"])
    for name in ("seconds", "samples_per_second"):
        history.pop(name, None)
    values = {name: tensor.tobytes() for name, tensor in tensors.items()}
    return len(history["epochs"]), {**state, "history": history, "values": values}


def kill_fit(kills: int, folder: Path, seed: int = 0, longest: float = 0.15) -> dict[str, Any]:
    """Kill a training so often; each life begins where the one before it had saved."""
    draw = random.Random(seed)
    path = folder / "checkpoint.safetensors"
    done = before_first = while_writing = strays = 0
    for _ in range(kills):
        child = start(Path(__file__), path, 10**9)
        assert child.stdout is not None
        if draw.random() < 0.9:
            resumed = child.stdout.readline()
            assert resumed.strip() == str(done), f"resumed after {resumed!r}, saved were {done}"
            time.sleep(draw.uniform(0, longest))
        else:
            time.sleep(draw.uniform(0, 0.3))
        child.kill()
        _, err = child.communicate(timeout=60)
        assert err == "", err
        left = [p.name for p in folder.iterdir() if p != path]
        while_writing += len(left) > 0
        strays = max(strays, len(left))
        if not path.exists():
            before_first += 1
            continue
        epochs, _ = content(path)
        assert epochs >= done, f"the file went back from epoch {done} to {epochs}"
        done = epochs
    straight = folder / "straight"
    straight.mkdir()
    for where in (path, straight / path.name):
        child = start(Path(__file__), where, done + 1)
        _, err = child.communicate(timeout=1200)
        assert (child.returncode, err) == (0, "")
    assert content(path) == content(straight / path.name), "not the bits of an unbroken run"
    names = {p.name for p in folder.iterdir()}
    assert names == {path.name, "straight"}, f"left behind: {sorted(names)}"
    return {
        "kills": kills, "epochs": done, "steps": 3 * done, "killed_while_writing": while_writing,
        "killed_before_the_first_checkpoint": before_first, "most_temporary_files": strays,
        "temporary_files_at_the_end": 0, "bits_equal_an_unbroken_run": True,
    }  # fmt: skip


def kill_command(kills: int, folder: Path, seed: int = 0, epochs: int = 60) -> dict[str, Any]:
    """Kill `tilegrad train` at most so often and resume it until it ends."""
    draw = random.Random(seed)
    options = ("train", "--data", "digits", "--epochs", epochs, "--no-progress", "--out")
    killed = 0
    broken, straight = folder / "broken", folder / "straight"
    while True:
        resume = ["--resume"] if (broken / "checkpoint.safetensors").exists() else []
        child = start(COMMAND, *options, broken, *resume)
        if killed == kills:
            break
        try:
            child.wait(timeout=draw.uniform(0.2, 1.2))
            break
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate(timeout=60)
            killed += 1
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, out + err
    child = start(COMMAND, *options, straight)
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, out + err
    same = (broken / "model.safetensors").read_bytes() == (
        straight / "model.safetensors"
    ).read_bytes()
    assert same, "not the bits of an unbroken run"
    files = {p.name for p in broken.iterdir()}
    assert files == {p.name for p in straight.iterdir()}, f"left behind: {sorted(files)}"
    return {"kills": killed, "epochs": epochs, "bits_equal_an_unbroken_run": True,
            "temporary_files_at_the_end": 0}  # fmt: skip


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]))
