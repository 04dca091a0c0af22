"""The simulated runs of `make bench-moves`: in virtual time, with the real control plane and a real database."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench_moves_told import PLAIN, QUARTER, Course, Row, of_task, told
from plain_upgrade import POLL_S

from shardlift.chaos.time import VirtualClock
from shardlift.executor import Event
from shardlift.model import Cluster, ClusterStatus, Health, InstanceType, Node, Strategy, Task
from shardlift.runner import Runner
from shardlift.service import Service
from shardlift.service.requests import UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import IndexSpec, SimBackend, World, build_world, sim_image
from shardlift.sim.driver import SimDriver
from shardlift.sim.engine import SimEngine
from shardlift.store.database import connect, migrate
from shardlift.store.inline import InlineConnection, OpenGate

# Where there is such a folder: what a run keeps need not outlive it, and its disk is not what is measured.
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  (a private folder is made in it)
_LAST = 12
_STUCK_S = 60.0
_LONGEST_S = 1e7
_SAMPLES_MAX = 60
_PROJECT = "b" * 32


@dataclass(frozen=True)
class Size:
    nodes: int
    copies: int
    copy_bytes: int


def laid_out(size: Size, clock: VirtualClock) -> tuple[Cluster, World]:
    """So many nodes in three zones, each with `copies` shard copies: indices of one shard or more with one replica."""
    old = sim_image("2.19.4")
    now = datetime.now(UTC)
    nodes = tuple(
        Node(
            id=f"node-{number}",
            cluster_id="bench",
            name=f"bench-ess-esn-{number}-1",
            instance_type=InstanceType.ESS,
            # Three that may be elected: hundreds of voters are no cluster that anybody has.
            roles=() if number <= 3 else ("data", "ingest"),  # noqa: PLR2004
            zone="abc"[number % 3],
            address=f"127.{77 + number // 60000}.{number // 250}.{1 + number % 250}",
            http_port=9200,
            transport_port=9300,
            image_id=old.id,
        )
        for number in range(1, size.nodes + 1)
    )
    cluster = Cluster(
        id="bench",
        project_id=_PROJECT,
        name="bench",
        engine=old.engine,
        version=old.version,
        image_id=old.id,
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=now,
        updated_at=now,
        heap_mib=512,
        nodes=nodes,
    )
    shards = size.nodes * size.copies // 2
    indices = [
        IndexSpec(f"index-{at}", min(10, shards - 10 * at), 1, size.copy_bytes) for at in range(-(-shards // 10))
    ]
    return cluster, build_world(cluster, clock, indices=indices)


async def simulated(size: Size, strategy: Strategy) -> Row:
    clock = VirtualClock()
    cluster, world = laid_out(size, clock)
    new = sim_image("3.4.0")
    data_bytes = sum(world.indices[copy.index].copy_bytes for copy in world.copies)
    with tempfile.TemporaryDirectory(prefix="shardlift-bench-", dir=_MEMORY) as folder:
        # Wall time is told beside what the bytes take at the engines' own limit.
        settings = Settings(home=Path(folder), lease_s=1e6, lease_renew_s=1e5, recovery_raise_max=1)
        path = settings.database_path
        migrate(path)
        database = connect(path, lambda: InlineConnection(path, OpenGate()))
        backend = SimBackend(world, (sim_image("2.19.4"), new))
        service = Service(database, backend, settings, clock, "bench:1")
        try:
            await service.store.add_project(_PROJECT, "bench", clock.now())
            await service.store.add_cluster(cluster)
            task = await service.upgrade(UpgradeRequest(cluster_id=cluster.id, image=new.id, strategy=strategy))
            course = await _driven(service, task, clock)
            task = await service.task(task.id)
        finally:
            await database.close()
    seen = of_task(task)
    # What begins after that is the engine's own balancing, with all settings put back.
    last_ms = int(seen["end_s"] * 1000)
    walk = sum(move.total_bytes for move in world.recovered if move.started_at_ms <= last_ms)
    begin_s = task.created_at.timestamp()
    ended_s = task.ended_at.timestamp() if task.ended_at else seen["end_s"]
    error = course.error(begin_s, ended_s)
    return told("simulated", size.nodes, str(strategy), data_bytes, **seen, walk_bytes=walk, eta_error=error)


async def _driven(service: Service, task: Task, clock: VirtualClock) -> Course:
    course, wanted = Course(), asyncio.Event()
    nodes = len(task.plan.nodes)
    passed = 0

    def observe(event: Event) -> None:
        nonlocal passed
        passed += event.what == "journaled" and event.order == _LAST
        # Few looks: each one reads all rows of the task.
        near = QUARTER / 2 <= passed / nodes <= 2 * QUARTER
        if event.what == "journaled" and (nodes <= _SAMPLES_MAX // 6 or (event.order == _LAST and near)):
            wanted.set()

    async def look() -> None:
        while len(course.guesses) < _SAMPLES_MAX * 3:
            await wanted.wait()
            wanted.clear()
            course.note(await service.task(task.id), clock.now())
            # Between two looks at least a hundredth of the nodes.
            await clock.sleep(0 if nodes <= _SAMPLES_MAX // 6 else 60)

    looking = asyncio.create_task(look())
    runner = Runner(
        service.store, service.leases, backend=service.backend, settings=service.settings, clock=clock, observer=observe
    )
    await runner.drive(task.cluster_id)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    return course


async def simulated_plain(size: Size) -> Row:
    """As the documents have it: exclude, wait, stop, swap, start, wait, include, wait for green."""
    clock = VirtualClock()
    cluster, world = laid_out(size, clock)
    data_bytes = sum(world.indices[copy.index].copy_bytes for copy in world.copies)
    engine, driver, image = SimEngine(world), SimDriver(world), sim_image("3.4.0")
    key, boots_s, ended = "cluster.routing.allocation.exclude._name", 0.0, "SUCCESS"
    begin_s = clock.elapsed_s()
    for node in sorted(cluster.nodes, key=lambda one: one.name == world.elected):
        await engine.put_setting("persistent", key, node.name)
        if not await _left(world, engine, clock, node.name):
            ended = f"STUCK at node {list(cluster.nodes).index(node) + 1}"
            break
        await driver.backup(node, key="plain")
        await driver.stop(node, timeout_s=60)
        await driver.switch(node, image, key="plain", fresh_data=True)
        await driver.restore(node, image, key="plain")
        started_s = clock.elapsed_s()
        await driver.start(node)
        while not await engine.answers(node.name):
            await clock.sleep(POLL_S)
        boots_s += clock.elapsed_s() - started_s
        await engine.put_setting("persistent", key, None)
        await engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=_LONGEST_S)
    walk = sum(move.total_bytes for move in (*world.recovered, *world.moves))
    wall_s = clock.elapsed_s() - begin_s
    return told(
        "simulated", size.nodes, PLAIN, data_bytes,
        ended=ended, walk_bytes=walk, bytes=walk, wall_s=wall_s, boots_s=boots_s,
    )  # fmt: skip


async def _left(world: World, engine: SimEngine, clock: VirtualClock, node: str) -> bool:
    """Whether the node is empty in the end; false when nothing has moved for a minute."""
    still_since_s = clock.elapsed_s()
    while any(copy.node == node for copy in await engine.shards()):
        if world.moves:
            still_since_s = clock.elapsed_s()
        if clock.elapsed_s() - still_since_s > _STUCK_S:
            return False
        await clock.sleep(POLL_S)
    return True
