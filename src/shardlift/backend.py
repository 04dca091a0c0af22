"""Where engines, drivers and images come from: `local` has the real ones, `sim` simulated ones, `backends` both."""

from __future__ import annotations

from typing import Protocol

from shardlift.clock import Clock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.model import Cluster, Image, Simulation, TrafficHook
from shardlift.settings import Settings
from shardlift.traffic import Balancer, open_balancer


class Backend(Protocol):
    """The outside world, as far as runner and service need it. What is not overridden fits clusters in real time."""

    def engine(self, cluster: Cluster) -> Engine:
        """A client of the cluster's REST API; the caller closes it."""

    def driver(self, name: str) -> Driver:
        """The driver of that name. Raises UsageError for an unknown one."""

    def images(self) -> tuple[Image, ...]:
        """All images, best first."""

    def image(self, ref: str) -> Image:
        """By id, display name or `engine:version`. Raises NotFoundError."""

    def founded(self, cluster: Cluster, simulation: Simulation | None) -> None:
        """Told of a new cluster before its first node is made. Raises UsageError when it cannot be made so."""
        del cluster, simulation

    def clock(self, cluster: Cluster, real: Clock) -> Clock:
        """What work on the cluster goes by. Leases go by the real one, whatever the cluster is."""
        del cluster
        return real

    def settings(self, cluster: Cluster, given: Settings) -> Settings:
        """The settings for work on the cluster, whose time limits are seconds of its clock."""
        del cluster
        return given

    def balancer(self, cluster: Cluster, hook: TrafficHook, settings: Settings) -> Balancer:
        """The load balancer in front of the cluster, told by this hook of the cluster."""
        del cluster
        return open_balancer(hook, settings)

    def heard(self, cluster: Cluster, what: str, node: str, order: int) -> None:
        """Told of each moment of a task (`executor.Event`). What it raises at `begun` is how that sub-step fails."""
        del cluster, what, node, order
