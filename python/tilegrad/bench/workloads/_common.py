# SPDX-License-Identifier: MIT
"""What the workloads share: random operands and the making of a contest."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilegrad import reference
from tilegrad.bench.environment import jax, torch
from tilegrad.bench.harness import OURS, Call, Contest, agree

Array = NDArray[Any]
FLOAT = 4  # bytes of a float32: all workloads are in it
LINE = 64  # bytes of a cache line
_SHORT = 0.3  # seconds; a longer call is not made twice only to be checked


def empty(*shape: int) -> Array:
    """Return a float32 array that starts at a cache line, as torch's own do.

    Example:
        >>> empty(3, 5).ctypes.data % 64
        0
    """
    size = int(np.prod(shape)) * FLOAT
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(np.float32).reshape(shape)


def random(name: str, *shape: int) -> Array:
    """Return random normal float32 numbers, the same ones for the same name and shape.

    Example:
        >>> bool((random("x", 4) == random("x", 4)).all())
        True
    """
    array = empty(*shape)
    np.random.default_rng(zlib.crc32(name.encode())).standard_normal(out=array, dtype=np.float32)
    return array


def tensors(*arrays: Array) -> list[Any]:
    """Return torch tensors over the same memory."""
    return [torch().from_numpy(array) for array in arrays]


def jitted(function: Callable[..., Any], *operands: Array) -> Call:
    """Return a call of a function that jax compiles, on arrays of jax's own; it waits for results.

    Args:
        function: Of arrays of jax; returns one or a tuple.
        operands: What it is given.
    """
    compiled = jax().jit(function)
    given = [jax().numpy.asarray(operand) for operand in operands]

    def call() -> Any:
        result = compiled(*given)
        for part in result if isinstance(result, tuple) else (result,):
            part.block_until_ready()
        return result

    return call


def contest(
    ours: Call,
    peers: Mapping[str, Call],
    expected: Callable[[], Any],
    tolerance: float = 1e-5,
    left_out: Mapping[str, str] | None = None,
    pick: Callable[[Any], Any] = lambda result: result,
) -> Contest:
    """Return a contest whose check calls every side and compares the results.

    A peer whose result is wrong is left out, with the error; ours raises.

    Args:
        ours: tilegrad's side.
        peers: The others.
        expected: Compute the result in float64.
        tolerance: As in `agree`.
        left_out: As in `Contest`.
        pick: The part of a result that is compared, where all of it would take too long.
    """
    fit, unfit = dict(peers), dict(left_out or {})

    def check() -> None:
        wanted = expected()
        for side, call in {OURS: ours, **peers}.items():
            start = time.perf_counter()
            result = call()
            if side != OURS and time.perf_counter() - start < _SHORT:
                # The first two-thread torch.tanh of a process (2.13, MKL) is off by 5e-5 in the
                # second thread's half; later ones are right.
                result = call()
            judge(side, pick(result), wanted, tolerance, fit, unfit)

    return Contest(ours, fit, check, unfit)


def judge(
    side: str,
    result: Any,
    wanted: Any,
    tolerance: float,
    peers: dict[str, Call],
    left_out: dict[str, str],
) -> None:
    """Compare a side's result with what is wanted; a peer that is wrong is left out.

    Args:
        side: Whose result it is.
        result: As in `agree`.
        wanted: As in `agree`.
        tolerance: As in `agree`.
        peers: Loses the peer.
        left_out: Gets its error.

    Raises:
        AssertionError: If ours is wrong.
    """
    try:
        agree({side: result}, wanted, tolerance)
    except AssertionError as error:
        if side == OURS:
            raise
        peers.pop(side, None)
        left_out[side] = str(error)


class Oracle:
    """The update of an optimiser in float64, from `tilegrad.reference`.

    Args:
        kind: "SGD", "Adam", "AdamW", "RMSprop" or "Adagrad".
        values: The parameters before the first update.
        options: Learning rate and so on.
    """

    def __init__(self, kind: str, values: Sequence[Array], **options: Any) -> None:
        self.values = [value.astype(np.float64) for value in values]
        self._kind, self._options = kind, options
        starts = {"SGD": None, "RMSprop": (0.0, 0.0, 0.0), "Adagrad": 0.0}
        self._state: list[Any] = [starts.get(kind, (0.0, 0.0))] * len(values)
        self._steps = 0

    def update(self, gradients: Sequence[Array]) -> None:
        """Take one step."""
        self._steps += 1
        step, options = self._steps, self._options
        for i, gradient in enumerate(gradients):
            value, state = self.values[i], self._state[i]
            if self._kind == "SGD":
                value, state = reference.sgd(value, gradient, state, **options)
            elif self._kind == "RMSprop":
                value, *state = reference.rmsprop(value, gradient, *state, **options)
            elif self._kind == "Adagrad":
                value, state = reference.adagrad(value, gradient, state, step, **options)
            else:
                rule = reference.adam if self._kind == "Adam" else reference.adamw
                mean, square = state
                value, mean, square, _ = rule(value, gradient, mean, square, step, **options)
                state = mean, square
            self.values[i], self._state[i] = value, state
