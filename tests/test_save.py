# SPDX-License-Identifier: MIT
"""save and load: every state comes back, and no write loses a file."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from saved_runs import Counter, Run, X, bits
from tilegrad import _random, manual_seed, nn, optim
from tilegrad._callbacks import Callback
from tilegrad._save import load, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.fixture
def run(path: Path) -> Run:
    run = Run()
    run.steps(10)  # two epochs of four batches, and half of the third
    run.save(path)
    return run


OPTIMIZERS: list[tuple[type[optim.Optimizer], dict[str, Any]]] = [
    (optim.SGD, {}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim.Adam, {}),
    (optim.Adam, {"amsgrad": True, "betas": (0.8, 0.95)}),
    (optim.AdamW, {"weight_decay": 0.1}),
    (optim.RMSprop, {"l1_decay": 0.01}),
    (optim.RMSprop, {"momentum": 0.9, "centered": True, "eps": 0.1}),
    (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.3}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_training_goes_on_bit_for_bit_from_the_middle_of_an_epoch(
    path: Path, kind: type[optim.Optimizer], options: dict[str, Any]
) -> None:
    straight = Run(1, kind, **options)
    straight.steps(19)
    expected = straight.state()
    interrupted = Run(1, kind, **options)
    interrupted.steps(10)
    interrupted.save(path)
    before = interrupted.state()
    other = Run(2, kind, **options)
    other.steps(3)
    assert other.state() != before
    other.load(path)
    assert other.state() == before
    assert isinstance(other.optimizer.param_groups[0].get("betas", ()), tuple)
    other.steps(9)
    assert other.state() == expected


def test_saving_changes_nothing(run: Run, path: Path) -> None:
    before = run.state()
    run.save(path)
    assert run.state() == before


def test_tensors_have_the_promised_names_and_the_rest_is_json(run: Run, path: Path) -> None:
    with safetensors.safe_open(path, "np") as file:
        names, metadata = set(file.keys()), file.metadata()
    parameters = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert names == {
        *(f"model.{name}" for name in parameters),
        *(f"callbacks.0.weights.{name}" for name in parameters),
        *(f"optimizer.{i}.{b}" for i in range(4) for b in ("exp_avg", "exp_avg_sq")),
    }
    assert list(metadata) == ["tilegrad"]
    state = json.loads(metadata["tilegrad"])
    assert state["format"] == 1
    assert state["rng"] == _random.get_state()
    assert state["loader"]["position"] == 2
    assert state["optimizer"]["state"]["3"]["step"] == 10
    assert state["optimizer"]["groups"][0]["lr"] == run.optimizer.param_groups[0]["lr"] == 0.0125


def test_equal_states_give_equal_files(run: Run, path: Path) -> None:
    whole = path.read_bytes()
    for _ in range(8):
        run.save(path)
        assert path.read_bytes() == whole
    other = Run(5)
    other.load(path)
    other.save(path)
    assert path.read_bytes() == whole
    code = """
        import sys
        from pathlib import Path
        from saved_runs import Run
        run = Run()
        run.steps(10)
        run.save(Path(sys.argv[1]))
        """
    for seed in ("1", "2"):
        child = python(code, path, PYTHONHASHSEED=seed)
        assert (*child.communicate(timeout=60), child.returncode) == ("", "", 0)
        assert path.read_bytes() == whole


def test_weights_alone_load_without_touching_the_random_stream(run: Run, path: Path) -> None:
    other = Run(5)
    before = _random.get_state()
    load(path, other.model)
    assert bits(other.model.state_dict()) == bits(run.model.state_dict())
    assert _random.get_state() == before
    load(path, other.model, rng=True)
    assert (
        _random.get_state()
        == json.loads(safetensors.safe_open(path, "np").metadata()["tilegrad"])["rng"]
    )
    manual_seed(9)
    load(path, other.model, other.optimizer, rng=False)
    assert _random.get_state() == {"seed": 9, "offset": 0}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_odd_values_come_back(path: Path, dtype: Any) -> None:
    layer = nn.Linear(4, 1, dtype=dtype)
    layer.weight.data = np.array([[np.nan, np.inf, -0.0, np.finfo(dtype).tiny / 2]], dtype)
    save(path, layer)
    other = nn.Linear(4, 1, dtype=dtype)
    load(path, other)
    assert bits(other.state_dict()) == bits(layer.state_dict())


def test_states_of_callbacks_keep_their_types(path: Path) -> None:
    value = {
        "tuple": (1, (2.5, None)), "half": np.float16(1.5), "lr": np.float32(0.1), "on": True,
        "nan": float("inf"), "list": [np.arange(3), np.zeros((0, 2)), np.array(7.0)], "s": "é\"",
    }  # fmt: skip
    model = nn.Linear(1, 1)
    save(path, model, callbacks=[Callback(), Counter(value)])
    counter = Counter(None)
    load(path, model, callbacks=[counter, Callback()])
    assert bits(counter.value) == bits(value)
    assert type(counter.value["lr"]) is np.float32
    assert type(counter.value["tuple"][1]) is tuple


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"$tensor": 1}, np.array(["a"]), {"a.b": X, "a": {"b": X}}]
)
def test_what_no_file_can_hold_is_named(path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"save: .*callbacks\.0\.value"):
        save(path, nn.Linear(1, 1), callbacks=[Counter(value)])
    assert not path.exists()


@pytest.mark.parametrize("prefix", ["", "model."])
def test_plain_weights_load_into_a_model(path: Path, prefix: str) -> None:
    source, target = Run(1).model, Run(2).model
    tensors = {prefix + name: value for name, value in source.state_dict().items()}
    safetensors.numpy.save_file(tensors, path, metadata={"format": "np"})
    load(path, target)
    assert bits(target.state_dict()) == bits(source.state_dict())


def test_a_model_that_calls_its_part_model_keeps_the_prefix(path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    source, target = Wrapper(), Wrapper()
    safetensors.numpy.save_file(source.state_dict(), path)
    load(path, target)
    assert bits(target.state_dict()) == bits(source.state_dict())
    save(path, source)
    target = Wrapper()
    load(path, target)
    assert bits(target.state_dict()) == bits(source.state_dict())


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"weight": np.zeros((2, 3), np.float32)}, r"missing in the file \['bias'\]"),
        ({"weight": np.zeros((3, 2), np.float32), "bias": np.zeros(2, np.float32)}, "must be"),
        ({"weight": np.zeros((2, 3)), "bias": np.zeros(2)}, "float32; the file has .* float64"),
        ({"weight": np.zeros((2, 3), np.float16), "bias": np.zeros(2, np.float16)}, "float16"),
    ],
)
def test_plain_weights_that_do_not_fit_are_refused(
    path: Path, tensors: dict[str, Any], match: str
) -> None:
    layer = nn.Linear(3, 2)
    before = bits(layer.state_dict())
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match=match):
        load(path, layer)
    assert bits(layer.state_dict()) == before


def test_a_dtype_that_numpy_lacks_is_named(path: Path) -> None:
    header = b'{"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ValueError, match="w has dtype F8_E4M3"):
        load(path, nn.Linear(1, 1))


def test_without_the_extra_the_error_names_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, nn.Linear(1, 1))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (save, load):
        with pytest.raises(ImportError, match=r"tilegrad\[io\]"):
            call(path, nn.Linear(1, 1))


def test_the_file_is_synced_before_and_the_folder_after_the_rename(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def logged_replace(source: str, target: str) -> None:
        assert Path(source).parent == Path(target).parent == path.parent
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    save(path, nn.Linear(1, 1))
    assert calls == ["file", "rename", "folder"]


@pytest.mark.parametrize("name", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), MemoryError()],
)
def test_a_failed_write_leaves_the_old_file(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failure: BaseException
) -> None:
    old = path.read_bytes()
    run.steps(1)

    def fail(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(type(failure)):
        run.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    run.save(path)
    assert path.read_bytes() != old


def python(code: str, *args: object, **variables: str) -> subprocess.Popen[str]:
    import tilegrad

    folders = [Path(tilegrad.__file__).parents[1], Path(__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), **variables}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    save(path, nn.Linear(3, 2))
    old = path.read_bytes()
    child = python(
        """
        import errno, resource, sys
        from tilegrad import nn
        from tilegrad._save import save
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        try:
            save(sys.argv[1], nn.Linear(100, 100))
        except OSError as error:
            print(errno.errorcode[error.errno])
        """,
        path,
    )
    out, err = child.communicate(timeout=60)
    assert (out.strip(), err, child.returncode) == ("EFBIG", "", 0)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_read_only_folder_leaves_the_old_file() -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's folders are closed to other users
    path = folder / "model.safetensors"
    try:
        save(path, nn.Linear(3, 2))
        old = path.read_bytes()
        folder.chmod(0o555)
        child = python(
            """
            import os, sys
            from tilegrad import nn
            from tilegrad._save import save
            import safetensors.numpy
            if os.getuid() == 0:  # root may write everywhere
                os.setgid(65534)
                os.setuid(65534)
            try:
                save(sys.argv[1], nn.Linear(3, 2))
            except PermissionError as error:
                print("refused", error.filename)
            """,
            path,
        )
        out, err = child.communicate(timeout=60)
        assert out.startswith(f"refused {folder}"), err
        assert path.read_bytes() == old
        assert os.listdir(folder) == [path.name]
    finally:
        folder.chmod(0o755)
        path.unlink(missing_ok=True)
        folder.rmdir()


def test_a_killed_writer_leaves_a_whole_file(path: Path) -> None:
    child = python(
        """
        import sys
        from tilegrad import manual_seed, nn
        from tilegrad._save import save
        for i in range(10**6):
            manual_seed(i)
            save(sys.argv[1], nn.Linear(200, 300))
            print(i, flush=True)
        """,
        path,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == 7:
            break
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    layer = nn.Linear(200, 300)
    load(path, layer, rng=True)
    seed = _random.get_state()["seed"]
    assert seed >= 7
    manual_seed(seed)
    assert bits(nn.Linear(200, 300).state_dict()) == bits(layer.state_dict())


def test_mode_and_link_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    save(target, nn.Linear(1, 1))
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    target.chmod(0o640)
    link.symlink_to(target)
    old = target.read_bytes()
    save(link, nn.Linear(2, 2))
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert target.read_bytes() != old


def test_long_names_and_path_objects_work(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    save(path, nn.Linear(1, 1))
    load(str(path), nn.Linear(1, 1))
