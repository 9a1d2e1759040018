# SPDX-License-Identifier: MIT
"""`{command-help} train` shows what `tilegrad train --help` prints."""

from __future__ import annotations

import os
import subprocess
import sys

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

# As on any machine: a width, no colours, and the number of threads that the text names.
_SAME = {"COLUMNS": "88", "NO_COLOR": "1", "TILEGRAD_NUM_THREADS": "2"}


class CommandHelp(SphinxDirective):
    """The help of the command line, or of one of its commands."""

    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return it as a block of plain text."""
        command = [*self.arguments, "--help"]
        done = subprocess.run(
            [sys.executable, "-m", "tilegrad", *command],
            env={**os.environ, **_SAME}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        text = f"$ tilegrad {' '.join(command)}\n{done.stdout.rstrip()}"
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
