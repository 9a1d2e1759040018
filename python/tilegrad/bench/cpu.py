# SPDX-License-Identifier: MIT
"""``tilegrad bench cpu``: choose the cases, set the conditions, measure, report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import canvas, environment, machine, ratio_plot, report, roofline, scaling, session
from .harness import Case, Protocol, measure
from .workloads import all_cases

_EVICTED = 64_000_000  # bytes: beyond every private cache
_SETTLE = 0.03  # seconds, see Protocol.settle


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    result = argparse.ArgumentParser(
        prog="tilegrad bench",
        description="Measure every kernel beside NumPy, PyTorch, jax and onnxruntime (those that "
        "are installed) and beside the limit of this machine, in one process, in interleaved "
        "rounds. A ratio is the fastest peer's time over ours: above 1, tilegrad is faster. "
        "TILEGRAD_CPU=avx2 holds all sides to that instruction set.",
    )
    add = result.add_argument
    add("device", nargs="?", choices=("cpu",), default="cpu",
        help="what to measure (default: cpu); for GPUs see tilegrad bench cuda --help")  # fmt: skip
    add("--quick", action="store_true",
        help="a selection, in under a minute; its figures are rough")  # fmt: skip
    add("--threads", type=int, metavar="N",
        help="of every library, each pinned to a core of its own (default: 1)")  # fmt: skip
    add("--filter", default="", metavar="TEXT",
        help="only cases whose family/name contains this, such as matmul/ or 'gelu'")  # fmt: skip
    add("--peers", type=_names, default=list(environment.PEERS), metavar="A,B",
        help=f"beside NumPy, of {','.join(environment.PEERS)} (default: all that are installed)",
        )  # fmt: skip
    add("--cold", action="store_true",
        help="before every call write 64 MB elsewhere, so that operands come from outside the "
        "private caches (default: hot, the same operands again and again)")  # fmt: skip
    add("--scaling", action="store_true",
        help="instead: tilegrad alone, with 1 thread and with 2 in the same rounds")  # fmt: skip
    add("--json", metavar="FILE", help="store conditions and figures")
    add("--plot", metavar="FILE", help="draw the ratios (.png, .svg, .pdf); needs matplotlib")
    add("--roofline", metavar="FILE",
        help="draw every kernel below the limits of this machine; needs matplotlib")  # fmt: skip
    add("--list", action="store_true", help="print the cases and do nothing")
    return result


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name and name != "numpy"]
    if unknown := [name for name in names if name not in environment.PEERS]:
        known = ",".join(["numpy", *environment.PEERS])
        raise argparse.ArgumentTypeError(f"must be of {known}; got {','.join(unknown)}")
    return names


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
    _refuse_nonsense(options, args, cases)
    try:
        environment.start_again(args.threads, given)
    except ValueError as error:
        options.error(str(error))
    stored: list[str] = []
    try:
        (scaling.run if args.scaling else _run)(cases, args, stored)
    except KeyboardInterrupt:
        kept = f"stored before: {', '.join(stored)}" if stored else "nothing is stored"
        print(f"\ninterrupted; {kept}", file=sys.stderr)
        return 130
    return 0


def _refuse_nonsense(
    options: argparse.ArgumentParser, args: argparse.Namespace, cases: Sequence[Case]
) -> None:
    """Stop with a message if options make no sense together; fill in the number of threads."""
    if args.threads is not None and args.threads < 1:
        options.error(f"--threads: must be at least 1; got {args.threads}")
    if args.scaling and (args.threads or args.cold or args.plot or args.roofline):
        options.error("--scaling: takes no --threads, --cold, --plot or --roofline")
    args.threads = args.threads or (2 if args.scaling else 1)
    files = {"--json": args.json, "--plot": args.plot, "--roofline": args.roofline}
    for name, path in files.items():
        if path and not Path(path).absolute().parent.is_dir():
            options.error(f"{name}: the folder must exist; got {path!r}")
    if args.roofline and not any(case.limited for case in cases):
        options.error("--roofline: needs a case with a limit; got tiny calls alone (see --filter)")
    for name in ("--plot", "--roofline"):
        if files[name]:
            try:
                canvas.check_matplotlib(name)
            except ImportError as error:
                options.error(str(error))
            kinds = canvas.kinds()
            if Path(files[name]).suffix.lstrip(".") not in kinds:
                options.error(f"{name}: must end in {', '.join(kinds)}; got {files[name]!r}")


def _run(cases: Sequence[Case], args: argparse.Namespace, stored: list[str]) -> None:
    environment.leave_out(name for name in environment.PEERS if name not in args.peers)
    if environment.held(os.environ.get("TILEGRAD_CPU", "")):
        environment.leave_out(filter(environment.is_installed, environment.CANNOT_BE_HELD))
    cores = environment.pin(args.threads)
    result = session.conditions(args, cores)
    result["ceilings"] = machine.ceilings(args.threads)
    result["limits"] = {"before": {
        "fma_gflops": result["ceilings"]["fma_gflops"],
        "copy_gbytes": result["ceilings"]["copy_gbytes"]["memory"],
    }}  # fmt: skip
    result["cases"] = []
    print(report.heading(result, [case.name for case in cases]), flush=True)
    protocol, seconds = session.within_limit(cases, _protocol(args), result["ceilings"])
    print(session.announced(cases, seconds), flush=True)
    family, start = "", time.perf_counter()
    for case in cases:
        if case.family != family:
            family = case.family
            print(f"\n{report.columns(family)}", flush=True)
        figures = measure(case, session.limit(case, args.threads), protocol)
        result["cases"].append(figures)
        print(report.row(figures, args.threads), flush=True)
        if sys.stderr.isatty():
            gone = report.minutes(time.perf_counter() - start)
            print(f"  {len(result['cases'])} of {len(cases)}, {gone}", end="\r", file=sys.stderr)
    result["load"].append(session.load())
    result["limits"]["after"] = session.machine_limits(args.threads)
    result["minutes"] = round((time.perf_counter() - start) / 60, 1)
    print(f"\n{report.summary(result)}")
    if args.json:
        session.store(json.dumps(result, indent=1) + "\n", args.json)
        stored.append(args.json)
        print(f"Stored {args.json}")
    for path, draw in ((args.roofline, roofline.plot), (args.plot, ratio_plot.plot)):
        if path:
            draw(result, path)
            stored.append(path)
            print(f"Drew {path}")


def _protocol(args: argparse.Namespace) -> Protocol:
    quick: dict[str, Any] = (
        {"sample": 0.002, "budget": 0.7, "fewest": 5, "most": 15} if args.quick else {}
    )
    settle = _SETTLE if args.threads > 1 else 0.0
    return Protocol(**quick, settle=settle, evict=_EVICTED if args.cold else 0)
