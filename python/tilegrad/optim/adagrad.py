# SPDX-License-Identifier: MIT
"""Adagrad."""

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


class Adagrad(Optimizer):
    """Divide each gradient by the root of the sum of its squares, in one fused pass.

    Math: g += weight_decay w + l1_decay sign(w); s += g^2;
    w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps) at update t = 1, 2, ...

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate, at least 0.
        lr_decay: Lowers the rate from update to update, at least 0.
        weight_decay: L2 penalty, at least 0.
        initial_accumulator_value: What s starts from, at least 0. A group's own value counts for
            its parameters, where torch takes this one for all.
        eps: Added to the denominator, outside the root, at least 0.
        maximize: Ascend instead.
        l1_decay: L1 penalty, at least 0: the gradient of l1_decay times the sum of |w|; added, as
            weight_decay is, after clipping and with sign(0) = 0. Not in torch.

    Raises:
        ValueError: An option that is negative, NaN or infinite.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn
        >>> p = nn.Parameter(np.array([1.0]))
        >>> adagrad = Adagrad([p], lr=0.1)
        >>> for gradient in (3.0, 4.0):
        ...     p.grad = np.array([gradient])
        ...     adagrad.step()
        >>> print(p.data.round(6))  # 1 - 0.1 * 3 / sqrt(9) - 0.1 * 4 / sqrt(9 + 16)
        [0.82]

    Source: Duchi, Hazan, Singer 2011, JMLR 12; torch.optim.Adagrad, whose arithmetic it follows.
    """

    _buffer_names = ("sum",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        l1_decay: float = 0,
    ) -> None:
        options = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
            "l1_decay": l1_decay,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        check_penalties("Adagrad", group)
        for name in ("lr_decay", "initial_accumulator_value", "eps"):
            check_option("Adagrad", name, group[name], 0)

    def _initial(self, group: Group, name: str) -> float:
        return float(group["initial_accumulator_value"])

    def _update(self, target: Any, batch: Batch) -> None:
        group = batch.group
        target.adagrad_step(
            *batch.operands, group["lr_decay"], group["eps"], group["weight_decay"],
            group["l1_decay"], group["maximize"], batch.state, **batch.rounded,
        )  # fmt: skip
