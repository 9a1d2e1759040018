# SPDX-License-Identifier: MIT
"""Run a compiler command; keep what ptxas says of each kernel's resources beside the object file.

As CMake's launcher of nvcc: OBJECT.ptxas holds the "info" lines, everything else is passed on.
Advice of ptxas is an "info" line too, with a number: that wgmma wait for each other (C7510 and its
like), that a wait was added, that a register request is ignored. It is passed on as well, and where
warnings are errors it is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ADVICE = re.compile(r"ptxas info\s*: \(C\d+\)")


def main(command: list[str]) -> int:
    """Run the command; return its exit status."""
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    lines = done.stderr.splitlines(keepends=True)
    info = [line for line in lines if "ptxas info" in line or "bytes stack frame" in line]
    advice = [line for line in info if ADVICE.match(line)]
    sys.stderr.writelines(line for line in lines if line not in info or line in advice)
    if info and "-o" in command:
        Path(command[command.index("-o") + 1] + ".ptxas").write_text("".join(info))
    if advice and "-Werror=all-warnings" in command:
        sys.stderr.write("ptxas advises: an error, as warnings are\n")
        return done.returncode or 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
