"""A project's queue: several simulated clusters in one database; and tasks of a database of an older release."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

import shardlift.store
from shardlift.backend import Backend
from shardlift.chaos.time import VirtualClock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.model import Cluster, Image, Policy, Task, TaskStatus
from shardlift.runner import Runner
from shardlift.service import Service
from shardlift.service.requests import UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import IndexSpec, SimBackend, build_world
from tests.worlds import NEW, OLD, _service, make_cluster, open_lab

VIRTUAL_TIME = True
PROJECT = "p" * 32


class ManyWorlds(Backend):
    """One simulated world for each cluster; its driver is named after it."""

    def __init__(self, worlds: dict[str, SimBackend]) -> None:
        self.worlds = worlds

    def engine(self, cluster: Cluster) -> Engine:
        return self.worlds[cluster.driver].engine(cluster)

    def driver(self, name: str) -> Driver:
        return self.worlds[name].driver(name)

    def images(self) -> tuple[Image, ...]:
        return (OLD, NEW)

    def image(self, ref: str) -> Image:
        return next(iter(self.worlds.values())).image(ref)


@asynccontextmanager
async def many(home: Path, count: int, **settings: int) -> AsyncIterator[tuple[Service, list[Cluster], Runner]]:
    clock = VirtualClock()
    made = Settings(
        home=home, lease_s=100_000, lease_renew_s=20_000, rejoin_timeout_s=3000, boot_timeout_s=3000, **settings
    )  # type: ignore[arg-type]
    clusters, worlds = [], {}
    for at in range(count):
        plain = make_cluster(PROJECT, 3, ("zone-a",))
        nodes = tuple(replace(node, address=node.address.replace(".0.", f".{at}.")) for node in plain.nodes)
        cluster = replace(plain, name=f"lab-{at}", driver=f"sim-{at}", nodes=nodes)
        clusters.append(cluster)
        worlds[cluster.driver] = SimBackend(build_world(cluster, clock, indices=[IndexSpec("books")]), (OLD, NEW))
    backend = ManyWorlds(worlds)
    async with _service(made, backend, clock, virtual=True) as service:
        await service.store.add_project(PROJECT, "queue", clock.now())
        for cluster in clusters:
            await service.store.add_cluster(cluster)
        yield service, clusters, Runner(service.store, service.leases, backend=backend, settings=made, clock=clock)


async def submit(service: Service, cluster: Cluster, policy: Policy | None = None) -> Task:
    return await service.upgrade(UpgradeRequest(cluster.id, NEW.id, policy=policy or Policy()))


async def test_oldest_first_one_at_a_time_and_pause_gives_the_place_away(fast_home: Path) -> None:
    async with many(fast_home, 3, project_clusters_max=1) as (service, clusters, _):
        first, second, third = [await submit(service, cluster) for cluster in clusters]
        claimable, ids = service.leases.claimable, [cluster.id for cluster in clusters]
        assert await claimable() == (ids[0],)
        assert [(await service.task(one.id)).queue_position for one in (first, second, third)] == [None, 1, 2]
        told = (await service.task(third.id)).blocked_by or ""
        assert "2 tasks before it" in told
        assert "SHARDLIFT_PROJECT_CLUSTERS_MAX" in told
        assert (await service.tasks(ids[1])).items[0].queue_position == 1, "in lists too"

        await service.pause(first.id)
        assert await claimable() == (ids[1],)
        assert (await service.task(first.id)).queue_position is None
        lease = await service.leases.claim(ids[1])
        assert lease is not None
        await service.resume(first.id)
        assert await claimable() == (), "the one that is being worked on keeps its place, though it is younger"
        assert [(await service.task(one.id)).queue_position for one in (first, second, third)] == [1, None, 2]
        await service.abort(third.id)
        assert await claimable() == (ids[2],), "an end does not wait for its turn"


async def test_another_projects_queue_is_its_own(fast_home: Path) -> None:
    async with many(fast_home, 2, project_clusters_max=1) as (service, clusters, _):
        await service.store.add_project("q" * 32, "other", service.clock.now())
        tasks = [await submit(service, cluster) for cluster in clusters]
        async with service.store.database.write() as connection:
            for table, column in (("cluster", "id"), ("task", "cluster_id")):
                await connection.exec_driver_sql(
                    f"UPDATE {table} SET project_id = ? WHERE {column} = ?", ("q" * 32, clusters[1].id)
                )
        assert len(await service.leases.claimable()) == 2
        assert [(await service.task(one.id)).queue_position for one in tasks] == [None, None]


@pytest.mark.parametrize("limit", ["project_clusters_max", "clusters_max"])
async def test_all_get_their_turn(fast_home: Path, limit: str) -> None:
    async with many(fast_home, 2, **{limit: 1}) as (service, clusters, runner):
        tasks = [await submit(service, cluster) for cluster in clusters]
        running = asyncio.create_task(runner.run())
        try:
            async with asyncio.timeout(6000):
                for one in tasks:
                    while (await service.task(one.id)).status is TaskStatus.RUNNING:
                        await service.clock.sleep(10)
        finally:
            running.cancel()
        ended = [await service.task(one.id) for one in tasks]
        assert [one.status for one in ended] == [TaskStatus.SUCCESS] * 2
        for before, after in itertools.pairwise(sorted(ended, key=lambda one: one.ended_at)):  # type: ignore[arg-type,return-value]
            assert after.steps[0].begin >= before.ended_at  # type: ignore[operator]


async def test_a_database_of_the_first_schema_keeps_its_tasks(fast_home: Path) -> None:
    """A task under way in it may have a node that is half done: it is driven on, whatever else waits."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        cluster_id, path = lab.cluster.id, lab.service.settings.database_path
    old = fast_home / "old.db"
    config = Config()
    config.set_main_option("script_location", str(Path(shardlift.store.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{old}")
    command.upgrade(config, "0001")
    with sqlite3.connect(old) as connection:
        connection.execute("ATTACH ? AS new", (str(path),))
        for table in ("project", "cluster", "node", "task", "step"):
            names = ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA main.table_info({table})"))
            connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")
        assert "policy" not in {row[1] for row in connection.execute("PRAGMA main.table_info(task)")}
    connection.close()
    old.replace(path)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    async with open_lab_again(fast_home) as service:
        kept = await service.task(task.id)
        assert replace(kept, at_rest=True) == task
        assert (kept.policy, kept.paused, kept.approved, kept.at_rest) == (Policy(), False, False, False)
        assert await service.leases.claimable() == (cluster_id,)
        assert (await service.pause(task.id)).paused


@asynccontextmanager
async def open_lab_again(home: Path) -> AsyncIterator[Service]:
    cluster = make_cluster(PROJECT, 1, ("zone-a",))
    clock = VirtualClock()
    backend = SimBackend(build_world(cluster, clock, indices=[]), (OLD, NEW))
    async with _service(Settings(home=home), backend, clock, virtual=True) as service:
        yield service
