# SPDX-License-Identifier: MIT
"""Data-parallel training on several processes and machines, over torch.distributed.

Every process ("rank") holds the whole model and takes every so many-th row of each batch. The
gradients are summed while the backward pass still runs, so that all ranks make the update that one
process would make on the whole batch. gloo carries the CPU's arrays, NCCL those of a GPU.

Import it explicitly, and start the script by torchrun. `import tilegrad` alone never loads PyTorch.
"""

try:
    import torch.distributed as _torch_distributed
except ImportError as error:
    raise ImportError(
        "tilegrad.distributed: needs PyTorch; install it with: pip install 'tilegrad[torch]'"
    ) from error
if not _torch_distributed.is_available():
    raise ImportError("tilegrad.distributed: this build of PyTorch comes without torch.distributed")

from ._group import (
    LostRankError,
    Traffic,
    destroy_process_group,
    get_rank,
    get_traffic,
    get_world_size,
    init_process_group,
    is_initialized,
)
from ._step import DistributedTrainStep

__all__ = [
    "DistributedTrainStep",
    "LostRankError",
    "Traffic",
    "destroy_process_group",
    "get_rank",
    "get_traffic",
    "get_world_size",
    "init_process_group",
    "is_initialized",
]
