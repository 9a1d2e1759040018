# SPDX-License-Identifier: MIT
"""gradcheck: right gradients pass for every op and option, wrong ones are caught and named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tilegrad as tg
from gradcheck_cases import REDUCTIONS, cases, default_wrt, normal
from tilegrad import _random, nn, ops, reference
from tilegrad._cli_gradcheck import COMPOSED
from tilegrad._gradcheck import gradcheck
from tilegrad._gradcheck_result import GradcheckError, GradcheckResult

Array = NDArray[Any]


CASES = list(cases())
every_case = pytest.mark.parametrize(("name", "inputs", "options"), CASES)


def passes(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return an op and its backward pass, or what the op has to be checked as a part of."""
    return COMPOSED.get(name, (getattr(tg, name), getattr(tg, f"{name}_backward")))


def checked(name: str, inputs: tuple[Any, ...], options: dict[str, Any], **more: Any) -> Any:
    function, backward = passes(name)
    if name in COMPOSED:
        more["backward"] = backward
    return gradcheck(function, inputs, **{"wrt": default_wrt(name, inputs), **options, **more})


def test_every_op_has_a_case() -> None:
    forwards = {n.removesuffix("_backward") for n in ops.__all__ if n.endswith("_backward")}
    assert forwards == {case.values[0] for case in CASES}


@every_case
def test_right_gradients_pass(name: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
    result = checked(name, inputs, options)
    wrt = options.get("wrt", default_wrt(name, inputs))
    wanted = {wrt} if isinstance(wrt, str) else set(wrt)
    assert result
    assert {element.name for element in result.worst} == wanted
    sizes = [np.size(array) for array in inputs]
    sizes = sizes[: len(wanted)]
    assert result.elements == sum(sizes)
    assert max(element.excess for element in result.worst) < 0.01  # far from the tolerance


@every_case
def test_one_wrong_element_is_caught_and_named(
    name: str, inputs: tuple[Any, ...], options: dict[str, Any]
) -> None:
    function, right = passes(name)
    place: tuple[int, ...] = ()

    def wrong(grad_output: Any, *operands: Any, **more: Any) -> Any:
        nonlocal place
        found = right(grad_output, *operands, **more)
        first = np.array(found[0] if isinstance(found, tuple) else found)
        place = np.unravel_index(first.size // 2, first.shape)
        first[place] += 0.01 * (1 + abs(first[place]))
        return (first, *found[1:]) if isinstance(found, tuple) else first

    options = {k: v for k, v in options.items() if k != "wrt"}
    result = gradcheck(function, inputs, backward=wrong, raise_exception=False, **options)
    assert not result
    assert result.failures == 1
    worst = max(result.worst, key=lambda element: element.excess)
    assert worst.name == default_wrt(name, inputs)[0]
    assert worst.index == tuple(map(int, place))


def test_failure_raises_with_the_worst_element_in_the_text() -> None:
    def backward(grad_output: Array, input: Array) -> Array:
        gradient = grad_output * np.cos(input)
        gradient[1, 0] += 0.5
        return np.asarray(gradient)

    with pytest.raises(GradcheckError, match=r"1 of 6 elements differ") as caught:
        gradcheck(np.sin, np.ones((2, 3)), grad_output=np.ones((2, 3)), backward=backward)
    assert isinstance(caught.value, AssertionError)
    (worst,) = caught.value.result.worst
    assert worst.index == (1, 0)
    assert worst.analytic == pytest.approx(math.cos(1) + 0.5)
    assert worst.numeric == pytest.approx(math.cos(1))
    assert worst.difference == pytest.approx(0.5)
    text = str(caught.value)
    assert "[1, 0]: analytic 1.0403" in text
    assert "numeric 0.5403" in text
    assert "difference 0.5" in text


def test_a_gradient_of_nan_fails() -> None:
    result = gradcheck(
        np.sin,
        np.ones(3),
        backward=lambda grad_output, input: grad_output * np.nan,
        raise_exception=False,
    )
    assert result.failures == 3


def test_errors_do_not_cancel_in_a_sum() -> None:
    # With a grad_output of ones this gradient would be right: the columns of a softmax add to 1.
    result = gradcheck(
        lambda x: tg.softmax(x, 0),
        np.ones(4),
        backward=lambda grad_output, x: np.zeros(4),
        raise_exception=False,
    )
    assert not result


def test_a_function_and_backward_of_ones_own() -> None:
    def product(a: Array, b: Array, power: int = 1) -> Any:
        return float((a * b**power).sum())

    def backward(grad_output: Any, a: Array, b: Array, power: int = 1) -> tuple[Array, Array]:
        return grad_output * b**power, grad_output * power * a * b ** (power - 1)

    a, b = normal(3), normal(3, seed=1)
    result = gradcheck(product, (a, b), backward=backward, power=2)
    assert [element.name for element in result.worst] == ["a", "b"]
    assert gradcheck(product, (a, b), backward=backward, wrt="a").elements == 3
    # The central difference of b^3 is off by eps^2: grad_output, eps and rtol arrive.
    loose = gradcheck(product, (a, b), backward=backward, power=3, eps=0.5, raise_exception=False)
    assert {element.name for element in loose.worst if element.excess > 1} == {"b"}
    doubled = gradcheck(product, (a, b), backward=backward, grad_output=2.0)
    assert doubled.worst[0].numeric == pytest.approx(2 * b[doubled.worst[0].index])


def test_reference_functions_are_found_by_name_too() -> None:
    assert gradcheck(reference.silu, normal(4))


def test_arrays_and_random_stream_are_left_as_they_were() -> None:
    def in_place(x: Array) -> Array:
        x *= 3.0
        return x

    _random.take(1)
    before = _random.get_state()
    x = normal(3)
    kept = x.copy()
    assert gradcheck(in_place, x, backward=lambda grad_output, x: 3 * grad_output)
    assert np.array_equal(x, kept)
    assert gradcheck(nn.Dropout(0.5), x)
    assert _random.get_state() == before


# ---- modules -----------------------------------------------------------------------------------


def network() -> Any:
    tg.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 5, activation="gelu", dtype=np.float64),
        nn.Dropout(0.3),
        nn.Linear(5, 3, dtype=np.float64),
        nn.Tanh(),
    )


def test_module_input_and_every_parameter_are_checked() -> None:
    model = network()
    result = gradcheck(model, normal(2, 4))
    names = {element.name for element in result.worst}
    assert names == {"input", *(name for name, _ in model.named_parameters())}
    assert result.elements == 8 + sum(p.size for p in model.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_module_wrt_and_frozen_parameters() -> None:
    model = network()
    first, *_ = (name for name, _ in model.named_parameters())
    result = gradcheck(model, normal(2, 4), wrt=first)
    assert [element.name for element in result.worst] == [first]
    next(iter(model.parameters())).requires_grad = False
    result = gradcheck(model, normal(2, 4))
    assert first not in {element.name for element in result.worst}


def test_wrong_module_is_caught_by_parameter_name() -> None:
    class Wrong(nn.Linear):  # forgets the rows but the first
        def backward(self, grad_output: Array, input_grad: bool = True) -> Any:
            dx = super().backward(grad_output, input_grad)
            self.bias.grad = np.array(grad_output[0])
            return dx

    model = Wrong(4, 3, dtype=np.float64)
    result = gradcheck(model, normal(2, 4), raise_exception=False)
    worst = max(result.worst, key=lambda element: element.excess)
    assert worst.name == "bias"
    assert result.failures == 3


def test_module_that_never_fills_a_gradient_is_caught() -> None:
    class Weight:
        def __init__(self) -> None:
            self.data, self.grad = normal(3), None

    class Scale:  # not an nn.Module: the three methods are what counts
        def __init__(self) -> None:
            self.weight = Weight()

        def forward(self, input: Array) -> Array:
            return np.asarray(input * self.weight.data)

        __call__ = forward

        def backward(self, grad_output: Array) -> Array:
            return np.asarray(grad_output * self.weight.data)

        def named_parameters(self) -> Iterator[tuple[str, Weight]]:
            yield "weight", self.weight

        def zero_grad(self) -> None:
            self.weight.grad = None

    result = gradcheck(Scale(), normal(3, seed=1), raise_exception=False)
    assert result.failures == 3
    assert next(e for e in result.worst if e.name == "weight").analytic == 0.0


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_modules(reduction: str) -> None:
    assert gradcheck(nn.MSELoss(reduction=reduction), (normal(3, 2), normal(3, 2, seed=1)))
    classes = np.array([0, 2, 1])
    assert gradcheck(nn.CrossEntropyLoss(reduction=reduction), (normal(3, 4), classes))


# ---- what is refused ---------------------------------------------------------------------------


def test_float32_needs_a_larger_step() -> None:
    x = normal(2, 3).astype(np.float32)
    with pytest.raises(TypeError, match=r"input must be float64 .* got float32 .*astype"):
        gradcheck(tg.tanh, x)
    assert gradcheck(tg.tanh, x, eps=1e-2, atol=1e-2, rtol=1e-2)
    with pytest.raises(TypeError, match="weight must be float64"):
        gradcheck(nn.Linear(3, 2), normal(2, 3))
    with pytest.raises(TypeError, match="got float16"):
        gradcheck(np.sin, x.astype(np.float16), backward=lambda g, x: g, eps=1e-2)


def test_bfloat16_is_refused_with_the_reason_and_the_way_out() -> None:
    pytest.importorskip("ml_dtypes")
    half = nn.Linear(3, 2, dtype="bfloat16")
    why = r"is bfloat16, whose 8 bits of mantissa hide .*; check .* in float64"
    with pytest.raises(TypeError, match=f"input {why}"):
        gradcheck(half, normal(2, 3).astype(half.weight.dtype))
    with pytest.raises(TypeError, match=f"weight {why}"):
        gradcheck(half, normal(2, 3))
    with pytest.raises(TypeError, match=f"input {why}"):
        gradcheck(tg.tanh, normal(3).astype(half.weight.dtype), eps=1e-2)


def test_a_function_that_changes_its_mind_is_refused() -> None:
    generator = np.random.default_rng(0)

    def noisy(x: Array) -> Array:
        return np.asarray(x + generator.normal(size=x.shape))

    with pytest.raises(ValueError, match="same value each time"):
        gradcheck(noisy, np.ones(3), backward=lambda grad_output, x: grad_output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wrt": "weight"}, "wrt may name input; got weight"),
        ({"eps": 0.0}, "eps must be finite and positive; got 0.0"),
        ({"eps": math.nan}, "eps must be"),
        ({"atol": -1.0}, "atol must be"),
        ({"rtol": math.inf}, "rtol must be"),
        ({"grad_output": np.ones(2)}, r"grad_output must have the result's shape \(3,\)"),
        ({"backward": lambda g, x: g[:2]}, r"gradient of input must have its shape \(3,\)"),
        ({"backward": lambda g, x: (None,)}, "backward gave no gradient of input"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradcheck(tg.tanh, np.ones(3), **arguments)


@pytest.mark.parametrize(
    ("fn", "inputs", "message"),
    [
        (lambda x: x, np.ones(3), "pass backward="),
        (np.sin, np.ones(3), "pass backward="),
        (tg.tanh, np.array([1, 2]), "no floating input"),
        (tg.tanh, (), "no floating input"),
    ],
)
def test_nothing_to_check(fn: Callable[..., Any], inputs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gradcheck(fn, inputs)


def test_arrays_without_elements_pass_and_say_so() -> None:
    result = gradcheck(tg.tanh, np.ones((0, 3)))
    assert isinstance(result, GradcheckResult)
    assert result
    assert "all 0 elements" in str(result)
