# SPDX-License-Identifier: MIT
"""Leave out of a toctree what is not there."""
from pathlib import Path
import re
def drop(app, docname, source):
    if docname != app.config.root_doc:
        return
    def kept(match):
        return match[0] if any((Path(app.srcdir)/(match[1].lstrip("/")+e)).exists() for e in (".md", ".ipynb")) else ""
    source[0] = re.sub(r"^(/[\w/.-]+)\n", kept, source[0], flags=re.M)
def setup(app):
    app.connect("source-read", drop)
    return {"parallel_read_safe": True}
