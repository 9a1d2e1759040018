# SPDX-License-Identifier: MIT
"""The contract of the public functions: signatures, documentation, shared options, random state."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import tilegrad as tg
from tilegrad import _random, backends, ops, reference

FUNCTIONS = sorted(ops.__all__)
FORWARD = [n for n in FUNCTIONS if not n.endswith(("_backward", "_value_and_grad"))]
BACKWARD = [n for n in FUNCTIONS if n.endswith("_backward")]
ACTIVATIONS = [
    "identity", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu",
]  # fmt: skip
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


# ---- signatures --------------------------------------------------------------------------------

# Arguments of torch that are deprecated there, or that are decided otherwise in this project.
LEFT_OUT = {"size_average", "reduce", "_stacklevel", ("dropout", "inplace")}
KEYWORD_ONLY_HERE = {("softmax", "dtype"), ("log_softmax", "dtype")}  # they follow _stacklevel
REQUIRED_HERE = {("softmax", "dim"), ("log_softmax", "dim")}  # torch's default is deprecated
OWN_POSITIONAL = {"linear": ["activation"]}  # what torch does not have
NO_PYTHON_SIGNATURE = {  # builtins of torch: their documentation
    "gelu": [("input", inspect.Parameter.empty), ("approximate", "none")],
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
    assert [n for n in FORWARD if not hasattr(F, n)] == ["identity", "matmul"]
    assert [p.name for p in parameters(tg.matmul)] == [
        "a",
        "b",
        "transpose_a",
        "transpose_b",
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
    dropped = {"out", "inplace", "save_preactivation"}
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
    assert mine == [*wanted, ("wrt", inspect.Parameter.KEYWORD_ONLY, None)]


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


@pytest.mark.parametrize("name", FORWARD)
def test_every_op_has_tests(name: str) -> None:
    folder = Path(__file__).parent
    general = {Path(__file__).name, "test_reference.py", "test_gradcheck.py"}
    files = [f for f in folder.glob("test_*.py") if f.name not in general]
    found = [
        f.name for f in files if re.search(rf"(\btg\.{name}\b|[\"']{name}[\"'])", f.read_text())
    ]
    assert found, f"no file tests/test_*.py calls {name}"


MODULES = [
    m.name
    for m in pkgutil.walk_packages(tg.__path__, "tilegrad.")
    if not m.name.rsplit(".", 1)[1].startswith(("_cpu", "__main__"))
]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    importlib.import_module(name)
    # As an attribute of its package a name may be the function of that name.
    failed, attempted = doctest.testmod(sys.modules[name])
    assert failed == 0
    if name.startswith("tilegrad.ops."):
        assert attempted > 0


# ---- options that functions share --------------------------------------------------------------


@every_activation
def test_activation_out_and_inplace(name: str) -> None:
    function, x = getattr(tg, name), np.linspace(-2, 2, 12).reshape(3, 4)
    want = function(x)
    out = np.full_like(x, np.nan)
    assert function(x, out=out) is out
    np.testing.assert_array_equal(out, want)
    if "inplace" not in inspect.signature(function).parameters:
        return
    with pytest.raises(ValueError, match=f"{name}: inplace=True writes to input"):
        function(x, inplace=True, out=out)
    assert function(x, inplace=True) is x
    np.testing.assert_array_equal(x, want)
    assert function(x, inplace=True, out=x) is x
    strided = np.ones((3, 4)).T
    with pytest.raises(TypeError, match=f"{name}: out must be C-contiguous"):
        function(strided, inplace=True)


@every_activation
def test_activation_backward_from_output_is_that_from_input(name: str) -> None:
    x = np.linspace(-2, 2, 11)
    dy = np.linspace(1, 3, 11)
    y, backward = getattr(tg, name)(x), getattr(tg, f"{name}_backward")
    np.testing.assert_allclose(backward(dy, x, output=y), backward(dy, x), rtol=1e-12)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "softmax", "log_softmax", "cross_entropy"])
def test_wrt_gives_an_array_for_a_name_and_a_tuple_for_a_tuple(name: str) -> None:
    backward = getattr(tg, f"{name}_backward")
    x = np.linspace(-1, 1, 6).reshape(2, 3)
    arguments: dict[str, tuple[Any, ...]] = {
        "softmax": (x, x, 1),
        "log_softmax": (x, x, 1),
        "cross_entropy": (1.0, x, np.array([0, 2])),
    }
    args = arguments.get(name, (x, x))
    want = backward(*args)
    np.testing.assert_array_equal(backward(*args, wrt="input"), want)
    (only,) = backward(*args, wrt=("input",))
    np.testing.assert_array_equal(only, want)
    out = np.empty_like(x)
    (only,) = backward(*args, wrt=("input",), out=(out,))
    assert only is out
    np.testing.assert_array_equal(out, want)
    assert backward(*args, wrt="input", out=out) is out
    with pytest.raises(ValueError, match=rf"{name}_backward: wrt may name input; got"):
        backward(*args, wrt="target")
    with pytest.raises(TypeError, match=f"{name}_backward: wrt must be a name or a tuple"):
        backward(*args, wrt=3)
    with pytest.raises(TypeError, match=f"{name}_backward: out must be a tuple"):
        backward(*args, wrt=("input",), out=out)


def test_wrt_of_several_inputs_keeps_the_order_of_inputs() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    da, db = tg.matmul_backward(np.ones(2), a, b, wrt=("b", "a"))
    assert (da.shape, db.shape) == (a.shape, b.shape)
    dx, dt = tg.mse_loss_backward(1.0, a, b, wrt=["target", "input"])
    assert (dx.shape, dt.shape) == (a.shape, b.shape)
    dx, dw, db = tg.linear_backward(np.ones((2, 4)), a, np.ones((4, 3)), np.ones(4), wrt="weight")
    assert dx is None
    assert db is None
    np.testing.assert_array_equal(dw, np.ones((4, 2)) @ a)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_dtype_casts_first(name: str) -> None:
    function, backward = getattr(tg, name), getattr(tg, f"{name}_backward")
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)
    wide = function(x, 1, dtype=np.float64)
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide, function(x.astype(np.float64), 1))
    np.testing.assert_array_equal(
        function(np.arange(4), 0, dtype="float32"), function(np.arange(4, dtype=np.float32), 0)
    )
    dy = np.linspace(0, 1, 8).reshape(2, 4)
    dx = backward(dy, x, 1, dtype=np.float64, output=wide)
    assert dx.dtype == np.float32
    leaf = torch.from_numpy(x).requires_grad_()
    getattr(F, name)(leaf, dim=1, dtype=torch.float64).backward(torch.from_numpy(dy))
    np.testing.assert_allclose(dx, leaf.grad.numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(backward(x, x, 1, dtype=np.float32), backward(x, x, 1))
    for bad in (np.float16, np.int64):
        with pytest.raises(TypeError, match=f"{name}: dtype must be float32 or float64"):
            function(x, 1, dtype=bad)
    with pytest.raises(TypeError, match=f"{name}: input must be an array; got list"):
        function([1.0, 2.0], 0, dtype=np.float32)
    with pytest.raises(ValueError, match=f"{name}_backward: out needs dtype to be input's"):
        backward(dy, x, 1, dtype=np.float64, out=np.empty_like(x))


def test_option_values_are_checked() -> None:
    x = np.ones(2)
    with pytest.raises(ValueError, match="gelu: approximate must be 'none' or 'tanh'; got 'erf'"):
        tg.gelu(x, approximate="erf")
    with pytest.raises(ValueError, match="gelu_backward: approximate must be"):
        tg.gelu_backward(x, x, approximate="erf")
    with pytest.raises(TypeError, match="linear: activation_args must map names to numbers"):
        tg.linear(x, np.ones((1, 2)), None, "elu", activation_args={"alpha": "high"})
    with pytest.raises(TypeError, match="linear_backward: activation_args must map"):
        tg.linear_backward(np.ones(1), x, np.ones((1, 2)), None, "elu", activation_args=[1.0])
    with pytest.raises(ValueError, match=r"linear: activation 'relu' takes no arguments"):
        tg.linear(x, np.ones((1, 2)), None, "relu", activation_args={"alpha": 1.0})


def test_arrays_of_other_libraries_are_read() -> None:
    x = torch.linspace(-1, 1, 5)
    for result in (tg.relu(x), tg.dropout(x, training=False), tg.softmax(x, 0, dtype=np.float64)):
        assert type(result) is np.ndarray
    np.testing.assert_array_equal(tg.relu(x), np.maximum(x.numpy(), 0))


# ---- random state ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _stream() -> Any:
    state = _random.get_state()
    yield
    _random.set_state(state)


def test_stream_starts_at_seed_0() -> None:
    code = "from tilegrad import _random; print(_random.get_state())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'seed': 0, 'offset': 0}"


def test_dropout_draws_from_the_stream() -> None:
    x = np.ones(10)
    tg.manual_seed(5)
    first, second = tg.dropout(x), tg.dropout(x[:4])
    assert _random.get_state() == {"seed": 5, "offset": 4}  # ceil(10 / 4) + 1
    np.testing.assert_array_equal(first, tg.dropout(x, seed=5))
    np.testing.assert_array_equal(first, tg.dropout(x, seed=5, offset=0))
    np.testing.assert_array_equal(second, tg.dropout(x[:4], seed=5, offset=3))
    assert _random.get_state() == {"seed": 5, "offset": 4}  # a seed of one's own draws nothing
    np.testing.assert_array_equal(first, reference.dropout(x, 0.5, seed=5))


def test_dropout_that_drops_nothing_returns_its_input() -> None:
    x, out = np.arange(3.0), np.empty(3)
    before = _random.get_state()
    for options in ({"training": False}, {"p": 0.0}):
        assert tg.dropout(x, **options) is x
        assert tg.dropout(x, **options, out=out) is out
        np.testing.assert_array_equal(out, x)
        np.testing.assert_array_equal(tg.dropout_backward(x, x, **options, seed=1, offset=0), x)
        with pytest.raises(TypeError, match="dropout: input must"):
            tg.dropout([1.0, 2.0], **options)
        with pytest.raises(TypeError, match="dropout: input must"):
            tg.dropout(np.arange(3), **options)
    assert _random.get_state() == before


@pytest.mark.parametrize("p", [-0.1, 1.5, np.nan, np.inf])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_probability(p: float, training: bool) -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"dropout: p must be a probability in \[0, 1\]; got"):
        tg.dropout(x, p, training)
    with pytest.raises(ValueError, match="dropout_backward: p must be a probability"):
        tg.dropout_backward(x, x, p, training, seed=1, offset=0)


def test_dropout_seeds() -> None:
    x = np.ones(3)
    with pytest.raises(ValueError, match=r"dropout: seed must be in \[0, 2\*\*64\); got -1"):
        tg.dropout(x, seed=-1)
    with pytest.raises(ValueError, match="dropout: offset must be in"):
        tg.dropout(x, seed=1, offset=2**64)
    with pytest.raises(TypeError, match=r"dropout: seed must be an integer; got 1\.5"):
        tg.dropout(x, seed=1.5)
    with pytest.raises(ValueError, match="dropout: offset needs a seed"):
        tg.dropout(x, offset=3)
    with pytest.raises(ValueError, match=r"dropout_backward: grad_output must have shape \(3,\); got \(2,\)"):
        tg.dropout_backward(np.ones(2), x, seed=1, offset=0)
    with pytest.raises(TypeError, match=r"dropout_backward: floating inputs must share one dtype"):
        tg.dropout_backward(np.ones(3, np.float32), x, seed=1, offset=0)
    with pytest.raises(TypeError, match="manual_seed: seed must be an integer; got True"):
        tg.manual_seed(True)
    with pytest.raises(ValueError, match="manual_seed: seed must be in"):
        tg.manual_seed(2**64)
    tg.manual_seed(np.uint64(2**64 - 1))
    assert _random.get_state()["seed"] == 2**64 - 1


def test_state_is_restored_and_checked() -> None:
    state = {"seed": 2**64 - 1, "offset": 2**64 - 1}
    _random.set_state(state)
    assert _random.get_state() == state
    assert _random.take(5) == (2**64 - 1, 2**64 - 1)
    assert _random.take(0) == (2**64 - 1, 1)  # the counter wraps
    with pytest.raises(ValueError, match="set_state: state must have seed and offset"):
        _random.set_state({"seed": 1})
    with pytest.raises(ValueError, match="set_state: offset must be in"):
        _random.set_state({"seed": 1, "offset": -1})
    assert _random.get_state() == {"seed": 2**64 - 1, "offset": 1}


def test_threads_never_share_a_counter() -> None:
    tg.manual_seed(9)
    taken: list[list[int]] = [[] for _ in range(4)]

    def draw(mine: list[int]) -> None:
        mine.extend(_random.take(1)[1] for _ in range(2000))

    threads = [threading.Thread(target=draw, args=(mine,)) for mine in taken]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(offset for mine in taken for offset in mine) == list(range(8000))


# ---- backends ----------------------------------------------------------------------------------


def test_info_tells_what_is_there_and_why_the_rest_is_not() -> None:
    info = tg.info()
    assert info["version"] == tg.__version__
    assert info["isa"] in info["supported_isas"]
    assert info["num_threads"] == tg.num_threads()
    assert set(info["backends"]) == {"cpu", "sim", "cuda"}
    for name, reason in info["backends"].items():
        if reason is None:
            backends.check_device(name)
        else:
            with pytest.raises(RuntimeError, match=f"device: '{name}' cannot be used: {reason}"):
                backends.check_device(name)
    assert info["backends"]["cpu"] is None
    for bad in ("gpu", "cpu:1", ""):
        with pytest.raises(ValueError, match="device: must be cpu, sim, cuda or cuda:N"):
            backends.check_device(bad)


def test_threads_are_set_and_results_do_not_depend_on_them() -> None:
    before = tg.num_threads()
    x = np.random.default_rng(0).normal(size=(300, 200))
    results = []
    try:
        for count in (1, 2):
            tg.set_num_threads(count)
            assert tg.num_threads() == count
            results.append(tg.matmul(x, x, transpose_b=True))
    finally:
        tg.set_num_threads(before)
    np.testing.assert_array_equal(*results)
    with pytest.raises(ValueError, match=r"set_num_threads: count must be in \[1, \d+\]; got 0"):
        tg.set_num_threads(0)


def test_release_memory_gives_back_what_a_large_result_used() -> None:
    tg.release_memory()
    y = tg.relu(np.ones(1 << 18))
    size = y.nbytes
    del y
    assert tg.release_memory() >= size
    assert tg.release_memory() == 0
