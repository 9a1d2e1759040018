# SPDX-License-Identifier: MIT
"""What a trace of the simulator finds: sites, races, accesses out of bounds, launches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ._trace_lines import Line

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Site:
    """One kind of access at one line, by all warps and launches of a trace.

    Attributes:
        file: Path of the source, such as "csrc/cuda/softmax.cu".
        line: Its line.
        space: "global" or "shared".
        op: "load", "store" or "atomic".
        bytes: What one thread moves at once; 0: a copy engine moves whole rows.
        requests: How often a warp (or engine) made the access.
        sectors: What the requests cost: 32-byte sectors in global memory, wavefronts in shared.
        ideal: The least that they could cost.
        worst: The cost of the worst request.
        instruction: "cp.async", "ldmatrix" ...; "" for a plain load or store.
        callers: The lines that the access is inlined into, from the inside out.
        kernel: The kernel's name, where it is known.
    """

    file: str
    line: int
    space: str
    op: str
    bytes: int
    requests: int
    sectors: int
    ideal: int
    worst: int
    instruction: str = ""
    callers: tuple[Line, ...] = ()
    kernel: str = ""

    @property
    def ratio(self) -> float:
        """Cost by ideal cost: 1.0 is the best."""
        return self.sectors / self.ideal if self.ideal else 1.0

    @property
    def access(self) -> str:
        """What is done, in words: "load 4 B", "store cp.async 16 B"."""
        size = f"{self.bytes} B" if self.bytes else ""
        return " ".join(part for part in (self.op, self.instruction, size) if part)


@dataclass(frozen=True)
class Access:
    """Who did something, and where."""

    thread: Index
    block: Index
    op: str
    file: str
    line: int
    instruction: str = ""
    callers: tuple[Line, ...] = ()

    def __str__(self) -> str:
        what = f"{self.op} {self.instruction}".rstrip()
        return f"{what} by thread {_text(self.thread)} of block {_text(self.block)}, " + where(self)


@dataclass(frozen=True)
class Race:
    """Two accesses to the same bytes, at least one a write, that nothing orders.

    Attributes:
        first: The one that was seen first.
        second: The other one.
        space: "global" or "shared".
        offset: Where the second one begins, in bytes from the start of the buffer, of the static
            shared array or of the dynamic shared memory.
        bytes: Size of that buffer or array.
        count: How often this pair of lines raced.
        variable: Name of the static shared array, else "".
    """

    first: Access
    second: Access
    space: str
    offset: int
    bytes: int
    count: int
    variable: str = ""

    def __str__(self) -> str:
        of = self.variable or ("a buffer" if self.space == "global" else "dynamic shared memory")
        return (
            f"race in {self.space} memory at offset {self.offset} of {of} of {self.bytes} bytes "
            f"({self.count} times):\n"
            f"    {self.first}\n    {self.second}"
        )


@dataclass(frozen=True)
class OutOfBounds:
    """An access outside of the memory it is meant for.

    Attributes:
        access: Who, and where.
        space: "global" or "shared".
        offset: In bytes from the start of the buffer; negative before it.
        size: How many bytes were accessed.
        bytes: Size of the buffer, or of the dynamic shared memory.
        freed: Whether the buffer had been freed.
        count: How often this line did it.
    """

    access: Access
    space: str
    offset: int
    size: int
    bytes: int
    freed: bool
    count: int

    def __str__(self) -> str:
        what = "use after free" if self.freed else "out of bounds"
        of = "dynamic shared memory" if self.space == "shared" else "a buffer"
        return (
            f"{what}: {self.size} bytes at offset {self.offset} of {of} of {self.bytes} bytes "
            f"({self.count} times):\n    {self.access}"
        )


@dataclass(frozen=True)
class Launch:
    """A kernel's launch."""

    kernel: str
    grid: Index
    block: Index
    dynamic_bytes: int

    def __str__(self) -> str:
        text = f"{self.kernel or 'kernel'}  grid {_text(self.grid)}  block {_text(self.block)}"
        if self.dynamic_bytes:
            text += f"  dynamic shared memory {self.dynamic_bytes} B"
        return text


def table(space: str, unit: str, sites: list[Site]) -> Iterator[str]:
    """Yield the lines of a table of sites."""
    title = f"{space} memory"
    yield f"{title:28}{'requests':>12}{unit:>13}{'ideal':>12}{'worst':>7}{'ratio':>8}"
    for site in sites:
        yield (
            f"  {site.access:26}{site.requests:>12,}{site.sectors:>13,}{site.ideal:>12,}"
            f"{site.worst:>7}{site.ratio:>7.2f}x  {where(site)}"
        )


def where(place: Site | Access) -> str:
    """Return "file:line", and for a shared header the line of the kernel's file that uses it."""
    text = f"{place.file}:{place.line}"
    others = [each for each in place.callers if each.file != place.file]
    kernels = [each for each in others if each.file.endswith(".cu")]
    for caller in (kernels or others[-1:])[:1]:
        text += f" (from {caller.file.rsplit('/', 1)[-1]}:{caller.line})"
    return text


def _text(index: Index) -> str:
    return "({},{},{})".format(*index)
