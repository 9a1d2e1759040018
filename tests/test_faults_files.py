# SPDX-License-Identifier: MIT
"""Disks that are full, folders that cannot be written, odd targets, writers that were killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilegrad as tg
from children import run, start
from tilegrad import nn, plot
from tilegrad._checkpoint import read
from tilegrad._cli_train import write_json
from tilegrad._files import write_whole
from tilegrad.cli import main

HISTORY = {"train_loss": [2.0, 1.0], "val_loss": [2.0, 1.5]}


def save(path: Path) -> None:
    tg.save(path, nn.Linear(40, 100))


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "save": ("model.safetensors", save),
    "plot": ("curves.png", lambda path: plot.plot_history(HISTORY, path)),
    "confusion": ("confusion.svg", lambda path: plot.confusion_matrix(np.eye(9), path)),
    "json": ("history.json", lambda path: write_json(str(path), {"x": "y" * 20_000})),
}
EVERY = pytest.mark.parametrize("name", WRITERS)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system can be mounted by root alone; test_save has a limit instead")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@EVERY
def test_a_full_disk_is_named_and_the_old_file_stays(disk: Path, name: str) -> None:
    file_name, write = WRITERS[name]
    path = disk / file_name
    path.write_bytes(b"old")
    filler = disk / "filler"
    filler.write_bytes(b"x" * 56_000)
    with pytest.raises(OSError, match="No space left on device") as error:
        write(path)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == b"old"
    assert {p.name for p in disk.iterdir()} == {file_name, "filler"}
    filler.unlink()
    write(path)
    assert path.read_bytes() != b"old"


def test_training_goes_on_after_a_full_disk(disk: Path) -> None:
    model = nn.Linear(40, 100)
    optimizer = tg.optim.SGD(model.parameters(), 0.1)
    x, y = np.ones((8, 40), np.float32), np.arange(8)
    path, filler = disk / "checkpoint", disk / "filler"

    def fit(epochs: int) -> Any:
        return tg.fit(model, nn.CrossEntropyLoss(), optimizer, (x, y), epochs=epochs, batch_size=4,
                      checkpoint=path, progress=False)  # fmt: skip

    fit(1)
    kept = path.read_bytes()
    filler.write_bytes(b"x" * (65_536 - 2 * 4096 - len(kept)))
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        fit(3)
    assert path.read_bytes() == kept
    filler.unlink()
    assert fit(3).epochs == [1, 2, 3]


def test_the_command_says_which_file_a_full_disk_has_no_room_for(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (disk / "filler").write_bytes(b"x" * 50_000)
    options = ["--data", "digits", "--epochs", "1", "--quiet", "--out", str(disk / "run")]
    assert main(["train", *options]) == 1
    wanted = f"tilegrad train: {disk / 'run' / 'checkpoint.safetensors'}: No space left on device\n"
    assert capsys.readouterr().err == wanted
    assert {p.name for p in (disk / "run").iterdir()} == {"settings.json"}


def test_a_trace_page_needs_room_too(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("elftools")
    page = disk / "page.html"
    page.write_text("old")
    (disk / "filler").write_bytes(b"x" * 56_000)
    assert main(["trace", "softmax", "--shape", "4x8", "--html", str(page)]) == 1
    assert f"{page}: No space left on device" in capsys.readouterr().err
    assert page.read_text() == "old"


@EVERY
def test_a_read_only_disk_is_named(disk: Path, name: str) -> None:
    file_name, write = WRITERS[name]
    path = disk / file_name
    path.write_bytes(b"old")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(OSError, match="Read-only file system") as error:
        write(path)
    assert (error.value.errno, error.value.filename) == (errno.EROFS, str(path))
    assert path.read_bytes() == b"old"


@EVERY
def test_a_folder_in_the_place_of_the_file(tmp_path: Path, name: str) -> None:
    file_name, write = WRITERS[name]
    path = tmp_path / file_name
    path.mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write(path)
    assert error.value.filename == str(path)
    assert os.listdir(tmp_path) == [file_name]
    assert not os.listdir(path)


@EVERY
def test_a_folder_that_is_not_there(tmp_path: Path, name: str) -> None:
    file_name, write = WRITERS[name]
    with pytest.raises(FileNotFoundError, match="there is no such folder") as error:
        write(tmp_path / "none" / file_name)
    assert error.value.filename == str(tmp_path / "none")
    assert not os.listdir(tmp_path)


@EVERY
def test_links_are_followed_also_to_nothing(tmp_path: Path, name: str) -> None:
    file_name, write = WRITERS[name]
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link, target = tmp_path / file_name, folder / "target.bin"
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.stat().st_size > 100
    assert not target.is_symlink()
    assert len(os.listdir(folder)) == 1
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(OSError, match="symbolic links") as error:
        write(link)
    assert (error.value.errno, error.value.filename) == (errno.ELOOP, str(link))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for file_name, write in WRITERS.values():
            write(tmp_path / file_name)
    finally:
        os.umask(before)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in tmp_path.iterdir()}
    assert modes == dict.fromkeys(modes, oct(0o666 & ~umask))
    assert len(modes) == len(WRITERS)


def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    write_whole(pipe, b"content", "save")
    assert reader.communicate(timeout=30)[0] == b"content"
    assert pipe.is_fifo()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_whole("/dev/full", b"content", "save")
    assert Path("/dev/full").is_char_device()


def test_a_figure_without_an_ending_gets_matplotlibs(tmp_path: Path) -> None:
    plot.plot_history(HISTORY, tmp_path / "curves")
    assert os.listdir(tmp_path) == ["curves.png"]
    with pytest.raises(ValueError, match="xyz"):
        plot.plot_history(HISTORY, tmp_path / "curves.xyz")
    assert os.listdir(tmp_path) == ["curves.png"]


# ---- writers that were killed ------------------------------------------------------------------

STOPPED = """
    import os, signal, sys
    from tilegrad import nn
    from tilegrad._save import save
    def stop(*_):
        print("writing", flush=True)
        signal.pause()
    os.fsync = stop
    save(sys.argv[1], nn.Linear(3, 2))
"""


def test_what_a_killed_writer_left_goes_with_the_next_save(tmp_path: Path) -> None:
    path, other = tmp_path / "model", tmp_path / "other"
    tg.save(path, nn.Linear(1, 1))
    for target in (path, path, other):
        child = start(STOPPED, target)
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
    assert len(os.listdir(tmp_path)) == 3  # the second has removed what the first had left
    tg.save(path, nn.Linear(1, 1))
    assert len(os.listdir(tmp_path)) == 2  # what belongs to the other file is not looked at
    tg.save(other, nn.Linear(1, 1))
    assert set(os.listdir(tmp_path)) == {"model", "other"}


def test_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    child = start(STOPPED, path)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        tg.save(path, nn.Linear(1, 1))
        read(path)
        assert len(os.listdir(tmp_path)) == 2
    finally:
        child.kill()
        child.communicate(timeout=60)


def test_writers_of_one_file_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = """
        import sys
        from tilegrad import nn
        from tilegrad._save import save
        for _ in range(100):
            save(sys.argv[1], nn.Linear(int(sys.argv[2]), 100))
    """
    path = tmp_path / "model"
    children = [start(code, path, size) for size in (3, 50, 300)]
    seen = 0
    while any(child.poll() is None for child in children):
        if path.exists():
            tensors, _ = read(path)  # every byte is checked
            assert tensors["weight"].shape[1] in (3, 50, 300)
            seen += 1
    for child in children:
        assert child.communicate(timeout=60) == ("", "")
        assert child.returncode == 0
    assert seen > 10
    assert os.listdir(tmp_path) == ["model"]


def test_threads_that_write_one_file_never_lose_what_they_write(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write(value: int) -> int:
        for _ in range(100):
            write_whole(path, bytes([value]) * 1000, "save")
        return value

    with ThreadPoolExecutor(6) as pool:  # it raises what a thread has raised
        assert list(pool.map(write, range(6))) == list(range(6))
    assert os.listdir(tmp_path) == ["model"]
    assert len(set(path.read_bytes())) == 1


# ---- only the user's own files -----------------------------------------------------------------

WATCHED = """
    import os, sys
    folder, what = sys.argv[1], sys.argv[2]
    os.chdir(folder)
    sys.stderr = sys.stdout
    import numpy, matplotlib.figure, matplotlib.backends.backend_agg, safetensors.numpy, tqdm
    import elftools.elf.elffile, ml_dtypes, ctypes.util
    matplotlib.figure.Figure().savefig("warm.png")  # its own caches
    os.unlink("warm.png")
    seen = []
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "poplib.", "imaplib.")
    def hook(event, arguments):
        if event.startswith(NETWORK):
            seen.append(("network", event))
        elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "pty.spawn"):
            seen.append(("process", os.path.basename(str(arguments[0]))))
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            if (arguments[2] or 0) & WRITING or set(arguments[1] or "") & set("wax+"):
                seen.append(("file", os.path.realpath(os.fsdecode(arguments[0]))))
        elif event in ("os.mkdir", "os.remove", "os.rename", "os.link", "os.symlink",
                       "os.truncate", "os.chmod", "shutil.rmtree"):
            seen.append(("file", os.path.realpath(os.fsdecode(arguments[0]))))
    sys.addaudithook(hook)
    import tilegrad as tg
    from tilegrad.cli import main
    exec(what)
    inside = os.path.realpath(folder) + os.sep
    for kind, name in seen:
        if kind != "file":
            print(kind, name)
        elif not name.startswith(inside) and name != os.devnull and not name.endswith(".pyc"):
            if "/__pycache__" not in name:
                print(kind, name)
"""

USES = {
    "import": "import tilegrad.nn, tilegrad.data, tilegrad.plot, tilegrad.sim, tilegrad.bench",
    "train": 'assert main(["train", "--data", "digits", "--epochs", "1", "--quiet"]) == 0',
    "info": 'assert main(["info"]) == 0',
    "gradcheck": 'assert main(["gradcheck", "tanh"]) == 0',
    "plot": 'assert main(["plot", "losses", "--out", "losses.png"]) == 0',
    "trace": 'assert main(["trace", "softmax", "--shape", "4x8", "--html", "page.html"]) == 0',
    "save and load": "m = tg.nn.Linear(2, 2); tg.save('m', m); tg.load('m', m)",
    "sim": "import numpy as np; tg.relu(tg.asarray(np.ones(3, 'f4'), device='sim')).numpy()",
    "data": "tg.data.load_digits(); tg.data.DataLoader(tg.data.load_digits().train()[0])",
}


def reports(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(("file ", "network ", "process "))]


@pytest.mark.parametrize("name", USES)
def test_nothing_is_written_elsewhere_nothing_fetched_and_nothing_started(
    tmp_path: Path, name: str
) -> None:
    out = run(WATCHED, tmp_path, USES[name], env={"PYTHONDONTWRITEBYTECODE": "1"})
    assert not reports(out)


def test_a_compiled_kernel_starts_the_compiler_and_clears_its_folder(tmp_path: Path) -> None:
    code = (
        "m = tg.sim.compile('extern \"C\" __global__ void k(float* y) { *y = 1; }', name='k.cu'); "
        "y = tg.empty(1, device='sim'); m.k[1, 1](y); assert y.numpy()[0] == 1"
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    out = run(WATCHED, tmp_path, code, env={"TMPDIR": str(scratch), "CXX": "g++"})
    assert set(reports(out)) == {"process g++"}
    assert not os.listdir(scratch)
