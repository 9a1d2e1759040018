# SPDX-License-Identifier: MIT
"""The forward pass of 784-512-512-10, beside onnxruntime among others.

Options are those of `tilegrad bench`; cases: python/tilegrad/bench/workloads/predict.py.
"""

import sys

from tilegrad.bench import main

if __name__ == "__main__":
    sys.exit(main(["cpu", "--filter", "predict/", *sys.argv[1:]]))
