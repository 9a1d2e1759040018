# SPDX-License-Identifier: MIT
"""Flat buckets of gradients, reduced while the backward pass still runs.

A bucket is one run of memory, of tilegrad's own: the gradients in it, one mark a parameter, which
tells on how many ranks it has a gradient, and in the first bucket the loss. The backward pass
writes into the bucket, torch sees the same memory by DLPack, and one all-reduce sums it in place.

Source: Li et al.: PyTorch distributed: experiences on accelerating data parallel training (2020).
"""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.utils.dlpack

from tilegrad import backends
from tilegrad._makers import zeros
from tilegrad.distributed._group import Group
from tilegrad.nn.parameter import Parameter, dtype_of

_ALIGNMENT = 64  # bytes; each gradient starts on a cache line
_FIRST_MB = 1.0  # the first bucket is small, so that the network is busy soon
_MB = 2**20


def plan_buckets(
    sizes: Sequence[int], kinds: Sequence[Any], cap: int, first: int
) -> list[list[int]]:
    """Return which gradients share a bucket, in the order in which backward completes them.

    Args:
        sizes: Bytes of each gradient, in that order.
        kinds: What must be equal within a bucket: dtype and device.
        cap: Bytes of a bucket; a larger gradient has one of its own.
        first: The same of the first bucket.

    Example:
        >>> plan_buckets([1, 6, 6, 3, 20, 1], ["f"] * 6, cap=12, first=4)
        [[0], [1, 2], [3], [4], [5]]
    """
    buckets: list[list[int]] = []
    open_by_kind: dict[Any, list[int]] = {}
    for index, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        bucket = open_by_kind.get(kind)
        if bucket is not None:
            limit = first if bucket is buckets[0] else cap
            if sum(sizes[i] for i in bucket) + size > limit:
                bucket = None
        if bucket is None:
            bucket = open_by_kind[kind] = []
            buckets.append(bucket)
        bucket.append(index)
    return buckets


class Bucket:
    """Gradients in one run of memory.

    Args:
        parameters: Those whose gradients it holds, all of one dtype and device.
        extra: Further elements at its end.
    """

    def __init__(self, parameters: Sequence[Parameter], extra: int) -> None:
        like = parameters[0].grad_buffer()
        dtype = dtype_of(like)
        step = _ALIGNMENT // like.itemsize
        offsets, end = [], 0
        for parameter in parameters:
            offsets.append(end)
            end += -(-parameter.size // step) * step
        self.parameters = list(parameters)
        self.memory: Any = zeros(end + len(parameters) + extra, dtype, device=parameters[0].device)
        self.tensor = torch.utils.dlpack.from_dlpack(self.memory)
        self.marks = self.tensor[end : end + len(parameters)]
        self.extra = self.tensor[end + len(parameters) :]
        self.parts = []  # of the tensor, one a parameter
        for parameter, offset in zip(parameters, offsets, strict=True):
            part = slice(offset, offset + parameter.size)
            parameter.adopt_grad_buffer(self.memory[part].reshape(parameter.shape))
            self.parts.append(self.tensor[part])
        self.ready: set[int] = set()
        self.absent: list[int] = []  # parameters without a gradient on this rank
        self.wait: Callable[[], None] | None = None

    def launch(self, group: Group) -> None:
        """Start the sum over the ranks; a parameter without a gradient adds nothing."""
        self.absent = [i for i, p in enumerate(self.parameters) if p.grad is None]
        self.marks.fill_(1)
        for i in self.absent:
            self.parts[i].zero_()
            self.marks[i] = 0
        self.wait = group.all_reduce(self.tensor)

    def finish(self) -> None:
        """Wait for the sum. What has a gradient on any rank now has it on all."""
        assert self.wait is not None
        self.wait()
        self.wait = None
        for i in self.absent:  # only then is a device waited for
            if self.marks[i] > 0:
                self.parameters[i].mark_grad()
        self.ready.clear()


class Reducer:
    """Sums the gradients of a model over the ranks.

    Args:
        group: The ranks.
        parameters: Those that are trained, in order of registration; one that several modules share
            once for each: its gradient is complete after the last of them.
        cap_mb: Size of a bucket in MiB.
    """

    def __init__(self, group: Group, parameters: Sequence[Parameter], cap_mb: float) -> None:
        self._group = group
        self._uses = Counter(id(p) for p in parameters)
        self._uses_left = Counter[int]()
        reverse = list(dict.fromkeys(parameters))[::-1]
        sizes = [p.grad_buffer().nbytes for p in reverse]
        # The number of a device is a rank's own affair, its kind is not.
        kinds = [(dtype_of(p.grad_buffer()), p.device.partition(":")[0]) for p in reverse]
        cap, first = int(cap_mb * _MB), int(min(cap_mb, _FIRST_MB) * _MB)
        plan = plan_buckets(sizes, kinds, cap, first)
        self.buckets = [Bucket([reverse[i] for i in plan[0]], 1)]
        self.buckets += [Bucket([reverse[i] for i in indices], 0) for indices in plan[1:]]
        self._bucket_of = {id(p): bucket for bucket in self.buckets for p in bucket.parameters}
        self._next = -1  # the bucket that is to be launched; below 0 outside of a reduction
        self.place = backends.place_of(reverse[0].device)
        self.checksum = zlib.crc32(repr((sizes, kinds, plan)).encode())
        for parameter in reverse:
            parameter.grad_ready = self._on_ready

    @property
    def loss(self) -> torch.Tensor:
        """The element beside the first gradients; it is summed with them."""
        return self.buckets[0].extra

    def begin(self) -> None:
        """Reduce what the backward pass that comes now completes."""
        self._next = 0
        self._uses_left = self._uses.copy()

    def finish(self) -> None:
        """Start what is left, then wait for all."""
        while self._next < len(self.buckets):
            self._launch()
        self._next = -1
        with torch_stream(self.place):
            for bucket in self.buckets:
                bucket.finish()

    def close(self) -> None:
        """Let the parameters go; their gradients stay where they are."""
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.grad_ready = None

    def _on_ready(self, parameter: Parameter) -> None:
        if self._next < 0:
            return
        self._uses_left[id(parameter)] -= 1
        if self._uses_left[id(parameter)] > 0:
            return
        self._bucket_of[id(parameter)].ready.add(id(parameter))
        # In one order on all ranks, or they would add up different buckets.
        while self._next < len(self.buckets):
            first = self.buckets[self._next]
            if len(first.ready) < len(first.parameters):
                return
            self._launch()

    def _launch(self) -> None:
        with torch_stream(self.place):
            self.buckets[self._next].launch(self._group)
        self._next += 1


@contextlib.contextmanager
def torch_stream(place: int | None) -> Iterator[None]:
    """Let torch work on tilegrad's current stream of a device: after its kernels, before the next.

    NCCL has a stream of its own, which waits for this one when a collective starts; waiting for the
    collective makes this one wait, not the process.
    """
    if place is None or place < 0:
        yield
        return
    handle = backends.at(place).current_stream(place)
    external: Any = torch.cuda.ExternalStream
    with torch.cuda.stream(external(handle, device=place)):
        yield
