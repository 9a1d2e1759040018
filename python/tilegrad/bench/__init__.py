# SPDX-License-Identifier: MIT
"""Benchmarks: cases, harness and the measures of the machine; run by ``tilegrad bench``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tilegrad bench``; for the CPU it replaces this process to set the environment.

    Args:
        argv: Arguments after ``tilegrad bench``. Default: those of this process.

    Returns:
        The exit status.

    Raises:
        RuntimeError: cuda is asked for and there is none; the text says why.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["cuda"]:
        from . import cuda

        return cuda.main(given[1:])
    from . import cpu

    return cpu.main(given)
