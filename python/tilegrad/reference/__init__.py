# SPDX-License-Identifier: MIT
"""Every op in float64 NumPy: the oracle of the tests and the shortest explanation of the math.

Names and argument order are those of the public functions. Inputs may have any dtype and are
taken to float64; results are float64 (a full reduction is 0-d). Nothing here is tuned, and nothing
is imported from the rest of the package, so that an error of a kernel cannot hide in its oracle.
Edge cases are torch's: NaN and infinity pass silently, a mean over nothing is NaN.
"""

from ._activations import (
    ACTIVATIONS,
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    identity,
    identity_backward,
    leaky_relu,
    leaky_relu_backward,
    relu,
    relu_backward,
    selu,
    selu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    tanh,
    tanh_backward,
)
from ._losses import (
    cross_entropy,
    cross_entropy_backward,
    cross_entropy_value_and_grad,
    log_softmax,
    log_softmax_backward,
    mse_loss,
    mse_loss_backward,
    mse_loss_value_and_grad,
    softmax,
    softmax_backward,
)
from ._matmul import (
    linear,
    linear_backward,
    matmul,
    matmul_backward,
)
from ._optim import (
    adam,
    adamw,
    clip_grad_norm,
    sgd,
)
from ._random import (
    dropout,
    dropout_backward,
    philox4x32_10,
    random_words,
    uniform,
)

__all__ = [
    "ACTIVATIONS",
    "adam",
    "adamw",
    "clip_grad_norm",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
    "dropout",
    "dropout_backward",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
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
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_value_and_grad",
    "philox4x32_10",
    "random_words",
    "relu",
    "relu_backward",
    "selu",
    "selu_backward",
    "sgd",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "uniform",
]
