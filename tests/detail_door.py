"""The app over a lab with a cluster to poll, and a count of the answers that were made for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import httpx
from fastapi import FastAPI

from shardlift.api import create_app
from shardlift.api.pages import Asked, DetailPages
from shardlift.api.signing import sign
from shardlift.service.requests import Credentials
from shardlift.store import Database
from shardlift.store.database import connect
from shardlift.store.inline import InlineConnection
from tests.fakes import make_task
from tests.worlds import NEW, Lab, _NoGate, make_cluster, open_lab

BASE = "http://shardlift.test"


class CountedPages:
    """What the long way asks for its answers."""

    def __init__(self, pages: DetailPages) -> None:
        self._pages = pages
        self.asked = 0

    async def answer(self, asked: Asked) -> bytes:
        self.asked += 1
        return await self._pages.answer(asked)


@dataclass
class Door:
    """The app over the lab, with a count of the answers that the long way gave."""

    lab: Lab
    app: FastAPI
    mine: Credentials
    cluster_id: str
    pages: CountedPages

    @property
    def url(self) -> str:
        return f"{BASE}/v1.0/{self.mine.project_id}/clusters/{self.cluster_id}/upgrade/detail"

    async def poll(self, who: Credentials | None = None, url: str = "", **headers: str) -> httpx.Response:
        who = who or self.mine
        now = self.app.state.clock.now()
        return await self.get(sign("GET", url or self.url, ak=who.ak, sk=who.sk, now=now, headers=headers), url)

    async def get(self, headers: dict[str, str], url: str = "") -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app)) as client:
            return await client.get(url or self.url, headers=headers)


@asynccontextmanager
async def door(home: Path, **settings: object) -> AsyncIterator[Door]:
    async with open_lab(home, **settings) as lab:
        mine = await lab.service.create_project("mine")
        cluster = replace(make_cluster(mine.project_id, 1, ("zone-a",)), name="polled", id=str(uuid4()))
        nodes = tuple(
            replace(node, cluster_id=cluster.id, address="127.99.0.1", name="polled-1") for node in cluster.nodes
        )
        cluster = replace(cluster, nodes=nodes)
        await lab.service.store.add_cluster(cluster)
        await lab.service.store.add_task(make_task(cluster, NEW))
        app = create_app(lab.service, clock=lab.clock)
        app.state.detail_pages = counted = CountedPages(app.state.detail_pages)
        yield Door(lab, app, mine, cluster.id, counted)


@asynccontextmanager
async def another_process(lab: Lab, *, threads: bool = False) -> AsyncIterator[Database]:
    """Connections that the service knows nothing of; with `threads` they can wait for a lock that a task here holds."""
    path = lab.service.settings.database_path
    database = connect(path, None if threads else lambda: InlineConnection(path, _NoGate()))
    try:
        yield database
    finally:
        await database.close()
