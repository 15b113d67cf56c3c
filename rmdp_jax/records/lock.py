"""A folder is one process's: a lock that the system takes back when its process ends, however it ends."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmdp_jax.errors import ConfigError
from rmdp_jax.records.files import reason_of, warn, writing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class Locked(ConfigError):
    """Another process, or another call in this one, has the folder."""


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Have `folder`, which is made, for as long as the context lasts.

    Args:
        folder: of a run, or of a sweep.
        wait: until the other process is done with it, instead of refusing.

    Warns:
        RunWarning: the file system knows no locks, so nobody can tell.

    Raises:
        Locked: somebody else has it, who is named.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(folder, file, wait)
        yield
    finally:
        os.close(file)  # gives the lock back; the file stays, as another process may have opened it already


def _lock(folder: Path, file: int, wait: bool) -> None:
    if fcntl is None:
        return _warn(folder, "this system has none")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        os.ftruncate(file, 0)
        os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        who = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
        raise Locked(f"out = {folder}: {who} is at it; wait for its end, or choose another folder") from None
    except OSError as error:  # some network file systems; or no room for the name
        _warn(folder, reason_of(error))


def _warn(folder: Path, reason: str) -> None:
    warn(f"{folder}: cannot be locked ({reason}); see to it that no other process writes there")
