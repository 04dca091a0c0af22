"""Real clusters whose nodes are moved, replaced and taken together, asked by the CSS API, under the probing client."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from shardlift.api import create_app
from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.load import create_indices, load
from shardlift.demo.stage import Probed, Stage, fetch, under_load
from shardlift.errors import ShardliftError
from shardlift.executor import Event
from shardlift.images import ImageStore
from shardlift.model import Cluster, Image, InstanceType, Node, Strategy, Task, TaskStatus
from shardlift.runner import Runner
from shardlift.service import open_service
from shardlift.service.requests import CreateCluster, NodeGroup, UpgradeRequest
from shardlift.settings import Settings, load_settings
from tests.engine.cluster import real_home

OLD, NEW = "opensearch:2.19.4", "opensearch:2.19.5"
AWARENESS = "cluster.routing.allocation.awareness"
DOCUMENTS = 3_000
_DRIVES_MAX = 3


def say(text: str) -> None:
    """Shown when the test fails."""
    print(text, file=sys.stderr)


def _pull(_settings: Settings, image: Image, store: ImageStore) -> None:
    store.pull(image)


@dataclass
class Moving:
    """A loaded cluster of real nodes. `events` is all that the executor told, in order."""

    stage: Stage
    client: ClusterClient
    http: httpx.AsyncClient
    events: list[tuple[str, int, str]] = field(default_factory=list)

    async def rest(self, method: str, path: str, body: object = None) -> Any:
        """The cluster's answer. Fails the test on any refusal."""
        sent = None if body is None else json.dumps(body).encode()
        outcome = await self.client.call(Call(method, path, sent))
        assert outcome.ok, f"{method} {path} {body}: {outcome}"
        return outcome.body

    async def css(self, method: str, path: str, body: object = None) -> Any:
        """The CSS API's answer about the cluster. Fails the test on any refusal."""
        keys = self.stage.credentials
        answer = await self.http.request(
            method,
            f"/v1.0/{keys.project_id}/clusters/{self.stage.cluster.id}{path}",
            json=body,
            headers={"X-Auth-Token": keys.token},
        )
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def detail(self, mode: str = "") -> dict[str, Any]:
        """The newest task as `UpgradeDetail` tells it."""
        shown = await self.css("GET", "/upgrade/detail" + (f"?action_mode={mode}" if mode else ""))
        newest: dict[str, Any] = shown["detailList"][0]
        return newest

    async def task(self) -> Task:
        return (await self.stage.service.tasks(self.stage.cluster.id)).items[0]

    async def drive(
        self, observer: Callable[[Event], None] = lambda _event: None, *, status: TaskStatus = TaskStatus.SUCCESS
    ) -> Task:
        """Does the work there is, as the runner of a server does. Returns the task, which must have ended so.

        On an overloaded machine a lease may be lost, and whoever had it leaves the task where it is: then a server goes
        on, and so does this, a few times.
        """

        def told(event: Event) -> None:
            self.events.append((event.node, event.order, event.what))
            observer(event)

        service = self.stage.service
        runner = Runner(
            service.store,
            service.leases,
            backend=service.backend,
            settings=service.settings,
            clock=service.clock,
            observer=told,
        )
        for _ in range(_DRIVES_MAX):
            await runner.drive(self.stage.cluster.id)
            done = await self.task()
            if done.status is not TaskStatus.RUNNING:
                break
        for row in done.steps:
            say(f"{row.node} {row.order:2} {row.name}: {row.status} {row.desc}")
        assert done.status is status, done.fail_message
        return done

    async def now(self) -> Cluster:
        return await self.stage.service.cluster(self.stage.cluster.id)

    async def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.rest("GET", "/_cluster/settings?flat_settings=true")
        return {layer: found[layer] for layer in ("persistent", "transient")}

    async def members(self) -> dict[str, dict[str, Any]]:
        """What each node says of itself: `zone`, `ephemeral_id`, `version`, `address`."""
        state = await self.rest("GET", "/_cluster/state/nodes")
        return {one["name"]: {"zone": one["attributes"]["zone"], **one} for one in state["nodes"].values()}

    async def versions(self) -> set[str]:
        """Those that the cluster's members run."""
        return {one["version"] for one in (await self.rest("GET", "/_nodes"))["nodes"].values()}

    async def elected(self) -> str:
        state = await self.rest("GET", "/_cluster/state/cluster_manager_node,nodes")
        return str(state["nodes"][state["cluster_manager_node"]]["name"])

    async def zones_of_copies(self) -> dict[tuple[str, str], list[str]]:
        """The zones of each shard's started copies, as the elected master has them. Fails if any is not started."""
        zone = {name: one["zone"] for name, one in (await self.members()).items()}
        rows = await self.rest("GET", "/_cat/shards?format=json&h=index,shard,prirep,state,node")
        assert {row["state"] for row in rows} == {"STARTED"}, rows
        found: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            found.setdefault((row["index"], row["shard"]), []).append(zone[row["node"]])
        return found

    def folder(self, node: Node) -> Path:
        return self.stage.settings.nodes_path / node.cluster_id / node.name

    async def under_load(self, act: Callable[[], Awaitable[Task]]) -> Task:
        """Does it under the probing client, and holds what that saw to what it must see."""
        seen = await under_load(self.stage, act, say)
        assert_served(seen)
        return seen.result


def assert_served(seen: Probed[Task]) -> None:
    """No acknowledged document lost or doubled, and no call failed of a client that asks the next node."""
    told = seen.probe
    say(
        f"{told.writes.sent} writes, {told.searches.sent} searches, failed {told.writes.failed} and "
        f"{told.searches.failed}; {seen.verified.found} of {seen.verified.acknowledged} acknowledged documents found, "
        f"{seen.verified.surplus} doubled; {seen.loaded_found} of {seen.loaded} loaded ones; {seen.wall_s:.1f} s"
    )
    assert seen.verified.good, seen.verified
    assert seen.loaded_found == seen.loaded
    assert (told.writes.failed, told.searches.failed) == (0, 0), told.writes.failures + told.searches.failures
    assert len(told.acknowledged) > 100, "the client was there"


async def upgrade(at: Moving, **more: Any) -> tuple[Task, list[dict[str, Any]]]:
    """To the target under load. The task, and what the CSS API told whenever other nodes had their turn."""
    told: list[dict[str, Any]] = []

    async def act() -> Task:
        await at.stage.service.upgrade(UpgradeRequest(at.stage.cluster.id, at.stage.target.id, **more))
        working = asyncio.create_task(at.drive())
        while not working.done():
            shown = await at.detail()
            if not told or shown["currentBatchNodes"] != told[-1]["currentBatchNodes"]:
                told.append(shown)
            await asyncio.wait({working}, timeout=0.2)
        return await working

    task = await at.under_load(act)
    assert await at.versions() == {str(at.stage.target.version)}
    return task, told


@asynccontextmanager
async def moving(
    *groups: NodeGroup,
    zones: Sequence[str],
    settings: dict[str, object] | None = None,
    way: Sequence[str] = (OLD, NEW),
    strategy: Strategy = Strategy.AUTO,
    indices: Callable[[ClusterClient], Awaitable[None]] = create_indices,
) -> AsyncIterator[Moving]:
    """A green cluster of these nodes, dealt to the zones in turn, with documents.

    `settings`: persistent ones of the cluster, set before there is an index. `way`: images that are fetched; the
    cluster is made of the first, and the last is its target. `indices` makes what documents and writes go to.
    """
    with real_home() as home:
        made = load_settings(home=home)
        old, *_, new = fetch(made, tuple(way), _pull)
        async with open_service(made) as service:
            keys = await service.create_project("moves")
            cluster = await service.create_cluster(
                CreateCluster(keys.project_id, "moves", old.id, groups, tuple(zones), strategy=strategy)
            )
            stage = Stage(made, service, keys, cluster, new, DOCUMENTS)
            transport = httpx.ASGITransport(create_app(service))
            try:
                async with (
                    ClusterClient(stage.urls, timeout_s=60, deadline_s=120) as client,
                    httpx.AsyncClient(transport=transport, base_url="http://shardlift.test", timeout=120) as http,
                ):
                    at_work = Moving(stage, client, http)
                    if settings:
                        await at_work.rest("PUT", "/_cluster/settings", {"persistent": settings})
                    await indices(client)
                    await load(client, old, DOCUMENTS)
                    yield at_work
            except BaseException:
                driver = service.backend.driver("local")
                for node in cluster.nodes:
                    say(f"---- log of {node.name} ----")
                    say("\n".join(await driver.log_tail(node, lines=20)))
                raise
            finally:
                await asyncio.shield(_remove(stage))


async def _remove(stage: Stage) -> None:
    """Also when a task was left unfinished, which nobody will finish."""
    try:
        await stage.service.delete_cluster(stage.cluster.id)
    except ShardliftError:
        driver = stage.service.backend.driver("local")
        for node in (*await stage.service.spares(stage.cluster), *stage.cluster.nodes):
            await driver.delete(node)


def ess(count: int) -> NodeGroup:
    return NodeGroup(InstanceType.ESS, count)
