# SPDX-License-Identifier: MIT
"""Run the benchmarks: ``python -m tilegrad.bench``."""

import sys

from tilegrad.bench import main

__all__ = ["main"]

if __name__ == "__main__":
    from tilegrad import cli  # which says in a line what went wrong

    sys.exit(cli.main(["bench", *sys.argv[1:]]))
