"""The real backend: engines on this machine."""

from __future__ import annotations

from collections.abc import Callable

from shardlift.backend import Backend
from shardlift.driver import LocalDriver
from shardlift.driver.protocol import Driver
from shardlift.engine import Engine, open_engine
from shardlift.errors import UsageError
from shardlift.images import Catalogue, ImageStore
from shardlift.model import Cluster, Image
from shardlift.settings import Settings


class LocalBackend(Backend):
    """Real engines on this machine."""

    def __init__(self, catalogue: Catalogue, drivers: dict[str, Callable[[], Driver]]) -> None:
        self._catalogue = catalogue
        self._makers = drivers
        self._drivers: dict[str, Driver] = {}

    def engine(self, cluster: Cluster) -> Engine:
        return open_engine(cluster.nodes)

    def driver(self, name: str) -> Driver:
        if name not in self._makers:
            raise UsageError(
                f"no driver {name!r}", field="driver", value=name, remedy=f"choose one of: {', '.join(self._makers)}"
            )
        if name not in self._drivers:
            self._drivers[name] = self._makers[name]()
        return self._drivers[name]

    def images(self) -> tuple[Image, ...]:
        return self._catalogue.all()

    def image(self, ref: str) -> Image:
        return self._catalogue.find(ref)


def local_backend(settings: Settings) -> LocalBackend:
    """Real engines with the images and nodes of this home."""
    images = ImageStore(settings.images_path)
    return LocalBackend(Catalogue(settings.images_path), {"local": lambda: LocalDriver(settings, images)})
