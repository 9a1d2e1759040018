# SPDX-License-Identifier: MIT
"""RMSprop."""

from __future__ import annotations

from typing import Any

from tilegrad.optim.optimizer import (
    Batch,
    Group,
    Optimizer,
    Params,
    check_option,
    check_penalties,
)


class RMSprop(Optimizer):
    """Divide each gradient by a running root mean square of it, in one fused pass.

    Math: g += weight_decay w + l1_decay sign(w); s = alpha s + (1 - alpha) g^2;
    d = sqrt(s) + eps, centered a += (1 - alpha)(g - a), d = sqrt(s - a^2) + eps;
    w -= lr g / d, or with momentum v = momentum v + g / d, w -= lr v.

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate, at least 0.
        alpha: Decay rate of the running means, at least 0; from 1 on they do not settle.
        eps: Added to the denominator, outside the root, at least 0.
        weight_decay: L2 penalty, at least 0.
        momentum: Factor of the running direction v, at least 0; 0 keeps none.
        centered: Divide by the running standard deviation instead. Where gradients hardly change,
            rounding can leave s - a^2 below 0, whose root is NaN: as in torch.
        maximize: Ascend instead.
        l1_decay: L1 penalty, at least 0: the gradient of l1_decay times the sum of |w|; added, as
            weight_decay is, after clipping and with sign(0) = 0. Not in torch.

    Raises:
        ValueError: An option that is negative, NaN or infinite.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn
        >>> p = nn.Parameter(np.array([1.0]))
        >>> p.grad = np.array([5.0])
        >>> RMSprop([p], lr=0.1, alpha=0.75).step()
        >>> print(p.data.round(6))  # s = 0.25 * 25, 5 / sqrt(s) = 2, 1 - 0.1 * 2
        [0.8]

    Source: Hinton 2012, lecture 6e of Neural Networks for Machine Learning; Graves 2013,
    arXiv:1308.0850 (centered); torch.optim.RMSprop, whose arithmetic it follows.
    """

    _buffer_names = ("square_avg", "momentum_buffer", "grad_avg")
    _optional_buffers = ("momentum_buffer", "grad_avg")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        l1_decay: float = 0,
    ) -> None:
        options = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
            "l1_decay": l1_decay,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        check_penalties("RMSprop", group)
        for name in ("alpha", "eps", "momentum"):
            check_option("RMSprop", name, group[name], 0)

    def _used_buffers(self, group: Group) -> tuple[str, ...]:
        needed = (True, group["momentum"] != 0, group["centered"])
        return tuple(name for name, is_needed in zip(self._buffer_names, needed, strict=True)
                     if is_needed)  # fmt: skip

    def _update(self, target: Any, batch: Batch) -> None:
        group = batch.group
        target.rmsprop_step(
            *batch.operands, group["alpha"], group["eps"], group["momentum"],
            group["weight_decay"], group["l1_decay"], group["maximize"], batch.state,
            **batch.rounded,
        )  # fmt: skip
