# SPDX-License-Identifier: MIT
"""The group of processes: how it starts, what it exchanges, and how it ends when one is lost."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed

from tilegrad import cuda

dist: Any = torch.distributed  # it does not export all that its documentation names

_ROLL_CALL = 3.0  # seconds that the ranks have to answer after a collective has failed
_STORE_SECONDS = 5.0  # that the store may take to answer then


class LostRankError(RuntimeError):
    """Another rank has ended or does not answer; this one cannot go on. All must start again."""


@dataclass(frozen=True)
class Traffic:
    """What was handed to collectives.

    An all-reduce of n bytes among W ranks sends about 2 (W - 1) / W n bytes from each; see
    ``tilegrad.bench.data_parallel_model``.

    Args:
        messages: Number of collectives.
        bytes: Size of what they reduced or copied, on this rank.

    Example:
        >>> Traffic(3, 100) - Traffic(1, 60)
        Traffic(messages=2, bytes=40)
    """

    messages: int = 0
    bytes: int = 0

    def __sub__(self, other: Traffic) -> Traffic:
        """Return what came after another moment."""
        return Traffic(self.messages - other.messages, self.bytes - other.bytes)


class Group:
    """The processes that train together.

    Args:
        store: What the ranks meet through; it tells who is lost.
        rank: Number of this process.
        world_size: Number of processes.
        timeout: Seconds that a collective may take.
    """

    def __init__(self, store: Any, rank: int, world_size: int, timeout: float) -> None:
        self.rank = rank
        self.world_size = world_size
        self.timeout = timeout
        self.traffic = Traffic()
        self._store = store
        self._ended: BaseException | None = None

    # ---- collectives ------------------------------------------------------------------------

    def all_reduce(self, tensor: torch.Tensor) -> Callable[[], None]:
        """Start to sum a tensor over the ranks, in place; return what waits for it."""
        with self._watched():
            work = dist.all_reduce(tensor, async_op=True)
        self._count(tensor)

        def wait() -> None:
            with self._watched():
                work.wait()

        return wait

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Copy a tensor from rank 0 to all others."""
        with self._watched():
            dist.broadcast(tensor, 0)
        self._count(tensor)

    def broadcast_bytes(self, content: bytes | None) -> bytes | None:
        """Return what rank 0 was given; None there is None everywhere."""
        size = torch.tensor([-1 if content is None else len(content)])
        self.broadcast(size)
        if size.item() < 0:
            return None
        if self.rank == 0 and content is not None:
            memory = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)
        else:
            memory = torch.zeros(max(int(size.item()), 1), dtype=torch.uint8)
        self.broadcast(memory)
        return memory.numpy().tobytes()[: int(size.item())]

    def total(self, values: list[float]) -> list[float]:
        """Return the sums over the ranks, in double precision."""
        summed = torch.tensor(values, dtype=torch.float64)
        self.all_reduce(summed)()
        return [float(value) for value in summed]

    def gather_texts(self, text: str) -> list[str]:
        """Return the texts of all ranks, in their order."""
        content = np.frombuffer(text.encode(), np.uint8)
        sizes = torch.zeros(self.world_size, dtype=torch.int64)
        sizes[self.rank] = len(content)
        self.all_reduce(sizes)()
        table = torch.zeros((self.world_size, max(int(sizes.max()), 1)), dtype=torch.uint8)
        table[self.rank, : len(content)] = torch.from_numpy(content.copy())
        self.all_reduce(table)()
        return [
            row[: int(size)].numpy().tobytes().decode()
            for row, size in zip(table, sizes, strict=True)
        ]

    def _count(self, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        self.traffic = Traffic(self.traffic.messages + 1, self.traffic.bytes + size)

    # ---- the end ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Tell the other ranks when this one leaves the block by an exception."""
        self._check()
        try:
            yield
        except BaseException as error:
            self.leave(error)
            raise

    def close(self) -> None:
        """Leave the group."""
        if self._ended is None:
            self._ended = RuntimeError("the group was destroyed")
            with contextlib.suppress(Exception):
                dist.destroy_process_group()

    def _check(self) -> None:
        if self._ended is not None:
            raise LostRankError(
                f"distributed: the group has ended ({_words(self._ended)}); start all ranks again"
            )

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Say which rank is lost when a collective fails."""
        self._check()
        try:
            yield
        except RuntimeError as error:  # what gloo and the stores raise
            lost = self._roll_call(error)
            self._ended = lost
            raise lost from error

    def leave(self, error: BaseException) -> None:
        """Leave the group, and say why."""
        if self._ended is not None:
            return
        self._ended = error
        with contextlib.suppress(Exception):
            self._store.set_timeout(timedelta(seconds=_STORE_SECONDS))
            self._store.set(f"ended/{self.rank}", _words(error))
        with contextlib.suppress(Exception):
            dist.destroy_process_group()  # closes the connections: nobody waits for this rank

    def _roll_call(self, error: BaseException) -> BaseException:
        """Find out who is missing.

        Each rank that is left writes its name, then closes its connections, so that those who
        wait for it come here too.
        """
        with contextlib.suppress(Exception):
            self._store.set_timeout(timedelta(seconds=_STORE_SECONDS))
            self._store.set(f"here/{self.rank}", "1")
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
        missing = [rank for rank in range(self.world_size) if rank != self.rank]
        until = time.monotonic() + _ROLL_CALL
        try:
            while True:
                for rank in range(self.world_size):
                    if self._store.check([f"ended/{rank}"]):
                        words = self._store.get(f"ended/{rank}").decode()
                        if words == "KeyboardInterrupt":
                            return KeyboardInterrupt()
                        return self._lost(f"rank {rank} ended with {words}")
                missing = [rank for rank in missing if not self._store.check([f"here/{rank}"])]
                if not missing or time.monotonic() > until:
                    break
                time.sleep(0.02)
        except Exception:  # of a store that died with its rank
            return self._lost("lost contact with all ranks (rank 0 may have been killed)")
        if not missing:
            return self._lost(f"a collective failed on all ranks ({_words(error)})")
        names = " and ".join(f"rank {rank}" for rank in missing)
        return self._lost(
            f"{names} did not answer (killed, stopped for more than {self.timeout:g} s, or its "
            "machine or network failed)"
        )

    def _lost(self, what: str) -> LostRankError:
        return LostRankError(
            f"distributed: {what}; rank {self.rank} of {self.world_size} ends too. Start all ranks "
            "again; a run with a checkpoint goes on from there"
        )


_group: Group | None = None


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "KeyboardInterrupt"
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def current(op: str) -> Group:
    """Return the group; RuntimeError where there is none, which names the caller."""
    if _group is None:
        raise RuntimeError(f"{op}: call tilegrad.distributed.init_process_group() first")
    return _group


def init_process_group(
    backend: str | None = None,
    *,
    init_method: str = "env://",
    timeout: float = 600.0,
    rank: int | None = None,
    world_size: int | None = None,
) -> None:
    """Join the processes that train together. Call it once, first of all, on every rank.

    torchrun sets the environment variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT that this reads. The connections are neither encrypted nor authenticated: use a
    network that you trust.

    Args:
        backend: As torch has it; None: "gloo" or, where CUDA devices can be used, "cpu:gloo,
            cuda:nccl". With NCCL, torch's current device becomes that of LOCAL_RANK.
        init_method: Where the ranks meet: "env://", "tcp://HOST:PORT", or the
            ``pathlib.Path.as_uri()`` of a file that does not exist yet, on a disk that all share.
        timeout: Seconds that a rank waits for the others before it gives up.
        rank: Number of this process; None: RANK.
        world_size: Number of processes; None: WORLD_SIZE.

    Raises:
        RuntimeError: A group exists already, a variable is missing, or the ranks do not meet.
        ValueError: timeout, rank or world_size is out of range.

    Example:
        >>> init_process_group(timeout=120.0)  # doctest: +SKIP

    Source: torch.distributed.init_process_group.
    """
    global _group
    op = "init_process_group"
    if _group is not None or dist.is_initialized():
        raise RuntimeError(f"{op}: there is a group already; destroy_process_group() ends it")
    if not 0 < timeout < math.inf:
        raise ValueError(f"{op}: timeout must be a finite number of seconds above 0; got {timeout}")
    rank = _number(op, "RANK", rank)
    world_size = _number(op, "WORLD_SIZE", world_size)
    if not 0 <= rank < world_size:
        raise ValueError(f"{op}: rank must be in [0, {world_size}); got {rank}")
    if backend is None:
        on_gpus = cuda.is_available() and torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    if backend == "nccl":  # which knows no memory of the host
        backend = "cpu:gloo,cuda:nccl"
    if "nccl" in backend:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    limit = timedelta(seconds=timeout)
    try:
        store, _, _ = next(iter(dist.rendezvous(init_method, rank, world_size, timeout=limit)))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"tilegrad/{attempt}", store)
        dist.init_process_group(
            backend, store=dist.PrefixStore("torch", store), rank=rank, world_size=world_size,
            timeout=limit,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()
        left = " (a file that an earlier run has left? remove it)"
        hint = left if init_method.startswith("file:") else ""
        raise RuntimeError(
            f"{op}: the ranks did not meet by {init_method}: {error}{hint}"
        ) from error
    _group = Group(store, rank, world_size, timeout)
    atexit.register(_at_exit)


def _at_exit() -> None:
    """Tell the others of a process that ends in the middle; where all end, nobody reads it."""
    if _group is not None:
        _group.leave(RuntimeError("the end of its process, without destroy_process_group()"))


def _number(op: str, variable: str, given: int | None) -> int:
    text = os.environ.get(variable) if given is None else str(given)
    try:
        return int(text or "")
    except ValueError:
        got = "it is not set" if text is None else f"got {text!r}"
        raise RuntimeError(
            f"{op}: the environment variable {variable} must be a number; {got} (start the script "
            "by torchrun: torchrun --nproc-per-node 2 script.py)"
        ) from None


def destroy_process_group() -> None:
    """Leave the group; without one nothing happens.

    Example:
        >>> destroy_process_group()

    Source: torch.distributed.destroy_process_group.
    """
    global _group
    if _group is not None:
        _group.close()
        _group = None


def is_initialized() -> bool:
    """Tell whether this process is in a group.

    Example:
        >>> is_initialized()
        False
    """
    return _group is not None


def get_rank() -> int:
    """Return the number of this process, from 0; 0 without a group.

    Example:
        >>> get_rank()
        0
    """
    return 0 if _group is None else _group.rank


def get_world_size() -> int:
    """Return the number of processes; 1 without a group.

    Example:
        >>> get_world_size()
        1
    """
    return 1 if _group is None else _group.world_size


def get_traffic() -> Traffic:
    """Return what this rank has handed to collectives since it joined.

    Example:
        >>> get_traffic()
        Traffic(messages=0, bytes=0)
    """
    return Traffic() if _group is None else _group.traffic
