"""A clock that runs faster than the world's."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class FastClock:
    """Runs `speed` times as fast as real time: a sleep of `speed` seconds takes one."""

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
