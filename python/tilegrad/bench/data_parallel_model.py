# SPDX-License-Identifier: MIT
"""A model of data-parallel training on up to 1,024 ranks: pure functions of what was measured.

A message of n bytes takes alpha + beta n seconds. What the ranks hand to collectives is counted
(``DistributedTrainStep.traffic``); what an all-reduce sends for it is the model's, and the tests
compare that with what the kernel has counted on gloo's connections.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

FORMULA = (
    "ring(n, W) = 2 (W - 1) (alpha + n / W beta); tree(n, W) = 2 ceil(log2 W) (alpha + n beta)\n"
    "ready_k = forward + backward (bytes of buckets 0..k) / (bytes of all)\n"
    "done_k = max(ready_k, done_{k-1}) + allreduce(bucket_k, W)\n"
    "T(W) = max(forward + backward, done_last) + update + max(0, ring(32, W) - forward)"
)
RANKS = (1, 2, 4, 8, 16, 64, 256, 1024)
HEADER = 32  # bytes that every step sums first: rows, denominator, two checksums


@dataclass(frozen=True)
class Network:
    """What joins the ranks.

    Args:
        alpha: Seconds that a message takes, however short.
        gbytes: GB that a rank sends in a second: 1 / beta.
        trees: Whether short all-reduces may go by a tree, as NCCL's do; gloo has rings alone.
        host_alpha: The same as alpha for gloo, which carries the four sums of a step on any
            device; None where gloo carries all.
    """

    alpha: float
    gbytes: float
    trees: bool = False
    host_alpha: float | None = None


# Assumed, not measured: what such a network is sold for, and usual latencies of a message.
NETWORKS = {
    "10 Gbit/s Ethernet, TCP": Network(30e-6, 1.1),
    "100 Gbit/s Ethernet, TCP": Network(20e-6, 10.0),
    "400 Gbit/s InfiniBand": Network(5e-6, 45.0, trees=True, host_alpha=20e-6),
}


@dataclass(frozen=True)
class Step:
    """A training step of one rank.

    Args:
        forward: Seconds of forward pass and loss, of one rank's rows.
        backward: Seconds of the backward pass.
        update: Seconds of clipping and update.
        buckets: Bytes of the buckets, in the order in which backward completes them.
    """

    forward: float
    backward: float
    update: float
    buckets: tuple[int, ...]


def ring_bytes(size: int, ranks: int) -> float:
    """Return the bytes that each rank sends in a ring all-reduce.

    Math: 2 (W - 1) / W n: in each of 2 (W - 1) rounds a rank sends one of W equal pieces.

    Args:
        size: Bytes of the summed array, n.
        ranks: Number of ranks, W.

    Example:
        >>> ring_bytes(1000, 2), ring_bytes(1000, 4), ring_bytes(1000, 1)
        (1000.0, 1500.0, 0.0)

    Source: Patarasuk and Yuan: Bandwidth optimal all-reduce algorithms for clusters of workstations
        (2009).
    """
    return 2 * (ranks - 1) / ranks * size


def all_reduce_seconds(size: int, ranks: int, network: Network) -> float:
    """Predict an all-reduce.

    Math: 2 (W - 1) alpha + 2 (W - 1) / W n beta by a ring; where the network has trees, at most
    2 ceil(log2 W) (alpha + n beta).

    Args:
        size: Bytes of the summed array, n.
        ranks: Number of ranks, W.
        network: What joins them.

    Example:
        >>> all_reduce_seconds(10**9, 2, Network(0.5, 1.0))
        2.0
    """
    if ranks == 1:
        return 0.0
    beta = 1e-9 / network.gbytes
    ring = 2 * (ranks - 1) * network.alpha + ring_bytes(size, ranks) * beta
    if not network.trees:
        return ring
    return min(ring, 2 * math.ceil(math.log2(ranks)) * (network.alpha + size * beta))


def step_seconds(step: Step, ranks: int, network: Network) -> float:
    """Predict a step in which the buckets are summed while backward runs.

    Args:
        step: A rank's own work.
        ranks: Number of ranks.
        network: What joins them.

    Example:
        >>> step = Step(1.0, 2.0, 0.5, (10**9, 10**9))
        >>> step_seconds(step, 1, Network(0.0, 1.0))
        3.5
        >>> step_seconds(step, 2, Network(0.0, 1.0))  # the second bucket is full at 3
        4.5
        >>> step_seconds(step, 2, Network(0.0, 0.5))  # the first takes from 2 to 4
        6.5
    """
    own = step.forward + step.backward
    if ranks == 1:
        return own + step.update
    host = network.alpha if network.host_alpha is None else network.host_alpha
    sums = all_reduce_seconds(HEADER, ranks, Network(host, network.gbytes))
    header = max(0.0, sums - step.forward)
    total, filled, done = sum(step.buckets), 0, 0.0
    for size in step.buckets:
        filled += size
        ready = step.forward + step.backward * filled / total
        done = max(ready, done) + all_reduce_seconds(size, ranks, network)
    return max(own, done) + step.update + header


def efficiency(step: Step, ranks: int, network: Network) -> float:
    """Return the share of the time that goes into a rank's own work, T(1) / T(W).

    The rows of a rank are the same for any number of ranks (weak scaling): W efficiency is the
    speed-up.

    Args:
        step: A rank's own work.
        ranks: Number of ranks.
        network: What joins them.

    Example:
        >>> efficiency(Step(1.0, 2.0, 1.0, (10**9,)), 2, Network(0.0, 0.25))
        0.5
    """
    return step_seconds(step, 1, network) / step_seconds(step, ranks, network)


def fit_network(samples: Sequence[tuple[int, int, float]]) -> Network:
    """Return alpha and beta of measured all-reduces, by least squares of relative errors.

    Args:
        samples: (bytes, ranks, seconds) of each.

    Example:
        >>> true = Network(1e-3, 0.5)
        >>> sizes = [(size, 4, all_reduce_seconds(size, 4, true)) for size in (100, 10**5, 10**8)]
        >>> found = fit_network(sizes)
        >>> round(found.alpha, 9), round(found.gbytes, 9)
        (0.001, 0.5)
    """
    rows = [
        (2 * (ranks - 1) / seconds, ring_bytes(size, ranks) / seconds)
        for size, ranks, seconds in samples
    ]
    aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(row[0] for row in rows), sum(row[1] for row in rows)
    determinant = aa * bb - ab * ab
    alpha, beta = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
    return Network(max(alpha, 0.0), 1e-9 / max(beta, 1e-15))


def table(step: Step, networks: dict[str, Network]) -> str:
    """Return efficiencies as a Markdown table.

    Args:
        step: A rank's own work.
        networks: By name.
    """
    lines = [
        "| ranks | " + " | ".join(networks) + " |",
        "|---:|" + "---:|" * len(networks),
    ]
    for ranks in RANKS:
        cells = []
        for network in networks.values():
            seconds = step_seconds(step, ranks, network)
            share = efficiency(step, ranks, network)
            cells.append(f"{1e3 * seconds:,.1f} ms, {100 * share:.0f} %")
        lines.append(f"| {ranks:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table for a step: python -m tilegrad.bench.data_parallel_model --help."""
    parser = argparse.ArgumentParser(
        prog="tilegrad.bench.data_parallel_model",
        description=f"Predict data-parallel training; each rank has the same rows.\n{FORMULA}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--forward", type=float, required=True, metavar="S", help="seconds of the forward pass")
    add("--backward", type=float, required=True, metavar="S", help="of the backward pass")
    add("--update", type=float, default=0.0, metavar="S", help="of clip and update (default: 0)")
    add("--bytes", type=float, required=True, metavar="N", help="of all gradients")
    add("--bucket-mb", type=float, default=25.0, metavar="MB", help="of a bucket (default: 25)")
    add("--alpha", type=float, metavar="S", help="of your network (default: three assumed ones)")
    add("--gbytes", type=float, metavar="GB", help="that a rank sends in a second")
    args = parser.parse_args(argv)
    networks = NETWORKS
    if args.alpha is not None or args.gbytes is not None:
        if args.alpha is None or args.gbytes is None:
            parser.error("--alpha and --gbytes come together")
        networks = {"given": Network(args.alpha, args.gbytes)}
    sizes = split(int(args.bytes), int(args.bucket_mb * 2**20))
    print(table(Step(args.forward, args.backward, args.update, sizes), networks))
    return 0


def split(size: int, cap: int) -> tuple[int, ...]:
    """Return the buckets of a model of many small layers; the first holds 1 MiB.

    Example:
        >>> split(5 * 2**20, 2 * 2**20) == (2**20, 2 * 2**20, 2 * 2**20)
        True
    """
    first = min(size, cap, 2**20)
    rest = size - first
    full, last = divmod(rest, cap)
    return (first, *[cap] * full, *([last] if last else []))


if __name__ == "__main__":
    raise SystemExit(main())
