"""Private files: made whole and durable or not at all, read only where nobody else may, and a folder's lock.

Knows nothing of what stands in them. Every error of the file system becomes one line with the path and what to do.
"""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import NoReturn

from peers.errors import AlreadyRunning, DiskFull, HomeError, PeersError

FILE_BYTES_MAX = 64 * 1024
"""A key file or certificate is under 5 KiB: a larger one is something else."""


def read_private(path: Path) -> bytes:
    """The bytes of a file that nobody else may read. Raises HomeError with the exact reason."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                refuse("home_not_file", f"{path} is not a file: put the file back from a backup")
            if mode & 0o077:
                refuse("home_mode", f"others may read {path}: run `chmod 600 {path}`")
            return os.read(handle, FILE_BYTES_MAX)
        finally:
            os.close(handle)
    except OSError as error:
        raise_os(path, error)


def write_new(path: Path, data: bytes) -> None:
    """Make a 0600 file that is whole and durable when its name appears. The caller holds the folder's lock.

    Raises:
        DiskFull, HomeError: there is no file of that name, nor a part of one.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.unlink(missing_ok=True)  # of a process that was killed here
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            draft.rename(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise_os(path, error)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderLock:
    """An flock, which the kernel drops with the process: a file left behind locks nothing. The pid stands inside."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise_os(path, error)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line = f"{os.getpid()}\n".encode()
            os.write(handle, line)
            if os.fstat(handle).st_size > len(line):
                os.ftruncate(handle, len(line))  # costs milliseconds on ext4, so only where it is needed
        except BlockingIOError:
            pid = os.read(handle, 20).decode("ascii", "replace").partition("\n")[0].strip() or "unknown"
            os.close(handle)
            raise AlreadyRunning(f"{path.parent} is open in another process (pid {pid}): stop it first") from None
        except OSError as error:
            os.close(handle)
            raise_os(path, error)
        self._handle: int | None = handle

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def refuse(code: str, message: str) -> NoReturn:
    raise HomeError(message, code=code)


def raise_os(path: Path, error: OSError) -> NoReturn:
    """An error of the file system as one line with the path and what to do."""
    refused: PeersError
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            refused = DiskFull(f"no space for {path}: free some and try again")
        case errno.ELOOP:
            refused = HomeError(f"{path} is a link: put the file itself there", code="home_link")
        case errno.ENOENT:
            refused = HomeError(f"{path} is missing: put it back from a backup", code="home_file_missing")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            refused = HomeError(f"no permission for {path}: run `chmod u+rwX {path}`", code="home_permission")
        case _:
            refused = HomeError(f"{path}: {error.strerror}")
    raise refused from error
