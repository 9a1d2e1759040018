# SPDX-License-Identifier: MIT
"""Matrix products, 64 to 2048 in all four transpositions, and the skinny ones of small batches.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/matmul.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "matmul/", *sys.argv[1:]]))
