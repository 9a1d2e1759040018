# SPDX-License-Identifier: MIT
"""`tg.fit` or `tg.fit(...)` in the text leads to its place in the reference."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import tilegrad
import tilegrad.optim.lr_scheduler

_NAME = re.compile(r"tg\.([\w.]+?)(?:\(.*\))?")
_ELSEWHERE = ("reference", "bench")  # no page lists their names one by one


@cache
def has_a_place(name: str) -> bool:
    """Return whether a name below tilegrad is that of a public function or class."""
    found: Any = tilegrad
    for part in name.split("."):
        found = getattr(found, part, None)
    return callable(found) and name.split(".")[0] not in _ELSEWHERE and "._" not in name


class Names(SphinxTransform):
    """Make links of names in code type."""

    default_priority = 890

    def apply(self, **kwargs: Any) -> None:
        """Change the document."""
        for node in list(self.document.findall(nodes.literal)):
            name = _NAME.fullmatch(node.astext())
            if name is None or not has_a_place(name[1]):
                continue
            if isinstance(node.parent, nodes.reference | addnodes.pending_xref):
                continue
            link = addnodes.pending_xref(
                "", node.deepcopy(), refdomain="py", reftype="obj", refdoc=self.env.docname,
                reftarget=f"tilegrad.{name[1]}", refwarn=True,
            )  # fmt: skip
            node.replace_self(link)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(Names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
