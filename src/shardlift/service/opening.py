"""Opening the service on a home."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shardlift.backend import Backend
from shardlift.clock import Clock, SystemClock
from shardlift.errors import UsageError
from shardlift.service.service import Service
from shardlift.settings import Settings
from shardlift.store import open_database


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    backend: Backend | None = None,
    clock: Clock | None = None,
    role: str = "cli",
    alone: bool = False,
) -> AsyncIterator[Service]:
    """The service on the home that the settings name; the home is made when it is missing.

    `role` begins the name under which leases are held: `serve` for the one server of a home. `alone`: the home lies in
    memory, and no other process uses it.
    """
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"SHARDLIFT_HOME {home} cannot be made: {error.strerror}",
            field="SHARDLIFT_HOME",
            value=str(home),
            remedy="name a folder that you may write to",
        ) from None
    owner = f"{role}:{socket.gethostname()}:{os.getpid()}"
    async with open_database(settings.database_path, alone=alone) as database:
        service = Service(database, backend or _usual(settings), settings, clock or SystemClock(), owner)
        await service.keys.open()
        try:
            yield service
        finally:
            await service.keys.settle()


def _usual(settings: Settings) -> Backend:
    # Imported here because most commands need neither real engines nor simulated ones.
    from shardlift.backends import open_backend  # noqa: PLC0415

    return open_backend(settings)
