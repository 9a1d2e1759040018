# SPDX-License-Identifier: MIT
"""Run the command, here or in a process of its own, and read what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import safetensors.numpy

from tilegrad.cli import main


def python(*arguments: str, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, "-m", "tilegrad", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def digits(out: Path, *arguments: str) -> int:
    return main(["train", "--data", "digits", "--out", str(out), *arguments])


def history_of(out: Path) -> dict:
    return json.loads((out / "history.json").read_text())


def tensors_of(path: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor, without the state beside them."""
    return {name: tensor.tobytes() for name, tensor in safetensors.numpy.load_file(path).items()}


def assert_one_line(capsys, command: str, part: str) -> None:
    error = capsys.readouterr().err
    assert error.startswith(f"tilegrad {command}: ")
    assert error.count("\n") == 1
    assert part in error
