# SPDX-License-Identifier: MIT
"""CUDA devices and streams.

Work is put on the current stream of the calling thread: at first one that all threads share and
that never waits for the legacy default stream. Nothing here calls the driver at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilegrad import backends


def is_available() -> bool:
    """Tell whether this build has the cuda backend and there is a device that it can use.

    Returns:
        False, without an exception, where anything is missing; ``tilegrad.info()`` says what.

    Example:
        >>> is_available() in (True, False)
        True
    """
    return backends._reason_missing("cuda") is None


def device_count() -> int:
    """Return the number of CUDA devices that can be used; 0 where there is none.

    Example:
        >>> device_count() >= 0
        True
    """
    return int(backends.at(0).device_count()) if is_available() else 0


def _place(device: str) -> int:
    place = backends.place_of(device)
    if place is None:
        raise ValueError("cuda: the cpu has no streams; pass cuda, cuda:N or sim")
    return place


class Stream:
    """A queue of work on a device: work on one stream runs in order, that of two side by side.

    Args:
        device: "cuda", "cuda:N", or "sim", where a stream runs everything at once.

    Raises:
        RuntimeError: The device cannot be used.

    Example:
        >>> import tilegrad as tg
        >>> s = Stream("sim")
        >>> with stream(s):
        ...     x = tg.ones(3, device="sim")
        >>> s.synchronize()
    """

    def __init__(self, device: str = "cuda") -> None:
        self._place = _place(device)
        self._module: Any = backends.at(self._place)
        self.handle: int = self._module.new_stream(self._place)  # the cudaStream_t, as an integer

    @property
    def device(self) -> str:
        """Name of the device."""
        return backends.place_name(self._place)

    def synchronize(self) -> None:
        """Wait until all work on this stream is done."""
        self._module.synchronize_stream(self._place, self.handle)

    def __del__(self) -> None:
        handle = self.__dict__.pop("handle", None)
        if handle is not None:
            self._module.delete_stream(self._place, handle)

    def __repr__(self) -> str:
        return f"Stream(device='{self.device}', handle={self.handle:#x})"


@contextmanager
def stream(s: Stream) -> Iterator[Stream]:
    """Make a stream the current one of this thread inside a ``with`` block.

    An array that is made on one stream and used on another must be ordered by the caller, as with
    torch: synchronise, or make it before. Its memory is not reused before both are done with it.
    The calls of one `TrainStep` keep their order on any streams: they share buffers.

    Args:
        s: The stream.

    Raises:
        TypeError: s is no Stream.
    """
    if not isinstance(s, Stream):
        raise TypeError(f"cuda.stream: takes a tilegrad.cuda.Stream; got {type(s).__name__}")
    module, place = s._module, s._place
    before = module.current_stream(place)
    module.set_stream(place, s.handle)
    try:
        yield s
    finally:
        module.set_stream(place, before)


def current_stream(device: str = "cuda") -> int:
    """Return the cudaStream_t, as an integer, on which this thread puts work for a device."""
    place = _place(device)
    return int(backends.at(place).current_stream(place))


def synchronize(device: str = "cuda") -> None:
    """Wait until all work on a device is done.

    Example:
        >>> synchronize("sim")
    """
    place = _place(device)
    backends.at(place).synchronize(place)


def properties(device: str = "cuda") -> dict[str, Any]:
    """Describe a device.

    Returns:
        A dict of `compute_capability`, `multiprocessors`, `shared_memory_per_block`, `free_memory`
        and `total_memory`; sizes in bytes.

    Example:
        >>> properties("sim")["compute_capability"]
        (9, 0)
    """
    place = _place(device)
    result: dict[str, Any] = backends.at(place).properties(place)
    return result
