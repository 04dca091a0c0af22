"""A home, a cluster and its documents for one run, all gone afterwards whatever happened."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import platformdirs

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.load import INDICES, create_indices, keep_apart, load, share
from shardlift.demo.probe import Probe
from shardlift.demo.verify import Verified, count, verify_probe
from shardlift.errors import EngineError, ShardliftError
from shardlift.images import Catalogue, ImageStore
from shardlift.model import Cluster, Image, InstanceType, Strategy
from shardlift.service import Service, open_service
from shardlift.service.requests import CreateCluster, Credentials, NodeGroup
from shardlift.settings import Settings, load_settings

T = TypeVar("T")
Say = Callable[[str], None]
Pull = Callable[[Settings, Image, ImageStore], None]

_WARM_S = 60.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to boot, what to load, how to upgrade. `keep` leaves cluster and home for a look.

    `zones` are dealt to the nodes in turn; with several of them the copies of a shard lie apart.
    """

    source: str = "opensearch:2.19.4"
    target: str = "opensearch:3.4.0"
    nodes: int = 3
    documents: int = 40_000
    strategy: Strategy = Strategy.DRAIN
    keep: bool = False
    zones: tuple[str, ...] = ("zone-a",)


@dataclass(frozen=True, slots=True)
class Stage:
    """A green cluster with its documents in it, and what is needed to reach it."""

    settings: Settings
    service: Service
    credentials: Credentials
    cluster: Cluster
    target: Image
    documents: int

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.cluster.nodes]


@dataclass(frozen=True, slots=True)
class Probed(Generic[T]):
    """What `act` returned and how long it took, and what the client saw meanwhile."""

    result: T
    wall_s: float
    probe: Probe
    verified: Verified
    loaded: int
    loaded_found: int
    versions: dict[str, str]


@asynccontextmanager
async def staged(options: DemoOptions, pull: Pull, say: Say) -> AsyncIterator[Stage]:
    """Makes it all, and removes it all on the way out. Raises ShardliftError when it cannot be made."""
    home = _new_home()
    try:
        settings = load_settings(home=home)
        source, target = fetch(settings, (options.source, options.target), pull)
        async with open_service(settings) as service, _cluster(service, options, source, say) as (credentials, cluster):
            say(f"loading {options.documents} documents into {len(INDICES)} indices with one replica each")
            async with ClusterClient([node.url for node in cluster.nodes], timeout_s=60, deadline_s=120) as client:
                if len(options.zones) > 1:
                    await keep_apart(client)
                await create_indices(client)
                await load(client, source, options.documents)
            yield Stage(settings, service, credentials, cluster, target, options.documents)
    finally:
        if options.keep:
            say(f"kept, as asked: SHARDLIFT_HOME={home}; `shardlift cluster delete demo` there ends its nodes")
        else:
            shutil.rmtree(home, ignore_errors=True)


def _new_home() -> Path:
    home = Path(tempfile.mkdtemp(prefix="shardlift-demo-"))
    home.chmod(0o755)  # engines may run as another user, who must get in
    return home


def fetch(settings: Settings, references: tuple[str, ...], pull: Pull) -> list[Image]:
    """Pulls the images through a cache that outlives the home, so that a second run needs no network."""
    cache = platformdirs.user_cache_path("shardlift", appauthor=False) / "archives"
    images = [Catalogue(settings.images_path).find(reference) for reference in references]
    for image in images:
        held = cache / image.sha256
        named_elsewhere = ImageStore(settings.images_path)
        store = ImageStore(settings.images_path, cache=cache) if held.is_file() else named_elsewhere
        pull(settings, image, store)
        if not held.is_file():
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                cache.mkdir(parents=True, exist_ok=True)
                part = cache / f"{image.sha256}.part"
                shutil.copyfile(store.archive_path(image), part)
                part.replace(held)
    return images


@asynccontextmanager
async def _cluster(
    service: Service, options: DemoOptions, source: Image, say: Say
) -> AsyncIterator[tuple[Credentials, Cluster]]:
    credentials = await service.create_project("demo")
    say(f"booting {options.nodes} nodes of {source.reference}")
    request = CreateCluster(
        project_id=credentials.project_id,
        name="demo",
        image=source.id,
        groups=(NodeGroup(InstanceType.ESS, options.nodes),),
        zones=options.zones,
        strategy=options.strategy,
    )
    cluster = await service.create_cluster(request)
    try:
        yield credentials, cluster
    finally:
        if not options.keep:
            say("cleaning up: stopping the nodes and removing their files")
            await asyncio.shield(_remove(service, cluster))


async def _remove(service: Service, cluster: Cluster) -> None:
    """Also when a task was left unfinished: this home goes away as a whole, so nobody will finish it."""
    try:
        await service.delete_cluster(cluster.id)
    except ShardliftError:
        driver = service.backend.driver(cluster.driver)
        for node in cluster.nodes:
            await driver.delete(node)


async def under_load(stage: Stage, act: Callable[[], Awaitable[T]], say: Say) -> Probed[T]:
    """Runs `act` while the probe writes and searches, then reads everything back. Raises what `act` raises."""
    async with ClusterClient(stage.urls) as client:
        probe = Probe(client, INDICES)
        stop = asyncio.Event()
        say(f"a client now writes and searches at a fixed rate, on {len(stage.urls)} nodes in turn")
        running = asyncio.create_task(probe.run(stop))
        try:
            async with asyncio.timeout(_WARM_S):
                await probe.warm.wait()
            begin = time.monotonic()
            result = await act()
            wall_s = time.monotonic() - begin
        except TimeoutError as error:
            raise EngineError(
                f"the cluster did not take the client's first writes: {probe.writes.errors[:3]}"
            ) from error
        finally:
            stop.set()
            await running
        say("reading back every acknowledged document, from every copy")
        verified = await verify_probe(client, stage.urls, probe)
        found = [await count(client, index, {"term": {"run.keyword": "loaded"}}) for index in INDICES]
        return Probed(
            result=result,
            wall_s=wall_s,
            probe=probe,
            verified=verified,
            loaded=sum(share(stage.documents, index) for index in INDICES),
            loaded_found=sum(found),
            versions=await versions(client, stage.cluster),
        )


async def versions(client: ClusterClient, cluster: Cluster) -> dict[str, str]:
    """The version that each node reports of itself when it alone is asked."""
    told: dict[str, str] = {}
    for node in cluster.nodes:
        outcome = await client.ask(node.url, Call("GET", "/_nodes/_local?filter_path=nodes.*.version"))
        known = outcome.body.get("nodes", {}) if outcome.ok else {}
        told[node.name] = next((str(seen["version"]) for seen in known.values()), "no answer")
    return told
