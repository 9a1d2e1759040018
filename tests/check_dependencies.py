# SPDX-License-Identifier: MIT
"""What a user of tilegrad installs besides it, and under which licences.

    python tests/check_dependencies.py > requirements.txt    for `pip-audit --requirement`

needs Python 3.11 (tomllib).
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[1]
FOR_USERS = ("io", "plot", "progress", "bf16", "trace", "torch")  # the other extras are for work
# Words of licences under which a package can be used by a program of any licence.
PERMISSIVE = re.compile(
    r"\b(Apache|BSD|ISC|MIT|MPL-2\.0|Public Domain|Python Software Foundation)\b"
)


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements() -> list[str]:
    """Return what pip is asked for by `pip install 'tilegrad[every extra for users]'`."""
    extras = project()["optional-dependencies"]
    asked = [*project()["dependencies"], *(line for name in FOR_USERS for line in extras[name])]
    return [line for line in asked if not line.startswith("tilegrad[")]


def name_of(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def licence(package: str) -> str:
    """Return what an installed package declares as its licence, in one line; "" if nothing."""
    about = metadata.metadata(package)
    declared = [about.get("License-Expression") or (about.get("License") or "").partition("\n")[0]]
    declared += [
        line for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    return " ".join(declared)


if __name__ == "__main__":
    print("\n".join(requirements()))
