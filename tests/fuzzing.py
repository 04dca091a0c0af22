"""The whole API over a real service on simulated clusters, for requests that a machine makes up.

The service lives in a thread with a loop of its own, because what makes requests up is not asynchronous.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
import requests
import schemathesis
from fastapi import FastAPI
from schemathesis import Case
from schemathesis.schemas import APIOperation, BaseSchema

from shardlift.api import create_app
from shardlift.api.docs import openapi_document
from shardlift.api.signing import sign
from shardlift.executor import Event
from shardlift.model import InstanceType, Simulation
from shardlift.runner import Runner
from shardlift.service import open_service
from shardlift.service.requests import CreateCluster, Credentials, NodeGroup, UpgradeRequest
from shardlift.settings import Settings
from tests.api_world import BASE
from tests.fakes import FakeService

T = TypeVar("T")

OLD, NEW = "opensearch:2.19.4", "opensearch:3.4.0"
_CALL_TIMEOUT_S = 60
# What a signature brings itself.
_CREDENTIALS = {"authorization", "x-auth-token"}


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document, which depends on nothing that the service holds."""
    return openapi_document(create_app(FakeService(Settings(home=Path("/nonexistent")))))  # type: ignore[arg-type]


@cache
def schema() -> BaseSchema:
    return schemathesis.openapi.from_dict(document())


@cache
def operations() -> dict[str, APIOperation[Any, Any, Any, Any]]:
    """By name, such as `GET /api/v1/images`."""
    found = (result.ok() for result in schema().get_all_operations())
    return {f"{one.method.upper()} {one.path}": one for one in found}


@dataclass
class Stage:
    """Two projects. `ids`: what stands for a path parameter; several things of each, in several states."""

    app: FastAPI
    mine: Credentials
    other: Credentials
    ids: dict[str, tuple[str, ...]]
    ended: str
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def run(self, work: Awaitable[T]) -> T:
        async def inside() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(_CALL_TIMEOUT_S)

    def send(self, method: str, url: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """Once, as it is."""

        async def inside() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, timeout=_CALL_TIMEOUT_S) as client:
                return await client.request(method, url, headers=headers, content=body)

        return self.run(inside())

    def call(
        self, case: Case, credentials: Callable[[str, str, dict[str, str], bytes], dict[str, str]]
    ) -> httpx.Response:
        """Sends what was made up, with `credentials` added to its headers."""
        made = requests.Request(**_plain(case.as_transport_kwargs(base_url=BASE))).prepare()
        headers = {
            name: value for name, value in made.headers.items() if name.lower() not in {*_CREDENTIALS, "content-length"}
        }
        body = made.body or b""
        body = body.encode() if isinstance(body, str) else body
        assert made.method is not None
        assert made.url is not None
        return self.send(made.method, made.url, credentials(made.method, made.url, headers, body), body)

    def signed(self, method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        plain = {name: value for name, value in headers.items() if name.lower() not in ("host", "x-sdk-date")}
        now = datetime.now(UTC)
        return sign(method, url, ak=self.mine.ak, sk=self.mine.sk, now=now, headers=_signable(plain), body=body) | plain

    def token(self, _method: str, _url: str, headers: dict[str, str], _body: bytes) -> dict[str, str]:
        return headers | {"X-Auth-Token": self.mine.token}


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    known = ("method", "url", "headers", "params", "data", "json", "cookies", "files")
    return {key: value for key, value in given.items() if key in known and value is not None}


def _signable(headers: dict[str, str]) -> dict[str, str]:
    """A header that was made up may be sent, and need not be signed."""
    return {name: value for name, value in headers.items() if name.lower() == "content-type"}


@contextmanager
def open_stage(home: Path) -> Iterator[Stage]:
    """Ends within bounds."""
    ready: list[Stage | BaseException] = []
    told, over = threading.Event(), asyncio.Event()

    async def live() -> None:
        async with AsyncExitStack() as stack:
            ready.append(await _stage(stack, home))
            told.set()
            await over.wait()

    def body() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001  (raised where the stage was asked for)
            ready.append(error)
        finally:
            told.set()

    thread = threading.Thread(target=body, name="fuzz stage", daemon=True)
    thread.start()
    assert told.wait(_CALL_TIMEOUT_S), "the stage is not up in time"
    stage = ready[-1]
    if isinstance(stage, BaseException):
        raise stage
    try:
        yield stage
    finally:
        stage.loop.call_soon_threadsafe(over.set)
        thread.join(_CALL_TIMEOUT_S)
        assert not thread.is_alive()


async def _stage(stack: AsyncExitStack, home: Path) -> Stage:
    settings = Settings(home=home, key_rate_per_s=0, refused_rate_per_s=0)
    service = await stack.enter_async_context(open_service(settings, role="test"))
    mine, other = await service.create_project("mine"), await service.create_project("other")

    async def cluster(name: str, project_id: str) -> str:
        groups = (NodeGroup(InstanceType.ESS, 3),)
        simulation = Simulation(data_bytes=2**20, indices=1, speed=10_000)
        asked = CreateCluster(
            project_id, name, OLD, groups, ("zone-a", "zone-b", "zone-c"), driver="sim", simulation=simulation
        )
        return (await service.create_cluster(asked)).id

    idle, busy, ended = [await cluster(name, mine.project_id) for name in ("idle", "busy", "ended")]
    foreign = await cluster("foreign", other.project_id)
    running = await service.upgrade(UpgradeRequest(busy, NEW))
    theirs = await service.upgrade(UpgradeRequest(foreign, NEW))
    done = await service.upgrade(UpgradeRequest(ended, NEW))
    await _drive(service, ended)
    node = (await service.cluster(idle)).nodes[0]
    clusters, tasks = (idle, busy, ended, foreign), (running.id, done.id, theirs.id)
    image = service.image(NEW)
    ids = {
        "project_id": (mine.project_id,),
        "own": (idle, busy, ended),
        "foreign": (foreign,),
        "cluster_id": clusters,
        "cluster": (*clusters, "idle"),
        "task_id": tasks,
        "action_id": tasks,
        "instance_id": (node.id,),
        "node": (node.name,),
        "inst_type": ("all", "ess"),
        "upgrade_type": ("same", "cross"),
        "image": (NEW, image.id),
        "target_image_id": (image.id,),
        "ak": (mine.ak,),
    }
    return Stage(create_app(service), mine, other, ids, done.id)


async def _drive(service: Any, cluster_id: str) -> None:
    def ignore(_event: Event) -> None:
        return None

    runner = Runner(
        service.store, service.leases, backend=service.backend, settings=service.settings, clock=service.clock,
        observer=ignore,
    )  # fmt: skip
    await runner.drive(cluster_id)
