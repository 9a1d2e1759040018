# SPDX-License-Identifier: MIT
"""What a process keeps after very many steps: growth_runs.py KIND COUNT measures one kind of work.

Memory is what the system counts as resident, before and after, the warm-up left out.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tilegrad as tg
from children import run
from tilegrad import nn

ALLOWED = 1024  # kilobytes
X, Y = np.ones((8, 8), np.float32), np.arange(8) % 2

KERNEL = """
extern "C" __global__ void fill_kernel(float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = %d;
}
"""


def network(device: str) -> tuple[nn.Module, tg.optim.Optimizer]:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8, activation="relu"), nn.Dropout(0.1), nn.Linear(8, 2))
    model.to(device)
    return model, tg.optim.Adam(model.parameters(), 1e-3)


def step(device: str) -> Callable[[int], object]:
    model, optimizer = network(device)
    train = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer, max_norm=1.0)
    x, y = (tg.asarray(a, device=device) for a in (X, Y))
    return lambda i: train(x, y)


def long_form(device: str) -> Callable[[int], object]:
    model, optimizer = network(device)
    loss_fn = nn.CrossEntropyLoss()
    x, y = (tg.asarray(a, device=device) for a in (X, Y))

    def train(i: int) -> None:
        optimizer.zero_grad()
        loss_fn(model(x), y)
        model.backward(loss_fn.backward(), input_grad=False)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return train


def shapes(device: str) -> Callable[[int], object]:
    """Batches of 1 to 1000 rows: a plan for each."""
    model, optimizer = network(device)
    train = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
    x, y = np.ones((1000, 8), np.float32), np.arange(1000) % 2

    def one(i: int) -> None:
        rows = 1 + i * 7 % 1000
        train(x[:rows], y[:rows])
        model.predict(x[:rows])

    return one


def modules(device: str) -> Callable[[int], object]:
    def one(i: int) -> None:
        model, optimizer = network(device)
        train = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer)
        train(X, Y)

    return one


def arrays(device: str) -> Callable[[int], object]:
    def one(i: int) -> None:
        a = tg.full((1 + i % 300, 7), 1.0, device=device)
        tg.asarray(tg.relu(a), device="cpu")

    return one


def streams(device: str) -> Callable[[int], object]:
    a = tg.ones((3, 3), device=device)

    def one(i: int) -> None:
        with tg.cuda.stream(tg.cuda.Stream(device)):
            tg.relu(a)

    return one


def traces(device: str) -> Callable[[int], object]:
    a = tg.ones((8, 8), device=device)

    def one(i: int) -> None:
        with tg.sim.trace() as trace:
            tg.softmax(a, 1)
        assert len(trace.sites) > 0

    return one


def faults(device: str) -> Callable[[int], object]:
    """Calls that are refused, half of them after something has been allocated."""
    a = tg.ones((8, 9), device=device)

    def one(i: int) -> None:
        for b in (a, tg.ones((9, 3), np.float64, device=device)):
            try:
                tg.matmul(a, b)
            except (ValueError, TypeError):
                continue
            raise AssertionError("accepted")

    return one


def compiled(device: str) -> Callable[[int], object]:
    y = tg.empty(100, device=device)

    def one(i: int) -> None:
        tg.sim.compile(KERNEL % i, name="fill.cu").fill_kernel[1, 128](y, 100)

    return one


KINDS: dict[str, tuple[Callable[[str], Callable[[int], object]], str]] = {
    "steps on cpu": (step, "cpu"),
    "steps in the long form on cpu": (long_form, "cpu"),
    "steps on sim": (step, "sim"),
    "steps in the long form on sim": (long_form, "sim"),
    "batches of 1 to 1000 rows on cpu": (shapes, "cpu"),
    "models made and dropped on cpu": (modules, "cpu"),
    "models made and dropped on sim": (modules, "sim"),
    "arrays made and dropped on sim": (arrays, "sim"),
    "streams made and dropped on sim": (streams, "sim"),
    "refused calls on cpu": (faults, "cpu"),
    "refused calls on sim": (faults, "sim"),
    "traces": (traces, "sim"),
    "compiled kernels": (compiled, "sim"),
}


def resident() -> int:
    """Return the kilobytes of this process that are in memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") // 1024


def measure(kind: str, count: int, warm_up: int) -> dict[str, Any]:
    make, device = KINDS[kind]
    one = make(device)
    for i in range(warm_up):
        one(i)
    before, start = resident(), time.perf_counter()
    for i in range(warm_up, warm_up + count):
        one(i)
    seconds = time.perf_counter() - start
    return {"count": count, "warm_up": warm_up, "before_kb": before,
            "growth_kb": resident() - before, "seconds": round(seconds, 2)}  # fmt: skip


def growth(kind: str, count: int, warm_up: int) -> dict[str, Any]:
    """Measure in a fresh process; AssertionError if more than `ALLOWED` came to stay."""
    out = run(Path(__file__), kind, count, warm_up, timeout=3600)
    result: dict[str, Any] = json.loads(out)
    assert result["growth_kb"] < ALLOWED, f"{kind}: {result}"
    return result


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
