# SPDX-License-Identifier: MIT
"""Dense layers of the multilayer perceptron, forward and backward.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/linear.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "linear/", *sys.argv[1:]]))
