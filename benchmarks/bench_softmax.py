# SPDX-License-Identifier: MIT
"""Softmax and log_softmax, forward and backward.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/softmax.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "softmax/", *sys.argv[1:]]))
