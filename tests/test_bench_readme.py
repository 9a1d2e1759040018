# SPDX-License-Identifier: MIT
"""README's table of benchmarks is pasted from stored results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from test_bench import BENCHMARKS, CASES, ROOT, figures, result


@pytest.fixture
def readme_table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("readme_table")


def stored_run(readme_table: Any, **changes: Any) -> dict[str, Any]:
    """Return a run with the rows of the table, each 2 times as fast as torch, and a slow one."""
    rows = [
        figures(name.partition("/")[2], 2.0, name.partition("/")[0]) for name in readme_table.ROWS
    ]
    for row in rows:
        row |= {"limit": "FMA", "share": {"median": 0.875, "low": 0.8, "high": 0.9}}
    return result([*rows, figures("slow", 0.25)], **changes)


def test_readme_table_shows_what_is_stored(
    readme_table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one.json").write_text(json.dumps(stored_run(readme_table)))
    (tmp_path / "two.json").write_text(json.dumps(stored_run(readme_table, threads=2)))
    document = tmp_path / "README.md"
    document.write_text(
        f"# Before\n\n<!-- benchmarks: one.json two.json -->\nold\n{readme_table.END}\n\nAfter\n"
    )
    assert readme_table.main(["--check", str(document)]) == 1
    assert "is not what the stored results give" in capsys.readouterr().err
    assert readme_table.main(["--write", str(document)]) == 0
    assert readme_table.main(["--check", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("# Before\n\n<!--")
    assert text.endswith("-->\n\nAfter\n")
    assert "| matmul 1024 | 1.00 ms | torch 2.00 ms | **2.00** | 88 % FMA | 2.00 |" in text
    assert "worst 0.25 (matmul slow)" in text
    document.write_text(text.replace("**2.00**", "**2.10**", 1))
    assert readme_table.main(["--check", str(document)]) == 1


def test_readme_table_refuses_what_it_cannot_show(
    readme_table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "README.md"
    document.write_text("no markers")
    assert readme_table.main(["--check", str(document)]) == 2
    assert "must hold a line <!-- benchmarks:" in capsys.readouterr().err
    document.write_text(f"<!-- benchmarks: one.json -->\n{readme_table.END}")
    assert readme_table.main(["--check", str(document)]) == 2
    (tmp_path / "one.json").write_text(json.dumps(result([figures("128 NN", 2.0)])))
    assert readme_table.main(["--check", str(document)]) == 2
    assert "one.json: matmul/1024 NN must be there" in capsys.readouterr().err


def test_readme_of_this_repository(readme_table: Any) -> None:
    """Results are stored if and only if the README shows them, and it shows just what they give."""
    assert set(readme_table.ROWS) <= {one.id for one in CASES}
    readme = ROOT / "README.md"
    text = readme.read_text() if readme.exists() else ""
    stored = sorted((BENCHMARKS / "results").glob("cpu-*.json"))
    assert ("<!-- benchmarks:" in text) == bool(stored)
    if stored:
        assert readme_table.rewritten(readme) == text
