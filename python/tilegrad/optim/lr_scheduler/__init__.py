# SPDX-License-Identifier: MIT
"""Learning-rate schedules. ``step()`` once an epoch, after the optimiser's steps."""

from tilegrad.optim.lr_scheduler._base import LRScheduler
from tilegrad.optim.lr_scheduler._decay import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    StepLR,
)
from tilegrad.optim.lr_scheduler._plateau import ReduceLROnPlateau
from tilegrad.optim.lr_scheduler._warmup import ConstantLR, LinearLR, SequentialLR

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
