# SPDX-License-Identifier: MIT
"""TrainStep: one training step as one native call over a recorded plan."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tilegrad import _random, backends
from tilegrad._makers import asarray
from tilegrad._predict import is_same
from tilegrad._recorder import Recorder
from tilegrad.array import Array as DeviceArray
from tilegrad.nn.loss import Loss
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import Edits, Parameter
from tilegrad.optim.optimizer import Batch, Optimizer

_MOST_PLANS = 64  # of one step
_NOT_RECORDED = ("training", "_saved", "_inference")  # of a module

Array: TypeAlias = NDArray[Any]
Signature: TypeAlias = tuple[Any, ...]
T = TypeVar("T")


@dataclass
class _Plan:
    """The recorded forward and backward pass for one shape and dtype of batch."""

    recorder: Recorder
    loss: Array


@dataclass
class _Update:
    """The recorded clipping and optimiser update, and what of the optimiser it has baked in."""

    plan: Any
    batches: list[Batch]
    fingerprint: tuple[Any, ...]


@dataclass
class _Whole:
    """Both of them as one plan."""

    passes: _Plan
    update: _Update


def check_step_options(op: str, max_norm: float | None, accumulate: int) -> None:
    """Raise ValueError for an illegal option of a training step."""
    if max_norm is not None and not max_norm >= 0:
        raise ValueError(f"{op}: max_norm must be at least 0; got {max_norm}")
    if accumulate < 1:
        raise ValueError(f"{op}: accumulate must be at least 1; got {accumulate}")


class TrainStep:
    """Run zero_grad, forward, loss, backward, clipping and update as one native call.

    The first batch of a shape and dtype is recorded; later ones replay the plan over the same
    buffers without Python in between (the plans of the 64 shapes used last are kept); on a GPU the
    plan is one CUDA graph, into whose buffers the batch is copied. On the CPU the result equals
    the long form bit for bit::

        optimizer.zero_grad(); loss = loss_fn(model(x), target)
        model.backward(loss_fn.backward(), input_grad=False)
        clip_grad_norm_(model.parameters(), max_norm); optimizer.step()

    Model and loss run in training mode, with the options that their modules had when the plan was
    recorded. ``.grad`` is unspecified afterwards: gradients are overwritten, never zeroed, and the
    step does not even store those of weights that nothing but the update reads. An exception, such
    as a class index out of range, leaves parameters and optimiser as they were; on a device such an
    index is no exception: the loss is NaN and its row adds nothing to the gradients.

    Args:
        model: Module whose parts all have a plan (those of ``tilegrad.nn``).
        loss_fn: Loss with reduction "mean" or "sum".
        optimizer: Optimiser of the model's parameters.
        max_norm: Clip the gradients to this 2-norm; None does not clip.
        accumulate: Update at every so many calls, with the sum of their gradients (each call's
            loss is its own; divide the learning rate or the loss if a mean is wanted).

    Raises:
        TypeError: A module without a plan, named.
        ValueError: Illegal max_norm or accumulate, or a batch that does not fit the model.

    Example:
        >>> import numpy as np, tilegrad as tg
        >>> tg.manual_seed(0)
        >>> model = tg.nn.Sequential(tg.nn.Linear(2, 8, activation="tanh"), tg.nn.Linear(8, 2))
        >>> optimizer = tg.optim.SGD(model.parameters(), 0.5)
        >>> step = tg.TrainStep(model, tg.nn.CrossEntropyLoss(), optimizer)
        >>> x, t = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), np.array([0, 1, 1, 0])
        >>> losses = [step(x, t) for _ in range(500)]
        >>> bool(losses[-1] < 0.05 < losses[0])
        True
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Loss,
        optimizer: Optimizer,
        *,
        max_norm: float | None = None,
        accumulate: int = 1,
    ) -> None:
        check_step_options("TrainStep", max_norm, accumulate)
        if not isinstance(loss_fn, Loss):
            raise TypeError(f"TrainStep: {type(loss_fn).__name__} has no plan; pass a Loss")
        own = {id(p) for p in model.parameters()}
        if own and not any(id(p) in own for g in optimizer.param_groups for p in g["params"]):
            raise ValueError(
                "TrainStep: the optimizer holds none of the model's parameters; make it with "
                "model.parameters()"
            )
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.max_norm = max_norm
        self.accumulate = accumulate
        self._parameters = list(model.parameters())
        # What `_trains` found when the plans were recorded; these keep the buffers alive, so that
        # another one cannot have the same id
        self._trained: list[Any] = []
        self._edits = -1  # Edits.count when they were last compared
        self._one_kernel = True  # False: a step on a device is its calls, for comparison
        self._plans: dict[Signature, _Plan] = {}
        self._wholes: dict[Signature, _Whole] = {}
        self._latest: tuple[Signature, _Whole | None] = ((), None)
        self._joined: Any = None  # an empty plan, which all others join
        self._gradients: list[Parameter] = []  # those that a recorded backward pass fills
        self._update: _Update | None = None
        self._accumulated = 0  # batches whose gradients lie in the buffers
        # The buffers are one batch's. Reentrant: Ctrl-C can come between its acquisition and what
        # releases it, and the thread must be able to go on.
        self._lock = threading.RLock()

    def __call__(self, x: Any, target: Any) -> Any:
        """Train on one batch.

        Args:
            x: Inputs, as the model takes them.
            target: Targets, as the loss takes them.

        Returns:
            The loss before the update: a NumPy scalar; on a device an Array without axes, which
            has not been waited for.
        """
        self._enter()
        try:
            self._forget_outdated()
            # One plan: a weight can then be updated where its gradient is made, without storing
            # that, and a device has one graph to launch, for a small network of one kernel.
            if self.accumulate == 1 and self._accumulated == 0:
                return self._run_whole(x, target)
            loss = self._forward_backward(x, target)
            if self._accumulated >= self.accumulate:
                self._run_update()
            return loss
        finally:
            self._lock.release()

    @property
    def one_kernel(self) -> bool:
        """Whether the latest ``step(x, target)`` ran as one kernel.

        So does a step on a device of compute capability 8.0 or higher that is, in all: up to 8
        linear layers with activations in float32, cross-entropy of class indices, and SGD, Adam or
        AdamW with one group for all parameters; at most 1024 rows, 128 classes, widths of 8192, and
        2^29 multiply-adds (rows x in x out of each layer, three times, of the first twice). Any
        other step is the kernels of its ops, and so are ``forward_backward`` and ``update``.
        """
        whole = self._latest[1]
        return whole is not None and bool(whole.passes.recorder.plan._one_kernel)

    def forward_backward(self, x: Any, target: Any) -> Any:
        """Run everything but the update; return the loss.

        Called again before ``update``, it adds to the gradients that are there.
        """
        self._enter()
        try:
            return self._forward_backward(x, target)
        finally:
            self._lock.release()

    def update(self) -> None:
        """Clip and update with the gradients of the batches since the last update.

        Raises:
            RuntimeError: There was no ``forward_backward`` since then.
        """
        self._enter()
        try:
            self._run_update()
        finally:
            self._lock.release()

    def _enter(self) -> None:
        """Refuse a second thread."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("TrainStep: this step is already running in a thread")

    def _run_whole(self, x: Any, target: Any) -> Any:
        x, target = _as_array(x, "x"), _as_array(target, "target")
        key = (x.shape, x.dtype, target.shape, target.dtype)
        fingerprint = self.optimizer._fingerprint()
        latest, whole = self._latest
        if key != latest:
            whole = _found(self._wholes, key)
        if whole is not None and whole.update.fingerprint == fingerprint:
            self._run(whole.passes, whole.update.batches, x, target)
        else:
            known = set(self.optimizer.state)
            try:
                whole = self._record_whole(x, target, fingerprint)
                self._run(whole.passes, whole.update.batches, x, target)
            except BaseException:
                for parameter in self.optimizer.state.keys() - known:
                    del self.optimizer.state[parameter]  # made for an update that did not happen
                raise
            _keep(self._wholes, key, whole)
        self._latest = key, whole
        return whole.passes.loss[()]  # a copy: the next step writes here again

    def _forward_backward(self, x: Any, target: Any) -> Any:
        x, target = _as_array(x, "x"), _as_array(target, "target")
        self._forget_outdated()
        self._latest = (), None
        key = (x.shape, x.dtype, target.shape, target.dtype)
        recorded = _found(self._plans, key)
        if recorded is None:
            recorded = self._record(x, target)
            _keep(self._plans, key, recorded)
        self._run(recorded, (), x, target)
        self._accumulated += 1
        return recorded.loss[()]

    def _run(self, passes: _Plan, batches: Sequence[Batch], x: Array, target: Array) -> None:
        recorder = passes.recorder
        if recorder.counters:
            recorder.state.seed, recorder.state.offset = _random.take(4 * recorder.counters)
        for batch in batches:
            self.optimizer._prepare(batch)
        recorder.plan.run((x, target), self._accumulated > 0)
        for batch in batches:
            self.optimizer._count(batch)

    def _run_update(self) -> None:
        if self._accumulated == 0:
            raise RuntimeError("TrainStep.update: call forward_backward first")
        self._forget_outdated()
        fingerprint = self.optimizer._fingerprint()
        update = self._update
        if update is None or update.fingerprint != fingerprint:
            plan = self._join(backends.at(self._place()).Plan())
            update = self._update = self._record_update(plan, fingerprint)
        for batch in update.batches:
            self.optimizer._prepare(batch)
        update.plan.run((), False)
        for batch in update.batches:
            self.optimizer._count(batch)
        self._accumulated = 0

    def _forget_outdated(self) -> None:
        """Drop the plans when a layer, an option, a parameter's device or freeze was changed."""
        if self._edits == Edits.count:
            return
        self._edits = Edits.count
        self._parameters = list(self.model.parameters())
        trained = self._trains()
        if not is_same(trained, self._trained):
            self._plans.clear()
            self._wholes.clear()
            self._latest = (), None
            self._update = None
            self._joined = None
            self._trained = trained

    def _trains(self) -> list[Any]:
        """Return what a plan depends on: parameters, their buffers, modules and their options."""
        options = [
            (name, tuple(value.items()) if isinstance(value, dict) else value)
            for module in (*self.model.modules(), self.loss_fn)
            for name, value in module.__dict__.items()
            if name not in _NOT_RECORDED
        ]
        parameters = (
            (p.requires_grad, id(p.data), p._adopted, p.grad_ready is None)
            for p in self._parameters
        )
        return [*parameters, *options]

    def _record(self, x: Array, target: Array) -> _Plan:
        wanted = {p.dtype for p in self._parameters}
        if wanted and x.dtype.newbyteorder("=") not in wanted:  # byte order: the plan's to refuse
            raise TypeError(
                f"TrainStep: x must have the parameters' dtype {self._parameters[0].dtype}; got "
                f"{x.dtype} (call x.astype, or make the layers with dtype=)"
            )
        self.model.train()
        self.loss_fn.train()
        recorder = Recorder(self._place())
        self._join(recorder.plan)
        x_input = recorder.empty(x.shape, x.dtype)
        target_input = recorder.empty(target.shape, target.dtype)
        recorder.plan.input(x_input)
        recorder.plan.input(target_input)
        output, backward = self.model._record(recorder, x_input)
        loss, gradient = self.loss_fn._record_loss(recorder, output, target_input)
        backward(gradient, False)
        self._gradients = recorder.gradients
        return _Plan(recorder, loss)

    def _join(self, plan: Any) -> Any:
        """Let a plan's runs wait for those of the others, which share gradients and state."""
        if self._joined is None:
            self._joined = backends.at(self._place()).Plan()
        plan._join(self._joined)
        return plan

    def _place(self) -> int | None:
        places = {backends.place_of_array(p.data) for p in self._parameters}
        if len(places) > 1:
            names = sorted(backends.place_name(place) for place in places)
            raise TypeError(f"TrainStep: parameters must be on one device; got {names}")
        return places.pop() if places else None

    def _record_whole(self, x: Array, target: Array, fingerprint: tuple[Any, ...]) -> _Whole:
        passes = self._record(x, target)
        passes.recorder.plan._one_kernel = self._one_kernel
        return _Whole(passes, self._record_update(passes.recorder.plan, fingerprint))

    def _record_update(self, plan: Any, fingerprint: tuple[Any, ...]) -> _Update:
        filled = {id(p) for p in self._gradients}
        batches = self.optimizer._batches(filled)
        clipped = [p.grad_buffer() for p in self._parameters if id(p) in filled]
        if self.max_norm is not None and clipped:
            plan.clip_scale(clipped, self.max_norm, [batch.state for batch in batches])
        for batch in batches:
            self.optimizer._update(plan, batch)
        return _Update(plan, batches, fingerprint)


def _found(plans: dict[Signature, T], key: Signature) -> T | None:
    """Return a plan and move it to the end, as the latest used."""
    plan = plans.pop(key, None)
    if plan is not None:
        plans[key] = plan
    return plan


def _keep(plans: dict[Signature, T], key: Signature, plan: T) -> None:
    """Add a plan; where there are too many, drop that which was used longest ago."""
    plans.pop(key, None)
    while len(plans) >= _MOST_PLANS:
        del plans[next(iter(plans))]
    plans[key] = plan


def _as_array(value: Any, name: str) -> Array:
    if isinstance(value, (np.ndarray, DeviceArray)):
        return value  # type: ignore[return-value]
    if not hasattr(value, "__dlpack__"):
        raise TypeError(
            f"TrainStep: {name} must be a numpy.ndarray or have __dlpack__; got "
            f"{type(value).__name__} (call np.asarray on it, with a dtype)"
        )
    array: Array = asarray(value)
    return array
