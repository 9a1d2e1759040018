# SPDX-License-Identifier: MIT
"""Compare a hand-written gradient with central differences."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _random
from ._gradcheck_result import GradcheckElement, GradcheckError, GradcheckResult
from ._makers import asarray
from .array import Array as DeviceArray

Array = NDArray[Any]

# Below this step the rounding of float32 hides the difference that the step makes.
_SMALLEST_FLOAT32_STEP = 1e-3


@dataclass
class _Problem:
    """A function of named float arrays: its value, and its gradient with respect to them.

    The arrays are changed in place, an element at a time, between calls of `value`; `finish` ends
    the last change.
    """

    arrays: dict[str, Array]
    value: Callable[[], Any]
    gradients: Callable[[Any], dict[str, Any]]
    finish: Callable[[], None] = lambda: None


class _Arguments:
    """Positional arguments: arrays on the CPU, to be changed there, and where each belongs."""

    def __init__(self, inputs: Any) -> None:
        given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        self._devices = [a.device if isinstance(a, DeviceArray) else None for a in given]
        is_array = (np.ndarray, np.generic, DeviceArray)  # the caller's array is never changed
        self.values = [
            np.array(_host(a), order="K") if isinstance(a, is_array) else a for a in given
        ]

    def copies(self) -> list[Any]:
        """Copy arrays, so that a function that works in place, or returns its input, does no harm.

        Each goes to its own device.
        """
        pairs = zip(self.values, self._devices, strict=True)
        copied = [(np.array(a, order="K") if isinstance(a, np.ndarray) else a, d) for a, d in pairs]
        return [a if device is None else asarray(a, device=device) for a, device in copied]


def _host(x: Any) -> Any:
    return x.numpy() if isinstance(x, DeviceArray) else x


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    wrt: str | Sequence[str] | None = None,
    backward: Callable[..., Any] | None = None,
    grad_output: Any = None,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    **options: Any,
) -> GradcheckResult:
    """Check a backward pass against central differences, element by element.

    `fn` may be

    - a function: `backward`, or else the function `<name of fn>_backward` of the same module, is
      called as `backward(grad_output, *inputs, **options)`, with `wrt=` if that is given and taken;
    - a module (with `forward`, `backward` and `named_parameters`): the gradients of its inputs and
      of every parameter that is not frozen are checked. It must be in training mode; its `.grad`
      are cleared.

    Both ways draw the same random numbers, and the random stream is left as it was found. Where
    the function has a kink (relu at 0) the two differ rightly: choose inputs away from it. The
    cost is two forward calls an element, so keep the arrays small.

    Math: numeric_i = sum_o grad_output_o (f_o(x + eps e_i) - f_o(x - eps e_i)) / (2 eps);
        an element fails if not |analytic - numeric| <= atol + rtol |numeric|

    Args:
        fn: The function or module; it returns one array or scalar.
        inputs: Its positional arguments: an array of any device, or a tuple or list of them.
            Floating arrays are float64; integer arrays (class targets) and other objects are passed
            on untouched.
        wrt: Names of the inputs (and parameters of a module) to check. Default: those whose
            gradients backward returns by default, and every parameter.
        backward: The backward pass of `fn`. It returns an array, or a tuple in input order.
        grad_output: Gradient of the result, its shape. Default: fixed, with random signs and sizes
            in [0.5, 1.5], so that errors do not cancel in its sums.
        eps: The step. float32 inputs need 1e-3 or more, and tolerances to match.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
        raise_exception: Raise on failure instead of returning the result.
        **options: Keyword arguments of both `fn` and `backward`.

    Returns:
        A `GradcheckResult`, true if all agree; printed, it names the worst element.

    Raises:
        GradcheckError: If an element fails; an AssertionError with the text of the result.
        TypeError: If an input is float32 and eps too small for it.
        ValueError: If there is nothing to check, a name is unknown, shapes do not fit, or `fn`
            returns another value when called again.

    Example:
        >>> import numpy as np
        >>> import tilegrad as tg
        >>> bool(tg.gradcheck(tg.tanh, np.array([-1.0, 0.5])))
        True
        >>> wrong = lambda grad_output, input: 2 * grad_output * input
        >>> bool(tg.gradcheck(tg.tanh, np.ones(2), backward=wrong, raise_exception=False))
        False
    """
    for name, value in (("eps", eps), ("atol", atol), ("rtol", rtol)):
        if not (math.isfinite(value) and value >= 0) or (name == "eps" and value == 0):
            raise ValueError(f"gradcheck: {name} must be finite and positive; got {value}")
    arguments = _Arguments(inputs)
    names = _argument_names(fn, len(arguments.values))
    wanted = None if wrt is None else {wrt} if isinstance(wrt, str) else set(wrt)
    is_module = all(hasattr(fn, name) for name in ("forward", "backward", "named_parameters"))
    stream = _random.get_state()
    try:
        if is_module and backward is None:
            problem = _of_module(fn, arguments, names, options, wanted)
        else:
            backward = _backward_of(fn) if backward is None else backward
            problem = _of_function(fn, backward, arguments, names, options, wrt)
        for name, array in problem.arrays.items():
            _check_dtype(name, array.dtype, eps)
        try:
            result = _check(problem, wanted, grad_output, eps, atol, rtol)
        finally:
            problem.finish()
    finally:
        _random.set_state(stream)
    if raise_exception and not result:
        raise GradcheckError(result)
    return result


def _argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """Return the names of the first positional parameters."""
    try:
        parameters = inspect.signature(getattr(fn, "forward", fn)).parameters.values()
    except (TypeError, ValueError):  # some builtins tell no signature
        parameters = {}.values()
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in named][:count]
    return names + [f"input{i}" for i in range(len(names), count)]


def _check_dtype(name: str, dtype: np.dtype[Any], eps: float) -> None:
    if dtype == np.float64 or (dtype == np.float32 and eps >= _SMALLEST_FLOAT32_STEP):
        return
    if dtype.name == "bfloat16":
        raise TypeError(
            f"gradcheck: {name} is bfloat16, whose 8 bits of mantissa hide the difference that a "
            'step makes; check the same layers and inputs in float64 (dtype="float64"): the '
            "backward pass is the same"
        )
    raise TypeError(
        f"gradcheck: {name} must be float64 for a step of {eps:g}; got {dtype} (call "
        "astype(np.float64); float32 needs a larger step and loose tolerances, such as eps=1e-2, "
        "atol=1e-2, rtol=1e-2)"
    )


# What a backward function returns by default, where that is neither the first input nor all.
_DEFAULT_WRT = {
    "gaussian_nll_loss": ("input", "var"),
    "margin_ranking_loss": ("input1", "input2"),
    "cosine_embedding_loss": ("input1", "input2"),
}


def _backward_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Find `<name>_backward` beside a function."""
    name = f"{getattr(fn, '__name__', type(fn).__name__)}_backward"
    found = getattr(sys.modules.get(getattr(fn, "__module__", "")), name, None)
    if not callable(found):
        raise ValueError(f"gradcheck: fn has no {name} in its module; pass backward=")
    return found  # type: ignore[no-any-return]


def _by_name(gradients: Any, names: list[str], wanted: list[str]) -> dict[str, Any]:
    """Tell whose gradients a backward pass returned.

    An array belongs to the first input that is wanted; a tuple holds one entry for each input that
    is wanted or, where it is longer or has a None (as from linear_backward), for each input.
    """
    if not isinstance(gradients, (tuple, list)):
        return {wanted[0]: gradients}
    if len(gradients) > len(wanted) or any(g is None for g in gradients):
        wanted = names
        while len(gradients) > len(names) and gradients[-1] is None:
            gradients = gradients[:-1]  # an input that was left out
    if len(gradients) != len(wanted):
        raise ValueError(
            f"gradcheck: needs one gradient for each of {', '.join(wanted)}; got {len(gradients)}"
        )
    return {n: g for n, g in zip(wanted, gradients, strict=True) if g is not None}


def _of_function(
    fn: Callable[..., Any],
    backward: Callable[..., Any],
    arguments: _Arguments,
    names: list[str],
    options: dict[str, Any],
    wrt: str | Sequence[str] | None,
) -> _Problem:
    floating = _floating(arguments, names)
    keywords = dict(options)
    wanted = list(floating)
    if wrt is None:
        wrt = _DEFAULT_WRT.get(getattr(fn, "__name__", ""))
    if wrt is not None:
        asked = (wrt,) if isinstance(wrt, str) else tuple(wrt)
        wanted = [name for name in names if name in asked]
        try:
            if "wrt" in inspect.signature(backward).parameters:
                keywords["wrt"] = wrt if isinstance(wrt, str) else asked
        except (TypeError, ValueError):  # it tells no signature: take what it returns by default
            pass

    def gradients(grad: Any) -> dict[str, Any]:
        return _by_name(backward(grad, *arguments.copies(), **keywords), names, wanted)

    return _Problem(floating, lambda: fn(*arguments.copies(), **options), gradients)


def _of_module(
    module: Any,
    arguments: _Arguments,
    names: list[str],
    options: dict[str, Any],
    wanted: set[str] | None,
) -> _Problem:
    floating = _floating(arguments, names)
    parameters = {
        name: parameter
        for name, parameter in module.named_parameters()
        if getattr(parameter, "requires_grad", True) and (wanted is None or name in wanted)
    }

    arrays = {name: _host(parameter.data) for name, parameter in parameters.items()}

    def update() -> None:
        for name, parameter in parameters.items():
            if isinstance(parameter.data, DeviceArray):
                parameter.data = arrays[name]

    def value() -> Any:
        update()
        return module(*arguments.copies(), **options)

    def gradients(grad: Any) -> dict[str, Any]:
        module.zero_grad()
        value()
        returned = module.backward(grad)
        found = {} if returned is None else _by_name(returned, names, list(floating))
        for name, p in parameters.items():  # a gradient that was never filled in is a zero
            found[name] = np.zeros_like(arrays[name]) if p.grad is None else np.array(_host(p.grad))
        module.zero_grad()
        return found

    return _Problem(floating | arrays, value, gradients, update)


def _floating(arguments: _Arguments, names: list[str]) -> dict[str, Array]:
    return {
        name: argument
        for name, argument in zip(names, arguments.values, strict=True)
        if isinstance(argument, np.ndarray)
        and (argument.dtype.kind == "f" or argument.dtype.name == "bfloat16")
    }


def _check(
    problem: _Problem,
    wanted: set[str] | None,
    grad_output: Any,
    eps: float,
    atol: float,
    rtol: float,
) -> GradcheckResult:
    unknown = sorted((wanted or set()) - set(problem.arrays))
    if unknown or not problem.arrays:
        known = ", ".join(problem.arrays) or "no floating input"
        raise ValueError(f"gradcheck: wrt may name {known}; got {', '.join(unknown) or 'nothing'}")

    stream = _random.get_state()

    def value() -> Array:
        _random.set_state(stream)
        return np.array(_host(problem.value()))

    first = problem.value()
    output = np.array(_host(first))
    if output.dtype.kind != "f":
        raise ValueError(f"gradcheck: fn must return one floating array; got {output.dtype}")
    if not np.array_equal(output, value(), equal_nan=True):
        raise ValueError("gradcheck: fn must return the same value each time; pass it a seed")
    grad = _grad_output(grad_output, output)
    _random.set_state(stream)
    on_device = isinstance(first, DeviceArray)
    analytic = problem.gradients(asarray(grad, device=first.device) if on_device else grad[()])
    missing = set(wanted or analytic or problem.arrays) - set(analytic)
    if missing:
        raise ValueError(f"gradcheck: backward gave no gradient of {', '.join(sorted(missing))}")

    worst = []
    elements = failures = 0
    for name, array in problem.arrays.items():
        if name not in analytic or (wanted is not None and name not in wanted):
            continue
        got = np.asarray(_host(analytic[name]))
        if got.shape != array.shape:
            raise ValueError(
                f"gradcheck: the gradient of {name} must have its shape {array.shape}; "
                f"got {got.shape}"
            )
        compared = list(_compare(name, array, got, value, grad, eps, atol, rtol))
        elements += len(compared)
        failures += sum(element.excess > 1 for element in compared)
        if compared:
            worst.append(max(compared, key=lambda element: element.excess))
    return GradcheckResult(tuple(worst), elements, failures)


def _grad_output(given: Any, output: Array) -> Array:
    if given is None:
        generator = np.random.default_rng(0)
        size = generator.uniform(0.5, 1.5, output.shape)
        return np.asarray(size * generator.choice([-1.0, 1.0], output.shape), dtype=output.dtype)
    grad = np.array(given, dtype=output.dtype)
    if grad.shape != output.shape:
        raise ValueError(
            f"gradcheck: grad_output must have the result's shape {output.shape}; got {grad.shape}"
        )
    return grad


def _compare(
    name: str,
    array: Array,
    analytic: Array,
    value: Callable[[], Array],
    grad: Array,
    eps: float,
    atol: float,
    rtol: float,
) -> Iterator[GradcheckElement]:
    for index in np.ndindex(array.shape):
        kept = array[index]
        try:
            array[index] = kept + eps
            high, above = float(array[index]), value()
            array[index] = kept - eps
            low, below = float(array[index]), value()
        finally:
            array[index] = kept
        # Values are subtracted before they are summed; the step is the one that rounding left.
        change = np.asarray(above, np.float64) - np.asarray(below, np.float64)
        numeric = float((change * grad).sum()) / (high - low) if high > low else math.nan
        got = float(analytic[index])
        difference, tolerance = abs(got - numeric), atol + rtol * abs(numeric)
        if math.isfinite(difference) and tolerance > 0:
            excess = difference / tolerance
        else:
            excess = 0.0 if difference == 0 else math.inf
        yield GradcheckElement(name, index, got, numeric, excess)
