# SPDX-License-Identifier: MIT
"""A training step over all ranks: what one process would do with the whole batch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from tilegrad import _random
from tilegrad._fit_step import on_device_of
from tilegrad._makers import asarray
from tilegrad._train import check_step_options
from tilegrad.distributed import _agree
from tilegrad.distributed._buckets import Reducer, torch_stream
from tilegrad.distributed._group import Group, Traffic, current
from tilegrad.nn.loss import CrossEntropyLoss
from tilegrad.nn.loss_rows import NLLLoss
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import Edits
from tilegrad.nn.utils import clip_grad_norm_
from tilegrad.optim.optimizer import Optimizer

_CHECK = 2**20  # below it the squares of checksums are exact sums in double precision


def denominator(loss_fn: Module, target: Any) -> float:
    """Return what the mean of a loss over these targets divides by.

    Args:
        loss_fn: A loss; one that is not tilegrad's counts samples.
        target: Targets, samples along the first axis.

    Example:
        >>> from tilegrad import nn
        >>> denominator(nn.MSELoss(), np.zeros((4, 2)))
        4.0
        >>> weighted = nn.CrossEntropyLoss(np.array([1.0, 0.5]), ignore_index=9)
        >>> denominator(weighted, np.array([0, 1, 9]))
        1.5
    """
    if not isinstance(loss_fn, (CrossEntropyLoss, NLLLoss)):
        return float(len(target))
    if not np.issubdtype(target.dtype, np.integer):
        return float(len(target))
    labels = target if isinstance(target, np.ndarray) else target.numpy()
    labels = labels[labels != loss_fn.ignore_index]
    weight: Any = loss_fn.weight
    if weight is None:
        return float(labels.size)
    weight = weight if isinstance(weight, np.ndarray) else weight.numpy()
    # A class that does not exist is the loss's to refuse.
    return float(weight.astype(np.float64).take(labels, mode="clip").sum())


class _Batch:
    """The sums over the ranks that belong to one batch; on their way while forward runs."""

    def __init__(self, group: Group, samples: int, share: float, checksum: int) -> None:
        self._group, self._share, self._samples = group, share, samples
        check = float(checksum % _CHECK)
        self._sums = torch.tensor([samples, share, check, check * check], dtype=torch.float64)
        self._wait: Callable[[], None] | None = group.all_reduce(self._sums)

    def _done(self) -> list[float]:
        if self._wait is not None:
            self._wait()
            self._wait = None
            self._verify()
        return [float(value) for value in self._sums]

    def _verify(self) -> None:
        samples, _, check, squares = self._done()
        ranks, rank = self._group.world_size, self._group.rank
        if int(check) ** 2 != int(squares) * ranks:  # equal only if all are equal
            raise ValueError(
                "DistributedTrainStep: the ranks are not at the same step of the same model (was "
                "a layer frozen, a learning rate set or an update made on some of them alone?)"
            )
        wanted = max(0, -(-(int(samples) - rank) // ranks))
        if self._samples != wanted:
            raise ValueError(
                f"DistributedTrainStep: rank {rank} must have {wanted} of {int(samples)} samples, "
                f"number {rank}, {rank + ranks}, ...; got {self._samples} (DataLoader.shard shares "
                "out batches so)"
            )

    def samples(self) -> int:
        """Return the size of the whole batch."""
        return int(self._done()[0])

    def factor(self) -> float:
        """Return by which a mean on this rank enters the mean of the whole batch."""
        whole = self._done()[1]
        return self._share / whole if whole > 0 else 1.0  # nothing counts: NaN, as in one process


class DistributedTrainStep:
    """Make the update that one process would make on the whole batch, on all ranks together.

    Each rank calls it with its rows of the batch (``DataLoader.shard(get_world_size(),
    get_rank())``); some may have none. When it is made, all ranks get weights, optimiser state and
    random stream of rank 0, after a comparison of names, shapes, dtypes and options.

    It runs the long form (forward, loss, backward, clipping, step). The gradients lie in flat
    buckets; the sum of a bucket over the ranks starts as soon as backward has filled it and all
    before it. A mean divides by what it would divide by for the whole batch, class weights and
    ``ignore_index`` included. Dropout draws the masks of the whole batch. A parameter without a
    gradient on some ranks has the sum of the others; one without any on all ranks is not updated.
    Equal runs with the same number of ranks give the same bits, and so do all ranks of one.

    An exception on one rank, or its end, ends the group: all others raise ``LostRankError``, within
    the ``timeout`` of ``init_process_group`` at the latest.

    Args:
        model: The model; its samples lie along the first axis.
        loss_fn: Loss with reduction "mean" or "sum".
        optimizer: Optimiser of the model's parameters.
        max_norm: Clip the gradients to this 2-norm; None does not clip.
        accumulate: Update at every so many calls, with the sum of their gradients, which the
            ranks exchange in the last of them alone.
        bucket_cap_mb: Size of a bucket in MiB; the first has at most 1.

    Raises:
        RuntimeError: There is no process group, or a parameter has a ``grad_ready`` hook already.
        ValueError: An illegal option, or ranks that differ; the text says which and in what.

    Example:
        >>> step = DistributedTrainStep(model, loss_fn, optimizer)  # doctest: +SKIP
        >>> shard = loader.shard(get_world_size(), get_rank())  # doctest: +SKIP
        >>> losses = [step(x, target) for x, target in shard]  # doctest: +SKIP

    Source: torch.nn.parallel.DistributedDataParallel.
    """

    def __init__(
        self,
        model: Module,
        loss_fn: Module,
        optimizer: Optimizer,
        *,
        max_norm: float | None = None,
        accumulate: int = 1,
        bucket_cap_mb: float = 25.0,
    ) -> None:
        op = "DistributedTrainStep"
        check_step_options(op, max_norm, accumulate)
        if not 0 < bucket_cap_mb < math.inf:
            raise ValueError(f"{op}: bucket_cap_mb must be finite and above 0; got {bucket_cap_mb}")
        reduction = getattr(loss_fn, "reduction", "mean")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"{op}: the loss needs reduction 'mean' or 'sum'; got {reduction!r}")
        if len({p.device for p in model.parameters()}) > 1:
            raise ValueError(f"{op}: all parameters must be on one device")
        if any(p.grad_ready is not None for p in model.parameters()):
            raise RuntimeError(
                f"{op}: a parameter has a grad_ready hook; close the step that set it"
            )
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.max_norm = max_norm
        self.accumulate = accumulate
        self.bucket_cap_mb = bucket_cap_mb
        self.traffic = Traffic()  # of the latest call
        self._is_sum = reduction == "sum"
        self._group = current(op)
        self._accumulated = 0
        self._steps = 0
        self._edits = -1  # Edits.count when the buckets were last compared
        self._trained: list[Any] = []
        self._reducer: Reducer | None = None
        with self._group.guarded():
            _agree.compare(self._group, op, _agree.describe(model, loss_fn, optimizer))
            _agree.share_state(self._group, model, optimizer)
            self._bucketed()

    def __call__(self, x: Any, target: Any) -> Any:
        """Train on this rank's rows of one batch.

        Args:
            x: Inputs, as the model takes them.
            target: Targets, as the loss takes them.

        Returns:
            The loss of the whole batch before the update, the same on all ranks: a NumPy scalar; on
            a device an Array without axes.
        """
        before = self._group.traffic
        with self._group.guarded():
            loss = self._run(x, target)
        self.traffic = self._group.traffic - before
        return loss

    def close(self) -> None:
        """Take the hooks away, so that the model can be trained in another way."""
        if self._reducer is not None:
            self._reducer.close()
            self._reducer = None
            self._edits = -1

    def _run(self, x: Any, target: Any) -> Any:
        reducer = self._bucketed()
        x, target = asarray(x), asarray(target)
        share = 1.0 if self._is_sum else denominator(self.loss_fn, target)
        batch = _Batch(self._group, len(target), share, self._checksum(reducer))
        self._steps += 1
        self.model.train()
        self.loss_fn.train()
        if self._accumulated == 0:
            self.model.zero_grad()
            self.optimizer.zero_grad()
        x, target = (on_device_of(self.model, array) for array in (x, target))
        group = self._group
        part = _random.Part(group.rank, group.world_size, len(target), batch.samples)
        with _random.part_of_batch(part):
            output = self.model(x)
        loss = self.loss_fn(output, target)
        factor = 1.0 if self._is_sum else batch.factor()
        gradient = self.loss_fn.backward(None)
        batch.samples()  # a batch that does not fit is refused before anything is changed
        with torch_stream(reducer.place):
            _scale(gradient, factor)
            _put_loss(reducer.loss, loss, factor)
        self._accumulated += 1
        is_last = self._accumulated == self.accumulate
        if is_last:
            reducer.begin()
        self.model.backward(gradient, input_grad=False)
        if is_last:
            reducer.finish()
            self._accumulated = 0
        else:
            with torch_stream(reducer.place):
                group.all_reduce(reducer.loss)()
        whole = _loss_of(reducer, loss)
        if is_last:
            if self.max_norm is not None:
                clip_grad_norm_(self.model.parameters(), self.max_norm)
            self.optimizer.step()
        return whole

    def _checksum(self, reducer: Reducer) -> int:
        """Return what is the same on all ranks: buckets, number of the step, learning rates."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return zlib.crc32(np.array([*rates, self._steps]).tobytes(), reducer.checksum)

    def _bucketed(self) -> Reducer:
        """Make the buckets anew when parameters were frozen, thawed, moved or replaced."""
        if self._reducer is not None and self._edits == Edits.count:
            return self._reducer
        parameters = [
            p for m in self.model.modules() for p in m._parameters.values() if p.requires_grad
        ]
        trained = [(p, id(p.data)) for p in parameters]
        if self._reducer is None or trained != self._trained:
            if not parameters:
                raise ValueError("DistributedTrainStep: the model has no parameter to train")
            self.close()
            self._reducer = Reducer(self._group, parameters, self.bucket_cap_mb)
            self._trained = trained
        self._edits = Edits.count
        return self._reducer


def _scale(gradient: Any, factor: float) -> None:
    """Multiply what a loss hands to the model; samples that count for nothing add zeros."""
    for array in gradient if isinstance(gradient, tuple) else (gradient,):
        if array.size and factor != 1:
            tensor = _tensor(array)
            # Not times zero: the mean over nothing is NaN.
            tensor.mul_(factor) if factor else tensor.zero_()


def _put_loss(place: torch.Tensor, loss: Any, factor: float) -> None:
    if factor == 0:
        place.zero_()
    elif isinstance(loss, (np.ndarray, np.generic)):
        place.fill_(float(loss) * factor)
    else:
        place.copy_(_tensor(loss).reshape(1))
        place.mul_(factor)


def _loss_of(reducer: Reducer, like: Any) -> Any:
    bucket = reducer.buckets[0]
    if isinstance(bucket.memory, np.ndarray):
        return np.asarray(like).dtype.type(bucket.memory[-1])
    return bucket.memory[bucket.memory.size - 1 :].copy().reshape(())


def _tensor(array: Any) -> torch.Tensor:
    """Return a tensor of an array's memory."""
    if isinstance(array, np.ndarray) and array.dtype.name == "bfloat16":  # not in NumPy's DLPack
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.utils.dlpack.from_dlpack(array)
