# SPDX-License-Identifier: MIT
"""What happens when the package cannot start: an error in Python, one line in the command line."""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path


def leave_command(error: ImportError) -> None:
    """End the process of ``tilegrad ...`` with one line where a variable was set wrong.

    The command has no chance to do it: Python imports the package before it. Whoever imports
    tilegrad from a program of his own gets the exception.

    Args:
        error: Why `_cpu` could not be imported.

    Raises:
        SystemExit: With status 2, as for bad arguments.

    Example:
        >>> leave_command(ImportError("_cpu: no such file"))
    """
    if str(error).startswith("TILEGRAD_") and _is_command(sys.argv, sys.orig_argv):
        print(f"tilegrad: {error}", file=sys.stderr)
        sys.exit(2)


def _is_command(argv: Sequence[str], words: Sequence[str]) -> bool:
    """Say whether this process was started as ``tilegrad`` or ``python -m tilegrad``.

    Args:
        argv: `sys.argv`; while `-m` looks for its module, the first is "-m".
        words: `sys.orig_argv`.

    Example:
        >>> _is_command(["-m"], ["python", "-m", "tilegrad.bench"])
        True
        >>> _is_command(["train.py"], ["python", "train.py", "-m", "tilegrad"])
        False
    """
    if argv[:1] == ["-m"]:
        return any(a == "-m" and b.partition(".")[0] == "tilegrad" for a, b in pairwise(words))
    return bool(argv) and Path(argv[0]).stem == "tilegrad"
