# SPDX-License-Identifier: MIT
"""Many Python threads that call ops at once: thread_runs.py DEVICE THREADS ROUNDS."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

import tilegrad as tg
from bit_runs import host
from children import run
from tilegrad import nn

TARGETS = np.random.default_rng(1).integers(0, 10, 32)
KINDS = 4


class Work:
    """Calls on inputs that all threads share, and a model of each thread's own."""

    def __init__(self, device: str) -> None:
        self.device = device
        n = 200 if device == "cpu" else 24
        a = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
        self.a = tg.asarray(a, device=device)
        self.shared = nn.Linear(n, n).to(device).eval()

    def __call__(self, number: int, kind: int) -> str:
        digest = hashlib.sha256()
        for value in (self.products, self.losses, self.training, self.elementwise)[kind](number):
            digest.update(host(value).tobytes())
        return digest.hexdigest()

    def products(self, number: int) -> list[Any]:
        return [tg.matmul(self.a, self.a), tg.linear(self.a, self.a, None, "gelu"),
                self.shared.predict(self.a)]  # fmt: skip

    def losses(self, number: int) -> list[Any]:
        x = np.random.default_rng(number).standard_normal((32, 10)).astype(np.float32)
        values = [tg.asarray(v, device=self.device) for v in (x, TARGETS)]
        return [*tg.cross_entropy_value_and_grad(*values), tg.softmax(self.a, 1)]

    def training(self, number: int) -> list[Any]:
        model = nn.Sequential(nn.Linear(20, 30, activation="relu"), nn.Linear(30, 10))
        for i, parameter in enumerate(model.parameters()):
            rng = np.random.default_rng(i)
            parameter.data = rng.standard_normal(parameter.shape).astype(np.float32)
        model.to(self.device)
        optimizer = tg.optim.Adam(model.parameters())
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), optimizer, max_norm=1.0)
        rng = np.random.default_rng(number)
        losses = [step(rng.standard_normal((32, 20)).astype(np.float32), TARGETS) for _ in range(3)]
        return [*losses, *(parameter.data for parameter in model.parameters())]

    def elementwise(self, number: int) -> list[Any]:
        values = [tg.dropout(self.a, 0.3, seed=7, offset=number), tg.gelu(self.a)]
        return [*values, tg.relu_backward(self.a, self.a)]


def at_once(device: str, threads: int, rounds: int) -> dict[str, int]:
    """Compare what the threads get with what each call gives by itself."""
    work = Work(device)
    expected = [[work(number, kind) for kind in range(KINDS)] for number in range(threads)]
    different: list[tuple[int, int]] = []
    errors: list[str] = []
    barrier = threading.Barrier(threads)

    def call(number: int) -> None:
        barrier.wait()
        try:
            for i in range(rounds * KINDS):
                kind = (i + number) % KINDS
                if work(number, kind) != expected[number][kind]:
                    different.append((number, kind))
        except Exception as error:
            errors.append(repr(error))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(threads)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not different, different[:5]
    assert not errors, errors[:5]
    return {"threads": threads, "calls": threads * rounds * KINDS, "different": 0, "errors": 0}


def in_a_process(device: str, threads: int, rounds: int) -> dict[str, Any]:
    env = {"TILEGRAD_NUM_THREADS": "4"}
    result: dict[str, Any] = json.loads(
        run(Path(__file__), device, threads, rounds, env=env, timeout=1200)
    )
    return result


if __name__ == "__main__":
    print(json.dumps(at_once(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
