# SPDX-License-Identifier: MIT
"""Python in a process of its own, for what a test cannot do to the process that it runs in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import tilegrad as tg

HERE = Path(__file__).parent
OWN = ("TILEGRAD_CPU", "TILEGRAD_NUM_THREADS", "OMP_NUM_THREADS", "TILEGRAD_SIM_SCHEDULE")


def start(code: str | Path, *args: object, **options: Any) -> subprocess.Popen[str]:
    """Start a script, or code; `env` is added to the environment, which has no variable of ours."""
    ours = {k: v for k, v in os.environ.items() if k not in OWN}
    ours["PYTHONPATH"] = os.pathsep.join([str(Path(tg.__file__).parents[1]), str(HERE)])
    ours.update(options.pop("env", {}))
    what = [str(code)] if isinstance(code, Path) else ["-c", textwrap.dedent(code)]
    return subprocess.Popen(
        [sys.executable, *what, *map(str, args)], env=ours, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def run(code: str | Path, *args: object, timeout: float = 120, **options: Any) -> str:
    """Run it; return its output, or fail with what it wrote to stderr, which must be nothing."""
    child = start(code, *args, **options)
    try:
        out, err = child.communicate(timeout=timeout)
    finally:
        child.kill()
    assert (child.returncode, err) == (0, ""), f"exit code {child.returncode}\n{out}\n{err[-3000:]}"
    return out
