"""The real service with the API in front of it, and a clock that a test moves: for keys, tenants and audit."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from shardlift.api import create_app
from shardlift.api.signing import sign
from shardlift.backends import open_backend
from shardlift.service import Service
from shardlift.service.requests import Credentials
from shardlift.settings import Settings
from shardlift.store.database import connect, migrate

BASE = "http://shardlift.test"


class HandClock:
    """Stands still until it is moved; both of its readings move together."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def elapsed_s(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.forward(seconds)

    def forward(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Door:
    """`call` signs as `who`, or sends its token."""

    service: Service
    app: FastAPI
    clock: HandClock

    async def call(
        self,
        who: Credentials,
        method: str,
        path: str,
        *,
        token: bool = False,
        body: bytes = b"",
        client: str = "192.0.2.7",
    ) -> httpx.Response:
        url = BASE + path
        headers = {"X-Auth-Token": who.token} if token else {}
        if not token:
            headers = sign(method, url, ak=who.ak, sk=who.sk, now=self.clock.now(), body=body)
        return await self.send(method, url, headers, body, client)

    async def send(
        self, method: str, url: str, headers: dict[str, str], body: bytes = b"", client: str = "192.0.2.7"
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(client, 4711))
        async with httpx.AsyncClient(transport=transport) as http:
            return await http.request(method, url, headers=headers, content=body)


@asynccontextmanager
async def open_door(home: Path, backend: Any = None, **settings: Any) -> AsyncIterator[Door]:
    """`backend` None: that of the home, whose real engines no test here asks for."""
    clock = HandClock()
    made = Settings(home=home, **settings)
    await asyncio.to_thread(_prepare, made.database_path)
    database = connect(made.database_path)
    service = Service(database, backend or open_backend(made), made, clock, "test:1")
    try:
        await service.keys.open()
        yield Door(service, create_app(service, clock=clock), clock)
        await service.keys.settle()
    finally:
        await database.close()


def _prepare(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_bytes(_empty_database())


@cache
def _empty_database() -> bytes:
    """Made once: the migrations take longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shardlift.db"
        migrate(path)
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


def clusters(who: Credentials) -> str:
    return f"/v1.0/{who.project_id}/clusters"
