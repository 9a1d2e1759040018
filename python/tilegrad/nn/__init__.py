# SPDX-License-Identifier: MIT
"""Layers, activations, losses and containers, with torch.nn's names."""

from tilegrad.nn import utils
from tilegrad.nn.activation import (
    ELU,
    GELU,
    SELU,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from tilegrad.nn.container import Flatten, Sequential
from tilegrad.nn.dropout import Dropout
from tilegrad.nn.linear import Linear
from tilegrad.nn.loss import CrossEntropyLoss, Loss, MSELoss
from tilegrad.nn.module import Module
from tilegrad.nn.parameter import Parameter

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "utils",
]
