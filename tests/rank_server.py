# SPDX-License-Identifier: MIT
"""Run functions on several ranks, in processes forked from one that has imported PyTorch.

Its import takes seconds; a fork takes milliseconds. A line of JSON in asks for a run; one out tells
of every rank its exit code, its seconds and what it wrote. Only the loopback device is used, and
the ranks meet through a file: no port is opened to others.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any


def run_rank(task: dict[str, Any], rank: int, folder: Path) -> None:
    """Be one rank; never returns."""
    code = 1
    for name, number in (("out", 1), ("err", 2)):
        file = os.open(folder / f"{name}{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.environ.update({"RANK": str(rank), "WORLD_SIZE": str(task["ranks"])})
    try:
        module, _, name = task["function"].partition(":")
        function = getattr(importlib.import_module(module), name)
        result = function(rank, f"file://{folder}/rendezvous", *task["arguments"])
        code = 0 if result is None else int(result)
    except BaseException as error:
        traceback.print_exception(error)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(task: dict[str, Any]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.monotonic()
        ranks = {}
        for rank in range(task["ranks"]):
            process = os.fork()
            if process == 0:
                run_rank(task, rank, folder)
            ranks[process] = rank
        results: list[dict[str, Any]] = [{} for _ in ranks]
        while ranks:
            late = time.monotonic() - started > task["limit"]
            for process, rank in list(ranks.items()):
                if late:
                    os.kill(process, signal.SIGKILL)
                done, status = os.waitpid(process, 0 if late else os.WNOHANG)
                if done:
                    del ranks[process]
                    results[rank] = {
                        "code": None if late else os.waitstatus_to_exitcode(status),
                        "seconds": time.monotonic() - started,
                        "out": (folder / f"out{rank}").read_text(),
                        "err": (folder / f"err{rank}").read_text(),
                    }
            time.sleep(0.01)
        return results


def main() -> None:
    import torch.distributed  # noqa: F401

    import tilegrad.distributed  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


class RankServer:
    """The process that forks ranks."""

    def __init__(self) -> None:
        here = os.fspath(Path(__file__).parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([here, *(p for p in sys.path if p)]),
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "TILEGRAD_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def __call__(
        self, function: str, ranks: int, *arguments: Any, limit: float = 60.0
    ) -> list[dict[str, Any]]:
        """Run "module:function"(rank, where they meet, *arguments) on so many ranks."""
        task = {"function": function, "ranks": ranks, "arguments": arguments, "limit": limit}
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(task) + "\n")
        stdin.flush()
        results: list[dict[str, Any]] = json.loads(stdout.readline())
        return results

    def close(self) -> None:
        self._process.communicate(timeout=30)


if __name__ == "__main__":
    main()
