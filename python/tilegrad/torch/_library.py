# SPDX-License-Identifier: MIT
"""The operators `torch.ops.tilegrad.*`: how one is registered.

An operator has a schema, one kernel for CPU and CUDA tensors, a *fake* kernel that only says what
comes out (torch.compile runs it), and, where it can be differentiated, a formula for autograd that
calls further operators. None returns an operand or a view of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from ._exchange import on_torch_stream

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
    raise ImportError(f"tilegrad.torch needs PyTorch 2.7 or later; got {torch.__version__}")

_LIBRARY: Any = torch.library.Library("tilegrad", "DEF")  # type: ignore[no-untyped-call]


def define(schema: str, kernel: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Register an operator and return it as a callable.

    Args:
        schema: In torch's form: `name(Tensor input, ...) -> Tensor`.
        kernel: What computes it, for CPU and CUDA tensors.
        fake: What returns tensors like the kernel's, without reading data.

    Returns:
        `torch.ops.tilegrad.name`.
    """
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CPU")
    _LIBRARY.impl(name, on_torch_stream(kernel), "CUDA")
    torch.library.register_fake(f"tilegrad::{name}", _on_one_device(name, fake), lib=_LIBRARY)
    return getattr(torch.ops.tilegrad, name).default


def _on_one_device(name: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Return a fake kernel that refuses operands with memory beside some without."""

    def checked(*args: Any) -> Any:
        kinds = {x.device.type for x in tree_leaves(args) if isinstance(x, torch.Tensor)}
        if "meta" in kinds and len(kinds) > 1:
            raise RuntimeError(f"{name}: operands must be on one device; got {sorted(kinds)}")
        return fake(*args)

    return checked


def refuse_forward_mode(op: str, *tensors: torch.Tensor | None) -> None:
    """Raise where a tensor carries a tangent: operators would return a result without one.

    Raises:
        NotImplementedError: One of them does.
    """
    if forward_ad._current_level < 0:
        return
    unpack: Any = forward_ad.unpack_dual
    if any(t is not None and unpack(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            f"{op}: tilegrad has no forward-mode derivatives; use torch.nn.functional there"
        )


def differentiate(op: Any, setup: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Register the formula of an operator's gradient.

    Args:
        op: The operator.
        setup: `setup(ctx, inputs, output)` keeps what backward needs.
        backward: `backward(ctx, saved, *grad_outputs)` returns a gradient, or None, for each input;
            saved are the tensors of ctx.
    """
    if "Tensor[]" in str(op._schema):

        def formula(ctx: Any, *grad_outputs: Any) -> Any:
            return backward(ctx, ctx.saved_tensors, *grad_outputs)

        torch.library.register_autograd(op, formula, setup_context=setup, lib=_LIBRARY)
        return
    # What register_autograd does for operators without lists, in half the time.
    below: Any = torch._C._AutoDispatchBelowAutograd

    class Formula(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            with below():
                output = op(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> Any:
            saved = ctx.saved_tensors  # checkpointing computes them anew here, with a graph
            if torch.is_grad_enabled():  # create_graph: further operators say what they lack
                return backward(ctx, saved, *grad_outputs)
            with below():
                return backward(ctx, saved, *grad_outputs)

    def call(*inputs: Any) -> Any:
        if torch.is_grad_enabled():
            for one in inputs:
                if isinstance(one, torch.Tensor) and one.requires_grad:
                    return Formula.apply(*inputs)  # type: ignore[no-untyped-call]
        with below():
            return op(*inputs)

    _LIBRARY.impl(op.name().partition("::")[2], call, "Autograd")


def no_second_derivatives(op: object) -> NotImplementedError:
    """Return the error for who asks for one."""
    return NotImplementedError(
        f"{op}: tilegrad has no second derivatives; use torch.nn.functional where create_graph is"
        " needed"
    )


def differentiate_once(op: Any) -> None:
    """Register that the result of an operator, itself a gradient, has none: to ask is an error."""

    def refuse(ctx: Any, saved: Any, *grad_outputs: torch.Tensor) -> Any:
        raise no_second_derivatives(op)

    differentiate(op, lambda ctx, inputs, output: None, refuse)


def autocast(
    *tensors: torch.Tensor | None, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor | None, ...]:
    """Return tensors as `torch.autocast` would have them: in its dtype, or in the one given."""
    device = next(t for t in tensors if t is not None).device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    target = torch.get_autocast_dtype(device) if dtype is None else dtype
    return tuple(
        t if t is None or t.dtype is torch.float64 or not t.is_floating_point() else t.to(target)
        for t in tensors
    )
