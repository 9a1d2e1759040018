# SPDX-License-Identifier: MIT
"""The table of contents names pages that may not be there: those are left out of it."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx


def leave_out(app: Sphinx, docname: str, source: list[str]) -> None:
    """Drop the lines `/path/of/page` of the start page that name no file."""
    if docname != app.config.root_doc:
        return

    def kept(line: re.Match[str]) -> str:
        page = Path(app.srcdir) / line[1]
        return line[0] if any(page.parent.glob(f"{page.name}.*")) else ""

    source[0] = re.sub(r"^/([\w/-]+)\n", kept, source[0], flags=re.MULTILINE)


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at each page as it is read."""
    app.connect("source-read", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
