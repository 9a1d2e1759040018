# SPDX-License-Identifier: MIT
"""The bench of a device: operands there, a clock of its events, calls replayed from a graph.

The harness is that of the CPU; what differs is here. Work on a GPU is asynchronous, so the clock
waits for it: it is made of CUDA events where torch is installed, else of synchronisations. Operands
are rotated, so that what a call reads is not what the call before it left in the cache. A kernel of
microseconds is launched from a CUDA graph, on both sides, so that the GPU is timed and not Python.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tilegrad as tg

from .environment import torch
from .harness import (
    LIMIT,
    OURS,
    Call,
    Case,
    Clock,
    Contest,
    Limit,
    Protocol,
    agree,
    calls_per_sample,
    collector_paused,
    record,
    run_rounds,
)
from .same_bits import STATEFUL, same_bits

ITEM = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
# Greatest error as a share of the largest magnitude: a few roundings of the result's dtype.
TOLERANCE = {"float32": 5e-5, "float64": 1e-12, "bfloat16": 1.2e-2, "float16": 5e-3}
_MOST_SETS = 16
_GRAPHED = 60e-6  # seconds: a shorter call is also the launch of the next one
_GRAPH_SECONDS = 2e-3  # length of a graph, about
_QUEUED = 200  # launches that no queue of a GPU is too short for
HOST = "host"  # the family of calls whose cost on the host is timed
OPTIM = "optim"  # one whose steps are counted on the host: a graph would repeat one of them


class LeftOut(Exception):  # noqa: N818 (nothing failed)
    """A case that this device, build or installation does not have; the text says why."""


@dataclass
class Workbench:
    """A device, and how its work is made, timed and compared.

    Args:
        device: "cuda", "cuda:N", "sim" or "cpu"; all but cuda are for trying the cases out.
        tiny: Replace every shape by a small one.
        cache: Bytes of the last cache; operands are rotated over three times as much.

    Attributes:
        notes: What was left out of the current case, in words.
    """

    device: str = "cuda"
    tiny: bool = False
    cache: int = 64 << 20
    notes: list[str] = field(default_factory=list)
    _seed: int = 0

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def synchronize(self) -> None:
        """Wait for all work."""
        if self.cuda:
            tg.cuda.synchronize(self.device)

    def normal(self, dtype: str, *shape: int, scale: float = 1.0) -> Any:
        """Return random normal numbers on the device, other ones at each call."""
        self._seed += 1
        if (pt := torch()) is not None:
            array = tg.empty(shape, dtype, device=self.device)
            view = tensor(array)
            generator = pt.Generator(device=view.device).manual_seed(self._seed)
            view.normal_(0, scale, generator=generator)
            return array
        rng = np.random.default_rng(self._seed)
        host = np.resize(rng.standard_normal(min(int(np.prod(shape)), 1 << 22)), shape) * scale
        return tg.asarray(host.astype(numpy_dtype(dtype)), device=self.device)

    def classes(self, rows: int, classes: int) -> Any:
        """Return random class numbers on the device."""
        self._seed += 1
        host = np.random.default_rng(self._seed).integers(0, classes, rows)
        return tg.asarray(host, device=self.device)

    def empty(self, dtype: str, *shape: int) -> Any:
        """Return an array on the device whose elements are NaN, so that unwritten ones show."""
        return tg.full(shape, float("nan"), dtype, device=self.device)

    def sets(self, bytes_of_one: float) -> int:
        """Return how many sets of operands are needed to leave the cache, within reason."""
        if self.tiny:
            return 2
        return int(min(max(-(-3 * self.cache // max(bytes_of_one, 1)), 1), _MOST_SETS))

    def attempt(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what makes a peer, or None and a note where it fails."""
        try:
            made = make()
            self.synchronize()
        except Exception as error:  # whatever a compiler of torch may raise
            self.notes.append(f"{name}: {type(error).__name__}: {first_line(error)}")
            return None
        return made

    def peer(self, peers: dict[str, Call], name: str, make: Callable[[], Call]) -> None:
        """Add a peer if it can be made and run; else note why not."""

        def tried() -> Call:
            call = make()
            call()
            return call

        if (call := self.attempt(name, tried)) is not None:
            peers[name] = call

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Put the work of tilegrad and of torch on one stream, which is not the default one."""
        if not self.cuda:
            yield
            return
        own = tg.cuda.Stream(self.device)
        with tg.cuda.stream(own):
            pt = torch()
            if pt is None:
                yield
            else:
                with pt.cuda.stream(pt.cuda.ExternalStream(own.handle)):
                    yield
            own.synchronize()

    def clock(self) -> Clock:
        """Return a clock that waits for the device and then tells the time."""
        pt = torch()
        if self.cuda and pt is not None:
            return EventClock(pt.cuda.Event)

        def waiting() -> float:
            self.synchronize()
            return time.perf_counter()

        return waiting


class EventClock:
    """Seconds by CUDA events on the current stream, since it was made.

    Args:
        event: Makes an event, as ``torch.cuda.Event``.
    """

    def __init__(self, event: Callable[..., Any]) -> None:
        self._event = event
        self._last: Any = None
        self._seconds = 0.0

    def __call__(self) -> float:
        """Wait for what was put on the stream; return the time at which it was done."""
        now = self._event(enable_timing=True)
        now.record()
        now.synchronize()
        if self._last is not None:
            # a float32 of milliseconds: exact enough between neighbours, not since the start
            self._seconds += self._last.elapsed_time(now) * 1e-3
        self._last = now
        return self._seconds


class Rotation:
    """Calls over different operands, one after the other, as one call.

    Example:
        >>> turn = Rotation([lambda: "a", lambda: "b"])
        >>> turn(), turn(), turn()
        ('a', 'b', 'a')
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = list(calls)
        self._next = itertools.cycle(self.calls).__next__

    def __call__(self) -> Any:
        """Run the next one."""
        return self._next()()


def rotating(makes: Mapping[str, Callable[[int], Call]], sets: int) -> dict[str, Call]:
    """Return for each side its calls over the sets of operands."""
    return {name: Rotation([make(i) for i in range(sets)]) for name, make in makes.items()}


def checked(bench: Workbench, sides: dict[str, Call], expected: Any, tolerance: float) -> Contest:
    """Return a contest over sides whose first call works on the first set of operands.

    Args:
        bench: Where the results are.
        sides: Each a `Rotation`; tilegrad's is one of them.
        expected: Compute the first set's result: arrays of float64, or pairs of an array and the
            rows of the result that it holds.
        tolerance: As in `agree`.
    """

    def check() -> None:
        wanted = expected()
        wanted = wanted if isinstance(wanted, list) else [wanted]
        for name, side in sides.items():
            results = side.calls[0]() if isinstance(side, Rotation) else side()
            results = results if isinstance(results, (tuple, list)) else (results,)
            bench.synchronize()
            got = []
            for result, value in zip(results, wanted, strict=True):
                got.append(_rows(result, value[1]) if isinstance(value, tuple) else host(result))
            plain = tuple(v[0] if isinstance(v, tuple) else v for v in wanted)
            agree({name: tuple(got)}, plain, tolerance)

    return Contest(sides[OURS], {k: v for k, v in sides.items() if k != OURS}, check)


def some_rows(rows: int, most: int = 24) -> NDArray[Any]:
    """Return rows of a large result that are compared: the edges and some between."""
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).astype(np.int64))


def _rows(result: Any, rows: NDArray[Any]) -> NDArray[Any]:
    return np.stack([host(result[int(i)]) for i in rows])


def tensor(array: Any) -> Any:
    """Return torch's tensor over the memory of an array of tilegrad."""
    return torch().from_dlpack(array)


def host(array: Any) -> NDArray[Any]:
    """Return the elements of an array of either side in float64, in the memory of the CPU."""
    if hasattr(array, "detach"):
        return np.asarray(array.detach().double().cpu().numpy())
    if isinstance(array, tg.Array) and torch() is not None:
        return np.asarray(tensor(array).double().cpu().numpy())
    values = array.numpy() if isinstance(array, tg.Array) else np.asarray(array)
    return np.asarray(values.astype(np.float64))


def numpy_dtype(dtype: str) -> Any:
    """Return NumPy's dtype of a name; LeftOut for bfloat16 without ml_dtypes."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ImportError:
        raise LeftOut("bfloat16 operands need torch or ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, cut to what fits a table."""
    return (str(error).strip().splitlines() or [""])[0][:300]


class Graph:
    """Calls that are captured once and replayed as one launch.

    What the calls return is kept: the graph writes to that memory at each replay.
    """

    def __init__(self, call: Call, calls: int) -> None:
        pt = torch()
        self.calls = calls
        self._graph = pt.cuda.CUDAGraph()
        stream = pt.cuda.current_stream()
        with pt.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._kept = [call() for _ in range(calls)]

    def __call__(self) -> None:
        """Replay all of them."""
        self._graph.replay()


def _graphs(
    bench: Workbench, sides: Mapping[str, Call], each: Mapping[str, float]
) -> dict[str, Graph] | None:
    """Capture every side, or none: the sides must be timed in the same way."""
    if not bench.cuda or torch() is None:
        return None
    graphs = {}
    try:
        for name, call in sides.items():
            sets = len(call.calls) if isinstance(call, Rotation) else 1
            rounds = max(1, round(_GRAPH_SECONDS / max(each[name], 1e-6) / sets))
            graphs[name] = Graph(call, sets * rounds)
            graphs[name]()
            bench.synchronize()
    except Exception as error:  # torch names no narrower class for a failed capture
        bench.notes.append(f"no graph, so calls are timed: {first_line(error)}")
        bench.synchronize()
        return None
    return graphs


def measure(
    bench: Workbench, case: Case, limit: Limit | None, protocol: Protocol
) -> dict[str, Any]:
    """Check a case once, then time it.

    Args:
        bench: The device.
        case: What to time; one that is not `limited` is timed as calls, never from a graph.
        limit: What the device can do at most, timed in the same rounds; None leaves it out.
        protocol: How long and how often.

    Returns:
        As `harness.record`, with `how` ("graph" or "calls"), `cache` ("cold" if the operands are
        rotated over more than the cache, else "hot"), the rates `gbytes` and `tflops` a second of
        ours, and `notes`.

    Raises:
        AssertionError: If a side computes something else.
        LeftOut: If the case cannot run here.
    """
    bench.notes.clear()
    contest = case.build()
    contest.check()
    same = None
    if case.family not in STATEFUL:
        ours = contest.ours.calls[0] if isinstance(contest.ours, Rotation) else contest.ours
        same = same_bits(ours)
    sides: dict[str, Call] = {OURS: contest.ours, **contest.peers}
    if case.family == HOST:
        return _on_the_host(bench, case, sides, protocol) | {"same_bits": same}
    clock = bench.clock()
    tried = {name: calls_per_sample(call, protocol.sample, clock) for name, call in sides.items()}
    each = {name: seconds for name, (_, seconds) in tried.items()}
    calls = {name: number for name, (number, _) in tried.items()}
    short = case.limited and case.family != OPTIM and min(each.values()) < _GRAPHED
    graphs = _graphs(bench, sides, each) if short else None
    if graphs is not None:
        sides = {**graphs}
        tried = {n: calls_per_sample(g, protocol.sample, clock) for n, g in graphs.items()}
        calls = {name: number for name, (number, _) in tried.items()}
        each = {name: seconds for name, (_, seconds) in tried.items()}
    if limit is not None:
        sides[LIMIT] = limit.call
        calls[LIMIT], each[LIMIT] = calls_per_sample(limit.call, protocol.sample, clock)
    round_seconds = sum(calls[name] * each[name] for name in sides)
    rounds = min(max(int(protocol.budget / round_seconds), protocol.fewest), protocol.most)
    with collector_paused():
        seconds = run_rounds(sides, calls, rounds, clock=clock)
    if graphs is not None:
        for name, graph in graphs.items():
            seconds[name] = [value / graph.calls for value in seconds[name]]
    result = record(case, seconds, limit)
    ours = result["seconds"][OURS]["median"]
    sets = len(contest.ours.calls) if isinstance(contest.ours, Rotation) else 1
    result |= {
        "how": "calls" if graphs is None else "graph",
        "cache": "cold" if sets * case.bytes > 2 * bench.cache else "hot",
        "sets": sets,
        "gbytes": round(case.bytes / ours / 1e9, 2),
        "tflops": round(case.flops / ours / 1e12, 3),
        "notes": list(bench.notes),
    }
    return result if same is None else result | {"same_bits": same}


def _on_the_host(
    bench: Workbench, case: Case, sides: Mapping[str, Call], protocol: Protocol
) -> dict[str, Any]:
    """Time what calls cost Python: so few in a row that the GPU's queue never fills."""
    calls = dict.fromkeys(sides, _QUEUED)

    def before(call: Call, calls: int) -> None:
        for _ in range(calls):
            call()
        bench.synchronize()

    result = record(case, run_rounds(sides, calls, 2 * protocol.most, before=before), None)
    return result | {"how": "host", "cache": "hot", "sets": 1, "notes": list(bench.notes)}
