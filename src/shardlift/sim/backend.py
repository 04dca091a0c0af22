"""The simulated backend: the same door that real engines and hosts stand behind."""

from __future__ import annotations

from shardlift.backend import Backend
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.errors import NotFoundError
from shardlift.model import Cluster, Image, TrafficHook
from shardlift.settings import Settings
from shardlift.sim.balancer import SimBalancer
from shardlift.sim.doors import Door, OpenDoor
from shardlift.sim.driver import SimDriver
from shardlift.sim.engine import SimEngine
from shardlift.sim.world import World
from shardlift.traffic import Balancer


class SimBackend(Backend):
    """Serves one world and a fixed set of images, to one caller who comes through `door`."""

    def __init__(self, world: World, images: tuple[Image, ...], door: Door | None = None) -> None:
        self.world = world
        self._images = images
        self._door = door or OpenDoor()
        self._driver = SimDriver(world, self._door)

    def engine(self, cluster: Cluster) -> Engine:
        del cluster
        return SimEngine(self.world, self._door)

    def driver(self, name: str) -> Driver:
        del name
        return self._driver

    def balancer(self, cluster: Cluster, hook: TrafficHook, settings: Settings) -> Balancer:
        del cluster, hook, settings
        return SimBalancer(self.world, self._door)

    def images(self) -> tuple[Image, ...]:
        return self._images

    def image(self, ref: str) -> Image:
        for image in self._images:
            if ref in {image.id, image.reference, image.display_name}:
                return image
        raise NotFoundError(f"no image {ref!r}", field="image", value=ref, remedy="`shardlift image list` shows them")
