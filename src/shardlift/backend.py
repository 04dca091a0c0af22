"""Where engines, drivers and images come from: `local` has the real backend, `sim` the simulated one."""

from __future__ import annotations

from typing import Protocol

from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.model import Cluster, Image


class Backend(Protocol):
    """The outside world, as far as runner and service need it."""

    def engine(self, cluster: Cluster) -> Engine:
        """A client of the cluster's REST API; the caller closes it."""

    def driver(self, name: str) -> Driver:
        """The driver of that name. Raises UsageError for an unknown one."""

    def images(self) -> tuple[Image, ...]:
        """All images, best first."""

    def image(self, ref: str) -> Image:
        """By id, display name or `engine:version`. Raises NotFoundError."""
