# SPDX-License-Identifier: MIT
"""Hold every CUDA kernel to its budget of registers and shared memory, and all to zero spills.

Advice of ptxas, as that wgmma wait for each other (C7510), is a complaint too.

The build leaves what ptxas says beside each object file; cuda_budget.json holds, for each kernel
template and architecture, the most that any of its instantiations may use.

    python tests/check_ptxas.py [--write] [BUILD]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUDGET = Path(__file__).with_name("cuda_budget.json")
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
ADVICE = re.compile(r"ptxas info\s*: (\(C\d+\).*)")

Usage = dict[str, dict[str, dict[str, int]]]  # kernel -> architecture -> resource -> amount


def kernel_name(mangled: str) -> str:
    """Return the name that ends in _kernel: in a mangled name each part follows its length.

    Digits before the length may belong to the part before, so every split is tried; the shortest
    name is the kernel's own.
    """
    found = []
    for match in re.finditer(r"\d+", mangled):
        for start in range(match.start(), match.end()):
            begin, length = match.end(), int(mangled[start : match.end()])
            part = mangled[begin : begin + length]
            if len(part) == length and part.endswith("_kernel"):
                found.append(part)
    if not found:
        raise ValueError(f"no kernel in {mangled}")
    return min(found, key=len)


def read(build: Path) -> Usage:
    usage: Usage = {}
    for path in sorted(build.rglob("*.ptxas")):
        kernel = architecture = ""
        for line in path.read_text().splitlines():
            if match := ENTRY.search(line):
                kernel, architecture = kernel_name(match[1]), match[2]
                continue
            most = usage.setdefault(kernel, {}).setdefault(architecture, {}) if kernel else {}
            found = {}
            if match := FRAME.search(line):
                stack, stores, loads = map(int, match.groups())
                found = {"stack": stack, "spills": stores + loads}
            elif match := USED.search(line):
                shared = SHARED.search(line)
                found = {"registers": int(match[1]), "shared": int(shared[1]) if shared else 0}
            for name, amount in found.items():
                most[name] = max(most.get(name, 0), amount)
    return usage


def advice(build: Path) -> list[str]:
    """Return what ptxas advises beside the resources of a build's kernels."""
    lines = (line for path in build.rglob("*.ptxas") for line in path.read_text().splitlines())
    return sorted({match[1] for line in lines if (match := ADVICE.search(line))})


def latest_build() -> Path | None:
    """Return the folder of the newest build that has compiled CUDA kernels."""
    logs = list((ROOT / "build").glob("*/CMakeFiles/tilegrad_cuda.dir/**/*.ptxas"))
    if not logs:
        return None
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    return next(p for p in newest.parents if p.name == "tilegrad_cuda.dir")


def complaints(usage: Usage, budget: Usage) -> list[str]:
    found = [f"{kernel} is in the budget but not in the build" for kernel in budget.keys() - usage]
    for kernel, architectures in usage.items():
        for architecture, used in architectures.items():
            allowed = budget.get(kernel, {}).get(architecture)
            if allowed is None:
                found.append(f"{kernel} has no budget for {architecture}; it uses {used}")
                continue
            found += [
                f"{kernel} on {architecture}: {name} {amount}, allowed {allowed[name]}"
                for name, amount in used.items()
                if amount > allowed[name]
            ]
    return sorted(found)


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if argument != "--write"]
    folder = Path(given[0]) if given else latest_build()
    if folder is None:
        raise SystemExit("no build with CUDA kernels below build/")
    now = read(folder)
    if "--write" in sys.argv:
        BUDGET.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    elif problems := complaints(now, json.loads(BUDGET.read_text())) + advice(folder):
        raise SystemExit("\n".join(problems))
