# SPDX-License-Identifier: MIT
"""Layers, activations, losses and containers, with torch.nn's names."""

from tilegrad.nn import init, utils
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
from tilegrad.nn.fused_mlp import FusedMLP
from tilegrad.nn.linear import Linear
from tilegrad.nn.loss import CrossEntropyLoss, Loss
from tilegrad.nn.loss_ctc import CTCLoss
from tilegrad.nn.loss_elementwise import (
    BCELoss,
    BCEWithLogitsLoss,
    GaussianNLLLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    PoissonNLLLoss,
    SmoothL1Loss,
)
from tilegrad.nn.loss_margin import HingeEmbeddingLoss, MarginRankingLoss, SoftMarginLoss
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
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "FusedMLP",
    "GaussianNLLLoss",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "HingeEmbeddingLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MarginRankingLoss",
    "Mish",
    "Module",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "MultiMarginLoss",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "PoissonNLLLoss",
    "ReLU",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "Softmax",
    "Softplus",
    "Tanh",
    "TripletMarginLoss",
    "init",
    "utils",
]
