# SPDX-License-Identifier: MIT
"""Each allocation of a piece of work fails once: allocation_runs.py LIBRARY KIND MOST ALL_AFTER."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tilegrad as tg
from bit_runs import host
from children import run
from tilegrad import nn

X, Y = np.ones((7, 20), np.float32), np.arange(7) % 5
Call = Callable[[], Any]
State = Callable[[], list[bytes]]


def nothing() -> list[bytes]:
    return []


def product(device: str) -> tuple[Call, State]:
    a = tg.asarray(np.ones((40, 70), np.float32), device=device)
    return lambda: tg.matmul(a, a, transpose_b=True), nothing


def large(device: str) -> tuple[Call, State]:
    a = np.ones((400, 700), np.float32)

    def call() -> None:
        tg.release_memory()
        tg.matmul(a, a, transpose_b=True)
        tg.softmax(a.T, 0)

    return call, nothing


def network(device: str) -> tuple[nn.Module, tg.optim.Optimizer, State]:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30, activation="relu"), nn.Dropout(0.2), nn.Linear(30, 5))
    model.to(device)
    optimizer = tg.optim.Adam(model.parameters())
    return model, optimizer, lambda: [host(p.data).tobytes() for p in model.parameters()]


def recorded(device: str) -> tuple[Call, State]:
    """A new TrainStep each time: the plan is made and run."""
    model, optimizer, state = network(device)

    def call() -> None:
        tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer, max_norm=1.0)(X, Y)

    return call, state


def replayed(device: str) -> tuple[Call, State]:
    model, optimizer, state = network(device)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
    step(X, Y)
    return lambda: step(X, Y), state


def long_form(device: str) -> tuple[Call, State]:
    """Its last call, the update, changes the weights: it fails before or it is done."""
    model, optimizer, state = network(device)
    loss_fn = nn.CrossEntropyLoss()

    def call() -> None:
        optimizer.zero_grad()
        loss_fn(model(tg.asarray(X, device=device)), tg.asarray(Y, device=device))
        model.backward(loss_fn.backward())
        optimizer.step()

    return call, state


KINDS = {
    "product on cpu": (product, "cpu"),
    "large products on cpu": (large, "cpu"),
    "step recorded on cpu": (recorded, "cpu"),
    "step replayed on cpu": (replayed, "cpu"),
    "long form on cpu": (long_form, "cpu"),
    "product on sim": (product, "sim"),
    "step recorded on sim": (recorded, "sim"),
    "step replayed on sim": (replayed, "sim"),
    "long form on sim": (long_form, "sim"),
}


def fail_each(library: str, kind: str, most: int, all_after: bool) -> dict[str, Any]:
    failing = ctypes.CDLL(library)
    failing.allocations_left.restype = ctypes.c_long
    make, device = KINDS[kind]
    call, state = make(device)
    call()
    errors: Counter[str] = Counter()
    number = 0
    while number < most:
        before = state()
        failing.fail_allocation(ctypes.c_long(number), int(all_after))
        error: Exception | None = None
        try:
            call()
        except (MemoryError, RuntimeError) as raised:
            error = raised
        failed = failing.allocations_left() < 0 or (all_after and error is not None)
        failing.fail_allocation(ctypes.c_long(-1), 0)
        if error is not None:
            errors[type(error).__name__] += 1
            # The simulator's own work may fail between two kernels of a step, as a device may.
            if device == "cpu":
                assert state() == before, f"allocation {number} failed and left weights changed"
            text = str(error)
            assert "memory" in text or "bad_alloc" in text or not text or "llocat" in text, text
        if not failed:
            break
        number += 1
        call()  # the process goes on
    return {"allocations": number, "errors": dict(errors), "crashes": 0}


def build(folder: Path) -> Path:
    """Compile the library; CalledProcessError where there is no compiler for it."""
    library = folder / "fail_allocations.so"
    source = Path(__file__).parent / "fail_allocations.cpp"
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", source, "-o", library]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    return library


def in_a_process(library: Path, kind: str, most: int, all_after: bool = False) -> dict[str, Any]:
    out = run(
        Path(__file__), library, kind, most, int(all_after), timeout=1200,
        env={"LD_PRELOAD": str(library), "TILEGRAD_NUM_THREADS": "1"},
    )  # fmt: skip
    result: dict[str, Any] = json.loads(out)
    return result


if __name__ == "__main__":
    print(json.dumps(fail_each(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")))
