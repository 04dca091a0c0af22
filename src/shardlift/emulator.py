"""A server with a simulated cluster that is ready for clients: what `shardlift emulate` and the fixture share."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvicorn

from shardlift.api import create_app
from shardlift.backends import open_backend
from shardlift.errors import ShardliftError, UsageError
from shardlift.model import Cluster, InstanceType, Simulation, Strategy
from shardlift.runner import Runner
from shardlift.serve import read_credentials
from shardlift.service import Service, open_service
from shardlift.service.requests import CreateCluster, Credentials, NodeGroup
from shardlift.settings import Settings
from shardlift.web import http_of

IMAGE = "opensearch:2.19.4"
NAME = "emulated"
_GRACE_S = 2
# Upgrades take seconds here, so a new one should not wait for half of one.
_REST_S = 0.05
_LEASE_S = 60.0
_MEMORY = Path("/dev/shm")  # noqa: S108  (a file system in memory; the folder in it has a name of its own)


@dataclass(frozen=True, slots=True)
class Shape:
    """The cluster that is there from the start."""

    image: str = IMAGE
    groups: tuple[NodeGroup, ...] = (NodeGroup(InstanceType.ESS, 3),)
    zones: tuple[str, ...] = ("zone-a", "zone-b", "zone-c")
    strategy: Strategy = Strategy.DRAIN
    simulation: Simulation = field(default_factory=Simulation)


@dataclass(frozen=True, slots=True)
class Ready:
    """All that a client needs. `sk` and `token` are secrets, of a project that has nothing but simulated clusters."""

    url: str
    project_id: str
    ak: str
    sk: str
    token: str
    cluster_id: str
    cluster_name: str
    home: Path | None = None

    def environment(self) -> Mapping[str, str]:
        """The names that clients of CSS commonly read, and those of the README."""
        home = {} if self.home is None else {"SHARDLIFT_HOME": str(self.home)}
        return home | {
            "CSS_URL": self.url,
            "CSS_PROJECT_ID": self.project_id,
            "CSS_AK": self.ak,
            "CSS_SK": self.sk,
            "CSS_TOKEN": self.token,
            "CSS_CLUSTER_ID": self.cluster_id,
            "HUAWEICLOUD_SDK_AK": self.ak,
            "HUAWEICLOUD_SDK_SK": self.sk,
        }

    def exports(self) -> str:
        """Lines for a shell."""
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items())


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder of our own, in memory where the platform has that; gone at the end with all that is in it."""
    base = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    home = Path(tempfile.mkdtemp(prefix="shardlift-emulate-", dir=base))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def make_ready(service: Service, credentials: Credentials, shape: Shape, home: Path | None = None) -> Ready:
    """Makes the cluster, or finds the one that an earlier run on the same home has made. Raises UsageError."""
    cluster = await _known(service, credentials.project_id) or await service.create_cluster(
        CreateCluster(
            project_id=credentials.project_id,
            name=NAME,
            image=shape.image,
            groups=shape.groups,
            zones=shape.zones,
            driver="sim",
            strategy=shape.strategy,
            simulation=shape.simulation,
        )
    )
    return Ready(
        url=credentials.url,
        project_id=credentials.project_id,
        ak=credentials.ak,
        sk=credentials.sk,
        token=credentials.token,
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        home=home,
    )


async def _known(service: Service, project_id: str) -> Cluster | None:
    page = await service.clusters(project_id)
    found = next((cluster for cluster in page.items if cluster.name == NAME), None)
    if found is not None and found.driver != "sim":
        raise UsageError(
            f"this home has a cluster {NAME} of real nodes",
            field="--home",
            value=str(service.settings.home),
            remedy="give another --home",
        )
    return found


async def credentials_of(service: Service) -> Credentials:
    """The profile that a served home has."""
    return await asyncio.to_thread(read_credentials, service.settings.credentials_path)


@asynccontextmanager
async def emulating(settings: Settings, shape: Shape) -> AsyncIterator[tuple[Service, Ready]]:
    """The whole server in the running loop, without signals: API, runner and a ready cluster, kept in memory.

    `settings.home` holds the database, and should be in memory too.
    """
    backend = open_backend(settings, in_memory=True)
    # Nobody else can take over what is in memory, so leases need not be renewed all the time.
    settings = settings.model_copy(update={"lease_s": _LEASE_S, "lease_renew_s": _LEASE_S / 4})
    async with open_service(settings, backend=backend, role="serve", alone=True) as service:
        credentials = await service.create_project(NAME)
        async with _answering(service) as url, _driving(service):
            yield service, await make_ready(service, replace(credentials, url=url), shape)


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs the loop, and tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # ours has none
        await super().startup(sockets)  # type: ignore[arg-type]
        self.listening.set()


@asynccontextmanager
async def _answering(service: Service) -> AsyncIterator[str]:
    app = create_app(service)
    config = uvicorn.Config(
        app,
        host=service.settings.host,
        port=service.settings.port,
        log_config=None,
        access_log=False,
        http=http_of(app),
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            listening.cancel()
            raise ShardliftError("the server did not start", remedy="see the log above")
        yield f"http://{service.settings.host}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


@asynccontextmanager
async def _driving(service: Service) -> AsyncIterator[None]:
    runner = Runner(
        service.store,
        service.leases,
        backend=service.backend,
        settings=service.settings,
        clock=service.clock,
        rest_s=_REST_S,
    )
    running = [asyncio.create_task(runner.run()), asyncio.create_task(service.routes.run(_REST_S))]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
