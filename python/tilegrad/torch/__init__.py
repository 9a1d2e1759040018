# SPDX-License-Identifier: MIT
"""tilegrad inside PyTorch: its kernels as differentiable operators on torch tensors.

Functions bear the names of torch.nn.functional and work under autograd, torch.compile and
torch.autocast, on CPU and CUDA tensors, without copies. Modules and optimisers stand in for those
of torch.nn and torch.optim; `accelerate` puts them into a model that exists; `from_torch` and
`to_torch` carry models over. The operators themselves are `torch.ops.tilegrad.*`.

Import it explicitly: `import tilegrad.torch`. `import tilegrad` alone never loads PyTorch.
"""

from ._accelerate import Accelerated, accelerate
from ._activations import (
    activation,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    tanh,
)
from ._convert import arrays, from_torch, tensors, to_torch
from ._cross_entropy import cross_entropy
from ._fused_mlp import fused_mlp
from ._linear import linear
from ._modules import Activation, CrossEntropyLoss, FusedMLP, Linear
from ._optim import SGD, Adagrad, Adam, AdamW, RMSprop

__all__ = [
    "SGD",
    "Accelerated",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "CrossEntropyLoss",
    "FusedMLP",
    "Linear",
    "RMSprop",
    "accelerate",
    "activation",
    "arrays",
    "cross_entropy",
    "elu",
    "from_torch",
    "fused_mlp",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "linear",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "tanh",
    "tensors",
    "to_torch",
]
