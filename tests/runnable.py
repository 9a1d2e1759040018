# SPDX-License-Identifier: MIT
"""Print the test files whose imports this Python can satisfy, theirs and their helpers'.

    python -m pytest $(python tests/runnable.py)

A test file that imports what is not installed would end the whole run while tests are collected:
on a machine with a GPU and no registry, or with the oldest Python and no PyTorch.
"""

from __future__ import annotations

import ast
import functools
import sys
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).resolve().parent


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the packages that a file imports when it is loaded, and its helpers in this folder."""
    found: set[str] = set()
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module is not None:
            names = [statement.module]
        else:
            continue
        for name in (name.partition(".")[0] for name in names):
            helper = TESTS / f"{name}.py"
            found |= imports(helper) if helper.exists() else {name}
    return frozenset(found)


@functools.cache
def is_there(package: str) -> bool:
    return package == "tilegrad" or find_spec(package) is not None


def runnable() -> list[Path]:
    """Return the test files that can be loaded."""
    return [path for path in sorted(TESTS.glob("test_*.py")) if all(map(is_there, imports(path)))]


if __name__ == "__main__":
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != TESTS]
    for path in runnable():
        print(path)
