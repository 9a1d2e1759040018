# SPDX-License-Identifier: MIT
"""`accelerate`: the modules of a torch model that tilegrad knows, replaced."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ._modules import Activation, CrossEntropyLoss, FusedMLP, Linear

# The name and options of an activation module, by its exact type.
_ACTIVATIONS: dict[type[nn.Module], Callable[[Any], tuple[str, dict[str, float] | None]]] = {
    nn.ReLU: lambda m: ("relu", None),
    nn.LeakyReLU: lambda m: ("leaky_relu", {"negative_slope": m.negative_slope}),
    nn.Sigmoid: lambda m: ("sigmoid", None),
    nn.Tanh: lambda m: ("tanh", None),
    nn.ELU: lambda m: ("elu", {"alpha": m.alpha}),
    nn.SELU: lambda m: ("selu", None),
    nn.GELU: lambda m: ("gelu_tanh" if m.approximate == "tanh" else "gelu", None),
    nn.SiLU: lambda m: ("silu", None),
    nn.Softplus: lambda m: ("softplus", {"beta": m.beta, "threshold": m.threshold}),
    nn.Mish: lambda m: ("mish", None),
    nn.Hardtanh: lambda m: ("hardtanh", {"min_val": m.min_val, "max_val": m.max_val}),
    nn.ReLU6: lambda m: ("relu6", None),
    nn.Hardsigmoid: lambda m: ("hardsigmoid", None),
    nn.Hardswish: lambda m: ("hardswish", None),
}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def activation_of(module: nn.Module) -> tuple[str, dict[str, float] | None] | None:
    """Return the name and the options of an activation module; None for any other."""
    find = _ACTIVATIONS.get(type(module))
    return None if find is None else find(module)


@dataclass
class Accelerated:
    """What `accelerate` did.

    Attributes:
        model: The model to use from now on.
        replaced: {dotted name: what runs there now}.
        left: {dotted name: why the module there stays as it was}.
    """

    model: nn.Module
    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        def lines(title: str, entries: dict[str, str]) -> list[str]:
            return [
                title,
                *(f"  {name or '(the model)'}: {what}" for name, what in entries.items()),
            ]

        return "\n".join(lines("replaced", self.replaced) + lines("left as they are", self.left))


def is_hooked(module: nn.Module) -> bool:
    """Return whether something watches or wraps the module's calls or its state."""
    return any(value for name, value in vars(module).items() if name.endswith("hooks"))


@functools.cache
def _usual(kind: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Return the attributes, and the parameters and buffers, of a module as it is made."""
    module = nn.Linear(1, 1, device="meta") if kind is nn.Linear else kind()  # nothing random
    return frozenset(vars(module)), frozenset([*module._parameters, *module._buffers])


def _reason(module: nn.Module, others: set[torch.dtype]) -> str | None:
    """Return why a module is left; None where tilegrad takes it.

    Args:
        module: The module.
        others: The dtypes in its model that tilegrad does not have.
    """
    kind: Any = type(module)
    if isinstance(module, (Linear, Activation, CrossEntropyLoss, FusedMLP)):
        return f"{kind.__name__} is tilegrad's already"
    if kind not in (nn.Linear, nn.CrossEntropyLoss) and kind not in _ACTIVATIONS:
        return f"{kind.__name__} is not among the modules that tilegrad has"
    if is_hooked(module):
        return f"{kind.__name__} has hooks"
    attributes, tensors = _usual(kind)
    added = (vars(module).keys() - attributes) | ({*module._parameters, *module._buffers} - tensors)
    if added:
        return f"{kind.__name__} has {', '.join(sorted(added))} besides what the class has"
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype not in _DTYPES:
            return f"{kind.__name__} is {tensor.dtype}; tilegrad has float32, float64 and bfloat16"
        if tensor.device.type not in ("cpu", "cuda"):
            return f"{kind.__name__} is on {tensor.device}; tilegrad runs on cpu and cuda"
        if type(tensor) not in (torch.Tensor, nn.Parameter):
            return f"{kind.__name__} holds a {type(tensor).__name__}"
    if others and kind is not nn.Linear:  # which says by its parameters what it is given
        names = ", ".join(sorted(map(str, others)))
        return f"{kind.__name__} is in a model of {names}; tilegrad has float32, float64, bfloat16"
    return None


def _linear(module: nn.Linear, activation: tuple[str, Any] | None) -> Linear:
    """Return a layer that shares another one's parameters."""
    name, options = activation or (None, None)
    layer = Linear(
        module.in_features,
        module.out_features,
        module.bias is not None,
        name,
        activation_args=options,
        device="meta",
    )
    layer.weight, layer.bias = module.weight, module.bias
    layer.train(module.training)
    return layer


def _replacement(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.Linear):
        return _linear(module, None)
    if isinstance(module, nn.CrossEntropyLoss):
        loss = CrossEntropyLoss(
            module.weight,
            ignore_index=module.ignore_index,
            reduction=module.reduction,
            label_smoothing=module.label_smoothing,
        )
        return loss.train(module.training)
    name, options = activation_of(module)  # type: ignore[misc]
    return Activation(name, options).train(module.training)


class _Replacer:
    def __init__(self, result: Accelerated, fuse: bool) -> None:
        self.result = result
        self.fuse = fuse
        self.made: dict[int, nn.Module] = {}  # by the module that is replaced
        model = result.model
        uses = Counter(id(child) for m in model.modules() for child in m._modules.values())
        self.shared = {one for one, count in uses.items() if count > 1}
        floating = {p.dtype for p in model.parameters() if p.is_floating_point()}
        self.others = floating - set(_DTYPES)

    def reason(self, module: nn.Module) -> str | None:
        return _reason(module, self.others)

    def replaced(self, name: str, module: nn.Module) -> nn.Module:
        """Return what stands in a module's place."""
        if id(module) in self.made:
            return self.made[id(module)]
        new = module
        if any(True for _ in module.children()) and not isinstance(module, FusedMLP):
            self.made[id(module)] = module
            self.descend(name, module)
        elif (reason := self.reason(module)) is None:
            new = _replacement(module)
            self.result.replaced[name] = repr(new)
        else:
            self.result.left[name] = reason
        self.made[id(module)] = new
        return new

    def descend(self, prefix: str, parent: nn.Module) -> None:
        children = list(parent._modules.items())
        skip = False
        for i, (key, child) in enumerate(children):
            if child is None or skip:
                skip = False
                continue
            name = f"{prefix}.{key}" if prefix else key
            following = children[i + 1] if i + 1 < len(children) else None
            if following is not None and self.fuses(parent, child, following[1]):
                new = _linear(child, activation_of(following[1]))  # type: ignore[arg-type]
                parent._modules[key] = new
                parent._modules[following[0]] = nn.Identity().train(child.training)
                next_name = f"{prefix}.{following[0]}" if prefix else following[0]
                self.result.replaced[name] = repr(new)
                self.result.replaced[next_name] = f"Identity(), fused into {name}"
                skip = True
            else:
                parent._modules[key] = self.replaced(name, child)

    def fuses(self, parent: nn.Module, child: nn.Module, following: nn.Module | None) -> bool:
        """Return whether a layer and the activation after it become one."""
        return (
            self.fuse
            and type(parent) is nn.Sequential
            and type(child) is nn.Linear
            and following is not None
            and type(following) in _ACTIVATIONS
            and id(child) not in self.shared
            and self.reason(child) is None
            and self.reason(following) is None
        )


def accelerate(model: nn.Module, *, fuse: bool = True) -> Accelerated:
    """Replace what tilegrad knows in a torch model, in place, and report what was left.

    Linear layers, activations and CrossEntropyLoss become tilegrad's. They share the parameters of
    those they replace, so optimisers, state dicts and devices keep working. In a Sequential a
    linear layer takes the activation behind it into its kernel, and an Identity stands in the
    activation's place, so that names do not change. An activation with `inplace=True` writes a new
    tensor instead. Subclasses, modules with hooks, parametrizations or attributes of their own, and
    other dtypes are left.

    Args:
        model: The model. If it is itself such a module, another one is returned for it.
        fuse: Whether layers take activations in. Say False where the model indexes, slices or
            iterates over a Sequential: what comes out of the layer alone would be different.

    Returns:
        The model, what was replaced and what was left; printing it gives a table.

    Raises:
        TypeError: `model` is no torch.nn.Module.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 2))
        >>> print(accelerate(net))
        replaced
          0: Linear(in_features=4, out_features=8, bias=True, activation='relu')
          1: Identity(), fused into 0
          3: Linear(in_features=8, out_features=2, bias=True)
        left as they are
          2: LayerNorm is not among the modules that tilegrad has
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: takes a torch.nn.Module; got {type(model).__name__}")
    result = Accelerated(model)
    result.model = _Replacer(result, fuse).replaced("", model)
    return result
