# SPDX-License-Identifier: MIT
"""What is no op: threads, instruction sets, fork, memory, import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, assert_same_bits, error
from tilegrad import _cpu

OWN_VARIABLES = ("TILEGRAD_CPU", "TILEGRAD_NUM_THREADS", "OMP_NUM_THREADS")


def run_python(
    code: str, *, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter whose environment has only the given variables of ours."""
    environment = {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES}
    paths = [str(Path(tg.__file__).parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**environment, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def output_of(code: str, **variables: str) -> str:
    done = run_python(code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ---- threads -----------------------------------------------------------------------------------


def test_set_num_threads_is_read_back() -> None:
    for count in (1, 2, 3, 4, 17, 1):
        tg.set_num_threads(count)
        assert tg.num_threads() == count
        assert tg.info()["num_threads"] == count


def test_set_num_threads_refuses() -> None:
    before = tg.num_threads()
    for count in (0, -1, 10**6, 10**12, -(2**70)):
        with error(ValueError, "set_num_threads", count):
            tg.set_num_threads(count)
    for count in (1.5, "2", None, [2]):
        with error(TypeError, "set_num_threads"):
            tg.set_num_threads(count)
    assert tg.num_threads() == before


def test_num_threads_from_environment() -> None:
    code = "import tilegrad as tg; print(tg.num_threads())"
    assert output_of(code, TILEGRAD_NUM_THREADS="3") == "3"
    assert output_of(code, OMP_NUM_THREADS="2") == "2"
    assert output_of(code, TILEGRAD_NUM_THREADS="1", OMP_NUM_THREADS="2") == "1"
    affinity = "import os, tilegrad as tg; print(tg.num_threads() == len(os.sched_getaffinity(0)))"
    if hasattr(os, "sched_getaffinity"):
        assert output_of(affinity) == "True"
        pinned = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n" + code
        assert output_of(pinned) == "1"


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5", "99999999"])
def test_num_threads_from_environment_refuses(value: str) -> None:
    done = run_python("import tilegrad", TILEGRAD_NUM_THREADS=value)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "TILEGRAD_NUM_THREADS" in last
    assert value in last


# ---- instruction sets --------------------------------------------------------------------------


def test_info_describes_the_machine() -> None:
    info = tg.info()
    assert info["isa"] in info["supported_isas"]
    assert "generic" in info["supported_isas"]
    assert info["backends"]["cpu"] is None
    for reason in info["backends"].values():
        assert reason is None or isinstance(reason, str)


@pytest.mark.parametrize("choice", _cpu.supported_isas())
def test_isa_from_environment(choice: str) -> None:
    code = """
        import numpy as np, tilegrad as tg
        c = tg.matmul(np.ones((70, 33), np.float32), np.ones((33, 40), np.float32))
        print(tg.info()["isa"], (c == 33).all(), tg.tanh(np.float32([np.inf]))[0])
    """
    assert output_of(code, TILEGRAD_CPU=choice) == f"{choice} True 1.0"


@pytest.mark.parametrize("choice", ["sse", "AVX2", "avx1024", "generic,avx2"])
def test_isa_from_environment_refuses(choice: str) -> None:
    done = run_python("import tilegrad", TILEGRAD_CPU=choice)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "TILEGRAD_CPU" in last
    assert choice in last
    assert "generic" in last


def test_the_best_isa_is_the_default() -> None:
    code = "import tilegrad as tg; print(tg.info()['isa'])"
    assert output_of(code) == tg.info()["supported_isas"][-1]


def test_set_isa_refuses() -> None:
    before = _cpu.isa()
    with pytest.raises(ValueError, match=r"'neon'"):
        _cpu._set_isa("neon")
    assert _cpu.isa() == before


# ---- fork and Python threads -------------------------------------------------------------------

WORK = """
    import os, sys
    import numpy as np
    import tilegrad as tg

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 300, 300)).astype(np.float32)

    def work():
        y = tg.linear(a, b, None, "gelu")
        dx, dw, _ = tg.linear_backward(y, a, b, None, "gelu")
        s = tg.softmax(np.tile(y, (4, 1)), 1)
        return b"".join(v.tobytes() for v in (y, dx, dw, s))
"""


def test_results_are_equal_after_fork() -> None:
    code = (
        WORK
        + """
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads is the point
    tg.set_num_threads(2)

    def child(queue, expected, depth):
        same = work() == expected and tg.num_threads() == 2
        if depth:
            same = run_child(expected, depth - 1) and same
        queue.put(same)

    def run_child(expected, depth):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=child, args=(queue, expected, depth))
        process.start()
        same = queue.get(timeout=60)
        process.join(60)
        return same and process.exitcode == 0

    expected = work()  # the pool runs now
    for _ in range(3):
        assert run_child(expected, 1)
        assert work() == expected
    print("done")
    """
    )
    assert output_of(code) == "done"


def test_fork_before_first_use_and_during_work() -> None:
    code = (
        WORK
        + """
    import threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    tg.set_num_threads(2)
    if os.fork() == 0:
        os._exit(0 if len(work()) > 0 else 1)
    assert os.wait()[1] == 0
    expected = work()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            work()

    thread = threading.Thread(target=busy)
    thread.start()
    for _ in range(10):  # the pool is most likely at work when the process forks
        child = os.fork()
        if child == 0:
            os._exit(0 if work() == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    assert work() == expected
    print("done")
    """
    )
    assert output_of(code) == "done"


def test_many_python_threads_get_the_right_bits(rng: np.random.Generator) -> None:
    tg.set_num_threads(2)
    sizes = [3, 65, 130, 257, 400]
    jobs: list[Callable[[], Array]] = []
    for n in sizes:
        a, b = rng.standard_normal((2, n, n)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32)
        jobs += [
            lambda a=a, b=b: tg.matmul(a, b),
            lambda a=a, b=b, bias=bias: tg.linear(a, b, bias, "gelu"),
            lambda a=a: tg.softmax(a, 0),
            lambda a=a: tg.log_softmax(a, 1),
            lambda a=a, b=b: tg.linear_backward(a, a, b, None, "tanh")[1],
            lambda a=a: tg.silu(a.T),
        ]
    expected = [job() for job in jobs]
    order = [int(i) for i in rng.permutation(np.arange(len(jobs)).repeat(20))]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: jobs[i](), order))
    for i, result in zip(order, results, strict=True):
        assert_same_bits(result, expected[i], what=f"job {i}")


def test_threads_may_change_between_and_during_calls(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((2, 300, 300))
    expected = tg.matmul(a, b)
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(tg.matmul, a, b) for _ in range(30)]
        for count in (1, 4, 2, 3, 1, 2) * 5:
            tg.set_num_threads(count)
        for result in results:
            assert_same_bits(result.result(), expected)


# ---- memory ------------------------------------------------------------------------------------


def test_release_memory_keeps_arrays_in_use() -> None:
    kept = tg.relu(np.full(20_000, 3, np.float32))
    dropped = [tg.relu(np.ones(n, np.float32)) for n in (10, 1000, 20_000)]
    del dropped
    assert tg.release_memory() > 0
    assert tg.release_memory() == 0
    assert (kept == 3).all()
    assert (tg.relu(np.full(20_000, 5, np.float32)) == 5).all()
    assert (kept == 3).all()


def test_results_outlive_their_inputs_and_can_be_resized() -> None:
    y = tg.relu(np.arange(1000, dtype=np.float32))
    part = y[500:]
    del y
    tg.release_memory()
    for _ in range(5):
        tg.relu(np.full(1000, -1, np.float32))
    np.testing.assert_array_equal(part, np.arange(500, 1000))
    assert part.base is not None


def test_repeated_calls_do_not_grow_the_process() -> None:
    code = """
        import resource
        import numpy as np
        import tilegrad as tg

        def run(count):
            for i in range(count):
                x = np.ones((50 + i % 50, 300), np.float32)
                w = np.ones((200, 300), np.float32)
                y, z = tg.linear(x, w, None, "gelu", save_preactivation=True)
                tg.linear_backward(y, x[:, ::-1], w, None, "gelu", preactivation=z)
                tg.softmax(y.T, 0)
                try:
                    tg.matmul(x, x)
                except ValueError:
                    pass

        run(300)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(1500)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    assert int(output_of(code)) < 8 * 1024  # KiB; one leaked x a call would be 130 MB


# ---- import ------------------------------------------------------------------------------------


def test_import_takes_at_most_50_ms_beyond_numpy(tmp_path: Path) -> None:
    # CPU time, which on a quiet machine is the time that passes: an import waits for nothing
    code = """
        import time
        import numpy
        start = time.process_time()
        import tilegrad
        print(time.process_time() - start)
    """
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    output_of(code, **compiled)
    medians = []
    for _ in range(3):  # a busy machine may try again
        medians.append(statistics.median(float(output_of(code, **compiled)) for _ in range(5)))
        if medians[-1] <= 0.050:
            return
    pytest.fail(f"import tilegrad took {medians} s beyond NumPy, 0.050 allowed")


def test_import_touches_nothing_outside(tmp_path: Path) -> None:
    code = """
        import sys
        import numpy
        seen = []

        def watch(event, args):
            writes = event == "open" and (
                isinstance(args[1], str) and set(args[1]) & set("wax+") or args[2] & 3
            )
            if writes or event.startswith(("socket.", "subprocess.", "os.system", "os.fork")):
                seen.append((event, str(args)))

        before = set(sys.modules)
        threads = len(__import__("os").listdir("/proc/self/task")) if sys.platform == "linux" else 0
        sys.addaudithook(watch)
        import tilegrad
        assert not seen, seen
        heavy = {"torch", "matplotlib", "tqdm", "safetensors", "multiprocessing", "jax", "cupy"}
        assert not heavy & {name.partition(".")[0] for name in set(sys.modules) - before}
        if threads:
            assert len(__import__("os").listdir("/proc/self/task")) == threads
        numpy_state = numpy.geterr()
        assert numpy_state["divide"] == "warn"
        print("clean")
    """
    done = run_python(code, cwd=tmp_path, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "clean"
    assert not done.stderr
    assert not list(tmp_path.iterdir())


def test_every_public_name_exists_and_is_documented() -> None:
    for name in tg.__all__:
        assert getattr(tg, name).__doc__, name
    assert len(set(tg.__all__)) == len(tg.__all__)
