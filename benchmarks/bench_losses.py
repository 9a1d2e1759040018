# SPDX-License-Identifier: MIT
"""Losses but cross-entropy, the mean and its gradient, beside torch.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/losses.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "losses/", *sys.argv[1:]]))
