# SPDX-License-Identifier: MIT
"""A model's forward pass in eval mode as one native call over a recorded plan, on the CPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad._makers import empty
from tilegrad._recorder import Recorder
from tilegrad.nn.parameter import Edits

if TYPE_CHECKING:
    from tilegrad.nn.module import Module

Array: TypeAlias = NDArray[Any]

_OWN = ("_parameters", "_modules", "_inference")  # of Module: changed by its methods alone
_MOST_PLANS = 8  # of one model
_MOST_BYTES = 1 << 26  # of one plan's buffers


class _Plan:
    """The recorded forward pass for one shape and dtype; ``native`` is None where there is none."""

    def __init__(self, model: Module, x: Array) -> None:
        self.edits = Edits.count  # before anything is read
        self.alone = threading.RLock()  # Ctrl-C may come before its release is certain
        modules = list(model.modules())
        self.attributes = [module.__dict__ for module in modules]
        # What can change without an assignment to an attribute, such as activation_args.
        self.containers = [
            (attributes, name, value, _contents(value))
            for attributes in self.attributes
            for name, value in attributes.items()
            if isinstance(value, (dict, list, set)) and name not in _OWN
        ]
        self.native: Any = None
        parameters = [p.data for p in model.parameters()]
        if not (
            all(_records_its_forward(module) for module in modules)
            and all(type(p) is np.ndarray and p.dtype == x.dtype for p in parameters)
        ):
            return
        recorder = Recorder(training=False)
        placeholder = recorder.empty(x.shape, x.dtype)
        try:
            output, _ = model._record(recorder, placeholder)
            recorder.plan.input(placeholder)
            recorder.plan.output(output)
        except (TypeError, ValueError):  # the forward pass itself says what is wrong
            return
        if np.may_share_memory(output, placeholder) or recorder.bytes > _MOST_BYTES:
            return
        self.native = recorder.plan
        self.shape, self.dtype = output.shape, output.dtype

    def is_current(self, model: Module) -> bool:
        return (
            self.attributes[0] is model.__dict__  # not that of a shallow copy
            and self.edits == Edits.count
            and all(
                attributes.get(name) is value and is_same(_contents(value), contents)
                for attributes, name, value, contents in self.containers
            )
        )

    def run(self, x: Array, out: Array | None) -> Array | None:
        """Return the output; None where there is no plan or another thread is using it."""
        if self.native is None or not self.alone.acquire(blocking=False):
            return None
        try:
            for attributes in self.attributes:  # as a forward pass in eval mode does
                attributes["_saved"] = None
            result: Array = self.native.run((x,), False, out)
            return result
        finally:
            self.alone.release()


class _Plans(dict[tuple[Any, ...], _Plan]):
    """The plans of one model. They are not copied or saved with it: they hold its addresses."""

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(None), ())


def _contents(container: Any) -> list[Any]:
    return [*container.items()] if isinstance(container, dict) else [*container]


def is_same(now: list[Any], then: list[Any]) -> bool:
    """Say whether two contents hold the same objects, or equal ones."""
    try:
        return now == then
    except ValueError:  # arrays among them, which do not say whether they are equal
        return False


def _records_its_forward(module: Module) -> bool:
    """Say whether the module's plan was written for the forward pass that the module has."""

    def where(name: str) -> type:
        return next(c for c in type(module).__mro__ if name in c.__dict__)

    own = module.__dict__.keys() & {"forward", "_record"}
    base = type(module).__mro__[-2]  # Module
    return not own and where("forward") is where("_record") and where("__call__") is base


def run(model: Module, x: Any, batch_size: int | None) -> Array | None:
    """Return the outputs of all samples, or None where they must be computed module by module."""
    if type(x) is not np.ndarray or x.ndim == 0:
        return None
    rows = len(x)
    if batch_size is None or rows <= batch_size:
        return _find(model, x).run(x, None)
    out: Array | None = None
    for begin in range(0, rows, batch_size):
        piece = x[begin : begin + batch_size]
        plan = _find(model, piece)
        if plan.native is None or plan.shape[:1] != piece.shape[:1]:
            return None
        if out is None:
            out = empty((rows, *plan.shape[1:]), plan.dtype)
        if plan.run(piece, out[begin : begin + batch_size]) is None:
            return None
    return out


def _find(model: Module, x: Array) -> _Plan:
    plans: _Plans | None = model.__dict__.get("_inference")
    if plans is None:
        plans = model.__dict__["_inference"] = _Plans()
    key = (x.shape, x.dtype)
    plan = plans.get(key)
    if plan is None or not plan.is_current(model):
        if len(plans) >= _MOST_PLANS:
            plans.clear()
        plan = plans[key] = _Plan(model, x)
    return plan
