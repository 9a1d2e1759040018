# SPDX-License-Identifier: MIT
"""Check the built pages: every link leads somewhere, nothing is asked of another host.

python docs/check_html.py build/docs

Also that every public name has its place in the reference, and that no two elements of a page
have the same name to be linked by.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType, ModuleType
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; an href of <a> is followed only by a reader.
FETCHED = {
    ("img", "src"),
    ("script", "src"),
    ("link", "href"),
    ("source", "src"),
    ("iframe", "src"),
}
MODULES = (
    "tilegrad", "tilegrad.nn", "tilegrad.nn.init", "tilegrad.nn.utils", "tilegrad.optim",
    "tilegrad.optim.lr_scheduler", "tilegrad.data", "tilegrad.sim", "tilegrad.cuda",
    "tilegrad.plot", "tilegrad.torch", "tilegrad.distributed", "tilegrad.onnx",
)  # fmt: skip


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what an element links to and by what it can be linked to."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append((value, "fetched" if (tag, name) in FETCHED else "link"))


def faults(root: Path) -> Iterator[str]:
    """Yield a line for each dead link, foreign request and public name without a place."""
    pages = {path: Page(path) for path in sorted(root.rglob("*.html"))}
    for path, page in pages.items():
        here = path.relative_to(root)
        for link, kind in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if kind == "fetched" and parts.scheme != "data":
                    yield f"{here}: asks {parts.netloc or parts.scheme} for {link[:80]}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{here}: {link} is not there"
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors and anchor != "top":
                    yield f"{here}: {link} has no such anchor"
    for path in sorted(root.rglob("*.css")):
        for scheme in ("url(http", "url(//", "@import"):
            if scheme in path.read_text(encoding="utf-8").replace("'", "").replace('"', ""):
                yield f"{path.relative_to(root)}: has {scheme}"
    known = documented(root / "objects.inv")
    for module in MODULES:
        for name in public(module):
            if f"{module}.{name}" not in known:
                yield f"{module}.{name}: is in no page of the reference"


def documented(inventory: Path) -> set[str]:
    """Return the Python names that Sphinx lists: `name domain:role priority uri title` a line."""
    packed = inventory.read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    return {name for name, role, *_ in map(str.split, lines) if role.startswith("py:")}


def public(module: str) -> list[str]:
    """Return the public names of a module that are no modules themselves."""
    found = importlib.import_module(module)
    own = (name for name, value in vars(found).items()
           if isinstance(value, type | FunctionType) and value.__module__ == module)  # fmt: skip
    names = getattr(found, "__all__", [name for name in own if not name.startswith("_")])
    return [name for name in names if not isinstance(getattr(found, name), ModuleType)]


def main(argv: Sequence[str]) -> int:
    """Print the faults; return whether there were any."""
    root = Path(argv[0] if argv else "build/docs").resolve()
    found = list(faults(root))
    print(*found, sep="\n", end="\n" if found else "")
    pages = sum(1 for _ in root.rglob("*.html"))
    print(f"{pages} pages, {len(found)} faults", file=sys.stderr)
    return bool(found) or not pages


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
