# SPDX-License-Identifier: MIT
"""Benchmarks: cases, harness and the measures of the machine; run by ``tilegrad bench``."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``tilegrad bench``; replaces this process to set the environment of the libraries.

    Args:
        argv: Arguments after ``tilegrad bench``. Default: those of this process.

    Returns:
        The exit status.
    """
    from .cpu import main

    return main(argv)
