# SPDX-License-Identifier: MIT
"""Module and Parameter: what every layer, container and loss is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tilegrad import backends
from tilegrad.array import Array as DeviceArray
from tilegrad.array import asarray, zeros_like

if TYPE_CHECKING:
    from tilegrad._train import Recorder

Array: TypeAlias = NDArray[Any]
GradReadyHook: TypeAlias = "Callable[[Parameter], None]"
RecordedBackward: TypeAlias = Callable[[Array, bool], "Array | None"]


class Parameter:
    """Hold a trained array and its gradient in buffers that never move.

    Assigning to ``data`` copies into the existing buffer, and ``zero_grad`` keeps the gradient's
    buffer for the next backward pass: optimisers, recorded training steps and gradient buckets
    rely on the addresses.

    Args:
        data: Initial values, float32 or float64, of any shape; they are copied.
        requires_grad: False freezes the parameter: no gradient is computed for it.

    Raises:
        TypeError: ``data`` is not a float32 or float64 array.

    Example:
        >>> p = Parameter(np.zeros(3, np.float32))
        >>> p.data = np.ones(3, np.float32)
        >>> p.data.sum(), p.grad is None
        (np.float32(3.0), True)
    """

    __slots__ = ("__weakref__", "_data", "_filled", "_grad", "grad_ready", "requires_grad")

    def __init__(self, data: Array, requires_grad: bool = True) -> None:
        if isinstance(data, DeviceArray):
            values: Any = data.copy()
        else:
            values = np.array(data, order="C", copy=True)
        is_array = isinstance(data, (np.ndarray, DeviceArray))
        if values.dtype not in (np.float32, np.float64) or not is_array:
            raise TypeError(
                f"Parameter: data must be a float32 or float64 array; got {type(data).__name__} "
                f"of {values.dtype} (call np.asarray with a dtype)"
            )
        self._data: Array = values
        self._grad: Array | None = None  # the buffer, once there was a gradient
        self._filled = False
        self.requires_grad = requires_grad
        self.grad_ready: GradReadyHook | None = None

    @property
    def data(self) -> Array:
        """The values; assigning copies into the buffer (same shape and dtype)."""
        return self._data

    @data.setter
    def data(self, value: Array) -> None:
        _copy_into(self._data, value, "Parameter.data")

    @property
    def grad(self) -> Array | None:
        """The accumulated gradient, or None where there is none; assigning copies."""
        return self._grad if self._filled else None

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if value is not None:
            _copy_into(self.grad_buffer(), value, "Parameter.grad")
        self._filled = value is not None

    def zero_grad(self) -> None:
        """Forget the gradient, as ``grad = None``; the buffer is kept."""
        self._filled = False

    def grad_buffer(self) -> Array:
        """Return the gradient's memory whether or not it holds a gradient now."""
        if self._grad is None:
            self._grad = zeros_like(self._data)
        return self._grad

    def to(self, device: str) -> Parameter:
        """Move the values and the gradient to a device; return self.

        On another device they have new buffers; recorded training steps notice that.
        """
        if backends.place_of(device) != backends.place_of_array(self._data):
            self._data = asarray(self._data, device=device)
            if self._grad is not None:
                self._grad = asarray(self._grad, device=device)
        return self

    @property
    def device(self) -> str:
        """Name of the device that the values are on."""
        return backends.place_name(backends.place_of_array(self._data))

    def mark_grad(self) -> None:
        """Say that the buffer now holds a complete gradient; call the ``grad_ready`` hook."""
        self._filled = True
        if self.grad_ready is not None:
            self.grad_ready(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the values."""
        return self._data.dtype

    @property
    def size(self) -> int:
        """Number of values."""
        return self._data.size

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", requires_grad=False"
        return f"Parameter(shape={self.shape}, dtype={self.dtype}{frozen})"


class Module:
    """Base of layers, containers and losses.

    A subclass defines ``forward(input)`` and ``backward(grad_output, input_grad=True)``; assigning
    a Parameter or a Module to an attribute registers it. Modules are called, never ``forward``
    directly, so that using one module twice in one forward pass is noticed: it could keep the
    operands of one use only, and is refused in training mode.

    A training-mode forward keeps what the backward pass needs; the input is kept by reference, so
    it must not be changed in between. A second backward, or one after an eval-mode forward, is a
    RuntimeError.
    """

    training: bool

    def __init__(self) -> None:
        self.__dict__["_parameters"] = {}
        self.__dict__["_modules"] = {}
        self.__dict__["_saved"] = None
        self.__dict__["training"] = True

    # ---- to be defined by a subclass --------------------------------------------------------

    def forward(self, *args: Any) -> Any:
        """Compute the module's output."""
        raise TypeError(f"{type(self).__name__}: the class does not define forward")

    def backward(self, grad_output: Any, input_grad: bool = True) -> Any:
        """Add to every ``.grad``; return the gradient of the input, or None if not asked.

        Args:
            grad_output: dL/d(output), of the output's shape and dtype.
            input_grad: False saves the work where nobody needs the input's gradient.
        """
        raise TypeError(f"{type(self).__name__}: the class does not define backward")

    def _record(self, recorder: Recorder, x: Array) -> tuple[Array, RecordedBackward]:
        """Record the forward pass for TrainStep; return its output buffer and its backward."""
        raise TypeError(
            f"TrainStep: {type(self).__name__} has no plan; it works in the long form "
            "(forward, loss, backward, step)"
        )

    # ---- calling and saved state ------------------------------------------------------------

    def __call__(self, *args: Any) -> Any:
        """Run ``forward``."""
        visited = _forward_pass.visited
        if visited is None:
            _forward_pass.visited = {id(self)}
            try:
                return self.forward(*args)
            finally:
                _forward_pass.visited = None
        if self.training and id(self) in visited:
            raise RuntimeError(
                f"{type(self).__name__}: used twice in one forward pass; make a second module (a "
                "module keeps the operands of one use for its backward pass)"
            )
        visited.add(id(self))
        return self.forward(*args)

    def _save(self, *values: Any) -> None:
        """Keep operands for backward in training mode; forget older ones in eval mode."""
        self.__dict__["_saved"] = values if self.training else None

    def _take_saved(self) -> tuple[Any, ...]:
        saved: tuple[Any, ...] | None = self.__dict__["_saved"]
        if saved is None:
            raise RuntimeError(
                f"{type(self).__name__}.backward: there is no training-mode forward to go back "
                "through (a second backward, or the last forward ran in eval mode)"
            )
        self.__dict__["_saved"] = None
        return saved

    # ---- registration -----------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}: call super().__init__() first")
        if name in self._parameters and not isinstance(value, Parameter) and value is not None:
            raise TypeError(
                f"{type(self).__name__}: {name} is a Parameter; assign the array to its .data "
                f"(got {type(value).__name__})"
            )
        self._parameters.pop(name, None)
        self._modules.pop(name, None)
        if isinstance(value, Parameter):
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._modules[name] = value
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        self._parameters.pop(name, None)
        self._modules.pop(name, None)
        object.__delattr__(self, name)

    if TYPE_CHECKING:
        _parameters: dict[str, Parameter]
        _modules: dict[str, Module]

    def children(self) -> Iterator[Module]:
        """Yield the modules directly inside this one."""
        yield from self._modules.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all inside it, each once."""
        seen: set[int] = set()
        stack = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            stack += [
                (f"{name}.{child}" if name else child, inner)
                for child, inner in reversed(module._modules.items())
            ]

    def modules(self) -> Iterator[Module]:
        """Yield this module and all inside it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter) in order of registration, each parameter once."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield (f"{prefix}.{name}" if prefix else name), parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield every parameter once."""
        for _, parameter in self.named_parameters():
            yield parameter

    # ---- modes, gradients, device -----------------------------------------------------------

    def train(self, mode: bool = True) -> Module:
        """Set training mode for this module and all inside it; return self."""
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self) -> Module:
        """Set evaluation mode: no operands are kept, dropout is the identity; return self."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set every ``.grad`` to None; the buffers are kept."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Freeze (False) or thaw every parameter; return self."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def register_grad_ready_hook(self, hook: GradReadyHook) -> Callable[[], None]:
        """Call ``hook(parameter)`` during backward as soon as that gradient is complete.

        Data-parallel training overlaps communication with the rest of the backward pass by it.

        Args:
            hook: Called once for each parameter in each backward pass of the long form.

        Returns:
            A function that removes the hook.
        """
        parameters = list(self.parameters())
        for parameter in parameters:
            parameter.grad_ready = hook

        def remove() -> None:
            for parameter in parameters:
                parameter.grad_ready = None

        return remove

    def to(self, device: str) -> Module:
        """Move every parameter to a device, in place; return self.

        Each Parameter stays the object that it is; an optimiser's buffers follow at its next step.

        Args:
            device: "cpu", "sim", "cuda" or "cuda:N".

        Raises:
            TypeError: device is no string.
            RuntimeError: The device cannot be used; the text says why.
        """
        backends.place_of(device)
        for parameter in self.parameters():
            parameter.to(device)
        for module in self.modules():
            module.__dict__["_saved"] = None
            module._move(device)
        return self

    def _move(self, device: str) -> None:
        """Move what a module keeps besides its parameters."""

    # ---- state ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Return {dotted name: array}; the arrays are the parameters' own memory, not copies."""
        return {name: parameter.data for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy arrays into the parameters; nothing is changed if any of them does not fit.

        Args:
            state: {dotted name: array}, as ``state_dict`` gives it.
            strict: Refuse missing and unexpected names; else skip them.

        Raises:
            ValueError: Names or shapes do not match.
            TypeError: A dtype does not match.
        """
        own = dict(self.named_parameters())
        missing = sorted(own.keys() - state.keys())
        unexpected = sorted(state.keys() - own.keys())
        if strict and (missing or unexpected):
            raise ValueError(
                f"load_state_dict: names differ; missing {missing}, unexpected {unexpected}"
            )
        pairs = [(own[name], state[name], name) for name in own if name in state]
        for parameter, value, name in pairs:
            _check_like(parameter.data, value, f"load_state_dict: {name}")
        for parameter, value, _ in pairs:
            parameter.data = value

    def predict(self, x: Array, batch_size: int | None = None) -> Array:
        """Run the forward pass in eval mode, in batches; the mode is restored afterwards.

        Args:
            x: Inputs, samples along the first axis.
            batch_size: Samples at a time; None runs them all at once.

        Returns:
            The outputs of all samples: a NumPy array if x is one, whatever device the model is on.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"predict: batch_size must be at least 1; got {batch_size}")
        place = backends.place_of_array(next((p.data for p in self.parameters()), None))
        moved = place is not None and isinstance(x, np.ndarray)

        def run(part: Any) -> Any:
            if not moved:
                return self(part)
            return self(asarray(part, device=backends.place_name(place))).numpy()

        modes = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            if batch_size is None or len(x) <= batch_size:
                result: Array = run(x)
                return result
            pieces = [run(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
            if not isinstance(pieces[0], np.ndarray):
                host = np.concatenate([piece.numpy() for piece in pieces])
                return asarray(host, device=pieces[0].device)  # type: ignore[no-any-return]
            return np.concatenate(pieces)
        finally:
            for module, mode in modes:
                module.__dict__["training"] = mode

    def extra_repr(self) -> str:
        """Return the arguments to show in ``repr``."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"({name}): {module!r}".replace("\n", "\n  ") for name, module in self._modules.items()
        ]
        inside = "\n  " + "\n  ".join(lines) + "\n" if lines else self.extra_repr()
        return f"{type(self).__name__}({inside})"


class _ForwardPass(threading.local):
    visited: set[int] | None = None


_forward_pass = _ForwardPass()


def _check_like(buffer: Array, value: ArrayLike, what: str) -> None:
    array: Any = value if isinstance(value, DeviceArray) else np.asarray(value)
    if array.shape != buffer.shape:
        raise ValueError(f"{what}: shape must be {buffer.shape}; got {array.shape}")
    if array.dtype != buffer.dtype:
        raise TypeError(f"{what}: dtype must be {buffer.dtype}; got {array.dtype} (call astype)")


def _copy_into(buffer: Array, value: Array, what: str) -> None:
    _check_like(buffer, value, what)
    if isinstance(buffer, DeviceArray):
        buffer._assign(value)
    elif isinstance(value, DeviceArray):
        np.copyto(buffer, value.numpy())
    else:
        np.copyto(buffer, value)
