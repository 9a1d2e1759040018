# SPDX-License-Identifier: MIT
"""What each case was meant to reach, and whether a run did: one table, set before the kernels were.

A goal is a ratio to a peer of the same run, or, for tiny calls, a time. A row of the table holds
cases with one purpose; it is reached when every one of them reached its goal and, where a mean is
asked for, the mean did too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Record = dict[str, Any]
REACHED, MISSED, UNMEASURED = "reached", "not reached", "not measured"


@dataclass(frozen=True)
class Goal:
    """A goal of some cases.

    Attributes:
        row: The row of the table that it belongs to.
        cases: What their `family/name` matches, as a regular expression.
        peer: Name of the peer whose time is divided by ours, with `*` and `?`; "*" is the fastest
            of all. "" for a time.
        one: Least ratio with one thread, or most microseconds; None sets none.
        two: The same with two threads and more.
        mean: Least geometric mean of the ratios of the row's cases; None sets none.
        needs: The feature of the processor that it was set for.

    Example:
        >>> Goal("x", "matmul/64 NN", "torch", 1.3, 1.4).value(2)
        1.4
    """

    row: str
    cases: str
    peer: str
    one: float | None
    two: float | None
    mean: float | None = None
    needs: str = ""

    def value(self, threads: int) -> float | None:
        """Return the goal for so many threads."""
        return self.one if threads == 1 else self.two

    def text(self, threads: int) -> str:
        """Return the goal in words.

        Example:
            >>> Goal("x", "tiny/.*", "", 1.5, 1.5).text(1)
            '1.5 us'
            >>> Goal("x", "matmul/.*", "*", 0.95, 0.95).text(1)
            '0.95 x fastest'
        """
        value = self.value(threads)
        if value is None:
            return ""
        if not self.peer:
            return f"{value:g} us"
        return f"{value:g} x {'fastest' if self.peer == '*' else self.peer.rstrip('*')}"


_ALL = "*"
_SQUARE = "large float32 products"
_SMALL = "small float32 products"
_LAYER = "layer 512->10, its dx and dweight"
_SKINNY = "4 and 8 rows times 512x512"
_BF16 = "bfloat16 products"
_GELU = "gelu tanh"
_ACTIVATION = "relu, sigmoid, tanh, gelu"
_LOSS = "cross-entropy with gradient"
_PREDICT = "784-512-512-10, forward"
_SGD = "784-512-512-10, SGD step"
_ADAM = "784-512-512-10, Adam step"
_TINY = "tiny calls"
_LAYOUT = "(NN|NT|TN)"

GOALS = (
    Goal(_SQUARE, f"matmul/(512|1024|2048|4096) {_LAYOUT}", _ALL, 0.95, 0.95, mean=1.0),
    Goal(_SMALL, f"matmul/64 {_LAYOUT}", _ALL, 1.3, 1.3),
    Goal(_SMALL, f"matmul/128 {_LAYOUT}", _ALL, 1.1, 1.3),
    Goal(_SMALL, f"matmul/256 {_LAYOUT}", _ALL, 1.0, 1.1),
    Goal(_LAYER, "linear/128x512->10 (forward|dx|dweight)", _ALL, 1.5, 1.5),
    Goal(_SKINNY, "matmul/4x512x512 (NN|NT)", _ALL, 2.0, 2.0),
    Goal(_SKINNY, "matmul/8x512x512 (NN|NT)", _ALL, 2.5, 2.5),
    Goal(_BF16, "matmul/64 NN bf16", _ALL, 10.0, 10.0, needs="amx"),
    Goal(_BF16, "matmul/128 NN bf16", _ALL, 4.0, 4.0, needs="amx"),
    Goal(_BF16, "matmul/256 NN bf16", _ALL, 1.8, 1.8, needs="amx"),
    Goal(_BF16, "matmul/(512|1024) NN bf16", _ALL, None, 1.6, needs="amx"),
    Goal(_GELU, "activation/gelu tanh .*", "torch*", 4.0, 4.0),
    Goal(_GELU, "activation/gelu tanh .*", "jax", 1.5, 1.5),
    Goal(_ACTIVATION, r"activation/(sigmoid|tanh|gelu) \d+ .*", _ALL, 1.2, 1.2),
    Goal(_ACTIVATION, r"activation/relu \d+ .*", _ALL, 1.0, 1.0),
    Goal(_LOSS, "cross_entropy/128x10 .*", "jax", 5.0, 5.0),
    Goal(_LOSS, "cross_entropy/128x10 .*", "torch autograd", 12.0, 12.0),
    Goal(_LOSS, "cross_entropy/1024x1000 .*", "torch autograd", 4.0, 4.0),
    Goal(_LOSS, "cross_entropy/4096x32000 .*", "torch compile", 4.0, 4.0),
    Goal(_LOSS, "cross_entropy/4096x32000 .*", "torch autograd", 8.0, 8.0),
    Goal(_PREDICT, r"predict/.* batch \d+", "onnxruntime*", 1.0, 1.0),
    Goal(_PREDICT, "predict/.* batch 32", "torch", 1.4, 1.4),
    Goal(_SGD, "train_step/SGD batch 32", "torch", 2.0, 1.8),
    Goal(_SGD, "train_step/SGD batch 128", "torch", 1.35, 1.4),
    Goal(_SGD, "train_step/SGD batch 1024", "torch", 1.15, 1.15),
    Goal(_SGD, "train_step/SGD batch 32", "jax", 1.45, None),
    Goal(_SGD, "train_step/SGD batch 128", "jax", 1.2, None),
    Goal(_SGD, "train_step/SGD batch 1024", "jax", 1.1, None),
    Goal(_ADAM, "train_step/Adam batch 32", _ALL, 1.7, 2.0),
    Goal(_TINY, "tiny/linear .*", "", 1.0, 1.0),
    Goal(_TINY, "tiny/cross_entropy .*", "", 1.5, 1.5),
    Goal(_TINY, "tiny/8-8-2 .*", "", 10.0, 10.0),
)


@dataclass(frozen=True)
class Outcome:
    """What a case made of a goal.

    Attributes:
        goal: The goal.
        wanted: Its value for the run's threads.
        got: Ratio, or microseconds; None if the peer was not there.
        peer: The peer that it was measured against.
    """

    goal: Goal
    wanted: float
    got: float | None
    peer: str = ""

    @property
    def verdict(self) -> str:
        """Whether it was reached, to the two digits that are shown."""
        if self.got is None:
            return UNMEASURED
        got = round(self.got, 2)
        return REACHED if (got >= self.wanted if self.goal.peer else got <= self.wanted) else MISSED


def of_case(name: str, table: Sequence[Goal] = GOALS) -> tuple[Goal, ...]:
    """Return the goals of a case, by its `family/name`.

    Example:
        >>> [goal.text(1) for goal in of_case("train_step/SGD batch 32")]
        ['2 x torch', '1.45 x jax']
    """
    return tuple(goal for goal in table if re.fullmatch(goal.cases, name))


def outcomes(record: Record, threads: int, table: Sequence[Goal] = GOALS) -> list[Outcome]:
    """Return what a measured case made of each of its goals.

    Args:
        record: The case, as a run stores it.
        threads: Of the run.
        table: All goals.
    """
    result = []
    for goal in of_case(f"{record['family']}/{record['name']}", table):
        wanted = goal.value(threads)
        if wanted is None:
            continue
        if not goal.peer:
            median = record["seconds"]["tilegrad"]["median"]
            result.append(Outcome(goal, wanted, 1e6 * median, "time"))
            continue
        times = {
            name: record["seconds"][name]["median"]
            for name in record["ratios"]
            if fnmatchcase(name, goal.peer)
        }
        best = min(times, key=lambda name: times[name], default="")
        got = record["ratios"][best]["median"] if best else None
        result.append(Outcome(goal, wanted, got, best))
    return result


@dataclass(frozen=True)
class Row:
    """A row of the table: cases with one purpose.

    Attributes:
        name: What they are.
        outcomes: Of all goals of the measured cases.
        cases: The case of each outcome.
        mean: Geometric mean of the ratios that were measured, where a goal asks for one.
        mean_wanted: That goal.
        needs: The feature of the processor that the row was set for.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    cases: tuple[str, ...]
    mean: float | None
    mean_wanted: float | None
    needs: str

    @property
    def measured(self) -> tuple[Outcome, ...]:
        """Those outcomes whose peer was there."""
        return tuple(outcome for outcome in self.outcomes if outcome.got is not None)

    @property
    def reached(self) -> int:
        """How many of them reached their goal."""
        return sum(outcome.verdict == REACHED for outcome in self.measured)

    @property
    def mean_reached(self) -> bool:
        """Whether the mean is what it should be, or none is asked for."""
        return self.mean is None or self.mean_wanted is None or self.mean >= self.mean_wanted

    @property
    def verdict(self) -> str:
        """Whether all were reached."""
        if not self.measured:
            return UNMEASURED
        every = self.reached == len(self.measured) and self.mean_reached
        return REACHED if every else MISSED

    @property
    def worst(self) -> tuple[Outcome, str] | None:
        """The measured outcome that is farthest from its goal, and its case."""
        pairs = [pair for pair in zip(self.outcomes, self.cases, strict=True) if pair[0].got]
        return min(pairs, key=lambda pair: _margin(pair[0]), default=None)


def _margin(outcome: Outcome) -> float:
    """Return how many times as good as asked for an outcome is."""
    got = outcome.got or math.inf
    return got / outcome.wanted if outcome.goal.peer else outcome.wanted / got


def rows(records: Iterable[Record], threads: int, table: Sequence[Goal] = GOALS) -> list[Row]:
    """Return the rows of the table as a run filled them, those without a case too.

    Args:
        records: The cases of the run.
        threads: Of the run.
        table: All goals.
    """
    found: dict[str, list[tuple[Outcome, str]]] = {}
    for goal in table:
        if goal.value(threads) is not None:
            found.setdefault(goal.row, [])
    for record in records:
        for outcome in outcomes(record, threads, table):
            found[outcome.goal.row].append((outcome, f"{record['family']}/{record['name']}"))
    result = []
    for name, pairs in found.items():
        goals = [goal for goal in table if goal.row == name]
        wanted = max((goal.mean for goal in goals if goal.mean is not None), default=None)
        ratios = [o.got for o, _ in pairs if o.got and o.goal.mean is not None]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None
        result.append(
            Row(
                name,
                tuple(outcome for outcome, _ in pairs),
                tuple(case for _, case in pairs),
                None if mean is None else round(mean, 2),
                wanted,
                next((goal.needs for goal in goals), ""),
            )
        )
    return result
