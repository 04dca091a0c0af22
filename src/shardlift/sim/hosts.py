"""The backend and the driver of a fleet: each call goes to the world of the cluster that it is about."""

from __future__ import annotations

from typing import Protocol

from shardlift.backend import Backend
from shardlift.clock import Clock
from shardlift.driver.protocol import Backup, Driver, ProcessSeen, Restored, Stopped
from shardlift.engine.protocol import Engine
from shardlift.errors import DriverError
from shardlift.model import Cluster, Image, Node, PluginSeen, Simulation
from shardlift.settings import Settings
from shardlift.sim import faults
from shardlift.sim.driver import SimDriver
from shardlift.sim.engine import SimEngine
from shardlift.sim.fleet import Fleet
from shardlift.sim.parts import again

_HTTP_PORT, _TRANSPORT_PORT = 9200, 9300
# A fast cluster's minutes are moments of ours: no limit may be so short that a busy machine alone exceeds it.
_LEAST_S = 30.0
_LIMITS = ("safety_timeout_s", "handover_timeout_s", "boot_timeout_s", "rejoin_timeout_s")


class Images(Protocol):
    """Any catalogue: simulated nodes run every image without its archive."""

    def all(self) -> tuple[Image, ...]: ...

    def find(self, ref: str) -> Image: ...


class FleetBackend(Backend):
    """All clusters of one fleet, each on a clock of its own."""

    def __init__(self, fleet: Fleet, images: Images) -> None:
        self.fleet = fleet
        self._images = images
        self._driver = FleetDriver(fleet)

    def engine(self, cluster: Cluster) -> Engine:
        return SimEngine(self.fleet.site(cluster.id).world)

    def driver(self, name: str) -> Driver:
        del name
        return self._driver

    def images(self) -> tuple[Image, ...]:
        return self._images.all()

    def image(self, ref: str) -> Image:
        return self._images.find(ref)

    def founded(self, cluster: Cluster, simulation: Simulation | None) -> None:
        self.fleet.found(cluster, simulation or Simulation())

    def clock(self, cluster: Cluster, real: Clock) -> Clock:
        del real
        return self.fleet.site(cluster.id).clock

    def settings(self, cluster: Cluster, given: Settings) -> Settings:
        least_s = _LEAST_S * self.fleet.site(cluster.id).clock.speed
        return given.model_copy(update={name: max(getattr(given, name), least_s) for name in _LIMITS})

    def heard(self, cluster: Cluster, what: str, node: str, order: int) -> None:
        if what == "begun":
            faults.strike_step(self.fleet.site(cluster.id), node, order)


class FleetDriver:
    """Finds the world of a node by the id of its cluster. Images need no preparation."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def prepare(self, image: Image) -> None:
        """Nothing is fetched."""

    async def image_ready(self, image: Image) -> bool:
        del image
        return True

    async def java_problem(self, image: Image) -> str | None:
        del image
        return None

    async def allocate(self, count: int, taken: frozenset[str]) -> tuple[tuple[str, int, int], ...]:
        addresses = self._fleet.addresses(count, taken)
        return tuple((address, _HTTP_PORT, _TRANSPORT_PORT) for address in addresses)

    async def create(self, node: Node, image: Image, *, seeds: tuple[Node, ...], heap_mib: int) -> None:
        await self._of(node).create(node, image, seeds=seeds, heap_mib=heap_mib)

    async def process(self, node: Node) -> ProcessSeen | None:
        return await self._of(node).process(node)

    async def start(self, node: Node, *, bootstrap: tuple[str, ...] = ()) -> ProcessSeen:
        process = await self._of(node).start(node, bootstrap=bootstrap)
        faults.started(self._fleet.site(node.cluster_id), node.name)
        return process

    async def stop(self, node: Node, *, timeout_s: float) -> Stopped:
        return await self._of(node).stop(node, timeout_s=timeout_s)

    async def backup(self, node: Node, *, key: str) -> Backup:
        return await self._of(node).backup(node, key=key)

    async def current_image(self, node: Node) -> str | None:
        return await self._of(node).current_image(node)

    async def switch(self, node: Node, image: Image, *, key: str, fresh_data: bool) -> bool:
        return await self._of(node).switch(node, image, key=key, fresh_data=fresh_data)

    async def hand_over(self, source: Node, target: Node, *, key: str) -> bool:
        return await self._of(target).hand_over(source, target, key=key)

    async def restore(self, node: Node, image: Image, *, key: str, zone: str | None = None) -> Restored:
        return await self._of(node).restore(node, image, key=key, zone=zone)

    async def plugins(self, node: Node) -> tuple[PluginSeen, ...]:
        return await self._of(node).plugins(node)

    async def image_plugins(self, image: Image) -> tuple[PluginSeen, ...]:
        del image
        return ()

    async def discard(self, node: Node, *, key: str) -> None:
        """As the last word on a node in a task it also ends what the world remembers of the task."""
        await self._of(node).discard(node, key=key)
        world = self._fleet.site(node.cluster_id).world
        with world.changing():
            mine = world.nodes[node.name]
            mine.backups.discard(key)
            mine.restored.discard(key)
            mine.taken_over.discard(key)
            mine.set_aside.pop(key, None)
            mine.set_aside.pop(again(key), None)

    async def log_tail(self, node: Node, lines: int = 40) -> tuple[str, ...]:
        return await self._of(node).log_tail(node, lines)

    async def delete(self, node: Node) -> None:
        """The cluster's world goes with its last node, and with a world that cannot be used any more."""
        try:
            world = self._fleet.site(node.cluster_id).world
            if node.name not in world.nodes or world.nodes[node.name].extra:
                await self._of(node).delete(node)
                return
            with world.changing():
                # All of the cluster goes, so nothing of it may happen any more.
                world.due.clear()
                world.elected = None
                world.nodes.pop(node.name, None)
        except DriverError:
            self._fleet.forget(node.cluster_id)
            return
        if all(one.extra for one in world.nodes.values()):
            self._fleet.forget(node.cluster_id)

    def _of(self, node: Node) -> SimDriver:
        return SimDriver(self._fleet.site(node.cluster_id).world)
