# SPDX-License-Identifier: MIT
"""What a wheel holds: bytes of each part and of the CUDA code for each architecture.

    python benchmarks/wheel_sizes.py dist/tilegrad-*.whl            print the table
    python benchmarks/wheel_sizes.py dist/tilegrad-*.whl --write    store it in results/

Exits with 1 if the wheel exceeds LIMIT, or if its CUDA code is not for the architectures of
cmake/cuda.cmake. Code is counted as it lies in the module, compressed; `cuobjdump --list-elf` and
`--list-ptx` name the same entries.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 20_000_000  # bytes of a wheel
# A fat binary: a header, then entries, each with a header of its own (of nvcc 13.0; cuobjdump names
# the same entries).
_FAT = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes that follow
_MAGIC = 0xBA55ED50
_ENTRY = struct.Struct(
    "<HHIQ12xI8xI"
)  # kind, -, bytes of this header and of the code, capability, flags
_KINDS = {1: "compute", 2: "sm"}  # PTX and machine code
_SPECIFIC = 1 << 20  # the "a" of sm_90a


def entries(section: bytes) -> Iterator[tuple[str, int]]:
    """Yield the architecture and the bytes of every piece of code in a section of fat binaries."""
    at = section.find(_MAGIC.to_bytes(4, "little"))
    while at >= 0:
        _, _, head, follows = _FAT.unpack_from(section, at)
        here, end = at + head, at + head + follows
        while here < end:
            kind, _, head, size, capability, flags = _ENTRY.unpack_from(section, here)
            yield f"{_KINDS[kind]}_{capability}{'a' * bool(flags & _SPECIFIC)}", head + size
            here += head + size
        at = section.find(_MAGIC.to_bytes(4, "little"), end)


def cuda_code(module: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes and the pieces of CUDA code in a module, by architecture."""
    section = ELFFile(io.BytesIO(module)).get_section_by_name(".nv_fatbin")
    bytes_of, pieces = Counter[str](), Counter[str]()
    for architecture, size in entries(section.data()) if section else ():
        bytes_of[architecture] += size
        pieces[architecture] += 1
    order = sorted(bytes_of, key=lambda name: (name.split("_")[0], len(name), name))
    return {name: bytes_of[name] for name in order}, {name: pieces[name] for name in order}


def part(name: str) -> str:
    """Return the part of the wheel that a file belongs to."""
    if match := re.match(r"tilegrad/(_\w+)\..*so$", name):
        return match[1]
    for folder, what in (("tilegrad/_sources/", "sources"), ("tilegrad/data/", "data")):
        if name.startswith(folder):
            return what
    return "metadata" if ".dist-info/" in name else "python"


def contents(wheel: Path) -> dict[str, Any]:
    """Return the sizes of a wheel's parts, in the wheel and unpacked, and of its CUDA code."""
    packed, unpacked = Counter[str](), Counter[str]()
    code: dict[str, int] = {}
    pieces: dict[str, int] = {}
    with zipfile.ZipFile(wheel) as archive:
        for file in archive.infolist():
            packed[part(file.filename)] += file.compress_size
            unpacked[part(file.filename)] += file.file_size
            if part(file.filename) == "_cuda":
                code, pieces = cuda_code(archive.read(file))
    return {
        "wheel": wheel.name,
        "bytes": wheel.stat().st_size,
        "parts": {
            name: {"packed": packed[name], "unpacked": unpacked[name]} for name in sorted(packed)
        },
        "cuda_code": code,
        "cuda_pieces": pieces,
    }


def expected() -> set[str]:
    """Return the architectures that a wheel is for, as its code names them."""
    text = (ROOT / "cmake" / "cuda.cmake").read_text()
    found = re.search(r'set\(TILEGRAD_CUDA_ARCHITECTURES\s+"([^"]+)"', text)
    assert found is not None
    words = [word.split("-") for word in found[1].split(";")]
    kinds = {"real": "sm", "virtual": "compute"}
    return {f"{kinds[kind]}_{number}" for number, kind in words}


def complaints(sizes: dict[str, Any]) -> list[str]:
    """Return what keeps a wheel from being published."""
    found = []
    if sizes["bytes"] >= LIMIT:
        found.append(f"{sizes['bytes'] / 1e6:.1f} MB, but at most {LIMIT / 1e6:.0f} MB are allowed")
    if "_cuda" in sizes["parts"] and set(sizes["cuda_code"]) != expected():
        found.append(f"CUDA code for {sorted(sizes['cuda_code'])}, not {sorted(expected())}")
    return found


def table(sizes: dict[str, Any]) -> list[str]:
    """Return the lines of the table in docs/packaging.md."""
    lines = ["| part | in the wheel | unpacked |", "|---|---:|---:|"]
    rows = [(name, one["packed"], one["unpacked"]) for name, one in sizes["parts"].items()]
    rows.append(("all", sizes["bytes"], sum(row[2] for row in rows)))
    lines += [
        f"| {name} | {packed / 1e6:.2f} MB | {size / 1e6:.2f} MB |" for name, packed, size in rows
    ]
    if sizes["cuda_code"]:
        lines += ["", "| CUDA code | pieces | in the module |", "|---|---:|---:|"]
    for name, size in sizes["cuda_code"].items():
        lines.append(f"| {name} | {sizes['cuda_pieces'][name]} | {size / 1e6:.2f} MB |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, and with --write store, what a wheel holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--write", action="store_true", help="store it in benchmarks/results")
    args = parser.parse_args(arguments)
    sizes = contents(args.wheel)
    print("\n".join(table(sizes)))
    if args.write:
        version = args.wheel.name.split("-")[1]
        stored = ROOT / "benchmarks" / "results" / f"wheel-{version}-sizes.json"
        stored.write_text(json.dumps(sizes, indent=1) + "\n")
    found = complaints(sizes)
    for text in found:
        print(f"{args.wheel.name}: {text}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
