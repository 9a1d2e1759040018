# SPDX-License-Identifier: MIT
"""The base of the optimisers: parameter groups, state, and the native update of a group."""

from __future__ import annotations

import copy
import math
import numbers
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilegrad import backends
from tilegrad._makers import asarray, copied
from tilegrad.array import Array
from tilegrad.nn.parameter import Parameter, wide_full

Group: TypeAlias = dict[str, Any]
Params: TypeAlias = (
    "Iterable[Parameter] | Iterable[tuple[str, Parameter]] | Iterable[Mapping[str, Any]]"
)
Buffers: TypeAlias = "list[NDArray[Any]] | None"

_place = backends.place_of_array
_NO_OPTIONS = ("params", "param_names", "initial_lr")  # what a group has besides options
_MASTER = "master"  # the name in the state of a bfloat16 parameter's float32 values


@dataclass
class Batch:
    """Parameters that one native call updates: one group, device, step count, gradients' dtype."""

    group: Group
    params: list[Parameter]
    module: Any  # the backend
    state: Any  # the native StepState that the kernels read
    operands: list[Buffers]  # values, gradients, then each buffer's list, or None where unused
    # The native call's last argument: of each bfloat16 parameter, whose master is among the values,
    # the parameter itself; None for another. Empty if there is no bfloat16.
    rounded: dict[str, list[Any]]


class Optimizer:
    """Base class. A subclass names its buffers and makes the native call.

    A bfloat16 parameter is trained as float32: its state has a ``master``, which the update works
    on and then rounds to the parameter. Values that are written to the parameter between updates,
    in whatever way, replace those of the master, element by element.

    Args:
        params: Parameters, named ones as ``module.named_parameters()`` gives them, or groups
            ``{"params": [...], "lr": ...}`` of either whose options override the defaults.
        defaults: Options of every group.

    Raises:
        ValueError: No parameter, one given twice, an unknown or illegal option, names that are not
            there for all parameters or not different.
        TypeError: Something that is no Parameter, or a set: its order changes between runs.
    """

    # Names of the arrays kept for each parameter, as torch calls them, and which of them only some
    # options need.
    _buffer_names: ClassVar[tuple[str, ...]]
    _optional_buffers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: Params, defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Parameter, dict[str, Any]] = {}
        self._version = 0  # changes whenever a recorded update may have become wrong
        self._seen: tuple[list[Any], tuple[Any, ...]] = ([], (-1,))  # by _fingerprint
        if isinstance(params, Parameter) or not isinstance(params, Iterable):
            raise TypeError(
                f"{type(self).__name__}: params must be an iterable of Parameters or groups; got "
                f"{type(params).__name__} (put a Parameter in a list, pass module.parameters())"
            )
        items = list(params)
        if not items:
            raise ValueError(f"{type(self).__name__}: got no parameters")
        if isinstance(items[0], Mapping):
            for group in items:
                self.add_param_group(group)  # type: ignore[arg-type]
        else:
            self.add_param_group({"params": items})

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own."""
        name = type(self).__name__
        if not isinstance(group, Mapping):
            raise TypeError(f'{name}: a group must be a mapping with "params"; got {group!r}')
        if "params" not in group:
            raise ValueError(f'{name}: a group must have "params"; got {sorted(group)}')
        unknown = group.keys() - self.defaults.keys() - {"params", "initial_lr"}
        if unknown:
            raise ValueError(f"{name}: unknown options {sorted(unknown)} in a parameter group")
        names, members = self._named(group["params"])
        known = {id(p) for existing in self.param_groups for p in existing["params"]}
        for member in members:
            if not isinstance(member, Parameter):
                raise TypeError(
                    f"{name}: takes Parameters, such as model.parameters(); got "
                    f"{type(member).__name__}"
                )
            if id(member) in known:
                raise ValueError(f"{name}: a parameter was given twice; {member!r}")
            known.add(id(member))
        complete = {**self.defaults, **group, "params": members}
        if names:
            complete["param_names"] = names
        self._check(complete)
        self.param_groups.append(complete)
        self._version += 1

    def _named(self, params: Any) -> tuple[list[str], list[Parameter]]:
        """Return the names, if there are any, and the parameters of a new group."""
        name = type(self).__name__
        if isinstance(params, (set, frozenset)):
            raise TypeError(
                f"{name}: params must be ordered, or runs differ; got a set (use a list)"
            )
        items: list[Any] = [params] if isinstance(params, Parameter) else list(params)
        names = [item[0] for item in items if isinstance(item, tuple)]
        if names and len(names) != len(items):
            raise ValueError(f"{name}: all parameters must have names or none; got {names} alone")
        before = [n for group in self.param_groups for n in group.get("param_names", ())]
        if self.param_groups and bool(before) != bool(names):
            raise ValueError(
                f"{name}: all groups must have names or none; got one "
                f"{'with' if names else 'without'} them"
            )
        for i, one in enumerate(names):
            if one in before or one in names[:i]:
                raise ValueError(f"{name}: a name was given twice; {one!r}")
        return names, [item[1] for item in items] if names else items

    def zero_grad(self) -> None:
        """Set every parameter's gradient to None; the buffers are kept."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.zero_grad()

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        self._version += 1
        for batch in self._batches():
            self._prepare(batch)
            self._update(batch.module, batch)
            self._count(batch)

    # ---- to be defined by a subclass --------------------------------------------------------

    def _check(self, group: Group) -> None:
        """Raise ValueError for an illegal option."""
        raise TypeError(f"{type(self).__name__}: the class does not define _check")

    def _used_buffers(self, group: Group) -> tuple[str, ...]:
        """Return the buffers that these options need."""
        return self._buffer_names

    def _initial(self, group: Group, name: str) -> float:
        """Return what a buffer is filled with before the first update."""
        return 0.0

    def _update(self, target: Any, batch: Batch) -> None:
        """Make the native call: on a backend module now, or on a plan for later."""
        raise TypeError(f"{type(self).__name__}: the class does not define _update")

    # ---- the update in batches, for step and for TrainStep ----------------------------------

    def _batches(self, filled: Container[int] | None = None) -> list[Batch]:
        """Group the parameters that have a gradient, or whose id is in ``filled``."""
        batches: dict[tuple[int, int | None, Any, int], list[Parameter]] = {}
        for i, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                has_grad = parameter.grad is not None if filled is None else id(parameter) in filled
                if has_grad:
                    step = self.state.get(parameter, {}).get("step", 0)
                    place = _place(parameter.data)
                    key = (i, place, parameter.grad_buffer().dtype, step)
                    batches.setdefault(key, []).append(parameter)
        return [
            self._batch(self.param_groups[i], backends.at(place), params)
            for (i, place, _, _), params in batches.items()
        ]

    def _batch(self, group: Group, module: Any, params: list[Parameter]) -> Batch:
        used = self._used_buffers(group)
        rounded: list[Any] = []  # the bfloat16 parameters, None for the others
        values: list[Any] = []
        for parameter in params:
            data = parameter.data
            is_rounded = data.itemsize == 2
            names = (_MASTER, *used) if is_rounded else used
            if names:
                state = self.state.setdefault(parameter, {"step": 0})
                for name in names:
                    # A master of zeros takes over the parameter's values in its first update, as
                    # any master does with values that are not its own rounded.
                    if name not in state:
                        value = 0.0 if name == _MASTER else self._initial(group, name)
                        state[name] = wide_full(data, value)
                    elif _place(state[name]) != _place(data):  # the parameter has moved
                        state[name] = asarray(state[name], device=parameter.device)
            values.append(state[_MASTER] if is_rounded else data)
            rounded.append(data if is_rounded else None)
        operands: list[Buffers] = [values, [p.grad_buffer() for p in params]]
        operands += [
            [self.state[p][name] for p in params] if name in used else None
            for name in self._buffer_names
        ]
        has_rounded = any(data is not None for data in rounded)
        keywords = {"rounded": rounded} if has_rounded else {}
        return Batch(group, params, module, module.StepState(), operands, keywords)

    def _prepare(self, batch: Batch) -> None:
        """Write what changes from step to step where the kernels read it."""
        batch.state.learning_rate = batch.group["lr"]
        batch.state.step = self.state.get(batch.params[0], {}).get("step", 0) + 1

    def _count(self, batch: Batch) -> None:
        if self._used_buffers(batch.group):
            for parameter in batch.params:
                self.state[parameter]["step"] += 1

    def _fingerprint(self) -> tuple[Any, ...]:
        """Return what a recorded update has baked in: everything but the learning rates."""
        values = [tuple(group.values()) for group in self.param_groups]
        if values == self._seen[0] and self._version == self._seen[1][0]:  # the rates too
            return self._seen[1]
        options = (
            value
            for group in self.param_groups
            for name, value in group.items()
            if name != "lr" and name not in _NO_OPTIONS
        )
        self._seen = (values, (self._version, *options))
        return self._seen[1]

    # ---- saving -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {index: arrays and step}, "param_groups": [options]}, as torch."""
        order = [p for group in self.param_groups for p in group["params"]]
        index = {id(p): i for i, p in enumerate(order)}
        return {
            "state": {index[id(p)]: dict(values) for p, values in self.state.items()},
            "param_groups": [
                {**group, "params": [index[id(p)] for p in group["params"]]}
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a saved state; nothing is changed if it does not fit.

        Raises:
            ValueError: Other groups, sizes, options or shapes than this optimiser's.
        """
        name = f"{type(self).__name__}.load_state_dict"
        for key in ("state", "param_groups"):
            if key not in state_dict:
                raise ValueError(f"{name}: the state must have {key!r}; got {sorted(state_dict)}")
        groups = state_dict["param_groups"]
        order = [p for group in self.param_groups for p in group["params"]]
        sizes = [len(group["params"]) for group in self.param_groups]
        if [len(group.get("params", ())) for group in groups] != sizes:
            raise ValueError(
                f"{name}: groups of {sizes} parameters expected; got "
                f"{[len(group.get('params', ())) for group in groups]}"
            )
        updates = []
        for group, saved in zip(self.param_groups, groups, strict=True):
            options = {key: copy.copy(value) for key, value in saved.items() if key != "params"}
            names = options.pop("param_names", None)
            if names is not None and names != group.get("param_names", names):
                raise ValueError(
                    f"{name}: the parameters must be {group['param_names']}; got {names}"
                )
            if options.keys() - set(_NO_OPTIONS) != self.defaults.keys():
                raise ValueError(
                    f"{name}: a group must have the options {sorted(self.defaults)}; got "
                    f"{sorted(options)}"
                )
            self._check({**group, **options})
            updates.append(options)
        by_index = dict(zip((i for group in groups for i in group["params"]), order, strict=True))
        state: dict[Parameter, dict[str, Any]] = {}
        for index, values in state_dict["state"].items():
            if index not in by_index:
                raise ValueError(f"{name}: there is state for an unknown parameter {index!r}")
            what = f"{name}: parameter {index}"
            state[by_index[index]] = self._checked_state(what, by_index[index], values)
        for group, options in zip(self.param_groups, updates, strict=True):
            group.update(options)
        self.state = state
        self._version += 1

    def _checked_state(self, what: str, parameter: Parameter, values: Any) -> dict[str, Any]:
        """Return a copy of one parameter's saved state, or raise ValueError."""
        step = values.get("step")
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ValueError(f"{what}: step must be an integer, at least 0; got {step!r}")
        buffers, names = values.keys() - {"step"}, self._buffer_names
        needed = set(names) - set(self._optional_buffers)
        if parameter.data.itemsize == 2:
            names = (_MASTER, *names)
            if step == 0 and buffers == {_MASTER}:  # no option has needed a buffer yet
                needed = set()
            needed.add(_MASTER)
        if not needed <= buffers <= set(names):
            raise ValueError(f"{what}: buffers must be {list(names)}; got {sorted(buffers)}")
        checked: dict[str, Any] = {"step": step}
        dtype = parameter.grad_buffer().dtype
        for key in (name for name in names if name in buffers):  # in a fixed order
            value = values[key]
            if not isinstance(value, (np.ndarray, Array)):
                raise ValueError(f"{what}: {key} must be an array; got {type(value).__name__}")
            if value.shape != parameter.shape or value.dtype != dtype:
                raise ValueError(
                    f"{what}: {key} must be {parameter.shape} {dtype}; got "
                    f"{value.shape} {value.dtype}"
                )
            checked[key] = copied(value, parameter.device)
        return checked

    def __repr__(self) -> str:
        groups = [
            ", ".join(f"{key}={group[key]!r}" for key in group if key not in _NO_OPTIONS[:2])
            for group in self.param_groups
        ]
        return f"{type(self).__name__}({'; '.join(groups)})"


def check_option(owner: str, name: str, value: float, low: float, below: float = math.inf) -> None:
    """Raise ValueError unless low <= value < below; NaN and infinity never pass."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{owner}: {name} must be a number; got {value!r}")
    if not (low <= value < below):
        rule = f"at least {low}" if below == math.inf else f"in [{low}, {below})"
        raise ValueError(f"{owner}: {name} must be finite and {rule}; got {value}")


def check_penalties(owner: str, group: Group) -> None:
    """Raise ValueError for an illegal option of those that every optimiser has."""
    for name in ("lr", "weight_decay", "l1_decay"):
        check_option(owner, name, group[name], 0)
