# SPDX-License-Identifier: MIT
"""Activations and their derivatives on 1e4 to 1e6 elements.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/activation.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "activation/", *sys.argv[1:]]))
