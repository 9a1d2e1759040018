# SPDX-License-Identifier: MIT
"""docs/check_html.py finds dead links, requests to other hosts and names without a place."""

from __future__ import annotations

import runpy
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "check_html.py"
PAGE = (
    '<h1 id="here">x</h1><a href="#here">1</a><a href="b/c.html#d">2</a><a href="https://e.f">3</a>'
)
OTHER = '<p id="d"><img src="../p.png"><a href="../index.html">4</a></p>'


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[], list[str]]:
    """Return what checks a small site, in which every public name is listed."""
    pytest.importorskip("torch", reason="tilegrad.torch is among the names")
    scope: dict[str, Any] = runpy.run_path(str(SCRIPT))
    check: Callable[[Path], Iterator[str]] = scope["faults"]
    names = [f"{module}.{name}" for module in scope["MODULES"] for name in scope["public"](module)]
    inventory(tmp_path, names)
    (tmp_path / "b").mkdir()
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "b" / "c.html").write_text(OTHER)
    (tmp_path / "p.png").write_bytes(b"")
    return lambda: list(check(tmp_path))


def inventory(folder: Path, names: list[str]) -> None:
    lines = "\n".join(f"{name} py:function 1 index.html#$ -" for name in names)
    packed = zlib.compress(lines.encode())
    (folder / "objects.inv").write_bytes(b"# 1\n# 2\n# 3\n# 4\n" + packed)


def test_a_whole_site_has_no_faults(faults: Callable[[], list[str]]) -> None:
    assert faults() == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b/c.html#d", "b/x.html", "index.html: b/x.html is not there"),
        ("b/c.html#d", "b/c.html#x", "index.html: b/c.html#x has no such anchor"),
        ("#here", "#there", "index.html: #there has no such anchor"),
        ("<h1", '<script src="https://a.b/c.js"></script><h1', "asks a.b for https://a.b/c.js"),
        ("<h1", '<link rel="stylesheet" href="//a.b/c.css"><h1', "asks a.b for //a.b/c.css"),
    ],
)
def test_a_fault_is_named(
    old: str, new: str, said: str, faults: Callable[[], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(PAGE.replace(old, new))
    (fault,) = faults()
    assert said in fault


def test_a_style_sheet_and_a_missing_name(faults: Callable[[], list[str]], tmp_path: Path) -> None:
    (tmp_path / "s.css").write_text("@font-face { src: url('https://a.b/c.woff') }")
    inventory(tmp_path, [])
    found = faults()
    assert "s.css: has url(http" in found
    assert "tilegrad.relu: is in no page of the reference" in found
    assert "tilegrad.torch.accelerate: is in no page of the reference" in found
