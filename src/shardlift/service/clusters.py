"""Making and removing clusters. Both act on hosts, so both hold the cluster's lease."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from shardlift.backend import Backend
from shardlift.clock import Clock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.errors import BusyError, DriverError, EngineError, ShardliftError, UsageError
from shardlift.model import Cluster, ClusterStatus, EngineKind, Health, Image, InstanceType, Node
from shardlift.service.requests import CreateCluster
from shardlift.settings import Settings
from shardlift.store import Journal, Lease, Leases, Store
from shardlift.store.codec import spare_from
from shardlift.store.leases import SPARE

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{3,31}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NODES_MAX = 200
_SIMULATED_MAX = 1000
_JOIN_POLL_S = 5.0
_ROUND_S = 0.3
_GIVEN_BACK_S = 3.0
# Names of the CSS contract for data and cold nodes; the other two are ours.
_NODE_NAMES = {
    InstanceType.ESS: "{}-ess-esn-{}-1",
    InstanceType.COLD: "{}-ess-cold-esn-{}-1",
    InstanceType.CLIENT: "{}-ess-client-ecn-{}-1",
    InstanceType.MASTER: "{}-ess-master-emn-{}-1",
}


def validate(request: CreateCluster) -> None:
    """Raises UsageError naming the first field that is wrong."""
    if not _NAME.fullmatch(request.name):
        raise UsageError(
            f"{request.name!r} cannot name a cluster",
            field="name",
            value=request.name,
            remedy="use 4 to 32 letters, digits, - or _, beginning with a letter",
        )
    total = sum(group.count for group in request.groups)
    most = _SIMULATED_MAX if request.driver == "sim" else _NODES_MAX
    if total < 1 or total > most or any(group.count < 1 for group in request.groups):
        raise UsageError(f"a cluster has 1 to {most} nodes", field="nodes", value=total, remedy="ask for that many")
    if not request.zones or not all(_ZONE.fullmatch(zone) for zone in request.zones):
        raise UsageError(
            "a zone's name has 1 to 64 letters, digits, - . or _",
            field="zones",
            value=",".join(request.zones),
            remedy="give zones as a,b,c",
        )
    if len(set(request.zones)) != len(request.zones):
        raise UsageError(
            "a zone is named twice", field="zones", value=",".join(request.zones), remedy="name each zone once"
        )
    if request.simulation is not None and request.driver != "sim":
        raise UsageError(
            "only a simulated cluster is made with data and a speed",
            field="driver",
            value=request.driver,
            remedy="choose the driver sim, or leave them out",
        )


class ClusterMaker:
    """Creates and deletes clusters, whole or not at all."""

    def __init__(self, store: Store, leases: Leases, backend: Backend, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._leases = leases
        self._backend = backend
        self._settings = settings
        self._clock = clock

    async def create(self, request: CreateCluster) -> Cluster:
        """Boots all nodes and waits until they have joined and the cluster is green. Undone whole when that fails."""
        validate(request)
        image = self._backend.image(request.image)
        driver = self._backend.driver(request.driver)
        problem = await driver.java_problem(image)
        if problem is not None:
            raise DriverError(
                f"{image.reference} cannot run here: {problem}",
                remedy=f"install Java {image.java}, or set SHARDLIFT_JAVA_HOMES",
            )
        await driver.prepare(image)
        cluster = await self._lay_out(request, image, driver)
        await self._store.add_cluster(cluster)
        try:
            async with self._owned(cluster.id):
                self._backend.founded(cluster, request.simulation)
                await self._boot(cluster, image, driver)
                await self._store.set_cluster_status(cluster.id, ClusterStatus.AVAILABLE, None, self._clock.now())
        except (ShardliftError, asyncio.CancelledError):
            await asyncio.shield(self._undo(cluster, driver))
            raise
        return await self._store.cluster(cluster.id)

    async def delete(self, cluster: Cluster) -> None:
        """Stops all nodes and removes every file and row of the cluster. Raises BusyError while a task runs on it."""
        if cluster.busy_with is not None:
            raise BusyError(
                f"cluster {cluster.name} is busy: {cluster.busy_with}",
                field="cluster",
                value=cluster.id,
                remedy="wait for its task, or abort it first",
            )
        driver = self._backend.driver(cluster.driver)
        async with self._owned(cluster.id) as lease:
            changes = await Journal(self._store.database, lease).open_changes()
            spares = [spare_from(change.ours) for change in changes if change.kind == SPARE]
            await asyncio.gather(*(driver.delete(node) for node in (*spares, *cluster.nodes)))
            lease.over = True  # it goes with the cluster's row
            await self._store.remove_cluster(cluster.id)

    async def _undo(self, cluster: Cluster, driver: Driver) -> None:
        for node in cluster.nodes:
            with suppress(ShardliftError):
                await driver.delete(node)
        await self._store.remove_cluster(cluster.id)

    async def _lay_out(self, request: CreateCluster, image: Image, driver: Driver) -> Cluster:
        total = sum(group.count for group in request.groups)
        places = iter(await driver.allocate(total, await self._store.addresses()))
        dedicated = any(group.instance_type is InstanceType.MASTER for group in request.groups)
        cluster_id = str(uuid.uuid4())
        nodes = []
        for group in request.groups:
            for number in range(1, group.count + 1):
                address, http_port, transport_port = next(places)
                nodes.append(
                    Node(
                        id=str(uuid.uuid4()),
                        cluster_id=cluster_id,
                        name=_NODE_NAMES[group.instance_type].format(request.name, number),
                        instance_type=group.instance_type,
                        roles=_roles(group.instance_type, image, dedicated=dedicated),
                        zone=request.zones[(number - 1) % len(request.zones)],
                        address=address,
                        http_port=http_port,
                        transport_port=transport_port,
                        image_id=image.id,
                    )
                )
        now = self._clock.now()
        return Cluster(
            id=cluster_id,
            project_id=request.project_id,
            name=request.name,
            engine=image.engine,
            version=image.version,
            image_id=image.id,
            driver=request.driver,
            strategy=request.strategy,
            status=ClusterStatus.CREATING,
            created_at=now,
            updated_at=now,
            heap_mib=request.heap_mib or self._settings.heap_mib,
            nodes=tuple(nodes),
        )

    async def _boot(self, cluster: Cluster, image: Image, driver: Driver) -> None:
        masters = tuple(
            node.name for node in cluster.nodes if not node.roles or {"master", "cluster_manager"} & {*node.roles}
        )
        for node in cluster.nodes:
            await driver.create(node, image, seeds=cluster.nodes, heap_mib=cluster.heap_mib)
        for node in cluster.nodes:
            await driver.start(node, bootstrap=masters)
        engine = self._backend.engine(cluster)
        try:
            await self._joined(cluster, driver, engine)
        finally:
            await engine.close()

    async def _joined(self, cluster: Cluster, driver: Driver, engine: Engine) -> None:
        expected = {node.name for node in cluster.nodes}
        clock = self._backend.clock(cluster, self._clock)
        bound_s = self._backend.settings(cluster, self._settings).boot_timeout_s
        end_s = clock.elapsed_s() + bound_s
        while clock.elapsed_s() < end_s:
            for node in cluster.nodes:
                if await driver.process(node) is None:
                    tail = "\n".join(await driver.log_tail(node))
                    raise DriverError(f"{node.name} ended while it was starting:\n{tail}", remedy="see its log above")
            with suppress(EngineError):
                if {member.name for member in await engine.nodes()} == expected:
                    health = await engine.health(wait_status=Health.GREEN, timeout_s=_JOIN_POLL_S)
                    if health.status is Health.GREEN:
                        return
            await clock.sleep(_ROUND_S)
        tails = "\n".join([line for node in cluster.nodes for line in await driver.log_tail(node, 10)])
        raise DriverError(
            f"the nodes did not form a green cluster within {bound_s:.0f} s:\n{tails}",
            remedy="see the nodes' logs above, or raise SHARDLIFT_BOOT_TIMEOUT_S",
        )

    async def _claimed(self, cluster_id: str) -> Lease | None:
        """The lease, waited for a moment: who has just ended the cluster's task is about to give it back."""
        end_s = self._clock.elapsed_s() + _GIVEN_BACK_S
        mark: int | None = None
        while True:  # ends by the clock
            mark = await self._store.database.wait_change(mark, max(end_s - self._clock.elapsed_s(), 0))
            lease = await self._leases.claim(cluster_id)
            if lease is not None or self._clock.elapsed_s() >= end_s:
                return lease

    @asynccontextmanager
    async def _owned(self, cluster_id: str) -> AsyncIterator[Lease]:
        lease = await self._claimed(cluster_id)
        if lease is None:
            raise BusyError(
                "another process is acting on this cluster",
                field="cluster",
                value=cluster_id,
                remedy="wait a few seconds, then try again",
            )
        async with self._leases.kept(lease, self._settings.lease_renew_s):
            yield lease


def _roles(instance_type: InstanceType, image: Image, *, dedicated: bool) -> tuple[str, ...]:
    """The engine's role words; none means the engine's default (data, ingest and master-eligible)."""
    opensearch_2 = image.engine is EngineKind.OPENSEARCH and image.version.major > 1
    if instance_type is InstanceType.MASTER:
        return ("cluster_manager",) if opensearch_2 else ("master",)
    if instance_type is InstanceType.CLIENT:
        return ("ingest",)
    if instance_type is InstanceType.COLD or dedicated:
        return ("data", "ingest")
    return ()
