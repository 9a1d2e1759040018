# SPDX-License-Identifier: MIT
"""How speed is measured: one process, interleaved rounds, medians and quartiles, paired ratios.

A case says what is computed, and how many bytes and operations that takes at least; only this file
divides. All sides of a case are timed in every round, one after the other, and so is the limit of
the machine: what drifts over seconds (clock rate, neighbours) hits all of them alike, and a ratio
is the median of the ratios within each round.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .gpu_model import Prediction

Call = Callable[[], Any]
Clock = Callable[[], float]
OURS = "tilegrad"
LIMIT = "limit"
_SLOW = 3.0  # seconds of a round
_LONG = 50  # samples; a first call of this length needs no second one to be believed


@dataclass(frozen=True)
class Contest:
    """What is timed in a case: callables over operands that were made before.

    Attributes:
        ours: tilegrad's side.
        peers: The others, by name; those that are not installed are left out.
        check: Raise AssertionError unless the sides compute the same, right result.
        left_out: Peers that are installed and cannot do this one, or do it wrong, and why; complete
            once `check` was called.
    """

    ours: Call
    peers: Mapping[str, Call]
    check: Callable[[], None]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A computation that is timed.

    Attributes:
        family: The op or group, such as "matmul".
        name: Shape and variant; unique within the family.
        bytes: That must be moved at least: each operand read and each result written once.
        flops: Arithmetic operations of the formula; a function such as exp counts as one.
        build: Make the operands and the sides.
        quick: Whether it is part of the quick selection.
        limited: Whether a share of the machine's limit is to be had: not for tiny calls.
        predicted: What a model of the machine makes of it; None without one.
    """

    family: str
    name: str
    bytes: float
    flops: float
    build: Callable[[], Contest]
    quick: bool = False
    limited: bool = True
    predicted: Prediction | None = None

    @property
    def id(self) -> str:
        """The family and the name, which `--filter` matches."""
        return f"{self.family}/{self.name}"


@dataclass(frozen=True)
class Limit:
    """A call that does nothing but what the machine can do fastest.

    Attributes:
        kind: "FMA" or "copy".
        call: Runs it.
        work: Operations or bytes of one call.
    """

    kind: str
    call: Call
    work: float


@dataclass(frozen=True)
class Protocol:
    """How long and how often.

    Attributes:
        sample: Seconds of a sample at least: a batch of calls, timed as one.
        budget: Seconds for a case, about; decides the number of rounds.
        fewest: Rounds at least, whatever the budget.
        most: Rounds at most.
        settle: Seconds of rest before each sample. Idle workers of OpenMP and OpenBLAS spin for
            up to 30 ms; with two threads they would take the core that the next side needs.
        evict: Bytes written elsewhere before each sample, which is then a single call; 0 leaves
            the operands in the caches that the calls before left them in.
    """

    sample: float = 0.004
    budget: float = 2.5
    fewest: int = 5
    most: int = 25
    settle: float = 0.0
    evict: int = 0

    def rounds(self, seconds: float) -> int:
        """Return how many rounds are made.

        Args:
            seconds: Of a round. Rounds of seconds are so long that three will do.

        Example:
            >>> protocol = Protocol(budget=2.5, fewest=5, most=25)
            >>> [protocol.rounds(seconds) for seconds in (0.01, 0.25, 1.0, 4.0)]
            [25, 10, 5, 3]
        """
        fewest = min(self.fewest, 3) if seconds > _SLOW else self.fewest
        return min(max(int(self.budget / seconds), fewest), self.most)


def agree(results: Mapping[str, Any], expected: Any, tolerance: float) -> None:
    """Require every result to be what is expected.

    Args:
        results: For each side an array (or what NumPy can read) or a tuple of them.
        expected: The same, in higher precision or from an independent computation.
        tolerance: Greatest error, as a share of the largest finite magnitude expected.

    Raises:
        AssertionError: If a result is wrong; names the side and the error.

    Example:
        >>> agree({"tilegrad": np.float32(0.1)}, 0.1, 1e-6)
    """
    wanted = _arrays(expected)
    for side, result in results.items():
        got = _arrays(result)
        assert len(got) == len(wanted), f"{side}: {len(got)} results, not {len(wanted)}"
        for i, (a, e) in enumerate(zip(got, wanted, strict=True)):
            assert a.shape == e.shape, f"{side}: result {i} is {a.shape}, not {e.shape}"
            scale = float(np.max(np.abs(e), initial=0)) or 1.0
            error = float(np.max(np.abs(a - e), initial=0)) / scale
            assert error <= tolerance, f"{side}: result {i} is off by {error:.2g} of its range"


def _arrays(result: Any) -> list[NDArray[Any]]:
    parts = result if isinstance(result, (tuple, list)) else (result,)
    return [_array(part) for part in parts]


def _array(part: Any) -> NDArray[Any]:
    if hasattr(part, "detach"):  # of torch, whose bfloat16 NumPy does not read
        part = part.detach()
        part = part.float() if str(part.dtype) == "torch.bfloat16" else part
    return np.asarray(part)


def time_calls(call: Call, calls: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of one call, from a batch of them.

    Args:
        call: What to run.
        calls: How often.
        clock: Seconds.

    Example:
        >>> ticks = iter([10.0, 16.0])
        >>> time_calls(lambda: None, 3, lambda: next(ticks))
        2.0
    """
    start = clock()
    for _ in itertools.repeat(None, calls):
        call()
    return (clock() - start) / calls


def calls_per_sample(
    call: Call, seconds: float, clock: Clock = time.perf_counter
) -> tuple[int, float]:
    """Return how many calls take at least so long, after warming up with as many.

    Args:
        call: What to run.
        seconds: Length of a sample.
        clock: Seconds.

    Returns:
        The number, at least 1, and the seconds of one call.
    """
    calls, each = 1, time_calls(call, 1, clock)
    if each < _LONG * seconds:  # else the first one can be believed
        each = time_calls(call, 1, clock)
    while each * calls < seconds / 2:
        calls *= 2
        each = time_calls(call, calls, clock)
    return max(1, -int(-seconds // max(each, 1e-9))), each


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def run_rounds(
    sides: Mapping[str, Call],
    calls: Mapping[str, int],
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    before: Callable[[Call, int], None] = lambda call, calls: None,
) -> dict[str, list[float]]:
    """Time all sides in every round, in alternating order.

    Args:
        sides: What to run, by name.
        calls: Calls in a sample of each.
        rounds: How many samples of each.
        clock: Seconds.
        before: Prepares a sample; gets the call and the number of calls.

    Returns:
        The seconds of one call, for each side and round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            before(sides[name], calls[name])
            seconds[name].append(time_calls(sides[name], calls[name], clock))
        order.reverse()  # a drift in one direction favours nobody
    return seconds


def summary(values: ArrayLike) -> dict[str, float]:
    """Return median and quartiles, to four digits.

    Example:
        >>> summary([1.0, 2.0, 3.0, 4.0, 100.0])
        {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    low, median, high = np.percentile(np.asarray(values, np.float64), (25, 50, 75))
    return {"median": _short(median), "low": _short(low), "high": _short(high)}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def record(
    case: Case, seconds: Mapping[str, Sequence[float]], limit: Limit | None
) -> dict[str, Any]:
    """Turn the samples of a case into what is stored.

    Args:
        case: What was timed.
        seconds: Samples of each side, and of the limit under that name.
        limit: What the machine can do at most, or None.

    Returns:
        Plain values: `seconds` a side, `ratios` (peer's time over ours; above 1 we are faster),
        `best_peer`, the fastest, `rate` of the limit's unit, `limit` and `share` of it.
    """
    ours = np.asarray(seconds[OURS])
    peers = [name for name in seconds if name not in (OURS, LIMIT)]
    times = {name: summary(seconds[name]) for name in (OURS, *peers)}
    result: dict[str, Any] = {
        "family": case.family,
        "name": case.name,
        "bytes": case.bytes,
        "flops": case.flops,
        "rounds": len(ours),
        "seconds": times,
        "ratios": {name: summary(np.asarray(seconds[name]) / ours) for name in peers},
        "best_peer": min(peers, key=lambda name: times[name]["median"], default=None),
    }
    if limit is not None:
        work = case.flops if limit.kind == "FMA" else case.bytes
        rates = limit.work / np.asarray(seconds[LIMIT])
        result["limit"] = limit.kind
        result["rate"] = _short(work / times[OURS]["median"])
        result["share"] = summary(work / ours / rates)
    return result


class Evictor:
    """Writes over memory so that operands leave the caches."""

    def __init__(self, size: int) -> None:
        self._memory = np.zeros(size // 8)

    def __call__(self) -> None:
        """Read and write all of it."""
        self._memory += 1


def measure(case: Case, limit: Limit | None, protocol: Protocol) -> dict[str, Any]:
    """Check a case once, then time it.

    Args:
        case: What to time.
        limit: What the machine can do at most, timed in the same rounds; None leaves it out.
        protocol: How long and how often.

    Returns:
        As `record`.

    Raises:
        AssertionError: If a side computes something else.
    """
    contest = case.build()
    contest.check()
    sides: dict[str, Call] = {OURS: contest.ours, **contest.peers}
    if limit is not None:
        sides[LIMIT] = limit.call
    evictor = Evictor(protocol.evict)
    tried = {name: calls_per_sample(call, protocol.sample) for name, call in sides.items()}
    calls = {name: 1 if protocol.evict else number for name, (number, _) in tried.items()}
    # a sample, its warm-up and its rest
    round_seconds = sum(
        1.25 * calls[name] * each + protocol.settle for name, (_, each) in tried.items()
    )
    if protocol.evict:
        round_seconds += len(sides) * time_calls(evictor, 1)
    rounds = protocol.rounds(round_seconds)

    def before(call: Call, calls: int) -> None:
        if protocol.settle:
            time.sleep(protocol.settle)
        if protocol.evict:
            if call is not sides.get(LIMIT):
                evictor()
        elif calls > 1:  # wake the workers and refill the caches; a long call does it itself
            for _ in range(-(-calls // 4)):
                call()

    with collector_paused():
        seconds = run_rounds(sides, calls, rounds, before=before)
    result = record(case, seconds, limit)
    if contest.left_out:
        result["left_out"] = dict(contest.left_out)
    return result
