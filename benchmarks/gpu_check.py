# SPDX-License-Identifier: MIT
"""Build, test, watch and time tilegrad on this machine's GPU, without a package registry.

    make gpu-check [WHEELS=folder] [GPU_CHECK="--steps build,tests --minutes 9"]

What is missing is said first, and nothing is begun then. After that each step has its time, a
failure keeps no other step from running, and results/<gpu>-<date>.json and .md are written after
every step. Steps of one day, GPU and commit add up in one file. No setting of the card is changed.

Where a job has a limit of time, several add up, each with the results of the one before:

    --minutes 9 --steps build,conformance,sanitizer        then, with --before FILE.json,
    --minutes 9 --steps build,tests --part 1/2             and 2/2, and as often as needed
    --minutes 9 --steps build,bench --goals                and last without --goals
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_machine import describe, output_of, probe
from gpu_results import FAILED, NOT_RUN, PASSED, Results
from gpu_steps import LIMITS, NEED_BUILD, ROOT, STEPS, Job

_MISSING = 2  # exit status
_RESULTS, _GOLDEN = ROOT / "benchmarks" / "results", ROOT / "tests" / "golden"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    result = argparse.ArgumentParser(prog="gpu_check.py", description=__doc__.splitlines()[0])
    add = result.add_argument
    add("--steps", type=_steps, default=list(STEPS), metavar="A,B",
        help=f"which of {','.join(STEPS)} (default: all)")  # fmt: skip
    limits = ", ".join(f"{name} {minutes:g}" for name, minutes in LIMITS.items())
    add("--minutes", type=_minutes, default=float("inf"), metavar="N",
        help="for all steps together; what has no time left is named (each step has a limit of "
        f"its own: {limits})")  # fmt: skip
    add("--wheels", type=Path, metavar="FOLDER",
        help="wheels of Python packages that are not installed here")  # fmt: skip
    add("--out", type=Path, metavar="FOLDER",
        help="where results go, and golden files below it (default: benchmarks/results, and "
        "tests/golden for those)")  # fmt: skip
    add("--work", type=Path, default=ROOT / "build" / "gpu", metavar="FOLDER",
        help="where environment, wheel and logs go (default: build/gpu)")  # fmt: skip
    add("--quick", action="store_true", help="only a selection of the benchmarks")
    add("--goals", action="store_true", help="only benchmarks that a goal asks for")
    add("--filter", default="", metavar="TEXT",
        help="only benchmarks whose family/name contains this; runs add up")  # fmt: skip
    add("--before", type=Path, metavar="FILE.json",
        help="results of an earlier call: steps add up, its cases are not timed again")  # fmt: skip
    add("--part", type=_part, default=(1, 1), metavar="K/N",
        help="only the K-th of N parts of the tests; parts add up")  # fmt: skip
    return result


def _steps(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in STEPS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"must be of {','.join(STEPS)}; got {','.join(unknown) or repr(text)}"
        )
    return [name for name in STEPS if name in names]


def _part(text: str) -> tuple[int, int]:
    try:
        part, parts = (int(number) for number in text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"must be K/N with 1 <= K <= N; got {text}")
    return part, parts


def _minutes(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check.

    Returns:
        0; 1 if a step failed, ran out of time or was not run; 2 if something is missing.
    """
    args = parser().parse_args(argv)
    deadline = time.monotonic() + 60 * args.minutes
    wheels = args.wheels.resolve() if args.wheels else None
    if args.before and not args.before.is_file():
        parser().error(f"--before: must be a file; there is no {args.before}")
    machine = probe(args.steps, wheels)
    for line in machine.left_out:
        print(f"gpu-check: {line}")
    if machine.missing:
        print("gpu-check: nothing was begun, because this machine lacks", file=sys.stderr)
        for line in machine.missing:
            print(f"  - {line}", file=sys.stderr)
        return _MISSING
    work, out, golden = args.work.resolve(), _RESULTS, _GOLDEN
    if args.out:
        out = args.out.resolve()
        golden = out / "golden"
    work.mkdir(parents=True, exist_ok=True)
    today = datetime.now(timezone.utc)
    head = {
        "date": today.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": describe(machine),
        "left_out": machine.left_out,
    }
    before = args.before.resolve() if args.before else None
    results = Results(out, f"{machine.label}-{head['date']}", head, before)
    results.save()
    job = Job(
        machine, work, golden, wheels, quick=args.quick, only=args.filter, goals=args.goals,
        part=args.part, before=before,
    )  # fmt: skip
    return check(job, results, args.steps, deadline)


def check(
    job: Job,
    results: Results,
    names: Sequence[str],
    deadline: float,
    steps: Mapping[str, Callable[[Job], dict[str, Any]]] = STEPS,
    limits: Mapping[str, float] = LIMITS,
) -> int:
    """Run the steps, each whatever became of the others, and store what each found.

    Args:
        job: What the steps share.
        results: Where records go, after every step.
        names: The steps.
        deadline: The end of all, in the seconds of time.monotonic.
        steps: A function for each name.
        limits: Minutes for each name.

    Returns:
        0, or 1 if one did not pass.
    """
    for name in names:
        start = time.monotonic()
        job.deadline = min(start + 60 * limits[name], deadline)
        print(f"gpu-check: {name}, for {max(job.left(), 0) / 60:.1f} minutes at most", flush=True)
        why = _obstacle(job, name)
        if why:
            record: dict[str, Any] = {"status": NOT_RUN, "summary": why}
        else:
            try:
                record = steps[name](job)
            except Exception as error:  # a step that breaks must not keep the rest from running
                record = {"status": FAILED, "summary": f"{type(error).__name__}: {error}"}
        record |= {
            "seconds": round(time.monotonic() - start, 1),
            "limit_seconds": round(job.deadline - start, 1),
        }
        results.add(name, record)
        print(f"gpu-check: {name} {record['status']}: {record.get('summary', '')}", flush=True)
        for failure in record.get("failures", []):
            print(f"  {failure}")
    bad = [name for name in names if results.data["steps"][name]["status"] != PASSED]
    print(f"gpu-check: stored {results.json} and {results.text.name}")
    print("gpu-check: " + (f"did not pass: {', '.join(bad)}" if bad else "all steps passed"))
    return 1 if bad else 0


def _obstacle(job: Job, name: str) -> str:
    """Return why a step cannot be run, or ""."""
    if job.left() <= 0:
        return "no time was left"
    if name in NEED_BUILD and not job.built():
        return "there is no build with CUDA kernels (it is what the step build makes)"
    return ""


def commit() -> str:
    """Return the commit of this tree and whether files differ from it."""
    status, text = output_of(["git", "-C", str(ROOT), "rev-parse", "HEAD"])
    if status != 0:
        return "unknown"
    _, changed = output_of(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"])
    return text + (" with changes" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
