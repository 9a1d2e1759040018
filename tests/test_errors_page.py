# SPDX-License-Identifier: MIT
"""docs/errors.md: every snippet raises what the page prints, or runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tilegrad as tg

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def plain(text: str) -> str:
    """Return the words of a text: its line breaks are the page's."""
    return " ".join(text.split())


def test_snippets_raise_what_the_page_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TILEGRAD_DATA", raising=False)
    lacks_cuda = "no tilegrad._cuda" in (tg.info()["backends"]["cuda"] or "")
    scope: dict[str, Any] = {}
    raised = 0
    for (kind, code), (after, text) in pairwise([*BLOCK.findall(PAGE.read_text()), ("", "")]):
        if kind != "python" or ('device="cuda"' in code and not lacks_cuda):
            continue
        if after != "text":
            exec(compile(code, str(PAGE), "exec"), scope)
            continue
        with pytest.raises(Exception) as caught:  # noqa: PT011  which one, the page says
            exec(compile(code, str(PAGE), "exec"), scope)
        assert plain(f"{caught.type.__name__}: {caught.value}") == plain(text), code
        raised += 1
    assert raised > 20


def test_commands_print_what_the_page_says() -> None:
    sessions = [text for kind, text in BLOCK.findall(PAGE.read_text()) if kind == "console"]
    assert sessions
    for session in sessions:
        line, expected = session.split("\n", 1)
        words = shlex.split(line.removeprefix("$ "))
        at = words.index("tilegrad")
        extra = dict(word.split("=", 1) for word in words[:at])
        command = [sys.executable, "-m", *words[at:]]
        done = subprocess.run(command, env={**os.environ, **extra}, capture_output=True, text=True)
        assert done.returncode != 0
        assert plain(done.stderr) == plain(expected)
