# SPDX-License-Identifier: MIT
"""From addresses in a compiled module to lines of source, and from source paths to their text."""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple


class Line(NamedTuple):
    """A line of source."""

    file: str
    line: int


_PACKAGE = Path(__file__).parent
# Accesses of the runtime's own headers (the copy of a float4) belong to the kernel line that uses
# them.
_RUNTIME = "csrc/sim/"
_Row = tuple[int, str, int]  # address, file, line


class LineTable:
    """The line tables (DWARF) and symbols of a module.

    Args:
        path: The module's file.
    """

    def __init__(self, path: str) -> None:
        from elftools.elf.elffile import ELFFile

        with open(path, "rb") as file:
            elf = ELFFile(io.BytesIO(file.read()))
        self._dwarf: Any = elf.get_dwarf_info() if elf.has_dwarf_info() else None
        self._ranges: Any = self._dwarf.get_aranges() if self._dwarf is not None else None
        self._units: dict[int, tuple[Any, list[_Row], list[str]]] = {}
        table: Any = elf.get_section_by_name(".symtab")
        self._symbols: list[tuple[int, str]] = []
        self._variables: list[tuple[int, int, str]] = []  # thread_local: static shared arrays
        for symbol in table.iter_symbols() if table is not None else ():
            start, size = symbol["st_value"], symbol["st_size"]
            kind = symbol["st_info"]["type"] if size else ""
            if kind == "STT_FUNC":
                self._symbols.append((start, symbol.name))
            elif kind == "STT_TLS":
                self._variables.append((start, size, symbol.name))
        self._symbols.sort()
        self._variables.sort()

    def kernel(self, address: int) -> str:
        """Return the name of the kernel that an address is in, without namespaces; else ''."""
        at = bisect_right(self._symbols, (address, "\uffff")) - 1
        return kernel_name(self._symbols[at][1]) if at >= 0 else ""

    def shared_variable(self, offset: int) -> tuple[str, int, int] | None:
        """Return name, start and size of the static shared array at an offset of the module."""
        at = bisect_right(self._variables, (offset, 1 << 62, "")) - 1
        if at < 0 or offset >= sum(self._variables[at][:2]):
            return None
        start, size, symbol = self._variables[at]
        name = re.search(r"([A-Za-z_]\w*?)$", re.sub(r"^.*\d", "", symbol))
        return (name.group() if name else symbol), start, size

    def frames(self, address: int) -> list[Line]:
        """Return the line of the call that returns to an address, and those it is inlined into.

        The innermost comes first; lines of the simulator's own headers are left out.
        """
        frames = list(self._frames(address - 1))
        return [each for each in frames if not _is_runtime(each.file)] or frames

    def _frames(self, address: int) -> Iterator[Line]:
        offset = self._ranges.cu_offset_at_addr(address) if self._ranges is not None else None
        if offset is None:
            return
        if offset not in self._units:
            self._units[offset] = self._read_unit(offset)
        unit, rows, files = self._units[offset]
        at = bisect_right(rows, (address, "\uffff", 0)) - 1
        if at < 0 or not rows[at][1]:
            return
        yield Line(*rows[at][1:])
        for die in reversed(list(self._inlined(unit.get_top_DIE(), unit, address))):
            file = files[die.attributes["DW_AT_call_file"].value]
            yield Line(file, int(die.attributes["DW_AT_call_line"].value))

    def _read_unit(self, offset: int) -> tuple[Any, list[_Row], list[str]]:
        unit = self._dwarf.get_CU_at(offset)
        program = self._dwarf.line_program_for_CU(unit)
        header = program.header
        first = 0 if header["version"] >= 5 else 1
        folders = [each.decode() if isinstance(each, bytes) else each for each in _folders(header)]
        files = [""] * first
        for entry in header["file_entry"]:
            name = entry.name.decode()
            folder = folders[entry.dir_index] if entry.dir_index < len(folders) else ""
            files.append(
                _normal(name if name.startswith("/") or not folder else f"{folder}/{name}")
            )
        rows = []
        for entry in program.get_entries():
            state = entry.state
            if state is None:
                continue
            if state.end_sequence:
                rows.append((state.address, "", 0))
            else:
                rows.append((state.address, files[state.file], state.line))
        # Where one function ends and the next begins, the beginning counts.
        rows.sort(key=lambda row: (row[0], row[1] != ""))
        return unit, _last_of_each(rows), files

    def _inlined(self, die: Any, unit: Any, address: int) -> Iterator[Any]:
        """Yield the inlined calls that hold an address, the outermost first."""
        for child in die.iter_children():
            tag = child.tag
            if tag not in _CODE or not self._holds(child, unit, address):
                continue
            if tag == "DW_TAG_inlined_subroutine":
                yield child
            yield from self._inlined(child, unit, address)
            return

    def _holds(self, die: Any, unit: Any, address: int) -> bool:
        attributes = die.attributes
        if "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
            low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            end = high.value if high.form == "DW_FORM_addr" else low + high.value
            return bool(low <= address < end)
        if "DW_AT_ranges" not in attributes:
            return False
        ranges = self._dwarf.range_lists().get_range_list_at_offset(
            attributes["DW_AT_ranges"].value, unit
        )
        base = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
        start = base.value if base is not None else 0
        for each in ranges:
            if hasattr(each, "base_address"):
                start = each.base_address
                continue
            shift = 0 if getattr(each, "is_absolute", False) else start
            if each.begin_offset + shift <= address < each.end_offset + shift:
                return True
        return False


@lru_cache(maxsize=16)
def line_table(path: str) -> LineTable:
    """Return the line table of a module; reading it takes a while."""
    return LineTable(path)


_CODE = {"DW_TAG_subprogram", "DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"}


def _folders(header: Any) -> list[Any]:
    folders = list(header["include_directory"])
    return folders if header["version"] >= 5 else ["", *folders]


def _last_of_each(rows: list[_Row]) -> list[_Row]:
    return [
        row for row, after in zip(rows, [*rows[1:], (-1, "", 0)], strict=True) if row[0] != after[0]
    ]


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in ("", ".."):
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _is_runtime(file: str) -> bool:
    return _RUNTIME in file or file.startswith(("/usr/", "/opt/"))


def kernel_name(symbol: str) -> str:
    """Return the readable name of a kernel's symbol; a function of C is called by its name.

    Example:
        >>> kernel_name("_ZN8tilegrad3sim12_GLOBAL__N_111copy_kernelIfEEvPT_")
        'copy_kernel<float>'
        >>> kernel_name("twice"), kernel_name("_ZN8tilegrad3sim4nameEv")
        ('twice', '')
    """
    if not symbol.startswith("_"):
        return symbol
    for found in re.finditer(r"\d+", symbol):
        # A length may follow a digit of the name before it: try each suffix of the digits.
        digits = found.group()
        for skip in range(len(digits)):
            start = found.end()
            name = symbol[start : start + int(digits[skip:])]
            if name.endswith("_kernel"):
                rest = symbol[start + len(name) :]
                types = {"f": "float", "d": "double"}
                wide = re.match(r"I(?:NS\w*?_)?(?:\d+tilegrad\w*?)?(\d+)(bfloat16|float16)", rest)
                if wide:
                    return f"{name}<{wide.group(2)}>"
                if rest[:1] == "I" and rest[1:2] in types:
                    return f"{name}<{types[rest[1]]}>"
                return name
    return ""


@lru_cache(maxsize=64)
def source(file: str) -> tuple[str, ...]:
    """Return the lines of a source file that a line table names, or nothing if it is not here.

    Sources are part of the package; in a source tree they are read from there.

    Example:
        >>> source("csrc/cuda/no_such.cu")
        ()
    """
    for path in _candidates(file):
        if path.is_file():
            return tuple(path.read_text(encoding="utf-8").splitlines())
    return ()


def _candidates(file: str) -> Iterable[Path]:
    if file.startswith("/"):
        return (Path(file),)
    return (_PACKAGE.parents[1] / file, _PACKAGE / "_sources" / file)
