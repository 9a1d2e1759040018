# SPDX-License-Identifier: MIT
"""The command: info, bench, gradcheck, help, and what is said of wrong arguments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import tilegrad as tg
from cli_runs import assert_one_line, digits, python
from tilegrad import backends, cli
from tilegrad._cli_gradcheck import check, known_ops
from tilegrad.cli import main

# ---- info, bench ----------------------------------------------------------------------------


def test_info_tells_what_is_there(capsys):
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    info = backends.info()
    assert f"tilegrad {info['version']}" in text
    assert re.search(rf"instruction set +{info['isa']};", text)
    for name, reason in info["backends"].items():
        line = next(line for line in text.splitlines() if line.startswith(f"backend {name}"))
        assert line.endswith("available" if reason is None else reason)


def test_info_json_is_info_and_extras():
    run = python("info", "--json")
    out, error = run.communicate(timeout=60)
    assert (run.returncode, error) == (0, "")
    info = json.loads(out)
    extras = info.pop("extras")
    assert set(extras) == {"bf16", "io", "onnx", "plot", "progress", "torch", "trace"}
    assert {"version", "isa", "supported_isas", "num_threads", "backends"} == set(info)


def test_info_names_the_way_to_a_missing_extra(capsys, monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert main(["info"]) == 0
    assert 'matplotlib missing; pip install "tilegrad[plot]"' in capsys.readouterr().out


def test_bench_gets_its_arguments_and_gives_its_code(monkeypatch):
    seen = []
    module = types.ModuleType("tilegrad.bench.__main__")
    module.main = lambda argv: seen.append(argv) or 3
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["bench", "matmul", "--json", "x.json", "--help"]) == 3
    assert seen == [["matmul", "--json", "x.json", "--help"]]


def test_bench_has_help_of_its_own(capsys):
    assert main(["bench", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: tilegrad bench")


def test_bench_that_is_missing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib, "import_module", _no_module)
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "tilegrad bench: this build comes without the benchmarks\n"


def _no_module(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


# ---- gradcheck ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradcheck_passes_for_every_op(dtype, capsys):
    assert main(["gradcheck", "all", "--dtype", dtype]) == 0
    text = capsys.readouterr().out
    for name in known_ops():
        assert f"{name} ({dtype}): passed" in text
    assert {"matmul", "linear", "cross_entropy", "dropout", "softmax", "gelu"} <= set(known_ops())


def test_gradcheck_names_the_worst_element_and_fails(monkeypatch, capsys):
    right = tg.ops.tanh_backward

    def wrong(grad_output, *args, **options):
        gradient = right(grad_output, *args, **options)
        gradient[2, 3] += 0.5
        return gradient

    monkeypatch.setattr(sys.modules[tg.tanh.__module__], "tanh_backward", wrong)
    assert not check("tanh", "float64", seed=0)
    assert main(["gradcheck", "tanh"]) == 1
    text = capsys.readouterr().out
    assert "tanh (float64): failed; 1 of 20 elements differ" in text
    assert "worst of input[2, 3]" in text


def test_gradcheck_of_an_unknown_op_lists_the_known(capsys):
    assert main(["gradcheck", "matmull"]) == 2
    error = capsys.readouterr().err
    assert "unknown op 'matmull'" in error
    assert all(name in error for name in known_ops())


# ---- errors and help ------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert digits(file) == 1
    assert_one_line(capsys, "train", str(file))
    assert digits(tmp_path / "run", "--json", str(tmp_path / "no" / "x.json")) == 1
    assert_one_line(capsys, "train", "--json: must be a file in a folder that is there")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("", "COMMAND"),
        ("trian", "trian"),
        ("train --epochs 0", "--epochs: must be a whole number of at least 1; got '0'"),
        ("train --epochs 1.5", "--epochs"),
        ("train --lr nan", "--lr: must be a number of at least 0; got 'nan'"),
        ("train --lr -1", "--lr"),
        ("train --dropout 1", "--dropout: must be a number of at least 0 and below 1; got '1'"),
        ("train --label-smoothing 1.1", "--label-smoothing"),
        ("train --validation 1", "--validation"),
        ("train --hidden 64,,32", "--hidden: must be whole numbers of at least 1"),
        ("train --hidden 0", "--hidden"),
        ("train --activation prelu", "--activation"),
        ("train --optimizer lion", "--optimizer"),
        ("train --seed -1", "--seed"),
        ("train --threads 0", "--threads"),
        ("train --nonsense", "--nonsense"),
        ("info extra", "extra"),
        ("gradcheck", "OP"),
        ("gradcheck tanh --dtype int8", "--dtype"),
    ],
)
def test_bad_arguments_have_code_2(arguments, part, capsys):
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: ")
    assert part in error


def test_momentum_is_refused_where_it_would_do_nothing(tmp_path, capsys):
    assert digits(tmp_path / "run", "--momentum", "0.5") == 1
    assert_one_line(
        capsys, "train", "--momentum: is an option of --optimizer sgd and rmsprop; got adam"
    )


@pytest.mark.parametrize("command", ["info", "train", "gradcheck"])
def test_help_explains_every_option_with_its_default(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    parser = cli._parser()._subparsers._group_actions[0].choices[command]
    options = [action for action in parser._actions if action.option_strings]
    assert len(options) >= 2
    for action in options:
        if action.dest != "help":
            assert action.option_strings[0] in text
            assert re.search(r"[a-z].* \(default: .+\)$", action.help), action.dest


def test_the_whole_command_has_help_and_version(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("info", "train", "bench", "gradcheck"))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{backends.info()['version']}\n"


@pytest.mark.parametrize("command", ["gradcheck all", "info", "bench --list"])
def test_a_reader_that_leaves_is_no_error_message(command):
    with python(*command.split()) as run:
        run.stdout.close()
        error = run.stderr.read()
        assert (run.wait(timeout=60), error) == (128 + 13, "")  # as what SIGPIPE has ended


@pytest.mark.parametrize("command", ["info", "train", "bench --list", "--help", "trace matmul"])
@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("TILEGRAD_CPU", "avx1024", "must be generic, avx2, avx512 or amx; got 'avx1024' (this "),
        ("TILEGRAD_NUM_THREADS", "two", "must be a whole number in [1, 1024]; got 'two'"),
    ],
)
def test_a_wrong_variable_is_one_line_in_the_command(command, variable, value, rule, monkeypatch):
    monkeypatch.setenv(variable, value)
    out, error = (run := python(*command.split())).communicate(timeout=60)
    assert (run.returncode, out) == (2, "")
    assert error.startswith(f"tilegrad: {variable}: {rule}")
    assert error.count("\n") == 1
    if variable == "TILEGRAD_CPU":
        assert f"supports {', '.join(backends.info()['supported_isas'])})" in error


def test_a_wrong_variable_is_an_exception_in_python(monkeypatch, tmp_path):
    monkeypatch.setenv("TILEGRAD_CPU", "avx1024")
    script = tmp_path / "train.py"
    script.write_text("import tilegrad")
    folder = str(Path(tg.__file__).parents[1])
    for arguments in (["-c", "import tilegrad"], [str(script), "-m", "tilegrad"]):
        run = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYTHONPATH": folder},
        )  # fmt: skip
        assert run.returncode == 1
        assert "ImportError: TILEGRAD_CPU: must be generic, avx2, avx512 or amx" in run.stderr
    script.rename(tmp_path / "tilegrad")  # as the installed command is called
    run = subprocess.run(
        [sys.executable, str(tmp_path / "tilegrad")], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": folder},
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr.startswith("tilegrad: TILEGRAD_CPU: ")
