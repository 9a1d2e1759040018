# SPDX-License-Identifier: MIT
"""``tilegrad trace``: what the kernels of an op do to memory, beside their source."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from . import ops, sim
from ._files import write_whole
from ._makers import asarray
from ._trace_lines import source

_DTYPES = ("float32", "float64", "float16", "bfloat16")
_SOURCE_WIDTH = 72
# What one --shape of three sizes stands for, where an op has two operands.
_SEVERAL = {"matmul": "MxKxN", "linear": "BATCHxINxOUT"}

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], Any]


def _classes(generator: np.random.Generator, shape: Shape) -> Any:
    """Draw a class for each row of (C,), (N, C) or (N, C, d1, ...)."""
    axis = min(len(shape), 2) - 1
    return generator.integers(0, max(shape[axis], 1), shape[:axis] + shape[axis + 1 :])


def _lists(generator: np.random.Generator, shape: Shape) -> Any:
    """Draw a list of up to three classes for each row."""
    lists = generator.integers(0, max(shape[-1], 1), shape)
    lists[..., 3:] = -1
    return lists


# Losses whose target is of integers; those that have several inputs before it.
_TARGETS: dict[str, Draw] = {
    "cross_entropy": _classes,
    "nll_loss": _classes,
    "multi_margin_loss": _classes,
    "multilabel_margin_loss": _lists,
    "cosine_embedding_loss": lambda generator, shape: generator.choice([-1, 1], shape[:-1]),
}
_INPUTS = {"cosine_embedding_loss": 2}


def known_ops() -> list[str]:
    """Return the ops that can be traced.

    Example:
        >>> "matmul" in known_ops(), "softmax_backward" in known_ops()
        (True, True)
    """
    return sorted(ops.__all__)


def shape(text: str) -> Shape:
    """Read a shape such as 64x1000.

    Example:
        >>> shape("64x1000")
        (64, 1000)
    """
    parts = text.lower().split("x")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"must be sizes with x between, as 64x1000; got {text!r}")
    return tuple(int(part) for part in parts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("op", metavar="OP", help="name of a public op, such as softmax or matmul_backward")
    add("--shape", type=shape, action="append", metavar="AxB",
        help="shape of an operand; give it again for the next one. For matmul one MxKxN, for "
        "linear one BATCHxINxOUT is enough (default: 64x256, or 64x64x64)")  # fmt: skip
    add("--dtype", choices=_DTYPES, default="float32", help="(default: float32)")
    add("--variant", metavar="NAME",
        help="rung of the ladder of matmul or cross_entropy_value_and_grad, such as shared "
        "(default: chosen by shape and dtype)")  # fmt: skip
    add("--schedule", metavar="ORDER",
        help="order of threads, blocks and copies: forward, reverse or random:SEED, then maybe "
        "/eager, /lazy or /random (default: TILEGRAD_SIM_SCHEDULE, or forward/eager)")  # fmt: skip
    add("--seed", type=int, default=0, help="chooses the operands' values (default: 0)")
    add("--html", metavar="FILE", help="write the annotated source as a web page too")
    add("--json", action="store_true", help="print JSON (default: tables for people)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trace an op and print what was found; 1 if that is a race or an access out of bounds."""
    if args.op not in ops.__all__:
        names = [op for op in known_ops() if not op.endswith(("_backward", "_value_and_grad"))]
        raise ValueError(
            f"no such op; got {args.op!r} (ops: {', '.join(names)}; their _backward, and losses'"
            " _value_and_grad)"
        )
    if args.html is not None and not Path(args.html).absolute().parent.is_dir():
        raise ValueError(f"--html: there is no folder {Path(args.html).parent}")
    arguments, options, shapes = operands(args.op, args.shape, args.dtype, args.seed)
    if args.variant is not None:
        if "variant" not in inspect.signature(getattr(ops, args.op)).parameters:
            raise ValueError(f"{args.op} has no variants; got {args.variant!r}")
        options["variant"] = args.variant
    error: Exception | None = None
    trace = sim.trace(args.schedule)
    try:
        with trace:
            getattr(ops, args.op)(*arguments, **options)
    except TypeError as wrong:  # a dtype that the op does not take
        raise ValueError(str(wrong)) from None
    except RuntimeError as raised:  # a fault of the kernel: the report says more than the error
        if not trace.launches:
            raise
        error = raised
    head = heading(args.op, shapes, args.dtype, args.variant)
    if args.html is not None:
        from . import _trace_page

        write_whole(args.html, _trace_page.page(head, trace).encode(), "trace")
        print(f"wrote {args.html}", file=sys.stderr)
    if args.json:
        print(json.dumps(_as_json(args, shapes, trace)))
    else:
        print("\n".join([head, *listing(trace)]))
    if error is not None:
        raise error
    return int(bool(trace.races or trace.out_of_bounds))


def operands(
    op: str, given: list[Shape] | None, dtype: str, seed: int
) -> tuple[tuple[Any, ...], dict[str, Any], list[Shape]]:
    """Return random operands on sim: positional arguments, options and shapes.

    Args:
        op: Name of the op.
        given: The shapes asked for, or None.
        dtype: Of floating operands.
        seed: Chooses the values.

    Raises:
        ValueError: If the op takes another number of operands.
    """
    stem = op.removesuffix("_backward").removesuffix("_value_and_grad")
    two = stem in _SEVERAL
    shapes = list(given or [(64, 64, 64) if two else (64, 256)])
    if two and len(shapes) == 1 and len(shapes[0]) == 3:
        left, inner, columns = shapes[0]
        right = (inner, columns) if stem == "matmul" else (columns, inner)
        shapes = [(left, inner), right]
    if len(shapes) != 1 + two:
        wanted = f"two shapes, or one {_SEVERAL[stem]}" if two else "one shape"
        raise ValueError(f"{op} takes {wanted}; got {len(shapes)}")
    generator = np.random.default_rng(seed)

    def draw(size: Shape) -> Any:
        return _on_sim(generator.standard_normal(size), dtype)

    forward: tuple[Any, ...] = tuple(draw(each) for each in shapes)
    options: dict[str, Any] = {}
    result = shapes[0]
    if stem == "matmul":
        result = (*shapes[0][:-1], *shapes[1][-1:])
    elif stem == "linear":
        result = (*shapes[0][:-1], shapes[1][0])
        forward = (*forward, draw(shapes[1][:1]))
    elif stem == "fused_mlp":  # three square layers
        width = shapes[0][-1:]
        forward = (*forward, [draw((*width, *width)) for _ in range(3)], [draw(width)] * 3)
    elif stem in ("softmax", "log_softmax"):
        forward = (*forward, -1)
    elif stem in _TARGETS:
        for _ in range(_INPUTS.get(stem, 1) - 1):
            forward = (*forward, draw(shapes[0]))
        target = np.asarray(_TARGETS[stem](generator, shapes[0]))
        forward = (*forward, asarray(target, device="sim"))
        result = ()
    elif stem == "ctc_loss":  # (T, N, C) or (T, C), and a label for every fourth time
        times, classes = shapes[0][0], shapes[0][-1]
        samples = shapes[0][1] if len(shapes[0]) == 3 else 1
        labels = generator.integers(0, max(classes, 1), (samples, times // 4))
        lengths = ((times,) * samples, (times // 4,) * samples)
        forward = (*forward, asarray(np.asarray(labels), device="sim"), *lengths)
        result = ()
    elif stem == "prelu":
        forward = (*forward, draw(shapes[0][1:2] or (1,)))
    elif stem == "dropout":
        options = {"seed": seed, "offset": 0}
    elif stem == "triplet_margin_loss":
        forward = (*forward, draw(shapes[0]), draw(shapes[0]))
        result = ()
    elif "target" in inspect.signature(getattr(ops, stem)).parameters:
        forward = tuple(draw(shapes[0]) for _ in range(_operands_of(stem)))
        result = ()
    if op.endswith("_backward"):
        grad = draw(result) if result else 1.0
        forward = (grad, *forward)
    return forward, options, shapes


def _operands_of(stem: str) -> int:
    """Return how many arrays an elementwise loss takes: its parameters without a default."""
    parameters = inspect.signature(getattr(ops, stem)).parameters.values()
    return sum(p.default is p.empty for p in parameters)


def _on_sim(values: Any, dtype: str) -> Any:
    if dtype != "bfloat16":
        return asarray(np.asarray(values, dtype=dtype), device="sim")
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 needs ml_dtypes (pip install ml_dtypes)") from None
    return asarray(np.asarray(values).astype(ml_dtypes.bfloat16), device="sim")


def heading(op: str, shapes: list[Shape], dtype: str, variant: str | None) -> str:
    """Return the title of a report, with the flops of a product.

    Example:
        >>> heading("matmul", [(2, 3), (3, 4)], "float32", "naive")
        'matmul 2x3 by 3x4 float32, variant naive: 48 floating-point operations (2 m n k)'
    """
    text = f"{op} {' by '.join('x'.join(map(str, each)) for each in shapes)} {dtype}"
    if variant is not None:
        text += f", variant {variant}"
    count = flops(op, shapes)
    return text + (f": {count:,} floating-point operations (2 m n k)" if count else "")


def flops(op: str, shapes: list[Shape]) -> int:
    """Return 2 m n k of a product, else 0."""
    if op not in ("matmul", "linear"):
        return 0
    left, right = shapes
    columns = right[0] if op == "linear" else right[-1] if len(right) > 1 else 1
    return 2 * int(np.prod(left)) * columns


def listing(trace: sim.Trace) -> Iterator[str]:
    """Yield a report's lines: for each source file its lines with their figures and text."""
    count = len(trace.launches)
    yield f"{count} kernel launch{'es' * (count != 1)}, schedule {trace.schedule}"
    yield from (f"  {launch}" for launch in dict.fromkeys(trace.launches))
    if trace.tensor_flops:
        yield f"  {trace.tensor_flops:,} floating-point operations on tensor cores"
    for file in dict.fromkeys(site.file for site in trace.sites):
        text = source(file)
        yield ""
        yield file
        yield f"{'line':>6}  {'access':34}{'requests':>10}{'cost':>15}{'ideal':>11}{'ratio':>9}"
        shown = 0
        for site in (each for each in trace.sites if each.file == file):
            unit = "sec" if site.space == "global" else "wav"
            line = text[site.line - 1].strip() if 0 < site.line <= len(text) else ""
            if site.line == shown:
                line = '"'
            shown = site.line
            yield (
                f"{site.line:>6}  {site.space + ' ' + site.access:34}{site.requests:>10,}"
                f"{site.sectors:>11,} {unit}{site.ideal:>11,}{site.ratio:>8.2f}x  "
                f"{line[:_SOURCE_WIDTH]}"
            )
    yield ""
    yield "cost: 32-byte sectors (sec) of global memory, wavefronts (wav) of shared memory"
    for name, found in (("races", trace.races), ("out of bounds", trace.out_of_bounds)):
        yield f"{name}: {len(found) or 'none'}"
        yield from (f"  {each}" for each in found)


def _as_json(args: argparse.Namespace, shapes: list[Shape], trace: sim.Trace) -> dict[str, Any]:
    return {
        "op": args.op,
        "shapes": shapes,
        "dtype": args.dtype,
        "variant": args.variant,
        "schedule": trace.schedule,
        "flops": flops(args.op, shapes),
        "tensor_flops": trace.tensor_flops,
        "launches": [asdict(each) for each in trace.launches],
        "sites": [{**asdict(each), "ratio": each.ratio} for each in trace.sites],
        "races": [asdict(each) for each in trace.races],
        "out_of_bounds": [asdict(each) for each in trace.out_of_bounds],
    }
