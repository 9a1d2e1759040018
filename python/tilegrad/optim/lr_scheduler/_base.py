# SPDX-License-Identifier: MIT
"""What all schedules share: the rates of the groups, the count of epochs, the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tilegrad.optim.optimizer import Optimizer


class LRScheduler:
    """Base class: keeps each group's initial rate and asks the subclass for the next ones.

    Args:
        optimizer: The optimiser whose groups' "lr" is set.
        last_epoch: -1 to start; the last epoch done when a run is taken up again: its next epoch
            begins at once. (torch's ExponentialLR, LinearLR and CosineAnnealingLR leave out that
            step; ``load_state_dict`` is the way that needs no such care.)

    Raises:
        TypeError: ``optimizer`` is no Optimizer.
        ValueError: last_epoch is given, but the groups have no "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self._attach(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ValueError(
                    f"{type(self).__name__}: last_epoch {last_epoch} needs 'initial_lr' in "
                    f"parameter group {i}; load the optimiser's state first"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def _attach(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__}: optimizer must be a tilegrad Optimizer; got "
                f"{type(optimizer).__name__}"
            )
        self.optimizer = optimizer

    def get_lr(self) -> list[float]:
        """Return each group's rate for ``last_epoch``, computed from the present one."""
        raise TypeError(f"{type(self).__name__}: the class does not define get_lr")

    def get_last_lr(self) -> list[float]:
        """Return each group's present rate."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Go on by one epoch and set the rates.

        Raises:
            ValueError: The optimiser has got more groups than the schedule knows rates for.
        """
        self.last_epoch += 1
        groups, rates = self.optimizer.param_groups, self.get_lr()
        if len(rates) != len(groups):
            self.last_epoch -= 1
            raise ValueError(
                f"{type(self).__name__}: the schedule was made for {len(rates)} parameter groups; "
                f"the optimizer has {len(groups)} (make it after add_param_group)"
            )
        for group, lr in zip(groups, rates, strict=True):
            group["lr"] = lr

    def _restart(self) -> None:
        """Begin again with epoch 0 and the initial rates, as SequentialLR does in its turn."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=False):
            group["lr"] = lr
        self.last_epoch = -1
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the optimiser."""
        return {key: value for key, value in vars(self).items() if key != "optimizer"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the rates themselves are in the optimiser's.

        Raises:
            ValueError: Names other than this schedule's; nothing is changed.
        """
        self._check_state(state)
        self._fill(state)

    def _check_state(self, state: Mapping[str, Any]) -> None:
        own = self.state_dict().keys()
        if state.keys() != own:
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: expected {sorted(own)}; "
                f"got {sorted(state)}"
            )

    def _fill(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
