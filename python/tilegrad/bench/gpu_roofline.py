# SPDX-License-Identifier: MIT
"""The roofline of a run on a GPU: every case as a point below what was measured of the device.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from .._files import write_figure
from .canvas import FAINT, GRID, INK, hide_frame, new_figure
from .gpu_model import H200
from .gpu_report import PREDICTED
from .harness import OURS
from .roofline import name_points

Record = dict[str, Any]
# Okabe and Ito 2008, without yellow, which is too faint on white
_LOOKS = {
    "matmul": ("#0072B2", "o"),
    "matmul_ladder": ("#56B4E9", "o"),
    "linear": ("#7570B3", "s"),
    "activation": ("#D55E00", "^"),
    "dropout": ("#E69F00", "^"),
    "softmax": ("#CC79A7", "D"),
    "cross_entropy": ("#882255", "v"),
    "cross_entropy_options": ("#882255", "<"),
    "cross_entropy_ladder": ("#AA4499", "v"),
    "optim": ("#009E73", "P"),
    "fused_mlp": ("#117733", "X"),
    "train_step": ("#000000", "h"),
}
# Some of the points have their names.
_NAMED = {
    "matmul/8192x8192x8192 NN bf16": "8192 bf16",
    "matmul/4096x4096x4096 NN f32": "4096 f32",
    "matmul/512x512x512 NN bf16": "512 bf16",
    "linear/65536x512->512 gelu_tanh bf16 training": "linear 65536x512",
    "activation/gelu 100000000 bf16 forward": "gelu",
    "cross_entropy/16384x128256 bf16": "cross-entropy 128256",
    "optim/Adam large 180355072 f32": "Adam",
    "train_step/SGD batch 128 f32": "step, batch 128",
    "train_step/SGD batch 65536 bf16": "step, batch 65536",
}


def roofs(result: Record) -> dict[str, tuple[float, bool]]:
    """Return TFLOP/s of each horizontal roof and whether it was measured in the run."""
    limits = result.get("limits", {}).get("before", {})
    product = limits.get("torch_bf16_tflops")
    return {
        "bf16 product": (product or H200.tensor / 1e12, product is not None),
        "float32 multiply-add": (H200.fma / 1e12, False),
    }


def bandwidth(result: Record) -> tuple[float, bool]:
    """Return TB/s of a copy and whether it was measured in the run."""
    rate = result.get("limits", {}).get("before", {}).get("copy_gbytes")
    return (rate / 1e3, True) if rate else (H200.copy / 1e12, False)


def points(records: Sequence[Record]) -> list[tuple[Record, float, float]]:
    """Return each record with its operations a byte and TFLOP/s; those of calls have none."""
    return [
        (one, one["flops"] / one["bytes"], one["flops"] / one["seconds"][OURS]["median"] / 1e12)
        for one in records
        if one["family"] in _LOOKS and OURS in one.get("seconds", {})
    ]


def plot(result: Record, path: str | os.PathLike[str]) -> Any:
    """Draw a run, or predictions, which are drawn hollow.

    Args:
        result: As `tilegrad bench cuda` stores it; without "limits" it holds predictions.
        path: Of the picture; its ending decides the format.

    Returns:
        The figure of matplotlib.
    """
    figure = new_figure(11.0, 7.5)
    axes = figure.add_axes((0.07, 0.09, 0.91, 0.78))
    found = points(result["cases"])
    measured = "limits" in result
    low = min((x for _, x, _ in found), default=0.1) / 2
    high = max((x for _, x, _ in found), default=1e4) * 2
    rate, is_measured = bandwidth(result)
    tops = roofs(result)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="TFLOP/s")
    axes.set_xlim(low, high)
    for family, (color, marker) in _LOOKS.items():
        mine = [(x, y) for one, x, y in found if one["family"] == family]
        if mine:
            axes.scatter(
                [x for x, _ in mine], [y for _, y in mine], s=26, marker=marker, label=family,
                edgecolors=color, facecolors=color if measured else "none", linewidths=1.0,
                zorder=3,
            )  # fmt: skip
    axes.grid(visible=True, color=GRID, linewidth=0.5)
    axes.legend(fontsize=7, loc="lower right", frameon=False)
    hide_frame(axes)
    lowest = min([low * rate, *(y for _, _, y in found)])
    axes.set_ylim(lowest / 2, 2 * max([top for top, _ in tops.values()] + [y for *_, y in found]))
    texts = []
    for label, (top, known) in tops.items():
        style = "-" if known and is_measured else "--"
        line = [low, top / rate, high], [low * rate, top, top]
        axes.plot(*line, style, color=FAINT, linewidth=1.2)
        # left of its ridge: no point lies above a roof
        text = f"{label}: {top:.0f} TFLOP/s" + ("" if known else ", not measured here")
        texts.append(axes.annotate(text, (top / rate, top), ha="right", va="bottom", fontsize=8,
                                   color=INK))  # fmt: skip
    (x0, y0), (x1, y1) = axes.transData.transform([(low, low * rate), (10 * low, 10 * low * rate)])
    axes.annotate(
        f"copy: {rate:.2f} TB/s" + ("" if is_measured else ", not measured here"),
        (low, low * rate), xytext=(4, 8), textcoords="offset points", fontsize=8, color=INK,
        rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)), rotation_mode="anchor",
    )  # fmt: skip
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    names = {
        name: (x, y, _LOOKS[one["family"]][0])
        for one, x, y in found
        if (name := _NAMED.get(f"{one['family']}/{one['name']}"))
    }
    taken = [(box.x0, box.y0, box.x1, box.y1) for box in boxes]
    name_points(axes, names, [(x, y) for _, x, y in found], taken)
    figure.text(0.07, 0.95, "Roofline" if measured else "Roofline, predicted", fontsize=13)
    figure.text(0.07, 0.91, _subtitle(result, measured), fontsize=8, color=INK)
    write_figure(path, figure, "bench")
    return figure


def _subtitle(result: Record, measured: bool) -> str:
    if not measured:
        return PREDICTED
    device = result.get("device", {}).get("name", "")
    conditions = result.get("conditions", {})
    return (
        f"{device}, {result.get('date', '')}, {conditions.get('data', 'random normal')} data; "
        "bytes are those that must be moved, each operand once"
    )
