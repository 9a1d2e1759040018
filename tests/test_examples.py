# SPDX-License-Identifier: MIT
"""The scripts in examples/ run, find what they claim, and draw their pictures."""

from __future__ import annotations

import importlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Array, Device

image = pytest.importorskip("matplotlib.image")
ROOT = Path(__file__).parents[1]
EXAMPLES, PICTURES = ROOT / "examples", ROOT / "docs" / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")
LARGEST = 60_000  # bytes of a picture in the repository
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Call a script's main, check that it draws, and return what it found."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def call(name: str, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = importlib.import_module(name).main(
            ["--out", str(tmp_path), *arguments]
        )
        drawn = sorted(tmp_path.glob("*.png"))
        assert [path.name for path in drawn] == pictures_of(name)
        for path in drawn:
            assert_picture(path)
        return found

    return call


def pictures_of(name: str) -> list[str]:
    return sorted(path.name for path in PICTURES.glob(f"{name}*.png"))


def assert_picture(path: Path) -> None:
    """Require a picture that is neither blank nor too large for the repository."""
    assert path.stat().st_size < LARGEST, path.name
    pixels: Array = np.asarray(image.imread(path))[..., :3]
    assert pixels.shape[1] >= 600
    colours, counts = np.unique(np.rint(255 * pixels) @ [1, 256, 65536], return_counts=True)
    assert len(colours) > 20
    assert counts.max() < 0.97 * counts.sum(), f"{path.name} is all but blank"


def test_every_script_has_its_picture_and_its_line() -> None:
    text = (EXAMPLES / "README.md").read_text()
    named = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\)", text, re.MULTILINE)
    assert sorted(named) == SCRIPTS
    shown = re.findall(r"\]\(\.\./docs/examples/([\w.]+)\)", text)
    assert sorted(shown) == sorted(path.name for path in PICTURES.iterdir())
    for name in SCRIPTS:
        assert pictures_of(name), name
        script = (EXAMPLES / f"{name}.py").read_text()
        assert script.startswith("# SPDX-License-Identifier: MIT\n")
        assert re.search(r"Takes (a|\w+) seconds?", script), "the docstring says how long it takes"
    for path in PICTURES.iterdir():
        assert_picture(path)


def test_runs_as_a_command_from_any_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    script = str(EXAMPLES / "worked_network.py")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"squared error\s+1\.520812\s+1\.520812", done.stdout)
    assert_picture(tmp_path / "runs" / "examples" / "worked_network.png")


def test_worked_network(device: Device, run: Run) -> None:
    found = run("worked_network", "--device", device.name)
    forward = found["forward"]
    np.testing.assert_allclose(forward["hidden"], [0.731059, 0.785835, 0.689974], atol=5e-7)
    assert forward["output"] == pytest.approx(1.233212, abs=5e-7)
    assert forward["error"] == pytest.approx(1.520812, abs=1e-6)

    gradients = found["gradients"]
    eps = float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(gradients["backward"], gradients["by hand"], rtol=16 * eps)
    # A difference of two losses of 0.33, each rounded, over a step of 1e-4; and its curvature.
    np.testing.assert_allclose(gradients["differences"], gradients["by hand"], atol=1e-3)

    (losses, losses_backward), expected = found["losses"], found["expected"]
    assert losses[0] == pytest.approx(0.334550, abs=1e-6)
    assert losses[-1] == pytest.approx(0.000327707, abs=1e-6)
    assert found["prediction"] == pytest.approx(-0.0174781, abs=5e-6)
    np.testing.assert_allclose(losses_backward, losses, rtol=0, atol=1e-4)
    weights, weights_backward = found["weights"]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=5e-5)
    np.testing.assert_allclose(weights_backward, expected, rtol=0, atol=1e-4)


def test_linear_regression(device: Device, run: Run) -> None:
    found = run("linear_regression", "--device", device.name)
    for name, features in (("single", 1), ("multiple", 3)):
        result = found[name]
        assert len(result["descent"]) == features + 1
        np.testing.assert_allclose(result["descent"], result["exact"], rtol=0, atol=5e-3)
        # Four standard errors of the constant, the least certain; slopes are surer.
        np.testing.assert_allclose(result["exact"], result["truth"], rtol=0, atol=25)
        np.testing.assert_allclose(result["exact"][0], 3, rtol=0, atol=0.2)
        losses = result["losses"]
        assert 10 < len(losses) < 1000  # it settled, and took some steps
        assert all(b <= a * (1 + 1e-6) for a, b in itertools.pairwise(losses))
        assert losses[-1] == pytest.approx(result["floor"], rel=1e-5)
    assert found["multiple"]["floor"] < found["single"]["floor"] / 4
    np.testing.assert_allclose(found["multiple"]["exact"][1:3], [-1.2, -8], rtol=0, atol=0.4)


def test_polynomials_under_and_over_fit(run: Run) -> None:
    found = run("polynomial_regression")
    train, validation = (np.array(found[f"{part}_error"]) for part in ("train", "validation"))
    # A higher degree contains the lower one; descent reaches its best to within a thousandth.
    assert (train[1:] <= 1.001 * train[:-1]).all()
    assert found["best"] in (3, 4, 5)
    best = validation.min()
    assert validation[0] > 2 * best  # degree 1 is too stiff, for its own points too
    assert train[0] > 2 * train[2]
    assert validation[-1] > 5 * best  # degree 12 follows the noise
    assert train[-1] < train[2]


def test_dropout_narrows_the_gap(run: Run) -> None:
    found = run("dropout")
    gap = {
        way: np.array([run["losses"][-1, 1] - run["losses"][-1, 0] for run in runs])
        for way, runs in found.items()
    }
    accuracy = {way: np.mean([run["accuracy"] for run in runs]) for way, runs in found.items()}
    assert all(len(gaps) >= 3 for gaps in gap.values())
    assert (gap["nothing"] > 0.4).all()
    assert (gap["dropout"] < 0.8 * gap["nothing"]).all()  # for every seed
    assert (gap["weight decay"] < 0.9 * gap["nothing"]).all()
    assert accuracy["dropout"] > accuracy["nothing"] + 0.01
    for run in found["nothing"]:  # the validation loss has turned long before the end
        assert run["losses"][:, 1].argmin() < 45
        assert run["losses"][-1, 0] < 0.1


def test_digits_k_fold(run: Run) -> None:
    found = run("digits_k_fold")
    accuracies, confusion = found["accuracies"], found["confusion"]
    assert len(accuracies) == 5
    assert found["mean"] == pytest.approx(np.mean(accuracies))
    assert found["mean"] > 0.95
    assert 0 < found["spread"] < 0.02
    assert confusion.sum() == 1797  # every image once
    assert confusion.diagonal().sum() == round(found["mean"] * 1797)
    assert (confusion.sum(axis=1) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]).all()


def test_fashion_mnist_on_digits(run: Run, tmp_path: Path) -> None:
    found = run("fashion_mnist", "--data", "digits", "--epochs", "20")
    assert found["data"] == "UCI digits"
    assert found["accuracy"] > 0.9
    assert found["same"]
    assert (tmp_path / "fashion_mnist.safetensors").exists()
    assert found["history"].train_loss[-1] < found["history"].train_loss[0] / 4
    assert len(found["history"].val_accuracy) == 20


def test_pytorch_loop(run: Run) -> None:
    pytest.importorskip("torch")
    found = run("pytorch_loop")
    assert found["accuracy"] > 0.95
    assert found["accuracy"] == pytest.approx(found["torch_accuracy"], abs=1 / 360)
    assert found["losses"][-1] < found["losses"][0] / 10
    assert 0 < found["difference"] < 1e-5


def test_pytorch_loop_without_pytorch(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = run("pytorch_loop")
    assert found["accuracy"] > 0.95
    assert found["difference"] is None
    assert "PyTorch is not installed" in capsys.readouterr().out
