# SPDX-License-Identifier: MIT
"""Memory of torch tensors as operands of tilegrad's functions, and results as tensors: no copies.

On the CPU a tensor is read as the NumPy array of its memory. On a GPU it goes through DLPack, and
the call runs on torch's current stream, so that streams, graphs and the caching allocator see it as
a kernel of torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from tilegrad import backends
from tilegrad._makers import host_dtype


def operand(tensor: torch.Tensor | None) -> Any:
    """Return what tilegrad's functions take for a tensor; it shares the tensor's memory."""
    if tensor is None:
        return None
    if tensor.requires_grad:
        tensor = tensor.detach()
    if not tensor.is_cpu:
        return tensor.contiguous()  # read by DLPack
    if tensor.dtype is torch.bfloat16:  # NumPy has no such type of its own
        return tensor.view(torch.int16).numpy().view(host_dtype("bfloat16"))
    return tensor.numpy()


def operands(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """Return `operand` of each tensor."""
    return [operand(tensor) for tensor in tensors]


def tensor(result: Any) -> torch.Tensor:
    """Return a function's result, an array or a scalar, as a tensor of the same memory."""
    if isinstance(result, np.generic):
        result = np.asarray(result)
    if not isinstance(result, np.ndarray):
        return torch.utils.dlpack.from_dlpack(result)
    if result.dtype.kind == "V":  # bfloat16
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)


def on_torch_stream(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Make a kernel of CUDA tensors run on torch's current stream of its first tensor's device."""

    def run(*args: Any) -> Any:
        first = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]
        place = first.device.index
        module = backends.at(place)
        theirs = torch.cuda.current_stream(place).cuda_stream
        before = module.current_stream(place)
        # The legacy default stream cannot be entered; DLPack orders the two streams there.
        if theirs != 0:
            module.set_stream(place, theirs)
        try:
            return kernel(*args)
        finally:
            module.set_stream(place, before)
            if theirs == 0:  # what was changed in place, too, is torch's only then
                external: Any = torch.cuda.ExternalStream
                torch.cuda.current_stream(place).wait_stream(external(before, device=place))

    return run
