# SPDX-License-Identifier: MIT
"""Updates of 669,706 parameters by every pytorchiser.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/pytorch.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "pytorch/", *sys.argv[1:]]))
