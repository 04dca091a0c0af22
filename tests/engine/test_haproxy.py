"""A real HAProxy in front of real nodes: a client that knows HAProxy alone, and never asks twice, misses nothing."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shardlift.demo.client import Call, ClusterClient, Outcome
from shardlift.demo.load import INDICES
from shardlift.demo.probe import Probe
from shardlift.demo.verify import count, verify_probe
from shardlift.model import Strategy, TrafficHook
from shardlift.model.hooks import HookKind
from shardlift.service.requests import RestartRequest, UpgradeRequest
from tests.engine.moving import Moving, ess, moving, say

pytestmark = [pytest.mark.moves, pytest.mark.timeout(900)]

_BACKEND = "opensearch"
_WARM_S = 60
_REMOVAL, _REJOIN = 3, 11
# No `retries` and no `redispatch`: what HAProxy would try again for the client is not to hide a failure here.
_CONFIG = """\
global
    stats socket {socket} mode 600 level admin

defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s

frontend clients
    bind {address}:{port}
    default_backend {backend}

backend {backend}
    option httpchk GET /_cluster/health?local=true
    default-server check inter 1s fall 2 rise 2
{servers}
"""


class OnceOnly(ClusterClient):
    """Sends each call once, and never again whatever becomes of it.

    Documents are put under ids of their own, not created: should a primary stop under a create, the engine itself sends
    it to the next one, and may tell the client that the document is there already, which it wrote.
    """

    def __init__(self, url: str) -> None:
        super().__init__([url], timeout_s=60, deadline_s=0)
        self.calls = 0

    async def call(self, call: Call, *, good: Callable[[Any], bool] | None = None) -> Outcome:
        self.calls += 1
        return await super().call(Call(call.method, call.again_path or call.path, call.body), good=good)


@dataclass(frozen=True)
class Balancer:
    """A running HAProxy: where clients ask, and its runtime socket."""

    url: str
    socket: Path

    async def say(self, command: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(f"{command}\n".encode())
        await writer.drain()
        answer = (await reader.read()).decode()
        writer.close()
        return answer

    async def states(self) -> dict[str, tuple[str, str]]:
        """Operational and administrative state of each server, as HAProxy has it."""
        head, *rows = (await self.say(f"show servers state {_BACKEND}")).partition("# ")[2].splitlines()
        lines = [dict(zip(head.split(), row.split(), strict=False)) for row in rows if row.strip()]
        return {line["srv_name"]: (line["srv_op_state"], line["srv_admin_state"]) for line in lines}


def haproxy() -> str:
    """Never skipped: a run without it would prove nothing of it."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.fail(
            "HAProxy is not installed: it is Debian's package haproxy (`apt-get install haproxy`)", pytrace=False
        )
    return found


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def balancer_of(at: Moving) -> AsyncIterator[Balancer]:
    home, address = at.stage.settings.home, "127.0.0.1"
    made = Balancer(f"http://{address}:{free_port(address)}", home / "haproxy.sock")
    servers = "\n".join(
        f"    server s{number} {node.address}:{node.http_port}" for number, node in enumerate(at.stage.cluster.nodes, 1)
    )
    config = _CONFIG.format(
        socket=made.socket, address=address, port=made.url.rpartition(":")[2], backend=_BACKEND, servers=servers
    )
    (home / "haproxy.cfg").write_text(config)
    with (home / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(haproxy(), "-db", "-f", str(home / "haproxy.cfg")), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(20):
            while not made.socket.exists():
                assert process.returncode is None, (home / "haproxy.log").read_text()
                await asyncio.sleep(0.05)
            while any(state != ("2", "0") for state in (await made.states()).values()):  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.05)
        yield made
    finally:
        process.terminate()
        await process.wait()
        say((home / "haproxy.log").read_text()[-3000:])


async def probed(at: Moving, balancer: Balancer, act: Callable[[], Awaitable[object]]) -> Probe:
    """What the client saw through HAProxy while that was done. All that was acknowledged is there, on every copy."""
    async with OnceOnly(balancer.url) as client, ClusterClient(at.stage.urls, timeout_s=60) as reader:
        probe, stop = Probe(client, INDICES), asyncio.Event()
        running = asyncio.create_task(probe.run(stop))
        try:
            async with asyncio.timeout(_WARM_S):
                await probe.warm.wait()
            await act()
        finally:
            stop.set()
            await running
        assert client.calls == probe.writes.sent + probe.searches.sent, "each was sent once"
        verified = await verify_probe(reader, at.stage.urls, probe)
        loaded = sum([await count(reader, index, {"term": {"run.keyword": "loaded"}}) for index in INDICES])
    say(
        f"{probe.writes.sent} writes, {probe.searches.sent} searches, failed {probe.writes.failed} and "
        f"{probe.searches.failed}; {verified}; {loaded} loaded documents; {probe.writes.failures[:3]}"
    )
    assert verified.good, verified
    assert loaded == at.stage.documents
    assert len(probe.acknowledged) > 100, "the client was there"
    return probe


@pytest.mark.parametrize("strategy", [Strategy.IN_PLACE, Strategy.DRAIN])
async def test_a_client_that_never_retries_misses_nothing_of_an_upgrade(strategy: Strategy) -> None:
    haproxy()
    async with moving(ess(3), zones=("zone-a",), target="opensearch:3.4.0") as at, balancer_of(at) as balancer:
        service, cluster = at.stage.service, at.stage.cluster
        if strategy is Strategy.IN_PLACE:  # once is enough: a test that cannot fail would show nothing
            await service.restart(RestartRequest(cluster.id, "node", cluster.nodes[0].id))
            seen = await probed(at, balancer, at.drive)
            assert seen.writes.failed + seen.searches.failed > 0, "without a hook such a client does see a node stop"
            at.events.clear()

        hook = TrafficHook(HookKind.HAPROXY, socket=str(balancer.socket), backends=(_BACKEND,))
        await service.set_hook(cluster.id, hook)

        async def act() -> None:
            await service.upgrade(UpgradeRequest(cluster.id, at.stage.target.id, strategy=strategy))
            await at.drive()

        seen = await probed(at, balancer, act)
        assert (seen.writes.failed, seen.searches.failed) == (0, 0), seen.writes.failures + seen.searches.failures
        assert set((await balancer.states()).values()) == {("2", "0")}, "all are led to again"
        versions = {one["version"] for one in (await at.rest("GET", "/_nodes"))["nodes"].values()}
        assert versions == {"3.4.0"}
        for row in (await at.task()).steps:
            if row.order in (_REMOVAL, _REJOIN):
                assert "opensearch/s" in str(row.evidence["hook_said"]), row
