# SPDX-License-Identifier: MIT
"""Which test files are run where a package is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

import runnable


def test_only_files_whose_imports_are_there_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runnable, "is_there", lambda package: package != "torch")
    names = {path.name for path in runnable.runnable()}
    assert {"test_backends.py", "test_documents.py"} <= names
    # one that imports torch itself, one by a helper, one by a helper's helper
    assert not names & {"test_network_beside_torch.py", "test_linear.py", "test_sim_intent.py"}
    monkeypatch.setattr(runnable, "is_there", lambda package: True)
    assert len(runnable.runnable()) == len(list(Path(__file__).parent.glob("test_*.py")))
