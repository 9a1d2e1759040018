# SPDX-License-Identifier: MIT
"""A page for each source file that the text names, and links to it.

A Markdown link to a file of the repository that is no page itself, and a path from its root in
code type, `csrc/ops.hpp` or `tests/test_x.py::test_y`, lead to that file, highlighted, with
numbered lines.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from docutils import nodes
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

FOLDER = "source"  # of the pages that are made here
LARGEST = 200_000  # bytes: beyond, it is data
_LEXERS = {".cu": "cuda", ".cuh": "cuda", ".hpp": "cpp", ".pyi": "python"}


@cache
def tracked(root: Path) -> frozenset[str]:
    """Return the paths of the files that the repository has."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True)
    if listed.returncode == 0:
        return frozenset(listed.stdout.splitlines())
    return frozenset(  # an unpacked source archive
        str(PurePosixPath(path.relative_to(root)))
        for folder in ("benchmarks", "csrc", "docs", "examples", "python", "tests")
        for path in (root / folder).rglob("*.*")
    )


class SourceLinks(SphinxTransform):
    """Lead links and paths to the pages of source files."""

    default_priority = 900

    def apply(self, **kwargs: Any) -> None:
        """Change the document."""
        for node in list(self.document.findall(addnodes.download_reference)):
            target = PurePosixPath(self.env.docname).parent / node["reftarget"]
            self._lead(node, _plain(target), list(node.children))
        for node in list(self.document.findall(nodes.literal)):
            if not isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                self._lead(node, node.astext().partition("::")[0], [node.deepcopy()])

    def _lead(self, node: nodes.Element, path: str, children: list[nodes.Node]) -> None:
        root = Path(self.env.srcdir)
        if path not in tracked(root) or (root / path).stat().st_size > LARGEST:
            return
        name = PurePosixPath(path).with_suffix("")
        if str(name) in self.env.found_docs:
            where = str(name)
        elif _language(path):
            where = f"{FOLDER}/{path}"
            _pages(self.env).setdefault(self.env.docname, set()).add(path)
        else:
            return
        uri = self.app.builder.get_relative_uri(self.env.docname, where)
        node.replace_self(nodes.reference("", "", *children, internal=True, refuri=uri))


def _plain(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _language(path: str) -> str:
    if found := _LEXERS.get(PurePosixPath(path).suffix):
        return found
    try:
        return str(get_lexer_for_filename(path).aliases[0])
    except (ClassNotFound, IndexError):
        return ""


def _pages(env: BuildEnvironment) -> dict[str, set[str]]:
    if not hasattr(env, "tilegrad_sources"):
        env.tilegrad_sources = {}  # type: ignore[attr-defined]
    found: dict[str, set[str]] = env.tilegrad_sources
    return found


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what a page named before it is read again."""
    _pages(env).pop(docname, None)


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the pages of the files that were named."""
    for path in sorted(set().union(*_pages(app.env).values())):
        text = (Path(app.srcdir) / path).read_text(encoding="utf-8")
        code = app.builder.highlighter.highlight_block(  # type: ignore[attr-defined]
            text, _language(path), linenos="inline", location=path
        )
        body = f'<h1 class="path">{path}</h1>\n{code}'
        yield f"{FOLDER}/{path}", {"parents": [], "title": path, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the transform and the pages."""
    app.add_transform(SourceLinks)
    app.connect("env-purge-doc", forget)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
