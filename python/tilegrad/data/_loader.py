# SPDX-License-Identifier: MIT
"""Cut arrays into batches, in an order that a seed decides and a checkpoint can resume."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._arrays import check_arrays, take_rows
from ._random import WORD_LIMIT, check_int, check_seed, permutation
from ._transforms import Transform

_OP = "DataLoader"


class DataLoader:
    """Iterate over arrays in batches; one `for` loop is one epoch.

    Without shuffling the batches are views of the arrays. With shuffling they are C-contiguous
    copies, and the order follows from the seed and the number of the epoch alone; so do the random
    changes of a transform.

    `epoch` counts up when a loop has run to its end. A loop that was left early is given up: the
    next one starts a new epoch. Only `load_state_dict` goes on in the middle. Each loop has its
    own place, so loops may be nested; `epoch`, `position` and `state_dict` tell of the newest.

    Args:
        *arrays: NumPy arrays of one length, such as `x, y`, or one tuple of them.
        batch_size: Rows in a batch; the last batch of an epoch may be smaller.
        shuffle: Take the rows in a new random order in each epoch.
        seed: Decides the order. None draws a seed, which `seed` then tells.
        drop_last: Leave out a smaller last batch. Fewer rows than one batch then give no batch.
        transform: Changes the first array of each batch, such as `RandomShift(2)`. What it does
            to a row follows from the seed, the epoch and the row.

    Raises:
        TypeError: If an array is not a NumPy array or an option has the wrong type.
        ValueError: If lengths differ or an option is out of range.

    Example:
        >>> import numpy as np
        >>> from tilegrad import data
        >>> loader = data.DataLoader(np.arange(5), np.arange(5) * 10, batch_size=2)
        >>> [(x.tolist(), y.tolist()) for x, y in loader]
        [([0, 1], [0, 10]), ([2, 3], [20, 30]), ([4], [40])]
        >>> len(loader), loader.epoch
        (3, 1)
    """

    def __init__(
        self,
        *arrays: NDArray[Any] | tuple[NDArray[Any], ...],
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int | None = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
    ) -> None:
        """Keep references to the arrays; nothing is copied."""
        given: tuple[Any, ...] = arrays
        if len(arrays) == 1 and isinstance(arrays[0], tuple):
            given = arrays[0]
        self._samples = check_arrays(_OP, given)
        self._arrays: tuple[NDArray[Any], ...] = given
        self._batch_size = check_int(_OP, "batch_size", batch_size)
        if self._batch_size < 1:
            raise ValueError(f"{_OP}: batch_size must be at least 1; got {batch_size}")
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(flag, (bool, np.bool_)):
                raise TypeError(f"{_OP}: {name} must be True or False; got {flag!r}")
        if transform is not None and not isinstance(transform, Transform):
            raise TypeError(
                f"{_OP}: transform must be a Transform, such as data.RandomShift(2); got "
                f"{transform!r}"
            )
        self._transform = transform
        self._shuffle = bool(shuffle)
        self._drop_last = bool(drop_last)
        self._seed = check_seed(_OP, seed)
        self._epoch = 0
        self._position = 0
        self._resume = False
        self._newest: object = None
        self._num_shards, self._index = 1, 0
        self._batch_rows = 0

    def shard(self, num_shards: int, index: int) -> DataLoader:
        """Return a loader of every num_shards-th row of each batch, from row `index` on.

        So processes share out the batches of one loader: together they train on the same batches
        as one process, in the same order. Of a small last batch some may have no row. Length,
        `batch_size` and `state_dict` are those of the whole loader: any number of processes can go
        on from it.

        Args:
            num_shards: Number of processes.
            index: Number of this one, from 0.

        Raises:
            ValueError: If index is not in [0, num_shards), or this is a shard already.

        Example:
            >>> import numpy as np
            >>> from tilegrad import data
            >>> loader = data.DataLoader(np.arange(7), batch_size=4)
            >>> [x.tolist() for (x,) in loader.shard(2, 0)]
            [[0, 2], [4, 6]]
            >>> [x.tolist() for (x,) in loader.shard(2, 1)]
            [[1, 3], [5]]

        Source: datasets.Dataset.shard; torch.utils.data.DistributedSampler has the same rows where
            the number of processes divides the batch.
        """
        op = f"{_OP}.shard"
        num_shards = check_int(op, "num_shards", num_shards)
        index = check_int(op, "index", index)
        if not 0 <= index < num_shards:
            raise ValueError(f"{op}: index must be in [0, {num_shards}); got {index}")
        if self._num_shards > 1:
            raise ValueError(f"{op}: this loader is a shard already, {self!r}")
        part = copy.copy(self)
        part._num_shards, part._index, part._newest = num_shards, index, None
        return part

    @property
    def batch_rows(self) -> int:
        """Number of rows of the latest batch, with those of all shards; 0 before the first."""
        return self._batch_rows

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The arrays walked over: the ones given, not copies."""
        return self._arrays

    @property
    def samples(self) -> int:
        """Number of rows of each array."""
        return self._samples

    @property
    def batch_size(self) -> int:
        """Number of rows of a full batch."""
        return self._batch_size

    @property
    def seed(self) -> int:
        """Seed of the order."""
        return self._seed

    @property
    def transform(self) -> Transform | None:
        """What changes the first array of each batch."""
        return self._transform

    @property
    def epoch(self) -> int:
        """Number of the current epoch, from 0; after a whole loop that of the next one."""
        return self._epoch

    @property
    def position(self) -> int:
        """Number of batches handed out in the current epoch."""
        return self._position

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        if self._drop_last:
            return self._samples // self._batch_size
        return -(-self._samples // self._batch_size)

    def __repr__(self) -> str:
        """Describe options and place in a line."""
        transform = f", transform={self._transform!r}" if self._transform is not None else ""
        if self._num_shards > 1:
            transform += f", shard {self._index} of {self._num_shards}"
        return (
            f"DataLoader({self._samples} samples, batch_size={self._batch_size}, "
            f"shuffle={self._shuffle}, seed={self._seed}, drop_last={self._drop_last}{transform}; "
            f"epoch {self._epoch}, batch {self._position} of {len(self)})"
        )

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        """Yield a tuple of arrays for each batch of one epoch (or of what is left of it).

        Yields:
            One array `(rows, *array.shape[1:])` for each array given.
        """
        if self._position and not self._resume:
            self._epoch, self._position = self._epoch + 1, 0
        self._resume = False
        me = self._newest = object()
        epoch = self._epoch
        order = permutation(self._samples, self._seed, epoch) if self._shuffle else None
        for batch in range(self._position, len(self)):
            start = batch * self._batch_size
            end = min(start + self._batch_size, self._samples)
            self._batch_rows = end - start
            rows = slice(start + self._index, end, self._num_shards)
            # Counted before the batch is used: a checkpoint written after its training step,
            # inside the loop, must not repeat it.
            if self._newest is me:
                self._position = batch + 1
            if order is None:
                parts = tuple(array[rows] for array in self._arrays)
            else:
                parts = tuple(take_rows(array, order[rows]) for array in self._arrays)
            if self._transform is not None:
                taken = np.arange(self._samples)[rows] if order is None else order[rows]
                first = self._transform(parts[0], seed=self._seed, epoch=epoch, rows=taken)
                parts = (first, *parts[1:])
            yield parts
        if self._newest is me:
            self._epoch, self._position = self._epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Return what is needed to go on from here, as plain integers (fit for JSON).

        Written in the middle of a loop it stands behind the batch handed out last. Written behind
        the last batch but inside the loop, it resumes to a loop with no batch left.

        Returns:
            `seed`, `epoch`, `position` (batches handed out), and the options that the order
            depends on: `samples`, `batch_size`, `shuffle`, `drop_last`.

        Example:
            >>> import numpy as np
            >>> from tilegrad import data
            >>> loader = data.DataLoader(np.arange(6), batch_size=2, shuffle=True, seed=3)
            >>> all_batches = [x.tolist() for (x,) in loader]
            >>> fresh = data.DataLoader(np.arange(6), batch_size=2, shuffle=True, seed=3)
            >>> first = next(iter(fresh))
            >>> other = data.DataLoader(np.arange(6), batch_size=2, shuffle=True)
            >>> other.load_state_dict(fresh.state_dict())
            >>> [x.tolist() for (x,) in other] == all_batches[1:]
            True
        """
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            **self._options(),
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another loader stood: the next loop yields exactly the batches left there.

        In the middle of an epoch both loaders must have the same number of samples and the same
        options; the arrays and the transform are yours to give again. At the start of an epoch
        only seed and epoch are taken, so that training may go on with another batch size or more
        data.

        Args:
            state: What `state_dict` returned. On an error the loader stays as it was.

        Raises:
            TypeError: If the state is not a mapping or a value is not an integer.
            ValueError: If keys are missing or unknown, values out of range or options different.

        Example:
            >>> import numpy as np
            >>> from tilegrad import data
            >>> loader = data.DataLoader(np.arange(6), batch_size=2)
            >>> loader.load_state_dict({**loader.state_dict(), "epoch": 4, "position": 2})
            >>> [x.tolist() for (x,) in loader], loader.epoch
            ([[4, 5]], 5)
        """
        op = "DataLoader.load_state_dict"
        if not isinstance(state, Mapping):
            raise TypeError(f"{op}: state must be a dict; got {type(state).__name__}")
        expected = self.state_dict().keys()
        if set(state) != set(expected):
            raise ValueError(
                f"{op}: the keys must be {sorted(expected)}; got {sorted(map(str, state))}"
            )
        values = {name: check_int(op, name, value) for name, value in state.items()}
        seed = check_seed(op, values["seed"])
        epoch, position = values["epoch"], values["position"]
        # The last streams belong to train_test_split and k_fold.
        if not 0 <= epoch < WORD_LIMIT - 2:
            raise ValueError(f"{op}: epoch must be in [0, 2**64 - 2); got {epoch}")
        if position < 0:
            raise ValueError(f"{op}: position must not be negative; got {position}")
        if position > 0:
            for name, mine in self._options().items():
                if values[name] != mine:
                    raise ValueError(
                        f"{op}: in the middle of an epoch {name} must be equal; got "
                        f"{values[name]} for a loader with {mine}"
                    )
            if position > len(self):
                raise ValueError(
                    f"{op}: position must be at most {len(self)} batches; got {position}"
                )
        self._seed, self._epoch, self._position = seed, epoch, position
        self._resume = True
        self._newest = None

    def _options(self) -> dict[str, int]:
        """Return the options that decide which rows a batch holds."""
        return {
            "samples": self._samples,
            "batch_size": self._batch_size,
            "shuffle": int(self._shuffle),
            "drop_last": int(self._drop_last),
        }
