# SPDX-License-Identifier: MIT
"""The tutorials run, compute what their text says, and their notebooks are made of them."""

from __future__ import annotations

import itertools
import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
SOURCES = sorted(TUTORIALS.glob("*.py"))
LARGEST = 200_000  # bytes of a notebook
Run = Callable[[str, int], dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Run a tutorial as a script without a screen; return its variables."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    options = np.get_printoptions()
    monkeypatch.setattr(pyplot, "show", lambda: None)

    def call(name: str, figures: int) -> dict[str, Any]:
        scope = runpy.run_path(str(TUTORIALS / f"{name}.py"))
        drawn = [pyplot.figure(number) for number in pyplot.get_fignums()]
        assert len(drawn) == figures
        for figure in drawn:
            figure.canvas.draw()
            assert len(np.unique(np.asarray(figure.canvas.buffer_rgba()))) > 20
        return scope

    with matplotlib.rc_context():
        yield call
    pyplot.close("all")
    np.set_printoptions(**options)


def cells_of(source: Path) -> list[tuple[str, str]]:
    """Return (kind, text) of each cell of a script in the percent format."""
    parts = re.split(r"^# %%( \[markdown\])?\n", source.read_text(), flags=re.MULTILINE)
    assert parts[0] == "# SPDX-License-Identifier: MIT\n"
    cells = []
    for marker, text in zip(parts[1::2], parts[2::2], strict=True):
        text = text.strip("\n")
        if marker:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.split("\n"))
        cells.append(("markdown" if marker else "code", text))
    return cells


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_made_of_its_script(source: Path) -> None:
    path = source.with_suffix(".ipynb")
    assert path.stat().st_size < LARGEST
    cells = json.loads(path.read_text())["cells"]
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    assert found == cells_of(source), "run `make tutorials`"
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    kinds = {output["output_type"] for output in outputs}
    assert kinds == {"stream", "display_data"}  # neither errors nor results that nobody printed
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}
    for cell in cells:  # printed at several moments, it is one text all the same
        types = [output["output_type"] for output in cell.get("outputs", ())]
        assert ("stream", "stream") not in itertools.pairwise(types)
    linked = re.findall(r"\]\(([\w.]+\.ipynb)\)", "".join(text for _, text in found))
    assert all((TUTORIALS / name).exists() for name in linked)


def test_neuron_to_network(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    scope = run("1_neuron_to_network", 3)
    assert scope["umbrella"].item() == pytest.approx(0.710950, abs=1e-6)
    assert scope["two_layers"].item() == pytest.approx(scope["one_layer"].item(), rel=1e-12)
    np.testing.assert_allclose(scope["xor"][:, 0], [0, 1, 1, 0], atol=1e-3)
    np.testing.assert_allclose(scope["hidden"], [[0.731059, 0.785835, 0.689974]], atol=5e-7)
    assert scope["output"].item() == pytest.approx(1.233212, abs=5e-7)
    accuracies = scope["accuracies"]
    assert accuracies["no hidden layer"] < 0.65
    assert accuracies["8 hidden neurons"] > 0.99
    text = capsys.readouterr().out
    assert "loss 1.520812" in text
    assert text.count("  umbrella\n") == 2


def test_chain_rule(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    scope = run("2_chain_rule", 2)
    by_hand, checked = scope["by_hand"], scope["checked"]
    assert sum(values.size for values in by_hand.values()) == 13
    for name, values in by_hand.items():
        np.testing.assert_allclose(values, checked[name], rtol=0, atol=1e-10, err_msg=name)
    assert by_hand["b2"].item() == pytest.approx(-1.156806, abs=1e-6)
    errors = scope["errors"]
    best = {name: scope["steps"][values.argmin()] for name, values in errors.items()}
    assert 1e-7 < best["float64"] < best["float32"] < 1e-1  # neither the longest nor the shortest
    assert errors["float64"].min() < 1e-9 < 1e-7 < errors["float32"].min()
    assert scope["found"].startswith("gradcheck: failed")
    assert scope["losses"][0] == pytest.approx(0.334550, abs=1e-6)
    assert scope["losses"][-1] == pytest.approx(0.000326, abs=1e-6)
    assert 6 < scope["days"] < 7
    text = capsys.readouterr().out
    assert "slope for e: 2, for o: 2, for w: 4" in text
    assert "gradcheck: passed" in text


def test_softmax_cross_entropy(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("elftools")  # the trace needs it
    scope = run("3_softmax_cross_entropy", 5)
    assert np.isnan(scope["overflown"]).all()
    np.testing.assert_allclose(scope["of_softmax"], scope["of_sigmoid"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(scope["each"], [0.127833, 0.693147], rtol=0, atol=5e-7)
    assert scope["ignorant"] == pytest.approx(np.log(10), rel=1e-12)

    gaps, one_step, two_steps = scope["gaps"], scope["one_step"], scope["two_steps"]
    np.testing.assert_array_equal(one_step[50:], gaps[50:])
    assert 90 < scope["last"] < 110
    assert np.isinf(two_steps[scope["last"] + 1 :]).all()
    assert abs(two_steps[scope["last"]] - gaps[scope["last"]]) > 0.1  # wrong before it is infinite
    np.testing.assert_allclose(scope["by_hand"], scope["by_differences"], rtol=0, atol=1e-9)
    assert bool(scope["checked"])
    assert np.isnan(scope["two_step_gradient"]).all()
    np.testing.assert_array_equal(scope["one_step_gradient"], [[1, -1]])

    assert scope["s"] == pytest.approx(scope["two_passes"], rel=1e-12)
    traffic = {name: sum(moved) for name, moved in scope["traffic"].items()}
    rungs = {"three_pass": 16, "online_warp": 12, "block_row": 12, "one_pass": 8}
    assert list(traffic) == ["separate functions", *rungs]
    for name, of_logits in {"separate functions": 32, **rungs}.items():
        assert of_logits <= traffic[name] < of_logits + 0.5, name
    assert scope["ratio"] > 1

    text = capsys.readouterr().out
    assert "-ln 0.88 = 0.127833" in text
    assert "exp(89) in float32 inf" in text
    assert "gradcheck: passed" in text


def test_training_that_generalises(run: Run) -> None:
    scope = run("4_training_that_generalises", 7)
    assert scope["by_heart"] == 1
    assert scope["elsewhere"] < 0.15
    assert set(np.bincount(scope["true_labels"])) <= {29, 30, 31}
    wrong, history, best = scope["wrong"], scope["history"], scope["best"]
    assert 0.1 < np.mean(wrong) < 0.15

    train, validation = np.array(history.train_loss), np.array(history.val_loss)
    assert 10 < best < 50
    assert validation[-1] > 1.3 * validation[best]  # it has turned
    assert train[-1] < 0.2 * train[best]  # and this one goes on falling
    names = ("loss", "accuracy", "wrong labels known")
    at_the_end, stopped, augmented = (
        dict(zip(names, scope[f"of_{way}"], strict=True))
        for way in ("plain", "stopped", "augmented")
    )
    assert at_the_end["wrong labels known"] > 0.9
    stopping = scope["stopping"]
    assert stopping.best_epoch == best + 1
    assert len(scope["stopped_history"].epochs) == best + 1 + stopping.patience
    assert best + 1 + stopping.patience < scope["EPOCHS"] / 2
    assert stopped["loss"] == pytest.approx(validation[best], rel=1e-5)
    assert stopped["accuracy"] > at_the_end["accuracy"] + 0.03
    assert stopped["wrong labels known"] < 0.4

    sizes, seen, fresh = np.array(list(scope["by_decay"].values())).T
    assert (np.diff(sizes) < 0).all()
    assert (np.diff(seen) > 0).all()
    assert 0 < fresh.argmin() < len(fresh) - 1
    assert fresh[-1] > fresh[0]
    assert scope["many"].mean() == pytest.approx(1, abs=0.005)
    by_dropout = np.array(list(scope["by_dropout"].values()))
    assert 0 < by_dropout.argmin() < len(by_dropout) - 1
    assert by_dropout[-1] > by_dropout[0]
    edges = scope["edges"]
    ink = {name: pixels.mean() for name, pixels in edges.items()}
    assert max(ink["left"], ink["right"]) < 0.1 * min(ink["upper"], ink["lower"])
    assert 0.1 < augmented["wrong labels known"] < 0.9 * at_the_end["wrong labels known"]
    assert augmented["loss"] < 0.9 * at_the_end["loss"]
    assert scope["wobble"]["cosine"] < 0.2 * scope["wobble"]["constant"]

    losses, known = scope["losses"], scope["known"]
    means = {name: values.mean() for name, values in losses.items()}
    assert means["far too much"] > means["nothing"]
    for name in set(means) - {"nothing", "far too much"}:
        assert losses[name].max() < 0.85 * losses["nothing"].min(), name
        assert known[name] < known["nothing"]
    others = set(means) - {"several together"}
    assert all(means["several together"] < 0.95 * means[name] for name in others)
    assert scope["chosen"] == "several together"

    nothing, better = scope["results"].values()
    assert all(a < b for a, b in zip(better.val_loss, nothing.val_loss, strict=True))
    assert scope["gain"] > max(nothing.std["val_accuracy"], better.std["val_accuracy"])
    assert scope["score"] > 0.91
    assert scope["confusion"].trace() == round(scope["score"] * 360)
    accuracy, x_test, y_test = (scope[name] for name in ("accuracy", "x_test", "y_test"))
    assert scope["score"] > accuracy(scope["plain"], x_test, y_test) + 0.05
    assert scope["scores"].mean() == pytest.approx(0.1, abs=0.005)
    assert scope["scores"].max() > 0.13
    assert scope["again"] < 0.13


def test_formula_to_kernel(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scope = run("5_formula_to_kernel", 3)
    # A load and a store of 1000 floats: 125 threads, each in a sector of its own, 8 times; or side
    # by side.
    assert scope["copies"] == {"a piece each": (2000, 256), "side by side": (250, 250)}
    # Of each of 4 blocks: 8 warps store, one thread loads at the end, and in between 4, 2 and six
    # times 1 warp load twice and store once, queues of 2, 4, 8, 8, 8, 4, 2 and 1 where it is pairs.
    least = 4 * (8 + 1 + 3 * (4 + 2 + 6))
    queued = 4 * (8 + 1 + 3 * (4 * 2 + 2 * 4 + 8 + 8 + 8 + 4 + 2 + 1))
    assert scope["totals"] == {"pairs": (queued, least), "halves": (least, least)}
    assert scope["checked"]
    assert scope["network_checked"]
    truth = pytest.approx(scope["truth"], rel=1e-6)
    hasty = scope["hasty_results"]
    assert np.isnan([hasty["forward"], hasty["random:7"]]).all()
    assert hasty["reverse"] == truth
    assert scope["seen_hasty"].races
    assert all(value == truth for value in scope["pairs_results"].values())
    assert not scope["seen_pairs"].races
    assert scope["halves_result"] == truth
    assert not scope["seen_halves"].races
    assert [each.count for each in scope["seen_careless"].out_of_bounds] == [24, 24]
    text = capsys.readouterr().out
    assert "thread (232,0,0) of block (3,0,0), careless.cu:4" in text
    assert scope["losses"][0] > 0.5 > 0.05 > scope["losses"][-1]
    np.testing.assert_array_equal(scope["answers"], scope["xor"])
    if shutil.which("nvcc") is None:
        return
    for number, source in enumerate((scope["SOURCE"], scope["sum_source"](scope["HALVES"]))):
        (tmp_path / f"{number}.cu").write_text(source)
        command = ["nvcc", "-arch=sm_80", "-ptx", f"{number}.cu"]
        subprocess.run(command, cwd=tmp_path, check=True)
        code = (tmp_path / f"{number}.ptx").read_text()
        assert "ld.global.f32" in code
        assert "st.global.f32" in code
