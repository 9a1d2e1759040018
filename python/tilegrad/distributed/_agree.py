# SPDX-License-Identifier: MIT
"""What makes the ranks equal at the start: a comparison, then the state of rank 0 for all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from tilegrad import _random, backends
from tilegrad._makers import zeros
from tilegrad.distributed._buckets import torch_stream
from tilegrad.distributed._group import Group
from tilegrad.nn.loss import Loss
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import dtype_of
from tilegrad.optim.optimizer import Optimizer


def describe(model: Module, loss_fn: Module, optimizer: Optimizer) -> dict[str, str]:
    """Return what must be equal on all ranks, by name."""
    info = backends.info()
    facts = {"the version of tilegrad": info["version"]}
    for name, parameter in model.named_parameters():
        frozen = "" if parameter.requires_grad else ", frozen"
        kind = parameter.device.partition(":")[0]
        facts[name] = f"{parameter.shape} {dtype_of(parameter.data)} on {kind}{frozen}"
        if kind == "cpu":  # whose bits depend on it
            facts["the instruction set (TILEGRAD_CPU)"] = info["isa"]
    options = loss_fn._options() if isinstance(loss_fn, Loss) else {}
    facts["the loss"] = f"{type(loss_fn).__name__} {options}"
    facts["the optimizer"] = type(optimizer).__name__
    number = {id(p): n for n, p in enumerate(model.parameters())}
    for i, group in enumerate(optimizer.param_groups):
        for option, value in group.items():
            if option == "params":
                value = [number.get(id(p), -1) for p in value]
            if option not in ("lr", "initial_lr", "param_names"):  # rates are rank 0's for all
                facts[f"{option} of parameter group {i}"] = str(value)
    return facts


def compare(group: Group, op: str, facts: Mapping[str, str]) -> None:
    """Raise the same ValueError on all ranks if one of them differs from rank 0."""
    first = json.loads(group.broadcast_bytes(json.dumps(dict(facts)).encode()) or b"{}")
    found = ""
    for name in [*first, *(name for name in facts if name not in first)]:
        if facts.get(name) != first.get(name):
            here, there = facts.get(name, "missing"), first.get(name, "missing")
            found = f"{name} is {here}; on rank 0 it is {there}"
            break
    texts = group.gather_texts(found)
    different = [f"on rank {rank} {text}" for rank, text in enumerate(texts) if text]
    if different:
        raise ValueError(f"{op}: all ranks must train the same; {different[0]}")


def share_state(group: Group, model: Module, optimizer: Optimizer) -> None:
    """Give every rank the weights, the optimiser's state and the random stream of rank 0."""
    state = optimizer.state_dict()
    outline = {
        "random": _random.get_state(),
        "rates": [[g["lr"], g.get("initial_lr")] for g in optimizer.param_groups],
        "state": [
            [index, values["step"], {n: dtype_of(v) for n, v in values.items() if n != "step"}]
            for index, values in state["state"].items()
        ],
    }
    outline = json.loads(group.broadcast_bytes(json.dumps(outline).encode()) or b"{}")
    if group.rank != 0:
        _random.set_state(outline["random"])
        for own, (rate, initial) in zip(optimizer.param_groups, outline["rates"], strict=True):
            own["lr"] = rate
            if initial is not None:
                own["initial_lr"] = initial
        order = [p for g in optimizer.param_groups for p in g["params"]]
        state = optimizer.state_dict()
        state["state"] = {
            index: {
                "step": step,
                **{n: zeros(order[index].shape, t, device=order[index].device)
                   for n, t in buffers.items()},
            }
            for index, step, buffers in outline["state"]
        }  # fmt: skip
        optimizer.load_state_dict(state)
        state = optimizer.state_dict()  # it has copied them
    arrays = [p.data for p in model.parameters()]
    for index, _, buffers in outline["state"]:
        arrays += [state["state"][index][name] for name in buffers]
    share_arrays(group, arrays)


def share_arrays(group: Group, arrays: Iterable[Any]) -> None:
    """Copy the elements of rank 0 into the arrays of all others."""
    for array in arrays:
        if array.size == 0:
            continue
        with torch_stream(backends.place_of_array(array)):
            group.broadcast(_bytes(array))


def _bytes(array: Any) -> torch.Tensor:
    """Return the memory of an array; of bytes, so that bfloat16 needs no one's support."""
    if isinstance(array, np.ndarray):
        return torch.utils.dlpack.from_dlpack(array.reshape(-1).view(np.uint8))
    return torch.utils.dlpack.from_dlpack(array).reshape(-1).view(torch.uint8)
