# SPDX-License-Identifier: MIT
"""Make the tables and the picture of the ladders' pages, or check that they are the trace's.

python docs/ladder_figures.py            print the tables with their markers
python docs/ladder_figures.py --write    make them in docs/matmul-ladder.md and its sister anew
python docs/ladder_figures.py --check    fail if they are not what the trace gives
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import tilegrad as tg

DOCS = Path(__file__).parent
PAGES = {"matmul": DOCS / "matmul-ladder.md", "cross_entropy": DOCS / "cross-entropy-ladder.md"}
PICTURE = DOCS / "cross-entropy-traffic.svg"
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


def drawn(table: Sequence[str]) -> str:
    """Return the picture of the table of cross-entropy, as SVG: a bar a rung."""
    names, bars, y = [], [], 34
    for line in table[2:]:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        read, written, everything = map(float, cells)
        names.append(f'<text x="112" y="{y + 14}" text-anchor="end">{name}</text>')
        left = 120.0
        for amount, colour in (
            (read, "#2f6db5"), (written, "#0b6b57"), (everything - read - written, "#b9b4a7"),
        ):  # fmt: skip
            wide = 30 * amount
            bars.append(f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="20" '
                        f'fill="{colour}"/>')  # fmt: skip
            if wide > 60:
                bars.append(f'<text x="{left + wide / 2:.1f}" y="{y + 14}" fill="#fff" '
                            f'text-anchor="middle">{amount:g}</text>')  # fmt: skip
            left += wide
        y += 30
    least = 120 + 30 * 8
    legend = [
        f'<text x="{x}" y="18" fill="{colour}" font-weight="bold">{word}</text>'
        for x, colour, word in ((120, "#2f6db5", "read"), (170, "#0b6b57", "written"),
                                (245, "#7d786b", "the rest"))
    ]  # fmt: skip
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {y + 20}" '
        'font-family="sans-serif" font-size="13">',
        "<title>Bytes of global memory that each rung moves for a logit of float32</title>",
        f'<rect width="640" height="{y + 20}" fill="#fff"/>',
        *legend, *names, *bars,
        f'<line x1="{least}" y1="26" x2="{least}" y2="{y}" stroke="#c2410c" stroke-dasharray="4"/>',
        f'<text x="{least}" y="{y + 14}" fill="#c2410c" text-anchor="middle">'
        "the least: 8 bytes a logit</text>",
        "</svg>\n",
    ])  # fmt: skip


def made() -> dict[Path, str]:
    """Return both pages with their tables, and the picture, as the trace gives them."""
    tables = {"matmul": matmul_table(), "cross_entropy": cross_entropy_table()}
    found = {PICTURE: drawn(tables["cross_entropy"])}
    for name, page in PAGES.items():
        block = _block(name, tables[name])
        found[page], count = _BLOCK.subn(lambda _, block=block: block, page.read_text())
        if count != 1:
            raise ValueError(f"{page.name}: must have one table of the trace; got {count}")
    return found


def _block(name: str, table: Sequence[str]) -> str:
    return "\n".join([f"<!-- trace: {name} -->", *table, "<!-- end of trace -->"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--write", action="store_true", help="make tables and picture anew")
    either.add_argument("--check", action="store_true", help="fail if they are not the trace's")
    args = parser.parse_args(argv)
    if not (args.write or args.check):
        print(_block("matmul", matmul_table()))
        print(_block("cross_entropy", cross_entropy_table()))
        return 0
    stale = []
    for path, after in made().items():
        if args.write:
            path.write_text(after)
        elif not path.exists() or path.read_text() != after:
            stale.append(path.name)
    if stale:
        print(f"{', '.join(stale)}: not what the trace gives; run {__file__} --write",
              file=sys.stderr)  # fmt: skip
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
