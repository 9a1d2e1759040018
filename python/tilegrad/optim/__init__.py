# SPDX-License-Identifier: MIT
"""Optimisers and learning-rate schedules, with torch.optim's arguments and arithmetic."""

from tilegrad.optim import lr_scheduler
from tilegrad.optim.adagrad import Adagrad
from tilegrad.optim.adam import Adam, AdamW
from tilegrad.optim.optimizer import Optimizer
from tilegrad.optim.rmsprop import RMSprop
from tilegrad.optim.sgd import SGD

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
