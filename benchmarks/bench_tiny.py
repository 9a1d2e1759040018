# SPDX-License-Identifier: MIT
"""Calls in which only what surrounds the arithmetic counts.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/tiny.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "tiny/", *sys.argv[1:]]))
