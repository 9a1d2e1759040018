# SPDX-License-Identifier: MIT
"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tilegrad import backends
from tilegrad.nn.parameter import Parameter
from tilegrad.ops.activation_hard import hardtanh


def clip_grad_norm_(
    parameters: Parameter | Iterable[Parameter],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Any:
    """Scale all gradients together so that their norm is at most max_norm.

    Math: g *= min(1, max_norm / (norm + 1e-6)), with the norm of all gradients as one vector.

    Args:
        parameters: The parameters whose ``.grad`` is scaled, in place; those without are skipped.
        max_norm: The largest norm to leave, at least 0.
        norm_type: 1, 2 or infinity.
        error_if_nonfinite: Raise when the norm is NaN or infinite; the gradients are untouched.

    Returns:
        The norm before clipping: a NumPy scalar, on a device an Array without axes.

    Raises:
        ValueError: max_norm is negative or NaN, or norm_type is another number.
        RuntimeError: The norm is not finite and error_if_nonfinite is set.

    Example:
        >>> import numpy as np
        >>> p = Parameter(np.zeros(2))
        >>> p.grad = np.array([3.0, 4.0])
        >>> print(clip_grad_norm_(p, 1.0), p.grad.round(3))
        5.0 [0.6 0.8]

    Source: torch.nn.utils.clip_grad_norm_.
    """
    if isinstance(parameters, Parameter):
        parameters = [parameters]
    gradients = [p.grad for p in parameters if p.grad is not None]
    module = backends.of(gradients[0]) if gradients else backends.at(None)
    state = module.StepState()
    norm = module.clip_scale(gradients, max_norm, norm_type, state)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"clip_grad_norm_: the norm of the gradients is {float(norm)}; nothing was changed"
        )
    module.scale(gradients, state)
    return norm


def clip_grad_value_(parameters: Parameter | Iterable[Parameter], clip_value: float) -> None:
    """Clamp each element of the gradients to [-clip_value, clip_value].

    Math: g = min(max(g, -clip_value), clip_value); NaN stays NaN.

    Args:
        parameters: The parameters whose ``.grad`` is clamped, in place; those without are skipped.
        clip_value: The largest absolute value to leave, at least 0.

    Raises:
        ValueError: clip_value is negative, which torch lets pass, or NaN.

    Example:
        >>> import numpy as np
        >>> p = Parameter(np.zeros(3))
        >>> p.grad = np.array([-3.0, 0.5, 4.0])
        >>> clip_grad_value_(p, 2.0)
        >>> print(p.grad)
        [-2.   0.5  2. ]

    Source: torch.nn.utils.clip_grad_value_.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be at least 0; got {clip_value}")
    if isinstance(parameters, Parameter):
        parameters = [parameters]
    for gradient in [p.grad for p in parameters if p.grad is not None]:
        hardtanh(gradient, -clip_value, clip_value, out=gradient)
