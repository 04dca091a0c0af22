"""The usual backend: real clusters on this machine, and simulated ones beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardlift.backend import Backend
from shardlift.clock import Clock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.errors import UsageError
from shardlift.images import Catalogue
from shardlift.model import Cluster, Image, Simulation, TrafficHook
from shardlift.settings import Settings
from shardlift.sim import Fleet, FleetBackend
from shardlift.traffic import Balancer

if TYPE_CHECKING:
    from shardlift.local import LocalBackend

_SIM = "sim"
_DRIVERS = ("local", _SIM)


class Backends(Backend):
    """Each cluster goes to the backend that its driver names; images are those of the home's catalogue for both."""

    def __init__(self, settings: Settings, fleet: Fleet) -> None:
        self.fleet = fleet
        self._given = settings
        self._catalogue = Catalogue(settings.images_path)
        self._sim = FleetBackend(fleet, self._catalogue)
        self._real: LocalBackend | None = None

    def engine(self, cluster: Cluster) -> Engine:
        return self._of(cluster.driver).engine(cluster)

    def driver(self, name: str) -> Driver:
        return self._of(name).driver(name)

    def images(self) -> tuple[Image, ...]:
        return self._catalogue.all()

    def image(self, ref: str) -> Image:
        return self._catalogue.find(ref)

    def founded(self, cluster: Cluster, simulation: Simulation | None) -> None:
        self._of(cluster.driver).founded(cluster, simulation)

    def clock(self, cluster: Cluster, real: Clock) -> Clock:
        return self._of(cluster.driver).clock(cluster, real)

    def settings(self, cluster: Cluster, given: Settings) -> Settings:
        return self._of(cluster.driver).settings(cluster, given)

    def balancer(self, cluster: Cluster, hook: TrafficHook, settings: Settings) -> Balancer:
        return self._of(cluster.driver).balancer(cluster, hook, settings)

    def heard(self, cluster: Cluster, what: str, node: str, order: int) -> None:
        self._of(cluster.driver).heard(cluster, what, node, order)

    def _of(self, driver: str) -> Backend:
        if driver not in _DRIVERS:
            raise UsageError(
                f"no driver {driver!r}", field="driver", value=driver, remedy=f"choose one of: {', '.join(_DRIVERS)}"
            )
        if driver == _SIM:
            return self._sim
        if self._real is None:
            # Imported here because the REST client is slow to load, and simulated clusters do not need it.
            from shardlift.local import local_backend  # noqa: PLC0415

            self._real = local_backend(self._given)
        return self._real


def open_backend(settings: Settings, *, in_memory: bool = False) -> Backends:
    """Of this home. `in_memory`: simulated clusters end with the process, and no other process sees them."""
    return Backends(settings, Fleet(None if in_memory else settings.sim_path))
