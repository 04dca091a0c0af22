"""A real cluster for a test: nodes of one image on this machine, in a home of their own, gone when the test ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from shardlift.driver.local import LocalDriver
from shardlift.engine import RestEngine, open_engine
from shardlift.images import Catalogue, ImageStore
from shardlift.model import Health, Image, InstanceType, Node
from shardlift.settings import Settings

_BOOT_TIMEOUT_S = 300
_STOP_TIMEOUT_S = 60
_HEAP_MIB = 512


@contextmanager
def real_home() -> Iterator[Path]:
    """An empty home that the engines' user can enter. Removed in the end."""
    home = Path(tempfile.mkdtemp(prefix="shardlift-test-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def shared_images() -> Path:
    """Where tests keep unpacked engines from run to run: what is there was verified when it was pulled."""
    path = Path(tempfile.gettempdir()) / f"shardlift-test-images-{os.getuid()}"
    path.mkdir(mode=0o755, exist_ok=True)
    if path.stat().st_uid != os.getuid() or path.is_symlink():
        raise RuntimeError(f"{path} belongs to somebody else: engines unpacked there cannot be trusted")
    return path


def linked_images(home: Path, *references: str) -> Path:
    """A folder of images for one test alone, to change what is in them; the files themselves are shared, not copied."""
    shared, own = shared_images(), home / "images"
    store, mine = ImageStore(shared), ImageStore(own)
    for image in (Catalogue(shared).find(reference) for reference in references):
        store.pull(image)
        store.unpack(image)
        shutil.copytree(store.engine_path(image.id), mine.engine_path(image.id), copy_function=os.link, symlinks=True)
        mine.archive_path(image).parent.mkdir(exist_ok=True)
        os.link(store.archive_path(image), mine.archive_path(image))
    return own


@dataclass
class RealCluster:
    """Running nodes, their driver and their engine. `image`: what they run, from the folder `images`."""

    home: Path
    images: Path
    image: Image
    nodes: tuple[Node, ...]
    driver: LocalDriver
    engine: RestEngine

    async def start(self, node: Node) -> None:
        """Starts the node and waits until it is a member of the green or yellow cluster."""
        await self.driver.start(node)
        await self._joined(node)

    async def stop(self, node: Node) -> None:
        await self.driver.stop(node, timeout_s=_STOP_TIMEOUT_S)

    async def boot(self) -> None:
        """First start of all nodes, until the cluster is whole and green."""
        await self.create()
        await self.start_first(*self.nodes)

    async def create(self) -> None:
        await self.driver.prepare(self.image)
        for node in self.nodes:
            await self.driver.create(node, self.image, seeds=self.nodes, heap_mib=_HEAP_MIB)

    async def start_first(self, *nodes: Node) -> None:
        """First start of these nodes at once, until each is a member and the cluster is green."""
        names = tuple(node.name for node in self.nodes)
        for node in nodes:
            await self.driver.start(node, bootstrap=names)
        for node in nodes:
            await self._joined(node)
        await self.engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=60)

    def yml(self, node: Node) -> Path:
        """The node's settings, for an operator to edit."""
        return self.home / "nodes" / node.cluster_id / node.name / "config" / f"{self.image.engine}.yml"

    async def delete(self) -> None:
        for node in self.nodes:
            await self.driver.delete(node)
        await self.engine.close()

    async def tell(self) -> None:
        """Prints the end of each node's log, for a test that failed."""
        for node in self.nodes:
            tail = "\n".join(await self.driver.log_tail(node, lines=30))
            print(f"---- log of {node.name} ----\n{tail}", file=sys.stderr)

    async def _joined(self, node: Node) -> None:
        """Nothing tells from outside when an HTTP port opens, so this asks, ever less often."""
        pause_s = 0.1
        async with asyncio.timeout(_BOOT_TIMEOUT_S):
            while not await self._is_member(node):
                if await self.driver.process(node) is None:
                    raise AssertionError(f"{node.name} ended before it joined")
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.3, 1)

    async def _is_member(self, node: Node) -> bool:
        if not await self.engine.answers(node.name):
            return False
        return node.name in {seen.name for seen in await self.engine.nodes()}


@asynccontextmanager
async def real_cluster(
    reference: str = "opensearch:2.19.4",
    *,
    count: int = 3,
    images_at: Callable[[Path], Path] = lambda _home: shared_images(),
    boot: Callable[[RealCluster], Awaitable[None]] = RealCluster.boot,
) -> AsyncIterator[RealCluster]:
    """A booted, green cluster of `count` nodes in zones a, b, c. All its processes and files go, whatever happens.

    `images_at` names the folder of images, given the home; `boot` starts the nodes in another way.
    """
    with real_home() as home:
        settings = Settings(home=home)
        images = images_at(home)
        driver = LocalDriver(settings, ImageStore(images))
        image = Catalogue(images).find(reference)
        cluster_id = str(uuid.uuid4())
        nodes = tuple(
            Node(
                id=str(uuid.uuid4()),
                cluster_id=cluster_id,
                name=f"test-{at}",
                instance_type=InstanceType.ESS,
                roles=(),
                zone="abc"[(at - 1) % 3],
                address=address,
                http_port=http_port,
                transport_port=transport_port,
                image_id=image.id,
            )
            for at, (address, http_port, transport_port) in enumerate(await driver.allocate(count, set()), 1)
        )
        cluster = RealCluster(home, images, image, nodes, driver, open_engine(nodes))
        try:
            await boot(cluster)
            yield cluster
        except BaseException:
            await cluster.tell()
            raise
        finally:
            await cluster.delete()
