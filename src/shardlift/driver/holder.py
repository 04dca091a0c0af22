"""Who runs an engine on a data folder, whoever started it: each engine holds a lock there for as long as it lives."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path

from shardlift.errors import DriverError

# `nodes/0/node.lock` (NodeEnvironment of OpenSearch, and of Elasticsearch before 8), `node.lock` since Elasticsearch 8.
_LOCKS = ("node.lock", "nodes/*/node.lock")
# struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi4x")


def holder(data: Path) -> int | None:
    """Pid of the process that holds the engine's lock on this data folder, None when nobody does.

    None, too, where the system is not Linux: others lay the answer out differently. Raises DriverError when the holder
    cannot be told, as when it runs in a container of its own.
    """
    if sys.platform != "linux":
        return None
    for lock in (found for pattern in _LOCKS for found in data.glob(pattern)):
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


def _holder_of(lock: Path) -> int | None:
    """The kernel's answer to whether we could have the lock; nothing is locked by asking."""
    try:
        asked = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # moved away this very moment
        return None
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(asked, fcntl.F_GETLK, question))
    finally:
        os.close(asked)
    return None if kind == fcntl.F_UNLCK else int(pid)
