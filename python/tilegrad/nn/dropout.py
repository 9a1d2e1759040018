# SPDX-License-Identifier: MIT
"""Dropout."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING

from tilegrad import _random, backends
from tilegrad.nn.module import Array, Module, RecordedBackward
from tilegrad.ops import dropout, dropout_backward

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class Dropout(Module):
    """Zero each element with probability p in training and scale the others by 1/(1-p).

    The mask is a function of the seed and the position in the stream of ``tilegrad.manual_seed``:
    the same on every device and for any number of threads. In eval mode this is the identity. In
    data-parallel training (``tilegrad.distributed``) a sample has the mask that it would have if
    one process had the whole batch; samples then lie along the first axis.

    Args:
        p: Probability of an element to be dropped.
        inplace: As torch has it; it changes nothing.

    Raises:
        ValueError: p is not in [0, 1].

    Source: Srivastava et al. 2014; torch.nn.Dropout.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not isinstance(p, numbers.Real):
            raise TypeError(f"Dropout: p must be a number; got {p!r}")
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be a probability in [0, 1]; got {p}")
        self.p: float = p

    def forward(self, input: Array) -> Array:
        """Return the masked and scaled input."""
        if not self.training or self.p == 0:
            self._save(None)
            return input
        part = _random.present_part()
        if part is None:
            seed, offset = _random.take(math.prod(getattr(input, "shape", ())))
            self._save((seed, offset, part))
            return dropout(input, self.p, seed=seed, offset=offset)
        if input.ndim == 0 or len(input) != part.samples:
            raise ValueError(
                "Dropout: in data-parallel training the first axis must be that of the "
                f"{part.samples} samples; got shape {input.shape}"
            )
        seed, offset = _random.take(part.batch() * math.prod(input.shape[1:]))
        self._save((seed, offset, part))
        return _masked(input, self.p, seed, offset, part)

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Return grad_output under the same mask and scale."""
        (key,) = self._take_saved()
        if not input_grad:
            return None
        if key is None:
            return grad_output
        seed, offset, part = key
        if part is not None:
            return _masked(grad_output, self.p, seed, offset, part)
        # Of the input only shape and dtype count, and the gradient has both: none is kept.
        return dropout_backward(grad_output, grad_output, self.p, seed=seed, offset=offset)

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        if self.p == 0 or not recorder.training:
            return x, lambda dy, input_grad: dy if input_grad else None
        plan, state = recorder.plan, recorder.state
        offset = recorder.take_random(x.size)
        y = recorder.empty(x.shape, x.dtype)
        plan.dropout(y, x, self.p, offset, state)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            if not input_grad:
                return None
            plan.dropout(dy, dy, self.p, offset, state)
            return dy

        return y, backward

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return f"p={self.p}"


def _masked(x: Array, p: float, seed: int, offset: int, part: _random.Part) -> Array:
    result: Array = backends.of(x).dropout_rows(x, p, seed, offset, part.first, part.step)
    return result
