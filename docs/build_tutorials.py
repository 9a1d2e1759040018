# SPDX-License-Identifier: MIT
"""Run the tutorials and write them as notebooks, with what they print and draw.

python docs/build_tutorials.py            all of docs/tutorials/*.py
python docs/build_tutorials.py 2_chain    those whose name begins so

Needs the extra "docs" and an installed tilegrad. The .py is the source; the .ipynb beside it is
what this script makes of it, so that it can be read without running anything.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbclient
import nbformat
from PIL import Image  # comes with matplotlib

TUTORIALS = Path(__file__).parent / "tutorials"
LICENCE = "# SPDX-License-Identifier: MIT\n"


def notebook(source: Path) -> nbformat.NotebookNode:
    """Return the notebook of a script in the percent format, executed."""
    text = source.read_text(encoding="utf-8").removeprefix(LICENCE)
    made = jupytext.reads(text, fmt="py:percent")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.metadata = nbformat.from_dict({"kernelspec": kernel})
    options = {"record_timing": False, "coalesce_streams": True}  # what a cell prints is one text
    nbclient.NotebookClient(made, kernel_name="python3", **options).execute()
    made.metadata.pop("language_info", None)  # it names the version of Python
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"  # jupytext draws one at random
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    return made


def smaller(picture: str) -> str:
    """Return a PNG in base64 with a palette of 256 colours: a third of the size."""
    pixels = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    found = io.BytesIO()
    pixels.quantize(256, dither=Image.Dither.NONE).save(found, "png", optimize=True)
    return base64.b64encode(found.getvalue()).decode("ascii")


def main(argv: Sequence[str]) -> None:
    """Write the notebooks."""
    for source in sorted(TUTORIALS.glob("*.py")):
        if not argv or source.name.startswith(tuple(argv)):
            target = source.with_suffix(".ipynb")
            nbformat.write(notebook(source), target)
            print(f"{target.relative_to(TUTORIALS.parent)}  {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
