# SPDX-License-Identifier: MIT
"""The options of ``tilegrad train``: what each means, its default, and how a resumed run has it.

argparse gets no default: only then can be told what the user asked for, since some defaults hang on
the data and a resumed run takes its settings from the first one.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ._cli_data import Found

ACTIVATIONS = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "softplus",
    "mish",
    "hardtanh",
    "relu6",
    "hardsigmoid",
    "hardswish",
)
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
SCHEDULES = ("none", "cosine", "step")
DTYPES = ("float32", "float64")
SMALL = 10_000  # training images; below it a data set gets the defaults of the digits


@dataclass(frozen=True)
class Settings:
    """What decides the result of a run, bit for bit on one machine and instruction set.

    Attributes:
        data: Name of the data set or absolute path of its folder.
        hidden: Widths of the hidden layers.
        activation: Of each hidden layer.
        dropout: Probability after each hidden layer.
        optimizer: One of OPTIMIZERS.
        lr: Learning rate at the start.
        momentum: Of SGD and RMSprop.
        weight_decay: Of the optimiser.
        label_smoothing: Of the loss.
        schedule: Of the learning rate: "none", "cosine" or "step".
        epochs: Passes over the training part.
        batch_size: Images in a step.
        seed: Of the validation split, the weights, dropout and the order of the images.
        validation: Fraction of the training images kept apart for the curves.
        patience: Epochs without improvement before training stops; 0 never stops early.
        dtype: "float32" or "float64".
    """

    data: str
    hidden: tuple[int, ...]
    activation: str
    dropout: float
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    label_smoothing: float
    schedule: str
    epochs: int
    batch_size: int
    seed: int
    validation: float
    patience: int
    dtype: str


# Chosen by mean validation accuracy: 2 seeds of Fashion-MNIST, 16 of the digits; for rmsprop and
# adagrad 1 and 8.
_COMMON: dict[str, Any] = {
    "activation": "relu",
    "dropout": 0.1,
    "optimizer": "adam",
    "label_smoothing": 0.1,
    "schedule": "cosine",
    "seed": 0,
    "validation": 0.1,
    "patience": 0,
    "dtype": "float32",
}
_BY_SIZE: dict[str, dict[str, Any]] = {
    "large": {"hidden": (512, 512), "epochs": 15, "batch_size": 128},
    "small": {"hidden": (128,), "epochs": 30, "batch_size": 32},
}
_RATES = {
    "large": {"sgd": 0.1, "adam": 0.001, "adamw": 0.001, "rmsprop": 0.001, "adagrad": 0.01},
    "small": {"sgd": 0.1, "adam": 0.005, "adamw": 0.005, "rmsprop": 0.005, "adagrad": 0.05},
}
_MOMENTA = {"sgd": 0.9, "rmsprop": 0.0}  # the others have none
_DECAYS = {"sgd": 0.0, "adam": 0.0, "adamw": 0.01, "rmsprop": 0.0, "adagrad": 0.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide a run's result.

    Args:
        parser: That of `tilegrad train`.
    """
    large, small = _BY_SIZE["large"], _BY_SIZE["small"]
    widths = ",".join(map(str, large["hidden"]))
    small_widths = ",".join(map(str, small["hidden"]))
    add = parser.add_argument_group(
        "what is trained",
        f"Where two defaults are given, the second is for data sets of fewer than {SMALL} training "
        "images, such as the digits.",
    ).add_argument
    add("--hidden", type=_widths, metavar="N,N,...",
        help="widths of the hidden layers; none: a single linear layer "
        f"(default: {widths}; {small_widths})")  # fmt: skip
    add("--activation", choices=ACTIVATIONS, metavar="NAME",
        help=f"of the hidden layers: {', '.join(ACTIVATIONS)} "
        f"(default: {_COMMON['activation']})")  # fmt: skip
    add("--dropout", type=_number(0, 1, "below"), metavar="P",
        help="probability of a hidden value to be dropped in training "
        f"(default: {_COMMON['dropout']})")  # fmt: skip
    add("--dtype", choices=DTYPES, help=f"of all numbers (default: {_COMMON['dtype']})")
    add = parser.add_argument_group("how it is trained").add_argument
    add("--epochs", type=_integer(1), metavar="N",
        help="passes over the training images "
        f"(default: {large['epochs']}; {small['epochs']})")  # fmt: skip
    add("--batch-size", type=_integer(1), metavar="N",
        help="images in a step "
        f"(default: {large['batch_size']}; {small['batch_size']})")  # fmt: skip
    add("--optimizer", choices=OPTIMIZERS, help=f"update rule (default: {_COMMON['optimizer']})")
    add("--lr", type=_number(0, math.inf), metavar="RATE",
        help="learning rate at the start "
        f"(default: {_RATES['large']['adam']}; {_RATES['small']['adam']}; sgd "
        f"{_RATES['large']['sgd']}; adagrad {_RATES['large']['adagrad']}; "
        f"{_RATES['small']['adagrad']})")  # fmt: skip
    add("--momentum", type=_number(0, math.inf), metavar="M",
        help="of sgd and rmsprop "
        f"(default: {_MOMENTA['sgd']}; rmsprop {_MOMENTA['rmsprop']:g})")  # fmt: skip
    add("--weight-decay", type=_number(0, math.inf), metavar="D",
        help="pull of the weights towards 0 "
        f"(default: {_DECAYS['adam']:g}; {_DECAYS['adamw']} for adamw)")  # fmt: skip
    add("--label-smoothing", type=_number(0, 1), metavar="S",
        help="share of each target spread over all classes; it raises the losses shown "
        f"(default: {_COMMON['label_smoothing']:g})")  # fmt: skip
    add("--schedule", choices=SCHEDULES,
        help="of the learning rate: cosine lowers it to 0 along half a wave, step divides it by "
        f"10 after each third of the epochs (default: {_COMMON['schedule']})")  # fmt: skip
    add("--validation", type=_number(0, 1, "below"), metavar="FRACTION",
        help="share of the training images that is not trained on, for the curves; 0: none "
        f"(default: {_COMMON['validation']})")  # fmt: skip
    add("--patience", type=_integer(0), metavar="N",
        help="stop after so many epochs without a lower validation loss and keep the weights of "
        f"the best epoch; 0: never (default: {_COMMON['patience']})")  # fmt: skip
    add("--seed", type=_integer(0, 2**63), metavar="N",
        help="decides split, weights, dropout and order; the same seed gives the same result "
        f"on the same machine (default: {_COMMON['seed']})")  # fmt: skip


def resolve(
    args: argparse.Namespace, found: Found, stored: Mapping[str, Any] | None = None
) -> Settings:
    """Fill in what the user left open.

    Args:
        args: The options, None where not given.
        found: The data.
        stored: The settings of the run to resume, or None.

    Returns:
        All settings.

    Raises:
        ValueError: If a given option contradicts the run to resume, or is of no use here.
    """
    data = os.path.abspath(args.data) if args.data and os.path.isdir(args.data) else found.slug
    names = [f.name for f in fields(Settings)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given["data"] = data
    if stored is not None:
        return _resumed(given, stored)
    size = "small" if len(found.dataset.train_images) < SMALL else "large"
    optimizer = given.get("optimizer", _COMMON["optimizer"])
    if optimizer not in _MOMENTA and "momentum" in given:
        raise ValueError(
            f"--momentum: is an option of --optimizer {' and '.join(_MOMENTA)}; got {optimizer}"
        )
    defaults = {
        **_COMMON,
        **_BY_SIZE[size],
        "lr": _RATES[size][optimizer],
        "momentum": _MOMENTA.get(optimizer, 0.0),
        "weight_decay": _DECAYS[optimizer],
    }
    return Settings(**{**defaults, **given})


def _resumed(given: dict[str, Any], stored: Mapping[str, Any]) -> Settings:
    """Take the first run's settings; only epochs may differ, where no schedule counts on them."""
    old = {**stored, "hidden": tuple(stored["hidden"])}
    settings = Settings(**old)
    for name, value in given.items():
        if value == old[name]:
            continue
        flag = "--" + name.replace("_", "-")
        if name != "epochs":
            raise ValueError(
                f"--resume: {flag} was {_shown(old[name])} in the run to resume; got "
                f"{_shown(value)} (leave it out, or start a new run with another --out)"
            )
        if settings.schedule != "none" and value != settings.epochs:
            raise ValueError(
                f"--resume: the {settings.schedule} schedule was laid out for {old[name]} epochs; "
                f"got --epochs {value} (leave it out, or start a new run with another --out)"
            )
        old["epochs"] = value
    return Settings(**old)


def check_stored(stored: Any) -> None:
    """Check what was read from a settings.json.

    Args:
        stored: The parsed JSON.

    Raises:
        ValueError: If it is not what this version writes.
    """
    kinds: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "tuple[int, ...]": list}
    wanted = {f.name: kinds[str(f.type)] for f in fields(Settings)}
    if not isinstance(stored, Mapping) or stored.keys() != wanted.keys():
        raise ValueError(f"must have {', '.join(wanted)}")
    for name, kind in wanted.items():
        if not isinstance(stored[name], kind):
            raise ValueError(f"{name} has the wrong type; got {stored[name]!r}")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _widths(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = (0,)
    if min(widths) < 1:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers of at least 1 with commas between them, or none; got {text!r}"
        )
    return widths


def _integer(low: int, high: int = 2**31) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value < high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {low}; got {text!r}"
            )
        return value

    return parse


def _number(low: float, high: float, end: str = "at most") -> Callable[[str], float]:
    """Return a parser for finite numbers from low to high, high itself unless `end` is "below"."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high and (end != "below" or value < high)):
            limit = "" if high == math.inf else f" and {end} {high:g}"
            raise argparse.ArgumentTypeError(
                f"must be a number of at least {low:g}{limit}; got {text!r}"
            )
        return value

    return parse


positive_integer = _integer(1)
whole_number = _integer(0, 2**63)
