# SPDX-License-Identifier: MIT
"""Compare the committed stub of ``_cpu`` with the one generated from the compiled module.

``--write`` replaces the committed one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

COMMITTED = Path(__file__).parents[1] / "python" / "tilegrad" / "_cpu.pyi"
HEADER = "# SPDX-License-Identifier: MIT\n# Generated: python tests/check_stubs.py --write\n"


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "tilegrad._cpu", "-o", folder],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        raw = Path(folder, "tilegrad", "_cpu.pyi").read_text()
    formatted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", "_cpu.pyi", "-"],
        input=HEADER + raw,
        check=True,
        capture_output=True,
        text=True,
    )
    return formatted.stdout


def main() -> int:
    generated = generate()
    if "--write" in sys.argv[1:]:
        COMMITTED.write_text(generated)
        return 0
    if COMMITTED.read_text() != generated:
        print(f"{COMMITTED.name} is out of date; run: python tests/check_stubs.py --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
