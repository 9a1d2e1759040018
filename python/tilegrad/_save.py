# SPDX-License-Identifier: MIT
"""Save and load models and training state: one safetensors file, whole or not at all.

Tensors: ``model.<name>``, ``optimizer.<index>.<buffer>``, ``callbacks.<index>.<name>``; in a
file of a model alone ``<name>``, as in a state dict of torch. All else is JSON in the file's
metadata (see ``_checkpoint``).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tilegrad import _random
from tilegrad._checkpoint import Array, decode, encode, import_safetensors, read, write
from tilegrad._files import Path
from tilegrad._makers import asarray
from tilegrad.nn.module import Module
from tilegrad.optim.lr_scheduler import LRScheduler
from tilegrad.optim.optimizer import Optimizer

if TYPE_CHECKING:
    from tilegrad._callbacks import Callback, History
    from tilegrad.data import DataLoader


def save(
    path: Path,
    model: Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    loader: DataLoader | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    history: History | None = None,
) -> None:
    """Write a model and, where given, the state of its training to a safetensors file.

    The file is written under another name in the same folder, synced and renamed: at any moment,
    power cuts included, ``path`` is the whole old file or the whole new one. The state of
    ``tilegrad.manual_seed``'s stream is always included.

    A model alone is written under the names of its ``state_dict``, which a torch model of the same
    structure takes as ``safetensors.torch.load_file`` returns them; beside anything else each of
    its names begins with ``model.``.

    Args:
        path: The file; the folder must exist. By custom it ends in ``.safetensors``.
        model: The model whose parameters are saved.
        optimizer: Its optimiser: options, steps and buffers.
        scheduler: The learning-rate schedule.
        loader: The DataLoader of the training set: seed, epoch and position.
        callbacks: Callbacks whose ``state_dict`` is saved.
        history: The measurements so far.

    Raises:
        ImportError: The package safetensors is not installed.
        OSError: The file cannot be written; the old one is as it was.
        TypeError: A state holds something that a file cannot.

    Example:
        >>> import os, tempfile, tilegrad as tg
        >>> model, other = tg.nn.Linear(3, 2), tg.nn.Linear(3, 2)
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> tg.save(path, model)
        >>> tg.load(path, other)
        >>> bool((model.weight.data == other.weight.data).all())
        True
    """
    _check_parts("save", path, model, optimizer, scheduler)
    import_safetensors("save")
    alone = not callbacks and all(x is None for x in (optimizer, scheduler, loader, history))
    prefix = "" if alone else "model."
    tensors: dict[str, Array] = {
        prefix + name: np.asarray(asarray(value, device="cpu"), order="C")
        for name, value in model.state_dict().items()
    }
    state: dict[str, Any] = {
        "rng": _random.get_state(),
        "model": {"class": type(model).__name__, "layers": repr(model), "prefix": prefix},
    }
    if optimizer is not None:
        values = optimizer.state_dict()
        buffers = {str(i): v for i, v in values["state"].items()}
        state["optimizer"] = {
            "class": type(optimizer).__name__,
            "groups": encode(values["param_groups"], "optimizer.groups", tensors),
            "state": encode(buffers, "optimizer", tensors),
        }
    if scheduler is not None:
        values = encode(scheduler.state_dict(), "scheduler", tensors)
        state["scheduler"] = {"class": type(scheduler).__name__, "state": values}
    if loader is not None:
        state["loader"] = loader.state_dict()
    if history is not None:
        state["history"] = history.state_dict()
    state["callbacks"] = [
        {"class": type(callback).__name__, "state": encode(values, f"callbacks.{i}", tensors)}
        for i, callback in enumerate(callbacks)
        if (values := callback.state_dict())
    ]
    write(path, tensors, state)


def load(
    path: Path,
    model: Module,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    loader: DataLoader | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    history: History | None = None,
    rng: bool | None = None,
) -> None:
    """Fill existing objects from a file that ``save`` wrote: all of them or, on an error, none.

    Every byte is checked first. What the file holds beyond the given objects is left out. A
    safetensors file from elsewhere can be loaded into a model alone, if its tensors are the model's
    parameters, with or without ``model.`` before each name.

    Args:
        path: The file.
        model: Model of the same parameter names, shapes and dtypes.
        optimizer: Optimiser of the same class over the same parameters; options, learning rate
            included, are taken from the file.
        scheduler: Schedule of the same class, made for this optimiser.
        loader: DataLoader; its next loop goes on where the saved one stood.
        callbacks: Callbacks of the same classes in the same order.
        history: Takes over the measurements.
        rng: Whether to set the stream of ``tilegrad.manual_seed``; None does so when an optimizer
            is given, since that resumes a training.

    Raises:
        ImportError: The package safetensors is not installed.
        FileNotFoundError: There is no such file.
        ValueError: The file is truncated, damaged, foreign or does not fit the objects.

    Example:
        >>> import os, tempfile, tilegrad as tg
        >>> model = tg.nn.Linear(3, 2)
        >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
        >>> tg.save(path, model)
        >>> tg.load(path, tg.nn.Linear(4, 2))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: load: ...: weight must be (2, 4) float32; the file has (2, 3) float32
    """
    _check_parts("load", path, model, optimizer, scheduler)
    given = {"optimizer": optimizer, "scheduler": scheduler, "loader": loader, "history": history}
    wanted = [name for name, value in given.items() if value is not None]
    with _explained(path):
        tensors, state = read(path)
        if state is None:
            if wanted or callbacks or rng:
                raise ValueError(
                    f"it holds weights alone, not written by tilegrad.save; asked for "
                    f"{', '.join(wanted or ['callbacks'])}"
                )
            state, weights = {}, _plain_weights(tensors, model)
        else:
            prefix = state["model"].get("prefix", "model.")
            weights = {
                name[len(prefix) :]: value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
        _check_weights(weights, model)
        absent = [name for name in wanted if name not in state]
        if absent:
            raise ValueError(
                f"it holds no state for {', '.join(absent)}; it has {sorted(state)} "
                "(load(path, model) takes the weights alone)"
            )
        for name, value in (("optimizer", optimizer), ("scheduler", scheduler)):
            if value is not None and state[name]["class"] != type(value).__name__:
                raise ValueError(
                    f"the {name} must be {state[name]['class']}; got {type(value).__name__}"
                )
        kept = [callback for callback in callbacks if callback.state_dict()]
        classes = [saved["class"] for saved in state.get("callbacks", [])]
        if kept and classes != [type(callback).__name__ for callback in kept]:
            raise ValueError(
                f"the callbacks with a state must be {classes}; "
                f"got {[type(callback).__name__ for callback in kept]}"
            )
        with _Undo() as undo:
            if optimizer is not None:
                undo.attributes(optimizer)
                undo.groups(optimizer)
                optimizer.load_state_dict(_optimizer_state(state["optimizer"], tensors))
            if scheduler is not None:
                undo.state_of(scheduler)
                scheduler.load_state_dict(decode(state["scheduler"]["state"], tensors))
            if loader is not None:
                undo.attributes(loader)
                loader.load_state_dict(state["loader"])
            if history is not None:
                undo.attributes(history)
                history.load_state_dict(state["history"])
            for callback, saved in zip(kept, state.get("callbacks", []), strict=False):
                undo.state_of(callback)
                callback.load_state_dict(decode(saved["state"], tensors))
            if rng or (rng is None and optimizer is not None):
                stream = _random.get_state()
                undo.add(lambda: _random.set_state(stream))
                _random.set_state(state["rng"])
            model.load_state_dict(weights)  # checked above, so that it cannot fail half-way


class _Undo:
    """A list of ways back, taken in reverse if the block ends with an exception."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def add(self, step: Callable[[], object]) -> None:
        self._steps.append(step)

    def attributes(self, owner: Any) -> None:
        """Put back which values the attributes have; load_state_dict replaces, never changes."""
        self.add(functools.partial(_refill, vars(owner), dict(vars(owner))))

    def groups(self, optimizer: Optimizer) -> None:
        """Put back the options of the groups; these dicts are changed in place."""
        for group in optimizer.param_groups:
            self.add(functools.partial(_refill, group, dict(group)))

    def state_of(self, owner: Callback | LRScheduler) -> None:
        """Put back the state of what may hold objects that change in place."""
        before = copy.deepcopy(owner.state_dict())
        self.add(functools.partial(owner.load_state_dict, before))

    def __enter__(self) -> _Undo:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for step in reversed(self._steps):
                step()


def _refill(target: dict[str, Any], before: Mapping[str, Any]) -> None:
    target.clear()
    target.update(before)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what a wrong file can cause into a ValueError that names the file."""
    try:
        yield
    except OSError:
        raise
    except ValueError as error:
        raise ValueError(f"load: {os.fspath(path)}: {error}") from error
    except (TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(
            f"load: {os.fspath(path)}: its state does not fit; {type(error).__name__}: {error}"
        ) from error


def _optimizer_state(saved: Mapping[str, Any], tensors: Mapping[str, Array]) -> dict[str, Any]:
    state = decode(saved["state"], tensors)
    return {
        "state": {int(index): values for index, values in state.items()},
        "param_groups": decode(saved["groups"], tensors),
    }


def _plain_weights(tensors: Mapping[str, Array], model: Module) -> dict[str, Array]:
    """Take ``model.`` off the names if all have it and the model's have not."""
    own = model.state_dict().keys()
    if own != tensors.keys() and all(name.startswith("model.") for name in tensors):
        return {name[6:]: tensor for name, tensor in tensors.items()}
    return dict(tensors)


def _check_weights(weights: Mapping[str, Array], model: Module) -> None:
    own = model.state_dict()
    if own.keys() != weights.keys():
        raise ValueError(
            "the names of the parameters differ; missing in the file "
            f"{sorted(own.keys() - weights.keys())}, unknown to the model "
            f"{sorted(weights.keys() - own.keys())}"
        )
    for name, value in own.items():
        got = weights[name]
        if (got.shape, got.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} must be {value.shape} {value.dtype}; the file has {got.shape} {got.dtype}"
            )


def _check_parts(op: str, path: Any, model: Any, optimizer: Any, scheduler: Any) -> None:
    """Raise TypeError for arguments in another order, such as torch's."""
    rules = (
        ("path", path, (str, os.PathLike), "a path"),
        ("model", model, Module, "a Module"),
        ("optimizer", optimizer, Optimizer, "an Optimizer"),
        ("scheduler", scheduler, LRScheduler, "a schedule"),
    )
    for name, value, kind, word in rules:
        if not isinstance(value, kind) and not (
            value is None and name in ("optimizer", "scheduler")
        ):
            raise TypeError(
                f"{op}: {name} must be {word}; got {type(value).__name__} "
                f"({op}(path, model, optimizer, scheduler))"
            )
