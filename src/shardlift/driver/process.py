"""An engine's process: known by pid and start, found again after any restart of ours, ended with all it started.

Usually it is the one that `launch` started and noted. A person may have started the engine's program instead: then the
lock that it holds on the node's data tells. Taken for down it would be changed while it runs, its data moved away.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from filelock import FileLock

from shardlift.driver.holder import holder
from shardlift.driver.launch import start_mark
from shardlift.driver.layout import NodePaths, read_json
from shardlift.driver.protocol import ProcessSeen, Stopped
from shardlift.errors import DriverError

NODE_VARIABLE = "SHARDLIFT_NODE"
"""Environment variable of every engine process that names its node's folder."""

_KILL_TIMEOUT_S = 10
# To ask takes milliseconds; who holds the lock for longer hangs. filelock's Timeout is an OSError, and told like one.
_ASK_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class _Identity:
    """`noted`: `launch` started it, as the first of a session of its own. Else its session is whose it may be."""

    pid: int
    started_at_s: float
    mark: str
    noted: bool = True

    @property
    def alive(self) -> bool:
        return start_mark(self.pid) == self.mark


def _identity(run: Path) -> _Identity | None:
    data = read_json(run / "pid.json")
    try:
        return _Identity(int(data["pid"]), float(data["started_at_s"]), str(data["mark"]))
    except (KeyError, TypeError, ValueError):
        return None


def find(paths: NodePaths) -> ProcessSeen | None:
    """The node's living process, whoever started it. A zombie, and another process that got the same pid, are not it.

    Raises DriverError when one runs that cannot be told.
    """
    identity = _living(paths)
    return None if identity is None else ProcessSeen(identity.pid, identity.started_at_s)


def _living(paths: NodePaths) -> _Identity | None:
    noted = _identity(paths.run)
    if noted is not None and noted.alive:
        return noted
    pid = holder(paths.data)
    mark = None if pid is None else start_mark(pid)
    if pid is None or mark is None:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        return _Identity(pid, psutil.Process(pid).create_time(), mark, noted=False)
    return None


def end(paths: NodePaths, timeout_s: float) -> Stopped:
    """Ends the node's process and what it started (Elasticsearch 8 serves from a child). Nothing else is signalled.

    SIGTERM goes to each process once, also when an earlier call was cut short after it or another one runs beside this:
    a line in host.log says so, and looking for it and sending are one under a lock.
    """
    begun = time.monotonic()
    identity = _living(paths) or _identity(paths.run)
    with _Processes(_members(paths, identity)) as processes:
        # A pid may have gone to another process between finding it and holding it; held ones cannot.
        processes.keep(_members(paths, identity))
        if not processes.left:
            return Stopped(already=True, killed=False, took_s=0.0)
        asked = _leader_or_all(identity, processes)
        mark = identity.mark if identity is not None else None
        with FileLock(paths.root / "stop.lock", timeout=_ASK_TIMEOUT_S):
            if not paths.logged("stop", pid=asked[0], mark=mark):
                for pid in asked:
                    processes.signal(pid, signal.SIGTERM)
                paths.log("stop", pid=asked[0], mark=mark)
        processes.wait(timeout_s, asked)
        # An engine ends its own children before it ends itself. What outlives it was not told, so it is told here.
        if not set(asked) & set(processes.left):
            for pid in processes.left:
                processes.signal(pid, signal.SIGTERM)
        processes.wait(max(0.0, timeout_s - (time.monotonic() - begun)), processes.left)
        killed = bool(processes.left)
    # Once more, also when all ended in time: a child may have been started after we looked.
    with _Processes(_members(paths, identity)) as rest:
        for pid in rest.left:
            rest.signal(pid, signal.SIGKILL)
            paths.log("kill", pid=pid)
        rest.wait(_KILL_TIMEOUT_S, rest.left)
        if rest.left:
            raise DriverError(
                f"process {rest.left[0]} of {paths.root.name} is still there {_KILL_TIMEOUT_S} s after SIGKILL",
                remedy="it hangs in the kernel, most often on a dead disk or network mount; look at `ps -o stat,wchan`",
            )
    return Stopped(already=False, killed=killed, took_s=round(time.monotonic() - begun, 3))


def end_orphans(paths: NodePaths, timeout_s: float) -> None:
    """Ends what an engine's dead first process left behind, which would hold the node's data and ports."""
    identity = _identity(paths.run)
    if identity is not None and not identity.alive and _members(paths, identity):
        end(paths, timeout_s)


def _leader_or_all(identity: _Identity | None, processes: _Processes) -> tuple[int, ...]:
    """The engine's first process ends its children itself; where it is dead, they are asked one by one."""
    if identity is not None and identity.pid in processes.left:
        return (identity.pid,)
    return processes.left


def _members(paths: NodePaths, identity: _Identity | None) -> tuple[int, ...]:
    """Living processes of the engine's session, its first process (if alive) among them.

    The kernel gives no pid out anew while it is the id of a session, so a living first process vouches for the rest.
    Without one, the environment that we gave the engine does.
    """
    if identity is None:
        return ()
    if not identity.noted:
        return _family(identity)
    vouched = identity.alive
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) != identity.pid or start_mark(pid) is None:
                continue
        except (ProcessLookupError, PermissionError):
            continue
        if vouched or _belongs(pid, paths):
            found.append(pid)
    return tuple(found)


def _family(identity: _Identity) -> tuple[int, ...]:
    """An engine that somebody started, and what it has started itself."""
    if not identity.alive:
        return ()
    with contextlib.suppress(psutil.NoSuchProcess):
        return (identity.pid, *(child.pid for child in psutil.Process(identity.pid).children(recursive=True)))
    return ()


def _belongs(pid: int, paths: NodePaths) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).environ().get(NODE_VARIABLE) == str(paths.root)
    return False


class _Processes:
    """Handles on processes that stay right when a pid is reused. Without pidfds (not Linux), psutil's start times."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._fds: dict[int, int] = {}
        self._others: list[psutil.Process] = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if hasattr(os, "pidfd_open"):
                    self._fds[pid] = os.pidfd_open(pid)
                else:
                    self._others.append(psutil.Process(pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    @property
    def left(self) -> tuple[int, ...]:
        return (*self._fds, *(process.pid for process in self._others))

    def keep(self, pids: tuple[int, ...]) -> None:
        """Lets go of all but these."""
        for pid in set(self._fds) - set(pids):
            os.close(self._fds.pop(pid))
        self._others = [process for process in self._others if process.pid in pids]

    def signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if pid in self._fds:
                signal.pidfd_send_signal(self._fds[pid], number)
            for process in self._others:
                if process.pid == pid:
                    process.send_signal(number)

    def wait(self, timeout_s: float, pids: tuple[int, ...]) -> None:
        """Until these have ended (a zombie has) or the time is over; `left` then has all that live."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()
        waited = {self._fds[pid]: pid for pid in pids if pid in self._fds}
        for fd in waited:
            poll.register(fd, select.POLLIN)
        while waited and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1000):
                poll.unregister(fd)
                os.close(self._fds.pop(waited.pop(fd)))
        chosen = [process for process in self._others if process.pid in pids]
        if chosen:
            gone, _ = psutil.wait_procs(chosen, timeout=max(0.0, deadline - time.monotonic()))
            self._others = [process for process in self._others if process not in gone]
