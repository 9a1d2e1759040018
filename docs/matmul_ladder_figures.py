# SPDX-License-Identifier: MIT
"""Print the tables of docs/matmul-ladder.md, or check that the page shows what the trace gives.

python docs/matmul_ladder_figures.py            print the tables with their markers
python docs/matmul_ladder_figures.py --write    make the tables in the page anew
python docs/matmul_ladder_figures.py --check    fail if they are not what the trace gives
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tilegrad as tg

PAGE = Path(__file__).with_name("matmul-ladder.md")
SIZE = 128  # of m, n and k: one tile of the larger rungs
ROWS, CLASSES = 64, 1000
HALF = ("tensor_core", "hopper")  # traced with float16, the others with float32
MATMUL = ("naive", "coalesced", "shared", "tile_1d", "tile_2d", "vectorized", "double_buffered",
          "warp_tile", *HALF, "tf32x3", "hopper_tf32")  # fmt: skip
NT = ("hopper_tf32",)  # as it reads its operands; others are transposed first
IN_PART = ("hopper", "hopper_tf32")  # the trace does not see all that goes through shared memory
CROSS_ENTROPY = ("three_pass", "online_warp", "block_row", "one_pass", "cluster")
_SECTOR = 32  # bytes
_BLOCK = re.compile(r"<!-- trace: (\w+) -->\n.*?<!-- end of trace -->", re.DOTALL)


def matmul_table() -> list[str]:
    """Return the lines of the table of the matmul rungs."""
    lines = [
        "| rung | requests to global memory | sectors / ideal | shared wavefronts / ideal "
        "| flop per sector moved | flop per sector loaded | flop per byte read from shared |",
        "|---" + "|---:" * 6 + "|",
    ]
    flops = 2 * SIZE**3
    ones = np.ones((SIZE, SIZE), np.float32)
    for name in MATMUL:
        x = tg.asarray(ones.astype(np.float16) if name in HALF else ones, device="sim")
        with tg.sim.trace("forward/eager") as found:
            tg.matmul(x, x, transpose_b=name in NT, variant=name)
        of_global, of_shared = (
            [site for site in found.sites if site.space == space] for space in ("global", "shared")
        )
        moved = sum(site.sectors for site in of_global)
        loaded = sum(site.sectors for site in of_global if site.op == "load")
        read = sum(32 * site.bytes * site.requests for site in of_shared if site.op == "load")
        cells = [
            name + " (float16)" * (name in HALF) + " (NT)" * (name in NT),
            f"{sum(site.requests for site in of_global):,}",
            _cost(of_global),
            (_cost(of_shared) if of_shared else "none") + " (in part)" * (name in IN_PART),
            f"{flops / moved:.1f}",
            f"{flops / loaded:.1f}",
            f"{flops / read:.2f}" if read and name not in IN_PART else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def cross_entropy_table() -> list[str]:
    """Return the lines of the table of the cross-entropy rungs."""
    lines = [
        "| rung | bytes read per logit | bytes written per logit | all global traffic per logit |",
        "|---|---:|---:|---:|",
    ]
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(ROWS, CLASSES)).astype(np.float32)
    x = tg.asarray(logits, device="sim")
    target = tg.asarray(generator.integers(0, CLASSES, ROWS), device="sim")
    for name in CROSS_ENTROPY:
        with tg.sim.trace("forward/eager") as found:
            tg.cross_entropy_value_and_grad(x, target, variant=name)
        sites = [site for site in found.sites if site.space == "global"]
        # Only logits and their gradient move in packets of 16 bytes.
        packets = {
            op: sum(site.sectors for site in sites if (site.op, site.bytes) == (op, 16))
            for op in ("load", "store")
        }
        counts = [packets["load"], packets["store"], sum(site.sectors for site in sites)]
        cells = [f"{count * _SECTOR / logits.size:.2f}" for count in counts]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def _cost(sites: Sequence[tg.sim.Site]) -> str:
    cost, ideal = sum(site.sectors for site in sites), sum(site.ideal for site in sites)
    return f"{cost:,} / {ideal:,} = {cost / ideal:.2f}"


def rewritten(text: str) -> str:
    """Return the page with its tables as the trace gives them."""
    tables = {"matmul": matmul_table(), "cross_entropy": cross_entropy_table()}
    names = [found[1] for found in _BLOCK.finditer(text)]
    if names != list(tables):
        raise ValueError(f"{PAGE.name}: must have one table each for {list(tables)}; got {names}")
    return _BLOCK.sub(lambda found: _block(found[1], tables[found[1]]), text)


def _block(name: str, table: Sequence[str]) -> str:
    return "\n".join([f"<!-- trace: {name} -->", *table, "<!-- end of trace -->"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="make the tables in the page anew")
    either.add_argument("--check", action="store_true", help="fail if they are not the trace's")
    args = parser.parse_args(argv)
    if not (args.write or args.check):
        print(_block("matmul", matmul_table()))
        print(_block("cross_entropy", cross_entropy_table()))
        return 0
    before = PAGE.read_text()
    after = rewritten(before)
    if args.write:
        PAGE.write_text(after)
    elif after != before:
        print(f"{PAGE.name}: not what the trace gives; run {__file__} --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
