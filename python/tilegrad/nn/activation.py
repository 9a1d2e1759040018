# SPDX-License-Identifier: MIT
"""One class for each activation; each keeps what its derivative is cheapest from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tilegrad import _cpu, ops
from tilegrad.nn.module import Array, Module, RecordedBackward
from tilegrad.ops.activation_smooth import check_approximate

if TYPE_CHECKING:
    from tilegrad._recorder import Recorder


class _Activation(Module):
    """An elementwise map. Its function is ``ops.<_op>``, with ``_options`` by keyword."""

    _op: ClassVar[str]
    _from_output: bool = True  # f' is taken from y, else from x

    def __init__(self) -> None:
        super().__init__()
        self._options: dict[str, Any] = {}  # of the function
        self._native: tuple[str, dict[str, float] | None] = (self._op, None)  # for a plan

    def forward(self, input: Array) -> Array:
        """Return f(input), elementwise."""
        output: Array = getattr(ops, self._op)(input, **self._options)
        self._save(input, output if self._from_output else None)
        return output

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Return grad_output * f'."""
        input, output = self._take_saved()
        if not input_grad:
            return None
        backward = getattr(ops, f"{self._op}_backward")
        gradient: Array = backward(grad_output, input, output=output, **self._options)
        return gradient

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        plan = recorder.plan
        y = recorder.empty(x.shape, x.dtype)
        plan.activation(y, x, *self._native)
        saved = y if self._from_output else x

        def backward(dy: Array, input_grad: bool) -> Array | None:
            if not input_grad:
                return None
            plan.activation_backward(dy, dy, saved, self._from_output, *self._native)
            return dy

        return y, backward

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return ", ".join(f"{name}={value!r}" for name, value in self._options.items())


class _InplaceActivation(_Activation):
    """An activation that takes torch's ``inplace``; it changes nothing.

    The input is kept for the backward pass, and a training step overwrites its own buffers anyway.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()


class Identity(_Activation):
    """Return the input: f(x) = x. Source: torch.nn.Identity."""

    _op = "identity"


class Sigmoid(_Activation):
    """Apply f(x) = 1 / (1 + exp(-x)), elementwise. Source: torch.nn.Sigmoid."""

    _op = "sigmoid"


class Tanh(_Activation):
    """Apply f(x) = tanh(x), elementwise. Source: torch.nn.Tanh."""

    _op = "tanh"


class ReLU(_InplaceActivation):
    """Apply f(x) = max(x, 0), elementwise. Source: torch.nn.ReLU."""

    _op = "relu"


class LeakyReLU(_Activation):
    """Apply f(x) = x for x > 0, else negative_slope * x. Source: torch.nn.LeakyReLU.

    Args:
        negative_slope: Slope below zero.
        inplace: As torch has it; it changes nothing.
    """

    _op = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self._options = {"negative_slope": negative_slope}
        self._native = (self._op, self._options)
        self._from_output = _cpu.activation_uses_output(*self._native)


class ELU(_Activation):
    """Apply f(x) = x for x > 0, else alpha * (exp(x) - 1). Source: torch.nn.ELU.

    Args:
        alpha: The limit towards minus infinity is -alpha.
        inplace: As torch has it; it changes nothing.
    """

    _op = "elu"

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self._options = {"alpha": alpha}
        self._native = (self._op, self._options)
        self._from_output = _cpu.activation_uses_output(*self._native)


class SELU(_InplaceActivation):
    """Apply 1.0507 * ELU(x, alpha=1.6733), elementwise. Source: torch.nn.SELU."""

    _op = "selu"


class GELU(_Activation):
    """Apply f(x) = x * Phi(x), elementwise. Source: torch.nn.GELU.

    Args:
        approximate: "none" for the normal distribution Phi itself, "tanh" for the approximation
            0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    """

    _op = "gelu"
    _from_output = False

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        check_approximate("GELU", approximate)
        self.approximate = approximate
        self._options = {"approximate": approximate}
        self._native = ("gelu" if approximate == "none" else "gelu_tanh", None)

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Return grad_output * f'."""
        input, _ = self._take_saved()
        return ops.gelu_backward(grad_output, input, **self._options) if input_grad else None


class SiLU(_InplaceActivation):
    """Apply f(x) = x * sigmoid(x), elementwise. Source: torch.nn.SiLU."""

    _op = "silu"
    _from_output = False


class Softplus(_Activation):
    """Apply f(x) = log(1 + exp(beta x)) / beta, elementwise. Source: torch.nn.Softplus.

    Args:
        beta: Sharpness of the bend.
        threshold: Where beta x is above it the result is x.
    """

    _op = "softplus"
    _from_output = False

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold
        self._options = {"beta": beta, "threshold": threshold}
        self._native = (self._op, self._options)


class Mish(_InplaceActivation):
    """Apply f(x) = x * tanh(softplus(x)), elementwise. Source: torch.nn.Mish."""

    _op = "mish"
    _from_output = False


class Hardtanh(_Activation):
    """Clamp each element to [min_val, max_val]. Source: torch.nn.Hardtanh.

    Args:
        min_val: Lower end of the range.
        max_val: Upper end, above min_val.
        inplace: As torch has it; it changes nothing.
    """

    _op = "hardtanh"

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if not max_val > min_val:
            raise ValueError(f"Hardtanh: max_val must be above min_val; got {min_val}, {max_val}")
        self.min_val = min_val
        self.max_val = max_val
        self._options = {"min_val": min_val, "max_val": max_val}
        self._native = (self._op, self._options)
        self._from_output = _cpu.activation_uses_output(*self._native)


class ReLU6(_InplaceActivation):
    """Apply f(x) = min(max(x, 0), 6), elementwise. Source: torch.nn.ReLU6."""

    _op = "relu6"


class Hardsigmoid(_InplaceActivation):
    """Apply f(x) = min(max(x + 3, 0), 6) / 6, elementwise. Source: torch.nn.Hardsigmoid."""

    _op = "hardsigmoid"
    _from_output = False


class Hardswish(_InplaceActivation):
    """Apply f(x) = x * min(max(x + 3, 0), 6) / 6, elementwise. Source: torch.nn.Hardswish."""

    _op = "hardswish"
    _from_output = False


class Softmax(Module):
    """Apply softmax along an axis. Source: torch.nn.Softmax.

    Args:
        dim: The axis whose entries sum to one.
    """

    _op: ClassVar[str] = "softmax"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Array) -> Array:
        """Return the result, of the input's shape."""
        output: Array = getattr(ops, self._op)(input, self.dim)
        self._save(input, output)
        return output

    def backward(self, grad_output: Array, input_grad: bool = True) -> Array | None:
        """Return the gradient of the input."""
        input, output = self._take_saved()
        if not input_grad:
            return None
        backward = getattr(ops, f"{self._op}_backward")
        gradient: Array = backward(grad_output, input, self.dim, output=output)
        return gradient

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(
                f"{self._op}: dim must be in [{-x.ndim}, {x.ndim - 1}]; got {self.dim}"
            )
        plan, axis, log = recorder.plan, self.dim % x.ndim, self._op == "log_softmax"
        y = recorder.empty(x.shape, x.dtype)
        plan.softmax(y, x, axis, log)

        def backward(dy: Array, input_grad: bool) -> Array | None:
            if not input_grad:
                return None
            plan.softmax_backward(dy, dy, y, axis, log)
            return dy

        return y, backward

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """Apply the logarithm of softmax along an axis. Source: torch.nn.LogSoftmax.

    Args:
        dim: The axis over which probabilities sum to one.
    """

    _op = "log_softmax"
