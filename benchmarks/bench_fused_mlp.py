# SPDX-License-Identifier: MIT
"""A small network as one op, five layers of 64, beside layers of NumPy, torch and jax.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/fused_mlp.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "fused_mlp/", *sys.argv[1:]]))
