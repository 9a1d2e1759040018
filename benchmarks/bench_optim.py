# SPDX-License-Identifier: MIT
"""Updates of 669,706 parameters by every optimiser.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/optim.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "optim/", *sys.argv[1:]]))
