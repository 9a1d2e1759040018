# SPDX-License-Identifier: MIT
"""Problems of the losses with one value a row, and torch's answer to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]
REDUCTIONS = ("none", "mean", "sum")
OPERANDS: dict[str, tuple[str, ...]] = {  # those that have a gradient
    "nll_loss": ("input",),
    "multi_margin_loss": ("input",),
    "multilabel_margin_loss": ("input",),
    "multilabel_soft_margin_loss": ("input", "target"),
    "triplet_margin_loss": ("anchor", "positive", "negative"),
    "cosine_embedding_loss": ("input1", "input2"),
}
DEFAULT_WRT = {**OPERANDS, "multilabel_soft_margin_loss": ("input",)}


@dataclass(frozen=True)
class Case:
    """A problem: `draw` makes the operands and the weight, in a floating dtype."""

    op: str
    label: str
    draw: Callable[[np.random.Generator, str], tuple[tuple[Any, ...], dict[str, Any]]]
    size: int  # elements, for the limit of what runs on sim
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.label}"

    def _drawn(self, dtype: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.draw(np.random.default_rng([ord(c) for c in str(self)]), dtype)

    def operands(self, dtype: str) -> tuple[Any, ...]:
        return self._drawn(dtype)[0]

    def all_options(self, dtype: str) -> dict[str, Any]:
        return {**self.options, **self._drawn(dtype)[1]}


def torch_answer(
    op: str, operands: tuple[Any, ...], wrt: tuple[str, ...], g: Any, **options: Any
) -> tuple[Array, list[Array]]:
    """Return torch's loss in float64 and the gradients of the operands in wrt, g upstream.

    Its class indices must be int64, and a mean over no rows is not defined in two of its losses.
    """
    leaves = []
    for at, x in enumerate(operands):
        wanted = at < len(OPERANDS[op])
        tensor = torch.tensor(np.asarray(x, np.float64 if wanted else None))
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.int64)
        elif not wanted:
            tensor = tensor.to(torch.float64)
        leaves.append(tensor.requires_grad_(wanted))
    given = {
        name: torch.tensor(np.asarray(v, np.float64)) if isinstance(v, np.ndarray) else v
        for name, v in options.items()
    }
    loss = getattr(F, op)(*leaves, **given)
    chosen = [leaves[OPERANDS[op].index(name)] for name in wrt]
    gradients = torch.autograd.grad(loss, chosen, torch.tensor(g, dtype=torch.float64))
    return loss.detach().numpy(), [gradient.numpy() for gradient in gradients]


# ---- what is drawn ------------------------------------------------------------------------------


def _normal(rng: np.random.Generator, shape: Shape, dtype: str, scale: float = 2.0) -> Array:
    return np.asarray(rng.standard_normal(shape) * scale).astype(dtype)


def _weight(rng: np.random.Generator, shape: Shape, dtype: str, weighted: bool) -> dict[str, Any]:
    return {"weight": rng.uniform(0.1, 2, shape).astype(dtype)} if weighted else {}


def _classes(shape: Shape, integer: str, weighted: bool, ignored: float = 0.0) -> Any:
    """Return scores (C,), (N, C) or (N, C, d1, ...), and a class for each row."""
    axis = 0 if len(shape) == 1 else 1
    rows, classes = shape[:axis] + shape[axis + 1 :], shape[axis]

    def draw(rng: np.random.Generator, dtype: str) -> Any:
        target = np.asarray(rng.integers(0, max(classes, 1), rows))
        target = np.where(rng.random(rows) < ignored, -100, target).astype(integer)
        weight = _weight(rng, (classes,), dtype, weighted)
        return (_normal(rng, shape, dtype), target), weight

    return draw


def _lists(shape: Shape, integer: str, length: int) -> Any:
    """Return scores and lists of up to so many classes, ended by -1; what follows is not read."""

    def draw(rng: np.random.Generator, dtype: str) -> Any:
        rows, classes = int(np.prod(shape[:-1])), shape[-1]
        lists = rng.integers(-1, classes, (rows, classes))
        for entries in lists:
            chosen = rng.permutation(classes)[: rng.integers(0, length + 1)]
            entries[: len(chosen)] = chosen
            if len(chosen) < classes:
                entries[len(chosen)] = -1
        return (_normal(rng, shape, dtype), lists.reshape(shape).astype(integer)), {}

    return draw


def _labels(shape: Shape, target: Shape, weight: Shape | None) -> Any:
    def draw(rng: np.random.Generator, dtype: str) -> Any:
        shares = np.asarray(rng.random(target)).astype(dtype)
        more = {} if weight is None else _weight(rng, weight, dtype, True)
        return (_normal(rng, shape, dtype), shares), more

    return draw


def _points(*shapes: Shape) -> Any:
    def draw(rng: np.random.Generator, dtype: str) -> Any:
        return tuple(_normal(rng, shape, dtype, 1.0) for shape in shapes), {}

    return draw


def _pairs(first: Shape, second: Shape, target: Shape, integer: str | None) -> Any:
    def draw(rng: np.random.Generator, dtype: str) -> Any:
        signs = np.asarray(rng.choice([-1, 1], target))
        return (
            _normal(rng, first, dtype),
            _normal(rng, second, dtype),
            signs.astype(integer or dtype),
        ), {}

    return draw


# ---- the cases ----------------------------------------------------------------------------------

ROWS: list[Shape] = [
    (4,), (1, 1), (1, 5), (3, 4), (5, 1), (4, 31), (3, 32), (3, 33), (7, 65), (2, 127), (2, 131),
]  # fmt: skip
LARGE: list[Shape] = [(300, 7), (130, 128), (5, 1025), (2, 2200), (1, 2203)]


def _size(*shapes: Shape) -> int:
    return max(int(np.prod(shape)) for shape in shapes)


def _nll() -> Iterator[Case]:
    for shape in [*ROWS, (0, 3), (2, 3, 4), (2, 5, 3, 2), (3, 7, 0), *LARGE, (40, 9, 33)]:
        for weighted in (False, True):
            draw = _classes(shape, "int64", weighted, 0.3)
            label = f"{shape}{'-weighted' * weighted}"
            yield Case("nll_loss", label, draw, _size(shape))
    draw = _classes((9, 4), "int16", True)
    yield Case("nll_loss", "ignored-class", draw, 36, {"ignore_index": 2})


def _margins() -> Iterator[Case]:
    for shape in [*ROWS, *LARGE]:
        for p, margin, weighted in ((1, 1.0, False), (2, 1.0, True), (1, 0.3, True)):
            draw = _classes(shape, "int32", weighted)
            label, options = f"{shape}-p{p}-{margin}", {"p": p, "margin": margin}
            yield Case("multi_margin_loss", label, draw, _size(shape), options)
        for length in (0, 3, shape[-1]):
            if length <= shape[-1] <= 200 or length == 3 <= shape[-1]:
                draw = _lists(shape, "int16", length)
                # the work grows with the length of the lists
                size = _size(shape) * max(length, 1)
                yield Case("multilabel_margin_loss", f"{shape}-{length}", draw, size)
    weights: dict[Shape, list[Shape]] = {(3, 4): [(1, 4), (3, 1), ()], (2, 3, 4): [(3, 4), (4,)]}
    for shape in [*ROWS, (0, 3), (2, 3, 4), *LARGE]:
        full = [shape[-1:], shape, *weights.get(shape, [])]
        for weight in (None, *full):
            draw = _labels(shape, shape, weight)
            yield Case("multilabel_soft_margin_loss", f"{shape}-{weight}", draw, _size(shape))
    for shape in ((3, 4), (2, 3, 4)):
        for target in (shape[-1:], (1, *shape[1:]), (*shape[:-1], 1), ()):
            draw = _labels(shape, target, shape[-1:])
            yield Case("multilabel_soft_margin_loss", f"{shape}-{target}-target", draw, 24)


NORMS = (2.0, 1.0, np.inf, 0.5, 1.5, 3.0)


def _distances() -> Iterator[Case]:
    for shape in [*ROWS, (0, 3), (2, 3, 4), (3, 0)]:
        for swap in (False, True):
            options = {"swap": swap, "margin": 2.0}
            draw = _points(shape, shape, shape)
            label = f"{shape}{'-swap' * swap}"
            yield Case("triplet_margin_loss", label, draw, _size(shape), options)
    for shape in [(4,), (5, 33), *LARGE]:
        for p in NORMS:
            options = {"p": p, "swap": shape != (4,), "eps": 1e-3}
            draw = _points(shape, shape, shape)
            yield Case("triplet_margin_loss", f"{shape}-p{p}", draw, 3 * _size(shape), options)
    broadcast: list[tuple[Shape, Shape, Shape]] = [
        ((3, 4), (1, 4), (3, 4)), ((1, 4), (3, 4), (1, 4)), ((2, 1, 5), (1, 3, 5), (2, 3, 5)),
        ((3, 1), (3, 4), (3, 4)), ((3, 4), (3, 4), (3, 1)),
    ]  # fmt: skip
    for shapes in broadcast:
        for swap in (False, True):
            label, options = f"{shapes}{'-swap' * swap}", {"swap": swap}
            yield Case("triplet_margin_loss", label, _points(*shapes), 30, options)
    for shape in [*ROWS, (0, 3), (3, 0), *LARGE]:
        for margin, integer in ((0.0, None), (0.4, "int8")):
            draw, options = _pairs(shape, shape, shape[:-1], integer), {"margin": margin}
            yield Case(
                "cosine_embedding_loss", f"{shape}-{margin}", draw, 2 * _size(shape), options
            )
    for first, second, target in (
        ((3, 4), (1, 4), (3,)), ((1, 4), (3, 4), (3,)), ((1, 4), (1, 4), (3,)),
        ((3, 4), (3, 4), (1,)),
    ):  # fmt: skip
        draw = _pairs(first, second, target, None)
        yield Case("cosine_embedding_loss", f"{first}{second}{target}", draw, 12)


CASES = [*_nll(), *_margins(), *_distances()]


def draw_case() -> st.SearchStrategy[Case]:
    """Return a strategy for problems of any shape and options."""

    @st.composite
    def problem(draw: st.DrawFn) -> Case:
        rows, size = draw(st.integers(0, 9)), draw(st.integers(1, 70))
        op = draw(st.sampled_from(sorted(OPERANDS)))
        weighted, label = draw(st.booleans()), f"drawn-{draw(st.integers(0, 10**6))}"
        if op in ("multi_margin_loss", "multilabel_margin_loss"):
            rows += 1  # torch's mean over no rows is not defined
        shape, options = (rows, size), dict[str, Any]()
        if op == "nll_loss":
            shape = (*shape, *draw(st.lists(st.integers(0, 4), max_size=2)))
            integer = draw(st.sampled_from(("int8", "int32", "int64")))
            making = _classes(shape, integer, weighted, draw(st.sampled_from((0.0, 0.5, 1.0))))
        elif op == "multi_margin_loss":
            making = _classes(shape, draw(st.sampled_from(("uint8", "int64"))), weighted)
            options = {"p": draw(st.sampled_from((1, 2))), "margin": draw(st.floats(-1, 2))}
        elif op == "multilabel_margin_loss":
            making = _lists(shape, "int8", draw(st.integers(0, size)))
        elif op == "multilabel_soft_margin_loss":
            target = draw(st.sampled_from((shape, (1, size), (rows, 1), (size,), ())))
            weights = (None, shape, (1, size), (rows, 1), (size,), ())
            making = _labels(shape, target, draw(st.sampled_from(weights)))
        elif op == "triplet_margin_loss":
            shapes = [draw(st.sampled_from((shape, (1, size)))) for _ in range(3)]
            making = _points(*shapes)
            options = {
                "margin": draw(st.floats(0.1, 3)),
                "p": draw(st.sampled_from((*NORMS, 1.1, 4.0))),
                "eps": draw(st.sampled_from((1e-6, 1e-2))),
                "swap": draw(st.booleans()),
            }
        else:
            first, second = (draw(st.sampled_from((shape, (1, size)))) for _ in range(2))
            target = draw(st.sampled_from(((rows,), (1,))))
            making = _pairs(first, second, target, draw(st.sampled_from((None, "int8", "int64"))))
            options = {"margin": draw(st.floats(-1, 1))}
        return Case(op, label, making, rows * size, options)

    return problem()
