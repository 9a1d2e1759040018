# SPDX-License-Identifier: MIT
"""ONNX files: checked by onnx, run by onnxruntime to the same result."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx.reference.op_run
import onnxruntime
import pytest

import tilegrad as tg
import tilegrad.onnx
from helpers import Array, Device, assert_close, error
from tilegrad import nn

OPSETS = [13, 14, 15, 18, 20, 22, min(23, onnx.defs.onnx_opset_version())]
WIDE = ["float32", "float64"]
OPTIONS: dict[str, list[dict[str, float]]] = {
    "leaky_relu": [{}, {"negative_slope": 0.3}, {"negative_slope": -0.25}],
    "elu": [{}, {"alpha": 0.7}, {"alpha": -1.5}],
    "softplus": [{}, {"beta": 2.5, "threshold": 3.0}, {"beta": 0.3, "threshold": 50.0}],
    "hardtanh": [{}, {"min_val": -0.3, "max_val": 2.7}],
}
NAMES = [
    "identity", "relu", "leaky_relu", "sigmoid", "tanh", "elu", "selu", "gelu", "gelu_tanh", "silu",
    "softplus", "mish", "hardtanh", "relu6", "hardsigmoid", "hardswish",
]  # fmt: skip
CASES = [(name, options) for name in NAMES for options in OPTIONS.get(name, [{}])]
CLASSES: dict[str, type[nn.Module]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU,
    "softplus": nn.Softplus, "mish": nn.Mish, "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6,
    "hardsigmoid": nn.Hardsigmoid, "hardswish": nn.Hardswish,
}  # fmt: skip


class Erf(onnx.reference.op_run.OpRun):  # type: ignore[misc]
    """The reference's own is of float32."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.vectorize(math.erf)(x).astype(x.dtype),)


def reference(model: onnx.ModelProto, x: Array) -> Array:
    run = onnx.reference.ReferenceEvaluator(model, new_ops=[Erf])
    return np.asarray(run.run(None, {model.graph.input[0].name: x})[0])


def session(model: onnx.ModelProto | str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto | str, x: Array) -> Array:
    made = session(model)
    return np.asarray(made.run(None, {made.get_inputs()[0].name: x})[0])


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check(model: nn.Module, x: Array, shape: Any = None, **options: Any) -> onnx.ModelProto:
    """Require onnxruntime's result to be the model's, and the declared shape to be the result's."""
    made = tg.onnx.export(model, None, shape, **options)
    got, want = run(made, x), model.eval()(x)
    # 16 ulp of what goes in: operators of onnxruntime err by that next to a zero of f.
    scale = np.abs(want) + np.abs(x).max(initial=1)
    assert got.dtype == want.dtype
    assert_close(got, want, 16 * np.finfo(want.dtype).eps * scale)
    sizes = [d.dim_value or d.dim_param for d in made.graph.output[0].type.tensor_type.shape.dim]
    assert len(sizes) == want.ndim
    for size, n in zip(sizes, want.shape, strict=True):
        assert isinstance(size, str) or size == n
    return made


def points(dtype: str) -> Array:
    ends = [0, -0.0, 1e-30, -1e-30, 20, 20.1, 34, 60, -60, 90, -90, 700, -700, 3, -3, 6]
    return np.concatenate([np.linspace(-9, 9, 480), ends]).astype(dtype).reshape(-1, 4)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n} {o}" for n, o in CASES])
def test_activations_everywhere(name: str, options: dict[str, float], dtype: str) -> None:
    """The class and the fused one, in each opset, over their whole range."""
    kind = CLASSES[name.removesuffix("_tanh")] if name != "tanh" else nn.Tanh
    module = nn.GELU("tanh") if name == "gelu_tanh" else kind(**options)
    layer = nn.Linear(4, 4, False, name, activation_args=options or None, dtype=dtype)
    layer.weight.data = np.eye(4, dtype=dtype)
    slope = nn.PReLU(1, 1.0, dtype)  # the identity, which gives the graph its dtype
    x = points(dtype)
    for opset in OPSETS:
        for model in (nn.Sequential(slope, module), layer):
            shape = ("rows", 4)
            if name == "gelu" and dtype == "float64":  # onnxruntime has no Erf of float64
                made = tg.onnx.export(model, None, shape, opset_version=opset)
                want = model.eval()(x)
                assert_close(reference(made, x), want, 4e-16 * (1 + np.abs(x)))
            else:
                made = check(model, x, shape, opset_version=opset)
            assert made.opset_import[0].version == opset


@pytest.mark.parametrize("dtype", WIDE)
def test_a_network_of_every_layer(dtype: str, device: Device, rng: np.random.Generator) -> None:
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 16, activation="gelu_tanh", dtype=dtype),
        nn.Dropout(0.5),
        nn.Sequential(nn.Linear(16, 8, bias=False, dtype=dtype), nn.PReLU(8, dtype=dtype)),
        nn.FusedMLP(8, 9, 7, layers=3, activation="silu", dtype=dtype),
        nn.Softplus(beta=2.0),
        nn.LogSoftmax(1),
    )
    model[3][1].weight.data = rng.standard_normal(8).astype(dtype)
    made = tg.onnx.export(model.to(device.name), None, ("batch", 3, 4))
    assert model.training  # the export changes nothing
    names = {tensor.name for tensor in made.graph.initializer}
    assert set(model.state_dict()) <= names
    assert not {"Dropout", "Identity"} & set(operators(made))
    model.to("cpu").eval()
    for batch in (1, 2, 17):
        x = rng.standard_normal((batch, 3, 4)).astype(dtype)
        assert_close(run(made, x), model(x), 40 * np.finfo(dtype).eps * (1 + np.abs(model(x))))
    assert run(made, x[:0]).shape == (0, 7)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("bias", [True, False])
def test_layers_take_any_number_of_axes(dtype: str, bias: bool, rng: np.random.Generator) -> None:
    layer = nn.Linear(5, 3, bias, "relu", dtype=dtype)
    for shape in [(5,), (4, 5), (2, 4, 5), (2, 1, 3, 5)]:
        x = rng.standard_normal(shape).astype(dtype)
        check(layer, x, shape)
        check(layer, x, [f"n{i}" for i in range(len(shape) - 1)] + [5])


def test_slopes_are_of_the_second_axis(rng: np.random.Generator) -> None:
    for shape in [(5,), (4, 3), (4, 3, 5), (2, 3, 4, 5)]:
        for slopes in {1, 3 if len(shape) > 1 else 1}:
            for dtype in WIDE:
                module = nn.PReLU(slopes, dtype=dtype)
                module.weight.data = rng.standard_normal(slopes).astype(dtype)
                check(module, rng.standard_normal(shape).astype(dtype), shape)


@pytest.mark.parametrize("kind", [nn.Softmax, nn.LogSoftmax])
def test_softmax_along_any_axis(kind: Any, rng: np.random.Generator) -> None:
    x = 20 * rng.standard_normal((4, 5, 6)).astype("f4")
    for dim in range(-3, 3):
        for opset in (13, 20):
            check(kind(dim), x, ("a", "b", "c"), opset_version=opset)


def test_any_axes_are_flattened(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4, 5)).astype("f4")
    for start in range(4):
        for end in range(start, 4):
            for shape in (x.shape, ("n", 3, 4, 5), ("n", 3, "w", 5), ("a", "b", "c", "d")):
                model = nn.Sequential(nn.Flatten(start, end - 4), nn.Tanh())
                check(model, x, shape, opset_version=15)
    model = nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 2))
    made = tg.onnx.export(model, None, ("n", 3, 6))
    assert run(made, np.ones((4, 3, 6), "f4")).shape == (12, 2)
    with error(ValueError, "onnx.export", "0 joins axes", "opset_version=15; got 14"):
        tg.onnx.export(
            nn.Sequential(nn.Flatten(1, 2)), None, ("a", "b", "c", "d"), opset_version=14
        )
    with error(ValueError, "Flatten", "do not exist"):
        tg.onnx.export(nn.Flatten(2, 3), None, ("a", "b"))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_exported_as_such(name: str, rng: np.random.Generator) -> None:
    """By onnx's own evaluator: onnxruntime has few kernels of bfloat16 on a CPU."""
    model = nn.Sequential(
        nn.Linear(5, 6, dtype="bfloat16"), nn.Linear(6, 4, True, name, dtype="bfloat16")
    )
    made = tg.onnx.export(model)
    assert made.opset_import[0].version == 22
    kinds = {tensor.data_type for tensor in made.graph.initializer}
    assert kinds == {onnx.TensorProto.BFLOAT16}
    x = rng.standard_normal((7, 5)).astype(model[0].weight.dtype)
    want = model.eval()(x).astype("f8")
    # Each operator rounds to 8 bits, we once a layer.
    assert_close(reference(made, x).astype("f8"), want, 2.0**-8 * 6 * (1 + np.abs(want)))
    with error(ValueError, "onnx.export", "[22, ", "for bfloat16", "got 20"):
        tg.onnx.export(model, opset_version=20)


def test_names_and_sizes_are_those_that_are_asked_for() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    made = tg.onnx.export(model, None, (8, 4), input_names=["x"], output_names=["y"])
    inputs, outputs = session(made).get_inputs(), session(made).get_outputs()
    assert [(i.name, i.shape, i.type) for i in inputs] == [("x", [8, 4], "tensor(float)")]
    assert [(o.name, o.shape) for o in outputs] == [("y", [8, 3])]
    made = tg.onnx.export(model)
    assert session(made).get_inputs()[0].shape == ["batch", 4]
    assert session(made).get_outputs()[0].shape == ["batch", 3]
    assert (made.producer_name, made.producer_version) == ("tilegrad", tg.__version__)
    assert made.ir_version <= 10  # what runtimes of that time read
    assert operators(tg.onnx.export(nn.Identity(), None, (3,))) == ["Identity"]
    assert operators(tg.onnx.export(nn.Sequential(), None, (3,))) == ["Identity"]
    named = nn.Sequential(nn.ReLU(), nn.ReLU())
    check(named, np.ones((2, 3), "f4"), (2, 3), input_names=["0.Relu"], output_names=["1.Relu"])


def test_a_parameter_or_a_module_in_two_places_is_one(rng: np.random.Generator) -> None:
    layer = nn.Linear(4, 4)
    other = nn.Linear(4, 4)
    other.weight = layer.weight
    x = rng.standard_normal((3, 4)).astype("f4")
    made = check(nn.Sequential(layer, nn.Tanh(), other), x)
    assert len(made.graph.initializer) == 3
    assert len(check(nn.Sequential(layer, nn.Tanh(), layer), x).graph.initializer) == 2


class Doubled(nn.ReLU):
    def forward(self, input: Array) -> Array:
        return 2 * input


class Named(nn.ReLU):
    """The same function under another name."""


def test_unknown_modules_are_named() -> None:
    patched = nn.ReLU()
    patched.forward = lambda input: input  # type: ignore[method-assign]
    for module, kind in ((Doubled(), "Doubled"), (nn.MSELoss(), "MSELoss"), (patched, "ReLU")):
        model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(module))
        with error(TypeError, "onnx.export", f"1.0 is a {kind}, which has no ONNX form"):
            tg.onnx.export(model)
    with error(TypeError, "onnx.export", "the model is a Doubled, which has no ONNX form"):
        tg.onnx.export(Doubled())
    network = nn.FusedMLP(2, 4, 2, 3)
    network[1] = Doubled()
    with error(TypeError, "onnx.export", "1 is a Doubled, which has no ONNX form"):
        tg.onnx.export(network)
    check(nn.Sequential(nn.Linear(2, 2), Named()), np.ones((3, 2), "f4"))
    with error(TypeError, "onnx.export", "takes a tilegrad.nn.Module; got int"):
        tg.onnx.export(3)  # type: ignore[arg-type]
    with error(TypeError, "onnx.export", "one dtype", "float64"):
        tg.onnx.export(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, dtype="float64")))


def test_what_does_not_fit_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.PReLU(2))
    export = tg.onnx.export
    with error(ValueError, "onnx.export", "1 has 2 slopes", "('batch', 3)"):
        export(model)
    with error(ValueError, "onnx.export", "0 takes (..., 4); got ('n', 5)"):
        export(model, None, ("n", 5))
    for shape in ((-1, 4), ("", 4), (2.5, 4), (None, 4), "n4"):
        with error(ValueError, "onnx.export", "input_shape must hold sizes and names"):
            export(model, None, shape)  # type: ignore[arg-type]
    with error(ValueError, "onnx.export", "joins axes of ('b', 3, 0, 4), which has no elements"):
        export(nn.Flatten(1, 2), None, ("b", 3, 0, 4))
    with error(ValueError, "onnx.export", "works along axis 2"):
        export(nn.Softmax(2), None, (3, 4))
    for model in (nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(4, 3))):
        with error(ValueError, "onnx.export", "input_shape is needed"):
            export(model)
    layer = nn.Linear(4, 3)
    for opset in (0, 12, 1000, -1):
        with error(ValueError, "onnx.export", "opset_version must be in [13, ", f"got {opset}"):
            export(layer, opset_version=opset)
    for names in ((), ("a", "b"), "x", ("",), (3,)):
        with error(ValueError, "onnx.export", "input_names must hold one name"):
            export(layer, input_names=names)  # type: ignore[arg-type]
    with error(ValueError, "onnx.export", "'weight' is the name of a parameter"):
        export(layer, output_names=["weight"])
    with error(ValueError, "onnx.export", "two names"):
        export(layer, input_names=["x"], output_names=["x"])


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    made = tg.onnx.export(nn.Linear(4, 3), path)
    assert onnx.load(path) == made
    assert run(str(path), np.ones((2, 4), "f4")).shape == (2, 3)
    old = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        tg.onnx.export(nn.Linear(40, 30), path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["model.onnx"]
    with pytest.raises(FileNotFoundError, match=r"onnx\.export: there is no such folder"):
        tg.onnx.export(nn.Linear(4, 3), tmp_path / "none" / "model.onnx")


def test_a_model_that_no_file_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(100, 10)
    monkeypatch.setattr(tg.onnx, "_LARGEST", 4000)
    with error(ValueError, "onnx.export", "a file holds 2 GiB; the model has 4040 bytes"):
        tg.onnx.export(layer)
    monkeypatch.setattr(tg.onnx, "_LARGEST", 4040)
    tg.onnx.export(layer)


def test_weights_are_copied() -> None:
    layer = nn.Linear(4, 3, bias=False)
    made = tg.onnx.export(layer)
    want = layer.weight.data.copy()
    layer.weight.data[...] = 0
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(made.graph.initializer[0]), want)


def test_a_trained_network_predicts_the_same(tmp_path: Path) -> None:
    data = tg.data.load_digits()
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32, activation="relu"), nn.Dropout(0.1), nn.Linear(32, 10))
    tg.fit(model, nn.CrossEntropyLoss(), tg.optim.Adam(model.parameters(), lr=3e-3), data.train(),
           epochs=20, progress=False)  # fmt: skip
    tg.onnx.export(model, tmp_path / "digits.onnx")
    x, labels = data.test()
    scores = run(str(tmp_path / "digits.onnx"), x)
    assert_close(scores, model.predict(x), 1e-5 * np.abs(scores).max())
    assert np.mean(scores.argmax(1) == labels) > 0.9


def test_it_is_imported_only_when_it_is_asked_for() -> None:
    code = (
        "import sys, tilegrad as tg; print('onnx' in sys.modules, hasattr(tg, 'onnx'))\n"
        "sys.modules['onnx'] = None\n"
        "import tilegrad.onnx\n"
        "try: tilegrad.onnx.export(tg.nn.Linear(2, 2))\n"
        "except ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "False False",
        "onnx.export: needs the package onnx; install it with: pip install 'tilegrad[onnx]'",
    ]
