"""Control planes as processes: each can be killed at any moment, frozen and thawed, like a program by its kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from shardlift.backend import Backend
from shardlift.chaos.time import VirtualClock
from shardlift.runner import Runner
from shardlift.service import Service
from shardlift.settings import Settings
from shardlift.store.database import connect
from shardlift.store.inline import InlineConnection

_current: ContextVar[Process | None] = ContextVar("process", default=None)


class KilledError(BaseException):
    """What kill -9 looks like from inside: nothing on the way catches it, and no door opens any more."""


class Process:
    """One `serve`: service and runner on the shared database file.

    `points` counts the moments at which a crash makes a difference: after each commit, and on both sides of each change
    of cluster or host. At the point numbered `kill_at` the process dies.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        backend: Callable[[Process], Backend],
        *,
        settings: Settings,
        clock: VirtualClock,
        kill_at: int | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.points = 0
        self.kill_at = kill_at
        self.dead = asyncio.Event()
        self.last_point = ""
        self._frozen: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._connections: list[InlineConnection] = []
        self._path = path
        self._database = connect(path, self._open)
        self.service = Service(self._database, backend(self), settings, clock, name)
        self._settings = settings

    @property
    def alive(self) -> bool:
        return not self.dead.is_set()

    def start(self, *, reap: str | None = None) -> None:
        """Begins to look for work. `reap`: the prefix of owners known to be dead, as the home's lock proves."""
        before = _current.set(self)
        try:
            asyncio.create_task(self._run(reap))  # noqa: RUF006  (kept by the loop's task factory)
        finally:
            _current.reset(before)

    async def _run(self, reap: str | None) -> None:
        if reap is not None:
            await self.service.leases.reap(reap)
        service = self.service
        runner = Runner(
            service.store, service.leases, backend=service.backend, settings=self._settings, clock=self.clock
        )
        await runner.run()

    def kill(self) -> None:
        """kill -9: open transactions are rolled back, and nothing of this process runs on."""
        if self.dead.is_set():
            return
        self.dead.set()
        self.thaw()
        for connection in self._connections:
            connection.drop()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def freeze(self) -> None:
        """SIGSTOP: whatever waits goes on waiting, also when its time has come."""
        if self._frozen is None and self.alive:
            self._frozen = asyncio.get_running_loop().create_future()

    def thaw(self) -> None:
        """SIGCONT."""
        frozen, self._frozen = self._frozen, None
        if frozen is not None and not frozen.done():
            frozen.set_result(None)

    def point(self, what: str) -> None:
        """One of the moments that count. Raises KilledError when it is the last one, or the process is dead."""
        if self.dead.is_set():
            raise KilledError
        self.points += 1
        self.last_point = what
        if self.points == self.kill_at:
            self.kill()
            raise KilledError

    async def closed(self) -> None:
        """Ends what is left of the process, at the end of a trial."""
        self.kill()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(BaseException):
            await self._database.close()

    # what database connections ask

    def before(self) -> None:
        if self.dead.is_set():
            raise KilledError

    def committed(self) -> None:
        self.point("commit")

    def _open(self) -> InlineConnection:
        connection = InlineConnection(self._path, self)
        self._connections.append(connection)
        return connection

    # what the loop's task factory asks

    def adopt(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def thawed(self) -> asyncio.Future[None] | None:
        return self._frozen


class _Stoppable(Coroutine[Any, Any, Any]):
    """A coroutine whose every step waits while its process is frozen."""

    def __init__(self, inner: Coroutine[Any, Any, Any], process: Process) -> None:
        self._inner = inner
        self._process = process
        self._held: Callable[[], Any] | None = None

    def send(self, value: Any) -> Any:
        step = self._held or (lambda: self._inner.send(value))
        return self._step(step)

    def throw(self, *error: Any) -> Any:
        return self._step(lambda: self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def _step(self, step: Callable[[], Any]) -> Any:
        frozen = self._process.thawed
        if frozen is None:
            self._held = None
            return step()
        self._held = step
        return next(iter(frozen))  # waits for the thaw the way `await` would, then comes back here


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
    """Tasks belong to the process in whose tasks they were made, and stop with it."""
    process = _current.get()
    if process is None:
        return asyncio.Task(coro, loop=loop, **more)
    task = asyncio.Task(_Stoppable(coro, process), loop=loop, **more)
    process.adopt(task)
    return task
