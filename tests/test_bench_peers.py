# SPDX-License-Identifier: MIT
"""Peers: present, absent, wrong, held to an instruction set; the ONNX file; interruption."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from tilegrad import _cpu
from tilegrad.bench import environment, harness, report, session
from tilegrad.bench.workloads import _common, _onnx, all_cases

pytest.importorskip("torch", reason="benchmarks are beside PyTorch")

CASES = {case.id: case for case in all_cases()}
FOLDER = str(Path(tg.__file__).parents[1])
HEAD: dict[str, Any] = {
    "machine": {"cpu": "c", "caches": {}, "system": "s", "isa": "avx2", "python": "3"},
    "versions": {"tilegrad": "1", "numpy": "2", "torch": "3", "jax": None, "onnxruntime": None},
    "held": "avx2", "left_out": ["onnxruntime"],
    "limits": {"before": {"fma_gflops": 1.0, "copy_gbytes": 1.0}},
    "ceilings": {"fma_gflops": 1.0, "copy_gbytes": {"L1": 300.0, "memory": 20.0}},
    "threads": 1, "cores": [0], "cache": "hot", "load": [0.0],
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["matmul/64 TN", "linear/128x512->10 dweight", "activation/gelu tanh 10000 backward",
     "softmax/log_softmax 128x10@1 backward", "cross_entropy/128x10 value and grad",
     "train_step/Adam batch 32", "tiny/8-8-2 SGD step batch 1", "predict/784-512-512-10 batch 1"],
)  # fmt: skip
def test_jax_computes_the_same(name: str) -> None:
    pytest.importorskip("jax")
    contest = CASES[name].build()
    contest.check()
    assert "jax" in contest.peers
    assert contest.left_out == {}


@pytest.mark.parametrize("batch", [1, 32])
def test_onnxruntime_computes_the_same(batch: int) -> None:
    pytest.importorskip("onnxruntime")
    contest = CASES[f"predict/784-512-512-10 batch {batch}"].build()
    contest.check()
    assert {"onnxruntime", "onnxruntime bound"} <= set(contest.peers)
    assert contest.left_out == {}


def test_a_wrong_peer_is_left_out_and_named() -> None:
    calls = {"torch": lambda: np.ones(3), "jax": lambda: np.array([1.0, 1.0, 1.01])}
    contest = _common.contest(lambda: np.ones(3), calls, lambda: np.ones(3))
    contest.check()
    assert set(contest.peers) == {"torch"}
    assert contest.left_out == {"jax": "jax: result 0 is off by 0.01 of its range"}
    protocol = harness.Protocol(sample=1e-6, budget=0.0, fewest=3, most=3)
    case = harness.Case("matmul", "x", 1.0, 1.0, lambda: contest)
    found = harness.measure(case, None, protocol)
    assert set(found["ratios"]) == {"torch"}
    assert "jax left out: jax: result 0 is off" in report.row(found)


def test_our_own_wrong_result_stops_the_run() -> None:
    contest = _common.contest(lambda: np.zeros(3), {}, lambda: np.ones(3))
    with pytest.raises(AssertionError, match="tilegrad: result 0 is off by 1 of its range"):
        contest.check()


def test_peers_left_out_are_not_imported() -> None:
    script = """
import sys
from tilegrad.bench import environment
environment.leave_out(environment.PEERS)
from tilegrad.bench.workloads import all_cases
contest = next(case for case in all_cases() if case.id == "predict/784-512-512-10 batch 1").build()
print(list(contest.peers), [name for name in environment.PEERS if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100,
        env={**os.environ, "PYTHONPATH": FOLDER},
    )  # fmt: skip
    assert done.stdout.strip() == "['numpy'] []"


def test_peers_that_nobody_asked_for_are_left_out_not_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "_left_out", {"jax", "onnxruntime"})
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    assert environment.left_out() == ["jax", "onnxruntime"]
    assert not environment.is_installed("jax")
    text = report.heading({**HEAD, "held": "", "left_out": environment.left_out()})
    assert "; left out: jax, onnxruntime\n" in text
    assert "not installed" not in text


def test_heading_tells_the_dtypes() -> None:
    assert " core 0; float32, random normal; " in report.heading(HEAD, ["64 NN"])
    both = report.heading(HEAD, ["64 NN", "64 NN bf16"])
    assert " core 0; float32, bfloat16 where the name says bf16, random normal; " in both


def test_announced_time_tells_what_torch_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, other = CASES[session.COMPILED], CASES["matmul/64 NN"]
    assert session.announced([other], 3.2) == "1 case, about 3 s"
    assert session.announced([other, compiled], 60) == (
        "2 cases, about 60 s (25 s of it to compile by torch)"
    )
    ceilings = {"fma_gflops": 100.0, "copy_gbytes": {"memory": 10.0}}
    with_torch = session.expected_seconds([compiled], harness.Protocol(), ceilings)
    monkeypatch.setattr(environment, "_left_out", {"torch"})
    without = session.expected_seconds([compiled], harness.Protocol(), ceilings)
    assert with_torch - without == pytest.approx(25)
    assert "compile" not in session.announced([compiled], 60)


def test_all_are_held_to_one_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_numpy_features", lambda: ["X86_V3", "X86_V4", "AVX512_SPR"])
    variables = environment.variables(1, [0], "avx2")
    assert variables["MKL_ENABLE_INSTRUCTIONS"] == "AVX2"
    assert variables["NPY_DISABLE_CPU_FEATURES"] == "X86_V4 AVX512_SPR"
    lowest = environment.variables(1, [0], "generic")
    assert lowest["NPY_DISABLE_CPU_FEATURES"] == "X86_V3 X86_V4 AVX512_SPR"
    assert "MKL_ENABLE_INSTRUCTIONS" not in environment.variables(1, [0])


@pytest.mark.skipif("avx2" not in _cpu.supported_isas(), reason="this processor has no AVX2")
def test_held_peers_say_so_themselves() -> None:
    pytest.importorskip("torch")
    script = """
import torch, numpy as np
print(torch.backends.cpu.get_cpu_capability())
from numpy._core._multiarray_umath import __cpu_features__ as features
print([name for name in ("X86_V4", "AVX512F") if features.get(name)])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100,
        env={**os.environ, **environment.variables(1, [], "avx2")},
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "AVX2"
    assert done.stderr == ""  # NumPy knows all names that it is given


def test_heading_says_who_is_held() -> None:
    text = report.heading(HEAD)
    assert "TILEGRAD_CPU=avx2: numpy, torch are held to it too; onnxruntime cannot be" in text
    assert "not installed: jax; left out: onnxruntime" in text
    assert "by level, GB/s read and written: L1 300, memory 20" in text
    assert "held" not in report.heading({**HEAD, "held": ""})


def fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """Return the fields of a protocol buffer: the encoder's inverse, written apart from it."""
    found: list[tuple[int, int | bytes]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = number()
        value: int | bytes = number()
        if key & 7 == 2:
            at, start = at + int(value), at
            value = message[start:at]
        else:
            assert key & 7 == 0
        found.append((key >> 3, value))
    return found


def test_onnx_file_holds_the_network() -> None:
    w, b = np.arange(300 * 2, dtype=np.float32).reshape(2, 300), np.array([7, 8], np.float32)
    model = fields(_onnx.model([w, b, w[:, :2].copy(), b]))
    graph = fields(dict(model)[7])  # type: ignore[arg-type]
    nodes = [fields(value) for number, value in graph if number == 1]  # type: ignore[arg-type]
    assert [dict(node)[4] for node in nodes] == [b"Gemm", b"Relu", b"Gemm"]
    assert [value for number, value in nodes[0] if number == 1] == [b"x", b"p0", b"p1"]
    assert dict(nodes[2])[2] == b"y"
    attribute = dict(fields(dict(nodes[0])[5]))  # type: ignore[arg-type]
    assert (attribute[1], attribute[3]) == (b"transB", 1)
    tensor = fields(next(value for number, value in graph if number == 5))  # type: ignore[arg-type]
    assert [value for number, value in tensor if number == 1] == [2, 300]
    raw = dict(tensor)[9]
    assert struct.unpack("<600f", raw) == tuple(w.ravel())  # type: ignore[arg-type]
    assert _onnx._varint(300) == b"\xac\x02"  # the example of the format's own documentation


def test_interruption_stores_nothing_and_says_so(tmp_path: Path) -> None:
    stored = tmp_path / "x.json"
    command = [sys.executable, "-m", "tilegrad.bench", "--filter", "linear/", "--peers", "numpy",
               "--json", str(stored)]  # fmt: skip
    environ = {**os.environ, "PYTHONPATH": FOLDER, "PYTHONUNBUFFERED": "1"}
    environ.pop("TILEGRAD_BENCH_THREADS", None)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "forward" in line:  # the first case is done
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing is stored" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_leaves_ends_the_run_quietly() -> None:
    environ = {**os.environ, "PYTHONPATH": FOLDER, "PYTHONUNBUFFERED": "1"}
    environ.pop("TILEGRAD_BENCH_THREADS", None)
    with subprocess.Popen(
        [sys.executable, "-m", "tilegrad", "bench", "--filter", "tiny/", "--peers", "numpy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(timeout=60), errors) == (128 + signal.SIGPIPE, "")


def test_files_are_stored_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def interrupted(source: str, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.store("new", str(path))
    assert path.read_text() == "old"
    monkeypatch.undo()
    session.store("new", str(path))
    assert path.read_text() == "new"


def test_estimate_keeps_a_full_run_under_ten_minutes() -> None:
    cases = list(CASES.values())
    for flops, settle in ((100.0, 0.0), (200.0, 0.0), (400.0, 0.03)):
        ceilings = {"fma_gflops": flops, "copy_gbytes": {"memory": 20.0}}
        protocol, seconds = session.within_limit(cases, harness.Protocol(settle=settle), ceilings)
        assert seconds < 9.5 * 60
        assert protocol.budget >= 0.45
    quick = harness.Protocol(sample=0.002, budget=0.7, most=15)
    chosen = [case for case in cases if case.quick]
    slow = {"fma_gflops": 100.0, "copy_gbytes": {"memory": 10.0}}
    assert session.expected_seconds(chosen, quick, slow) < 50
