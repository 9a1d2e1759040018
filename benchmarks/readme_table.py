# SPDX-License-Identifier: MIT
"""Print a Markdown table of stored results, or check that a document shows what is stored.

    python benchmarks/readme_table.py RESULT.json [MORE.json]   print the table with its markers
    python benchmarks/readme_table.py --write README.md         make the tables in README.md anew
    python benchmarks/readme_table.py --check README.md         fail if they are not what is stored

A marker says which table (KINDS) and names results, relative to the document; those after the first
add columns:

    <!-- benchmarks: benchmarks/results/cpu-1t.json benchmarks/results/cpu-2t.json -->
    <!-- end of benchmarks -->
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import performance_tables
from performance_tables import conditions
from tilegrad.bench.report import (
    digits,
    duration,
    families,
    geometric_mean,
    peer_names,
    ratio,
    share,
)

# Chosen by what users run, not by how it turned out: wins and losses stay.
ROWS = {
    "matmul/128 NN": "matmul 128",
    "matmul/1024 NN": "matmul 1024",
    "linear/32x784->512 relu forward": "dense layer + relu, 32 x 784 -> 512",
    "linear/128x784->512 relu backward": "its backward pass, 128 x 784 -> 512",
    "activation/relu 100000 forward": "relu, 1e5 elements",
    "activation/gelu 100000 forward": "gelu, 1e5 elements",
    "activation/gelu tanh 100000 backward": "gelu (tanh) backward, 1e5 elements",
    "softmax/softmax 1024x1000@1 forward": "softmax, 1024 x 1000",
    "cross_entropy/128x10 value and grad": "cross-entropy + gradient, 128 x 10",
    "cross_entropy/1024x1000 value and grad": "cross-entropy + gradient, 1024 x 1000",
    "optim/Adam 669706": "Adam, 669,706 parameters",
    "predict/784-512-512-10 batch 32": "forward pass of 784-512-512-10, batch 32",
    "train_step/SGD batch 32": "SGD training step of 784-512-512-10, batch 32",
    "train_step/Adam batch 128": "Adam training step of it, batch 128",
    "tiny/8-8-2 SGD step batch 1": "SGD training step of 8-8-2, batch 1",
}
END = "<!-- end of benchmarks -->"


def block(names: Sequence[str], folder: Path, kind: str = "benchmarks") -> str:
    """Return the markers with the table between them.

    Raises ValueError if a result lacks what the table shows.
    """
    results = [json.loads((folder / name).read_text()) for name in names]
    lines = KINDS[kind](results, names) if names else [NOTHING]
    start = " ".join(["<!--", f"{kind}:", *names, "-->"])
    return "\n".join([start, *lines, f"<!-- end of {kind} -->"])


def _table(results: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    first = results[0]
    counts = [conditions(result) for result in results]
    head = ["", f"tilegrad, {counts[0]}", "fastest peer", "ratio", "share of the limit"]
    head += [f"ratio, {count}" for count in counts[1:]]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    stored = [{f"{r['family']}/{r['name']}": r for r in result["cases"]} for result in results]
    for case, label in ROWS.items():
        for known, name in zip(stored, names, strict=True):
            if case not in known or ratio(known[case]) is None:
                raise ValueError(
                    f"{name}: {case} must be there with a peer (a full run with torch)"
                )
        record = stored[0][case]
        peer, times = record["best_peer"], record["seconds"]
        cells = [label, duration(times["tilegrad"]["median"])]
        cells += [f"{peer} {duration(times[peer]['median'])}", f"**{_ratio(record)}**"]
        cells += [share(record), *(_ratio(known[case]) for known in stored[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *_caption(first, results)]


def _ratio(record: dict[str, Any]) -> str:
    return digits((ratio(record) or {})["median"])


def _caption(first: dict[str, Any], results: Sequence[dict[str, Any]]) -> list[str]:
    machine, versions = first["machine"], first["versions"]
    means = []
    for result in results:
        records = [r for group in families(result["cases"]).values() for r in group]
        worst = min(records, key=lambda r: (ratio(r) or {})["median"])
        mean = digits(geometric_mean([(ratio(r) or {})["median"] for r in records]))
        means.append(
            f"{conditions(result)}: geometric mean of all {len(records)} cases {mean}, worst "
            f"{_ratio(worst)} ({worst['family']} {worst['name']})"
        )
    step = "train_step/SGD batch 32"
    eager = [
        digits(record["ratios"]["torch"]["median"])
        for result in results
        for record in result["cases"]
        if f"{record['family']}/{record['name']}" == step and "torch" in record["ratios"]
    ]
    return [
        '"By hand" is PyTorch without autograd, its update inside the product; against its usual '
        f"eager loop the batch 32 SGD step is at {' and '.join(eager)}.",
        "",
        "Ratio: time of the fastest peer over tilegrad's, median of interleaved rounds; above 1 "
        "tilegrad is faster. Limit: multiply-adds (FMA) or copying (copy), measured in the same "
        "rounds (an op that reads more than it writes can pass 100 % of copy). "
        f"{'; '.join(means)}.",
        f"{machine['cpu']}, {machine['isa']}; float32, {first['cache']} caches; "
        f"{', '.join(peer_names(versions))}; {first['date'][:10]}.",
    ]


KINDS: Mapping[str, Callable[[Sequence[dict[str, Any]], Sequence[str]], list[str]]] = {
    "benchmarks": _table,
    "goals": performance_tables.goal_rows,
    "every-goal": performance_tables.every_goal,
    "cases": performance_tables.every_case,
    "operators": performance_tables.every_case,
    "roofline": performance_tables.rooflines,
    "scaling": performance_tables.scaling_rows,
    "model": performance_tables.model_rows,
}
NOTHING = "No such run is stored yet; `python benchmarks/store_results.py` makes one."
_BLOCK = re.compile(
    r"<!-- (" + "|".join(KINDS) + r"):([^\n]*?) -->\n.*?<!-- end of \1 -->", re.DOTALL
)


def rewritten(document: Path) -> str:
    """Return the document with its tables as the stored results give them.

    Raises ValueError without markers, FileNotFoundError without a result that they name.
    """
    text = document.read_text()
    if not _BLOCK.search(text):
        raise ValueError(
            f"{document}: must hold a line <!-- benchmarks: RESULT.json --> and, below, {END}"
        )
    return _BLOCK.sub(lambda found: block(found[2].split(), document.parent, found[1]), text)


def renamed(text: str, names: Mapping[str, Sequence[str]]) -> str:
    """Return the text of a document with other results in its markers, by kind of table."""

    def marker(found: re.Match[str]) -> str:
        files = " ".join(names.get(found[1], found[2].split()))
        head, _, rest = found[0].partition("\n")
        return f"{head.partition(':')[0]}: {files} -->\n{rest}"

    return _BLOCK.sub(marker, text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("results", nargs="*", metavar="RESULT.json", help="print a table of these")
    add("--check", type=Path, metavar="DOCUMENT", help="fail if its tables are not what is stored")
    add("--write", type=Path, metavar="DOCUMENT", help="make its tables anew")
    args = parser.parse_args(argv)
    if sum(map(bool, (args.results, args.check, args.write))) != 1:
        parser.error("give results, or --check DOCUMENT, or --write DOCUMENT")
    try:
        if args.results:
            print(block(args.results, Path()))
        elif args.write:
            args.write.write_text(rewritten(args.write))
        elif rewritten(args.check) != args.check.read_text():
            print(
                f"{args.check}: a table is not what the stored results give; run "
                f"python benchmarks/readme_table.py --write {args.check}",
                file=sys.stderr,
            )
            return 1
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
