# SPDX-License-Identifier: MIT
"""The galleries: every op is there, its derivative is that of its value, the picture is drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli_runs import assert_one_line
from tilegrad import _gallery, ops
from tilegrad.cli import main

PANELS = [*_gallery.activations(), *_gallery.losses()]


def shown(name: str) -> str:
    return name.split("(")[0].split(",")[0].split(" ")[0]


def test_every_activation_and_loss_is_shown() -> None:
    others = {"matmul", "linear", "fused_mlp", "dropout"}
    forwards = {n.removesuffix("_backward") for n in ops.__all__ if n.endswith("_backward")}
    losses = {n.removesuffix("_value_and_grad") for n in ops.__all__ if n.endswith("_and_grad")}
    assert {shown(p.name) for p in _gallery.activations()} == forwards - losses - others
    assert {shown(p.name) for p in _gallery.losses()} == losses


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p.name)
def test_the_derivative_is_that_of_the_value(panel: _gallery.Panel) -> None:
    step = 1e-6
    x = np.linspace(panel.low, panel.high, 57)[1:-1] + 1e-3  # on no kink
    numeric = (np.asarray(panel.value(x + step)) - np.asarray(panel.value(x - step))) / (2 * step)
    slope = np.asarray(panel.slope(x))
    assert slope.shape == x.shape
    np.testing.assert_allclose(slope, numeric, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p.name)
def test_the_curves_lie_in_their_panel(panel: _gallery.Panel) -> None:
    x = np.linspace(panel.low, panel.high, 101)
    for curve in (panel.value(x), panel.slope(x)):
        inside = (np.asarray(curve) >= panel.bottom) & (np.asarray(curve) <= panel.top)
        assert inside.mean() > 0.3, f"{panel.name}: most of a curve is cut off"


@pytest.mark.parametrize("gallery", ["activations", "losses"])
def test_the_command_writes_a_picture(
    gallery: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "gallery.png"
    assert main(["plot", gallery, "--out", str(path)]) == 0
    count = len(getattr(_gallery, gallery)())
    assert capsys.readouterr().out.startswith(f"{path}: {count} {gallery}, ")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000


def test_bad_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "optimisers"]) == 2
    assert "optimisers" in capsys.readouterr().err
    assert main(["plot", "losses", "--out", str(tmp_path / "no" / "folder.png")]) == 1
    assert_one_line(capsys, "plot", "there is no such folder")
