# SPDX-License-Identifier: MIT
"""The public functions, by family: signature, documentation and one call into the backend."""

from .activation import (
    identity,
    identity_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from .activation_hard import (
    hardsigmoid,
    hardsigmoid_backward,
    hardswish,
    hardswish_backward,
    hardtanh,
    hardtanh_backward,
    relu6,
    relu6_backward,
)
from .activation_smooth import (
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    selu,
    selu_backward,
    silu,
    silu_backward,
)
from .activation_softplus import (
    mish,
    mish_backward,
    softplus,
    softplus_backward,
)
from .cross_entropy import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_value_and_grad,
)
from .ctc_loss import (
    ctc_loss,
    ctc_loss_backward,
    ctc_loss_value_and_grad,
)
from .dropout import (
    dropout,
    dropout_backward,
)
from .linear import (
    linear,
    linear_backward,
)
from .losses import (
    mse_loss,
    mse_loss_backward,
    mse_loss_value_and_grad,
)
from .matmul import (
    matmul,
    matmul_backward,
)
from .prelu import (
    prelu,
    prelu_backward,
)
from .softmax import (
    log_softmax,
    log_softmax_backward,
    softmax,
    softmax_backward,
)

__all__ = [
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_value_and_grad",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardswish_backward",
    "hardtanh",
    "hardtanh_backward",
    "identity",
    "identity_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "linear",
    "linear_backward",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "mish",
    "mish_backward",
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_value_and_grad",
    "prelu",
    "prelu_backward",
    "relu",
    "relu6",
    "relu6_backward",
    "relu_backward",
    "selu",
    "selu_backward",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "tanh",
    "tanh_backward",
]
