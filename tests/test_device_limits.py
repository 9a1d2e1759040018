# SPDX-License-Identifier: MIT
"""A device's memory, streams, threads and processes, and what it refuses."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from helpers import Array, Device, assert_same_bits, error, host
from tilegrad import backends, nn

DEVICES = [name for name in ("sim", "cuda") if tg.info()["backends"][name] is None]


needs_sim = pytest.mark.skipif("sim" not in DEVICES, reason="this build has no sim backend")


@pytest.fixture(params=DEVICES)
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nothing_leaks(where: str) -> Iterator[None]:
    """Check that a test leaves no memory in use on its device."""
    module = backends.at(backends.place_of(where))
    gc.collect()
    tg.release_memory()
    before = module.memory_in_use()
    yield
    gc.collect()
    tg.release_memory()
    assert module.memory_in_use() == before


def network(dtype: Any = np.float32) -> nn.Sequential:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(5, 7, activation="gelu", dtype=dtype),
        nn.Dropout(0.25),
        nn.Linear(7, 3, dtype=dtype),
    )


def values(model: nn.Module) -> dict[str, Array]:
    return {name: host(p.data).copy() for name, p in model.named_parameters()}


# ---- streams and threads ------------------------------------------------------------------------


def test_memory_is_ordered_between_streams(where: str, nothing_leaks: None) -> None:
    """A block that another stream has read is handed out again only after that stream's work."""
    first, second = tg.cuda.Stream(where), tg.cuda.Stream(where)
    x = np.arange(4096, dtype="f4")
    for _ in range(20):
        with tg.cuda.stream(first):
            a = tg.asarray(x, device=where)
            first.synchronize()
        with tg.cuda.stream(second):
            b = tg.relu(a)
        with tg.cuda.stream(first):
            del a
            c = tg.full(4096, -1.0, device=where)  # the same memory
        second.synchronize()
        assert_same_bits(b, x)
        first.synchronize()
        del b, c


def test_memory_outlives_its_stream(where: str, nothing_leaks: None) -> None:
    stream = tg.cuda.Stream(where)
    handle = stream.handle
    with tg.cuda.stream(stream):
        a = tg.full(100, 3.0, device=where)
        b = tg.relu(a)
    stream.synchronize()
    del stream
    gc.collect()
    c = tg.relu(a)
    del a  # on a stream that nobody holds any more
    assert host(b).tolist() == host(c).tolist() == [3.0] * 100
    again = tg.cuda.Stream(where)
    assert again.handle == handle  # streams are kept for the next taker
    with tg.cuda.stream(again):
        assert host(tg.relu(tg.full(100, 2.0, device=where))).tolist() == [2.0] * 100


def test_threads_have_streams_of_their_own_and_the_same_results(where: str) -> None:
    x = np.random.default_rng(0).standard_normal((9, 9)).astype("f4")
    expected = host(tg.matmul(tg.asarray(x, device=where), tg.asarray(x, device=where)))
    shared, wrong = tg.cuda.current_stream(where), []

    def work(own: bool) -> None:
        try:
            stream = tg.cuda.Stream(where)
            if own:
                backends.at(backends.place_of(where)).set_stream(
                    backends.place_of(where), stream.handle
                )
            assert (tg.cuda.current_stream(where) == shared) is not own
            for _ in range(10):
                a = tg.asarray(x, device=where)
                assert_same_bits(tg.matmul(a, a), expected)
        except BaseException as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=work, args=(i % 2 == 0,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert tg.cuda.current_stream(where) == shared


# ---- bad input ----------------------------------------------------------------------------------


def test_an_array_is_not_pickled_and_says_so(where: str) -> None:
    a = tg.ones(3, device=where)
    with error(TypeError, "Array", "not pickled", "pickle .numpy()"):
        pickle.dumps(a)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(network().to(where))
    assert pickle.loads(pickle.dumps(a.numpy())).tolist() == [1] * 3


def test_the_shape_of_an_array_is_its_own(where: str) -> None:
    a = tg.ones((2, 3), device=where)
    with pytest.raises(AttributeError):
        a.shape = (10**9,)  # type: ignore[misc]
    assert a.shape == (2, 3)


def test_masked_arrays_are_refused(where: str) -> None:
    masked = np.ma.masked_array(np.ones((2, 5), "f4"), mask=np.eye(2, 5))
    with error(TypeError, "asarray", "masked"):
        tg.asarray(masked, device=where)
    model = network().to(where)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters()))
    with error(TypeError, "TrainStep", "masked"):
        step(masked, np.array([0, 1]))


@needs_sim
def test_strided_memory_is_no_array() -> None:
    """The simulator's device memory is the host's, so NumPy can play the other library."""
    module = backends.at(backends.SIM)
    whole = np.ones(3, "f4")
    assert module.from_dlpack(whole)._pointer == whole.ctypes.data
    for strided in (np.ones((1, 6))[:, ::2], np.ones((2, 3)).T, np.ones(6)[::-1]):
        with error(TypeError, "from_dlpack", "C-contiguous", "strides"):
            module.from_dlpack(strided)


def test_an_immutable_library_s_array_is_known_by_its_module(where: str) -> None:
    module = backends.at(backends.place_of(where))
    for name, immutable in (
        ("jaxlib._jax", True), ("jax", True), ("jaxlib.xla_extension", True), ("torch", False),
        ("cupy._core.core", False), ("my.jax", False),
    ):  # fmt: skip
        foreign = type("ArrayImpl", (), {"__module__": name})()
        assert module._is_immutable(foreign) is immutable


def test_an_immutable_array_is_no_out(where: str) -> None:
    a = tg.ones(3, device=where)
    methods = {
        "__module__": "jaxlib._jax",
        "__dlpack__": lambda self, **options: a.__dlpack__(**options),
        "__dlpack_device__": lambda self: a.__dlpack_device__(),
    }
    foreign = type("ArrayImpl", (), methods)()
    with pytest.raises((TypeError, ValueError), match=r"relu: out is (read-only|on cpu)"):
        tg.relu(a, out=foreign)


def test_devices_must_be_one(where: str) -> None:
    model = network().to(where)
    with error(TypeError, "linear", "weight is on", "the call is on cpu"):
        model(np.zeros((2, 5), "f4"))
    model[2].to("cpu")
    step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters()))
    with error(TypeError, "TrainStep", "parameters must be on one device", "cpu", where):
        step(np.zeros((2, 5), "f4"), np.array([0, 1]))
    for p in model.parameters():
        p.grad = p.data
    with error(TypeError, "clip_grad_norm_", "a gradient is on cpu", "asarray"):
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    before = values(model)
    tg.optim.SGD(model.parameters(), 1.0).step()  # a call for each device
    for name, value in values(model).items():
        assert_same_bits(value, before[name] - before[name])
    here = network()
    step = tg.TrainStep(here, nn.CrossEntropyLoss(), tg.optim.SGD(here.parameters()))
    with pytest.raises(TypeError, match="is on"):
        step(tg.zeros((2, 5), device=where), np.array([0, 1]))


def test_too_much_shared_memory_is_refused(where: str) -> None:
    x = tg.zeros((1, 200_000), np.float64, device=where)
    t = tg.asarray(np.zeros(1, np.int64), device=where)
    with pytest.raises(ValueError, match=r"(?s)variant.*one_pass|one_pass.*(shared|hold|row)"):
        tg.cross_entropy_value_and_grad(x, t, variant="one_pass")
    loss, _ = tg.cross_entropy_value_and_grad(x, t)
    assert float(loss) == pytest.approx(np.log(200_000))


def test_zero_rows_train_nothing(device: Device) -> None:
    model = network().to(device.name)
    optimizer = tg.optim.SGD(model.parameters(), 0.1)
    before = values(model)
    step = tg.TrainStep(model, nn.CrossEntropyLoss(reduction="sum"), optimizer)
    for _ in range(3):
        assert float(step(np.zeros((0, 5), "f4"), np.zeros(0, np.int64))) == 0.0
    for name, value in values(model).items():
        assert_same_bits(value, before[name])


def python(code: str, **variables: str) -> str:
    folders = [Path(tg.__file__).parents[1], Path(__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **variables}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_sim
def test_out_of_memory_is_an_error_and_nothing_is_lost() -> None:
    out = python(
        """
        import numpy as np, tilegrad as tg
        from tilegrad import backends, nn

        def failing(call):
            before = sim.memory_in_use()
            try:
                call()
            except RuntimeError as error:
                assert "out of device memory; asked for" in str(error), error
            else:
                raise AssertionError("there was room")
            assert sim.memory_in_use() == before, (sim.memory_in_use(), before)

        a = tg.ones(1000, device="sim")
        sim = backends.at(-1)
        failing(lambda: tg.empty(10**6, device="sim"))
        assert tg.relu(a).numpy().tolist() == [1.0] * 1000
        failing(lambda: tg.asarray(np.zeros(10**6), device="sim"))

        model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 8000))
        before = [p.data for p in model.parameters()]
        failing(lambda: model.to("sim"))
        assert all(p.data is b for p, b in zip(model.parameters(), before))
        assert model.predict(np.zeros((1, 20), np.float32)).shape == (1, 8000)

        small = nn.Sequential(nn.Linear(20, 30, activation="relu"), nn.Linear(30, 5)).to("sim")
        optimizer = tg.optim.Adam(small.parameters())
        step = tg.TrainStep(small, nn.CrossEntropyLoss(), optimizer)
        x, t = np.ones((4, 20), np.float32), np.zeros(4, np.int64)
        step(x, t)
        kept = [p.data.numpy() for p in small.parameters()]
        big = np.ones((20_000, 20), np.float32), np.zeros(20_000, np.int64)
        failing(lambda: step(*big))
        assert all((p.data.numpy() == k).all() for p, k in zip(small.parameters(), kept))
        losses = [float(step(x, t)) for _ in range(4)]
        assert losses == sorted(losses, reverse=True)

        kept = []
        def fill():
            while True:
                kept.append(tg.empty(5000, device="sim"))
        try:
            fill()
        except RuntimeError:
            kept.clear()
        assert tg.full(50_000, 2.0, device="sim").numpy().sum() == 100_000  # the cache is given up
        print("done")
        """,
        TILEGRAD_SIM_MEMORY=str(700_000),
    )
    assert out == "done\n"


@needs_sim
def test_the_simulator_survives_a_fork() -> None:
    out = python(
        """
        import os, numpy as np, tilegrad as tg
        from tilegrad import nn
        x = tg.asarray(np.eye(5, dtype=np.float32), device="sim")
        y = tg.matmul(x, x)
        stream = tg.cuda.Stream("sim")
        model = nn.Linear(5, 2).to("sim")
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters(), 0.1))
        t = np.zeros(5, np.int64)
        losses = [float(step(x, t)) for _ in range(3)]
        child = os.fork()
        assert tg.matmul(x, y).numpy().tolist() == np.eye(5).tolist()
        next_loss = float(step(x, t))
        assert next_loss < losses[-1]
        if child == 0:
            with tg.cuda.stream(stream):
                assert tg.relu(y).numpy().sum() == 5
            os.write(1, f"child {next_loss}\\n".encode())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        print("parent", next_loss)
        """
    )
    lines = dict(line.split() for line in out.splitlines())
    assert lines["child"] == lines["parent"]


@needs_sim
def test_training_works_with_launches_that_wait() -> None:
    """TILEGRAD_SYNC=1 waits for every kernel, which a capture forbids."""
    code = """
        import numpy as np, tilegrad as tg
        from tilegrad import nn
        tg.manual_seed(0)
        model = nn.Linear(3, 2).to("sim")
        step = tg.TrainStep(model, nn.CrossEntropyLoss(), tg.optim.Adam(model.parameters(), 0.1))
        x, t = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
        print([float(step(x, t)) for _ in range(5)])
        """
    assert python(code, TILEGRAD_SYNC="1") == python(code, TILEGRAD_SYNC="0")


def test_the_cpu_needs_no_device_module() -> None:
    python(
        """
        import sys
        import numpy as np, tilegrad as tg
        model = tg.nn.Linear(3, 2)
        step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), tg.optim.SGD(model.parameters()))
        step(np.ones((2, 3), np.float32), np.array([0, 1]))
        tg.asarray([1.0], device="cpu"), tg.zeros(3), tg.release_memory(), model.to("cpu")
        loaded = {"tilegrad._sim", "tilegrad._sim_trace", "tilegrad._cuda"} & set(sys.modules)
        assert not loaded, loaded
        """
    )
