# SPDX-License-Identifier: MIT
"""``tilegrad bench cpu --scaling``: each case with one thread and with two, and what more would do.

Measured are the time of both in the same rounds, what a join costs, and for up to 64 threads how
many joins a call has and into how many pieces the work between them is cut: the terms of the model
in scaling_model.py. Beyond two threads no time was measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial

import tilegrad as tg
from tilegrad import _cpu

from . import environment, machine, report, session
from .harness import (
    Call,
    Case,
    Limit,
    Protocol,
    calls_per_sample,
    collector_paused,
    run_rounds,
    summary,
    time_calls,
)
from .scaling_model import (
    COUNTS,
    FORMULA,
    JOIN_MORE,
    MORE_THREADS,
    ONE,
    SOCKET_GBYTES,
    TWO,
    of_record,
    speedup,
)

KIND = "scaling"  # of the JSON, beside runs with peers


def count(case: Case, threads: Sequence[int] = COUNTS) -> tuple[dict[str, int], dict[str, float]]:
    """Count the joins of a call and the pieces between two of them, for numbers of threads.

    The threads are started, more than there are cores: only count after everything is timed.

    Args:
        case: What is called.
        threads: The numbers.

    Returns:
        Joins and pieces, by number of threads.
    """
    ours = case.build().ours
    joins, pieces = {}, {}
    before = tg.num_threads()
    try:
        for number in threads:
            tg.set_num_threads(number)
            ours()  # a plan may be made by the first call
            start = _cpu._jobs_and_tasks()
            ours()
            jobs, tasks = (b - a for a, b in zip(start, _cpu._jobs_and_tasks(), strict=True))
            joins[str(number)] = jobs
            pieces[str(number)] = round(tasks / jobs, 1) if jobs else 0.0
    finally:
        tg.set_num_threads(before)
    return joins, pieces


def join_seconds(samples: int = 15) -> float:
    """Measure what it costs that two threads start together and meet again.

    Args:
        samples: The median of so many.
    """
    costs = []
    for _ in range(samples):
        alone = time_calls(partial(_cpu._multiply_add, 0, 1), 2000)
        costs.append(time_calls(partial(_cpu._multiply_add, 0, 2), 2000) - alone)
    return max(float(summary(costs)["median"]), 0.0)


def call_seconds(samples: int = 15) -> float:
    """Measure the call of an op that has next to nothing to do.

    Args:
        samples: The median of so many.
    """
    import numpy as np

    x, out = np.zeros(1, np.float32), np.zeros(1, np.float32)
    call = partial(tg.relu, x, out=out)
    return float(summary([time_calls(call, 2000) for _ in range(samples)])["median"])


def measure(case: Case, limits: dict[int, Limit], protocol: Protocol) -> report.Record:
    """Time a case with one thread and with two, and what the machine can do with each.

    Args:
        case: What to time; its peers are left alone.
        limits: What the machine can do with each number of threads; empty leaves it out.
        protocol: How long and how often.

    Returns:
        Plain values, as they are stored.
    """
    contest = case.build()
    contest.check()
    sides: dict[str, Call] = {ONE: partial(contest.ours), TWO: partial(contest.ours)}
    sides |= {f"limit {count}": limit.call for count, limit in limits.items()}
    threads = {id(sides[ONE]): 1, id(sides[TWO]): 2}
    calls, each = {}, {}
    for name, call in sides.items():
        tg.set_num_threads(threads.get(id(call), 2))
        calls[name], each[name] = calls_per_sample(call, protocol.sample)
    tg.set_num_threads(2)
    whole = sum(1.25 * calls[name] * each[name] for name in sides)
    rounds = protocol.rounds(whole)

    def prepare(call: Call, count: int) -> None:
        tg.set_num_threads(threads.get(id(call), 2))
        for _ in range(-(-count // 4) if count > 1 else 0):
            call()

    try:
        with collector_paused():
            seconds = run_rounds(sides, calls, rounds, before=prepare)
    finally:
        tg.set_num_threads(2)
    ratios = [a / b for a, b in zip(seconds[ONE], seconds[TWO], strict=True)]
    result: report.Record = {
        "family": case.family,
        "name": case.name,
        "bytes": case.bytes,
        "flops": case.flops,
        "rounds": rounds,
        "seconds": {name: summary(seconds[name]) for name in (ONE, TWO)},
        "speedup": summary(ratios),
    }
    if limits:
        pairs = zip(seconds["limit 1"], seconds["limit 2"], strict=True)
        more = limits[2].work / limits[1].work
        result["limit"] = limits[1].kind
        result["limit_speedup"] = summary([more * a / b for a, b in pairs])
    return result


_WIDTHS = (11, 11, 9, 13, 11, 10)
COLUMNS = ("1 thread", "2 threads", "speed-up", "quartiles", "efficiency", "machine's")


def columns(family: str) -> str:
    """Return the head of a family's table."""
    return _line(family, COLUMNS)


def row(record: report.Record) -> str:
    """Return a case's row."""
    gain, machines = record["speedup"], record.get("limit_speedup")
    return _line(f"  {record['name']}", (
        report.duration(record["seconds"][ONE]["median"]),
        report.duration(record["seconds"][TWO]["median"]),
        report.digits(gain["median"]),
        f"{report.digits(gain['low'])} - {report.digits(gain['high'])}",
        f"{50 * gain['median']:.0f} %",
        f"{50 * machines['median']:.0f} %" if machines else "-",
    ))  # fmt: skip


def _line(first: str, cells: Sequence[str]) -> str:
    return f"{first:<36}{_cells(cells, _WIDTHS)}"


def _cells(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def efficiencies(records: Sequence[report.Record]) -> str:
    """Return the geometric mean of the efficiency of each family."""
    families: dict[str, list[float]] = {}
    for record in records:
        families.setdefault(record["family"], []).append(record["speedup"]["median"])
    lines = [
        f"{family:<25} {50 * report.geometric_mean(gains):>6.0f} %   worst {50 * min(gains):.0f} %"
        for family, gains in families.items()
    ]
    return "\n".join([f"{'efficiency':<25} geomean", *lines])


_TERMS = ("joins", "pieces", "serial", *(f"x{count}" for count in MORE_THREADS))
_TERM_WIDTHS = (7, 8, 12, *(7 for _ in MORE_THREADS))


def terms(result: report.Record) -> str:
    """Return the terms of the model for each case, and the speed-ups that it expects from them.

    Args:
        result: The run, with joins and pieces counted.
    """
    most = MORE_THREADS[-1]
    lines = [
        f"Model of p threads: {FORMULA}",
        "With one thread T(1) = call + work, as measured: no joins. speed-up = T(1) / T(p).",
        f"Of all cases: call {1e6 * result['call_seconds']:.2f} us, join "
        f"{1e6 * result['join_seconds']:.2f} us, both measured; join_more {1e6 * JOIN_MORE:.2f} us "
        f"and socket {SOCKET_GBYTES:.0f} GB/s, both assumed",
        f"joins and pieces: counted with {most} threads; serial: share of the work that two "
        "threads did not divide",
        f"{'':<36}" + _cells(_TERMS, _TERM_WIDTHS) + "  most is lost to",
    ]
    for record in result["cases"]:
        cases = {count: of_record(record, result, count) for count in MORE_THREADS}
        expected = [speedup(case, count) for count, case in cases.items()]
        joins, shared = record["joins"][str(most)], bool(record["joins"][str(most)])
        cells = (
            str(joins),
            f"{record['pieces'][str(most)]:g}" if shared else "-",
            f"{100 * cases[most].serial:.0f} %" if shared else "not shared",
            *(f"{gain:.1f}" for gain, _ in expected),
        )
        name = f"{record['family']}/{record['name']}"
        lines.append(f"{name:<36}{_cells(cells, _TERM_WIDTHS)}  {expected[-1][1]}".rstrip())
    return "\n".join(lines)


def run(cases: Sequence[Case], args: argparse.Namespace, stored: list[str]) -> None:
    """Measure, print and store.

    Args:
        cases: What is timed.
        args: Options of the command.
        stored: Takes the names of the files that were written.
    """
    environment.leave_out(environment.PEERS)
    cores = environment.pin(args.threads)
    result = {"kind": KIND, **session.conditions(args, cores)}
    result |= {
        "join_seconds": join_seconds(),
        "call_seconds": call_seconds(),
        "private_bytes": machine.private_bytes(),
        "cases": [],
    }
    result["ceilings"] = machine.ceilings(args.threads)
    protocol = Protocol(budget=0.7 if args.quick else 1.5, most=15 if args.quick else 25)
    seconds = session.expected_seconds(cases, protocol, result["ceilings"], sides=4)
    print(
        f"{result['machine']['cpu']}, {result['machine']['isa']}; 1 thread and 2 in the same "
        f"rounds, pinned to core {', '.join(map(str, cores))}; "
        f"{report.dtypes(case.name for case in cases)}; hot caches\n"
        f"a join of two threads {1e6 * result['join_seconds']:.2f} us, a call from Python "
        f"{1e6 * result['call_seconds']:.2f} us\n"
        "efficiency: time of 1 thread / (2 x time of 2 threads); machine's: the same of "
        "multiply-adds or copying\n"
        + "".join(f"{line}\n" for line in report.busy(result["load"][0]))
        + session.announced(cases, seconds),
        flush=True,
    )
    family, start = "", time.perf_counter()
    for case in cases:
        if case.family != family:
            family = case.family
            print(f"\n{columns(family)}", flush=True)
        both = {count: session.limit(case, count) for count in (1, 2)}
        limits = {count: limit for count, limit in both.items() if limit is not None}
        record = measure(case, limits, protocol)
        result["cases"].append(record)
        print(row(record), flush=True)
    result["load"].append(session.load())
    print(f"\n{efficiencies(result['cases'])}", flush=True)
    for case, record in zip(cases, result["cases"], strict=True):
        record["joins"], record["pieces"] = count(case)
    print(f"\n{terms(result)}", flush=True)
    result["minutes"] = round((time.perf_counter() - start) / 60, 1)
    if args.json:
        session.store(json.dumps(result, indent=1) + "\n", args.json)
        stored.append(args.json)
        print(f"Stored {args.json}")
