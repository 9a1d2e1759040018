# SPDX-License-Identifier: MIT
"""Kernels that may start before the one ahead of them ends (launch_next, csrc/cuda/launch.cuh).

Such a kernel waits first of all, in every thread, so that each kernel of a plan ends after all
earlier ones. A kernel that is launched plainly need not. In captured plans the simulator checks the
same (tests/test_sim_runtime.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[1] / "csrc" / "cuda"
SOURCES = sorted(
    file
    for pattern in ("*.cu", "*.cuh")
    for file in CUDA.rglob(pattern)
    if not file.name.startswith("conformance")
)
WAIT = "grid_dependency_wait();"


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*", "", text)


def closing(text: str, at: int) -> int:
    """Return where the parenthesis that opens at text[at] is closed."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise AssertionError(text[at : at + 80])


def kernels(text: str) -> dict[str, str]:
    """Return the body's beginning of each kernel that a source defines, by name."""
    found = {}
    for mark in re.finditer(r"__global__", text):
        name = re.compile(r"(\w+_kernel)\(").search(text, mark.end())
        assert name, text[mark.start() : mark.start() + 200]
        body = text[closing(text, name.end() - 1) + 1 :].lstrip()
        if body.startswith("{"):
            found[name[1]] = body[1:].lstrip()
    return found


def launched(text: str, function: str) -> set[str]:
    """Return the kernels that a source gives to a launching function.

    They are named in its first argument; where that is a variable, any of the source may be meant.
    """
    names: set[str] = set()
    for call in re.finditer(rf"(?<![\w.>]){function}\(", text):
        inner = text[call.end() : closing(text, call.end() - 1)]
        first = re.split(r",(?![^<]*>)", inner, maxsplit=1)[0]
        found = re.findall(r"\w+_kernel\b", first)
        names |= set(found or re.findall(r"\w+_kernel\b", text))
    return names


TEXTS = {file: without_comments(file.read_text()) for file in SOURCES}
KERNELS = {name: body for text in TEXTS.values() for name, body in kernels(text).items()}
PLAIN = {name for text in TEXTS.values() for name in launched(text, "launch")}
NEXT = {name for text in TEXTS.values() for name in launched(text, "launch_next")}


def test_sources_are_read() -> None:
    assert len(KERNELS) > 50
    assert {"activation_kernel", "sgd_step_kernel", "matmul_naive_kernel"} <= KERNELS.keys()
    assert {"activation_kernel", "fill_kernel", "bias_gradient_kernel"} <= NEXT
    assert not NEXT & PLAIN


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_kernel_waits_first_or_is_launched_plainly(name: str) -> None:
    assert KERNELS[name].startswith(WAIT) or name in PLAIN, (
        f"{name} does not begin with {WAIT}, and no launch( names it"
    )


def test_only_launch_next_lets_kernels_overlap() -> None:
    places = [
        file.name for file, text in TEXTS.items() if re.search(r"\boverlaps\s*=\s*[^f]", text)
    ]
    assert places == ["launch.cuh"]
    assert TEXTS[CUDA / "launch.cuh"].count("own.overlaps = launches_overlap();") == 1
