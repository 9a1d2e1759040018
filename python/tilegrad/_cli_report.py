# SPDX-License-Identifier: MIT
"""What ``tilegrad train`` tells before and after a run, and how its speed is counted."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from . import backends, nn
from ._callbacks import History
from ._cli_data import Found
from ._cli_settings import Settings
from .bench.machine import fma_peak


def flops_per_sample(sizes: tuple[int, ...]) -> int:
    """Count the multiplications and additions of the matrix products of one training step.

    Math: 2 w forward, 2 w for dW and 2 w for dX, for the w weights of a layer; nobody needs the
    first layer's dX.

    Args:
        sizes: Inputs, the hidden layers, classes.

    Returns:
        The number for one sample.

    Example:
        >>> flops_per_sample((784, 512, 512, 10))  # 6 * 668672 - 2 * 401408
        3209216
    """
    weights = [a * b for a, b in pairwise(sizes)]
    return 6 * sum(weights) - 2 * weights[0]


def speed(
    history: History, sizes: tuple[int, ...], samples: int, settings: Settings, epochs: int
) -> dict[str, float]:
    """Compute the rates of this call's epochs, and measure the machine's limit beside them.

    Args:
        history: All epochs, those before a resumption included.
        sizes: Inputs, the hidden layers, classes.
        samples: Number of images in an epoch.
        settings: Gives the dtype.
        epochs: Number of epochs trained by this call, the last ones of the history.

    Returns:
        Seconds in training steps, samples/s, operations a sample, GFLOP/s, the measured peak and
        the share of it; empty if no epoch was trained. The peak of float64 is taken as half that
        of float32, whose vectors hold twice as many.
    """
    seconds = sum(history.seconds[-epochs:]) if epochs else 0.0
    if not seconds:
        return {}
    rate = epochs * samples / seconds
    gflops = rate * flops_per_sample(sizes) / 1e9
    peak = fma_peak(backends.num_threads()) * (0.5 if settings.dtype == "float64" else 1.0)
    return {
        "training_seconds": seconds,
        "samples_per_second": rate,
        "flops_per_sample": flops_per_sample(sizes),
        "gflops": gflops,
        "fma_peak_gflops": peak,
        "share_of_fma_peak": gflops / peak,
    }


def opening(
    found: Found,
    settings: Settings,
    sizes: tuple[int, ...],
    model: nn.Module,
    counts: Mapping[str, int],
    out: str,
) -> list[str]:
    """Say what is about to happen.

    Args:
        found: The data.
        settings: All settings.
        sizes: Inputs, the hidden layers, classes.
        model: The model.
        counts: Images to "train" on, for "validation" and to "test" with.
        out: The folder of the results.

    Returns:
        The lines.
    """
    info, dataset, s = backends.info(), found.dataset, settings
    rows, columns = dataset.train_images.shape[1:]
    rate = f"learning rate {s.lr:g}"
    if s.schedule != "none":
        rate += f" ({s.schedule} schedule)"
    options = [s.optimizer + (f" with momentum {s.momentum:g}" if s.momentum else ""), rate]
    if s.weight_decay:
        options.append(f"weight decay {s.weight_decay:g}")
    if s.label_smoothing:
        options.append(f"label smoothing {s.label_smoothing:g}")
    parameters = sum(p.size for p in model.parameters())
    threads = info["num_threads"]
    lines = [
        f"tilegrad  {info['version']} on the CPU: {info['isa']}, {_plural(threads, 'thread')}",
        f"data      {dataset.name}, {found.source}",
        *([f"          ({found.reason})"] if found.reason else []),
        f"          images: {counts['train']:,} to train on, {counts['validation']:,} to validate, "
        f"{counts['test']:,} to test; {rows} x {columns} pixels, "
        f"{len(dataset.class_names)} classes",
        f"model     {layers(sizes)}, {_plural(parameters, 'parameter')} ({s.dtype}); "
        f"{s.activation}" + (f", dropout {s.dropout:g}" if s.dropout else ""),
        f"training  {_plural(s.epochs, 'epoch')}, batches of {s.batch_size}; "
        f"{', '.join(options)}; seed {s.seed}",
        f"output    {out}",
    ]
    return lines


def closing(settings: Settings, result: Mapping[str, Any]) -> list[str]:
    """Say what came of it.

    Args:
        settings: All settings.
        result: What is written to history.json.

    Returns:
        The lines.
    """
    data, history = result["data"], result["history"]
    lines = [
        f"result    test accuracy {100 * result['test_accuracy']:.2f} %: "
        f"{result['test_right']:,} of {data['test']:,} {data['name']} images that had no part in "
        "the training",
    ]
    if any(loss is None for loss in history["train_loss"]):
        lines.append("          the loss left the numbers: try a lower --lr")
    if settings.patience:
        # Early stopping has put back the weights of its best epoch.
        lines.append(
            f"          with the weights of epoch {history['best_epoch']}, the best of "
            f"{len(history['epochs'])}"
        )
    if "gflops" not in result:
        return [*lines, "time      no epoch was left to train"]
    return [
        *lines,
        f"time      {result['seconds']:.1f} s in all, {result['training_seconds']:.2f} s in "
        f"training steps: {result['samples_per_second']:,.0f} samples/s",
        f"speed     {_short(result['gflops'])} GFLOP/s, "
        f"{_short(100 * result['share_of_fma_peak'])} % of "
        f"this machine's FMA peak ({result['fma_peak_gflops']:.0f} GFLOP/s, measured just now with "
        f"{_plural(result['machine']['num_threads'], 'thread')})",
        f"          counted: {result['flops_per_sample']:,} operations a sample, the matrix "
        "products alone: 6 a weight,",
        "          but 4 in the first layer, where no gradient of the input is needed",
    ]


def layers(sizes: tuple[int, ...]) -> str:
    """Return the widths as text, such as 784-512-10."""
    return "-".join(map(str, sizes))


def _short(number: float) -> str:
    """Return a number in two digits or, above ten, whole: 0 would say that nothing was done."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"
