# SPDX-License-Identifier: MIT
"""Every op is timed: by itself, or by another one whose loop it has."""

from __future__ import annotations

import re
from pathlib import Path

from tilegrad import ops
from tilegrad.bench import harness

# Modules of ops whose loops are those of another one, which is timed.
SAME_LOOP = {"activation_hard": "activation", "activation_softplus": "activation",
             "prelu": "activation"}  # fmt: skip


def test_every_op_has_a_benchmark() -> None:
    folder = Path(harness.__file__).parent
    text = "".join(
        path.read_text()
        for part in ("workloads", "device_workloads")
        for path in (folder / part).glob("*.py")
    )
    words = set(re.findall(r"\w+", text))
    timed: dict[str, bool] = {}
    for name in ops.__all__:
        module = getattr(ops, name).__module__.rpartition(".")[2]
        timed[module] = timed.get(module, False) or name in words
    assert len(timed) > 15
    not_timed = {module for module, is_timed in timed.items() if not is_timed}
    assert not_timed == SAME_LOOP.keys()
    assert all(timed[other] for other in SAME_LOOP.values())
