# SPDX-License-Identifier: MIT
"""Measure this machine in full, store the results and paste them into the documents.

    python benchmarks/store_results.py            everything: about 30 minutes
    python benchmarks/store_results.py --quick    a rehearsal into build/, no document is touched
    python benchmarks/store_results.py --only cpu-2t,cpu-scaling

Every run is a process of its own; one that fails or is interrupted stores nothing and stops the
rest. The machine should have nothing else to do meanwhile.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import readme_table

ROOT = Path(__file__).parents[1]
RESULTS = Path("benchmarks") / "results"
# name of the result: TILEGRAD_CPU, options
RUNS: dict[str, tuple[str, list[str]]] = {
    "cpu-1t": ("", ["--threads", "1"]),
    "cpu-2t": ("", ["--threads", "2"]),
    "cpu-1t-avx2": ("avx2", ["--threads", "1"]),
    "cpu-2t-avx2": ("avx2", ["--threads", "2"]),
    "cpu-pytorch": ("", ["--threads", "1", "--filter", "pytorch/"]),
    "cpu-scaling": ("", ["--scaling"]),
}
_SIDES = [name for name in RUNS if name not in ("cpu-pytorch", "cpu-scaling")]
PICTURES = _SIDES[:2]
_TABLES = {"benchmarks": _SIDES, "goals": _SIDES, "every-goal": _SIDES, "cases": _SIDES}
_TABLES |= {"roofline": PICTURES}
_TABLES |= {"scaling": ["cpu-scaling"], "model": ["cpu-scaling"], "operators": ["cpu-pytorch"]}
DOCUMENTS = ("README.md", "docs/performance.md", "docs/performance-cases.md", "docs/pytorch.md")


def command(name: str, folder: Path, quick: bool) -> list[str]:
    """Return the command of a run."""
    _, options = RUNS[name]
    files = ["--json", str(folder / f"{name}.json")]
    if name in PICTURES:
        files += ["--plot", str(folder / f"{name}.png")]
        files += ["--roofline", str(folder / f"{name}-roofline.png")]
    return [sys.executable, "-m", "tilegrad", "bench", "cpu", *options, *files,
            *(["--quick"] if quick else [])]  # fmt: skip


def paste(root: Path) -> list[str]:
    """Make the tables of all documents from the results that are stored; return what changed."""
    changed = []
    for name in DOCUMENTS:
        document = root / name
        text = document.read_text()
        up = Path(os.path.relpath(root / RESULTS, document.parent))
        there = {
            kind: [str(up / f"{run}.json") for run in runs
                   if (root / RESULTS / f"{run}.json").exists()]
            for kind, runs in _TABLES.items()
        }  # fmt: skip
        document.write_text(readme_table.renamed(text, there))
        document.write_text(readme_table.rewritten(document))
        if document.read_text() != text:
            changed.append(name)
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="rough figures, into build/quick-results")
    add("--only", type=lambda text: text.split(","), default=list(RUNS), metavar="A,B",
        help=f"which of {','.join(RUNS)}")  # fmt: skip
    args = parser.parse_args(argv)
    unknown = [name for name in args.only if name not in RUNS]
    if unknown:
        parser.error(f"--only: must be of {','.join(RUNS)}; got {','.join(unknown)}")
    folder = ROOT / "build" / "quick-results" if args.quick else ROOT / RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        print(f"== {name}", flush=True)
        environment = {key: value for key, value in os.environ.items() if key != "TILEGRAD_CPU"}
        if RUNS[name][0]:
            environment["TILEGRAD_CPU"] = RUNS[name][0]
        status = subprocess.run(command(name, folder, args.quick), env=environment).returncode
        if status != 0:
            print(f"{name}: the run ended with status {status}; the rest is left", file=sys.stderr)
            return status
    if not args.quick:
        print(f"tables made anew in {', '.join(paste(ROOT)) or 'no document: nothing changed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
