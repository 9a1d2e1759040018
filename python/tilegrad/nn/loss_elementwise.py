# SPDX-License-Identifier: MIT
"""One class for each elementwise loss."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tilegrad.nn.loss import REDUCTIONS, Loss
from tilegrad.nn.module import Array

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class ElementwiseLoss(Loss):
    """Base of the losses of one element at a time, which a `TrainStep` can record."""

    # The attributes that the native function takes, where the loss has them.
    _number: ClassVar[str | None] = None
    _logarithm: ClassVar[str | None] = None

    def forward(self, input: Array, target: Array) -> Any:
        """Return the loss: a scalar, or one value an element for reduction "none"."""
        shapes = getattr(input, "shape", None), getattr(target, "shape", None)
        if shapes[0] != shapes[1]:
            warnings.warn(
                f"{type(self).__name__}: input {shapes[0]} and target {shapes[1]} are broadcast; "
                "is that meant? Else give them one shape (reshape)",
                stacklevel=3,
            )
        return self._loss(input, target)

    def _record_loss(self, recorder: Recorder, input: Array, target: Array) -> tuple[Array, Array]:
        if self.reduction == "none":
            return super()._record_loss(recorder, input, target)
        if input.shape != target.shape:
            raise ValueError(
                f"{self._op}: TrainStep needs input and target of one shape; got {input.shape} and "
                f"{target.shape}"
            )
        loss = recorder.empty((), input.dtype)
        gradient = recorder.empty(input.shape, input.dtype)
        weight, pos_weight = (
            self._constant(recorder, input, name) for name in ("weight", "pos_weight")
        )
        recorder.plan.elementwise_loss(
            self._op, loss, gradient, input, target, pos_weight, weight,
            getattr(self, self._number) if self._number else 0.0,
            getattr(self, self._logarithm) if self._logarithm else False,
            getattr(self, "full", False), self.reduction,
        )  # fmt: skip
        return loss, gradient

    def _constant(self, recorder: Recorder, input: Array, name: str) -> Array | None:
        """Return a weight in input's shape, for good."""
        values = getattr(self, name, None)
        if values is None:
            return None
        host = np.asarray(values if isinstance(values, np.ndarray) else values.numpy())
        if host.dtype != input.dtype:
            raise TypeError(f"{self._op}: {name} must be {input.dtype}; got {host.dtype}")
        try:
            return recorder.constant(np.broadcast_to(host, input.shape))
        except ValueError:
            raise ValueError(
                f"{self._op}: {name} must broadcast to input's shape {input.shape}; got "
                f"{host.shape}"
            ) from None


class MSELoss(ElementwiseLoss):
    """Mean squared error.

    Math: mean of (input - target)^2.

    Args:
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = MSELoss()
        >>> print(loss_fn(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
        2.0
        >>> loss_fn.backward()
        array([ 0., -2.])

    Source: torch.nn.MSELoss.
    """

    _op = "mse_loss"

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)


class L1Loss(ElementwiseLoss):
    """Mean absolute error.

    Math: mean of |input - target|.

    Args:
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = L1Loss()
        >>> print(loss_fn(np.array([1.0, 2.0]), np.array([1.0, 4.0])))
        1.0
        >>> loss_fn.backward()
        array([ 0. , -0.5])

    Source: torch.nn.L1Loss.
    """

    _op = "l1_loss"

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)


class SmoothL1Loss(ElementwiseLoss):
    """Mean absolute error, smooth near zero.

    Math: mean of d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; d = input - target.

    Args:
        reduction: "none", "mean" or "sum".
        beta: Where the two pieces meet, at least 0.

    Example:
        >>> import numpy as np
        >>> loss_fn = SmoothL1Loss(beta=2.0)
        >>> print(loss_fn(np.array([0.0, 4.0]), np.array([1.0, 1.0])))
        1.125

    Source: torch.nn.SmoothL1Loss.
    """

    _op = "smooth_l1_loss"
    _names = ("beta",)
    _number = "beta"

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta


class HuberLoss(ElementwiseLoss):
    """Mean squared error, linear where it is large.

    Math: mean of d^2 / 2 where |d| < delta, else delta (|d| - delta / 2); d = input - target.

    Args:
        reduction: "none", "mean" or "sum".
        delta: Where the two pieces meet, above 0.

    Example:
        >>> import numpy as np
        >>> loss_fn = HuberLoss(delta=2.0)
        >>> print(loss_fn(np.array([0.0, 4.0]), np.array([1.0, 1.0])))
        2.25

    Source: torch.nn.HuberLoss.
    """

    _op = "huber_loss"
    _names = ("delta",)
    _number = "delta"

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta


class BCELoss(ElementwiseLoss):
    """Cross-entropy of probabilities.

    Math: mean of -w (t log x + (1 - t) log(1 - x)).

    Args:
        weight: A factor for each element, which broadcasts to input, or None.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = BCELoss()
        >>> print(round(float(loss_fn(np.array([0.88]), np.array([1.0]))), 6))
        0.127833

    Source: torch.nn.BCELoss.
    """

    _op = "binary_cross_entropy"
    _names = ("weight",)
    _kept = ("weight",)

    def __init__(self, weight: Array | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = weight


class BCEWithLogitsLoss(ElementwiseLoss):
    """Cross-entropy of the sigmoid of logits.

    Math: mean of w ((1 - t) log(1 + exp x) + p t log(1 + exp(-x))).

    Args:
        weight: A factor for each element, which broadcasts to input, or None.
        reduction: "none", "mean" or "sum".
        pos_weight: p, a factor of the positive part, which broadcasts to input, or None.

    Example:
        >>> import numpy as np
        >>> loss_fn = BCEWithLogitsLoss()
        >>> print(round(float(loss_fn(np.zeros(2), np.array([0.0, 1.0]))), 6))  # log 2
        0.693147
        >>> loss_fn.backward()
        array([ 0.25, -0.25])

    Source: torch.nn.BCEWithLogitsLoss.
    """

    _op = "binary_cross_entropy_with_logits"
    _names = (
        "weight",
        "pos_weight",
    )
    _kept = ("weight", "pos_weight")

    def __init__(
        self, weight: Array | None = None, reduction: str = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight = weight
        self.pos_weight = pos_weight


class PoissonNLLLoss(ElementwiseLoss):
    """Negative log-likelihood of counts under Poisson's law.

    Math: mean of exp(x) - t x, or of x - t log(x + eps) where not log_input.

    Args:
        log_input: Whether input is the logarithm of the rate.
        full: Whether to add Stirling's formula for log(target!).
        eps: Added to the rate in its logarithm where log_input is False.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = PoissonNLLLoss()
        >>> print(loss_fn(np.array([0.0]), np.array([3.0])))
        1.0

    Source: torch.nn.PoissonNLLLoss.
    """

    _op = "poisson_nll_loss"
    _names = (
        "log_input",
        "full",
        "eps",
    )
    _number = "eps"
    _logarithm = "log_input"

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = eps


class KLDivLoss(ElementwiseLoss):
    """Divergence of target from input, a logarithm.

    Math: mean of t (log t - input); t = exp(target) where log_target.

    Args:
        reduction: "none", "mean", "sum" or "batchmean", which is the divergence.
        log_target: Whether target holds logarithms.

    Example:
        >>> import numpy as np
        >>> loss_fn = KLDivLoss("batchmean")
        >>> x = np.log(np.array([[0.25, 0.75]]))
        >>> print(round(float(loss_fn(x, np.array([[0.5, 0.5]]))), 6))  # log(4 / 3) / 2
        0.143841
        >>> loss_fn.backward()
        array([[-0.5, -0.5]])

    Source: torch.nn.KLDivLoss.
    """

    _op = "kl_div"
    _names = ("log_target",)
    _logarithm = "log_target"
    _reductions = (*REDUCTIONS, "batchmean")

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target


class GaussianNLLLoss(Loss):
    """Negative log-likelihood under a normal law; `backward()` is that of (input, var).

    Math: mean of (log v + (input - target)^2 / v) / 2 with v = max(var, eps).

    Args:
        full: Whether to add the constant log(2 pi) / 2.
        eps: Lower bound of the variance.
        reduction: "none", "mean" or "sum".

    Example:
        >>> import numpy as np
        >>> loss_fn = GaussianNLLLoss()
        >>> print(loss_fn(np.array([1.0]), np.array([3.0]), np.array([1.0])))
        2.0
        >>> loss_fn.backward()  # of the input and of the variance
        (array([-2.]), array([-1.5]))

    Source: torch.nn.GaussianNLLLoss.
    """

    _op = "gaussian_nll_loss"
    _names = (
        "full",
        "eps",
    )

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Array, target: Array, var: Array) -> Any:  # type: ignore[override]
        """Return the loss: a scalar, or one value an element for reduction "none"."""
        return self._loss(input, target, var)
