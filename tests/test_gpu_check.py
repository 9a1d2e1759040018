# SPDX-License-Identifier: MIT
"""`make gpu-check`: its steps, their limits, what it stores; no GPU is needed."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpu_check_runs import module, program

HEAD = {
    "date": "2026-01-02",
    "commit": "abc",
    "machine": {"gpu": {"name": "NVIDIA H200"}, "nvcc": "13.0", "cpu": "c", "cores": 2,
                "python": "3.11"},
    "left_out": [],
}  # fmt: skip


def a_job(tmp_path: Path, built: bool = True) -> Any:
    machine = module("gpu_machine").Machine(gpu={"name": "NVIDIA H200", "compute_cap": "9.0"})
    work = tmp_path / "work"
    packages = work / "venv" / "lib" / "python3.12" / "site-packages" / "tilegrad"
    packages.mkdir(parents=True)
    if built:
        (packages / "_cuda.so").touch()
    return module("gpu_steps").Job(machine, work, tmp_path / "golden")


def run_steps(tmp_path: Path, steps: dict[str, Any], **changes: Any) -> tuple[int, Any]:
    job = changes.pop("job", None) or a_job(tmp_path)
    results = module("gpu_results").Results(tmp_path / "out", "h200-2026-01-02", dict(HEAD))
    status = module("gpu_check").check(
        job,
        results,
        list(steps),
        changes.pop("deadline", float("inf")),
        steps,
        changes.pop("limits", dict.fromkeys(steps, 1.0)),
    )
    return status, results


def stored(results: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(results.json.read_text())
    return found


def test_a_failure_keeps_no_other_step_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[list[str]] = []
    path = tmp_path / "out" / "h200-2026-01-02.json"

    def passes(job: Any) -> dict[str, Any]:
        seen.append(list(json.loads(path.read_text())["steps"]) if path.exists() else [])
        return {"status": "passed", "summary": "fine"}

    def fails(job: Any) -> dict[str, Any]:
        return {"status": "failed", "summary": "one is wrong", "failures": ["a::b: no"]}

    def breaks(job: Any) -> dict[str, Any]:
        raise KeyError("oh")

    steps = {"build": fails, "tests": breaks, "conformance": passes, "bench": passes}
    status, results = run_steps(tmp_path, steps)
    assert status == 1
    # what was found before is in the file while the next step runs
    assert seen == [["build", "tests"], ["build", "tests", "conformance"]]
    found = stored(results)
    assert [step["status"] for step in found["steps"].values()] == [
        "failed", "failed", "passed", "passed",
    ]  # fmt: skip
    assert found["steps"]["tests"]["summary"] == "KeyError: 'oh'"
    assert "did not pass: build, tests" in capsys.readouterr().out
    text = results.text.read_text()
    assert "| build | failed | 0.0 | one is wrong |" in text
    assert "- a::b: no" in text


def test_all_passed_is_status_zero(tmp_path: Path) -> None:
    status, results = run_steps(tmp_path, {"build": lambda job: {"status": "passed"}})
    assert status == 0
    assert not list(results.json.parent.glob("*.new"))


def test_steps_of_one_day_and_commit_add_up(tmp_path: Path) -> None:
    def passes(job: Any) -> dict[str, Any]:
        return {"status": "passed"}

    run_steps(tmp_path, {"build": passes})
    results = module("gpu_results").Results(tmp_path / "out", "h200-2026-01-02", dict(HEAD))
    results.add("bench", {"status": "failed"})
    assert list(stored(results)["steps"]) == ["build", "bench"]
    other = module("gpu_results").Results(
        tmp_path / "out", "h200-2026-01-02", {**HEAD, "commit": "def"}
    )
    other.save()
    assert stored(other)["steps"] == {}


def test_steps_without_a_build_or_time_are_not_run(tmp_path: Path) -> None:
    never = dict.fromkeys(("tests", "sanitizer", "bench"), pytest.fail)
    status, results = run_steps(tmp_path, never, job=a_job(tmp_path, built=False))
    assert status == 1
    for step in stored(results)["steps"].values():
        assert step["status"] == "not run"
        assert step["summary"].startswith("there is no build")
    status, results = run_steps(
        tmp_path, {"conformance": pytest.fail}, deadline=time.monotonic() - 1,
        job=SimpleNamespace(left=lambda: -1.0, deadline=0.0),
    )  # fmt: skip
    assert stored(results)["steps"]["conformance"]["summary"] == "no time was left"


def test_a_command_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    steps = module("gpu_steps")
    child = tmp_path / "child"
    text = (
        "import subprocess, sys, time; print('begun', flush=True);"
        f"p = subprocess.Popen(['sleep', '300']); open({str(child)!r}, 'w').write(str(p.pid));"
        "time.sleep(300)"
    )
    done = steps.run([sys.executable, "-c", text], tmp_path / "log", 1.5)
    assert done.status is None
    assert 1.4 < done.seconds < 20
    assert done.output.startswith("begun")
    record = done.record()
    assert record["status"] == "timed out"
    assert "begun" in record["output"]
    pid = int(child.read_text())
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody waits for an orphan in some containers


def test_a_step_has_its_own_limit_and_that_of_the_whole(tmp_path: Path) -> None:
    given: list[float] = []

    def look(job: Any) -> dict[str, Any]:
        given.append(job.left())
        return {"status": "passed"}

    limits = {"conformance": 2.0, "build": 0.1}
    run_steps(tmp_path, {"conformance": look, "build": look}, limits=limits,
              deadline=time.monotonic() + 60)  # fmt: skip
    assert 55 < given[0] <= 60
    assert 5 < given[1] <= 6


def test_output_of_a_failed_command_is_stored(tmp_path: Path) -> None:
    code = "print('\\n'.join(map(str, range(100)))); raise SystemExit(3)"
    done = module("gpu_steps").run([sys.executable, "-c", code], tmp_path / "log", 60)
    record = done.record(summary="no")
    assert (record["status"], record["exit_status"], record["summary"]) == ("failed", 3, "no")
    assert record["output"][-1] == "99"
    assert len(record["output"]) == 40


def test_environment_sees_the_packages_of_this_one(tmp_path: Path) -> None:
    steps = module("gpu_steps")
    folder = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", folder],
        check=True, timeout=100,
    )  # fmt: skip
    python = folder / "bin" / "python"
    steps._see_parent(python)
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = "import numpy, pytest; print(numpy.__version__)"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, timeout=100, env=environ
    )
    assert done.stdout.strip() == np.__version__, done.stderr


def test_conformance_is_recorded_by_a_program_of_this_build(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    job.deadline = time.monotonic() + 60
    job.machine.nvcc = str(tmp_path / "nvcc")
    # stands in for nvcc: its last argument is the program, which writes what it is told to
    text = '''while [ $# -gt 1 ]; do shift; done
printf '#!/bin/sh\\n[ "$1" = record ] && echo {} > "$2/mma.json"\\n' > "$1"
chmod +x "$1"'''
    program(tmp_path, "nvcc", text)
    record = module("gpu_steps").conformance(job)
    assert (record["status"], record["files"]) == ("passed", 1), record
    assert [path.name for path in job.golden.iterdir()] == ["mma.json"]
    program(tmp_path, "nvcc", "exit 1")
    record = module("gpu_steps").conformance(job)
    assert (record["status"], record["summary"]) == ("failed", "it could not be compiled")


def test_report_of_pytest_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="t" name="a"/>'
        '<testcase classname="t" name="b"><failure message="bad&#10;more">x</failure></testcase>'
        '<testcase classname="t" name="c"><skipped/></testcase>'
        '<testcase classname="t" name="d"><error/></testcase></testsuite></testsuites>'
    )
    found = module("gpu_steps").counts(report)
    assert found == {
        "tests": 4, "failed": 2, "skipped": 1, "failures": ["t::b: bad", "t::d: error"],
    }  # fmt: skip
    report.write_text("<testsuites><testcase")
    assert module("gpu_steps").counts(report) == {}


@pytest.mark.parametrize("name", ["gpu_machine", "gpu_steps", "gpu_wheels"])
def test_examples_of_the_modules_are_right(name: str) -> None:
    failed, attempted = doctest.testmod(module(name))
    assert failed == 0
    assert attempted > 0


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [(75, "75-real;80-real;90a-real"), (80, "80-real;90a-real"), (90, "80-real;90a-real"),
     (120, "80-real;90a-real;120-real")],
)  # fmt: skip
def test_build_has_code_for_the_device(capability: int, wanted: str) -> None:
    assert module("gpu_steps").architectures(capability) == wanted


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("x\n========= ERROR SUMMARY: 2 errors\nbye", "ERROR SUMMARY: 2 errors"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed", "RACECHECK SUMMARY: 0 hazards"),
        ("========= Error: Device not supported\n", "Error: Device not supported"),
        ("", "no output"),
    ],
)
def test_verdict_of_the_sanitizer(output: str, wanted: str) -> None:
    assert module("gpu_steps").verdict(output).startswith(wanted)


def test_sanitizer_step_names_the_tool_that_found_something(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    job.deadline = time.monotonic() + 60
    program(tmp_path, "watch", '[ "$2" = racecheck ] || exit 0\necho "= ERROR SUMMARY: 1"\nexit 9')
    job.machine.sanitizer = str(tmp_path / "watch")
    record = module("gpu_steps").sanitizer(job)
    assert record["status"] == "failed"
    assert record["failures"] == ["racecheck: ERROR SUMMARY: 1"]
    assert record["tools"]["memcheck"]["status"] == "passed"
    assert set(record["tools"]) == {"memcheck", "racecheck", "initcheck", "synccheck"}


def test_sanitized_calls_are_right_on_the_simulator() -> None:
    assert (
        module("gpu_sanitize").main(["--device", "sim", "linear", "elementwise", "training"]) == 0
    )


def test_benchmarks_of_several_runs_add_up() -> None:
    def figures(name: str, median: float) -> dict[str, Any]:
        return {"family": "f", "name": name, "seconds": median}

    late, no = "the time was up", "not here"
    before = {"cases": [figures("a", 1), figures("b", 1)], "failed": [{"case": "f/c", "why": "x"}],
              "left_out": [{"case": "f/d", "why": late}, {"case": "f/e", "why": no}]}  # fmt: skip
    after = {"cases": [figures("b", 2), figures("c", 2), figures("d", 2)], "failed": [],
             "left_out": [{"case": "f/a", "why": late}, {"case": "f/e", "why": no}]}  # fmt: skip
    both = module("gpu_results").merged(before, after)
    assert {one["name"]: one["seconds"] for one in both["cases"]} == {
        "a": 1,
        "b": 2,
        "c": 2,
        "d": 2,
    }
    assert both["failed"] == []
    assert both["left_out"] == [{"case": "f/e", "why": no}]


def test_parts_of_the_tests_are_all_of_them_and_add_up(tmp_path: Path) -> None:
    steps = module("gpu_steps")
    parts = [steps.files_to_test(sys.executable, (k, 3)) for k in (1, 2, 3)]
    everything = sorted(steps.files_to_test(sys.executable))
    assert str(Path(__file__)) in everything
    assert sorted(name for part in parts for name in part) == everything
    results = module("gpu_results").Results(tmp_path, "x", dict(HEAD))

    def ran(part: str, failed: int) -> dict[str, Any]:
        status = "failed" if failed else "passed"
        return {"status": status, "part": part, "tests": 10, "failed": failed, "skipped": 1,
                "failures": ["a::b: no"] * failed}  # fmt: skip

    results.add("tests", ran("1/2", 1))
    assert stored(results)["steps"]["tests"]["status"] == "failed"
    results.add("tests", ran("1/2", 0))  # again, in place of the first time
    found = stored(results)["steps"]["tests"]
    assert (found["status"], found["tests"]) == ("not run", 10)
    assert found["summary"].endswith("; 1 of 2 parts not run yet")
    results.add("tests", ran("2/2", 0))
    found = stored(results)["steps"]["tests"]
    assert (found["status"], found["tests"], found["failures"]) == ("passed", 20, [])
    assert found["summary"] == "20 tests, 0 failed, 2 skipped"


def test_a_later_call_goes_on_from_the_results_of_the_one_before(tmp_path: Path) -> None:
    def passes(job: Any) -> dict[str, Any]:
        return {"status": "passed"}

    _, first = run_steps(tmp_path / "a", {"build": passes})
    kind = module("gpu_results").Results
    results = kind(tmp_path / "b", "h200", dict(HEAD), first.json)
    results.add("bench", {"status": "passed"})
    assert list(stored(results)["steps"]) == ["build", "bench"]
    assert kind(tmp_path / "c", "h200", {**HEAD, "commit": "def"}, first.json).data["steps"] == {}
    job = a_job(tmp_path / "d")
    job.deadline, job.goals, job.before = time.monotonic() + 60, True, first.json
    python = Path(job.python)
    python.parent.mkdir(parents=True)
    program(python.parent, "python", f'echo "$@" > {tmp_path}/asked')
    module("gpu_steps").bench(job)
    asked = (tmp_path / "asked").read_text()
    assert f"--filter= --goals --skip {first.json}" in asked


def test_parts_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    parser = module("gpu_check").parser()
    assert parser.parse_args(["--part", "2/3"]).part == (2, 3)
    for text in ("0/3", "4/3", "2", "a/b"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--part", text])
    assert "must be K/N with 1 <= K <= N; got a/b" in capsys.readouterr().err


def test_wheels_are_collected_for_the_other_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = module("gpu_wheels")
    asked: list[list[str]] = []

    def pip(command: list[str]) -> Any:
        asked.append(command)
        names = {"pybind11", "tomli"} & {word.split(">")[0] for word in command}
        for name in names - ({"tomli"} if never_found else set()):
            make_wheel(name, "tomli>=1; python_version < '3.11'", "numpy", "nose; extra == 'x'")
        return SimpleNamespace(returncode=0)

    def make_wheel(name: str, *requirements: str) -> None:
        with zipfile.ZipFile(tmp_path / "new" / f"{name}-3.0-py3-none-any.whl", "w") as wheel:
            lines = "".join(f"Requires-Dist: {one}\n" for one in requirements)
            wheel.writestr(f"{name}-3.0.dist-info/METADATA", f"Name: {name}\n{lines}\nRead me")
            wheel.writestr("data", bytes(2_000_000))

    never_found = False
    monkeypatch.setattr(wheels.subprocess, "run", pip)
    assert wheels.main([str(tmp_path / "new"), "--python", "3.13"]) == 0
    (command,) = asked
    assert command[1:4] == ["-m", "pip", "download"]
    assert command[command.index("--python-version") + 1] == "3.13"
    assert {"pybind11", "scikit-build-core", "ninja", "pytest", "hypothesis", "expecttest",
            "pytest-xdist"} <= set(command)  # fmt: skip
    assert not {"cmake", "numpy", "torch"} & set(command)
    assert "1 wheels, 2.0 MB, for Python 3.13" in capsys.readouterr().out
    wheels.main([str(tmp_path / "new"), "--cmake"])
    assert "cmake" in asked[1]
    # what the other Python needs, whichever this one is
    asked.clear()
    assert wheels.main([str(tmp_path / "new"), "--python", "3.10"]) == 0
    assert [command[-1] for command in asked[1:]] == ["tomli>=1"]
    assert "2 wheels, 4.0 MB, for Python 3.10" in capsys.readouterr().out
    (tmp_path / "new" / "tomli-3.0-py3-none-any.whl").unlink()
    never_found = True
    assert wheels.main([str(tmp_path / "new"), "--python", "3.10"]) == 1
    assert "no wheel of tomli>=1 for Python 3.10" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        wheels.main([str(tmp_path), "--python", "2.7"])
