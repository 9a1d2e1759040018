# SPDX-License-Identifier: MIT
"""The forward pass of the multilayer perceptron, as inference runs it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import tilegrad as tg
from tilegrad import reference
from tilegrad.bench import environment
from tilegrad.bench.environment import jax, onnxruntime, torch
from tilegrad.bench.harness import Call, Case, Contest

from . import _jax, _onnx
from ._common import FLOAT, Array, contest, empty, jitted, random, tensors
from .train_step import SIZES

_BATCHES = (1, 32, 128)


def cases() -> list[Case]:
    """Return the cases; every weight is read once."""
    layers = [a * b for a, b in pairwise(SIZES)]
    parameters = sum(layers) + sum(SIZES[1:])
    label = "-".join(map(str, SIZES))
    return [
        Case("predict", f"{label} batch {batch}",
             FLOAT * (parameters + batch * (SIZES[0] + SIZES[-1])), 2 * batch * sum(layers),
             partial(_build, batch), batch == 32)
        for batch in _BATCHES
    ]  # fmt: skip


def _build(batch: int) -> Contest:
    x = random("x", batch, SIZES[0])
    params = [
        (part / np.float32(i**0.5)).astype(np.float32)
        for i, o in pairwise(SIZES)
        for part in (random("weight", o, i), random("bias", o))
    ]
    weights, biases = params[::2], params[1::2]
    last = len(weights) - 1
    model = tg.nn.Sequential(*(
        tg.nn.Linear(i, o, activation="relu" if k < last else None)
        for k, (i, o) in enumerate(pairwise(SIZES))
    ))  # fmt: skip
    for parameter, values in zip(model.parameters(), params, strict=True):
        parameter.data = values
    outs = [empty(batch, size) for size in SIZES[1:]]

    def numpy() -> Any:
        y = x
        for k, (w, b, out) in enumerate(zip(weights, biases, outs, strict=True)):
            y = np.add(np.matmul(y, w.T, out=out), b, out=out)
            if k < last:
                np.maximum(y, 0, out=y)
        return y

    peers: dict[str, Call] = {"numpy": numpy}
    if torch() is not None:
        peers |= _torch(x, weights, biases)
    if jax() is not None:
        peers["jax"] = jitted(lambda x, *params: _jax.logits(params, x), x, *params)
    if onnxruntime() is not None:
        peers |= _onnxruntime(x, params)
    return contest(lambda: model.predict(x), peers, lambda: _expected(x, weights, biases))


def _torch(x: Array, weights: list[Array], biases: list[Array]) -> dict[str, Call]:
    """Return the pass through modules and the one through kernels alone."""
    pt = torch()
    modules: list[Any] = []
    for w, b in zip(weights, biases, strict=True):
        layer = pt.nn.Linear(*w.shape[::-1])
        layer.weight.data, layer.bias.data = tensors(w, b)
        modules += [layer, pt.nn.ReLU()]
    model = pt.nn.Sequential(*modules[:-1]).eval()
    (tx,) = tensors(x)
    layers = [(w.t(), b, out) for w, b, out in zip(
        tensors(*weights), tensors(*biases), tensors(*(empty(len(x), len(b)) for b in biases)),
        strict=True)]  # fmt: skip

    @pt.inference_mode()  # type: ignore[untyped-decorator]
    def usual() -> Any:
        return model(tx)

    def by_hand() -> Any:
        y = tx
        for k, (w, b, out) in enumerate(layers):
            y = pt.addmm(b, y, w, out=out)
            if k < len(layers) - 1:
                pt.relu_(y)
        return y

    return {"torch": usual, "torch by hand": by_hand}


def _onnxruntime(x: Array, params: list[Array]) -> dict[str, Call]:
    """Return a session's usual call, and the one that is given its arrays beforehand."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    threads = tg.num_threads()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    if others := environment.pinned_to[1:threads]:  # the caller's is not among them
        places = ";".join(str(core + 1) for core in others)
        options.add_session_config_entry("session.intra_op_thread_affinities", places)
    session = runtime.InferenceSession(
        _onnx.model(params), options, providers=["CPUExecutionProvider"]
    )
    y = empty(len(x), len(params[-1]))
    bound = session.io_binding()
    bound.bind_cpu_input("x", x)
    bound.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    names, feed = ["y"], {"x": x}

    def with_binding() -> Any:
        session.run_with_iobinding(bound)
        return y

    return {
        "onnxruntime": lambda: session.run(names, feed)[0],
        "onnxruntime bound": with_binding,
    }


def _expected(x: Array, weights: list[Array], biases: list[Array]) -> Array:
    y: Any = x.astype(np.float64)
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        y = reference.linear(y, w, b, "relu" if k < len(weights) - 1 else None)
    return np.asarray(y)
