# SPDX-License-Identifier: MIT
"""``tilegrad bench cpu``: choose the cases, set the conditions, measure, report."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import environment, machine, report
from .harness import Case, Limit, Protocol, measure, time_calls
from .workloads import all_cases

FORMAT = 1  # of the JSON; raised when a reader of the old one would be misled
_EVICTED = 64_000_000  # bytes: beyond every private cache
_LARGEST_COPY = 256_000_000  # bytes: no cache is larger, and the rate stays what it is
# Operations a byte from which arithmetic is the limit, not memory. Cores do 8 or so while a byte
# comes from the second cache; a fixed number keeps the limit of a case the same in every run.
_BALANCE = 4
_SETTLE = 0.03  # seconds, see Protocol.settle


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    result = argparse.ArgumentParser(
        prog="tilegrad bench",
        description="Measure every kernel beside NumPy and PyTorch (where it is installed) and "
        "beside the limit of this machine, in one process, in interleaved rounds. A ratio is the "
        "fastest peer's time over ours: above 1, tilegrad is faster.",
    )
    add = result.add_argument
    add("device", nargs="?", choices=("cpu",), default="cpu",
        help="what to measure (default: cpu); for GPUs see tilegrad bench cuda --help")  # fmt: skip
    add("--quick", action="store_true",
        help="a selection, in under a minute; its figures are rough")  # fmt: skip
    add("--threads", type=int, default=1, metavar="N",
        help="of every library, each pinned to a core of its own (default: 1)")  # fmt: skip
    add("--filter", default="", metavar="TEXT",
        help="only cases whose family/name contains this, such as matmul/ or 'gelu'")  # fmt: skip
    add("--cold", action="store_true",
        help="before every call write 64 MB elsewhere, so that operands come from outside the "
        "private caches (default: hot, the same operands again and again)")  # fmt: skip
    add("--json", metavar="FILE", help="store conditions and figures")
    add("--plot", metavar="FILE", help="draw the ratios (.png, .svg, .pdf); needs matplotlib")
    add("--list", action="store_true", help="print the cases and do nothing")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in a process of its own with the right environment.

    Args:
        argv: Arguments after ``tilegrad bench``. Default: those of this process.

    Returns:
        0, or 130 if interrupted.

    Raises:
        SystemExit: With status 2 if the options make no sense.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    options = parser()
    args = options.parse_args(given)
    cases = [case for case in all_cases() if args.filter in case.id]
    if args.quick and any(case.quick for case in cases):
        cases = [case for case in cases if case.quick]
    if not cases:
        options.error(f"--filter: must be part of a case's name; got {args.filter!r} (try --list)")
    if args.list:
        print("\n".join(f"{case.id}{'  (quick)' if case.quick else ''}" for case in cases))
        return 0
    if args.threads < 1:
        options.error(f"--threads: must be at least 1; got {args.threads}")
    for name, path in (("--json", args.json), ("--plot", args.plot)):
        if path and not Path(path).absolute().parent.is_dir():
            options.error(f"{name}: the folder must exist; got {path!r}")
    if args.plot:
        try:
            report.check_matplotlib()
        except ImportError as error:
            options.error(str(error))
    try:
        environment.start_again(args.threads, given)
    except ValueError as error:
        options.error(str(error))
    try:
        return _run(cases, args)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is stored", file=sys.stderr)
        return 130


def _run(cases: Sequence[Case], args: argparse.Namespace) -> int:
    cores = environment.pin(args.threads)
    result: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": machine.describe(),
        "versions": _versions(),
        "threads": args.threads,
        "cores": cores,
        "cache": "cold" if args.cold else "hot",
        "quick": args.quick,
        "load": [_load()],  # programs that wanted to run in the last minute, before and after
        "limits": {"before": _machine_limits(args.threads, cores)},
        "cases": [],
    }
    print(report.heading(result), flush=True)
    protocol = _protocol(args)
    family, start = "", time.perf_counter()
    for case in cases:
        if case.family != family:
            family = case.family
            print(f"\n{report.columns(family)}", flush=True)
        figures = measure(case, _limit(case, args.threads, cores), protocol)
        result["cases"].append(figures)
        print(report.row(figures), flush=True)
    result["load"].append(_load())
    result["limits"]["after"] = _machine_limits(args.threads, cores)
    result["minutes"] = round((time.perf_counter() - start) / 60, 1)
    print(f"\n{report.summary(result)}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
        print(f"Stored {args.json}")
    if args.plot:
        report.plot(result, args.plot)
        print(f"Drew {args.plot}")
    return 0


def _protocol(args: argparse.Namespace) -> Protocol:
    quick: dict[str, Any] = (
        {"sample": 0.002, "budget": 0.7, "fewest": 5, "most": 15} if args.quick else {}
    )
    settle = _SETTLE if args.threads > 1 else 0.0
    return Protocol(**quick, settle=settle, evict=_EVICTED if args.cold else 0)


def _limit(case: Case, threads: int, cores: list[int]) -> Limit | None:
    """Return what a case can be as fast as at most; None for tiny calls."""
    if not case.limited:
        return None
    if case.flops >= _BALANCE * case.bytes:
        return Limit("FMA", *machine.multiply_add(threads))
    copy = machine.Copy(int(min(case.bytes, _LARGEST_COPY)), threads, cores)
    return Limit("copy", copy, copy.work)


def _machine_limits(threads: int, cores: list[int]) -> dict[str, float]:
    """Return rates that say how far the machine drifted between start and end."""
    copy = machine.Copy(_LARGEST_COPY, threads, cores)
    seconds = min(time_calls(copy, 1) for _ in range(3))
    return {
        "fma_gflops": round(machine.fma_peak(threads), 1),
        "copy_gbytes": round(copy.work / seconds / 1e9, 2),
    }


def _load() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _versions() -> dict[str, str | None]:
    """Return the versions of all sides; None where one is not installed."""
    import numpy as np

    from tilegrad import __version__

    torch = environment.torch()
    return {
        "tilegrad": __version__,
        "numpy": np.__version__,
        "torch": None if torch is None else torch.__version__,
    }


def _commit() -> str | None:
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
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
