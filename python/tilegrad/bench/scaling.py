# SPDX-License-Identifier: MIT
"""``tilegrad bench cpu --scaling``: each case with one thread and with two, and what more would do.

Measured are the time of both in the same rounds, what a join costs, and for up to 64 threads how
many joins a call has and into how many pieces the work between them is cut. `speedup` is a model
from these; it is a pure function, and beyond two threads no time was measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
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

KIND = "scaling"  # of the JSON, beside runs with peers
# Assumed, not measured: what a further thread adds to a join (it enters, claims and leaves: a cache
# line passes from core to core three times), and what the memory of a socket with 64 cores moves.
JOIN_MORE = 0.15e-6  # seconds
SOCKET_GBYTES = 250.0
COUNTS = (2, 4, 8, 16, 32, 64)  # of threads, for which joins and pieces are counted
_ONE, _TWO = "1 thread", "2 threads"


@dataclass(frozen=True)
class Scaling:
    """What the model needs of a case, for a number of threads.

    Attributes:
        seconds: With one thread.
        call: Seconds of them that no thread can share: the call from Python.
        joins: How often all threads meet.
        join: Seconds of a join of two threads.
        pieces: Of the work between two joins; threads take them one at a time.
        serial: Share of the work that was not shared, as the time of two threads tells.
        bytes: That are moved at least.
        private: Bytes of a core's own caches; what fits there takes no part of the socket's memory.
    """

    seconds: float
    call: float
    joins: float
    join: float
    pieces: float
    serial: float
    bytes: float
    private: float


def speedup(
    case: Scaling, threads: int, socket: float = SOCKET_GBYTES, join_more: float = JOIN_MORE
) -> tuple[float, str]:
    """Predict how many times as fast a case gets, and what stops it from getting faster.

    Math: T(p) = call + max(work (serial + (1 - serial) ceil(pieces / p) / pieces), bytes / socket)
    + joins (join + (p - 2) join_more), with work = T(1) - call.

    Args:
        case: What was measured.
        threads: How many, p.
        socket: GB/s of the memory of all cores together.
        join_more: Seconds that each thread after the second adds to a join.

    Returns:
        T(1) / T(p), and the term that costs most of what is lost: "call", "serial part", "pieces",
        "memory" or "joins"; "" where next to nothing is lost.

    Example:
        >>> speedup(Scaling(1e-3, 0.0, 1, 0.0, 64, 0.0, 0, 1e6), 64, join_more=0.0)
        (64.0, '')
        >>> speedup(Scaling(1e-3, 0.0, 1, 0.0, 8, 0.0, 0, 1e6), 64, join_more=0.0)
        (8.0, 'pieces')
    """
    if case.seconds <= 0:
        return 1.0, ""
    work = max(case.seconds - case.call, 0.0)
    pieces = max(round(case.pieces), 1)
    rounds = -(-pieces // threads) / pieces
    shared = work * (1 - case.serial)
    from_cache = case.bytes / threads <= case.private
    memory = 0.0 if from_cache else case.bytes / (socket * 1e9)
    computing = work * case.serial + shared * rounds
    joins = case.joins * (case.join + max(threads - 2, 0) * join_more) if threads > 1 else 0.0
    whole = case.call + max(computing, memory) + joins
    ideal = case.seconds / threads
    lost = {
        "call": case.call * (1 - 1 / threads),
        "serial part": work * case.serial * (1 - 1 / threads),
        "pieces": shared * (rounds - 1 / threads),
        "memory": max(memory - computing, 0.0),
        "joins": joins,
    }
    worst = max(lost, key=lambda name: lost[name])
    stopped = worst if whole > 1.1 * ideal else ""
    return round(case.seconds / whole, 2), stopped


def serial_share(one: float, two: float, joins: float, pieces: float) -> float:
    """Return the share of the work that two threads did not divide, from 0 to 1.

    Math: two = one (f + (1 - f) r) + joins, solved for f; r = ceil(pieces / 2) / pieces.
    Source: Karp and Flatt, "Measuring parallel processor performance", CACM 33(5), 1990.

    Args:
        one: Seconds of the work with one thread, without the call.
        two: The same with two.
        joins: Seconds of the joins in it.
        pieces: Of the work between two joins.

    Example:
        >>> serial_share(1.0, 0.6, 0.0, 8), serial_share(1.0, 0.6, 0.1, 8)
        (0.2, 0.0)
    """
    whole = max(round(pieces), 1)
    best = -(-whole // 2) / whole
    if one <= 0 or best == 1:
        return 1.0
    return round(min(max(((two - joins) / one - best) / (1 - best), 0.0), 1.0), 3)


def of_record(record: report.Record, result: report.Record, threads: int) -> Scaling:
    """Return what the model needs of a stored case.

    Args:
        record: The case.
        result: The run that it belongs to.
        threads: One of COUNTS.
    """
    one = record["seconds"][_ONE]["median"]
    two = one / record["speedup"]["median"]  # of the same rounds
    call, join = min(result["call_seconds"], one), result["join_seconds"]
    serial = serial_share(
        one - call, two - call, record["joins"]["2"] * join, record["pieces"]["2"]
    )
    joins = record["joins"][str(threads)]
    return Scaling(
        one,
        call,
        joins,
        join,
        record["pieces"][str(threads)] if joins else 1,
        serial if joins else 1.0,  # no join: the op finds the work too little to be shared
        record["bytes"],
        result["private_bytes"],
    )


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
    sides: dict[str, Call] = {_ONE: partial(contest.ours), _TWO: partial(contest.ours)}
    sides |= {f"limit {count}": limit.call for count, limit in limits.items()}
    threads = {id(sides[_ONE]): 1, id(sides[_TWO]): 2}
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
    ratios = [a / b for a, b in zip(seconds[_ONE], seconds[_TWO], strict=True)]
    result: report.Record = {
        "family": case.family,
        "name": case.name,
        "bytes": case.bytes,
        "flops": case.flops,
        "rounds": rounds,
        "seconds": {name: summary(seconds[name]) for name in (_ONE, _TWO)},
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
        report.duration(record["seconds"][_ONE]["median"]),
        report.duration(record["seconds"][_TWO]["median"]),
        report.digits(gain["median"]),
        f"{report.digits(gain['low'])} - {report.digits(gain['high'])}",
        f"{50 * gain['median']:.0f} %",
        f"{50 * machines['median']:.0f} %" if machines else "-",
    ))  # fmt: skip


def _line(first: str, cells: Sequence[str]) -> str:
    return f"{first:<36}" + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)
    )


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
        f"rounds, pinned to core {', '.join(map(str, cores))}; float32; hot caches\n"
        f"a join of two threads {1e6 * result['join_seconds']:.2f} us, a call from Python "
        f"{1e6 * result['call_seconds']:.2f} us\n"
        "efficiency: time of 1 thread / (2 x time of 2 threads); machine's: the same of "
        "multiply-adds or copying\n"
        f"{len(cases)} cases, about {report.minutes(seconds)}",
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
    result["minutes"] = round((time.perf_counter() - start) / 60, 1)
    if args.json:
        session.store(json.dumps(result, indent=1) + "\n", args.json)
        stored.append(args.json)
        print(f"Stored {args.json}")
