# SPDX-License-Identifier: MIT
"""What the tests of distributed training run on each rank, and what they compare it with."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import nn, optim
from tilegrad.data import DataLoader

ROWS, FEATURES, CLASSES = 50, 5, 3  # batches of 16: the last has 2 rows, of 4 ranks two have none


def data(dtype: str) -> tuple[Any, Any]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((ROWS, FEATURES)).astype(dtype), rng.integers(0, CLASSES, ROWS)


class Branches(nn.Module):
    """A layer of which the second path is taken for some batches only."""

    def __init__(self, dtype: str) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, CLASSES, dtype=dtype)
        self.second = nn.Linear(FEATURES, CLASSES, dtype=dtype)
        self.never = nn.Linear(FEATURES, CLASSES, dtype=dtype)

    def forward(self, input: Any) -> Any:
        self.__dict__["both"] = bool(len(input)) and input[0, 0] > 0
        y = self.first(input)
        return y + self.second(input) if self.both else y

    def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
        if self.both:
            self.second.backward(grad_output, False)
        return self.first.backward(grad_output, input_grad)


def network(name: str, dtype: str) -> nn.Module:
    if name == "branches":
        return Branches(dtype)
    if name == "tied":
        model = nn.Sequential(
            nn.Linear(FEATURES, 7, dtype=dtype), nn.Tanh(), nn.Linear(7, 7, dtype=dtype), nn.Tanh(),
            nn.Linear(7, 7, False, dtype=dtype), nn.Tanh(), nn.Linear(7, CLASSES, dtype=dtype),
        )  # fmt: skip
        model[4].weight = model[2].weight
        return model
    # Widths that no number of random words divides; dropout before, between and after.
    layers = [
        nn.Linear(FEATURES, 7, activation="tanh", dtype=dtype), nn.Dropout(0.4),
        nn.Linear(7, 6, activation="gelu", dtype=dtype), nn.Dropout(0.2),
        nn.Linear(6, CLASSES, dtype=dtype),
    ]  # fmt: skip
    if name == "frozen":
        layers[2].requires_grad_(False)
    return nn.Sequential(*layers)


# name: network, dtype, optimiser, loss, max_norm, accumulate
CASES: dict[str, tuple[Any, ...]] = {
    "sgd": ("mlp", "float64", ("SGD", {"lr": 0.1, "momentum": 0.9}), {}, None, 1),
    "adam32": ("mlp", "float32", ("Adam", {"lr": 0.01, "weight_decay": 0.01}), {}, 0.3, 1),
    "adamw": ("frozen", "float64", ("AdamW", {"lr": 0.02}), {"label_smoothing": 0.1}, 0.5, 2),
    "weights": ("mlp", "float64", ("SGD", {"lr": 0.2}),
                {"weight": [0.2, 1.0, 3.0], "ignore_index": 1}, None, 1),
    "tied": ("tied", "float64", ("SGD", {"lr": 0.3}), {}, None, 1),
    "sum": ("mlp", "float64", ("RMSprop", {"lr": 0.003}), {"reduction": "sum"}, 1.0, 3),
}  # fmt: skip


def parts_of(case: str, seed: int) -> tuple[Any, ...]:
    name, dtype, (kind, options), loss, max_norm, accumulate = CASES[case]
    tg.manual_seed(seed)
    model = network(name, dtype)
    loss = dict(loss)
    if "weight" in loss:
        loss["weight"] = np.array(loss["weight"], dtype)
    optimizer = getattr(optim, kind)(model.parameters(), **options)
    return model, nn.CrossEntropyLoss(**loss), optimizer, max_norm, accumulate, dtype


def batches(dtype: str, epochs: int = 2) -> Any:
    loader = DataLoader(*data(dtype), batch_size=16, shuffle=True, seed=5)
    return itertools.chain.from_iterable(itertools.repeat(loader, epochs))


def alone(case: str) -> tuple[list[float], dict[str, Any]]:
    """Train with one process on whole batches, in the long form."""
    model, loss_fn, optimizer, max_norm, accumulate, dtype = parts_of(case, 1)
    losses = []
    for number, (x, target) in enumerate(batches(dtype), 1):
        losses.append(float(loss_fn(model(x), target)))
        model.backward(loss_fn.backward(), input_grad=False)
        if number % accumulate == 0:
            if max_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()
    return losses, model.state_dict()


def join(rank: int, where: str, timeout: float = 40.0) -> Any:
    from tilegrad import distributed

    distributed.init_process_group("gloo", init_method=where, timeout=timeout)
    return distributed


def say(value: Any) -> None:
    print(json.dumps(value), flush=True)


def train(rank: int, where: str, folder: str, names: list[str], mb: float) -> None:
    """Train every case; the weights go to a file, losses and traffic to the output."""
    distributed = join(rank, where)
    ranks = distributed.get_world_size()
    for name in names:
        # Other weights and another stream on each rank: those of rank 0 count.
        model, loss_fn, optimizer, max_norm, accumulate, dtype = parts_of(name, 1 + rank)
        step = distributed.DistributedTrainStep(
            model, loss_fn, optimizer, max_norm=max_norm, accumulate=accumulate, bucket_cap_mb=mb
        )
        loader = DataLoader(*data(dtype), batch_size=16, shuffle=True, seed=5).shard(ranks, rank)
        losses, traffic = [], []
        for _ in range(2):
            for x, target in loader:
                losses.append(float(step(x, target)))
                traffic.append([step.traffic.messages, step.traffic.bytes])
        step.close()
        np.savez(Path(folder, f"{name}-{rank}.npz"), **model.state_dict())
        say({"case": name, "losses": losses, "traffic": traffic})
    distributed.destroy_process_group()


def branches(rank: int, where: str, folder: str) -> None:
    """A path that one rank takes and one that none takes, beside one process on the whole batch."""
    distributed = join(rank, where)
    x, target = data("float64")
    x[:8, 0] = [1, -1, -1, -1, -1, -1, -1, -1]  # step 0: rank 0 takes the second path; step 1: none
    for shared in (False, True):
        tg.manual_seed(1)
        model = Branches("float64")
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        if shared:
            step = distributed.DistributedTrainStep(model, nn.CrossEntropyLoss(), optimizer)
        gradients = []
        for start in (0, 4):
            rows = slice(start, start + 4)
            if shared:
                step(x[rows][rank::2], target[rows][rank::2])
            else:
                halves(model, x[rows], target[rows])
                optimizer.step()
            gradients.append([name for name, p in model.named_parameters() if p.grad is not None])
            if not shared:
                optimizer.zero_grad()
        say([gradients, {name: value.tolist() for name, value in model.state_dict().items()}])
    distributed.destroy_process_group()


def halves(model: nn.Module, x: Any, target: Any) -> None:
    """Sum up the gradients of even and odd rows, each by its own path."""
    for part in (0, 1):
        loss_fn = nn.CrossEntropyLoss(reduction="sum")
        loss_fn(model(x[part::2]), target[part::2])
        model.backward(loss_fn.backward() / len(x), input_grad=False)


def memory(rank: int, where: str, device: str) -> None:
    """Gradients lie in the buckets and torch sees the same memory, on the cpu and on sim."""
    distributed = join(rank, where)
    tg.manual_seed(0)
    model = network("mlp", "float32").to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = distributed.DistributedTrainStep(
        model, nn.CrossEntropyLoss(), optimizer, bucket_cap_mb=0.0002
    )
    started: list[int] = []
    reducer = step._reducer
    for number, bucket in enumerate(reducer.buckets):
        launch = bucket.launch
        bucket.launch = lambda group, n=number, go=launch: (
            started.append([n, model[0].weight.grad is not None]), go(group)
        )[1]  # fmt: skip
    x, target = data("float32")
    losses = [float(step(x[rank:16:2], target[rank:16:2])) for _ in range(3)]
    aligned, same = True, True
    for bucket in reducer.buckets:
        for parameter, part in zip(bucket.parameters, bucket.parts, strict=True):
            address = pointer(parameter.grad)
            same = same and part.data_ptr() == address
            aligned = aligned and (address - bucket.tensor.data_ptr()) % 64 == 0
    say({"losses": losses, "same": same, "aligned": aligned, "started": started,
         "buckets": [len(b.parameters) for b in reducer.buckets],
         "weights": {n: tg.asarray(v, device="cpu").tolist()
                     for n, v in model.state_dict().items()}})  # fmt: skip
    distributed.destroy_process_group()


def pointer(array: Any) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array._pointer


def fails(rank: int, where: str, how: str) -> None:
    """One rank is lost in the third step, in one way or another."""
    distributed = join(rank, where, 4.0 if how == "stopped" else 40.0)
    model = network("mlp", "float32")
    options = {"lr": 0.1, "momentum": 0.5 if how == "options" and rank == 1 else 0.9}
    if how == "shapes" and rank == 1:
        model = nn.Linear(FEATURES, CLASSES + 1)
    if how == "frozen at the start" and rank == 1:
        model[4].requires_grad_(False)
    optimizer = optim.SGD(model.parameters(), **options)
    step = distributed.DistributedTrainStep(model, nn.CrossEntropyLoss(), optimizer)
    x, target = data("float32")
    ranks = distributed.get_world_size()
    for number in range(4):
        if number == 2 and rank == 1 and how == "left":
            from tilegrad.distributed import _group

            _group._at_exit()  # forked: os._exit calls nothing
            sys.stdout.flush()
            os._exit(3)
        if number == 2 and rank == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            if how == "interrupted":
                raise_in(step, KeyboardInterrupt())
            if how == "bad class":
                target = target + CLASSES
            if how == "bad shape":
                x = x[:, :3]
            if how == "frozen later":
                model[4].requires_grad_(False)
            if how == "another learning rate":
                optimizer.param_groups[0]["lr"] = 0.05
            if how == "too few rows":
                x, target = x[:20], target[:20]
        step(x[rank::ranks], target[rank::ranks])
    distributed.destroy_process_group()


def raise_in(step: Any, error: BaseException) -> None:
    def forward(*_: Any) -> None:
        raise error

    step.model.__dict__["forward"] = forward


def quick_fit(
    folder: str | None, epochs: int, ranks: int, callbacks: Any = (), **options: Any
) -> Any:
    """A run of fit with everything that is measured and saved."""
    x, target = data("float64")
    tg.manual_seed(4)
    model = network("mlp", "float64")
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    stopping = tg.EarlyStopping(patience=3)
    history = tg.fit(
        model, nn.CrossEntropyLoss(np.array([1.0, 0.3, 2.0])), optimizer, (x[:37], target[:37]),
        (x[37:], target[37:]), epochs=epochs, batch_size=8, callbacks=[stopping, *callbacks],
        checkpoint=None if folder is None else Path(folder, f"fit{ranks}.safetensors"),
        scheduler=scheduler, seed=9, progress=False, **options,
    )  # fmt: skip
    measured = history.to_dict()
    del measured["seconds"], measured["samples_per_second"]
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return [measured, weights, stopping.best_epoch]


def fit(rank: int, where: str, folder: str, epochs: int, resume: int) -> None:
    """Fit; from the checkpoint of a run of `resume` ranks where that is not 0."""
    distributed = join(rank, where)
    ranks = resume or distributed.get_world_size()
    say(quick_fit(folder if rank == 0 else f"{folder}/nowhere", epochs, ranks, distributed=True))
    distributed.destroy_process_group()


def command(rank: int, where: str, out: str, *arguments: str) -> int:
    """The command line."""
    from tilegrad.cli import main

    given = ["--distributed", where, "--timeout", "40", "--out", out if rank == 0 else f"{out}-not"]
    return main(["train", "--data", "digits", *given, *arguments])


def sent() -> int:
    """Return the bytes that this process has written to its TCP connections, as the kernel counts.

    That is tcp_info.tcpi_bytes_acked. Receivers may be slow to acknowledge: it is waited for.
    """
    before, total = -1, 0
    while total != before:
        before, total = total, acknowledged()
        time.sleep(0.3)
    return total


def acknowledged() -> int:
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            total += int.from_bytes(info[120:128], sys.byteorder)
    return total


def wire(rank: int, where: str, elements: int) -> None:
    """What gloo sends for a number of all-reduces, beside what was handed to it."""
    import torch

    distributed = join(rank, where)
    group = distributed._group.current("wire")
    tensor = torch.zeros(elements)
    group.all_reduce(tensor)()
    before, counted = sent(), distributed.get_traffic()
    group.total([0.0])  # nobody goes on before all have counted
    for _ in range(4):
        group.all_reduce(tensor)()
    said = distributed.get_traffic() - counted
    say([sent() - before, said.messages, said.bytes])
    group.total([0.0])
    distributed.destroy_process_group()


class Killed(tg.Callback):
    """The end of a process in the middle of an epoch."""

    def on_batch_end(self, training: tg.Training) -> None:
        if (training.epoch, training.batch) == (3, 2):
            os.kill(os.getpid(), signal.SIGKILL)


def killed_fit(rank: int, where: str, folder: str) -> None:
    join(rank, where)
    callbacks = [Killed()] if rank == 1 else []
    quick_fit(
        folder if rank == 0 else f"{folder}/nowhere", 4, 2, callbacks=callbacks, distributed=True
    )


def killed_command(rank: int, where: str, out: str, victim: int) -> int:
    """The command line, of which one process is killed in its third epoch."""
    from tilegrad import _cli_train

    if rank == victim:
        _cli_train._Place.on_batch_end = Killed.on_batch_end
    return command(rank, where, out, "--epochs", "5", "--no-progress")


def restarted_command(rank: int, where: str, out: str) -> int:
    """The command line that killed_command ran, as `torchrun --max-restarts` starts it again."""
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
    return command(rank, where, out, "--epochs", "5", "--no-progress")


def lonely(rank: int, where: str) -> None:
    """One of two ranks, the other of which never comes."""
    os.environ["WORLD_SIZE"] = "2"
    join(rank, where, 3.0)


def page(rank: int, where: str, text: str) -> None:
    """The Python of docs/distributed.md; the ranks meet in a file instead of by torchrun."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert code.count("init_process_group()") == 1
    code = code.replace("init_process_group()", f"init_process_group(init_method={where!r})")
    exec(compile(code, "distributed.md", "exec"), {})
