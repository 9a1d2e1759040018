# SPDX-License-Identifier: MIT
"""No data is ever run, and nothing is fetched: no pickle, no eval, no shell, no network."""

from __future__ import annotations

import ast
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import tilegrad as tg

ROOT = Path(__file__).parents[1]
PACKAGE = Path(tg.__file__).parent
# What is shipped, and what is run beside it. Tests pickle on purpose: they are refused.
FOLDERS = [PACKAGE, ROOT / "examples", ROOT / "benchmarks", ROOT / "docs"]

# Modules whose reading side runs code, and those that reach a network.
RUNS_CODE = {"cloudpickle", "code", "dill", "jsonpickle", "marshal", "pickle", "runpy", "shelve"}
RUNS_CODE |= {"_pickle", "_posixsubprocess", "copyreg", "dbm", "joblib", "pickletools", "yaml"}
NETWORK = {"ftplib", "http", "huggingface_hub", "requests", "smtplib", "socket", "ssl", "urllib"}
BUILTINS = {"__import__", "compile", "eval", "exec"}
LOADERS = {"np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
LOADERS |= {"torch.load": ("weights_only", True)}
# Shells, and a file name that another program can take first.
UNSAFE = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNSAFE |= {"tempfile.mktemp"}


def dotted(node: ast.expr) -> str:
    """Return the name that a call names, such as `np.load`; what is computed in it is "?"."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def complaints(source: str) -> Iterator[str]:
    """Yield what a module does that could run data, each with its line."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in RUNS_CODE | NETWORK and name != "urllib.parse":  # of texts
                yield f"{node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            options = {keyword.arg: keyword.value for keyword in node.keywords}
            if called in BUILTINS | UNSAFE:
                yield f"{node.lineno}: calls {called}"
            shell = options.get("shell")
            if shell is not None and not (isinstance(shell, ast.Constant) and not shell.value):
                yield f"{node.lineno}: calls {called} with a shell"
            if called in LOADERS:
                option, wanted = LOADERS[called]
                value = options.get(option)
                if not (isinstance(value, ast.Constant) and value.value is wanted):
                    yield f"{node.lineno}: calls {called} without {option}={wanted}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_no_source_can_run_data(folder: Path) -> None:
    sources = sorted(folder.rglob("*.py"))
    assert sources, folder
    found = [
        f"{path.relative_to(folder)}:{text}"
        for path in sources
        for text in complaints(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import numpy, joblib",
        "import urllib.request",
        "def f():\n    from socket import create_connection",
        "eval('1')",
        "exec(text)",
        "__import__('os')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.Popen(command, shell=wanted)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert len(list(complaints(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "re.compile('x')",
        "torch().compile(function)",
        "from .pickle import x",
        "np.load(path, allow_pickle=False)",
        "torch.load(path, weights_only=True)",
        "subprocess.run(['ls'], shell=False)",
    ],
)
def test_the_search_lets_the_rest_be(source: str) -> None:
    assert list(complaints(source)) == []


def test_the_package_holds_no_file_that_unpickles() -> None:
    known = {".cu", ".cuh", ".gz", ".h", ".hpp", ".md", ".py", ".pyc", ".pyi", ".so", ".typed"}
    assert {path.suffix for path in PACKAGE.rglob("*") if path.is_file()} <= known


# The whole life of a model, under the interpreter's own audit events.
LIFE = """
import gzip, json, sys
import numpy as np
import tilegrad as tg

tg.info()
with open("images-idx2-ubyte.gz", "wb") as file:
    file.write(gzip.compress(b"\\0\\0\\x08\\2" + bytes((0, 0, 0, 4, 0, 0, 0, 3)) + bytes(12)))
def network():
    return tg.nn.Sequential(tg.nn.Linear(3, 8, activation="relu"), tg.nn.Linear(8, 2))

model = network()
loss_fn = tg.nn.CrossEntropyLoss()
optimizer = tg.optim.Adam(model.parameters())

seen = []
WATCHED = ("pickle", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess",
           "socket", "urllib", "ftplib", "http", "webbrowser")
sys.addaudithook(lambda name, args: name.startswith(WATCHED) and seen.append(name))
x = tg.data.load_idx("images-idx2-ubyte.gz").astype(np.float32)
data = (np.concatenate([x] * 2), np.arange(8) % 2)
tg.fit(model, loss_fn, optimizer, data, epochs=2, batch_size=4)
tg.save("model.safetensors", model)
tg.load("model.safetensors", network())
tg.save("run.safetensors", model, optimizer)
tg.load("run.safetensors", model, optimizer)
print(json.dumps(seen))
"""


def test_training_saving_and_loading_run_no_data_and_reach_no_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIFE], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.made,))


def pickles(made: Path, folder: Path) -> Iterator[Path]:
    payload = pickle.dumps(Payload(made))
    plain, array = folder / "plain", folder / "array"
    plain.write_bytes(payload)
    with array.open("wb") as file:
        np.save(file, np.array([Payload(made)], dtype=object), allow_pickle=True)
    # the length of a safetensors header, then a pickle where the header belongs
    headed = folder / "headed"
    headed.write_bytes(len(payload).to_bytes(8, "little") + payload)
    yield from (plain, array, headed)


def test_a_pickle_in_the_place_of_a_file_is_refused_unread(tmp_path: Path) -> None:
    made = tmp_path / "made"
    pickle.loads(pickle.dumps(Payload(made)))
    assert made.exists()  # it does what it is for
    made.unlink()
    model = tg.nn.Linear(2, 2)
    for path in pickles(made, tmp_path):
        with pytest.raises(ValueError, match="load"):
            tg.load(path, model)
        with pytest.raises(ValueError, match="load_idx"):
            tg.data.load_idx(path)
        assert not made.exists()
