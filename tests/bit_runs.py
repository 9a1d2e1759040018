# SPDX-License-Identifier: MIT
"""A training whose bits must be the same in every process: bit_runs.py DEVICE prints their hash."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import Any

import numpy as np

import tilegrad as tg
from children import run
from tilegrad import nn

SCHEDULES = ("forward/eager", "reverse/lazy", "random")
THREADS = (1, 2, 3, 4, 7)


def train(device: str) -> str:
    """Train, evaluate and draw; return a hash of all that came out."""
    digest = hashlib.sha256()
    tg.manual_seed(3)
    large = device == "cpu"
    sizes = (784, 300, 100, 10) if large else (20, 30, 24, 10)
    model = nn.Sequential(
        nn.Linear(sizes[0], sizes[1], activation="gelu"), nn.Dropout(0.2),
        nn.Linear(sizes[1], sizes[2], activation="relu"), nn.Linear(sizes[2], sizes[3]),
    )  # fmt: skip
    model.to(device)
    optimizer = tg.optim.AdamW(model.parameters(), 0.01)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.1)
    step = tg.TrainStep(model, loss_fn, optimizer, max_norm=1.0)
    rng = np.random.default_rng(0)
    rows = 128 if large else 24
    x = rng.standard_normal((10 * rows, sizes[0])).astype(np.float32)
    y = rng.integers(0, 10, len(x))
    for i in range(10 if large else 3):
        batch = slice(i * rows, (i + 1) * rows)
        digest.update(host(step(x[batch], y[batch])).tobytes())
    model.eval()
    output = model(tg.asarray(x[:rows], device=device))
    a = tg.asarray(x[:rows, :20].copy(), device=device)
    for value in (output, tg.softmax(output, 1), tg.matmul(a, a, transpose_b=True), tg.relu(a)):
        digest.update(host(value).tobytes())
    for parameter in model.parameters():
        digest.update(host(parameter.data).tobytes())
    return digest.hexdigest()


def host(value: Any) -> Any:
    return tg.asarray(value, device="cpu") if isinstance(value, tg.Array) else np.asarray(value)


def hash_of(device: str, number: int) -> str:
    """Return the hash of a fresh process, the `number`-th in a list of all settings."""
    threads = THREADS[number % len(THREADS)]
    schedule = SCHEDULES[number % len(SCHEDULES)]
    if schedule == "random":
        schedule = f"random:{number}/random"
    cores = sorted(os.sched_getaffinity(0))
    one_core = cores[number % len(cores)] if number // len(THREADS) % 2 else None
    code = f"import os, bit_runs; {{}}print(bit_runs.train({device!r}))".format(
        "" if one_core is None else f"os.sched_setaffinity(0, [{one_core}]); "
    )
    env = {"TILEGRAD_NUM_THREADS": str(threads), "TILEGRAD_SIM_SCHEDULE": schedule}
    return run(code, env=env, timeout=600).strip()


def repeat(device: str, runs: int) -> dict[str, Any]:
    """Run so often; AssertionError if one hash differs."""
    hashes = [hash_of(device, number) for number in range(runs)]
    assert len(set(hashes)) == 1, f"{device}: {sorted(set(hashes))}"
    settings = list(THREADS) if device == "cpu" else list(SCHEDULES)
    return {
        "runs": runs,
        "settings": settings,
        "distinct_hashes": len(set(hashes)),
        "sha256": hashes[0],
    }


if __name__ == "__main__":
    print(train(sys.argv[1]))
