# SPDX-License-Identifier: MIT
"""Long runs behind the figures of docs/reliability.md; short ones are tests (test_faults_*.py).

    python tests/soak.py kill --count 200
    python tests/soak.py growth --count 1000000
    python tests/soak.py threads --count 64
    python tests/soak.py bits --count 100
    python tests/soak.py allocations

Each prints a table; --json FILE keeps the result there, beside those of the other runs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import allocation_runs
import bit_runs
import growth_runs
import kill_runs
import thread_runs
import tilegrad as tg

# Of what a process does very often: the share of --count that each kind gets, and its warm-up.
SHARES = {
    "steps on cpu": 1.0, "steps in the long form on cpu": 0.1, "steps on sim": 0.01,
    "steps in the long form on sim": 0.002, "batches of 1 to 1000 rows on cpu": 0.01,
    "models made and dropped on cpu": 0.01, "models made and dropped on sim": 0.001,
    "arrays made and dropped on sim": 0.02, "streams made and dropped on sim": 0.01,
    "refused calls on cpu": 0.05, "refused calls on sim": 0.01, "traces": 0.0002,
    "compiled kernels": 0.00002,
}  # fmt: skip


def kill(count: int) -> dict[str, Any]:
    folders = [Path(tempfile.mkdtemp()) for _ in range(2)]
    return {
        "fit": kill_runs.kill_fit(count, folders[0]),
        "tilegrad train": kill_runs.kill_command(max(1, count // 10), folders[1], epochs=400),
    }


def growth(count: int) -> dict[str, Any]:
    result = {}
    for kind, share in SHARES.items():
        steps = max(10, round(count * share))
        # A trace keeps the line tables of each kernel, the allocator what it may reuse.
        result[kind] = growth_runs.growth(kind, steps, max(5, min(20_000, steps // 5)))
        print(kind, result[kind], flush=True)
    return result


def threads(count: int) -> dict[str, Any]:
    return {"cpu": thread_runs.in_a_process("cpu", count, 40),
            "sim": thread_runs.in_a_process("sim", count, 4)}  # fmt: skip


def bits(count: int) -> dict[str, Any]:
    return {device: bit_runs.repeat(device, count) for device in ("cpu", "sim")}


def allocations(count: int) -> dict[str, Any]:
    library = allocation_runs.build(Path(tempfile.mkdtemp()))
    result = {}
    for kind in allocation_runs.KINDS:
        one, all_after = (
            allocation_runs.in_a_process(library, kind, count, every) for every in (False, True)
        )
        result[kind] = {"one fails": one, "all fail from there on": all_after}
    return result


RUNS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "kill": (kill, 200), "growth": (growth, 1_000_000), "threads": (threads, 64),
    "bits": (bits, 100), "allocations": (allocations, 10**6),
}  # fmt: skip


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--count", type=int, help="how often; the default is that of the docs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to keep the result in")
    args = parser.parse_args()
    work, count = RUNS[args.run]
    count = args.count or count
    start = time.perf_counter()
    result = work(count)
    minutes = round((time.perf_counter() - start) / 60, 1)
    for name, values in result.items():
        print(f"{name}: {values}")
    if args.json is not None:
        kept = json.loads(args.json.read_text()) if args.json.exists() else {}
        kept[args.run] = {
            "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "commit": commit(),
            "python": platform.python_version(), "isa": tg.info()["isa"], "count": count,
            "minutes": minutes, **result,
        }  # fmt: skip
        args.json.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
