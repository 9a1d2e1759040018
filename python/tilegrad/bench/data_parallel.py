# SPDX-License-Identifier: MIT
"""Measure data-parallel training on this machine, and hold the model of it against that.

python -m tilegrad.bench.data_parallel --ranks 2 starts the ranks itself, on the loopback device;
torchrun ... -m tilegrad.bench.data_parallel measures the machines that it was started on.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tilegrad import TrainStep, manual_seed, nn, optim
from tilegrad.bench import data_parallel_model as model
from tilegrad.bench import machine

SIZES = (1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 22, 1 << 24)  # bytes
WIDTHS = (784, 512, 512, 10)
REPEATS = 15


def median(call: Callable[[], object], meet: Callable[[], object]) -> float:
    """Return the median seconds of a call that all ranks begin together."""
    seconds = []
    for _ in range(REPEATS + 2):
        meet()
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


def network() -> tuple[nn.Module, nn.CrossEntropyLoss, optim.Optimizer]:
    """Return the network that is trained, its loss and its optimiser."""
    manual_seed(0)
    layers = [nn.Linear(n, m, activation="relu") for n, m in pairwise(WIDTHS[:-1])]
    net = nn.Sequential(*layers, nn.Linear(*WIDTHS[-2:]))
    return net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.01)


def measure(rows: int, bucket_mb: float, init_method: str) -> dict[str, Any]:
    """Measure on all ranks.

    Args:
        rows: Of a batch, on each rank.
        bucket_mb: Size of a bucket.
        init_method: Where the ranks meet.

    Returns:
        Seconds of all-reduces and of steps, and what the model says of them.
    """
    import torch

    from tilegrad import distributed
    from tilegrad.distributed._buckets import Reducer
    from tilegrad.distributed._group import current

    distributed.init_process_group("gloo", init_method=init_method, timeout=60.0)
    group = current("bench")
    ranks = group.world_size
    if ranks < 2:
        raise ValueError("data_parallel: there must be at least 2 ranks; got 1")

    def meet() -> None:
        group.total([0.0])

    reduces = []
    for size in SIZES:
        tensor = torch.zeros(size // 4)
        seconds = median(lambda tensor=tensor: group.all_reduce(tensor)(), meet)  # type: ignore[misc]
        reduces.append((size, ranks, max(group.total([seconds])) / ranks))
    rng = np.random.default_rng(group.rank)
    x = rng.standard_normal((rows, WIDTHS[0])).astype(np.float32)
    target = rng.integers(0, WIDTHS[-1], rows)

    net, loss_fn, optimizer = network()

    def forward() -> None:
        loss_fn(net(x), target)

    def passes() -> None:
        forward()
        net.backward(loss_fn.backward(), input_grad=False)

    forward_seconds = median(forward, meet)
    both = median(passes, meet)
    update = median(optimizer.step, meet)

    step = distributed.DistributedTrainStep(net, loss_fn, optimizer, bucket_cap_mb=bucket_mb)
    overlapped = median(lambda: step(x, target), meet)
    buckets = tuple(bucket.tensor.nbytes for bucket in step._reducer.buckets)  # type: ignore[union-attr]
    step.close()

    # The other way: one native call for both passes, then all buckets at once.
    net, loss_fn, optimizer = network()
    reducer = Reducer(group, list(net.parameters()), bucket_mb)
    reducer.close()
    native = TrainStep(net, loss_fn, optimizer)

    def apart() -> None:
        native.forward_backward(x, target)
        for parameter in net.parameters():
            parameter.mark_grad()
        reducer.begin()
        reducer.finish()
        native.update()

    apart_seconds = median(apart, meet)
    own = model.Step(forward_seconds, both - forward_seconds, update, buckets)
    wire = model.fit_network(reduces)
    result = {
        "ranks": ranks,
        "rows": rows,
        "network": list(WIDTHS),
        "buckets": buckets,
        "all_reduces": reduces,
        "alpha": wire.alpha,
        "gbytes": wire.gbytes,
        "forward_seconds": forward_seconds,
        "backward_seconds": own.backward,
        "update_seconds": update,
        "step_seconds": overlapped,
        "predicted_seconds": model.step_seconds(own, ranks, wire),
        "native_without_overlap_seconds": apart_seconds,
        "traffic": [step.traffic.messages, step.traffic.bytes],
    }
    distributed.destroy_process_group()
    return result


def report(result: dict[str, Any]) -> str:
    """Return lines for people.

    Args:
        result: Of `measure`.
    """
    wire = model.Network(result["alpha"], result["gbytes"])
    lines = ["| bytes | all-reduce | by the model |", "|---:|---:|---:|"]
    for size, ranks, seconds in result["all_reduces"]:
        said = model.all_reduce_seconds(size, ranks, wire)
        lines.append(f"| {size:,} | {1e3 * seconds:.2f} ms | {1e3 * said:.2f} ms |")
    names = {
        "forward_seconds": "forward pass and loss",
        "backward_seconds": "backward pass",
        "update_seconds": "update",
        "step_seconds": "step of all ranks, reduced while backward runs",
        "predicted_seconds": "the same by the model",
        "native_without_overlap_seconds": "one native call, then all buckets",
    }
    lines += ["", f"alpha {1e6 * result['alpha']:.0f} us, {result['gbytes']:.2f} GB/s"]
    lines += [f"{1e3 * result[name]:8.2f} ms  {text}" for name, text in names.items()]
    messages, size = result["traffic"]
    lines.append(f"{messages} messages, {size:,} bytes a step")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="tilegrad.bench.data_parallel", description=__doc__)
    add = parser.add_argument
    add("--ranks", type=int, default=0, help="start so many here (default: those of torchrun)")
    add("--rows", type=int, default=128, help="of a batch, on each rank (default: 128)")
    add("--bucket-mb", type=float, default=25.0, help="size of a bucket (default: 25)")
    add("--json", metavar="FILE", help="write what was measured")
    add("--init-method", default="env://", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.ranks > 0:
        return _start(args.ranks, sys.argv[1:] if argv is None else list(argv))
    result = measure(args.rows, args.bucket_mb, args.init_method)
    if os.environ.get("RANK") == "0":
        print(report(result))
        if args.json:
            with open(args.json, "w", encoding="utf-8") as file:
                json.dump({**result, "machine": machine.describe()}, file, indent=1)
                file.write("\n")
    return 0


def _start(ranks: int, arguments: list[str]) -> int:
    """Start the ranks on this machine; they meet in a file and use the loopback device."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["--ranks", "0", "--init-method", f"file://{folder}/rendezvous"]
        command = [sys.executable, "-m", "tilegrad.bench.data_parallel", *arguments, *own]
        processes = [
            subprocess.Popen(
                command,
                env={
                    "OMP_NUM_THREADS": "1",
                    "GLOO_SOCKET_IFNAME": "lo",
                    **os.environ,
                    "RANK": str(rank),
                    "WORLD_SIZE": str(ranks),
                },
            )
            for rank in range(ranks)
        ]
        return max(abs(process.wait()) for process in processes)


if __name__ == "__main__":
    raise SystemExit(main())
