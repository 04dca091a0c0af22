"""A real cluster behind a service in this process: ask for an upgrade, be refused, mend, ask again, drive it."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from shardlift.clock import SystemClock
from shardlift.demo.client import Call, ClusterClient
from shardlift.errors import RefusedError
from shardlift.executor import Event
from shardlift.images import Catalogue
from shardlift.local import LocalBackend
from shardlift.model import Cluster, ClusterStatus, Finding, Severity, Strategy, Task
from shardlift.runner import Runner
from shardlift.service import Service, open_service
from shardlift.service.requests import CheckReport, UpgradeRequest
from shardlift.settings import Settings
from tests.engine.cluster import RealCluster

T = TypeVar("T")

_PROJECT = "p" * 32
_UNTIL_S, _ASK_AGAIN_S = 60, 0.05
_AT_REST = (
    "/_cluster/health?wait_for_no_relocating_shards=true&wait_for_no_initializing_shards=true"
    "&wait_for_events=languid&timeout=30s"
)


def say(text: str) -> None:
    """Shown when the test fails."""
    print(text, file=sys.stderr)


def request_in(remedy: str) -> tuple[str, str, Any]:
    """The first request that a remedy spells out in full: method, path and body. Fails the test when there is none."""
    for found in re.finditer(r"\b(PUT|POST|DELETE) ([\w.*/?=&-]*_[\w.*/?=&-]*)( (?=\{))?", remedy):
        body = json.JSONDecoder().raw_decode(remedy, found.end())[0] if found[3] else None
        return found[1], f"/{found[2]}", body
    raise AssertionError(f"no request to follow in: {remedy}")


@dataclass
class Desk:
    """The operator's place: the cluster's REST API on one side, Shardlift's service on the other."""

    real: RealCluster
    service: Service
    client: ClusterClient
    cluster_id: str
    tasks_made: int = 0

    async def rest(self, method: str, path: str, body: Any = None) -> Any:
        """The cluster's answer. Fails the test on any refusal."""
        sent = None if body is None else json.dumps(body).encode()
        outcome = await self.client.call(Call(method, path, sent))
        assert outcome.ok, f"{method} {path} {body}: {outcome}"
        return outcome.body

    async def at_rest(self, more: str = "") -> None:
        """Nothing moves, whatever the colour."""
        health = await self.rest("GET", _AT_REST + more)
        assert not health["timed_out"], health

    async def settled(self) -> None:
        """Green, and nothing moves."""
        await self.at_rest("&wait_for_status=green")

    async def fill(self, index: str, documents: int) -> None:
        """About a kilobyte that cannot be compressed in each document, and all of it on disk."""
        lines = []
        for number in range(documents):
            body = base64.b64encode(random.Random(number).randbytes(750)).decode()
            lines += [json.dumps({"index": {"_id": str(number)}}), json.dumps({"body": body})]
        sent = Call("POST", f"/{index}/_bulk", ("\n".join(lines) + "\n").encode(), content_type="application/x-ndjson")
        outcome = await self.client.call(sent)
        assert outcome.ok, outcome
        assert not outcome.body["errors"], outcome
        await self.rest("POST", f"/{index}/_flush")

    async def until(self, ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
        """The first good answer. Nothing tells from outside when the cluster has got so far, so this asks again."""
        async with asyncio.timeout(_UNTIL_S):
            while True:
                seen = await ask()
                if good(seen):
                    return seen
                await asyncio.sleep(_ASK_AGAIN_S)

    async def copies(self, index: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = await self.rest(
            "GET", f"/_cat/shards/{index}?format=json&h=index,shard,prirep,state,node"
        )
        return found

    async def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.rest("GET", "/_cluster/settings?flat_settings=true")
        return found

    def request(self, target: str, strategy: Strategy) -> UpgradeRequest:
        return UpgradeRequest(cluster_id=self.cluster_id, image=target, strategy=strategy)

    async def check(self, target: str, strategy: Strategy) -> CheckReport:
        return await self.service.check(self.request(target, strategy))

    async def refused(self, target: str, strategy: Strategy, rules: set[str]) -> tuple[Finding, ...]:
        """Asks for the upgrade, which must be refused for exactly these rules, each with evidence and a remedy."""
        try:
            task = await self.service.upgrade(self.request(target, strategy))
        except RefusedError as error:
            found = tuple(one for one in error.findings if one.severity is Severity.BLOCK)
        else:
            raise AssertionError(f"not refused for {sorted(rules)}: task {task.id} was made")
        say("refused: " + "\n         ".join(map(str, found)))
        assert {one.rule for one in found} == rules, [str(one) for one in found]
        for one in found:
            assert one.subject, one
            assert one.reason, one
            assert one.evidence, one
            assert one.remedy, one
        assert (await self.service.tasks(self.cluster_id)).total == self.tasks_made, "a refusal leaves no task"
        return found

    async def passes(self, target: str, strategy: Strategy) -> None:
        """The same wish is granted now; only asked, so that the cluster stays for the next case."""
        report = await self.check(target, strategy)
        assert report.plan is not None, [str(one) for one in report.blocking]

    async def upgrade(self, target: str, strategy: Strategy) -> Task:
        task = await self.service.upgrade(self.request(target, strategy))
        self.tasks_made += 1
        return task

    async def drive(self, observer: Callable[[Event], None] = lambda _event: None) -> None:
        """Does the work there is on the cluster, as the runner of a server does."""
        service = self.service
        runner = Runner(
            service.store,
            service.leases,
            backend=service.backend,
            settings=service.settings,
            clock=service.clock,
            observer=observer,
        )
        await runner.drive(self.cluster_id)


@asynccontextmanager
async def desk_of(real: RealCluster, **settings: float) -> AsyncIterator[Desk]:
    """The service knows the cluster as if it had made it itself. The cluster's logs are told when the body fails."""
    home = Settings(home=real.home, **settings)  # type: ignore[arg-type]  # pydantic checks them
    now = datetime.now(UTC)
    cluster = Cluster(
        id=real.nodes[0].cluster_id,
        project_id=_PROJECT,
        name="real-bad",
        engine=real.image.engine,
        version=real.image.version,
        image_id=real.image.id,
        driver="local",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=now,
        updated_at=now,
        heap_mib=512,
        nodes=real.nodes,
    )
    backend = LocalBackend(Catalogue(real.images), {"local": lambda: real.driver})
    async with (
        open_service(home, backend=backend, clock=SystemClock(), role="test") as service,
        ClusterClient([node.url for node in real.nodes], timeout_s=40, deadline_s=60) as client,
    ):
        await service.store.add_project(_PROJECT, "real", now)
        await service.store.add_cluster(cluster)
        yield Desk(real, service, client, cluster.id)
