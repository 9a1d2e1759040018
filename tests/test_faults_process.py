# SPDX-License-Identifier: MIT
"""Signals, forked and spawned children, and the end of the process, with work in progress."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from children import run, start

DEVICES = pytest.mark.parametrize("name", ["cpu", "sim"])

ALIVE = """
    import atexit, builtins, faulthandler, gc, os, sys, threading, time
    faulthandler.enable()
    import numpy as np, tilegrad as tg
    from tilegrad import nn

    device = sys.argv[1]
    n = 600 if device == "cpu" else 40
    a = tg.asarray(np.random.default_rng(0).standard_normal((n, n)).astype("f"), device=device)
    model = nn.Sequential(nn.Linear(n, 20, activation="relu"), nn.Linear(20, 4)).to(device)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.Adam(model.parameters()))
    targets = np.arange(n) % 4

    def work():
        tg.matmul(a, a)
        step(a, targets)
"""

ENDS = {
    "globals and cycles": """
        kept = [tg.relu(a)]
        kept.append(kept)
        class Holder: pass
        holder = Holder()
        holder.itself, holder.array, holder.step = holder, tg.softmax(a, 1), step
        sys.kept = builtins.kept = holder
        """,
    "daemon threads inside ops": """
        def forever():
            while True:
                tg.matmul(a, a)
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.3)
        """,
    "a daemon thread inside a step": """
        def forever():
            while True:
                step(a, targets)
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.3)
        """,
    "a daemon thread inside one long call": """
        big = tg.asarray(np.ones((5 * n, 5 * n), "f"), device=device)
        threading.Thread(target=tg.matmul, args=(big, big), daemon=True).start()
        time.sleep(0.1)
        """,
    "a thread that ends after the main one": """
        def late():
            time.sleep(0.2)
            work()
        threading.Thread(target=late).start()
        """,
    "atexit": "atexit.register(work)",
    "a destructor at the end": """
        class Last:
            def __del__(self, matmul=tg.matmul, a=a):
                matmul(a, a)
        last = Last()
        last.itself = builtins.last = last
        """,
    "exit in a thread": """
        def leave():
            work()
            sys.exit(3)
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        """,
    "os._exit": "work(); sys.stdout.flush(); os._exit(0)",
    "an exported array": "kept = np.from_dlpack(tg.relu(a)); tg.keep = memoryview(kept)",
}


@DEVICES
@pytest.mark.parametrize("end", ENDS)
def test_a_process_ends_in_silence(name: str, end: str) -> None:
    import textwrap

    code = textwrap.dedent(ALIVE) + "work()\n" + textwrap.dedent(ENDS[end]) + "\nprint('end')\n"
    if end == "os._exit":
        code = code.replace("work(); sys", "print('end'); work(); sys")
    assert run(code, name, env={"TILEGRAD_NUM_THREADS": "3"}).splitlines()[0] == "end"


# ---- signals -----------------------------------------------------------------------------------

INTERRUPTED = """
    import os, signal, sys, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import numpy as np, tilegrad as tg
    from tilegrad import nn
    rng = np.random.default_rng(0)
    sent = []
    def interrupt(times=1):
        time.sleep(0.3)
        for _ in range(times):
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
"""


def test_a_simulated_kernel_is_left_between_two_blocks() -> None:
    out = run(
        INTERRUPTED
        + """
    a = tg.asarray(np.ones((700, 700), np.float32), device="sim")
    small = tg.asarray(np.eye(40, dtype=np.float32), device="sim")
    threading.Thread(target=interrupt).start()
    try:
        for _ in range(100):
            tg.matmul(a, a)
    except KeyboardInterrupt:
        print(time.perf_counter() - sent[0])
    assert (tg.matmul(small, small).numpy() == np.eye(40)).all()  # the next launch works
    """
    )
    assert float(out) < 2


def test_a_loop_of_steps_goes_on_after_each_ctrl_c() -> None:
    """Wherever the signal falls: the step can be used again, its lock is not left taken."""
    out = run(
        INTERRUPTED
        + """
    model = nn.Sequential(nn.Linear(8, 8, activation="relu"), nn.Linear(8, 2))
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
    x, y = np.ones((8, 8), np.float32), np.arange(8) % 2
    done = caught = 0
    end = time.monotonic() + 4
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.000013 * (caught % 50))
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            while True:
                step(x, y)
                model.predict(x)
                done += 1
        except KeyboardInterrupt:
            caught += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(caught, done)
    """
    )
    caught, done = map(int, out.split())
    assert caught > 100
    assert done > caught


def test_ctrl_c_in_a_loader_and_twice() -> None:
    out = run(
        INTERRUPTED
        + """
    loader = tg.data.DataLoader(np.ones((100000, 8), np.float32), batch_size=8, shuffle=True)
    a = np.ones((1500, 1500), np.float32)
    for work in (lambda: [0 for batch in loader], lambda: tg.matmul(a, a)):
        thread = threading.Thread(target=interrupt, args=(3,))
        thread.start()
        caught = 0
        while thread.is_alive():
            try:
                while thread.is_alive():
                    work()
            except KeyboardInterrupt:
                caught += 1
        assert 1 <= caught <= 3
    assert len(list(loader)) == 12500
    print("done")
    """
    )
    assert out == "done\n"


COMMAND = "import sys; from tilegrad.cli import main; sys.exit(main())"
IGNORED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


@pytest.mark.parametrize(
    "words", [("bench", "cpu"), ("trace", "matmul", "--shape", "512x512", "--shape", "512x512")]
)
def test_commands_end_with_one_line_after_ctrl_c(tmp_path: Path, words: tuple[str, ...]) -> None:
    if words[0] == "trace":
        pytest.importorskip("elftools")
    child = start(IGNORED + COMMAND, *words, cwd=tmp_path)
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "interrupted" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_sigterm_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    child = start(COMMAND, "train", "--data", "digits", "--epochs", 100000, "--out", tmp_path)
    end = time.monotonic() + 60
    while not checkpoint.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    child.terminate()
    child.communicate(timeout=60)
    assert child.returncode == -signal.SIGTERM
    from tilegrad._checkpoint import read

    _, state = read(checkpoint)  # every byte is checked
    assert state is not None
    assert len(state["history"]["epochs"]) >= 1


# ---- children ----------------------------------------------------------------------------------

BUSY = """
    import multiprocessing, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads is the point
    import numpy as np, tilegrad as tg
    from tilegrad import nn
    device = sys.argv[1]
    n = 300 if device == "cpu" else 24
    rng = np.random.default_rng(0)
    a = tg.asarray(rng.standard_normal((n, n)).astype("f"), device=device)

    def host(x):
        return x.numpy() if isinstance(x, tg.Array) else np.asarray(x)

    def work():
        tg.manual_seed(0)
        model = nn.Sequential(nn.Linear(n, 20, activation="gelu"), nn.Linear(20, 4)).to(device)
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.Adam(model.parameters()))
        values = [tg.matmul(a, a), tg.softmax(a, 1), *(step(a, np.arange(n) % 4) for _ in "123")]
        return b"".join(host(v).tobytes() for v in values)

    expected = work()
    stop = threading.Event()

    def hammer():
        while not stop.is_set():
            tg.matmul(a, tg.relu(a))
"""


@DEVICES
def test_a_fork_in_a_thread_while_others_are_inside_ops(name: str) -> None:
    out = run(
        BUSY
        + """
    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    failed = []

    def fork():
        for _ in range(15):
            child = os.fork()
            if child == 0:
                os._exit(0 if work() == expected else 1)
            _, status = os.waitpid(child, 0)
            if status:
                failed.append(status)

    forker = threading.Thread(target=fork)
    forker.start()
    forker.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failed, failed
    assert work() == expected
    print("done")
    """,
        name,
        env={"TILEGRAD_NUM_THREADS": "2"},
    )
    assert out == "done\n"


@DEVICES
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_concurrent_futures(tmp_path: Path, name: str, method: str) -> None:
    """The children exit as Python's do: through sys.exit, with arrays alive."""
    import textwrap

    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(BUSY)
        + textwrap.dedent(
            """
    from concurrent.futures import ProcessPoolExecutor

    def same(_):
        global kept
        kept = tg.relu(a)
        return work() == expected

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[2])
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert all(pool.map(same, range(4)))
        assert work() == expected
        print("done")
    """
        )
    )
    assert run(script, name, method, env={"TILEGRAD_NUM_THREADS": "2"}) == "done\n"
