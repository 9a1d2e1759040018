# SPDX-License-Identifier: MIT
"""Run the command line: ``python -m tilegrad``."""

import sys

from tilegrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
