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
from .distance_losses import (
    cosine_embedding_loss,
    cosine_embedding_loss_backward,
    cosine_embedding_loss_value_and_grad,
    triplet_margin_loss,
    triplet_margin_loss_backward,
    triplet_margin_loss_value_and_grad,
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
from .multi_margin_loss import (
    multi_margin_loss,
    multi_margin_loss_backward,
    multi_margin_loss_value_and_grad,
)
from .multilabel_losses import (
    multilabel_margin_loss,
    multilabel_margin_loss_backward,
    multilabel_margin_loss_value_and_grad,
    multilabel_soft_margin_loss,
    multilabel_soft_margin_loss_backward,
    multilabel_soft_margin_loss_value_and_grad,
)
from .nll_loss import (
    nll_loss,
    nll_loss_backward,
    nll_loss_value_and_grad,
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
    "cosine_embedding_loss",
    "cosine_embedding_loss_backward",
    "cosine_embedding_loss_value_and_grad",
    "cross_entropy",
    "cross_entropy_backward",
    "cross_entropy_value_and_grad",
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
    "multi_margin_loss",
    "multi_margin_loss_backward",
    "multi_margin_loss_value_and_grad",
    "multilabel_margin_loss",
    "multilabel_margin_loss_backward",
    "multilabel_margin_loss_value_and_grad",
    "multilabel_soft_margin_loss",
    "multilabel_soft_margin_loss_backward",
    "multilabel_soft_margin_loss_value_and_grad",
    "nll_loss",
    "nll_loss_backward",
    "nll_loss_value_and_grad",
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
    "triplet_margin_loss",
    "triplet_margin_loss_backward",
    "triplet_margin_loss_value_and_grad",
]
