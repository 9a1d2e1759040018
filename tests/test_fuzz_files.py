# SPDX-License-Identifier: MIT
"""Damaged files: each is refused in words or read as it was; what they claim does no harm."""

from __future__ import annotations

import functools
import gzip
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from idx_files import idx_bytes, idx_header
from saved_runs import Run, bits
from tilegrad import data, nn
from tilegrad._save import load, save

FLIPS = tuple(1 << bit for bit in range(8))


def corruptions(
    file: Path, whole: bytes, places: Iterable[int], every: bool = False
) -> Iterator[int]:
    """Write the file with one other byte at each place: each bit turned, 0x00, 0xff, or every."""
    file.write_bytes(whole)
    # In place: rewriting the whole file thousands of times is slow on some file systems.
    with file.open("r+b", buffering=0) as stream:
        for place in places:
            right = whole[place]
            values = range(256) if every else (*(right ^ flip for flip in FLIPS), 0x00, 0xFF)
            for value in {*values} - {right}:
                stream.seek(place)
                stream.write(bytes([value]))
                yield place
            stream.seek(place)
            stream.write(bytes([right]))


def truncations(file: Path, whole: bytes, lengths: Iterable[int]) -> Iterator[int]:
    for length in lengths:
        file.write_bytes(whole[:length])
        yield length


def taken(action: Callable[[], object], says: str) -> bool:
    """Say whether a file is taken; whatever it raises must be a ValueError that names it."""
    try:
        action()
    except ValueError as error:
        refusal = error
    else:
        return True
    assert str(refusal).startswith(says)
    assert not isinstance(refusal, UnicodeError)
    return False


# ---- IDX ---------------------------------------------------------------------------------------

LABELS = np.arange(7, dtype=np.uint8)
IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
WIDE = np.arange(4, dtype=np.float64).reshape(2, 2)


@pytest.mark.parametrize("values", [LABELS, IMAGES, WIDE], ids=["labels", "images", "wide"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_damaged_idx_file_is_refused_or_keeps_shape_and_dtype(
    tmp_path: Path, values: np.ndarray, packed: bool
) -> None:
    whole = gzip.compress(idx_bytes(values), mtime=0) if packed else idx_bytes(values)
    header = 4 + 4 * values.ndim
    file = tmp_path / "file"
    says = f"load_idx: {file}: "

    def read(place: int) -> None:
        got = data.load_idx(file)
        assert got.shape == values.shape
        if packed:  # gzip has a checksum of the data
            np.testing.assert_array_equal(got, values)
        else:  # the one byte of the type code: int8 has the size of uint8
            assert got.dtype == (np.int8 if place == 2 else values.dtype)
            assert place == 2 or place >= header
            different = got.astype(values.dtype).tobytes() != values.tobytes()
            assert different == (place >= header)

    for place in corruptions(file, whole, range(len(whole))):
        taken(functools.partial(read, place), says)
    for _ in truncations(file, whole, range(len(whole))):
        assert not taken(lambda: data.load_idx(file), says)


def test_an_idx_file_that_unpacks_to_more_than_it_claims_is_not_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.gz"
    with gzip.open(file, "wb", 1) as stream:
        stream.write(idx_header(0x08, (3,)))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    assert file.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="needs 3 data bytes; got more than 3"):
            data.load_idx(file)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---- safetensors -------------------------------------------------------------------------------


def plain_weights(dtype: str) -> dict[str, np.ndarray]:
    """Return weights as another library saves them: no metadata, no checksum."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    values = np.random.default_rng(0).standard_normal(8)
    shapes = {"0.bias": (2,), "0.weight": (2, 3), "1.bias": (1,), "1.weight": (1, 2)}
    return {name: np.resize(values, shape).astype(kind) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_damaged_file_from_elsewhere_is_refused_or_differs_in_its_data_alone(
    tmp_path: Path, dtype: str, every: bool
) -> None:
    file = tmp_path / "weights.safetensors"
    weights = plain_weights(dtype)
    safetensors.numpy.save_file(weights, file)
    whole = file.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    model = nn.Sequential(nn.Linear(3, 2, dtype=dtype), nn.Linear(2, 1, dtype=dtype))
    load(file, model)
    right = {name: value.tobytes() for name, value in weights.items()}
    loaded = 0
    for place in corruptions(file, whole, range(header), every):
        before = bits(model.state_dict())
        if taken(lambda: load(file, model), f"load: {file}: "):
            loaded += 1
            assert {k: v.tobytes() for k, v in model.state_dict().items()} == right, place
        else:
            assert bits(model.state_dict()) == before
    assert loaded or not every  # the padding may be of other spaces
    for place in corruptions(file, whole, range(header, len(whole))):
        load(file, model)
        found = {k: v.tobytes() for k, v in model.state_dict().items()}
        changed = sum(a != b for k, v in right.items() for a, b in zip(v, found[k], strict=True))
        assert changed == 1, place
    for _ in truncations(file, whole, range(len(whole))):
        assert not taken(lambda: load(file, model), f"load: {file}: ")


def entry(shape: str = "[2,3]", offsets: str = "[0,24]", dtype: str = "F32") -> str:
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


HEADERS = {
    "2^60 elements": f'{{"weight":{entry(f"[{2**60},3]")}}}',
    "a product that wraps": f'{{"weight":{entry(f"[{2**62 + 1},6]")}}}',
    "offsets of 2^60": f'{{"weight":{entry(offsets=f"[0,{2**60}]")}}}',
    "negative": f'{{"weight":{entry("[-2,-3]")}}}',
    "backwards": f'{{"weight":{entry(offsets="[24,0]")}}}',
    "no entry": '{"weight":3}',
    "no text": '{"__metadata__":{"tilegrad":3}}',
    "deep": '{"__metadata__":' + "[" * 3000 + "]" * 3000 + "}",
    "unknown dtype": f'{{"weight":{entry(dtype="F99")}}}',
    "8 bits": f'{{"weight":{entry("[24]", dtype="F8_E4M3")}}}',
    "path": f'{{"../../weight":{entry()}}}',
    "absolute": f'{{"/tmp/weight":{entry()}}}',
    "NUL": f'{{"wei\\u0000ght":{entry()}}}',
    "surrogate": f'{{"\\ud800":{entry()}}}',
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    """Names are keys of a dict, never paths; sizes are compared with the data, never allocated."""
    header = HEADERS[name].encode()
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(24))
    layer = nn.Linear(3, 2, bias=False)
    before = bits(layer.state_dict())
    tracemalloc.start()
    try:
        assert not taken(lambda: load(file, layer), f"load: {file}: ")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert bits(layer.state_dict()) == before
    assert sorted(tmp_path.rglob("*")) == [file.parent, file]


# ---- what tilegrad.save writes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "step", [53, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_every_damage_to_a_checkpoint_is_noticed_and_changes_nothing(
    tmp_path: Path, step: int
) -> None:
    file = tmp_path / "run.safetensors"
    run = Run()
    run.steps(10)
    run.save(file)
    whole = file.read_bytes()
    target = Run(3)
    before = target.state()
    for place in corruptions(file, whole, range(0, len(whole), step)):
        assert not taken(lambda: target.load(file), f"load: {file}: "), place
    for length in truncations(file, whole, range(0, len(whole), step)):
        assert not taken(lambda: target.load(file), f"load: {file}: "), length
    assert target.state() == before
    file.write_bytes(whole)
    target.load(file)
    assert target.state() == run.state()


def test_a_link_is_followed_and_no_other_file_is_written(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    layer = nn.Linear(3, 2)
    link = own / "link"
    link.symlink_to(other / "file")
    save(own / ".." / "own" / "link", layer)
    assert link.is_symlink()
    assert sorted(tmp_path.rglob("*")) == [other, other / "file", own, link]
    load(link, layer)
    (own / "circle").symlink_to(own / "circle")
    for action in (save, load):
        with pytest.raises(OSError, match="circle"):
            action(own / "circle", layer)


WATCHED = """
import os, sys
seen = []
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        writes = isinstance(args[1], str) and set(args[1]) & set("wax+")
        if writes or isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append(os.path.abspath(os.fsdecode(args[0])))
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "shutil.rmtree"):
        seen.append(os.path.abspath(os.fsdecode(args[0])))
    elif event.startswith(("socket.", "urllib.", "ftplib.", "http.", "subprocess.", "os.exec")):
        seen.append(event)
sys.dont_write_bytecode = True
sys.addaudithook(watch)
import numpy as np
import tilegrad as tg
tg.info()
from tilegrad import data
digits = data.load_digits()
x, y = digits.train_images, digits.train_labels
model = tg.nn.Sequential(tg.nn.Flatten(), tg.nn.Linear(64, 10))
optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
x = np.ascontiguousarray(x, "f4").reshape(len(x), -1)
tg.fit(model, tg.nn.CrossEntropyLoss(), optimizer, (x, y), epochs=1, progress=False,
       checkpoint="checkpoint")
tg.save("file", model)
tg.load("file", model)
tg.relu(tg.asarray(x, device="sim")).numpy()
for path in seen:
    print(path)
"""


def test_only_the_users_files_are_written_and_nothing_is_fetched(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    seen = run.stdout.split()
    assert {str(tmp_path / "file"), str(tmp_path / "checkpoint")} <= set(
        map(str, tmp_path.iterdir())
    )
    assert seen
    assert all(Path(path).parent == tmp_path for path in seen), seen
