# SPDX-License-Identifier: MIT
"""The calls that the fuzzer of arguments makes: legal ones with up to three aspects changed."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import numpy as np

import fuzz_values as fuzz
import tilegrad as tg
from call_inputs import NOT_16_BIT, Call, each_array, legal_calls
from fuzz_values import Rng, pick
from tilegrad import ops

SANITIZED = "TILEGRAD_SANITIZED" in os.environ
BLOCK = 32  # cases that share one table of legal calls


@functools.lru_cache(maxsize=2)
def table(seed: int, block: int, device: str) -> dict[str, Call]:
    """Return a legal call of every op, its sizes and values drawn."""
    rng = np.random.default_rng([seed, block])
    sizes: tuple[int, ...] = (1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 31, 32, 33)
    if device == "cpu" and rng.random() < 0.2:
        sizes += (64, 65, 127, 129, 257)

    def fill(*shape: int, start: float = -1.0) -> Any:
        return rng.uniform(start, 1, shape)

    return legal_calls(fill, *(pick(rng, sizes) for _ in range(3)))


def arrays_of(value: Any) -> list[Any]:
    """Return the arrays in a value, in its lists, tuples and dicts too."""
    if isinstance(value, (np.ndarray, tg.Array)):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [a for v in value for a in arrays_of(v)] if isinstance(value, (list, tuple)) else []


class Case:
    """One call: the function's name, its arguments and what was done to them."""

    def __init__(self, seed: int, index: int, device: str) -> None:
        self.rng: Rng = np.random.default_rng([seed, index, 1])
        self.device = device
        self.notes: list[str] = []
        self.extra: tuple[Any, ...] = ()
        legal = table(seed, index // BLOCK, device)
        self.op: str = pick(self.rng, ops.__all__)
        self.function = getattr(tg, self.op)
        self.call: Call = dict(legal[self.op])
        self.options = [n for n in fuzz.options_of(self.function) if n not in self.call]
        wide = self.op.startswith(NOT_16_BIT)
        dtype = pick(self.rng, ("f4", "f4", "f8") if wide else ("f4", "f4", "f8", "bfloat16"))
        self.dtype = np.dtype(fuzz.ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        self.each(lambda x: x.astype(self.dtype) if x.dtype.kind == "f" else x)
        self.plain = True  # operands of ordinary values, for the reference
        for _ in range(int(pick(self.rng, (0, 1, 1, 1, 2, 2, 3)))):
            mutation = pick(self.rng, MUTATIONS)
            self.notes.append(mutation.__name__.strip("_"))
            with contextlib.suppress(Exception):  # NumPy too refuses some of what came of the last
                mutation(self)
        if device == "sim":
            self.each(self.put)

    def each(self, function: Any) -> None:
        self.call = {name: each_array(function, value) for name, value in self.call.items()}

    def put(self, x: Any) -> Any:
        if self.rng.random() < 0.03:
            self.notes.append("on the host")
            return x
        try:
            if x.size and self.rng.random() < 0.2:  # a part of a larger buffer
                padded = np.concatenate([x.ravel()[:1], x.ravel(), x.ravel()[:1]])
                return tg.asarray(padded, device="sim")[1 : 1 + x.size].reshape(x.shape)
            return tg.asarray(x, device="sim")
        except (TypeError, ValueError, RuntimeError, BufferError, MemoryError):
            return x

    def operands(self) -> list[str]:
        return [name for name, v in self.call.items() if arrays_of(v)]

    def change(self, function: Any) -> None:
        """Replace one array of one operand."""
        names = self.operands()
        if not names:
            return
        name = pick(self.rng, names)
        value = self.call[name]
        self.notes.append(name)
        if isinstance(value, list):
            value = list(value)
            at = int(self.rng.integers(len(value)))
            if isinstance(value[at], np.ndarray):
                value[at] = function(self.rng, value[at])
        elif isinstance(value, np.ndarray):
            value = function(self.rng, value)
        self.call[name] = value

    def describe(self) -> str:
        arguments = [fuzz.text(v) for v in self.extra]
        arguments += [f"{name}={fuzz.text(v)}" for name, v in self.call.items()]
        return f"{self.op}({', '.join(arguments)})  # {', '.join(self.notes)}"


# ---- what may be done to a call: functions of the case -----------------------------------------


def _layout(case: Case) -> None:
    case.change(fuzz.layout)


def _dtype(case: Case) -> None:
    case.plain = False
    case.change(fuzz.other_dtype)


def _specials(case: Case) -> None:
    case.plain = False
    case.change(fuzz.specials)


def _shape(case: Case) -> None:
    case.change(fuzz.other_shape)


def _huge(case: Case) -> None:
    case.plain = False
    if not SANITIZED:  # there operator new ends the process where it should throw
        case.change(fuzz.huge)


def _foreign(case: Case) -> None:
    case.plain = False
    case.change(fuzz.foreign)


def _thing(case: Case) -> None:
    """Put anything in the place of an argument."""
    name = pick(case.rng, fuzz.options_of(case.function))
    case.notes.append(name)
    case.plain = False
    case.call[name] = fuzz.thing(case.rng)


def _option(case: Case) -> None:
    """Give an option a number or a word."""
    names = [n for n in fuzz.options_of(case.function) if n not in case.operands()]
    if not names:
        return
    name = pick(case.rng, names)
    case.notes.append(name)
    case.plain = False
    value = fuzz.number(case.rng) if case.rng.random() < 0.6 else pick(case.rng, fuzz.TEXTS)
    if name in ("input_lengths", "target_lengths") and case.rng.random() < 0.7:
        value = [fuzz.number(case.rng) for _ in case.call.get(name, ())]
        value = pick(case.rng, (value, tuple(value), np.asarray(case.call[name])))
    if name.endswith("activation_args"):
        value = {pick(case.rng, ("alpha", "negative_slope", "beta", "min_val", "")): value}
    if name == "reduction":
        value = pick(case.rng, ("mean", "sum", "none", value))
    if name.endswith("activation"):
        words = ("relu", "gelu", "gelu_tanh", "tanh", "elu", "softplus", "hardtanh", "mish")
        value = pick(case.rng, (*words, value))
    case.call[name] = value


def _wrt(case: Case) -> None:
    if "wrt" not in fuzz.options_of(case.function):
        return
    case.plain = False
    names = [pick(case.rng, [*case.operands(), "input"]) for _ in range(case.rng.integers(4))]
    case.call["wrt"] = pick(case.rng, (names, tuple(names), set(names), (n for n in names), "bias"))


def _out(case: Case) -> None:
    """Give an `out`: right, overlapping or unfit."""
    names = [n for n in case.operands() if isinstance(case.call[n], np.ndarray)]
    try:
        result = case.function(**case.call)
    except Exception:
        result = None
    shaped = arrays_of(result) or [case.call[n] for n in names]
    if not shaped:
        return
    like = shaped[0]
    out: Any = np.full(like.shape, 7).astype(like.dtype)
    kind = int(case.rng.integers(10))
    case.notes.append(f"out {kind}")
    if kind < 3:
        out = [np.full(a.shape, 7).astype(a.dtype) for a in arrays_of(result)] or out
        if isinstance(out, list):
            out = tuple(out) if isinstance(result, tuple) else out[0]
    elif kind == 3 and names:
        out = case.call[pick(case.rng, names)]
    elif kind == 4 and names:  # it overlaps an operand in part
        name = pick(case.rng, names)
        operand = case.call[name]
        memory = np.zeros(operand.size + out.size + 8, operand.dtype)
        memory[: operand.size] = operand.reshape(-1)
        case.call[name] = memory[: operand.size].reshape(operand.shape)
        start = int(case.rng.integers(0, operand.size + 2))
        out = memory[start : start + out.size].reshape(out.shape)
    elif kind == 5:
        out = fuzz.layout(case.rng, out)
    elif kind == 6:
        out = fuzz.other_dtype(case.rng, out)
    elif kind == 7:
        out = fuzz.other_shape(case.rng, out)
    elif kind == 8:
        out = fuzz.thing(case.rng)
    else:
        out = tuple(pick(case.rng, (out, out.copy(), None)) for _ in range(case.rng.integers(1, 4)))
    case.call["out"] = out


def _same(case: Case) -> None:
    """Give one array for several operands."""
    names = [n for n in case.operands() if isinstance(case.call[n], np.ndarray)]
    if len(names) > 1:
        case.call[pick(case.rng, names)] = case.call[pick(case.rng, names)]


def _list(case: Case) -> None:
    """Change the length or the kind of a list of operands."""
    for name in [n for n, v in case.call.items() if isinstance(v, list)]:
        v = case.call[name]
        case.call[name] = pick(
            case.rng, ([], v[:1], v + v[-1:], v * 30, [None] * len(v), tuple(v), [v], None, v[::-1])
        )
        case.plain = False


def _signature(case: Case) -> None:
    """Leave an argument out, or give one too many, or give them by position."""
    kind = int(case.rng.integers(4))
    names = list(case.call)
    if kind == 0:
        del case.call[pick(case.rng, names)]
    elif kind == 1:
        case.call[pick(case.rng, ("axis", "x", "dim", "inplace", "\0"))] = fuzz.thing(case.rng)
    elif kind == 2:
        case.extra = (fuzz.thing(case.rng),)
    else:
        case.extra = tuple(case.call.pop(n) for n in names)
    case.plain = False


def _device(case: Case) -> None:
    """Put one operand where the others are not."""
    case.plain = False
    case.change(lambda rng, x: case.put(x) if x.size else x)


MUTATIONS = (
    *(_layout, _dtype, _specials, _shape, _thing, _option, _out) * 3,
    *(_wrt, _same, _list, _signature, _device, _foreign, _huge),
)
