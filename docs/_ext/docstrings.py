# SPDX-License-Identifier: MIT
"""Docstrings as reStructuredText: formulas in a box, names as links, nothing read as markup.

They are written to be read in a terminal: `x` is code, a*b is a product, w_c an index. `Math:`
and `Source:` are paragraphs of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile

from sphinx.application import Sphinx

import tilegrad

_CODE = re.compile(r"(``[^`]+``|:[\w:]+:`[^`]+`|`[^`]+`)")
_EXAMPLE = re.compile(r"(Example|Examples|Usage):$")
_BOX = re.compile(r"(Math|Source): ?(.*)")


@cache
def functions() -> frozenset[str]:
    """Return the names that code in a docstring may stand for without a module."""
    return frozenset(tilegrad.__all__) - {"nn", "optim"}


def inline(text: str) -> str:
    """Return a line in which only code is markup; a public function's name is a link."""
    parts = _CODE.split(text)
    for place, part in enumerate(parts):
        if not place % 2:
            part = re.sub(r"([\\*|])", r"\\\1", part)
            parts[place] = re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)
        elif not part.startswith(("``", ":")):
            name = part.strip("`")
            known = name in functions()
            parts[place] = f":py:obj:`~tilegrad.{name}`" if known else f"``{name}``"
        if place % 2 and parts[place + 1][:1].isalnum():
            parts[place] += "\\ "  # the plural of a name
    return "".join(parts)


def rewritten(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a docstring as reStructuredText with Google's sections."""
    rest = iter(lines)
    in_example = in_literal = False
    for line in rest:
        if line.strip() and not line.startswith(" "):
            in_example, in_literal = bool(_EXAMPLE.match(line)), False
        if in_example and line.startswith(" "):
            yield f"   {line}"
        elif in_example and line:
            yield from (line, "    .. code-block:: pycon", "")
        elif in_literal:
            yield line
        elif line == "Returns:":  # a field: napoleon would take what is before a colon for a type
            yield ":returns:"
            yield from (inline(more) for more in takewhile(str.strip, rest))
            yield ""
        elif box := _BOX.match(line):
            more = (each.strip() for each in takewhile(str.strip, rest))
            text = inline(" ".join([box[2], *more]).strip())
            name = box[1].lower()
            label = "" if name == "math" else f"{box[1]}: "
            yield from ("", f".. container:: {name}-text", "", f"   {label}{text}", "")
        else:
            in_literal = line.endswith("::")
            yield inline(line)


def process(
    app: Sphinx, what: str, name: str, of: object, options: object, lines: list[str]
) -> None:
    """Rewrite a docstring before napoleon reads its sections."""
    lines[:] = rewritten(lines)
    if what == "property":
        lines[:0] = ["..", ""]  # or napoleon would take what is before a colon for a type


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect before napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
