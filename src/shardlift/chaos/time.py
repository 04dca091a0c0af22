"""Virtual time: an event loop in which waiting takes none, and the clocks that go with it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

_ROUNDS_MAX = 100_000

EPOCH = datetime(2026, 1, 5, 2, 0, tzinfo=UTC)


class DeadlockError(AssertionError):
    """Everybody waits, and for nothing that has a time: with a real loop the program would hang for ever."""


class _Jump(selectors.SelectSelector):
    """Where the loop would wait for a time, the time comes at once. There are no sockets to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise DeadlockError("nothing is ready, and nobody waits for a time")
        self._rounds = 0 if timeout > 0 else self._rounds + 1
        if self._rounds > _ROUNDS_MAX:
            raise DeadlockError("the tasks wake each other up for ever, and no time passes")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 s. Nothing else than its own tasks may run in it: no threads, no sockets."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s


class VirtualClock:
    """The clocks of one machine. `jump_s` sets its wall clock ahead (or back); elapsed time is not touched by it."""

    def __init__(self) -> None:
        self.jump_s = 0.0

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.elapsed_s() + self.jump_s)

    def elapsed_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Runs the coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
