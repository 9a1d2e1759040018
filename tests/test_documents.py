# SPDX-License-Identifier: MIT
"""The Python of the README and of the pages in docs/ runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import tilegrad as tg

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "docs/start.md", "docs/guide.md", "docs/devices.md", "docs/exchange.md",
        "docs/pytorch.md", "docs/simulator.md",
    ],
)  # fmt: skip
def test_code_runs_as_printed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    assert len(blocks) >= 2
    if "import torch" in "\n".join(blocks):
        pytest.importorskip("torch", reason="the page is about it")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile("\n".join(blocks), name, "exec"), scope)
    assert scope.get("loss", 0) < 3
    assert capsys.readouterr().out.strip()


def test_every_name_of_the_page_for_learners_exists() -> None:
    text = (ROOT / "docs/from-a-tutorial.md").read_text()
    names = sorted(set(re.findall(r"`tg\.([\w.]+)", text)))
    assert len(names) > 50
    for name in names:
        found: Any = tg
        for part in name.split("."):
            found = getattr(found, part)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / link).exists(), link


def test_every_test_that_holds_a_promise_exists() -> None:
    text = (ROOT / "docs/numerics.md").read_text()
    named = re.findall(r"`(tests/\w+\.py)(?:::(\w+))?`", text)
    assert len(named) > 35
    for path, name in named:
        assert f"def {name}" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_environment_variable_that_is_read_is_in_the_table() -> None:
    table = (ROOT / "docs/api/environment.md").read_text()
    told = set(re.findall(r"^\| `(TILEGRAD_\w+)` \|", table, re.MULTILINE))
    reads = re.compile(r"""(?:getenv|environ\.get)\(\s*["'](TILEGRAD_\w+)""")
    files = [
        path
        for folder in ("csrc", "python/tilegrad")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in {".cpp", ".hpp", ".cu", ".cuh", ".py"}
    ]
    assert told == {name for path in files for name in reads.findall(path.read_text())}
