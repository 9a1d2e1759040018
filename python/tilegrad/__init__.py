# SPDX-License-Identifier: MIT
"""Hand-written kernels, forward and backward, for dense networks.

NumPy arrays in, NumPy arrays out; on ``cuda`` and ``sim`` arrays are ``tilegrad.Array``. Functions
have the names of torch.nn.functional, each with its ``X_backward``; layers are in ``tilegrad.nn``,
optimisers in ``tilegrad.optim``, data sets in ``tilegrad.data``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    from tilegrad import nn, optim
except ImportError as error:  # TILEGRAD_CPU or TILEGRAD_NUM_THREADS makes no sense
    from tilegrad._start import leave_command

    leave_command(error)
    raise

from tilegrad._makers import asarray, empty, from_dlpack, full, ones, to_dlpack, zeros
from tilegrad._random import manual_seed
from tilegrad._train import TrainStep
from tilegrad.array import Array
from tilegrad.backends import (
    get_float32_matmul_precision,
    info,
    num_threads,
    release_memory,
    set_float32_matmul_precision,
    set_num_threads,
)
from tilegrad.ops import *  # noqa: F403  the names are listed in ops.__all__
from tilegrad.ops import __all__ as _op_names

if TYPE_CHECKING:
    from tilegrad._callbacks import Callback, EarlyStopping, History, Training
    from tilegrad._cross_validate import CrossValidation, cross_validate
    from tilegrad._descend import DescentResult, descend
    from tilegrad._fit import fit
    from tilegrad._gradcheck import gradcheck
    from tilegrad._gradcheck_result import GradcheckError, GradcheckResult
    from tilegrad._metrics import ClassificationReport, classification_report, confusion_matrix
    from tilegrad._save import load, save

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Callback",
    "ClassificationReport",
    "CrossValidation",
    "DescentResult",
    "EarlyStopping",
    "GradcheckError",
    "GradcheckResult",
    "History",
    "TrainStep",
    "Training",
    "asarray",
    "classification_report",
    "confusion_matrix",
    "cross_validate",
    "descend",
    "empty",
    "fit",
    "from_dlpack",
    "full",
    "get_float32_matmul_precision",
    "gradcheck",
    "info",
    "load",
    "manual_seed",
    "nn",
    "num_threads",
    "ones",
    "optim",
    "release_memory",
    "save",
    "set_float32_matmul_precision",
    "set_num_threads",
    "to_dlpack",
    "zeros",
    *_op_names,
]

# Loaded at first use, so that the import stays quick: name -> module that defines it.
_LAZY = {
    "Callback": "_callbacks",
    "ClassificationReport": "_metrics",
    "CrossValidation": "_cross_validate",
    "DescentResult": "_descend",
    "EarlyStopping": "_callbacks",
    "GradcheckError": "_gradcheck_result",
    "GradcheckResult": "_gradcheck_result",
    "History": "_callbacks",
    "Training": "_callbacks",
    "classification_report": "_metrics",
    "confusion_matrix": "_metrics",
    "cross_validate": "_cross_validate",
    "descend": "_descend",
    "fit": "_fit",
    "gradcheck": "_gradcheck",
    "load": "_save",
    "save": "_save",
}
_SUBMODULES = ("bench", "cuda", "data", "plot", "reference", "sim")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(f"tilegrad.{_LAZY[name]}"), name)
    elif name in _SUBMODULES:
        value = import_module(f"tilegrad.{name}")
    else:
        raise AttributeError(f"module 'tilegrad' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_SUBMODULES})
