# SPDX-License-Identifier: MIT
"""torch.nn modules over the operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ._activations import activation as apply_activation
from ._activations import option_values
from ._cross_entropy import cross_entropy
from ._fused_mlp import fused_mlp
from ._linear import linear


def _options_repr(activation: str | None, options: Mapping[str, float] | None) -> str:
    text = "" if activation is None else f"activation={activation!r}"
    return text + (f", activation_args={dict(options)}" if options else "")


class Linear(torch.nn.Linear):
    """torch.nn.Linear with its activation fused, by tilegrad's kernels.

    Parameters, their names and initial values are those of torch.nn.Linear.

    Args:
        in_features: Size of each input sample.
        out_features: Size of each output sample.
        bias: Whether to add a bias.
        activation: None or a name that `tilegrad.linear` knows, such as "relu".
        activation_args: Its options by name.
        device: As in torch.
        dtype: As in torch: float32, float64 or bfloat16.

    Raises:
        ValueError: The activation or an option is unknown.

    Example:
        >>> layer = Linear(2, 1, bias=False, activation="relu")
        >>> _ = torch.nn.init.ones_(layer.weight)
        >>> layer(torch.tensor([[1.0, 1.0], [1.0, -3.0]])).tolist()
        [[2.0], [0.0]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation: str | None = None,
        *,
        activation_args: Mapping[str, float] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        option_values(activation or "identity", activation_args)  # or an error
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.activation = activation
        self.activation_args = activation_args

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return f(input weight^T + bias)."""
        return linear(
            input, self.weight, self.bias, self.activation, activation_args=self.activation_args
        )

    def extra_repr(self) -> str:
        """Return the arguments to show in `repr`."""
        options = _options_repr(self.activation, self.activation_args)
        return super().extra_repr() + (f", {options}" if options else "")


class Activation(torch.nn.Module):
    """An activation by its name, by tilegrad's kernel.

    Args:
        activation: A name that `tilegrad.linear` knows, such as "gelu_tanh".
        options: Its options by name, such as `{"negative_slope": 0.1}`.

    Raises:
        ValueError: The activation or an option is unknown.

    Example:
        >>> Activation("relu")(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, activation: str, options: Mapping[str, float] | None = None) -> None:
        option_values(activation, options)  # or an error
        super().__init__()
        self.activation = activation
        self.options = options

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return f(input)."""
        return apply_activation(input, self.activation, self.options)

    def extra_repr(self) -> str:
        """Return the arguments to show in `repr`."""
        return repr(self.activation) + (f", {dict(self.options)}" if self.options else "")


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss by tilegrad's kernel; see `cross_entropy`."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits and targets."""
        return cross_entropy(
            input, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )


class FusedMLP(torch.nn.Sequential):
    """A multilayer perceptron that runs as one operator; see `fused_mlp`.

    Its layers are torch.nn.Linear modules named "0", "1", ...: a state dict of
    `tilegrad.nn.FusedMLP`, or of a torch.nn.Sequential of such layers alone, fits. The layers hold
    parameters only: they are not called, nor are hooks on them.

    Args:
        in_features: Size of each input sample.
        hidden_features: Size of every layer but the last one.
        out_features: Size of each output sample.
        layers: Number of linear layers, 1 to 16.
        activation: That of every layer but the last one.
        output_activation: That of the last layer.
        bias: Whether layers add a bias.
        activation_args: Options of the activation by name.
        output_activation_args: Options of the output activation by name.
        device: As in torch.
        dtype: As in torch: float32, float64 or bfloat16.

    Raises:
        ValueError: `layers` is out of range, or an activation or an option is unknown.

    Example:
        >>> FusedMLP(3, 64, 1, layers=4)(torch.zeros(5, 3)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        layers: int,
        activation: str | None = "relu",
        output_activation: str | None = None,
        bias: bool = True,
        *,
        activation_args: Mapping[str, float] | None = None,
        output_activation_args: Mapping[str, float] | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 1 <= layers <= 16:
            raise ValueError(f"FusedMLP: layers must be from 1 to 16; got {layers}")
        option_values(activation or "identity", activation_args)  # or an error
        option_values(output_activation or "identity", output_activation_args)
        sizes = [in_features, *[hidden_features] * (layers - 1), out_features]
        super().__init__(
            *(
                torch.nn.Linear(sizes[i], sizes[i + 1], bias, device=device, dtype=dtype)
                for i in range(layers)
            )
        )
        self.activation, self.activation_args = activation, activation_args
        self.output_activation = output_activation
        self.output_activation_args = output_activation_args

    def __getitem__(self, index: Any) -> Any:
        """Return a layer; of a slice a Sequential of layers, without their activations."""
        if isinstance(index, slice):
            return torch.nn.Sequential(*list(self)[index])
        return super().__getitem__(index)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return y (..., out_features) of `input` (..., in_features)."""
        layers: list[Any] = list(self)
        biases = [layer.bias for layer in layers]
        return fused_mlp(
            input,
            [layer.weight for layer in layers],
            None if biases[0] is None else biases,
            self.activation,
            self.output_activation,
            activation_args=self.activation_args,
            output_activation_args=self.output_activation_args,
        )
