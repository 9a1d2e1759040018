# SPDX-License-Identifier: MIT
"""Hand-written kernels, forward and backward, for dense networks.

NumPy arrays in, NumPy arrays out. Functions have the names of torch.nn.functional, each with its
``X_backward``; layers are in ``tilegrad.nn``, optimisers in ``tilegrad.optim``.
"""

from importlib.metadata import PackageNotFoundError, version

from tilegrad import nn, optim
from tilegrad._gradcheck import GradcheckError, GradcheckResult, gradcheck
from tilegrad._random import manual_seed
from tilegrad._train import TrainStep
from tilegrad.backends import info, num_threads, release_memory, set_num_threads
from tilegrad.ops import *  # noqa: F403  the names are listed in ops.__all__
from tilegrad.ops import __all__ as _op_names

try:
    __version__ = version("tilegrad")
except PackageNotFoundError:  # run from a source tree
    __version__ = "0.1.0"

__all__ = [
    "GradcheckError",
    "GradcheckResult",
    "TrainStep",
    "gradcheck",
    "info",
    "manual_seed",
    "nn",
    "num_threads",
    "optim",
    "release_memory",
    "set_num_threads",
    *_op_names,
]
