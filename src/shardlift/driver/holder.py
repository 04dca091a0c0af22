"""Who runs an engine on a data folder, whoever started it: each engine holds a lock there for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path

from shardlift.errors import DriverError

# `nodes/0/node.lock` (NodeEnvironment of OpenSearch, and of Elasticsearch before 8), `node.lock` since Elasticsearch 8.
_LOCK, _NUMBERED = "node.lock", "nodes"
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


def holder(data: Path) -> int | None:
    """Pid of the process that holds the engine's lock on this data folder, None when nobody does.

    None, too, where the system is not Linux: others lay the answer out differently. Raises DriverError when the holder
    cannot be told, as when it runs in a container of its own, or when the folder cannot be read: to take a node for one
    that is down would be worse.
    """
    if sys.platform != "linux":
        return None
    try:
        return _holder(data)
    except OSError as error:
        raise DriverError(
            f"whether an engine runs on {data} cannot be told: {error.filename or data}: {error.strerror}",
            remedy="let the user that Shardlift runs as read the node's data folder, then retry",
        ) from error


def _holder(data: Path) -> int | None:
    for lock in _locks(data):
        pid = _holder_of(lock)
        if pid is None:
            continue
        if pid > 0:
            return pid
        raise DriverError(
            f"{lock} is held by a process that cannot be seen from here",
            remedy="an engine runs on this data, perhaps in a container: end it, then retry",
        )
    return None


def _locks(data: Path) -> list[Path]:
    try:
        with os.scandir(data / _NUMBERED) as found:
            numbered = sorted(Path(one.path) / _LOCK for one in found)
    except (FileNotFoundError, NotADirectoryError):
        numbered = []
    return [data / _LOCK, *numbered]


def _holder_of(lock: Path) -> int | None:
    """The kernel's answer to whether we could have the lock; nothing is locked by asking."""
    try:
        asked = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):  # none, or moved away this very moment
        return None
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(asked, fcntl.F_GETLK, question))
    finally:
        os.close(asked)
    return None if kind == fcntl.F_UNLCK else int(pid)
