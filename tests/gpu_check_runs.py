# SPDX-License-Identifier: MIT
"""What the tests of `make gpu-check` share: its modules, programs that stand in for real ones."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def module(name: str) -> Any:
    """Return a module of the folder benchmarks/."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)


def program(folder: Path, name: str, text: str) -> None:
    """Write a program of the shell that stands in for a real one."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
