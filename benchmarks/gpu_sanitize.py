# SPDX-License-Identifier: MIT
"""The calls that compute-sanitizer watches: every family of kernels at small shapes.

    compute-sanitizer --tool racecheck python benchmarks/gpu_sanitize.py

Shapes cross each tile's edge and wrap each ring of buffers once, no more: a watched kernel is a
hundred times as slow. Every result is compared too. Arguments choose families; --device another
device, to try the script out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference

_RUNGS = (
    "naive", "coalesced", "shared", "tile_1d", "tile_2d", "vectorized", "double_buffered",
    "warp_tile", "tensor_core", "hopper", "tf32x3", "hopper_tf32",
)  # fmt: skip
_LADDER = ("three_pass", "online_warp", "block_row", "one_pass", "cluster")
_16_BITS = ("float16",)  # NumPy has no bfloat16; the kernels are the same template


class Checker:
    """Makes operands on a device, compares what comes back, remembers what was refused."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.refused: list[str] = []
        self._rng = np.random.default_rng(0)

    def normal(self, *shape: int, dtype: str = "float32") -> tuple[Any, Any]:
        """Return an operand on the device and the same numbers in float64."""
        values = self._rng.standard_normal(shape).astype(dtype)
        return tg.asarray(values, device=self.device), values.astype(np.float64)

    def close(self, name: str, got: Any, wanted: Any, tolerance: float = 2e-5) -> None:
        """Raise AssertionError unless a result is right."""
        got = got.numpy().astype(np.float64) if hasattr(got, "numpy") else np.asarray(got)
        scale = float(np.max(np.abs(wanted), initial=0)) or 1.0
        error = float(np.max(np.abs(got - wanted), initial=0)) / scale
        assert error <= tolerance, f"{name}: off by {error:.2g} of its range"


def matmul(check: Checker) -> None:
    for m, n, k in ((1, 1, 1), (65, 129, 71), (136, 264, 200)):
        for turn_a, turn_b in ((False, False), (False, True), (True, False)):
            for dtype in ("float32", *_16_BITS):
                a, wide_a = check.normal(*((k, m) if turn_a else (m, k)), dtype=dtype)
                b, wide_b = check.normal(*((n, k) if turn_b else (k, n)), dtype=dtype)
                wanted = (wide_a.T if turn_a else wide_a) @ (wide_b.T if turn_b else wide_b)
                for rung in (None, *_RUNGS):
                    name = f"matmul {rung} {m}x{n}x{k} {dtype}"
                    try:
                        got = tg.matmul(a, b, transpose_a=turn_a, transpose_b=turn_b, variant=rung)
                    except (TypeError, ValueError) as error:
                        check.refused.append(f"{name}: {error}")
                        continue
                    check.close(name, got, wanted, 5e-3)


def linear(check: Checker) -> None:
    for rows, i, o in ((3, 5, 7), (65, 72, 136)):
        for activation in (None, "relu", "gelu"):
            operands = [check.normal(*shape) for shape in ((rows, i), (o, i), (o,), (rows, o))]
            (x, w, b, dy), wide = (list(part) for part in zip(*operands, strict=True))
            y, z = tg.linear(x, w, b, activation, save_preactivation=True)
            check.close("linear", y, reference.linear(*wide[:3], activation))
            got = tg.linear_backward(dy, x, w, b, activation, preactivation=z)
            wanted = reference.linear_backward(wide[3], *wide[:3], activation)
            for part, right in zip(got, wanted, strict=True):
                check.close("linear_backward", part, right)


def elementwise(check: Checker) -> None:
    for n in (1, 1027):
        x, wide = check.normal(n)
        dy, wide_dy = check.normal(n)
        for name in ("relu", "gelu", "silu", "tanh", "sigmoid", "elu"):
            check.close(name, getattr(tg, name)(x), getattr(reference, name)(wide))
            slope = getattr(reference, f"{name}_backward")(wide_dy, wide)
            check.close(name, getattr(tg, f"{name}_backward")(dy, x), slope)
        check.close("mse_loss", tg.mse_loss(x, dy), reference.mse_loss(wide, wide_dy), 1e-4)
        kept = tg.dropout(x, 0.5, seed=1, offset=0)
        again = tg.dropout(tg.asarray(wide.astype(np.float32)), 0.5, seed=1, offset=0)
        check.close("dropout", kept, np.asarray(again, np.float64), 1e-6)


def classes(check: Checker) -> None:
    for rows, count in ((1, 3), (33, 10), (5, 1027), (2, 20_001)):
        x, wide = check.normal(rows, count)
        target = np.arange(rows) % count
        on_device = tg.asarray(target, device=check.device)
        y = tg.softmax(x, 1)
        check.close("softmax", y, reference.softmax(wide, 1))
        dy, wide_dy = check.normal(rows, count)
        slope = reference.softmax_backward(wide_dy, wide, 1)
        check.close("softmax_backward", tg.softmax_backward(dy, x, 1, output=y), slope)
        loss, gradient = reference.cross_entropy_value_and_grad(wide, target)
        for rung in (None, *_LADDER):
            name = f"cross_entropy {rung} {rows}x{count}"
            try:
                got = tg.cross_entropy_value_and_grad(x, on_device, variant=rung)
            except (TypeError, ValueError) as error:
                check.refused.append(f"{name}: {error}")
                continue
            check.close(name, got[0], loss)
            check.close(name, got[1], gradient)


def sequences(check: Checker) -> None:
    for times, samples, count, labels in ((5, 2, 7, 2), (70, 3, 1027, 33)):
        x, wide = check.normal(times, samples, count)
        targets = np.arange(samples * labels).reshape(samples, labels) % count
        on_device = tg.asarray(targets, device=check.device)
        rest = ([times] * samples, [labels] * samples, count - 1)
        wanted = reference.ctc_loss_value_and_grad(reference.log_softmax(wide, -1), targets, *rest)
        got = tg.ctc_loss_value_and_grad(tg.log_softmax(x, -1), on_device, *rest)
        check.close("ctc_loss", got[0], wanted[0])
        check.close("ctc_loss gradient", got[1], wanted[1], 1e-3)  # of log_softmax's float32


def row_losses(check: Checker) -> None:
    """Run the losses with one value a row: rows of a warp and of a block."""
    for rows, count in ((1, 3), (33, 64), (5, 2203)):
        (x, wide), (y, wide_y) = check.normal(rows, count), check.normal(rows, count)
        target, signs = np.arange(rows) % count, np.where(np.arange(rows) % 2, 1, -1)
        lists = np.full((rows, count), -1)
        lists[:, :2] = [count - 1, 0]
        calls: tuple[tuple[str, tuple[Any, ...], tuple[Any, ...]], ...] = (
            ("nll_loss", (x, target), (wide, target)),
            ("multi_margin_loss", (x, target), (wide, target)),
            ("multilabel_margin_loss", (x, lists), (wide, lists)),
            ("multilabel_soft_margin_loss", (x, y), (wide, wide_y)),
            ("triplet_margin_loss", (x, y, x), (wide, wide_y, wide)),
            ("cosine_embedding_loss", (x, y, signs), (wide, wide_y, signs)),
        )
        for name, operands, numbers in calls:
            there = [
                tg.asarray(a, device=check.device) if isinstance(a, np.ndarray) else a
                for a in operands
            ]
            loss, found = getattr(tg, f"{name}_value_and_grad")(*there)
            right, gradients = getattr(reference, f"{name}_value_and_grad")(*numbers)
            check.close(name, loss, right)
            if not isinstance(found, tuple):
                found, gradients = (found,), (gradients,)
            for got, wanted in zip(found, gradients, strict=True):
                check.close(f"{name} gradient", got, wanted, 1e-4)


def training(check: Checker) -> None:
    """Train a network as one recorded step; every kind of optimiser."""
    values = np.random.default_rng(1).standard_normal((33, 20)).astype(np.float32)
    x = tg.asarray(values, device=check.device)
    target = tg.asarray(np.arange(33) % 10, device=check.device)
    kinds = {
        tg.optim.SGD: 0.1, tg.optim.AdamW: 1e-2, tg.optim.RMSprop: 1e-3, tg.optim.Adagrad: 1e-2,
    }  # fmt: skip
    for kind, rate in kinds.items():
        tg.manual_seed(0)
        first = tg.nn.Linear(20, 17, activation="relu")
        model = tg.nn.Sequential(first, tg.nn.Linear(17, 10)).to(check.device)
        step = tg.TrainStep(
            model, tg.nn.CrossEntropyLoss(), kind(model.parameters(), rate), max_norm=1.0
        )
        losses = [float(step(x, target)) for _ in range(3)]
        assert losses[-1] < losses[0], f"training: the loss did not fall: {losses}"


FAMILIES: dict[str, Callable[[Checker], None]] = {
    "matmul": matmul,
    "linear": linear,
    "elementwise": elementwise,
    "classes": classes,
    "sequences": sequences,
    "row_losses": row_losses,
    "training": training,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args(argv)
    unknown = [name for name in args.families if name not in FAMILIES]
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    check = Checker(args.device)
    for name in args.families or FAMILIES:
        FAMILIES[name](check)
        print(f"{name}: right", flush=True)
    for line in check.refused:
        print(f"refused: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
