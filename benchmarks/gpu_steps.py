# SPDX-License-Identifier: MIT
"""The steps of `make gpu-check`: what each runs, how long it may take, what it found.

Each step is a function of a `Job` that returns a plain record; whatever it raises is a failure of
that step alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_machine import Machine, output_of, wheel_of
from gpu_results import FAILED, LATE, PASSED

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# Minutes that a step may take; the whole may be cut shorter by --minutes.
LIMITS = {"build": 25.0, "tests": 30.0, "conformance": 5.0, "sanitizer": 20.0, "bench": 40.0}
_TAIL = 40  # lines of a failed command's output that are stored
_MOST_FAILURES = 40
_PROCESSES = 8  # that share the GPU in the tests
_FOUND = 9  # exit status of compute-sanitizer that found something

Record = dict[str, Any]


@dataclass
class Job:
    """What the steps share.

    Args:
        machine: What was found.
        folder: Where environment, wheel and logs lie.
        golden: Where the files of the step conformance go.
        wheels: Folder of wheels, or None.
        deadline: When the step at work has to be done, in the seconds of time.monotonic.
        quick: Whether the benchmarks are a selection.
        only: What the names of the benchmarks contain.
        goals: Whether only those are run that a goal asks for.
        part: Which part of the tests, of how many.
        before: Results whose benchmarks are not run again, or None.
        environ: Set for every command.
    """

    machine: Machine
    folder: Path
    golden: Path
    wheels: Path | None = None
    deadline: float = float("inf")
    quick: bool = False
    only: str = ""
    goals: bool = False
    part: tuple[int, int] = (1, 1)
    before: Path | None = None
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> str:
        """The interpreter that has the build."""
        return str(self.folder / "venv" / "bin" / "python")

    def built(self) -> bool:
        """Tell whether the environment has a build with the CUDA kernels."""
        return any(self.folder.glob("venv/lib/python*/site-packages/tilegrad/_cuda.*"))

    def left(self) -> float:
        """Return the seconds that are left to the step."""
        return self.deadline - time.monotonic()

    def run(self, name: str, command: Sequence[str], share: float = 1.0) -> Done:
        """Run a command with its output in a log, for a share of what is left at most."""
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return run(command, log, max(self.left(), 0) * share, environ | self.environ)


@dataclass
class Done:
    """How a command ended.

    Args:
        status: The exit status; None if it was stopped because its time was up.
        seconds: It took.
        output: All that it wrote.
    """

    status: int | None
    seconds: float
    output: str

    def record(self, **more: Any) -> Record:
        """Return the record of a step that is this command."""
        status = LATE if self.status is None else PASSED if self.status == 0 else FAILED
        result: Record = {"status": status, **more}
        if status != PASSED:
            result.setdefault("exit_status", self.status)
            result["output"] = self.output.splitlines()[-_TAIL:]
        return result


def run(
    command: Sequence[str], log: Path, seconds: float, environ: dict[str, str] | None = None
) -> Done:
    """Run a command in the root of the tree; after so many seconds end it and what it started."""
    start = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        status: int | None = None
        try:
            status = process.wait(min(seconds, 1e6))
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.returncode is None:
                _end(process)
    return Done(status, time.monotonic() - start, log.read_text(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group, which is its own; it may say goodbye first."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(5)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
        break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
    process.wait()


def architectures(capability: int) -> str:
    """Return the list to build for: the device's own and those of the results elsewhere.

    >>> architectures(90), architectures(89)
    ('80-real;90a-real', '80-real;89-real;90a-real')
    """
    wanted = {80: "80-real", 90: "90a-real"}
    wanted.setdefault(capability, f"{capability}-real")
    return ";".join(wanted[key] for key in sorted(wanted))


def build(job: Job) -> Record:
    """Make an environment that sees this Python's packages; build the wheel; install it there."""
    venv = job.folder / "venv"
    done = job.run(
        "venv",
        [sys.executable, "-m", "venv", "--clear", "--without-pip", "--system-site-packages", venv],
    )
    if done.status != 0:
        return done.record(summary="the environment could not be made")
    _see_parent(Path(job.python))
    if job.machine.wheels:
        named = [wheel_of(name, job.wheels) for name in job.machine.wheels]
        done = job.run("wheels", _pip(job, "install", "--find-links", str(job.wheels),
                                      *(str(path) for path in named)))  # fmt: skip
        if done.status != 0:
            return done.record(summary="a package of WHEELS could not be installed")
    built = job.folder / "wheel"
    for old in built.glob("*.whl"):
        old.unlink()
    wanted = architectures(job.machine.capability)
    job.environ["CUDACXX"] = job.machine.nvcc
    settings = {
        "cmake.define.TILEGRAD_CUDA": "ON",
        "cmake.define.TILEGRAD_CUDA_ARCHITECTURES": wanted,
        "build-dir": str(job.folder / "cmake"),
    }
    start = time.monotonic()
    done = job.run("build", _pip(
        job, "wheel", "-v", "--no-build-isolation", "--no-deps", "--wheel-dir", str(built),
        *(f"--config-settings={key}={value}" for key, value in settings.items()), ".",
    ))  # fmt: skip
    seconds = time.monotonic() - start
    wheels = list(built.glob("*.whl"))
    if done.status != 0 or not wheels:
        return done.record(architectures=wanted, summary="the wheel could not be built")
    done = job.run("install", _pip(job, "install", "--force-reinstall", "--no-deps",
                                   str(wheels[0])))  # fmt: skip
    if done.status != 0:
        return done.record(summary="the wheel could not be installed")
    size = wheels[0].stat().st_size
    facts = {"architectures": wanted, "wheel_bytes": size, "build_seconds": round(seconds, 1)}
    seen, text = _device_seen(job)
    status = PASSED if seen else FAILED
    return {"status": status, "summary": f"{size / 1e6:.1f} MB for {wanted}; {text}", **facts}


def _pip(job: Job, verb: str, *arguments: str) -> list[str]:
    return [job.python, "-m", "pip", verb, "--no-index", "--disable-pip-version-check", *arguments]


def _see_parent(python: Path) -> None:
    """Let the environment see the packages of this Python where that is an environment itself.

    --system-site-packages leads to the packages of the system, past those of an environment.
    """
    if sys.prefix == sys.base_prefix:
        return
    status, folder = output_of(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    )
    if status != 0:
        raise RuntimeError(f"the new environment's Python does not run: {folder}")
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(folder) / "parent.pth").write_text("\n".join(paths) + "\n")


def _device_seen(job: Job) -> tuple[bool, str]:
    code = (
        "import tilegrad as tg; reason = tg.info()['backends']['cuda'];"
        "print(reason or tg.cuda.device_count()); raise SystemExit(reason is not None)"
    )
    status, text = output_of([job.python, "-c", code], 120)
    last = text.splitlines()[-1] if text else "no answer"
    return status == 0, f"{last} CUDA devices" if status == 0 else f"cuda cannot be used: {last}"


def tests(job: Job) -> Record:
    """Run the suite on cuda, from the installed wheel."""
    report = job.folder / "tests.xml"
    report.unlink(missing_ok=True)
    files = files_to_test(job.python, job.part)
    done = job.run("tests", [
        job.python, "-m", "pytest", "--devices", "cuda", "--tb=short", f"--junitxml={report}",
        *at_once(job.python), *files,
    ])  # fmt: skip
    record = done.record(**counts(report))
    if job.part != (1, 1):
        record["part"] = "{}/{}".format(*job.part)
    if "tests" not in record:  # stopped, or it never began: what the output says last
        lines = done.output.strip().splitlines()
        return record | {"summary": lines[-1] if lines else "no output"}
    text = "{tests} tests, {failed} failed, {skipped} skipped".format(**record)
    missing = len(list((ROOT / "tests").glob("test_*.py"))) - len(files_to_test(job.python))
    if missing:
        text += f"; {missing} files left out, whose imports are not installed"
    return record | {"summary": text}


def files_to_test(python: str, part: tuple[int, int] = (1, 1)) -> list[str]:
    """Return the files to test: those whose imports are installed, or a part of them."""
    status, text = output_of([python, str(ROOT / "tests" / "runnable.py")])
    if status != 0:
        raise RuntimeError(f"tests/runnable.py: {text}")
    return text.splitlines()[part[0] - 1 :: part[1]]


def at_once(python: str) -> list[str]:
    """Return the options for several processes, each with files of its own, if pytest has them."""
    if output_of([python, "-c", "import xdist"])[0] != 0:
        return []
    processes = str(min(os.cpu_count() or 1, _PROCESSES))
    return ["-n", processes, "--dist", "loadfile", "--max-worker-restart", "0"]


def counts(report: Path) -> Record:
    """Return what pytest's report counts and the names of what failed; {} without a report."""
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return {}
    failures = []
    for case in cases:
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                word = (found.get("message") or "").splitlines()
                where = f"{case.get('classname')}::{case.get('name')}"
                failures.append(f"{where}: {word[0][:200] if word else kind}")
    return {
        "tests": len(cases),
        "failed": len(failures),
        "skipped": sum(case.find("skipped") is not None for case in cases),
        "failures": failures[:_MOST_FAILURES],
    }


def conformance(job: Job) -> Record:
    """Record what each instruction does on this device, for the simulator to be compared with."""
    program, sources = job.folder / "conformance", ("conformance.cu", "device.cu")
    number = {90: "90a"}.get(job.machine.capability, str(job.machine.capability))
    done = job.run("conformance-build", [
        job.machine.nvcc, "-std=c++20", "-O2", "--expt-relaxed-constexpr",
        "-DTILEGRAD_BACKEND=cuda", "-DTILEGRAD_HALF=1",
        "-gencode", f"arch=compute_{number},code=sm_{number}",
        *(str(ROOT / "csrc" / "cuda" / source) for source in sources), "-o", str(program),
    ])  # fmt: skip
    if done.status != 0:
        return done.record(summary="it could not be compiled")
    job.golden.mkdir(parents=True, exist_ok=True)
    done = job.run("conformance", [str(program), "record", str(job.golden)])
    files = len(list(job.golden.glob("*.json")))
    record = done.record(summary=f"{files} files in {job.golden}", files=files)
    if record["status"] == PASSED and files == 0:
        record |= {"status": FAILED, "summary": "nothing was recorded"}
    return record


def sanitizer(job: Job) -> Record:
    """Watch a chosen set of calls with each tool of compute-sanitizer."""
    found: dict[str, Record] = {}
    for i, tool in enumerate(TOOLS):
        done = job.run(tool, [
            job.machine.sanitizer, "--tool", tool, "--error-exitcode", str(_FOUND),
            job.python, str(ROOT / "benchmarks" / "gpu_sanitize.py"),
        ], 1 / (len(TOOLS) - i))  # fmt: skip
        found[tool] = done.record(seconds=round(done.seconds, 1), summary=verdict(done.output))
    bad = [tool for tool, record in found.items() if record["status"] != PASSED]
    late = all(found[tool]["status"] == LATE for tool in bad)
    return {
        "status": PASSED if not bad else LATE if late else FAILED,
        "summary": f"{len(TOOLS) - len(bad)} of {len(TOOLS)} tools found nothing",
        "tools": found,
        "failures": [f"{tool}: {found[tool]['summary']}" for tool in bad],
    }


def verdict(output: str) -> str:
    """Return what compute-sanitizer says last: its summary, or why it could not watch.

    >>> verdict("========= COMPUTE-SANITIZER\\n========= ERROR SUMMARY: 0 errors")
    'ERROR SUMMARY: 0 errors'
    """
    lines = [line.lstrip("= ").strip() for line in output.splitlines()]
    for word in ("ERROR SUMMARY", "RACECHECK SUMMARY", "not supported", "Error"):
        for line in reversed(lines):
            if word in line:
                return line
    return next((line for line in reversed(lines) if line), "no output")


def bench(job: Job) -> Record:
    """Time every kernel beside torch, and keep the figures that were made when time is up."""
    stored = job.folder / "bench.json"
    stored.unlink(missing_ok=True)
    # no case is begun in the last tenth, so that the command ends by itself
    minutes = 0.9 * min(job.left(), 1e6) / 60
    command = [job.python, "-m", "tilegrad.bench", "cuda", "--json", str(stored)]
    command += ["--minutes", f"{minutes:.3f}", f"--filter={job.only}"]
    command += ["--quick"] * job.quick + ["--goals"] * job.goals
    if job.before is not None and job.before.exists():
        command += ["--skip", str(job.before)]
    done = job.run("bench", command)
    record = done.record()
    try:
        record["results"] = results = json.loads(stored.read_text())
    except (OSError, ValueError):
        lines = done.output.strip().splitlines()
        return record | {"summary": lines[-1] if lines else "no output"}
    failures = [f"{one['case']}: {one['why']}" for one in results["failed"]]
    count = len(results["cases"])
    text = f"{count} case{'s' * (count != 1)}, {len(results['left_out'])} left out"
    return record | {"summary": f"{text}, {len(failures)} failed", "failures": failures}


STEPS: dict[str, Callable[[Job], Record]] = {
    "build": build,
    "tests": tests,
    "conformance": conformance,
    "sanitizer": sanitizer,
    "bench": bench,
}
NEED_BUILD = ("tests", "sanitizer", "bench")
