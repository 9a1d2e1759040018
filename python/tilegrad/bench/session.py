# SPDX-License-Identifier: MIT
"""What a run on the CPU says of itself, stores and is bounded by."""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .._files import write_whole
from . import environment, machine, report
from .harness import Case, Limit, Protocol, time_calls

COMPILED = "cross_entropy/4096x32000 value and grad"  # the case with torch.compile

FORMAT = 2  # of the JSON; raised when a reader of the old one would be misled
# Operations a byte from which arithmetic is the limit, not memory. Cores do 8 or so while a byte
# comes from the second cache; a fixed number keeps the limit of a case the same in every run.
_BALANCE = 4


def conditions(args: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """Return what a result file says before its cases.

    Args:
        args: The options.
        cores: The core of each thread.
    """
    return {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine.describe(),
        "versions": versions(),
        "left_out": environment.left_out(),
        "held": os.environ.get("TILEGRAD_CPU", ""),  # the instruction set that all are held to
        "threads": args.threads,
        "cores": cores,
        "cache": "cold" if args.cold else "hot",
        "quick": args.quick,
        "load": [load()],  # programs that wanted to run in the last minute, before and after
    }


def store(text: str, path: str) -> None:
    """Write a file as a whole or not at all."""
    write_whole(path, text.encode(), "bench")


_SIDES = 5  # of a case, about
_SETUP = 0.7  # seconds: operands, what jax compiles, the expected result
_COMPILED = 25.0  # seconds for a case with torch.compile
_LIMIT = 8.5 * 60  # seconds that all cases may take together


def expected_seconds(
    cases: Sequence[Case], protocol: Protocol, ceilings: dict[str, Any], sides: int = _SIDES
) -> float:
    """Return how long a run takes, about.

    Args:
        cases: What is timed.
        protocol: How long and how often.
        ceilings: Of the machine, as `machine.ceilings` returns them.
        sides: Of a case.
    """
    peak = 1e9 * ceilings["fma_gflops"]
    rate = 0.5e9 * min(ceilings["copy_gbytes"].values())
    total = 0.0
    for case in cases:
        flops = (0.8 if case.flops > 1e9 else 0.6) * peak
        call = max(case.flops / flops, case.bytes / rate)
        sample = max(1.25 * protocol.sample, call) + protocol.settle
        rounds = protocol.rounds(sides * sample)
        # made, compared with float64, called twice to see how long it takes, then timed
        total += _SETUP + sides * (8 * call + rounds * sample)
    return total + (_COMPILED if _compiles(cases) else 0)


def _compiles(cases: Sequence[Case]) -> bool:
    """Say whether torch.compile takes part."""
    there = environment.is_installed("torch") and "torch" not in environment.left_out()
    return there and any(case.id == COMPILED for case in cases)


def announced(cases: Sequence[Case], seconds: float) -> str:
    """Return what is said before the first case.

    Args:
        cases: What is timed.
        seconds: That it takes, about.
    """
    text = f"{report.counted(len(cases), 'case')}, about {report.minutes(seconds)}"
    return text + (f" ({_COMPILED:.0f} s of it to compile by torch)" if _compiles(cases) else "")


def within_limit(
    cases: Sequence[Case], protocol: Protocol, ceilings: dict[str, Any]
) -> tuple[Protocol, float]:
    """Return the protocol with a budget that keeps all cases under ten minutes, and the seconds.

    Args:
        cases: What is timed.
        protocol: How long and how often at best.
        ceilings: Of the machine.
    """
    seconds = expected_seconds(cases, protocol, ceilings)
    while seconds > _LIMIT and protocol.budget > 0.5:
        protocol = replace(protocol, budget=0.9 * protocol.budget)
        seconds = expected_seconds(cases, protocol, ceilings)
    return protocol, seconds


def limit(case: Case, threads: int) -> Limit | None:
    """Return what a case can be as fast as at most; None for tiny calls."""
    if not case.limited:
        return None
    if case.flops >= _BALANCE * case.bytes:
        return Limit("FMA", *machine.multiply_add(threads))
    copy = machine.Copy(int(min(case.bytes, machine.largest_copy(threads))), threads)
    return Limit("copy", copy, copy.work)


def machine_limits(threads: int) -> dict[str, float]:
    """Return rates that say how far the machine drifted between start and end."""
    copy = machine.Copy(machine.largest_copy(threads), threads)
    copy()
    seconds = min(time_calls(copy, 1) for _ in range(3))
    return {
        "fma_gflops": round(machine.fma_peak(threads), 1),
        "copy_gbytes": round(copy.work / seconds / 1e9, 2),
    }


def load() -> float | None:
    """Return how many programs wanted to run in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str | None]:
    """Return the versions of all sides; None where one is not installed."""
    import numpy as np

    from tilegrad import __version__

    found: dict[str, str | None] = {"tilegrad": __version__, "numpy": np.__version__}
    for name, module in environment.PEERS.items():
        found[name] = None if module() is None else module().__version__
    return found


def commit() -> str | None:
    """Return the commit of the source tree that this package lies in, or None outside of one."""

    def git(*words: str) -> str:
        folder = Path(__file__).parent
        done = subprocess.run(
            ["git", "-C", folder, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        root = Path(git("rev-parse", "--show-toplevel"))
        if not (root / "python" / "tilegrad" / "bench").is_dir():
            return None  # installed inside of somebody else's repository
        # What is measured, not what was measured before.
        measured = [root / "python", root / "csrc", root / "CMakeLists.txt"]
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *map(str, measured))
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
