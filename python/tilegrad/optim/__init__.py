# SPDX-License-Identifier: MIT
"""Optimisers and learning-rate schedules, with torch.optim's arguments and arithmetic."""

from tilegrad.optim import lr_scheduler
from tilegrad.optim.adam import Adam, AdamW
from tilegrad.optim.optimizer import Optimizer
from tilegrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
