# SPDX-License-Identifier: MIT
"""Models and state dicts from torch to tilegrad and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn as torch_nn

from tilegrad import Array, asarray, nn
from tilegrad._random import get_state, set_state

from . import _modules
from ._accelerate import activation_of, is_hooked
from ._exchange import operand, tensor


def arrays(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return a torch state dict as one for `tilegrad.nn.Module.load_state_dict`.

    Args:
        state: {dotted name: tensor}, of a model. Nothing is copied.

    Returns:
        {dotted name: array}; tensors on a GPU become tilegrad Arrays.

    Raises:
        TypeError: A value is no tensor, as in the state of an optimiser.

    Example:
        >>> layer = torch_nn.Linear(3, 2)
        >>> nn.Linear(3, 2).load_state_dict(arrays(layer.state_dict()))
    """
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"arrays: {name} must be a torch.Tensor; got {type(value).__name__}")
    return {
        name: operand(value) if value.is_cpu else asarray(operand(value))
        for name, value in state.items()
    }


def tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return a tilegrad state dict as one for `torch.nn.Module.load_state_dict`.

    Args:
        state: {dotted name: array}, of a model. Nothing is copied.

    Returns:
        {dotted name: tensor}.

    Raises:
        TypeError: A value is no array, as in the state of an optimiser.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> torch_nn.Linear(3, 2).load_state_dict(tensors(layer.state_dict()))
        <All keys matched successfully>
    """
    for name, value in state.items():
        if not isinstance(value, (np.ndarray, Array)):
            raise TypeError(f"tensors: {name} must be an array; got {type(value).__name__}")
    return {name: tensor(value) for name, value in state.items()}


def _refuse_shared(op: str, named: Iterable[tuple[str, Any]]) -> None:
    """Raise TypeError where one parameter has two names: the copy would have two parameters."""
    names: dict[int, str] = {}
    for name, weight in named:
        if (known := names.setdefault(id(weight), name)) != name:
            raise TypeError(f"{op}: {known} and {name} are one parameter")


def _dtype(module: torch_nn.Module) -> str:
    return str(next(module.parameters()).dtype).removeprefix("torch.")


def _from_linear(module: Any) -> nn.Module:
    return nn.Linear(
        module.in_features,
        module.out_features,
        module.bias is not None,
        getattr(module, "activation", None),
        activation_args=getattr(module, "activation_args", None),
        dtype=_dtype(module),
    )


def _from_fused_mlp(module: _modules.FusedMLP) -> nn.Module:
    layers: list[Any] = list(module)
    return nn.FusedMLP(
        layers[0].in_features,
        layers[0].out_features,
        layers[-1].out_features,
        len(layers),
        module.activation,
        module.output_activation,
        layers[0].bias is not None,
        activation_args=module.activation_args,
        output_activation_args=module.output_activation_args,
        dtype=_dtype(module),
    )


# What stands for a torch module, by its exact type; activations are below.
_FROM: dict[type, Callable[[Any], nn.Module]] = {
    torch_nn.Linear: _from_linear,
    _modules.Linear: _from_linear,
    _modules.FusedMLP: _from_fused_mlp,
    torch_nn.Identity: lambda m: nn.Identity(),
    torch_nn.Flatten: lambda m: nn.Flatten(m.start_dim, m.end_dim),
    torch_nn.Dropout: lambda m: nn.Dropout(m.p),
    torch_nn.Softmax: lambda m: nn.Softmax(m.dim),
    torch_nn.LogSoftmax: lambda m: nn.LogSoftmax(m.dim),
    torch_nn.PReLU: lambda m: nn.PReLU(m.num_parameters, m.init, _dtype(m)),
}
# tilegrad's class of an activation by the name of its function.
_CLASSES: dict[str, Callable[..., nn.Module]] = {
    "identity": nn.Identity, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU, "silu": nn.SiLU,
    "gelu_tanh": lambda: nn.GELU("tanh"), "softplus": nn.Softplus, "mish": nn.Mish,
    "hardtanh": nn.Hardtanh, "relu6": nn.ReLU6, "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
}  # fmt: skip


def _built(module: torch_nn.Module, name: str) -> nn.Module:
    """Return a module of the same structure, with weights of its own."""
    if is_hooked(module) or "forward" in vars(module):
        raise TypeError(
            f"from_torch: {name or 'the model'} has hooks or a forward of its own, which tilegrad "
            "cannot know"
        )
    if type(module) is torch_nn.Sequential:
        inner = [
            _built(child, f"{name}.{key}" if name else key)
            for key, child in module.named_children()
        ]
        if [key for key, _ in module.named_children()] != [str(i) for i in range(len(inner))]:
            raise TypeError(
                f"from_torch: {name or 'the model'} names its modules "
                f"{[key for key, _ in module.named_children()]}; tilegrad's Sequential has numbers"
            )
        made: nn.Module = nn.Sequential(*inner)
        made.training = module.training  # those inside have modes of their own
        return made
    if type(module) is _modules.Activation:
        made = _CLASSES[module.activation](**dict(module.options or {}))
    elif (known := activation_of(module)) is not None:
        made = _CLASSES[known[0]](**(known[1] or {}))
    elif (make := _FROM.get(type(module))) is not None:
        made = make(module)
    else:
        raise TypeError(
            f"from_torch: {name or 'the model'} is a {type(module).__name__}; tilegrad has "
            "Sequential, Linear, Flatten, Dropout, Softmax, LogSoftmax, PReLU, FusedMLP and the "
            "activations"
        )
    return made.train(module.training)


def from_torch(module: torch_nn.Module) -> nn.Module:
    """Return a tilegrad model with the structure, names, weights and mode of a torch model.

    Weights are copied; a parameter that needs no gradient needs none there either. Models on a GPU
    become models on that GPU.

    Args:
        module: A Sequential of Linear layers, activations, Flatten, Dropout, Softmax, LogSoftmax,
            PReLU and FusedMLP, or one of these.

    Raises:
        TypeError: Something that tilegrad does not have, with its name.

    Example:
        >>> net = torch_nn.Sequential(torch_nn.Linear(4, 3), torch_nn.Tanh())
        >>> from_torch(net)
        Sequential(
          (0): Linear(4, 3)
          (1): Tanh()
        )
    """
    if not isinstance(module, torch_nn.Module):
        raise TypeError(f"from_torch: takes a torch.nn.Module; got {type(module).__name__}")
    named = list(module.named_parameters(remove_duplicate=False))
    for name, weight in named:
        if weight.is_meta:
            raise TypeError(f"from_torch: {name} is on the meta device, without values")
    _refuse_shared("from_torch", named)
    random = get_state()
    model = _built(module, "")
    set_state(random)  # what the layers drew is replaced
    first = next(module.parameters(), None)
    if first is not None and not first.is_cpu:
        model.to(f"cuda:{first.device.index}")
    model.load_state_dict(arrays(module.state_dict()))
    theirs = dict(module.named_parameters())
    for name, parameter in model.named_parameters():
        parameter.requires_grad = theirs[name].requires_grad
    return model


def _to(module: nn.Module, name: str) -> torch_nn.Module:
    kind: Any = type(module)
    one: Any = module
    if kind is nn.FusedMLP and (network := one._network()) is not None:
        layers = list(one)
        made: Any = _modules.FusedMLP(
            layers[0].in_features,
            layers[0].out_features,
            layers[-1].out_features,
            len(layers),
            network.hidden[0],
            network.output[0],
            layers[0].bias is not None,
            activation_args=network.hidden[1],
            output_activation_args=network.output[1],
        )
    elif kind in (nn.Sequential, nn.FusedMLP):
        inner = [_to(child, f"{name}.{i}" if name else str(i)) for i, child in enumerate(one)]
        made = torch_nn.Sequential(*inner)
        made.training = one.training  # those inside have modes of their own
        return made  # type: ignore[no-any-return]
    elif kind is nn.Linear:
        sizes = (one.in_features, one.out_features, one.bias is not None)
        if one.activation is None:
            made = torch_nn.Linear(*sizes)
        else:
            made = _modules.Linear(*sizes, one.activation, activation_args=one.activation_args)
    elif kind is nn.PReLU:
        made = torch_nn.PReLU(one.num_parameters, one.init)
    elif kind is nn.Dropout:
        made = torch_nn.Dropout(one.p)
    elif kind in (nn.Softmax, nn.LogSoftmax):
        made = getattr(torch_nn, kind.__name__)(one.dim)
    elif kind is nn.Flatten:
        made = torch_nn.Flatten(one.start_dim, one.end_dim)
    elif kind in _CLASSES.values():
        made = getattr(torch_nn, kind.__name__)(**one._options)
    else:
        raise TypeError(
            f"to_torch: {name or 'the model'} is a {kind.__name__}, which has no torch form"
        )
    result: torch_nn.Module = made.train(one.training)
    return result


def to_torch(model: nn.Module) -> torch_nn.Module:
    """Return a torch model with the structure, names, weights and mode of a tilegrad model.

    Modules are torch's own, but a layer with a fused activation and FusedMLP are those of
    `tilegrad.torch`. Weights are copied.

    Args:
        model: A tilegrad model: Sequential, Linear, FusedMLP, Flatten, Dropout, activations.

    Raises:
        TypeError: A module that has no torch form, or a parameter that two modules share, with the
            names.

    Example:
        >>> to_torch(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
        )
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"to_torch: takes a tilegrad.nn.Module; got {type(model).__name__}")
    named: list[tuple[str, Any]] = []
    for prefix, module in model.named_modules():
        for key, weight in module._parameters.items():
            named.append((f"{prefix}.{key}" if prefix else key, weight))
    _refuse_shared("to_torch", named)
    with torch.random.fork_rng(devices=[]):  # what the layers draw is replaced
        made = _to(model, "")
    state = tensors(model.state_dict())
    ours = dict(model.named_parameters())
    for name, parameter in made.named_parameters():
        parameter.data = state[name].clone()
        parameter.requires_grad_(ours[name].requires_grad)
    return made
