# SPDX-License-Identifier: MIT
"""Stochastic gradient descent."""

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


class SGD(Optimizer):
    """Gradient descent with optional momentum, one fused pass over each parameter.

    Math: g += weight_decay w + l1_decay sign(w); v = momentum v + (1 - dampening) g (v = g the
    first time); g = g + momentum v with Nesterov's form, else v; w -= lr g.

    Args:
        params: Parameters, or groups of them with options of their own.
        lr: Learning rate, at least 0.
        momentum: Factor of the running direction v, at least 0; 0 keeps none.
        dampening: Share of the gradient kept out of v.
        weight_decay: L2 penalty, at least 0.
        nesterov: Look ahead along v; needs momentum > 0 and dampening 0.
        maximize: Ascend instead.
        l1_decay: L1 penalty, at least 0: the gradient of l1_decay times the sum of |w|; added, as
            weight_decay is, after clipping and with sign(0) = 0. Not in torch.

    Raises:
        ValueError: A negative, NaN or infinite option, or Nesterov without momentum.

    Example:
        >>> import numpy as np
        >>> from tilegrad import nn
        >>> p = nn.Parameter(np.array([1.0]))
        >>> p.grad = np.array([2.0])
        >>> SGD([p], lr=0.1).step()
        >>> print(p.data)  # 1 - 0.1 * 2
        [0.8]

    Source: torch.optim.SGD, whose arithmetic it follows; Sutskever et al. 2013.
    """

    _buffer_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        l1_decay: float = 0,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "l1_decay": l1_decay,
        }
        super().__init__(params, options)

    def _check(self, group: Group) -> None:
        check_penalties("SGD", group)
        for name in ("momentum", "dampening"):
            check_option("SGD", name, group[name], 0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError(
                "SGD: nesterov needs momentum > 0 and dampening 0; got momentum "
                f"{group['momentum']}, dampening {group['dampening']}"
            )

    def _used_buffers(self, group: Group) -> tuple[str, ...]:
        return self._buffer_names if group["momentum"] != 0 else ()

    def _update(self, target: Any, batch: Batch) -> None:
        group = batch.group
        target.sgd_step(
            *batch.operands, group["momentum"], group["dampening"], group["nesterov"],
            group["weight_decay"], group["l1_decay"], group["maximize"], batch.state,
            **batch.rounded,
        )  # fmt: skip
