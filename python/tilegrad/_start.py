# SPDX-License-Identifier: MIT
"""What happens when the package cannot start: an error in Python, one line in the command line."""

import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

_NAME = re.compile(r"tilegrad(\.\w+)*")
_LAST_OPTION = re.compile(r"-[a-zA-Z]*m")  # the module's name follows
_MODULE = re.compile(_LAST_OPTION.pattern + _NAME.pattern)


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
        >>> _is_command(["-m"], ["python", "-Imtilegrad"])
        True
        >>> _is_command(["train.py"], ["python", "train.py", "-m", "tilegrad"])
        False
    """
    if argv[:1] == ["-m"]:
        return any(
            _MODULE.fullmatch(word) or (_LAST_OPTION.fullmatch(word) and _NAME.fullmatch(following))
            for word, following in pairwise([*words, ""])
        )
    return bool(argv) and Path(argv[0]).stem == "tilegrad"
