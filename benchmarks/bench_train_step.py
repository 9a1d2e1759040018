# SPDX-License-Identifier: MIT
"""One training step of 784-512-512-10 as one call.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/train_step.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "train_step/", *sys.argv[1:]]))
