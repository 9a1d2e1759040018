# SPDX-License-Identifier: MIT
"""Objects for the fuzzer of arguments: makers and Arrays, modules, optimisers, training steps."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

import fuzz_values as fuzz
import tilegrad as tg
from fuzz_values import Rng, pick
from tilegrad import nn, optim

# Sizes that end at once, one way or the other: none of them is merely large.
SIZES = (0, 1, 2, 3, 5, -1, 2**61, 2**62, 2**63, 2**64, 2**200, 2.0, True, "3", None, np.int64(3),
         np.float32(2), float("nan"))  # fmt: skip
REFUSALS = (TypeError, ValueError, RuntimeError, BufferError, MemoryError)
Action = Callable[[], Any]


class WrongError(Exception):
    """What must not happen."""


def case(seed: int, index: int, device: str) -> tuple[str, tuple[str, ...], Action]:
    """Return the name of a case, whose names may begin its errors, and the case."""
    rng = np.random.default_rng([seed, index, 2])
    kind = pick(rng, (makers, arrays, modules, modules, optimizers, optimizers, steps))
    return kind(rng, device)  # type: ignore[no-any-return]


def batch(rng: Rng, device: str, *shape: int) -> Any:
    """Return an operand, ordinary or mutated."""
    x: Any = rng.standard_normal(shape).astype("f4")
    kind = int(rng.integers(9))
    mutations = (fuzz.layout, fuzz.specials, fuzz.other_dtype, fuzz.other_shape, fuzz.foreign)
    if kind < len(mutations):
        x = mutations[kind](rng, x)
    if kind == len(mutations):
        return fuzz.thing(rng)
    if device == "sim" and rng.random() < 0.9:
        try:
            return tg.asarray(x, device="sim")
        except REFUSALS:
            return x
    return x


def sizes(rng: Rng) -> Any:
    """Return what is given as a shape."""
    shape = tuple(pick(rng, SIZES) for _ in range(rng.integers(0, 5)))
    return pick(rng, (shape, shape, list(shape), fuzz.thing(rng), np.array([2, 3])))


def makers(rng: Rng, device: str) -> tuple[str, tuple[str, ...], Action]:
    name = pick(rng, ("empty", "zeros", "ones", "full", "asarray", "from_dlpack"))
    where = pick(rng, (device, device, device, "cpu", "nowhere", 3, None, "sim:1", "\0"))
    # NumPy fills any number of elements without a size, one by one.
    sized = [dtype for dtype in fuzz.DTYPES if dtype.itemsize]
    dtype = pick(rng, (*sized, "bfloat16", "f4", None, "nonsense", 3))
    more: dict[str, Any] = {"device": where, "dtype": dtype}
    if name == "from_dlpack":
        more = {}
        first: tuple[Any, ...] = (pick(rng, (batch(rng, device, 2, 3), fuzz.thing(rng))),)
    elif name == "asarray":
        first = (pick(rng, (batch(rng, device, 2, 3), fuzz.thing(rng))),)
    else:
        first = (sizes(rng), *([fuzz.number(rng)] if name == "full" else []))
    return (
        f"{name} {fuzz.text(first)} {fuzz.text([*more.values()])}",
        ("",),
        lambda: getattr(tg, name)(*first, **more),
    )


def arrays(rng: Rng, device: str) -> tuple[str, tuple[str, ...], Action]:
    """Use an Array in a way that may be wrong; views keep its memory alive."""
    if tg.info()["backends"]["sim"] is not None:
        return makers(rng, device)
    x = tg.asarray(rng.standard_normal((3, 4, 2)).astype("f4"), device="sim")
    value = pick(rng, (fuzz.thing(rng), fuzz.number(rng), sizes(rng), slice(1, 2**70), (), True))
    kind, index = int(rng.integers(9)), pick(rng, fuzz.INTEGERS)

    def action() -> None:
        nonlocal x
        view = x[1:]
        if kind == 0:
            view.reshape(value).numpy()
        elif kind == 1:
            with contextlib.suppress(IndexError):
                view = view[value]
            del x
            view.numpy()
        elif kind == 2:
            view.fill(value)
        elif kind == 3:
            view.to(value)
        elif kind == 4:
            np.from_dlpack(view.reshape(-1)).sum()
        elif kind == 5:
            view.__dlpack__(stream=value)
        elif kind == 6:
            view.__dlpack__(max_version=(index, 0))
        elif kind == 7:
            tg.relu(view, out=view)
        else:
            format(view, str(value)[:5])

    return (
        f"Array {kind} {value!r:.100}",
        ("Array", "Array.reshape", "Array.item", "device", ""),
        action,
    )


def made(rng: Rng, owner: Any, names: list[str]) -> tuple[str, Action]:
    """Return a constructor's call, some of whose arguments are mutated."""
    name = pick(rng, names)
    kind = getattr(owner, name)
    more: dict[str, Any] = {}
    for parameter in list(inspect.signature(kind).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        if required or rng.random() < 0.25:
            is_size = "features" in parameter.name or "num" in parameter.name
            more[parameter.name] = (
                pick(rng, (4, 4, 4, *SIZES)) if is_size else fuzz.number(rng)
                if rng.random() < 0.6 else fuzz.thing(rng)
            )  # fmt: skip
    return f"{name}({more!r:.300})", lambda: kind(**more)


LAYERS = [n for n in nn.__all__ if inspect.isclass(getattr(nn, n))
          and n not in ("Module", "Parameter", "Loss")]  # fmt: skip


def modules(rng: Rng, device: str) -> tuple[str, tuple[str, ...], Action]:
    text, make = made(rng, nn, LAYERS)
    x, target, dy = (batch(rng, device, 3, 4) for _ in range(3))
    order = [int(k) for k in rng.integers(0, 7, 4)]

    def action() -> None:
        layer = make()
        if device == "sim":
            layer.to("sim")
        for k in order:
            if k < 2:
                layer(x) if not isinstance(layer, nn.Loss) else layer(x, target)
            elif k < 4:
                layer.backward(dy)
            elif k == 4:
                layer.eval() if dy is x else layer.train()
            elif k == 5:
                layer.load_state_dict({**layer.state_dict(), "weight": dy})
            else:
                layer.zero_grad()

    names = (*LAYERS, *tg.ops.__all__, *tg.ops.__all__, "load_state_dict", "Module", "backward", "")
    return f"{text} {order}", names, action


def network(device: str) -> Any:
    layers = nn.Sequential(nn.Linear(4, 5, activation="relu"), nn.Linear(5, 3))
    return layers.to(device)


KINDS = [n for n in optim.__all__ if n not in ("Optimizer", "lr_scheduler")]


def optimizers(rng: Rng, device: str) -> tuple[str, tuple[str, ...], Action]:
    name = pick(rng, KINDS)
    kind = getattr(optim, name)
    options = {
        p: fuzz.number(rng) if rng.random() < 0.8 else fuzz.thing(rng)
        for p in list(inspect.signature(kind).parameters)[1:]
        if rng.random() < 0.25
    }
    grad, data = batch(rng, device, 3, 4), batch(rng, device, 3, 4)
    value = fuzz.thing(rng)
    order = [int(k) for k in rng.integers(0, 7, 4)]

    def action() -> None:
        parameter = nn.Parameter(tg.ones((3, 4), dtype="f4", device=device))
        optimizer = kind(value if order == [0] * 4 else [parameter], **options)
        for k in order:
            if k < 3:
                parameter.grad = grad
                optimizer.step()
            elif k == 3:
                parameter.data = data
            elif k == 4:
                state = optimizer.state_dict()
                state["param_groups"][0]["lr"] = value
                optimizer.load_state_dict(state)
            elif k == 5:
                parameter.grad = grad
                nn.utils.clip_grad_norm_([parameter], value)
            else:
                optimizer.param_groups[0]["lr"] = value

    return (
        f"{name}({options!r:.300}) {order} {value!r:.80}",
        (name, "Parameter", "clip", ""),
        action,
    )


def steps(rng: Rng, device: str) -> tuple[str, tuple[str, ...], Action]:
    """A training step that refuses a batch goes on with the next, from whole weights."""
    loss = pick(rng, (nn.CrossEntropyLoss, nn.MSELoss, nn.SmoothL1Loss))
    x = batch(rng, device, 6, 4)
    classes = np.arange(6) % 3
    good: Any = classes if loss is nn.CrossEntropyLoss else np.zeros((6, 3), "f4")
    target = batch(rng, device, 6, 3)
    if loss is nn.CrossEntropyLoss and rng.random() < 0.7:
        target = pick(rng, (fuzz.layout, fuzz.specials, fuzz.other_dtype, fuzz.other_shape))(
            rng, classes
        )
    order = [int(k) for k in rng.integers(0, 4, 5)]

    def action() -> None:
        tg.manual_seed(1)
        model = network(device)
        step = tg.TrainStep(model, loss(), optim.SGD(model.parameters(), lr=0.01))
        refusal: Exception | None = None
        for k in order:
            before = [np.array(tg.asarray(p.data, device="cpu")) for p in model.parameters()]
            try:
                if k < 2:
                    step(x, target)
                    return  # taken: what the values make of the weights is their affair
                if k == 2:
                    step(np.ones((6, 4), "f4"), good)
                else:
                    step.forward_backward(x, target)
                    return
            except REFUSALS as error:
                refusal = error
                after = [tg.asarray(p.data, device="cpu") for p in model.parameters()]
                if not all(map(np.array_equal, before, after)):
                    raise WrongError(f"a refused step changed the weights: {error}") from error
        value = float(step(np.ones((6, 4), "f4"), good))
        if not np.isfinite(value):
            raise WrongError(f"after refused batches the loss of a good one is {value}")
        if refusal is not None:
            raise refusal

    return f"TrainStep {loss.__name__} {order}", ("TrainStep", *tg.ops.__all__, ""), action
