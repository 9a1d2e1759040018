# SPDX-License-Identifier: MIT
"""PyTorch's own sample inputs: what torch takes has the same result here, or is refused clearly.

The samples are those of torch's test suite (torch.testing._internal.opinfo). Those of its samples
that this library refuses are in a table, each with its error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from helpers import Array, Device, assert_close
from tilegrad import ops

pytest.importorskip("expecttest", reason="torch's samples need it")

NAMES = sorted(
    name for name in ops.__all__
    if hasattr(F, name) and not name.endswith(("_backward", "_value_and_grad"))
    and name != "dropout"  # another stream of random numbers; test_dropout.py
)  # fmt: skip
DEPRECATED = ("size_average", "reduce", "_stacklevel", "inplace")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
# Gradients that torch has and this library does not: factors and weights.
NOT_DIFFERENTIATED = ("weight", "pos_weight")

# Samples that are refused: op -> (when, error, text).
Rule = tuple[Callable[[dict[str, Any], Device], bool], type[Exception], str]


def _casts_on_a_device(arguments: dict[str, Any], device: Device) -> bool:
    dtype = arguments.get("dtype")
    return device.name != "cpu" and dtype not in (None, arguments["input"].dtype)


REFUSED: dict[str, list[Rule]] = {
    name: [(_casts_on_a_device, TypeError, "not cast on its device")]
    for name in ("softmax", "log_softmax")
}


@functools.cache
def catalogue() -> dict[str, list[Any]]:
    from torch.testing._internal.common_methods_invocations import op_db

    found: dict[str, list[Any]] = {}
    for op in op_db:
        found.setdefault(op.name.removeprefix("nn.functional."), []).append(op)
    return found


def bound(name: str, sample: Any) -> dict[str, Any]:
    """Return the arguments of a sample by name, in torch's order."""
    function = getattr(F, name)
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:  # a builtin: as here
        names = [p for p in inspect.signature(getattr(tg, name)).parameters if p != "out"]
    arguments = dict(zip(names, (sample.input, *sample.args), strict=False))
    return {**arguments, **sample.kwargs}


def samples(name: str, dtype: str) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    for op in catalogue()[name]:
        if op.variant_test_name == "complex":
            continue
        for sample in op.sample_inputs("cpu", DTYPES[dtype], requires_grad=True):
            yield bound(name, sample)


def here(device: Device, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return device.put(np.array(value.detach().numpy(), order="C"))
    if isinstance(value, torch.dtype):
        return {torch.float32: np.float32, torch.float64: np.float64}[value]
    return value


def there(value: Any) -> Any:
    """Return a float64 copy for torch, a leaf where the sample asks for a gradient."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.detach().double().requires_grad_(value.requires_grad)
    return torch.float64 if isinstance(value, torch.dtype) else value


def accepts(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that exist here."""
    known = inspect.signature(getattr(tg, name)).parameters
    return {key: value for key, value in arguments.items() if key in known}


def tolerance(dtype: str, arguments: dict[str, Any], want: Array) -> float:
    """Return what sums over all elements of the operands may err, relative to their size."""
    tensors = [v.detach() for v in arguments.values() if isinstance(v, torch.Tensor)]
    length = max((t.numel() for t in tensors), default=1)
    floats = [t for t in tensors if t.is_floating_point() and t.numel()]
    size = max((float(t.abs().max()) for t in floats), default=1.0)
    largest = float(np.abs(want).max(initial=0, where=np.isfinite(want)))
    eps = float(np.finfo(dtype).eps)
    return 8 * eps * (min(length, 64) + 2) * (1 + size) * (1 + largest)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_torchs_samples_have_torchs_results(name: str, dtype: str, device: Device) -> None:
    count = 0
    for number, arguments in enumerate(samples(name, dtype)):
        if any(isinstance(arguments.get(key), bool) for key in DEPRECATED[:2]):
            continue  # deprecated in torch, not here
        mine = {k: here(device, v) for k, v in accepts(name, arguments).items()}
        rules = [r for r in REFUSED.get(name, []) if r[0](arguments, device)]
        if rules:
            with pytest.raises(rules[0][1], match=rules[0][2]):
                getattr(tg, name)(**mine)
            continue
        theirs = {k: there(v) for k, v in arguments.items()}
        want = getattr(F, name)(**theirs)
        what = f"{name} sample {number}"
        loosest = tolerance(dtype, arguments, want.detach().numpy())
        result = getattr(tg, name)(**mine)
        assert_close(result, want.detach().numpy(), loosest, what=what)
        wrt = tuple(
            key for key, value in theirs.items()
            if isinstance(value, torch.Tensor) and value.requires_grad
            and (key not in NOT_DIFFERENTIATED or name in ("linear", "prelu"))
        )  # fmt: skip
        if not want.requires_grad or not wrt:
            continue
        found = torch.autograd.grad(
            want, [theirs[key] for key in wrt], torch.ones_like(want), allow_unused=True
        )
        gradients = {k: g.numpy() for k, g in zip(wrt, found, strict=True) if g is not None}
        grad = device.put(np.ones(want.shape, device.get(result).dtype))
        got = getattr(tg, f"{name}_backward")(grad, **mine, wrt=tuple(gradients))
        if name == "linear":
            got = tuple(g for g in got if g is not None)
        for one, (key, expected) in zip(got, gradients.items(), strict=True):
            allowed = tolerance(dtype, arguments, expected)
            if name == "hardsigmoid":  # torch's derivative is float32's 1/6 in float64 too
                allowed += 6e-9
            assert_close(one, expected, allowed, what=f"{what} d{key}")
        count += 1
    assert count
