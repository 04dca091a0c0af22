"""Time, so that tests and the simulator can bring their own."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time for the journal, elapsed time for bounds, and a way to let time pass."""

    def now(self) -> datetime:
        """UTC, with zone."""

    def elapsed_s(self) -> float:
        """Seconds that only grow, also while the machine sleeps: leases are given up by it."""

    async def sleep(self, seconds: float) -> None:
        """Lets others work for so long."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        # CLOCK_MONOTONIC stands still in a suspended machine, and a lease must not.
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
