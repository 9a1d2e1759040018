# SPDX-License-Identifier: MIT
"""What a call costs the host: tiny operands, so that the GPU never is what is waited for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad.bench import gpu_op_model
from tilegrad.bench.device import HOST, TOLERANCE, Workbench, checked, host, tensor
from tilegrad.bench.environment import torch
from tilegrad.bench.harness import OURS, Call, Case, Contest

_N = 8


def cases(bench: Workbench) -> list[Case]:
    """Return the cases; each is timed as calls in a row, none of which is waited for."""
    n = 4 * _N * _N
    return [
        Case(HOST, f"{name} {_N}x{_N} f32", 3.0 * n, 2.0 * _N**3, partial(_build, bench, name),
             True, False, gpu_op_model.host_call())
        for name in ("matmul", "relu", "linear")
    ]  # fmt: skip


def _build(bench: Workbench, name: str) -> Contest:
    a, b = bench.normal("float32", _N, _N), bench.normal("float32", _N, _N)
    bias, out = bench.normal("float32", _N), bench.empty("float32", _N, _N)
    ours: dict[str, Callable[[], Any]] = {
        "matmul": lambda: tg.matmul(a, b, out=out),
        "relu": lambda: tg.relu(a, out=out),
        "linear": lambda: tg.linear(a, b, bias, out=out),
    }
    sides: dict[str, Call] = {OURS: ours[name]}
    if (pt := torch()) is not None:
        ta, tb, tbias, tout = (tensor(part) for part in (a, b, bias, bench.empty("float32", 8, 8)))
        theirs: dict[str, Callable[[], Any]] = {
            "matmul": lambda: pt.mm(ta, tb, out=tout),
            "relu": lambda: pt.relu(ta),
            "linear": lambda: pt.nn.functional.linear(ta, tb, tbias),
        }
        sides["torch"] = theirs[name]
    expected: dict[str, Callable[[], Any]] = {
        "matmul": lambda: host(a) @ host(b),
        "relu": lambda: np.maximum(host(a), 0),
        "linear": lambda: host(a) @ host(b).T + host(bias),
    }
    return checked(bench, sides, expected[name], TOLERANCE["float32"])
