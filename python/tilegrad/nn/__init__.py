# SPDX-License-Identifier: MIT
"""Layers, activations, losses and containers, with torch.nn's names."""

from tilegrad.nn import utils
from tilegrad.nn.activation import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardswish,
    Hardtanh,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tilegrad.nn.container import Flatten, Sequential
from tilegrad.nn.dropout import Dropout
from tilegrad.nn.linear import Linear
from tilegrad.nn.loss import CrossEntropyLoss, Loss, MSELoss
from tilegrad.nn.loss_rows import (
    CosineEmbeddingLoss,
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NLLLoss,
    TripletMarginLoss,
)
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import Parameter
from tilegrad.nn.prelu import PReLU

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Mish",
    "Module",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "TripletMarginLoss",
    "utils",
]
