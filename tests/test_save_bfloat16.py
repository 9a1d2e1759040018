# SPDX-License-Identifier: MIT
"""Files with bfloat16 weights: beside safetensors' own readers, and without ml_dtypes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import tilegrad as tg
from bfloat16_numpy import BF16, same_bits
from helpers import Array, Device, error, host
from tilegrad import nn
from tilegrad._checkpoint import decode, encode


def trained(seed: int) -> tuple[nn.Module, tg.optim.Optimizer]:
    tg.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4, dtype="bfloat16"), nn.Linear(4, 2))
    optimiser = tg.optim.AdamW(model.parameters(), lr=0.1)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        for p in model.parameters():
            p.grad = rng.standard_normal(p.shape).astype("f4")
        optimiser.step()
    return model, optimiser


def test_files_hold_bfloat16_weights_and_float32_masters(tmp_path: Path, device: Device) -> None:
    path = tmp_path / "run.safetensors"
    (model, optimiser), (other, target) = trained(1), trained(2)
    for m in (model, other):
        m.to(device.name)
    tg.save(path, model, optimiser)
    with safetensors.safe_open(path, framework="pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        theirs = file.get_tensor("model.0.weight")
    assert kinds["model.0.weight"] == kinds["model.0.bias"] == "BF16"
    assert {kind for name, kind in kinds.items() if name.startswith("optimizer.")} == {"F32"}
    assert theirs.dtype == torch.bfloat16
    np.testing.assert_array_equal(theirs.float().numpy(), host(model[0].weight.data).astype("f4"))
    tg.load(path, other, target)
    again = tmp_path / "again.safetensors"
    tg.save(again, other, target)
    assert again.read_bytes() == path.read_bytes()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        p.grad = q.grad = np.ones(p.shape, "f4")
    optimiser.step()
    target.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert same_bits(p.data, q.data)
        assert all(same_bits(optimiser.state[p][k], target.state[q][k]) for k in target.state[q])


def test_files_of_torch_are_loaded_and_other_dtypes_refused(tmp_path: Path) -> None:
    path = tmp_path / "torch.safetensors"
    layer = nn.Linear(3, 2, dtype="bfloat16")
    theirs = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    safetensors.torch.save_file(theirs.state_dict(), path)
    tg.load(path, layer)
    np.testing.assert_array_equal(layer.weight.data.astype("f4"), theirs.weight.detach().float())
    with error(ValueError, f"load: {path}", "weight must be (2, 3) float32", "bfloat16"):
        tg.load(path, nn.Linear(3, 2))


def test_a_file_of_bfloat16_without_ml_dtypes_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.safetensors"
    tg.save(path, nn.Linear(3, 2, dtype="bfloat16"))
    other = nn.Linear(3, 2)
    before = other.weight.data.copy()
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with error(ImportError, "bfloat16", "ml_dtypes", "tilegrad[bf16]"):
        tg.load(path, other)
    assert same_bits(other.weight.data, before)


def test_a_state_may_hold_bfloat16_numbers(tmp_path: Path) -> None:
    tensors: dict[str, Array] = {}
    value = {"best": BF16.type(0.1), "at": np.arange(3).astype(BF16)}
    got = decode(encode(value, "x", tensors), tensors)
    assert got["best"].dtype == BF16
    assert got["best"] == BF16.type(0.1)
    assert same_bits(got["at"], value["at"])
