# SPDX-License-Identifier: MIT
"""safetensors files between tilegrad and PyTorch, by safetensors' own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

import tilegrad as tg
from helpers import Device, assert_close, error
from tilegrad import nn

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def ours(dtype: str) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 5, dtype=dtype), nn.PReLU(5, dtype=dtype),
        nn.Sequential(nn.Dropout(), nn.Linear(5, 4, bias=False, dtype=dtype), nn.GELU()),
        nn.Linear(4, 3, dtype=dtype),
    )  # fmt: skip


def theirs(dtype: str) -> Any:
    t = torch.nn
    return t.Sequential(
        t.Linear(6, 5), t.PReLU(5), t.Sequential(t.Dropout(), t.Linear(5, 4, bias=False), t.GELU()),
        t.Linear(4, 3),
    ).to(DTYPES[dtype])  # fmt: skip


def assert_same(mine: nn.Module, other: Any) -> None:
    """Require the same names, dtypes and bits, and the same result."""
    state = other.state_dict()
    assert list(mine.state_dict()) == list(state)
    for name, value in mine.state_dict().items():
        back = torch.from_dlpack(tg.to_dlpack(tg.asarray(value, device="cpu")))
        assert torch.equal(back, state[name]), name
    x = np.random.default_rng(3).standard_normal((7, 6)).astype("f4")
    tensor = torch.from_numpy(x).to(state["0.weight"].dtype)
    y = other.eval()(tensor).detach()
    host = mine.to("cpu").eval()(tg.asarray(tensor))
    eps = torch.finfo(tensor.dtype).eps
    assert_close(host.astype("f8"), y.double().numpy(), 60 * eps)


@dtypes
def test_torch_opens_what_we_save(tmp_path: Path, dtype: str, device: Device) -> None:
    path = tmp_path / "model.safetensors"
    mine, other = ours(dtype).to(device.name), theirs(dtype)
    tg.save(path, mine)
    other.load_state_dict(safetensors.torch.load_file(path))  # strict
    assert_same(mine, other)


@dtypes
def test_we_open_what_torch_saves(tmp_path: Path, dtype: str, device: Device) -> None:
    path = tmp_path / "model.safetensors"
    mine, other = ours(dtype).to(device.name), theirs(dtype)
    safetensors.torch.save_file(other.state_dict(), path, metadata={"format": "pt"})
    tg.load(path, mine)
    assert_same(mine, other)


@dtypes
def test_a_state_dict_takes_what_safetensors_loads(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.safetensors"
    other = theirs(dtype)
    safetensors.torch.save_file(other.state_dict(), path)
    mine = ours(dtype)
    mine.load_state_dict(safetensors.torch.load_file(path))
    assert_same(mine, other)
    if dtype != "bfloat16":  # not every version of safetensors gives those to NumPy
        mine = ours(dtype)
        mine.load_state_dict(safetensors.numpy.load_file(path))
        assert_same(mine, other)
    safetensors.numpy.save_file(mine.state_dict(), tmp_path / "again.safetensors")
    again = theirs(dtype)
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "again.safetensors"))
    assert_same(mine, again)


def test_a_fused_network_has_the_names_of_its_layers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mine = nn.FusedMLP(6, 8, 3, layers=3)
    tg.save(path, mine)
    layers = [torch.nn.Linear(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)]
    torch.nn.Sequential(*layers).load_state_dict(safetensors.torch.load_file(path))
    x = torch.randn(4, 6)
    y = layers[2](layers[1](layers[0](x).relu()).relu()).detach().numpy()
    np.testing.assert_allclose(mine.eval()(x), y, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_has_the_weights_under_a_prefix(tmp_path: Path) -> None:
    """What stands beside a model has names of its own; the prefix keeps the two apart."""
    path = tmp_path / "run.safetensors"
    mine, other = ours("float32"), theirs("float32")
    optimizer = tg.optim.Adam(mine.parameters())
    for p in mine.parameters():
        p.grad = np.ones(p.shape, "f4")
    optimizer.step()
    tg.save(path, mine, optimizer)
    tensors = safetensors.torch.load_file(path)
    weights = {name[6:]: x for name, x in tensors.items() if name.startswith("model.")}
    assert len(weights) < len(tensors)
    other.load_state_dict(weights)
    assert_same(mine, other)
    fresh = ours("float32")
    tg.load(path, fresh)
    assert_same(fresh, other)


def test_a_model_with_a_part_called_model_is_read_back(tmp_path: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)
            self.optimizer = nn.Linear(2, 1)

    for extra in (False, True):
        mine, other = Wrapper(), Wrapper()
        given = [tg.optim.SGD(mine.parameters(), 0.1)] if extra else []
        tg.save(tmp_path / "w.safetensors", mine, *given)
        tg.load(tmp_path / "w.safetensors", other)
        for name, value in mine.state_dict().items():
            np.testing.assert_array_equal(value, other.state_dict()[name])


def test_what_a_foreign_file_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torch.safetensors"
    safetensors.torch.save_file(theirs("float32").state_dict(), path)
    mine = ours("float32")
    with error(ValueError, "load", str(path), "not written by tilegrad.save", "optimizer"):
        tg.load(path, mine, tg.optim.SGD(mine.parameters(), 0.1))
    with error(ValueError, "load", "0.weight must be (5, 6) float64; the file has (5, 6) float32"):
        tg.load(path, ours("float64"))
    with error(ValueError, "load", "missing in the file", "unknown to the model", "2.1.weight"):
        tg.load(path, nn.Sequential(nn.Linear(6, 5)))
