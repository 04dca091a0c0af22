"""Simulated clusters beside real ones: made by the usual code, found again by other processes, fast but truly dated."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardlift.backends import open_backend
from shardlift.errors import BusyError, DriverError, UsageError
from shardlift.model import Cluster, InstanceType, Simulation, Strategy, Task, TaskStatus
from shardlift.runner import Runner
from shardlift.service import Service, open_service
from shardlift.service.requests import CreateCluster, NodeGroup, UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import saved

pytestmark = pytest.mark.walks

OLD, NEW = "opensearch:2.19.4", "opensearch:3.4.0"
FAST = Simulation(speed=2000)


@asynccontextmanager
async def opened(home: Path, *, in_memory: bool = False) -> AsyncIterator[Service]:
    settings = Settings(home=home)
    async with open_service(settings, backend=open_backend(settings, in_memory=in_memory)) as service:
        yield service


async def created(service: Service, name: str = "books", **more: object) -> Cluster:
    projects = await service.projects()
    project_id = projects[0].id if projects else (await service.create_project("p")).project_id
    groups = more.pop("groups", (NodeGroup(InstanceType.ESS, 3),))
    asked = {"image": OLD, "zones": ("a", "b", "c"), "driver": "sim", "simulation": FAST, **more}
    return await service.create_cluster(CreateCluster(project_id, name, groups=groups, **asked))


@asynccontextmanager
async def driven(service: Service) -> AsyncIterator[None]:
    runner = Runner(
        service.store, service.leases, backend=service.backend, settings=service.settings, clock=service.clock
    )
    running = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def ended(service: Service, task: Task) -> Task:
    while task.status is TaskStatus.RUNNING:
        task = await service.wait_task(task.id, task.revision, 30)
    return task


async def test_a_simulated_cluster_is_made_upgraded_and_deleted_and_leaves_nothing(fast_home):
    async with opened(fast_home) as service, driven(service):
        cluster = await created(service, simulation=Simulation(data_bytes=50 * 2**30, speed=10_000))
        states = await service.node_states(cluster)
        assert {state.version for state in states.values()} == {"2.19.4"}
        file = fast_home / "sim" / f"{cluster.id}.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

        task = await ended(service, await service.upgrade(UpgradeRequest(cluster.id, NEW, Strategy.DRAIN)))

        assert task.status is TaskStatus.SUCCESS, task.fail_message
        assert task.bytes_moved > 100 * 2**30, "each node's share left it, and came back"
        states = await service.node_states(cluster)
        assert {state.version for state in states.values()} == {"3.4.0"}
        for step in task.steps:
            assert task.created_at <= step.begin <= step.end <= service.clock.now(), "steps have true times"
        await service.delete_cluster(cluster.id)
        assert list(file.parent.iterdir()) == []


async def test_many_roles_and_nodes_have_addresses_of_their_own(fast_home):
    async with opened(fast_home, in_memory=True) as service:
        groups = tuple(
            NodeGroup(kind, count)
            for kind, count in [(InstanceType.ESS, 60), (InstanceType.MASTER, 3), (InstanceType.COLD, 3)]
        )
        first = await created(service, "first", groups=groups)
        second = await created(service, "second", groups=groups)
        places = [(node.address, node.http_port) for cluster in (first, second) for node in cluster.nodes]
        assert len({*places}) == 132
        assert {node.zone for node in first.nodes} == {"a", "b", "c"}
        assert not (fast_home / "sim").exists()


async def test_old_engines_are_simulated_too(fast_home):
    async with opened(fast_home, in_memory=True) as service:
        cluster = await created(service, image="elasticsearch:7.10.2")
        seen = await service.backend.engine(cluster).observe()
        assert {member.master_eligible for member in seen.nodes} == {True}
        assert all("master" in member.roles for member in seen.nodes)


async def test_another_process_sees_what_this_one_has_changed(fast_home):
    async with opened(fast_home) as mine, opened(fast_home) as theirs:
        cluster = await created(mine)
        engine, other = mine.backend.engine(cluster), theirs.backend.engine(cluster)
        await other.put_setting("persistent", "search.max_buckets", "7")
        await engine.put_setting("persistent", "search.default_search_timeout", "1m")
        assert (await other.settings()).persistent == {
            "search.max_buckets": "7",
            "search.default_search_timeout": "1m",
        }


async def test_a_world_comes_back_to_the_letter(fast_home):
    """Also in the middle of recoveries, elections and boots."""
    async with opened(fast_home) as service:
        cluster = await created(service, simulation=Simulation(data_bytes=2**36, speed=60))
        world = service.backend.fleet.site(cluster.id).world
        with world.changing():
            world.put_cluster_setting("transient", "cluster.routing.allocation.exclude._name", cluster.nodes[0].name)
            world.kill_node(cluster.nodes[1].name)
            world.start(world.nodes[cluster.nodes[1].name])
        assert world.moves
        assert world.due
        written = json.loads(json.dumps(saved.to_document(world)))
        saved.restore(world, written)
        assert json.loads(json.dumps(saved.to_document(world))) == written


async def test_files_of_another_format_and_damaged_ones_are_refused_with_a_remedy(fast_home):
    async with opened(fast_home) as service:
        cluster = await created(service)
    file = fast_home / "sim" / f"{cluster.id}.json"
    whole = file.read_text()
    newer = json.loads(whole)
    newer["world"]["format"] = 99
    damaged = json.loads(whole)
    damaged["world"]["copies"] = [{}]
    for text, told in [
        (whole[:100], "cannot be read"),
        ("[]", "holds no simulated cluster"),
        (json.dumps(newer), "format 99"),
        (json.dumps(damaged), "damaged"),
    ]:
        file.write_text(text)
        async with opened(fast_home) as service:
            with pytest.raises(DriverError, match=told) as error:
                await service.node_states(cluster)
            assert error.value.remedy
    async with opened(fast_home) as service:
        await service.delete_cluster(cluster.id)
        assert not file.exists()


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"simulation": Simulation(speed=0)}, "speed"),
        ({"simulation": Simulation(speed=float("nan"))}, "speed"),
        ({"simulation": Simulation(data_bytes=2**60)}, "data"),
        ({"simulation": Simulation(replicas=3)}, "replicas"),
        ({"simulation": Simulation(indices=0)}, "indices"),
        ({"groups": (NodeGroup(InstanceType.ESS, 1001),)}, "nodes"),
        ({"groups": (NodeGroup(InstanceType.CLIENT, 1),)}, "roles"),
        ({"driver": "local"}, "driver"),
        ({"driver": "cloud", "simulation": None}, "driver"),
    ],
)
async def test_what_cannot_be_made_is_refused_and_leaves_nothing(fast_home, more, field):
    async with opened(fast_home) as service:
        with pytest.raises(UsageError) as error:
            await created(service, **more)
        assert error.value.field == field
        assert error.value.remedy
        assert (await service.clusters()).total == 0
        assert not list(fast_home.glob("sim/*"))


SERVE = [sys.executable, "-m", "shardlift", "serve", "--port", "0"]


async def test_an_upgrade_goes_on_after_kill_9_of_the_server(fast_home):
    """The world is the one that the killed server left, moved on by the time that has passed since."""

    def serve() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "SHARDLIFT_HOME": str(fast_home)}
        return subprocess.Popen(SERVE, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async with opened(fast_home) as service:
        cluster = await created(service, simulation=Simulation(data_bytes=2**30, speed=20))
        first = serve()
        try:
            task = await service.upgrade(UpgradeRequest(cluster.id, NEW))
            while not any(step.order == 7 and step.begin for step in task.steps):
                task = await service.wait_task(task.id, task.revision, 30)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait(10)
        assert (await service.task(task.id)).status is TaskStatus.RUNNING
        second = serve()
        try:
            task = await ended(service, task)
        finally:
            second.terminate()
            second.wait(30)
        assert task.status is TaskStatus.SUCCESS, task.fail_message
        world = service.backend.fleet.site(cluster.id).world
        world.advance()
        assert [what for what, _ in world.effects].count("switch") == 3, "each engine was switched once"
        assert world.lost() == {}


async def test_a_deleted_cluster_is_gone_for_all(fast_home):
    async with opened(fast_home) as mine, opened(fast_home) as theirs:
        cluster = await created(mine)
        engine = theirs.backend.engine(cluster)
        await mine.delete_cluster(cluster.id)
        with pytest.raises(DriverError, match="no simulated cluster"):
            await engine.nodes()


async def test_a_world_is_not_waited_for_without_end(fast_home, monkeypatch):
    monkeypatch.setattr("shardlift.sim.fleet._LOCK_TIMEOUT_S", 0.05)
    async with opened(fast_home) as mine, opened(fast_home) as theirs:
        cluster = await created(mine)
        held = mine.backend.fleet.site(cluster.id).world
        other = theirs.backend.fleet.site(cluster.id).world
        with held.changing(), pytest.raises(BusyError, match="another process"), other.changing():
            pass
