# SPDX-License-Identifier: MIT
"""Dropout, with a mask that follows from a seed and an offset alone."""

from __future__ import annotations

import math
import numbers

import numpy as np

from .. import _random
from ..array import Array as DeviceArray
from ..backends import of
from ._operands import Array, Operand, Wrt


def _check_probability(op: str, p: float) -> None:
    if not isinstance(p, numbers.Real):
        raise TypeError(f"{op}: p must be a number; got {type(p).__name__}")
    if not 0 <= p <= 1:  # NaN fails too
        raise ValueError(f"{op}: p must be a probability in [0, 1]; got {p}")


def dropout(
    input: Operand,
    p: float = 0.5,
    training: bool = True,
    *,
    seed: int | None = None,
    offset: int | None = None,
    out: Array | None = None,
) -> Array:
    """Set elements to zero at random and scale up the rest, so that the mean stays.

    The mask depends on seed, offset and the element's number alone: it is the same on every
    backend and for any number of threads. Without a seed both come from the state that
    `manual_seed` starts, which moves on by ceil(n / 4). Outside training, and for p = 0, nothing
    is drawn and the result is input itself unless `out` is given.

    Math: y_i = x_i m_i with m_i = 1 / (1 - p) if word_i >= round(p 2^32), else 0 (a dropped NaN or
        infinity gives NaN, as in torch); word_i is the word i mod 4 of Philox4x32-10 at counter
        offset + i // 4 under the key seed

    Args:
        input: float32 or float64, any shape. A strided array is packed into workspace.
        p: The probability that an element is set to zero, in [0, 1].
        training: Whether to drop at all.
        seed: An integer in [0, 2**64), or None.
        offset: The first counter, an integer in [0, 2**64); 0 where only a seed is given.
        out: C-contiguous array for the result; it may be input.

    Returns:
        The result: input's shape and dtype.

    Raises:
        TypeError: If input or `out` is no array of a supported dtype, or seed no integer.
        ValueError: If p, seed or offset is out of range, or an offset comes without a seed.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> y = tg.dropout(np.ones(1000), 0.75, seed=1)
        >>> sorted(set(y.tolist()))
        [0.0, 4.0]

    Source: Srivastava et al.: Dropout: a simple way to prevent neural networks from overfitting
        (2014); torch.nn.functional.dropout
    """
    _check_probability("dropout", p)
    if seed is not None:
        seed = _random.check_word("dropout", "seed", seed)
        offset = 0 if offset is None else _random.check_word("dropout", "offset", offset)
    elif offset is not None:
        raise ValueError(f"dropout: offset needs a seed; got offset={offset} without one")
    backend = of(input)
    if isinstance(input, DeviceArray):
        known = input.dtype_name in ("float32", "float64")
    else:
        known = isinstance(input, np.ndarray) and input.dtype in (np.float32, np.float64)
    if not training or p == 0:
        if known and out is None:
            return input  # type: ignore[return-value]
        p, seed, offset = 0.0, 0, 0  # keeps every element, and checks the operand
    elif seed is None:
        if not known:  # refuse what is no operand before anything is drawn
            input = backend.dropout(input, 0.0, 0, 0, None)
        seed, offset = _random.take(math.prod(input.shape))  # type: ignore[union-attr]
    result: Array = backend.dropout(input, p, seed, offset, out)
    return result


def dropout_backward(
    grad_output: Operand,
    input: Operand,
    p: float = 0.5,
    training: bool = True,
    *,
    seed: int,
    offset: int,
    wrt: Wrt | None = None,
    out: Array | None = None,
) -> Array:
    """Differentiate `dropout`: the same mask and scale, drawn again instead of stored.

    Math: dx_i = dy_i / (1 - p) if word_i >= round(p 2^32), else 0

    Args:
        grad_output: Gradient of the result, input's shape and dtype. Strided: packed.
        input: As in the forward call; only its shape and dtype count.
        p: As in the forward call.
        training: As in the forward call.
        seed: That of the forward call; where it drew its own, keep what you pass to it instead.
        offset: That of the forward call.
        wrt: "input", the only choice; a tuple of it returns a tuple.
        out: C-contiguous array for the result; it may be grad_output.

    Returns:
        The gradient of input, its shape and dtype.

    Raises:
        TypeError: If an operand is no array of a supported dtype, or dtypes differ.
        ValueError: If shapes differ, or an option is out of range.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> x = np.ones(1000)
        >>> y = tg.dropout(x, 0.75, seed=1, offset=0)
        >>> np.array_equal(tg.dropout_backward(x, x, 0.75, seed=1, offset=0), y)
        True
    """
    op = "dropout_backward"
    _check_probability(op, p)
    seed = _random.check_word(op, "seed", seed)
    offset = _random.check_word(op, "offset", offset)
    share = p if training else 0.0
    result: Array = of(input).dropout_backward(grad_output, input, share, seed, offset, wrt, out)
    return result
