# SPDX-License-Identifier: MIT
"""Adam and AdamW."""

from __future__ import annotations

from typing import Any, ClassVar

from tilegrad.optim.optimizer import (
    Batch,
    Group,
    Optimizer,
    Params,
    check_option,
    check_penalties,
)


class Adam(Optimizer):
    """Adaptive moment estimation, one fused pass over each parameter.

    Math: g += weight_decay w + l1_decay sign(w); m += (1 - beta1)(g - m);
    v = beta2 v + (1 - beta2) g^2;
    w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps) at update t = 1, 2, ...

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate, at least 0.
        betas: Decay rates (beta1, beta2) of the two moments, each in [0, 1).
        eps: Added to the denominator, at least 0.
        weight_decay: L2 penalty, at least 0.
        amsgrad: Divide by the largest v so far (Reddi et al. 2018).
        maximize: Ascend instead.
        l1_decay: L1 penalty, at least 0: the gradient of l1_decay times the sum of |w|; added, as
            weight_decay is, after clipping and with sign(0) = 0. Not in torch.

    Raises:
        ValueError: An option out of range, NaN included.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn
        >>> p = nn.Parameter(np.array([1.0]))
        >>> p.grad = np.array([5.0])
        >>> Adam([p], lr=0.1).step()
        >>> print(p.data.round(6))  # the first step is lr, whatever the gradient
        [0.9]

    Source: Kingma, Ba 2015, arXiv:1412.6980; torch.optim.Adam, whose arithmetic it follows.
    """

    _buffer_names = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    _optional_buffers = ("max_exp_avg_sq",)
    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        l1_decay: float = 0,
    ) -> None:
        options = {
            "lr": lr,
            "betas": tuple(betas) if isinstance(betas, (tuple, list)) else betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "l1_decay": l1_decay,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        name = type(self).__name__
        check_penalties(name, group)
        check_option(name, "eps", group["eps"], 0)
        if not isinstance(group["betas"], tuple) or len(group["betas"]) != 2:
            raise ValueError(f"{name}: betas must be a pair; got {group['betas']!r}")
        for i, beta in enumerate(group["betas"]):
            check_option(name, f"betas[{i}]", beta, 0, 1)

    def _used_buffers(self, group: Group) -> tuple[str, ...]:
        return self._buffer_names if group["amsgrad"] else ("exp_avg", "exp_avg_sq")

    def _update(self, target: Any, batch: Batch) -> None:
        group = batch.group
        beta1, beta2 = group["betas"]
        target.adam_step(
            *batch.operands, beta1, beta2, group["eps"], self._decoupled, group["weight_decay"],
            group["l1_decay"], group["maximize"], batch.state, **batch.rounded,
        )  # fmt: skip


class AdamW(Adam):
    """Adam with decoupled weight decay.

    Math: w *= 1 - lr weight_decay, then Adam's update, in whose gradient is no weight_decay.

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate, at least 0.
        betas: Decay rates (beta1, beta2) of the two moments, each in [0, 1).
        eps: Added to the denominator, at least 0.
        weight_decay: Decay of the weights themselves, at least 0.
        amsgrad: Divide by the largest v so far.
        maximize: Ascend instead.
        l1_decay: L1 penalty in the gradient, as Adam has it. Not in torch.

    Source: Loshchilov, Hutter 2019, arXiv:1711.05101; torch.optim.AdamW.
    """

    _decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        l1_decay: float = 0,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, l1_decay=l1_decay
        )
