# SPDX-License-Identifier: MIT
"""The simulator (device "sim"): its schedule, and what kernels do to memory.

`trace()` runs ops on sim through kernels whose every memory access is watched. It tells, by line of
the CUDA sources, how well the accesses of a warp fall together, and finds races and accesses out of
bounds. It cannot tell speed, occupancy or caches. `compile()` brings kernels of your own.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any

from . import backends
from ._sim_kernels import Kernel, KernelModule, compile
from ._trace_lines import Line, LineTable, line_table
from ._trace_records import Access, Index, Launch, OutOfBounds, Race, Site, table, where

__all__ = [
    "Access",
    "Kernel",
    "KernelModule",
    "Launch",
    "OutOfBounds",
    "Race",
    "Site",
    "Trace",
    "compile",
    "schedule",
    "set_schedule",
    "trace",
    "where",
]

_lock = threading.Lock()  # one trace at a time


class Trace:
    """A traced region and, after it, what was found: made by `trace()`.

    Attributes:
        sites: One `Site` for each kind of access of each line, by file and line.
        races: What `Race`s there were.
        out_of_bounds: Accesses outside of buffers.
        launches: The kernels, in the order of their launch.
        tensor_flops: Floating-point operations of tensor-core instructions, counted exactly.
        schedule: The schedule it ran under.
    """

    def __init__(self, schedule: str | None = None) -> None:
        self.sites: list[Site] = []
        self.races: list[Race] = []
        self.out_of_bounds: list[OutOfBounds] = []
        self.launches: list[Launch] = []
        self.tensor_flops = 0
        self.schedule = schedule or ""
        self._module: Any = None
        self._plain: Any = None

    def __enter__(self) -> Trace:
        plain = backends.at(backends.SIM)
        if not _lock.acquire(blocking=False):
            raise RuntimeError("sim.trace: a trace is on already; traces cannot be nested")
        try:
            self._start(plain)
        except BaseException:
            _lock.release()
            raise
        return self

    def _start(self, plain: Any) -> None:
        if importlib.util.find_spec("elftools") is None:
            raise ImportError(
                "sim.trace: needs pyelftools to find source lines (pip install 'tilegrad[trace]')"
            )
        try:
            module = importlib.import_module(f"{__package__}._sim_trace")
        except ImportError as error:
            raise RuntimeError(f"sim.trace: this build has no {__package__}._sim_trace") from error
        module._use_memory(plain._memory_table())
        major, minor = plain.properties(backends.SIM)["compute_capability"]
        module._set_compute_capability(10 * major + minor)
        module._set_float32_matmul_precision(backends.get_float32_matmul_precision())
        module._set_schedule(self.schedule or plain.schedule())
        self.schedule = module.schedule()
        module._begin_trace()
        self._module, self._plain = module, plain
        backends._Loaded.sim = module

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        backends._Loaded.sim = self._plain
        try:
            self._read(self._module._end_trace())
            self._module.release_memory()
        finally:
            _lock.release()

    def _read(self, text: str) -> None:
        found = json.loads(text)
        tables = [line_table(path) for path in found["modules"]]
        places = [_place(site, tables) for site in found["sites"]]
        self.launches = [_launch(each, tables) for each in found["launches"]]
        self.races = [_race(each, found["sites"], places, tables) for each in found["races"]]
        self.tensor_flops = found["flops"]
        self.sites = _merged(found["sites"], places)
        self.out_of_bounds = [
            OutOfBounds(
                _access(each["access"], found["sites"], places),
                each["space"],
                each["offset"],
                found["sites"][each["access"]["site"]]["bytes"],
                each["bytes"],
                bool(each["freed"]),
                each["count"],
            )
            for each in found["out_of_bounds"]
        ]

    def __str__(self) -> str:
        return "\n".join(self._text())

    def _text(self) -> Iterator[str]:
        count = len(self.launches)
        yield f"{count} kernel launch{'es' * (count != 1)}, schedule {self.schedule}"
        yield from (f"  {launch}" for launch in dict.fromkeys(self.launches))
        if self.tensor_flops:
            yield f"  {self.tensor_flops:,} floating-point operations on tensor cores"
        for space, unit in (("global", "sectors"), ("shared", "wavefronts")):
            sites = [site for site in self.sites if site.space == space]
            if sites:
                yield ""
                yield from table(space, unit, sites)
        for name, found in (("races", self.races), ("out of bounds", self.out_of_bounds)):
            yield ""
            yield f"{name}: {len(found) or 'none'}"
            yield from (f"  {each}" for each in found)


def trace(schedule: str | None = None) -> Trace:
    """Watch what the kernels of a region of code do to memory.

    Inside the region ops on sim Arrays run in kernels that report every access. A `TrainStep` that
    was made outside is not watched. Regions cannot be nested, and one thread at a time has one.

    Args:
        schedule: The order of threads, blocks and asynchronous copies, as for `set_schedule`; None
            keeps the one that is set.

    Returns:
        A `Trace`, whose lists are filled when the region ends, also by an error of a kernel.

    Raises:
        RuntimeError: If a trace is on already, or this build has no simulator.
        ValueError: If there is no such schedule.
        ImportError: If pyelftools is not installed.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = tg.asarray(np.ones((64, 32), np.float32), device="sim")
        >>> with tg.sim.trace(schedule="random:7") as t:
        ...     y = tg.relu(x)
        >>> t.races, t.out_of_bounds, {site.ratio for site in t.sites}
        ([], [], {1.0})
    """
    return Trace(schedule)


def schedule() -> str:
    """Return the simulator's schedule.

    Example:
        >>> schedule().count("/")
        1
    """
    return str(backends.at(backends.SIM).schedule())


def set_schedule(text: str) -> None:
    """Set the order in which the simulator runs threads, blocks and asynchronous copies.

    A correct kernel gives the same result under each.

    Args:
        text: "forward", "reverse" or "random[:seed]", then optionally "/eager", "/lazy" or
            "/random" for the moment at which asynchronous copies are done.

    Raises:
        ValueError: If there is no such schedule.

    Example:
        >>> before = schedule()
        >>> set_schedule("reverse/lazy")
        >>> schedule()
        'reverse/lazy'
        >>> set_schedule(before)
    """
    backends.at(backends.SIM)._set_schedule(text)


def _place(site: dict[str, Any], tables: list[LineTable]) -> tuple[list[Line], str]:
    if not site["address"]:
        return [Line(site["file"] or "?", site["line"])], ""
    lines = tables[site["module"]]
    frames = lines.frames(site["address"]) or [Line("?", 0)]
    return frames, lines.kernel(site["address"] - 1)


def _launch(launch: dict[str, Any], tables: list[LineTable]) -> Launch:
    return Launch(
        tables[launch["module"]].kernel(launch["kernel"]),
        _index(launch["grid"]),
        _index(launch["block"]),
        launch["dynamic_bytes"],
    )


def _index(values: list[int]) -> Index:
    x, y, z = values
    return x, y, z


def _access(
    access: dict[str, Any], sites: list[dict[str, Any]], places: list[tuple[list[Line], str]]
) -> Access:
    site = sites[access["site"]]
    frames = places[access["site"]][0]
    return Access(
        _index(access["thread"]),
        _index(access["block"]),
        site["op"],
        frames[0].file,
        frames[0].line,
        site["instruction"],
        tuple(frames[1:]),
    )


def _race(
    race: dict[str, Any],
    sites: list[dict[str, Any]],
    places: list[tuple[list[Line], str]],
    tables: list[LineTable],
) -> Race:
    name, start, size = "", 0, race["bytes"]
    lines = tables[race["module"]]
    variable = lines.shared_variable(race["offset"]) if race["static"] else None
    if variable is not None:
        name, start, size = variable
    return Race(
        _access(race["first"], sites, places),
        _access(race["second"], sites, places),
        race["space"],
        race["offset"] - start,
        size,
        race["count"],
        name,
    )


def _merged(sites: list[dict[str, Any]], places: list[tuple[list[Line], str]]) -> list[Site]:
    """Return the sites by file and line; what the compiler made of one access of a line is one."""
    merged: dict[tuple[Any, ...], Site] = {}
    for site, (frames, kernel) in zip(sites, places, strict=True):
        for space in ("global", "shared"):
            if space not in site:
                continue
            cost = site[space]
            one = Site(
                frames[0].file,
                frames[0].line,
                space,
                site["op"],
                site["bytes"],
                cost["requests"],
                cost["actual"],
                cost["ideal"],
                cost["worst"],
                site["instruction"],
                tuple(frames[1:]),
                kernel,
            )
            key = (frames[0], space, one.op, one.bytes, one.instruction, one.callers, kernel)
            other = merged.get(key)
            merged[key] = one if other is None else _sum(one, other)
    return sorted(
        merged.values(), key=lambda s: (s.file, s.line, s.space, s.op, s.bytes, s.callers)
    )


def _sum(one: Site, other: Site) -> Site:
    return replace(
        one,
        requests=one.requests + other.requests,
        sectors=one.sectors + other.sectors,
        ideal=one.ideal + other.ideal,
        worst=max(one.worst, other.worst),
    )
