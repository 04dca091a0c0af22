"""Clocks that run faster than the world's."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class FastClock:
    """Runs `speed` times as fast as real time: a sleep of `speed` seconds takes one. Its wall time runs ahead, too."""

    def __init__(self, speed: float = 1000) -> None:
        self._speed = speed
        self._start_s = time.monotonic()
        self._epoch = datetime.now(UTC)

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self.elapsed_s())

    def elapsed_s(self) -> float:
        return (time.monotonic() - self._start_s) * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


class ClusterClock:
    """The time of one simulated cluster: sleeps and elapsed time run `speed` times as fast, wall time is true.

    Elapsed time counts from the moment `born_s` (seconds since the epoch), so that it goes on while no process looks,
    and all processes agree on it. Once made, a clock goes by monotonic time: it does not jump when the wall clock does.
    """

    def __init__(self, born_s: float, speed: float) -> None:
        self.born_s = born_s
        self.speed = speed
        self._before_s = max(time.time() - born_s, 0)
        self._start_s = time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        return (self._before_s + time.monotonic() - self._start_s) * self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)
