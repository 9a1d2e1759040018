# SPDX-License-Identifier: MIT
"""A network and its training step in jax: one compiled function whose buffers are given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilegrad.bench.environment import jax
from tilegrad.bench.harness import Call

from ._common import Array

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8  # of Adam


def logits(params: Sequence[Any], x: Any) -> Any:
    """Return the outputs of layers with relu between them.

    Args:
        params: Weight and bias of each layer in turn.
        x: The batch.
    """
    for i in range(0, len(params), 2):
        x = x @ params[i].T + params[i + 1]
        if i + 2 < len(params):
            x = jax().nn.relu(x)
    return x


def loss(params: Sequence[Any], x: Any, target: Any) -> Any:
    """Return the mean cross-entropy, in the way that jax compiles best."""
    outputs = logits(params, x)
    picked = jax().numpy.take_along_axis(outputs, target[:, None], 1)[:, 0]
    return jax().numpy.mean(jax().nn.logsumexp(outputs, 1) - picked)


def step(
    start: Sequence[Array], x: Array, target: Array, optimizer: str, rate: float
) -> tuple[Call, Callable[[float], None]]:
    """Return a training step and what changes its learning rate.

    Args:
        start: Weight and bias of each layer in turn.
        x: The batch.
        target: Its classes.
        optimizer: "SGD" or "Adam".
        rate: The learning rate.
    """
    jnp = jax().numpy
    gradients_of = jax().value_and_grad(loss)

    def sgd(state: Any, x: Any, target: Any, rate: Any) -> Any:
        (params,) = state
        value, gradients = gradients_of(params, x, target)
        return value, ([p - rate * g for p, g in zip(params, gradients, strict=True)],)

    def adam(state: Any, x: Any, target: Any, rate: Any) -> Any:
        params, means, squares, count = state
        value, gradients = gradients_of(params, x, target)
        count = count + 1
        size = rate / (1 - _BETA1**count)
        scale = jnp.sqrt(1 - _BETA2**count)
        means = [_BETA1 * m + (1 - _BETA1) * g for m, g in zip(means, gradients, strict=True)]
        squares = [
            _BETA2 * s + (1 - _BETA2) * g * g for s, g in zip(squares, gradients, strict=True)
        ]
        params = [
            p - size * m / (jnp.sqrt(s) / scale + _EPS)
            for p, m, s in zip(params, means, squares, strict=True)
        ]
        return value, (params, means, squares, count)

    params = [jnp.array(part) for part in start]  # copies: they are given to the first step
    state: list[Any] = [(params,)]
    if optimizer == "Adam":
        zeros = [[jnp.zeros_like(part) for part in start] for _ in range(2)]
        state[0] = (params, *zeros, jnp.float32(0))
    compiled = jax().jit(adam if optimizer == "Adam" else sgd, donate_argnums=0)
    given = [jnp.asarray(x), jnp.asarray(target)]
    rates = [jnp.float32(rate)]

    def call() -> Any:
        value, state[0] = compiled(state[0], *given, rates[0])
        return value.block_until_ready()

    def set_rate(rate: float) -> None:
        rates[0] = jnp.float32(rate)

    return call, set_rate
