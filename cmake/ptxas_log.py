# SPDX-License-Identifier: MIT
"""Run a compiler command; keep what ptxas says of each kernel's resources beside the object file.

As CMake's launcher of nvcc: OBJECT.ptxas holds the "info" lines, everything else is passed on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(command: list[str]) -> int:
    """Run the command; return its exit status."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    lines = done.stderr.splitlines(keepends=True)
    info = [line for line in lines if "ptxas info" in line or "bytes stack frame" in line]
    sys.stderr.writelines(line for line in lines if line not in info)
    if info and "-o" in command:
        Path(command[command.index("-o") + 1] + ".ptxas").write_text("".join(info))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
