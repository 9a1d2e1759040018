# SPDX-License-Identifier: MIT
"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, TypeAlias

if sys.platform != "win32":
    import fcntl

Path: TypeAlias = "str | os.PathLike[str]"


def write_whole(path: Path, content: bytes, op: str) -> None:
    """Put content in the place of a file, in one step.

    It is written under another name in the same folder, synced and renamed: at any moment, power
    cuts included, the file is the whole old one or the whole new one. A link stays a link, a file
    keeps its mode, a new one has what the umask leaves. What a writer of the same file left when
    it was killed is taken away. A device or a pipe, such as /dev/stdout, is written to directly.

    Args:
        path: The file; its folder must exist.
        content: All of it.
        op: Name for the error text.

    Raises:
        OSError: It cannot be written; it names the file, which is as it was.
    """
    path = os.fspath(path)
    with _named(path):
        mode = _mode(path)
        if mode is not None and stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "wb") as device:
                device.write(content)
            return
        target = os.path.realpath(path)  # a link stays a link
        folder, name = os.path.split(target)
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, f"{op}: there is no such folder", folder)
        prefix = f".tilegrad-{zlib.crc32(os.fsencode(name)):08x}-"
        _remove_left(folder, prefix)
        temporary, file = _create(folder, prefix)
        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if mode is not None:
                    os.chmod(temporary, stat.S_IMODE(mode))
                if sys.platform == "win32":  # which renames no open file
                    file.close()
                os.replace(temporary, target)  # while its lock is held
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if hasattr(os, "O_DIRECTORY"):  # the new name must outlast a power cut as well
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def write_figure(path: Path, figure: Any, op: str) -> None:
    """Put a figure in the place of a file; the ending chooses the format, as in ``savefig``.

    Args:
        path: The file.
        figure: A matplotlib Figure.
        op: Name for the error text.

    Raises:
        OSError: It cannot be written; the old one is as it was.
        ValueError: No such format.
    """
    ending = os.path.splitext(os.fspath(path))[1][1:]
    if not ending:
        from matplotlib import rcParams

        ending = rcParams["savefig.format"]
        path = f"{os.fspath(path)}.{ending}"
    drawn = BytesIO()
    figure.savefig(drawn, format=ending)
    write_whole(path, drawn.getvalue(), op)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Let an error of a write, which has no name, bear that of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None or os.path.basename(error.filename).startswith(".tilegrad-"):
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _create(folder: str, prefix: str) -> tuple[str, BinaryIO]:
    """Open a new file; while it is open, its lock says that its writer lives."""
    while True:
        temporary = os.path.join(folder, f"{prefix}{secrets.token_hex(8)}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115
        if _lock(file.fileno()) is not False and os.path.exists(temporary):
            return temporary, file
        file.close()  # another writer was quicker to look than this one to lock, and removes it


def _remove_left(folder: str, prefix: str) -> None:
    """Remove what writers left that were killed: files that nobody has locked."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if not (name.startswith(prefix) and name.endswith(".tmp")):
                continue
            left = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                descriptor = os.open(left, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if _lock(descriptor):
                        os.unlink(left)
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock a file for this writer; False where another holds it, None where there are no locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
