# SPDX-License-Identifier: MIT
"""Cross-entropy with its gradient, from 10 to 32,000 classes.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/cross_entropy.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "cross_entropy/", *sys.argv[1:]]))
