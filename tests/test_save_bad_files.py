# SPDX-License-Identifier: MIT
"""load: every damaged, foreign or unfitting file is refused whole."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from saved_runs import Counter, Run, X, Y, bits
from tilegrad import _checkpoint, nn, optim
from tilegrad._save import load, save
from tilegrad.data import DataLoader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.fixture
def run(path: Path) -> Run:
    run = Run()
    run.steps(10)  # two epochs of four batches, and half of the third
    run.save(path)
    return run


def refused(path: Path, target: Run, before: str, match: str | None = None) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        target.load(path)
    assert str(caught.value).startswith(f"load: {path}: ")
    assert target.state() == before


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_changed_byte_is_noticed(run: Run, path: Path, flip: int) -> None:
    whole = path.read_bytes()
    target = Run(3)
    before = target.state()
    header = struct.unpack("<Q", whole[:8])[0] + 8
    assert header % 8 == 0  # the padding is part of what is tried
    tried = [*range(8), *range(8 + flip % 7, header - 24, 7), *range(header - 24, header + 40)]
    for i in [*tried, *range(header + 40, len(whole), 3)]:
        damaged = bytearray(whole)
        damaged[i] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"load: .*run\.safetensors: "):
            target.load(path)
    assert target.state() == before
    path.write_bytes(whole)
    target.load(path)
    assert target.state() == run.state()


def test_every_damaged_region_is_noticed(run: Run, path: Path) -> None:
    whole = path.read_bytes()
    target = Run(3)
    before = target.state()
    for start in range(0, len(whole), 96):
        for filler in (b"\0", b"\xff", b" "):
            piece = filler * min(96, len(whole) - start)
            path.write_bytes(whole[:start] + piece + whole[start + len(piece) :])
            refused(path, target, before)


def test_truncated_and_extended_files_are_refused(run: Run, path: Path) -> None:
    whole = path.read_bytes()
    target = Run(3)
    before = target.state()
    for length in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, target, before, "no whole safetensors file")
    path.write_bytes(whole + b"\0")
    refused(path, target, before, "no whole safetensors file")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04}.", b"\x89PNG\r\n\x1a\n" + bytes(100), b"text " * 100, b"\xff" * 64,
     struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 5000) + b"[" * 5000],
)  # fmt: skip
def test_foreign_files_are_refused(path: Path, content: bytes) -> None:
    target = Run(3)
    before = target.state()
    path.write_bytes(content)
    refused(path, target, before)


def test_nonsense_under_right_checksums_is_refused_or_loaded_whole(run: Run, path: Path) -> None:
    tensors, state = _checkpoint.read(path)
    assert state is not None

    def places(value: Any) -> list[tuple[Any, Any]]:
        keys = value if isinstance(value, dict) else range(len(value))
        found = []
        for key in keys:
            found.append((value, key))
            if isinstance(value[key], (dict, list)):
                found += places(value[key])
        return found

    target = Run(3)
    before = target.state()
    outcomes = set()
    count = len(places(state))
    for i in range(count):
        for junk in (None, "junk", [{}], {"$tensor": "nope"}, {"$scalar": ["x", 1]}):
            changed = copy.deepcopy(state)
            owner, key = places(changed)[i]
            owner[key] = junk
            # Written by hand: ``write`` would put the descriptions of the tensors in again.
            metadata = {"tilegrad": _checkpoint.seal(changed)}
            path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
            try:
                target.load(path)
            except ValueError as refusal:
                outcomes.add(str(refusal).startswith(f"load: {path}: "))
                assert target.state() == before
            else:
                outcomes.add("loaded")
                target = Run(3)
    assert outcomes == {True, "loaded"}


def test_a_file_of_another_format_says_so(run: Run, path: Path) -> None:
    tensors, state = _checkpoint.read(path)
    _checkpoint.write(path, tensors, {**(state or {}), "format": 2})
    with safetensors.safe_open(path, "np") as file:
        assert json.loads(file.metadata()["tilegrad"])["format"] == 2
    target = Run(3)
    refused(path, target, target.state(), "its format must be 1; got 2")


def test_missing_file_and_folder_keep_pythons_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nope", nn.Linear(1, 1))
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "nope" / "file", nn.Linear(1, 1))
    with pytest.raises(IsADirectoryError):
        load(tmp_path, nn.Linear(1, 1))
    with pytest.raises(IsADirectoryError):
        save(tmp_path, nn.Linear(1, 1))
    assert list(tmp_path.iterdir()) == []


def other_model(target: Run, model: nn.Module) -> None:
    target.model = model


MISFITS: dict[str, tuple[Callable[[Run], object], str]] = {
    "shape": (
        lambda t: other_model(t, nn.Sequential(nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 2))),
        r"0.weight must be \(5, 3\) float32; the file has \(4, 3\) float32",
    ),
    "dtype": (
        lambda t: other_model(
            t,
            nn.Sequential(
                nn.Linear(3, 4, dtype=np.float64), nn.Dropout(), nn.Linear(4, 2, dtype=np.float64)
            ),
        ),
        r"0.weight must be \(4, 3\) float64; the file has \(4, 3\) float32",
    ),
    "names": (
        lambda t: other_model(t, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))),
        r"missing in the file \['1.bias', '1.weight'\], unknown to the model \['2.bias'",
    ),
    "optimizer": (
        lambda t: setattr(t, "optimizer", optim.AdamW(t.model.parameters())),
        "optimizer must be Adam; got AdamW",
    ),
    "groups": (
        lambda t: setattr(t, "optimizer", optim.Adam(t.model.parameters())),
        r"groups of \[4\] parameters expected; got \[2, 2\]",
    ),
    "scheduler": (
        lambda t: setattr(t, "scheduler", optim.lr_scheduler.CosineAnnealingLR(t.optimizer, 5)),
        "scheduler must be StepLR; got CosineAnnealingLR",
    ),
    "loader": (
        lambda t: setattr(t, "loader", DataLoader(X, Y, batch_size=7, shuffle=True)),
        "in the middle of an epoch batch_size must be equal",
    ),
    "callbacks": (
        lambda t: setattr(t, "stopping", Counter(1)),
        r"must be \['EarlyStopping'\]; got \['Counter'\]",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_file_that_does_not_fit_changes_nothing(run: Run, path: Path, name: str) -> None:
    change, match = MISFITS[name]
    target = Run(3)
    change(target)
    refused(path, target, target.state(), match)


def test_absent_parts_are_named(tmp_path: Path) -> None:
    target = Run(3)
    before = target.state()
    path = tmp_path / "weights"
    save(path, target.model)
    with pytest.raises(ValueError, match="no state for optimizer, scheduler, loader, history"):
        load(path, target.model, target.optimizer, target.scheduler, target.loader,
             history=target.history)  # fmt: skip
    with pytest.raises(ValueError, match=r"must be \[\]; got \['EarlyStopping'\]"):
        load(path, target.model, callbacks=[target.stopping])
    assert target.state() == before


class Broken(Counter):
    def __init__(self, error: Exception) -> None:
        super().__init__(2)
        self.error = error

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.value == 1:
            raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), ValueError("broken")])
def test_a_failure_of_the_last_part_undoes_the_others(path: Path, error: Exception) -> None:
    source, target, broken = Run(1), Run(3), Broken(error)
    source.steps(9)
    target.steps(2)
    broken.value = 1
    callbacks = [source.stopping, broken]
    parts = source.model, source.optimizer, source.scheduler, source.loader
    save(path, *parts, callbacks=callbacks, history=source.history)
    broken.value = 2
    before = target.state()
    parts = target.model, target.optimizer, target.scheduler, target.loader
    with pytest.raises(type(error), match="broken"):
        load(path, *parts, callbacks=[target.stopping, broken], history=target.history)
    assert target.state() == before
    assert broken.value == 2


def test_plain_weights_are_no_training_state(path: Path) -> None:
    target = Run(3)
    safetensors.numpy.save_file(target.model.state_dict(), path)
    refused(path, target, target.state(), "weights alone, .* asked for optimizer, scheduler")


def test_a_model_that_refuses_its_weights_undoes_the_rest(run: Run, path: Path) -> None:
    class Stubborn(nn.Sequential):
        def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
            raise RuntimeError("not today")

    target = Run(3)
    target.model = Stubborn(*target.model)
    before = target.state()
    with pytest.raises(RuntimeError, match="not today"):
        target.load(path)
    assert target.state() == before


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_changed_byte_of_saved_weights_is_noticed(path: Path, flip: int) -> None:
    layer = nn.Linear(3, 2)
    save(path, layer)
    whole = path.read_bytes()
    before = bits(layer.state_dict())
    for i in range(len(whole)):
        damaged = bytearray(whole)
        damaged[i] ^= flip
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"load: .*run\.safetensors: "):
            load(path, layer)
    assert bits(layer.state_dict()) == before


@pytest.mark.parametrize("damaged", ["tilegrad", "tilegrad.crc32"])
def test_saved_weights_with_half_their_metadata_are_no_plain_file(path: Path, damaged: str) -> None:
    layer = nn.Linear(3, 2)
    save(path, layer)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (text,) = metadata.values()
    assert list(metadata) == ["tilegrad"]
    assert text.count("tilegrad.crc32") == 1
    other = damaged[:-1] + "x"
    if damaged == "tilegrad":
        metadata = {other: text}
    else:
        metadata = {"tilegrad": text.replace(damaged, other)}
    safetensors.numpy.save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="checksum of its metadata is wrong"):
        load(path, layer)
