"""Files that neither a crash nor a second process can spoil."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

PathLike = str | os.PathLike[str]


def write_atomically(path: PathLike, data: bytes) -> None:
    """Write a file so that other programs, and we after a crash, see all of it or the old one.

    A symbolic link is followed. Without success nothing is left behind.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "no such folder", folder)
    temporary = os.path.join(folder, f"{_beginning(name)}{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _beginning(name: str) -> str:
    """Of the temporary files of a file."""
    return f".{name[:100]}."


def remove_temporaries(path: PathLike) -> None:
    """Remove what killed processes have left of `path`; nobody must be writing it now."""
    folder, name = os.path.split(os.path.realpath(path))
    for found in os.listdir(folder):
        if found.startswith(_beginning(name)) and found.endswith(".tmp"):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, found))


def _sync_folder(folder: str) -> None:
    """Bring the new name of a file to the disk, where the system knows how."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some file systems cannot; the file itself is complete.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


class Lock:
    """A file that one holder at a time has; the system takes it from a process that is killed.

    Windows knows no flock: there nobody is refused.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = os.fspath(path)
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take it, or raise BlockingIOError where it is taken, be it by this object."""
        if self._handle is not None:
            raise BlockingIOError(errno.EWOULDBLOCK, "taken", self.path)
        while sys.platform != "win32" and self._handle is None:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    # Else its last holder has removed the file that we have locked.
                    if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                        self._handle = handle
            finally:
                if self._handle is None:
                    os.close(handle)

    def release(self) -> None:
        """Give it back and remove the file; nothing happens where it is not held."""
        if self._handle is not None:
            with suppress(OSError):
                os.unlink(self.path)
            os.close(self._handle)
            self._handle = None
