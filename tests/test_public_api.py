# SPDX-License-Identifier: MIT
"""The contract of the public functions: signatures, exports, documentation, tests."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from tilegrad import _random, ops, reference

FUNCTIONS = sorted(ops.__all__)
FORWARD = [n for n in FUNCTIONS if not n.endswith(("_backward", "_value_and_grad"))]
BACKWARD = [n for n in FUNCTIONS if n.endswith("_backward")]
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

every_function = pytest.mark.parametrize("name", FUNCTIONS)


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


@pytest.fixture(autouse=True)
def _same_stream_afterwards() -> Iterator[None]:
    state = _random.get_state()
    yield
    _random.set_state(state)


# ---- signatures --------------------------------------------------------------------------------

# Arguments of torch that are deprecated there, or that are decided otherwise in this project.
LEFT_OUT = {"size_average", "reduce", "_stacklevel", ("dropout", "inplace")}
KEYWORD_ONLY_HERE = {("softmax", "dtype"), ("log_softmax", "dtype")}  # they follow _stacklevel
REQUIRED_HERE = {("softmax", "dim"), ("log_softmax", "dim")}  # torch's default is deprecated
WITH_VARIANTS = {"cross_entropy_value_and_grad"}  # ladders on cuda and sim
OWN_POSITIONAL = {"linear": ["activation"]}  # what torch does not have
NO_PYTHON_SIGNATURE = {  # builtins of torch: their documentation
    "gelu": [("input", inspect.Parameter.empty), ("approximate", "none")],
    "prelu": [("input", inspect.Parameter.empty), ("weight", inspect.Parameter.empty)],
    "softplus": [("input", inspect.Parameter.empty), ("beta", 1), ("threshold", 20)],
    "linear": [
        ("input", inspect.Parameter.empty),
        ("weight", inspect.Parameter.empty),
        ("bias", None),
    ],
}


@pytest.mark.parametrize("name", [n for n in FORWARD if hasattr(F, n)])
def test_signature_is_torchs(name: str) -> None:
    theirs = NO_PYTHON_SIGNATURE.get(name)
    if theirs is None:
        theirs = [
            (p.name, inspect.Parameter.empty if (name, p.name) in REQUIRED_HERE else p.default)
            for p in parameters(getattr(F, name))
            if p.name not in LEFT_OUT and (name, p.name) not in LEFT_OUT
        ]
    mine = parameters(getattr(tg, name))
    positional = [(p.name, p.default) for p in mine if p.kind in POSITIONAL]
    positional = [p for p in positional if p[0] not in OWN_POSITIONAL.get(name, [])]
    keyword = [(p.name, p.default) for p in mine if p.kind is inspect.Parameter.KEYWORD_ONLY]
    moved = [p for p in theirs if (name, p[0]) in KEYWORD_ONLY_HERE or p[0] == "approximate"]
    assert positional == [p for p in theirs if p not in moved]
    assert set(moved) <= set(keyword)


def test_functions_without_a_model_in_torch_functional() -> None:
    assert [n for n in FORWARD if not hasattr(F, n)] == ["fused_mlp", "identity", "matmul"]
    assert [p.name for p in parameters(tg.matmul)] == [
        "a",
        "b",
        "transpose_a",
        "transpose_b",
        "variant",
        "out",
    ]
    assert [p.name for p in parameters(tg.identity)] == ["input", "out"]


@pytest.mark.parametrize("name", FORWARD)
def test_every_function_takes_out_and_has_a_backward(name: str) -> None:
    (out,) = [p for p in parameters(getattr(tg, name)) if p.name == "out"]
    assert out.kind is inspect.Parameter.KEYWORD_ONLY
    assert out.default is None
    assert f"{name}_backward" in FUNCTIONS


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_takes_what_forward_takes(name: str) -> None:
    forward = parameters(getattr(tg, name.removesuffix("_backward")))
    backward = parameters(getattr(tg, name))
    assert backward[0].name == "grad_output"
    dropped = {"out", "inplace", "save_preactivation", "variant"}
    kept = [(p.name, p.kind) for p in forward if p.name not in dropped]
    assert [(p.name, p.kind) for p in backward[1 : 1 + len(kept)]] == kept
    added = backward[1 + len(kept) :]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in added)
    assert {"wrt", "out"} <= {p.name for p in added}
    assert {p.name for p in added} <= {"wrt", "out", "output", "preactivation", "accumulate"}


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n.endswith("_value_and_grad")])
def test_value_and_grad_takes_what_forward_takes(name: str) -> None:
    forward = parameters(getattr(tg, name.removesuffix("_value_and_grad")))
    wanted = [(p.name, p.kind, p.default) for p in forward if p.name != "out"]
    mine = [(p.name, p.kind, p.default) for p in parameters(getattr(tg, name))]
    added = ["wrt", "variant"] if name in WITH_VARIANTS else ["wrt"]
    assert mine == [*wanted, *((name, inspect.Parameter.KEYWORD_ONLY, None) for name in added)]


# ---- every op is complete ----------------------------------------------------------------------


@every_function
def test_every_function_is_exported_and_has_a_reference(name: str) -> None:
    assert name in tg.__all__
    assert getattr(tg, name) is getattr(ops, name)
    assert callable(getattr(reference, name))


@every_function
def test_every_function_is_documented(name: str) -> None:
    function = getattr(tg, name)
    text = inspect.getdoc(function) or ""
    for section in ("Math:", "Args:", "Returns:", "Raises:", "Example:"):
        assert f"\n{section}" in text, f"{name} lacks {section}"
    assert ">>> " in text
    assert ("\nSource:" in text) == (name in FORWARD)
    documented = re.findall(r"^    (\w+): ", text.split("\nArgs:")[1].split("\nReturns:")[0], re.M)
    assert documented == [p.name for p in parameters(function)]


GENERAL = {  # of all ops or of none: a name in these is no test of the op
    Path(__file__).name,
    "test_backends.py",
    "test_gradcheck.py",
    "test_op_options.py",
    "test_random_state.py",
    "test_reference.py",
}


@pytest.mark.parametrize("name", FORWARD)
def test_every_op_has_tests(name: str) -> None:
    folder = Path(__file__).parent
    files = [f for f in folder.glob("test_*.py") if f.name not in GENERAL]
    found = [
        f.name for f in files if re.search(rf"(\btg\.{name}\b|[\"']{name}[\"'])", f.read_text())
    ]
    assert found, f"no file tests/test_*.py calls {name}"


MODULES = [
    m.name
    for m in pkgutil.walk_packages(tg.__path__, "tilegrad.")
    if not m.name.rsplit(".", 1)[1].startswith(("_cpu", "_sim", "_cuda", "__main__"))
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    importlib.import_module(name)
    # As an attribute of its package a name may be the function of that name.
    failed, attempted = doctest.testmod(sys.modules[name])
    assert failed == 0
    if name.startswith("tilegrad.ops."):
        assert attempted > 0
