# SPDX-License-Identifier: MIT
"""What the kernels are meant to reach on an H200: one table, set before anything was measured.

A goal is a ratio to a peer of the same run, a share of the copy timed in the same rounds, or a
time. "must" is asked for, "stretch" is hoped for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .report import digits

Record = dict[str, Any]
STRETCH, MUST, MISSED, UNMEASURED = "stretch", "must", "missed", "not measured"
_ORDER = (MISSED, MUST, STRETCH)


@dataclass(frozen=True)
class Goal:
    """A goal of some cases.

    Attributes:
        row: The row of the table that it belongs to.
        cases: What their `family/name` matches, as a regular expression.
        must: The value asked for.
        stretch: The value hoped for; None sets none.
        peer: Name of the peer whose time is divided by ours, with `*` and `?`: a ratio at least;
            "*" is the fastest. "copy": a share of the copy at least. "" sets a time at most, in
            microseconds.
        mean: Whether it holds for the geometric mean of all cases together.
    """

    row: str
    cases: str
    must: float
    stretch: float | None = None
    peer: str = "*"
    mean: bool = False

    def value(self, record: Record) -> float | None:
        """Return what a case made of it; None if its peer was not there."""
        if not self.peer:
            return 1e6 * float(record["seconds"]["tilegrad"]["median"])
        if self.peer == "copy":
            return float(record["share"]["median"]) if "share" in record else None
        ratios = [
            float(one["median"])
            for name, one in record["ratios"].items()
            if fnmatchcase(name, self.peer)
        ]
        return min(ratios, default=None)

    def verdict(self, value: float) -> str:
        """Return what was reached, to the two digits that are shown.

        Example:
            >>> goal = Goal("x", "matmul/.*", 0.97, 1.02, "torch")
            >>> [goal.verdict(value) for value in (0.96, 0.966, 1.1)]
            ['missed', 'must', 'stretch']
        """
        sign = 1 if self.peer else -1  # a time is to be short
        got = sign * round(value, 2)
        if self.stretch is not None and got >= sign * self.stretch:
            return STRETCH
        return MUST if got >= sign * self.must else MISSED

    def text(self) -> str:
        """Return the goal in words.

        Example:
            >>> Goal("x", "y", 0.9, 0.96, "copy").text(), Goal("x", "y", 25, 15, "").text()
            ('0.9 (0.96) of the copy', 'at most 25 (15) us')
        """
        value = f"{self.must:g}" + ("" if self.stretch is None else f" ({self.stretch:g})")
        if not self.peer:
            return f"at most {value} us"
        if self.peer == "copy":
            return f"{value} of the copy"
        return f"{value} x {'fastest' if self.peer == '*' else self.peer}"


_LARGE = "bf16 products 4096 and 8192"
_SHAPES = "bf16 products, geometric mean of all shapes"
_LINEAR = "linear + gelu, forward and backward"
_LOSS = "cross-entropy with gradient, of the copy"
_LOSS_PEERS = "cross-entropy with gradient, beside torch"
_STEP = "784-512-512-10, SGD step, batch 128"
_STEPS = "784-512-512-10, SGD step, batch 1024 and 65536"
_TF32, _FP32 = "tf32 products", "float32 products"
_PASSES = "elementwise and dropout from 16 MiB on"
_UPDATES = "optimisers from 16 MiB on"
_MLP = "fused MLP, half of what the chip allows"
_HOST = "host cost of a call"
_CE = r"cross_entropy/(8192x32768|16384x128256) bf16"
_SGD = "train_step/SGD batch"

GOALS = (
    Goal(_LARGE, r"matmul/(4096x4096x4096|8192x8192x8192) \w\w bf16", 0.97, 1.02, "torch"),
    Goal(_SHAPES, r"matmul/.* bf16", 1.00, 1.08, "torch", mean=True),
    Goal(_LINEAR, "linear/8192x4096->16384 gelu_tanh bf16 training", 1.05),
    Goal(_LINEAR, "linear/8192x1024->4096 gelu_tanh bf16 training", 1.25),
    Goal(_LINEAR, "linear/65536x512->512 gelu_tanh bf16 training", 1.45),
    Goal(_LOSS, _CE, 0.90, 0.96, "copy"),
    Goal(_LOSS, "cross_entropy_options/.*", 0.90, 0.96, "copy"),
    Goal(_LOSS_PEERS, _CE, 3.0, None, "torch"),
    Goal(_LOSS_PEERS, _CE, 1.4, None, "torch compile"),
    Goal(_STEP, f"{_SGD} 128 f32", 25, 15, ""),
    Goal(_STEP, f"{_SGD} 128 f32", 8, None, "torch"),
    Goal(_STEPS, f"{_SGD} 1024 bf16", 2, None, "torch graph"),
    Goal(_STEPS, f"{_SGD} 65536 bf16", 1.4, None, "torch compile"),
    Goal(_MLP, "fused_mlp/64x5 2097152 bf16 inference", 250, None, ""),
    Goal(_MLP, "fused_mlp/64x5 2097152 bf16 training", 839, None, ""),
    Goal(_MLP, "fused_mlp/128x5 2097152 bf16 inference", 839, None, ""),
    Goal(_MLP, "fused_mlp/128x5 2097152 bf16 training", 3329, None, ""),
    Goal(_TF32, "matmul_ladder/hopper_tf32 4096 f32", 0.95, None, "torch tf32"),
    Goal(_FP32, r"matmul/(4096x4096x4096|8192x8192x8192) \w\w f32", 0.90, None, "torch"),
    Goal(_PASSES, r"activation/\w+ (8388608|100000000) .*", 0.90, None, "copy"),
    Goal(_PASSES, "dropout/.*", 0.90, None, "copy"),
    Goal(_UPDATES, "optim/.* (16 MiB|large) .*", 0.90, None, "copy"),
    Goal(_HOST, "host/.*", 2, None, ""),
)  # fmt: skip

_SAME = "the same bits twice"
# row: what is timed, what it is compared with, seconds at most
STARTS = {
    "import": ("tilegrad", "python", 0.2),
    "first matmul": ("tilegrad, first matmul done", "tilegrad", 0.05),
}


def of_case(name: str, table: Sequence[Goal] = GOALS) -> tuple[Goal, ...]:
    """Return the goals of a case, by its `family/name`."""
    return tuple(goal for goal in table if re.fullmatch(goal.cases, name))


def identity(record: Record) -> str:
    """Return the `family/name` of a stored case."""
    return f"{record['family']}/{record['name']}"


def case_text(record: Record) -> str:
    """Return what a case made of each of its goals, in words."""
    found = []
    for goal in of_case(identity(record)):
        if goal.mean:
            continue
        value = goal.value(record)
        got = UNMEASURED if value is None else f"{digits(value)} {goal.verdict(value)}"
        found.append(f"{goal.text()}: {got}")
    return "; ".join(found)


@dataclass(frozen=True)
class Row:
    """A row of the table as a run filled it.

    Attributes:
        name: What it is about.
        wanted: The goal that is farthest from being reached, in words.
        verdict: Of the worst of its cases.
        value: What that one made of it; None without a measurement.
        case: That one's name.
        cases: How many outcomes were looked at.
    """

    name: str
    wanted: str
    verdict: str
    value: float | None = None
    case: str = ""
    cases: int = 0

    def text(self) -> str:
        """Return a line."""
        if self.value is None:
            return f"{self.name:<48} {self.verdict:<12} wanted {self.wanted}"
        worst = f"{digits(self.value)}, wanted {self.wanted}"
        where = f" ({self.case})" if self.case else ""
        return f"{self.name:<48} {self.verdict:<12} {worst}{where}, {self.cases} looked at"


def rows(result: Record, table: Sequence[Goal] = GOALS) -> list[Row]:
    """Return every row of the table, those that nothing was measured of too.

    Args:
        result: A run, as its JSON file holds it; `cases` may be predictions.
        table: All goals.
    """
    names = list(dict.fromkeys(goal.row for goal in table))
    found = [_row(name, result["cases"], [g for g in table if g.row == name]) for name in names]
    found += [_start(name, result.get("start", {})) for name in STARTS]
    same = [(one["same_bits"], identity(one)) for one in result["cases"] if "same_bits" in one]
    broken = [name for is_same, name in same if not is_same]
    verdict = UNMEASURED if not same else MISSED if broken else MUST
    value = 1 - len(broken) / len(same) if same else None
    case = ", ".join(broken)
    return [*found, Row("determinism", f"all: {_SAME}", verdict, value, case, len(same))]


def _row(name: str, records: Iterable[Record], goals: Sequence[Goal]) -> Row:
    outcomes: list[tuple[str, float, Goal, str, float]] = []  # verdict, margin, goal, case, value
    for goal in goals:
        values = []
        for record in records:
            if re.fullmatch(goal.cases, identity(record)):
                value = goal.value(record)
                if value is not None:
                    values.append((value, identity(record)))
        if goal.mean and values:
            mean = math.exp(sum(math.log(value) for value, _ in values) / len(values))
            values = [(mean, f"{len(values)} shapes")]
        for value, case in values:
            margin = value / goal.must if goal.peer else goal.must / value
            outcomes.append((goal.verdict(value), margin, goal, case, value))
    if not outcomes:
        return Row(name, " and ".join(dict.fromkeys(goal.text() for goal in goals)), UNMEASURED)
    verdict, _, goal, case, value = min(outcomes, key=lambda one: (_ORDER.index(one[0]), one[1]))
    return Row(name, goal.text(), verdict, value, case, len(outcomes))


def _start(name: str, start: dict[str, dict[str, float]]) -> Row:
    what, base, most = STARTS[name]
    wanted = f"at most {most:g} s"
    if what not in start or base not in start:
        return Row(name, wanted, UNMEASURED)
    value = start[what]["median"] - start[base]["median"]
    return Row(name, wanted, MUST if value <= most else MISSED, value, "", 1)
