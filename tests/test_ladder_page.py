# SPDX-License-Identifier: MIT
"""The pages of the ladders: stored tables are the trace's, and agree with what they derive."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import tilegrad

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "matmul-ladder.md"
SISTER = ROOT / "docs" / "cross-entropy-ladder.md"
PICTURE = ROOT / "docs" / "cross-entropy-traffic.svg"
SCRIPT = ROOT / "docs" / "ladder_figures.py"
RUNGS = ("naive", "coalesced", "shared", "tile_1d", "tile_2d", "vectorized", "double_buffered",
         "warp_tile", "tensor_core", "hopper", "tf32x3", "hopper_tf32")  # fmt: skip


def rows(after: str, page: Path = PAGE) -> dict[str, list[str]]:
    """Return the cells of the first table below a line of a page, by the word in its first."""
    _, found, rest = page.read_text().partition(after)
    assert found, after
    table = re.search(r"^\|---.*\n((?:\|.*\n)+)", rest, re.M)
    assert table
    cells = [[each.strip() for each in line.split("|")[1:-1]] for line in table[1].splitlines()]
    return {first.split()[0]: others for first, *others in cells}


def run(script: Path) -> subprocess.CompletedProcess[str]:
    """Check a page in a process of its own, whatever device the tests' simulator shows."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("TILEGRAD_SIM")}
    package = str(Path(tilegrad.__file__).parents[1])
    env["PYTHONPATH"] = os.pathsep.join([package, env.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, script, "--check"], env=env, capture_output=True, text=True
    )


def test_stored_tables_are_what_the_trace_gives(tmp_path: Path) -> None:
    done = run(SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    # The same check of each with one digit changed.
    other = tmp_path / SCRIPT.name
    for path in (SCRIPT, PAGE, SISTER, PICTURE):
        (tmp_path / path.name).write_text(path.read_text())
    for path, old, new in (
        (PAGE, "| 131,584 |", "| 131,585 |"),
        (SISTER, "| 16.14 |", "| 16.15 |"),
        (PICTURE, 'width="360.0"', 'width="361.0"'),
    ):
        text = path.read_text()
        assert old in text
        (tmp_path / path.name).write_text(text.replace(old, new, 1))
    done = run(other)
    assert done.returncode == 1, done.stdout + done.stderr
    assert all(path.name in done.stderr for path in (PAGE, SISTER, PICTURE))
    assert "--write" in done.stderr


def test_every_rung_has_its_rows_and_its_text() -> None:
    assert tuple(rows("Derived so")) == RUNGS
    assert tuple(rows("<!-- trace: matmul -->")) == RUNGS
    text = PAGE.read_text()
    assert re.findall(r"^\*\*\d+\. (\w+)\.\*\*", text, re.M) == list(RUNGS)
    files = {path.stem for path in (ROOT / "csrc/cuda/matmul").glob("*.cu")}
    assert files == set(RUNGS)


@pytest.mark.parametrize("name", RUNGS)
def test_derived_intensity_is_the_traced_one(name: str) -> None:
    element, tile, _, _, of_global, of_thread, _ = rows("Derived so")[name]
    *_, loaded, read = rows("<!-- trace: matmul -->")[name]
    m, n = map(int, re.findall(r"\d+", tile)[:2])
    if "not shared" in tile:  # a warp's 32 lanes for one p: sectors of a and of b
        expected = 64 / {"naive": 32 + 1, "coalesced": 1 + 4}[name]
        assert of_global.split()[0] == "0.25"
    else:
        intensity = 2 * m * n / (int(element.split()[0]) * (m + n))
        assert float(of_global.split()[0].strip(",")) == pytest.approx(intensity, abs=0.05)
        expected = 32 * intensity  # a sector is 32 bytes
    assert float(loaded) == pytest.approx(expected, abs=0.05)
    if of_thread != "-":
        assert float(read) == pytest.approx(float(of_thread), abs=0.005)


def test_cross_entropy_moves_the_bytes_that_the_kernels_name() -> None:
    warps = {"three_pass": 1, "online_warp": 1, "block_row": 16, "one_pass": 8, "cluster": 32}
    table = rows("<!-- trace: cross_entropy -->", SISTER)
    assert table.keys() == warps.keys()
    assert re.findall(r"^\*\*\d+\. (\w+)\*\*", SISTER.read_text(), re.M) == list(warps)
    for name, (read, written, everything) in table.items():
        source = (ROOT / "csrc/cuda/cross_entropy" / f"{name}.cu").read_text()
        named = re.search(r"(\d+) bytes an element of float32", source)
        assert named or "1 read and 1 write of every logit" in source
        least = int(named[1]) if named else 2 * 4
        assert float(read) + float(written) == least
        # three sectors of 32 bytes a warp, and sums over 64 rows of 1000
        assert float(everything) == pytest.approx(least + warps[name] * 3 * 32 / 1000, abs=0.06)


@pytest.mark.parametrize("page", [PAGE, SISTER])
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("picture", [ROOT / "docs" / "matmul-tiles.svg", PICTURE])
def test_pictures_stand_alone(picture: Path) -> None:
    text = picture.read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert not re.search(r"href|url\(|<style|<image", text)
