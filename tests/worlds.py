"""A simulated cluster with a real database, and ways to run, crash and look at it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from shardlift.chaos.time import VirtualClock, VirtualLoop
from shardlift.clock import Clock
from shardlift.executor import Event
from shardlift.model import (
    Cluster,
    ClusterStatus,
    EngineKind,
    Image,
    InstanceType,
    Node,
    Strategy,
    Task,
    TaskStatus,
)
from shardlift.runner import Runner
from shardlift.service import Service, open_service
from shardlift.service.requests import UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import MIB, FastClock, IndexSpec, SimBackend, World, build_world, sim_image
from shardlift.store import Database
from shardlift.store.database import connect, migrate
from shardlift.store.inline import InlineConnection


class Crash(BaseException):
    """Ends a run as kill -9 would: nothing on the way catches it."""


OLD, NEW = sim_image("2.19.4"), sim_image("3.4.0")


Fault = Callable[[str, str, str], None]


class LabDoor:
    """Tells the lab's `fault` of each effect."""

    def __init__(self) -> None:
        self.fault: Fault = lambda _when, _what, _where: None

    async def before(self, call: str, where: str, *, effect: bool) -> None:
        if effect:
            self.fault("before", call, where)

    async def after(self, call: str, where: str, *, effect: bool) -> None:
        if effect:
            self.fault("after", call, where)


class _NoGate:
    def before(self) -> None: ...

    def committed(self) -> None: ...


class Lab:
    """One cluster of a simulated world behind a real service.

    `fault(when, what, where)` is called before and after each change of cluster or host, and may raise.
    """

    def __init__(self, service: Service, world: World, cluster: Cluster, clock: Clock, door: LabDoor) -> None:
        self.service, self.world, self.cluster, self.clock, self._door = service, world, cluster, clock, door

    @property
    def fault(self) -> Fault:
        return self._door.fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._door.fault = fault

    async def submit(self, strategy: Strategy = Strategy.DRAIN, **more: object) -> Task:
        request = UpgradeRequest(cluster_id=self.cluster.id, image=NEW.id, strategy=strategy, **more)  # type: ignore[arg-type]
        return await self.service.upgrade(request)

    async def crash_everywhere(self, task_id: str) -> tuple[set[object], int]:
        """Crashes at each moment of the walk and on each side of each effect, one after the other, in one task.

        Returns the points that were met, and how often it crashed.
        """
        met: set[object] = set()

        def crash_once(point: object) -> None:
            self.world.write()
            if point not in met:
                met.add(point)
                raise Crash

        self.fault = lambda *point: crash_once(point)
        crashes = 0
        while (await self.service.task(task_id)).status is TaskStatus.RUNNING:
            try:
                await self.drive(crash_once)
            except Crash:
                crashes += 1
            assert crashes < 1000, "the task must come to an end"
        self.fault = lambda *_point: None
        return met, crashes

    async def drive(self, observer: Callable[[Event], None] = lambda _event: None) -> None:
        """Does the work there is, as one process would until its end, or until `observer` crashes it."""
        service = self.service
        runner = Runner(
            service.store,
            service.leases,
            backend=service.backend,
            settings=service.settings,
            clock=self.clock,
            observer=observer,
        )
        try:
            await runner.drive(self.cluster.id)
        except Crash:
            # What the next process does once the lock of the home proves that this one is dead.
            await service.leases.reap("test:")
            raise

    async def task(self, task: Task) -> Task:
        return await self.service.task(task.id)

    def versions(self) -> set[str]:
        return {str(node.version) for node in self.world.nodes.values()}

    def effects_of(self, what: str) -> list[str]:
        return [node for effect, node in self.world.effects if effect == what]


def make_cluster(
    project_id: str,
    nodes: int,
    zones: tuple[str, ...],
    name: str = "lab-1",
    image: Image = OLD,
    *,
    data_only: int = 0,
    masters: Sequence[str] = (),
) -> Cluster:
    """The last `data_only` nodes cannot be elected. `masters`: zones of dedicated masters, one in each, besides `nodes`
    of which then none can be."""
    cluster_id = str(uuid.uuid4())
    now = datetime.now(UTC)
    data_only = nodes if masters else data_only

    def node(number: int, name: str, kind: InstanceType, roles: tuple[str, ...], zone: str) -> Node:
        return Node(
            id=str(uuid.uuid4()),
            cluster_id=cluster_id,
            name=name,
            instance_type=kind,
            roles=roles,
            zone=zone,
            address=f"127.77.0.{number}",
            http_port=9200,
            transport_port=9300,
            image_id=image.id,
        )

    return Cluster(
        id=cluster_id,
        project_id=project_id,
        name=name,
        engine=image.engine,
        version=image.version,
        image_id=image.id,
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=now,
        updated_at=now,
        heap_mib=512,
        nodes=tuple(
            node(
                number,
                f"{name}-ess-esn-{number}-1",
                InstanceType.ESS,
                ("data", "ingest") if number > nodes - data_only else (),
                zones[number % len(zones)],
            )
            for number in range(1, nodes + 1)
        )
        + tuple(
            node(nodes + at, f"{name}-ess-master-{at}-1", InstanceType.MASTER, (master_role(image),), zone)
            for at, zone in enumerate(masters, 1)
        ),
    )


def master_role(image: Image) -> str:
    return "cluster_manager" if image.engine is EngineKind.OPENSEARCH else "master"


@asynccontextmanager
async def open_lab(
    home: Path,
    *,
    nodes: int = 3,
    zones: tuple[str, ...] = ("zone-a",),
    indices: int = 2,
    shards: int = 2,
    replicas: int = 1,
    images: tuple[Image, ...] = (OLD, NEW),
    runs: Image = OLD,
    data_only: int = 0,
    masters: Sequence[str] = (),
    **settings: object,
) -> AsyncIterator[Lab]:
    """In a `VirtualLoop` all of it runs in virtual time; elsewhere a hundred times as fast as real time."""
    virtual = isinstance(asyncio.get_running_loop(), VirtualLoop)
    clock: Clock = VirtualClock() if virtual else FastClock(100)
    # Virtual hours pass in a test, and the lease is not what most tests are about. On a busy machine a fast clock runs
    # far ahead of what the test's own code manages, so bounds are wide.
    bounds: dict[str, object] = {"lease_s": 100_000, "lease_renew_s": 20_000, "drain_timeout_s": 6000}
    bounds |= dict.fromkeys(("handover_timeout_s", "boot_timeout_s", "rejoin_timeout_s"), 300 if virtual else 3000)
    made = Settings(home=home, **{**bounds, **settings})  # type: ignore[arg-type]
    cluster = make_cluster("p" * 32, nodes, zones, image=runs, data_only=data_only, masters=masters)
    specs = [IndexSpec(f"index-{at}", shards, replicas, 100 * MIB) for at in range(indices)]
    world = build_world(cluster, clock, indices=specs)
    door = LabDoor()
    backend = SimBackend(world, images, door)
    async with _service(made, backend, clock, virtual=virtual) as service:
        await service.store.add_project("p" * 32, "lab", clock.now())
        await service.store.add_cluster(cluster)
        yield Lab(service, world, cluster, clock, door)


@asynccontextmanager
async def _service(settings: Settings, backend: SimBackend, clock: Clock, *, virtual: bool) -> AsyncIterator[Service]:
    if not virtual:
        async with open_service(settings, backend=backend, clock=clock, role="test") as service:
            yield service
        return
    path = settings.database_path
    migrate(path)
    database: Database = connect(path, lambda: InlineConnection(path, _NoGate()))
    try:
        yield Service(database, backend, settings, clock, "test:1")
    finally:
        await database.close()
