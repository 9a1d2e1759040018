# SPDX-License-Identifier: MIT
"""Hold the CPU's kernels to their vector and tile instructions, and to their instruction counts.

Two measures of the newest build below build/, both compared with cpu_budget.json:

- The mix: objdump reads the object files of each instruction set (the module itself is stripped),
  and every innermost loop is found in the flow graph of its function.
- The count: callgrind runs each kernel once on a small shape (tests/cpp/kernel_driver.cpp) under
  TILEGRAD_CPU=avx2; valgrind knows no AVX-512.

    python tests/check_instructions.py [--write] [BUILD]
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BUDGET = Path(__file__).with_name("cpu_budget.json")
DRIVER = Path(__file__).parent / "cpp" / "kernel_driver.cpp"
REGISTER = {"avx2": "ymm", "avx512": "zmm", "amx": "zmm"}  # the widest of an instruction set
GROWTH = 1.10  # instructions may grow by this factor
SHARE_SLACK = 0.05  # and the share of vector instructions shrink by this much

Mix = dict[str, float]  # share, fma, stack, gathers, tiles
Mixes = dict[str, dict[str, Mix]]  # instruction set -> kernel -> mix

FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")
INSTRUCTION = re.compile(r"^ *([0-9a-f]+):\t(\S+) *(.*)$")
TARGET = re.compile(r"^([0-9a-f]+) <")
# float or double, rows, and vectors or, where lanes run along k, columns
TILE = re.compile(r"::tile<(?:float|double), (\d+), (\d+)[,>]")
TILED = ("matmul", "matmul_dot")


class Instruction(NamedTuple):
    address: int
    name: str
    operands: str


Graph = dict[int, set[int]]


def functions(objdump: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Yield each function of a disassembly with its instructions."""
    name, body = "", list[Instruction]()
    for line in objdump.splitlines():
        if match := FUNCTION.match(line):
            if body:
                yield name, body
            name, body = match[1], []
        elif match := INSTRUCTION.match(line):
            mnemonic, operands = match[2], match[3]
            if mnemonic in ("bnd", "notrack", "rep", "repz", "lock"):
                mnemonic, _, operands = operands.partition(" ")
            body.append(Instruction(int(match[1], 16), mnemonic, operands.strip()))
    if body:
        yield name, body


def components(graph: Graph) -> list[set[int]]:
    """Return the strongly connected components that hold a cycle (Tarjan, without recursion)."""
    order, low, found = dict[int, int](), dict[int, int](), list[set[int]]()
    stack, on_stack = list[int](), set[int]()
    for root in graph:
        if root in order:
            continue
        work = [(root, iter(graph[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, following = work[-1]
            for child in following:
                if child not in order:
                    order[child] = low[child] = len(order)
                    stack.append(child)
                    on_stack.add(child)
                    work.append((child, iter(graph[child])))
                    break
                if child in on_stack:
                    low[node] = min(low[node], order[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    part = set[int]()
                    while node not in part:
                        part.add(stack.pop())
                    on_stack -= part
                    if len(part) > 1 or node in graph[node]:
                        found.append(part)
    return found


def innermost_loops(body: list[Instruction]) -> list[list[Instruction]]:
    """Return the instructions of every loop that holds no other loop.

    A jump backwards need not close a loop (compilers move unlikely code to the end), so loops are
    the cycles of the flow graph; without its first block a loop falls apart into those inside it.
    """
    addresses = {i.address for i in body}
    starts = {body[0].address}
    for here, after in itertools.pairwise(body):
        if here.name.startswith(("j", "ret")):
            starts.add(after.address)
            if (match := TARGET.match(here.operands)) and int(match[1], 16) in addresses:
                starts.add(int(match[1], 16))
    if (match := TARGET.match(body[-1].operands)) and body[-1].name.startswith("j"):
        starts.add(int(match[1], 16))
    blocks, block = dict[int, list[Instruction]](), list[Instruction]()
    for instruction in body:
        if instruction.address in starts:
            block = blocks.setdefault(instruction.address, [])
        block.append(instruction)
    graph: Graph = {}
    in_order = list(blocks)
    for start, following in zip(in_order, [*in_order[1:], -1], strict=True):
        last, next_blocks = blocks[start][-1], set[int]()
        if last.name.startswith("j") and (match := TARGET.match(last.operands)):
            next_blocks.add(int(match[1], 16))
        if not last.name.startswith(("jmp", "ret")):
            next_blocks.add(following)
        graph[start] = {n for n in next_blocks if n in blocks}
    found, pending = list[set[int]](), components(graph)
    while pending:
        loop = pending.pop()
        entered = [n for n in loop if any(n in graph[m] for m in graph.keys() - loop)]
        first = min(entered or loop)
        inside = {n: graph[n] & loop - {first} for n in loop - {first}}
        inner = components(inside)
        pending += inner
        if first in graph[first]:  # a loop of one block that begins another one
            found.append({first})
        elif not inner:
            found.append(loop)
    return [[i for start in sorted(loop) for i in blocks[start]] for loop in found]


def mix_of_loops(loops: list[list[Instruction]], register: str, frame: bool) -> Mix | None:
    """Return the mix of a kernel's innermost loops, None where none uses a full vector."""
    on_stack = re.compile(r"\((%rsp|%rbp)[,)]" if frame else r"\(%rsp[,)]")
    full = vectors = fma = stack = gathers = tiles = 0
    for loop in loops:
        wide = [i for i in loop if f"%{register}" in i.operands]
        tile = [i for i in loop if re.match(r"tdp|tileload|tilestore", i.name)]
        full += len(wide)
        vectors += sum(bool(re.search(r"%[xyz]mm", i.operands)) for i in loop)
        fma = max(fma, sum("fm" in i.name or "fnm" in i.name for i in wide))
        stack = max(stack, sum(bool(on_stack.search(i.operands)) for i in wide))
        gathers = max(gathers, sum("gather" in i.name for i in loop))
        tiles = max(tiles, sum(i.name.startswith("tdp") for i in tile))
    if full == 0 and tiles == 0:
        return None
    mix: Mix = {"share": round(full / vectors, 2) if vectors else 1.0, "fma": fma, "stack": stack}
    return mix | {k: n for k, n in (("gathers", gathers), ("tiles", tiles)) if n}


def kernel_name(symbol: str, isa: str) -> str:
    """Return the name of a demangled function without arguments, and what it computes in."""
    inside = f"::{isa}::(anonymous namespace)::"
    name = symbol.partition(inside)[2] or symbol.partition(f"cpu::{isa}::")[2] or symbol
    kind = re.search(r"bfloat16|double|float", name)
    return re.split(r"[<(\[]", name)[0].strip() + (f"<{kind[0]}>" if kind else "")


def disassemble(path: Path) -> str:
    return subprocess.run(
        ["objdump", "--disassemble", "--no-show-raw-insn", "--demangle", path],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def objects(build: Path, isa: str) -> list[Path]:
    return sorted((build / "CMakeFiles" / f"tilegrad_{isa}.dir").rglob("*.o"))


class Kernel(NamedTuple):
    isa: str
    stem: str
    symbol: str
    mix: Mix


def kernels(build: Path) -> list[Kernel]:
    """Return every function of the build that has a vectorised innermost loop."""
    found = []
    for isa, register in REGISTER.items():
        for path in objects(build, isa):
            for symbol, body in functions(disassemble(path)):
                frame = any(i.name == "mov" and i.operands == "%rsp,%rbp" for i in body)
                if mix := mix_of_loops(innermost_loops(body), register, frame):
                    found.append(Kernel(isa, path.name.split(".")[0], symbol, mix))
    return found


def worst(found: Iterable[Kernel]) -> Mixes:
    """Return for each kernel template the worst that any of its instantiations shows."""
    worst_of: Mixes = {}
    for kernel in found:
        name = f"{kernel.stem}.{kernel_name(kernel.symbol, kernel.isa)}"
        mix = worst_of.setdefault(kernel.isa, {}).setdefault(name, dict(kernel.mix))
        for what, amount in kernel.mix.items():
            pick = min if what == "share" else max
            mix[what] = pick(mix.get(what, amount), amount)
    return worst_of


def broken_tiles(found: Iterable[Kernel]) -> list[str]:
    """Return the register tiles of matmul whose loop misses an fma or touches the stack.

    A tile of r rows and v vectors or columns is worth its registers only with r v fma and no spill.
    """
    broken = []
    for kernel in found:
        if kernel.stem not in TILED or not (match := TILE.search(kernel.symbol)):
            continue
        rows, vectors = int(match[1]), int(match[2])
        if kernel.mix["fma"] < rows * vectors or kernel.mix["stack"] > 0:
            broken.append(f"{kernel.isa}: {match[0][2:]} has {kernel.mix}")
    return broken


def mix_complaints(now: Mixes, budget: Mixes) -> list[str]:
    found = []
    for isa in budget:
        for name, allowed in budget[isa].items():
            if name not in now.get(isa, {}):
                found.append(f"{name} ({isa}) is in the budget but has no vector loop in the build")
                continue
            used = now[isa][name]
            if used["share"] < allowed["share"] - SHARE_SLACK:
                found.append(
                    f"{name} ({isa}): share of full vectors {used['share']}, was {allowed['share']}"
                )
            found += [
                f"{name} ({isa}): {what} {used.get(what, 0)} in a loop, was {allowed.get(what, 0)}"
                for what, sign in (("fma", -1), ("tiles", -1), ("stack", 1), ("gathers", 1))
                if sign * (used.get(what, 0) - allowed.get(what, 0)) > 0
            ]
    for isa, used_names in now.items():
        found += [
            f"{name} ({isa}) has no budget"
            for name in used_names.keys() - budget.get(isa, {}).keys()
        ]
    return sorted(found)


def count_complaints(now: dict[str, int], budget: dict[str, int]) -> list[str]:
    found = [f"{name} is in the budget but was not run" for name in budget.keys() - now.keys()]
    for name, count in now.items():
        if (allowed := budget.get(name)) is None:
            found.append(f"{name} has no budget; it runs {count} instructions")
        elif count > GROWTH * allowed:
            found.append(f"{name}: {count} instructions, {count / allowed - 1:+.0%} on {allowed}")
        elif count < allowed / GROWTH:
            found.append(f"{name}: {count} instructions, only {count / allowed:.0%}: store them")
    return sorted(found)


def latest_build() -> Path | None:
    """Return the folder of the newest build that has compiled CPU kernels."""
    libraries = list((ROOT / "build").glob("*/libtilegrad_cpu.a"))
    return max(libraries, key=lambda path: path.stat().st_mtime).parent if libraries else None


def compiler(build: Path) -> str:
    """Return what compiled the kernels, as `GCC 12`: another one makes other code."""
    text = subprocess.run(
        ["readelf", "--string-dump=.comment", objects(build, "avx2")[0]],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    match = re.search(r"(GCC|clang)\b.*?(\d+)\.\d+\.\d+", text)
    return f"{match[1]} {match[2]}" if match else "unknown"


def cached(build: Path, name: str) -> str:
    match = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    return match[1] if match else ""


def instruction_counts(build: Path) -> dict[str, int]:
    """Return how many instructions each case of the driver runs."""
    with tempfile.TemporaryDirectory() as folder:
        program, profile = Path(folder, "kernel_driver"), Path(folder, "profile")
        subprocess.run(
            [cached(build, "CMAKE_CXX_COMPILER"), "-std=c++20", "-O1", "-Wall", "-Wextra",
             "-Werror", "-DTILEGRAD_BACKEND=cpu", DRIVER, build / "libtilegrad_cpu.a",
             "-lpthread", "-o", program],
            check=True,
        )  # fmt: skip
        environment = {**os.environ, "TILEGRAD_CPU": "avx2", "TILEGRAD_NUM_THREADS": "1"}
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=measured",
             "--dump-after=measured", "--combine-dumps=no", f"--callgrind-out-file={profile}",
             program],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        names = done.stdout.split()
        counts = {}
        for part, name in enumerate(names, 1):
            text = Path(f"{profile}.{part}").read_text()
            counts[name] = int(re.findall(r"^totals: (\d+)", text, re.M)[-1])
    return counts


def measure(build: Path) -> dict[str, Any]:
    return {
        "compiler": compiler(build),
        "counts": instruction_counts(build) if shutil.which("valgrind") else {},
        "mix": worst(kernels(build)),
    }


def as_json(budget: dict[str, Any]) -> str:
    text = json.dumps(budget, indent=1, sort_keys=True)
    return re.sub(r"\{\s+(\"[a-z]+\": [^{}]*?)\s+\}(?=,?\n {2})", _one_line, text) + "\n"


def _one_line(match: re.Match[str]) -> str:
    return "{" + re.sub(r"\s+", " ", match[1]) + "}"


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--write"]
    folder_ = Path(given[0]) if given else latest_build()
    if folder_ is None:
        raise SystemExit("no build with CPU kernels below build/")
    now_ = measure(folder_)
    if "--write" in sys.argv:
        BUDGET.write_text(as_json(now_))
    else:
        stored = json.loads(BUDGET.read_text())
        problems = mix_complaints(now_["mix"], stored["mix"])
        problems += count_complaints(now_["counts"], stored["counts"])
        problems += broken_tiles(kernels(folder_))
        if problems:
            raise SystemExit("\n".join(problems))
