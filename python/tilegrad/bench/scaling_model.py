# SPDX-License-Identifier: MIT
"""A model of how a case gets faster with more threads: pure functions of what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from . import report

FORMULA = (
    "T(p) = call + max(work (serial + (1 - serial) ceil(pieces / p) / pieces), bytes / socket)\n"
    "  + joins (join + (p - 2) join_more); no bytes / socket where the caches of p cores hold them"
)
# Assumed, not measured: what a further thread adds to a join (it enters, claims and leaves: a cache
# line passes from core to core three times), and what the memory of a socket with 64 cores moves.
JOIN_MORE = 0.15e-6  # seconds
SOCKET_GBYTES = 250.0
COUNTS = (2, 4, 8, 16, 32, 64)  # of threads, for which joins and pieces are counted
ONE, TWO = "1 thread", "2 threads"
MORE_THREADS = tuple(count for count in COUNTS if count > 2)  # for which speed-ups are expected


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
    + joins (join + (p - 2) join_more), with work = T(1) - call. With one thread there is nothing to
    share and nothing to join: T(1) = call + work, as it was measured.

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
    memory = 0.0 if from_cache or threads == 1 else case.bytes / (socket * 1e9)
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
    one = record["seconds"][ONE]["median"]
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
