"""A home full of tasks for `make bench-api`: busy clusters and quiet ones, as they would be after years.

Rows are written in bulk, in the shape in which the store writes them, by its own statements.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from shardlift.images import Catalogue
from shardlift.model import (
    SUB_STEPS,
    Cluster,
    ClusterStatus,
    InstanceType,
    Node,
    NodePlan,
    Plan,
    StepStatus,
    Strategy,
    Task,
    TaskKind,
    TaskStatus,
)
from shardlift.service import Service, open_service
from shardlift.service.requests import Credentials
from shardlift.settings import Settings
from shardlift.store.store import _task_values
from shardlift.store.tables import step, task

NODES = 3
SEEN = 20  # tasks of a cluster that people look at; of older ones one node is enough to be in the way
_BUSY_SHARE = 10  # a tenth of all tasks is on one cluster
_PER_CLUSTER = 100
_BATCH = 500
_BEGAN = datetime(2024, 1, 5, 2, 23, 39, tzinfo=UTC)


@dataclass(frozen=True)
class Filled:
    """A home, who may ask, and the clusters to ask for."""

    home: Path
    credentials: Credentials
    clusters: tuple[str, ...]
    tasks: int
    nodes: int


def shares(tasks: int) -> list[int]:
    """Tasks by cluster: one busy cluster with a tenth of them, the others with 100 each; up to 10 are all on one."""
    if tasks <= _PER_CLUSTER:
        return [tasks]
    busy = max(tasks // _BUSY_SHARE, _PER_CLUSTER)
    rest = tasks - busy
    return [busy, *([_PER_CLUSTER] * (rest // _PER_CLUSTER))]


def fill(home: Path, tasks: int, nodes: int = NODES) -> Filled:
    return asyncio.run(_fill(home, shares(tasks), nodes))


async def _fill(home: Path, counts: list[int], nodes: int) -> Filled:
    async with open_service(Settings(home=home)) as service:
        credentials = await service.create_project("bench")
        image = Catalogue(service.settings.images_path).all()[0]
        clusters = []
        for at, count in enumerate(counts):
            cluster = _cluster(credentials.project_id, at, nodes, image.id)
            clusters.append(cluster.id)
            await service.store.add_cluster(cluster)
            await _add_tasks(service, cluster, count)
    return Filled(home, credentials, tuple(clusters), sum(counts), nodes)


def _cluster(project_id: str, at: int, nodes: int, image_id: str) -> Cluster:
    cluster_id, image = str(uuid.uuid4()), image_id
    name = f"css-{at:05}"
    made = Cluster(
        id=cluster_id,
        project_id=project_id,
        name=name,
        engine=Catalogue(Path("none")).find(image).engine,
        version=Catalogue(Path("none")).find(image).version,
        image_id=image,
        driver="local",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=_BEGAN,
        updated_at=_BEGAN,
        heap_mib=1024,
        nodes=(),
    )
    return replace(made, nodes=tuple(_node(made, number, at) for number in range(1, nodes + 1)))


def _node(cluster: Cluster, number: int, at: int) -> Node:
    return Node(
        id=str(uuid.uuid4()),
        cluster_id=cluster.id,
        name=f"{cluster.name}-ess-esn-{number}-1",
        instance_type=InstanceType.ESS,
        roles=(),
        zone="zone-a",
        address=f"10.{at // 250}.{at % 250}.{number % 250}",
        http_port=9200 + number // 250,
        transport_port=9300 + number // 250,
        image_id=cluster.image_id,
    )


async def _add_tasks(service: Service, cluster: Cluster, count: int) -> None:
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        made = [_task(cluster, number, count) for number in numbers]
        async with service.store.database.write() as connection:
            await connection.execute(insert(task), [_task_values(one) for one in made])
            for one in made:
                await connection.execute(insert(step), list(_steps(one)))


def _task(cluster: Cluster, number: int, count: int) -> Task:
    """The newest one is RUNNING: half-way, paused and at rest, so that no runner takes it up."""
    newest = number == count - 1
    members = cluster.nodes if number >= count - SEEN else cluster.nodes[:1]
    planned = tuple((NodePlan(node.id, node.name, "2.19.4", fresh_data=True, drained=True),) for node in members)
    begun = _BEGAN + timedelta(hours=number)
    return Task(
        id=str(uuid.uuid4()),
        cluster_id=cluster.id,
        project_id=cluster.project_id,
        kind=TaskKind.UPGRADING,
        status=TaskStatus.RUNNING if newest else TaskStatus.SUCCESS,
        image_id=cluster.image_id,
        strategy=Strategy.DRAIN,
        plan=Plan(cluster.id, Strategy.DRAIN, cluster.image_id, planned),
        agency="css_agency",
        created_at=begun,
        ended_at=None if newest else begun + timedelta(minutes=30),
        execute_times=1,
        revision=1,
        bytes_moved=0,
        paused=newest,
        at_rest=newest,
    )


def _steps(one: Task) -> Iterator[dict[str, Any]]:
    running = one.status is TaskStatus.RUNNING
    for position, (node, sub) in enumerate((node, sub) for node in one.total for sub in SUB_STEPS):
        done = not running or position < len(SUB_STEPS) * len(one.total) // 2
        begun = one.created_at + timedelta(seconds=position) if done else None
        yield {
            "task_id": one.id,
            "position": position,
            "node": node,
            "order": sub.order,
            "name": sub.name,
            "status": str(StepStatus.SUCCESS if done else StepStatus.WAITING),
            "desc": sub.desc,
            "attempts": int(done),
            "begin": begun,
            "end": begun,
            "evidence": {},
            "progress": {},
            "revision": 0,
        }
