# SPDX-License-Identifier: MIT
"""``tilegrad train``: one run, from the images to the saved model."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from typing import Any, TypeAlias

from numpy.typing import NDArray

from . import _cli_report as report
from . import backends, manual_seed, nn, optim, plot
from ._callbacks import Callback, EarlyStopping, History, Progress, Training
from ._checkpoint import import_safetensors
from ._cli_data import Found, find_data
from ._cli_settings import Settings, check_stored, resolve
from ._files import write_whole
from ._fit import fit
from ._metrics import confusion_matrix
from ._save import save
from ._team import Team
from .data import train_test_split
from .optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

Part: TypeAlias = tuple[NDArray[Any], NDArray[Any]]

_CHECKPOINT, _SETTINGS = "checkpoint.safetensors", "settings.json"
_MODEL, _HISTORY = "model.safetensors", "history.json"
_CURVES, _CONFUSION = "curves.png", "confusion.png"


def train(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: Its options; those of `Settings` are None where the user gave none.

    Returns:
        The exit code.

    Raises:
        ImportError: If `--resume` is asked for and safetensors is missing, or `--distributed` and
            PyTorch is.
        OSError: If data cannot be read or a result not be written.
        RuntimeError: If a process of the run is lost.
        ValueError: If a file is damaged or settings do not fit together.
    """
    if args.timeout is not None and args.distributed is None:
        raise ValueError("--timeout: is an option of --distributed")
    place = _Place()
    before = backends.num_threads()
    if args.threads is not None:
        backends.set_num_threads(args.threads)
    try:
        with _team(args) as team:
            _train(args, place, team)
        return 0
    except KeyboardInterrupt:
        if place.out is None:
            raise
        print(_interrupted(place, place.out), file=sys.stderr)
        return 130
    finally:
        backends.set_num_threads(before)


@contextlib.contextmanager
def _team(args: argparse.Namespace) -> Iterator[Team]:
    """Give the processes of the run: this one alone, or all that torchrun has started."""
    if args.distributed is None:
        yield Team()
        return
    from .distributed import destroy_process_group, init_process_group
    from .distributed._team import Ranks

    options = {} if args.timeout is None else {"timeout": args.timeout}
    init_process_group("gloo", init_method=args.distributed, **options)
    try:
        team = Ranks()
        with team.guarded(None):
            yield team
    finally:
        destroy_process_group()


def _train(args: argparse.Namespace, place: _Place, team: Team) -> None:
    plan, found = "", None
    if team.is_first:  # the others go by what it has found and decided
        _check_json_folder(args.json)
        can_save = _can_save(args.resume)
        stored = _stored(args, args.out) if args.out else None
        found = find_data(args.data or (stored or {}).get("data") or "auto")
        out = args.out or os.path.join("runs", found.slug)
        if not args.out:  # the folder's name came with the data
            stored = _stored(args, out)
        settings = resolve(args, found, stored)
        _prepare_folder(out, settings, stored is not None)
        plan = json.dumps([out, can_save, asdict(settings)])
    out, can_save, stored = json.loads(team.of_first(plan))
    settings = Settings(**{**stored, "hidden": tuple(stored["hidden"])})
    place.out = out if team.is_first else None
    _run(args, found or find_data(settings.data), settings, out, can_save, place, team)


def _run(
    args: argparse.Namespace,
    found: Found,
    settings: Settings,
    out: str,
    can_save: bool,
    place: _Place,
    team: Team,
) -> None:
    quiet = args.quiet or not team.is_first
    say = _silent if quiet else _say_aside if args.json == "-" else _say
    started = time.perf_counter()
    manual_seed(settings.seed)
    training, validation, (x_test, y_test) = _parts(found, settings)
    sizes = (training[0].shape[1], *settings.hidden, len(found.dataset.class_names))
    model = build_model(sizes, settings)
    optimizer = _optimizer(model, settings)
    scheduler = _scheduler(optimizer, settings)
    counts = {
        "train": len(training[0]),
        "validation": len(validation[0]) if validation else 0,
        "test": len(x_test),
    }
    for line in report.opening(found, settings, sizes, model, counts, out):
        say(line)
    if team.size > 1:
        say(f"ranks     {team.size} processes, each with its rows of every batch")
    if not can_save:
        say('note      without safetensors nothing can be saved: pip install "tilegrad[io]"')
    say("")

    callbacks: list[Callback] = [place]
    if settings.patience:
        monitor = "val_loss" if validation else "train_loss"
        callbacks.append(EarlyStopping(monitor, patience=settings.patience))
    if args.no_progress and not quiet:
        callbacks.append(_Lines(scheduler is not None))
    history = fit(
        model,
        nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
        optimizer,
        training,
        validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        callbacks=callbacks,
        checkpoint=os.path.join(out, _CHECKPOINT) if can_save else None,
        progress=not (args.no_progress or quiet),
        scheduler=scheduler,
        seed=settings.seed,
        distributed=args.distributed is not None,
    )
    if not team.is_first:
        return
    confusion = confusion_matrix(y_test, model.predict(x_test, 2048), sizes[-1])
    right = int(confusion.trace())
    epochs_now = len(history.epochs) - place.resumed_after
    accuracy = right / counts["test"]
    result: dict[str, Any] = {
        "data": {"name": found.dataset.name, "source": found.source, **counts},
        "settings": asdict(settings),
        "machine": backends.info(),
        "test_accuracy": accuracy,
        "test_right": right,
        "class_names": list(found.dataset.class_names),
        "confusion_matrix": confusion.tolist(),
        "seconds": time.perf_counter() - started,
        **report.speed(history, sizes, counts["train"], settings, epochs_now),
        "history": history.to_dict(),
    }
    title = f"{report.layers(sizes)} on {found.dataset.name}: test accuracy {100 * accuracy:.1f} %"
    written = _write_results(out, model, history, title, result, can_save)
    if args.json:
        write_json(args.json, result)
    if args.quiet and args.json != "-":
        _say(f"{found.dataset.name}: test accuracy {100 * accuracy:.2f} %, {out}")
    say("")
    for line in [*report.closing(settings, result), *written]:
        say(line)


def _parts(found: Found, settings: Settings) -> tuple[Part, Part | None, Part]:
    """Return the images to train on, to validate with and to test with."""
    (x, y), (x_test, y_test) = found.dataset.train(), found.dataset.test()
    x = x.astype(settings.dtype, copy=False)
    x_test = x_test.astype(settings.dtype, copy=False)
    if not settings.validation:
        return (x, y), None, (x_test, y_test)
    x, x_val, y, y_val = train_test_split(
        x, y, test_size=settings.validation, seed=settings.seed, stratify=y
    )
    return (x, y), (x_val, y_val), (x_test, y_test)


def build_model(sizes: tuple[int, ...], settings: Settings) -> nn.Sequential:
    """Make the multilayer perceptron: dropout follows every hidden layer.

    Args:
        sizes: Inputs, the hidden layers, classes.
        settings: Gives activation, dropout and dtype.

    Returns:
        The model, with fresh weights.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers.append(nn.Linear(inputs, outputs, activation=settings.activation,
                                dtype=settings.dtype))  # fmt: skip
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout))
    layers.append(nn.Linear(sizes[-2], sizes[-1], dtype=settings.dtype))
    return nn.Sequential(*layers)


class _Place(Callback):
    """Know how far the run is, for the words after Ctrl-C."""

    def __init__(self) -> None:
        self.out: str | None = None
        self.history: History | None = None
        self.resumed_after = 0

    def on_train_begin(self, training: Training) -> None:
        """Keep what tells how far the run is."""
        self.history = training.history
        self.resumed_after = training.epoch


class _Lines(Progress):
    """One line an epoch, without the bar in between."""

    def on_epoch_begin(self, training: Training) -> None:
        """Open no bar."""


def _say(line: str) -> None:
    print(line, flush=True)


def _say_aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _silent(_: str) -> None:
    pass


def _check_json_folder(path: str | None) -> None:
    """Notice now, not after the training, that the file cannot be written."""
    if path is not None and path != "-":
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder) or os.path.isdir(path):
            raise OSError(f"--json: must be a file in a folder that is there, or -; got {path!r}")


def _can_save(required: bool) -> bool:
    try:
        import_safetensors("--resume")
    except ImportError:
        if required:
            raise
        return False
    return True


def _optimizer(model: nn.Module, settings: Settings) -> optim.Optimizer:
    parameters, lr, decay = model.parameters(), settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(parameters, lr, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "rmsprop":
        return optim.RMSprop(parameters, lr, momentum=settings.momentum, weight_decay=decay)
    if settings.optimizer == "adagrad":
        return optim.Adagrad(parameters, lr, weight_decay=decay)
    kind = optim.AdamW if settings.optimizer == "adamw" else optim.Adam
    return kind(parameters, lr, weight_decay=decay)


def _scheduler(optimizer: optim.Optimizer, settings: Settings) -> LRScheduler | None:
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, settings.epochs)
    if settings.schedule == "step":
        return StepLR(optimizer, max(1, math.ceil(settings.epochs / 3)))
    return None


def _prepare_folder(out: str, settings: Settings, resume: bool) -> None:
    """Make the folder and write the settings, so that a place to write is missed now, not later.

    A new run takes an older checkpoint away: it would not fit the new settings. The older model
    stays until there is a new one.
    """
    os.makedirs(out, exist_ok=True)
    if not resume:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(out, _CHECKPOINT))
    write_json(os.path.join(out, _SETTINGS), asdict(settings))


def _stored(args: argparse.Namespace, out: str) -> dict[str, Any] | None:
    """Return the settings of the run to go on with, or None for a new one."""
    resume = args.resume
    if args.distributed is not None and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        resume |= os.path.isfile(os.path.join(out, _CHECKPOINT))  # torchrun --max-restarts
    if resume:
        return _read_settings(out)
    return None


def _read_settings(out: str) -> dict[str, Any]:
    path = os.path.join(out, _SETTINGS)
    for needed in (path, os.path.join(out, _CHECKPOINT)):
        if not os.path.isfile(needed):
            raise FileNotFoundError(
                f"--resume: there is no {needed} (give the --out of the run to resume; a run has "
                "a checkpoint once its first epoch is done)"
            )
    try:
        with open(path, encoding="utf-8") as file:
            settings: dict[str, Any] = json.load(file)
        check_stored(settings)
    except ValueError as error:
        raise ValueError(f"--resume: {path} is damaged: {error}") from error
    return settings


def _write_results(
    out: str,
    model: nn.Module,
    history: History,
    title: str,
    result: dict[str, Any],
    can_save: bool,
) -> list[str]:
    """Write model, pictures and numbers; return a line on each."""
    lines = []
    path = os.path.join(out, _MODEL)
    if can_save:
        save(path, model)
        lines.append(f"model     {path}")
    else:
        lines.append('model     not saved: needs safetensors; pip install "tilegrad[io]"')
    curves, confusion = os.path.join(out, _CURVES), os.path.join(out, _CONFUSION)
    try:
        plot.plot_history(history, curves, title=title)
        names, data = result["class_names"], result["data"]["name"]
        heading = f"Test images of {data}"
        plot.confusion_matrix(
            result["confusion_matrix"], confusion, class_names=names, title=heading
        )
        lines += [f"curves    {curves}", f"confusion {confusion}"]
    except ImportError:
        lines.append('curves    not drawn: needs matplotlib; pip install "tilegrad[plot]"')
    path = os.path.join(out, _HISTORY)
    write_json(path, result)
    lines.append(f"history   {path}")
    return lines


def write_json(path: str, content: Any) -> None:
    """Replace a file by JSON, whole or not at all.

    Args:
        path: The file, or "-" for the standard output.
        content: What `json.dumps` takes; no NaN.

    Raises:
        OSError: If it cannot be written; the old file is as it was.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    write_whole(path, text.encode(), "train")


def _interrupted(place: _Place, out: str) -> str:
    """Say what Ctrl-C left behind."""
    checkpoint = os.path.join(out, _CHECKPOINT)
    if not os.path.isfile(checkpoint):
        return "tilegrad train: interrupted before a first epoch was saved; there is no checkpoint"
    done = f", as of epoch {len(place.history.epochs)}" if place.history else ""
    return (
        f"tilegrad train: interrupted; {checkpoint} is whole{done}. "
        f"Go on with: tilegrad train --resume --out {shlex.quote(out)}"
    )
