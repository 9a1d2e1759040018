# SPDX-License-Identifier: MIT
"""``tilegrad trace``: its tables, JSON and web page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tilegrad as tg
from tilegrad import cli


def test_command_shows_figures_beside_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["trace", "matmul", "--shape", "64x32x48", "--variant", "naive"]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "matmul 64x32 by 32x48 float32, variant naive: 196,608 floating-point" in text
    assert "matmul_naive_kernel<float>" in text
    (row,) = [line for line in text.splitlines() if "sum = fma(" in line]
    # 48 columns of 2 warps of rows, 32 steps: a costs 32 sectors for 4, b one.
    assert row.split()[1:7] == ["global", "load", "4", "B", "6,144", "101,376"]
    assert "6.60x" in row
    assert "races: none" in text


def test_command_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "softmax_backward", "--shape", "5x40", "--json",
                     "--schedule", "reverse/lazy", "--dtype", "float64"]) == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert (found["op"], found["shapes"], found["schedule"]) == (
        "softmax_backward", [[5, 40]], "reverse/lazy")  # fmt: skip
    assert found["races"] == found["out_of_bounds"] == []
    assert {site["space"] for site in found["sites"]} >= {"global"}
    assert all(site["ratio"] == site["sectors"] / site["ideal"] for site in found["sites"])


def test_command_writes_a_page_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "page.html"
    assert cli.main(["trace", "linear", "--html", str(file)]) == 0
    page = file.read_text()
    assert page.startswith("<!doctype html>")
    assert "1.00&times;" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"(src|href)\s*=|url\(|@import", page)
    balance = {tag: page.count(f"<{tag}") - page.count(f"</{tag}>") for tag in
               ("table", "tr", "td", "span", "details", "div")}  # fmt: skip
    assert set(balance.values()) == {0}
    assert "csrc/cuda/matmul/" in capsys.readouterr().out


@pytest.mark.parametrize("op", sorted(tg.ops.__all__))
def test_command_knows_every_op(op: str, capsys: pytest.CaptureFixture[str]) -> None:
    shape = "8x12x20" if op.startswith(("matmul", "linear")) else "6x20"
    assert cli.main(["trace", op, "--shape", shape]) == 0
    assert "kernel launch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_op"], "no such op; got 'no_such_op'"),
        (["relu", "--shape", "3x4", "--shape", "3x4"], "takes one shape; got 2"),
        (["matmul", "--shape", "3x4"], "two shapes, or one MxKxN; got 1"),
        (["relu", "--variant", "naive"], "relu has no variants"),
        (["matmul", "--variant", "quick"], "quick"),
        (["nll_loss", "--dtype", "float16"], "float16"),
        (["relu", "--schedule", "sideways"], "sideways"),
    ],
)
def test_command_refuses(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trace", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_command_refuses_a_bad_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", "relu", "--shape", "3xfour"]) == 2
    assert "must be sizes with x between" in capsys.readouterr().err
