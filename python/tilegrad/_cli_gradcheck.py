# SPDX-License-Identifier: MIT
"""``tilegrad gradcheck``: small random operands for every public op that has a backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ops
from ._gradcheck import gradcheck
from ._gradcheck_result import GradcheckResult

# Step and tolerances: a step in float32 must be large to show at all, and its error is too.
TOLERANCES = {
    "float64": {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-3},
    "float32": {"eps": 1e-2, "atol": 1e-2, "rtol": 1e-2},
}

Draw = Callable[..., NDArray[Any]]
Operands = tuple[tuple[Any, ...], dict[str, Any]]


def _one_array(draw: Draw) -> Operands:
    return (draw(4, 5),), {}


def _share(draw: Draw) -> NDArray[Any]:
    """Return numbers between 0.2 and 0.8."""
    x = draw(4, 5)
    return np.asarray(0.5 + 0.15 * x, dtype=x.dtype)


def _ctc_loss(input: Any, *rest: Any) -> Any:
    return ops.ctc_loss(ops.log_softmax(input, -1), *rest)


def _ctc_loss_backward(grad_output: Any, input: Any, *rest: Any) -> Any:
    gradient = ops.ctc_loss_backward(grad_output, ops.log_softmax(input, -1), *rest)
    return ops.log_softmax_backward(gradient, input, -1)


def _fused_mlp(input: Any, weight0: Any, weight1: Any, bias0: Any, bias1: Any) -> Any:
    return ops.fused_mlp(input, (weight0, weight1), (bias0, bias1), "tanh", "sigmoid")


def _fused_mlp_backward(grad_output: Any, input: Any, *layers: Any) -> Any:
    found: Any = ops.fused_mlp_backward(
        grad_output, input, layers[:2], layers[2:], "tanh", "sigmoid"
    )
    return (found[0], *found[1], *found[2])


# Ops whose gradient belongs to them and what stands before them, or whose operands are lists:
# (function, its backward pass).
COMPOSED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "ctc_loss": (_ctc_loss, _ctc_loss_backward),
    "fused_mlp": (_fused_mlp, _fused_mlp_backward),
}
# Ops whose operands are not one array: (positional arguments, options).
_OPERANDS: dict[str, Callable[[Draw], Operands]] = {
    "matmul": lambda draw: ((draw(3, 4), draw(4, 5)), {}),
    "linear": lambda draw: ((draw(4, 3), draw(5, 3), draw(5)), {}),
    "fused_mlp": lambda draw: ((draw(4, 3), draw(5, 3), draw(2, 5), draw(5), draw(2)), {}),
    "cross_entropy": lambda draw: ((draw(4, 5), np.array([0, 4, 2, 2])), {}),
    "binary_cross_entropy": lambda draw: ((_share(draw), _share(draw)), {}),
    "binary_cross_entropy_with_logits": lambda draw: ((draw(4, 5), _share(draw)), {}),
    "kl_div": lambda draw: ((draw(4, 5), abs(draw(4, 5))), {}),
    "gaussian_nll_loss": lambda draw: ((draw(4, 5), draw(4, 5), abs(draw(4, 5))), {}),
    "margin_ranking_loss": lambda draw: ((draw(4, 5), draw(4, 5), np.sign(draw(4, 5))), {}),
    "hinge_embedding_loss": lambda draw: ((draw(4, 5), np.sign(draw(4, 5))), {"margin": 2.5}),
    **{
        name: lambda draw: ((draw(4, 5), draw(4, 5)), {})
        for name in (
            "mse_loss",
            "l1_loss",
            "smooth_l1_loss",
            "huber_loss",
            "poisson_nll_loss",
            "soft_margin_loss",
        )
    },
    "ctc_loss": lambda draw: ((draw(5, 2, 4), np.array([1, 1, 3]), (5, 4), (2, 1)), {}),
    "nll_loss": lambda draw: ((draw(4, 5), np.array([0, 4, 2, 2])), {}),
    "multi_margin_loss": lambda draw: ((draw(4, 5), np.array([0, 4, 2, 2])), {"margin": 5.0}),
    "multilabel_margin_loss": lambda draw: ((draw(2, 3), np.array([[1, -1, 0], [2, 0, -1]])), {}),
    "multilabel_soft_margin_loss": lambda draw: ((draw(4, 5), draw(4, 5)), {}),
    "triplet_margin_loss": lambda draw: (
        (draw(4, 5), draw(4, 5), draw(4, 5)),
        {"margin": 10.0, "swap": True},
    ),
    "cosine_embedding_loss": lambda draw: (
        (draw(4, 5), draw(4, 5), np.array([1, -1, 1, -1])),
        {"margin": -1.0},
    ),
    "prelu": lambda draw: ((draw(4, 5), draw(5)), {}),
    "hardtanh": lambda draw: ((draw(4, 5),), {"min_val": -2.5, "max_val": 0.05}),
    "dropout": lambda draw: ((draw(4, 5),), {"seed": 1, "offset": 0}),
    "softmax": lambda draw: ((draw(4, 5), -1), {}),
    "log_softmax": lambda draw: ((draw(4, 5), -1), {}),
}


def known_ops() -> list[str]:
    """Return the public ops that have a backward pass.

    Example:
        >>> "matmul" in known_ops(), "matmul_backward" in known_ops()
        (True, False)
    """
    names = set(ops.__all__)
    return sorted(name for name in names if f"{name}_backward" in names)


def check(name: str, dtype: str, seed: int) -> GradcheckResult:
    """Compare an op's backward pass with central differences on small random operands.

    The elements lie in +-[0.1, 2], so that no step crosses the kinks that some activations have.

    Args:
        name: One of `known_ops()`.
        dtype: "float32" or "float64".
        seed: Chooses the operands.

    Returns:
        A `GradcheckResult`.

    Example:
        >>> bool(check("tanh", "float64", seed=0))
        True
    """
    generator = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[Any]:
        size = generator.uniform(0.1, 2.0, shape)
        return np.asarray(size * generator.choice([-1.0, 1.0], shape), dtype=dtype)

    arguments, options = _OPERANDS.get(name, _one_array)(draw)
    step = TOLERANCES[dtype]
    function, backward = COMPOSED.get(name, (getattr(ops, name), None))
    return gradcheck(
        function,
        arguments,
        backward=backward,
        eps=step["eps"],
        atol=step["atol"],
        rtol=step["rtol"],
        raise_exception=False,
        **options,
    )
