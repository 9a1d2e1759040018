# SPDX-License-Identifier: MIT
"""descend: updates on one whole data set until the weights stand still."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._fit import _modes_restored
from tilegrad._fit_step import Step
from tilegrad._makers import asarray
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import Parameter
from tilegrad.optim.optimizer import Optimizer, check_option

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class DescentResult:
    """How a descent ended.

    Args:
        iterations: Updates made.
        converged: Whether every weight changed by less than the tolerance in the last of them.
        change: The largest change of a weight in the last update.
        message: Why it stopped, in a sentence.
        losses: The loss before each update.
    """

    iterations: int
    converged: bool
    change: float
    message: str
    losses: list[float] = field(repr=False)


def descend(
    model: Module,
    loss_fn: Module,
    optimizer: Optimizer,
    x: Any,
    target: Any,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 10_000,
) -> DescentResult:
    """Update on the whole data until every weight changes by less than a tolerance.

    Math: w_{t+1} = update(w_t); stop at the first t with max |w_{t+1} - w_t| < tolerance, or at
    t = max_iterations.

    Each update is a ``TrainStep`` (or the long form, for what has no plan). It also stops, without
    having converged, when the loss or a weight is no longer finite. A small change tells that the
    steps are small, not that the minimum is near: where the error shrinks by a factor r in each
    update, it is still about tolerance r / (1 - r), and a tiny learning rate "converges" at once.

    Args:
        model: The model; it ends in the mode in which it was given. With dropout the weights never
            stand still.
        loss_fn: Loss with reduction "mean" or "sum".
        optimizer: Optimiser of the model's parameters.
        x: Inputs, all samples.
        target: Targets, all samples.
        tolerance: Largest change of a weight that counts as standing still; 0 runs to the limit.
        max_iterations: Number of updates at most, at least 1.

    Returns:
        The DescentResult: ``converged`` says whether the tolerance was reached, ``message`` why it
        stopped, ``losses`` is the curve.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An illegal option, a model without parameters, or arrays that do not fit.

    Example:
        >>> import tilegrad as tg
        >>> x = np.array([[0.0], [1.0], [2.0]])
        >>> model = tg.nn.Linear(1, 1, dtype="float64")
        >>> sgd = tg.optim.SGD(model.parameters(), lr=0.2)
        >>> result = descend(model, tg.nn.MSELoss(), sgd, x, 3 * x - 1, tolerance=1e-9)
        >>> result.converged, model.weight.data.round(6), model.bias.data.round(6)
        (True, array([[3.]]), array([-1.]))
        >>> descend(model, tg.nn.MSELoss(), sgd, x, 9 - x, max_iterations=2).converged
        False
    """
    if not isinstance(loss_fn, Module):
        raise TypeError(f"descend: loss_fn must be a Module; got {type(loss_fn).__name__}")
    check_option("descend", "tolerance", tolerance, 0)
    if isinstance(max_iterations, bool) or not hasattr(max_iterations, "__index__"):
        raise TypeError(f"descend: max_iterations must be an integer; got {max_iterations!r}")
    limit = operator.index(max_iterations)
    if limit < 1:
        raise ValueError(f"descend: max_iterations must be at least 1; got {limit}")
    parameters = list(model.parameters())
    if not parameters:
        raise ValueError(f"descend: the model must have parameters; got {type(model).__name__}")
    losses: list[float] = []
    change, stopped = math.nan, ""
    with _modes_restored(model, loss_fn):
        model.train()
        loss_fn.train()
        step = Step(model, loss_fn, optimizer, None, "descend")
        before = [_values(parameter, optimizer) for parameter in parameters]
        while len(losses) < limit and not stopped:
            losses.append(float(step(x, target)))
            after = [_values(parameter, optimizer) for parameter in parameters]
            change = float(np.max([*map(_change, before, after)]))  # Python's max loses a NaN
            before = after
            if not math.isfinite(change):
                stopped = "a weight is no longer finite"
            elif not math.isfinite(losses[-1]):
                stopped = f"the loss is {losses[-1]}"
            elif change < tolerance:
                stopped = "converged"
    done = f"after {len(losses)} update{'s' * (len(losses) != 1)}"
    if stopped == "converged":
        message = f"converged {done}: no weight changed by more than {change:.3g}"
    elif stopped:
        message = f"not converged: stopped {done}, {stopped} (a lower learning rate may help)"
    else:
        message = f"not converged: the limit, {done}; a weight still changed by {change:.3g}"
    return DescentResult(len(losses), stopped == "converged", change, message, losses)


def _values(parameter: Parameter, optimizer: Optimizer) -> Array:
    """Return a copy of the values: of bfloat16 the master, in which small changes add up."""
    values = optimizer.state.get(parameter, {}).get("master", parameter.data)
    return np.array(asarray(values, device="cpu"), np.float64)


def _change(old: Array, new: Array) -> float:
    """Return the largest change, NaN or infinite if one is."""
    with np.errstate(invalid="ignore"):  # inf - inf
        return float(np.abs(new - old).max(initial=0.0))
