"""A real HAProxy in front of real nodes: a client that knows HAProxy alone, and never asks twice, misses nothing."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shardlift.demo.client import Call, ClusterClient, Outcome
from shardlift.demo.load import INDICES
from shardlift.demo.probe import Probe
from shardlift.demo.verify import count, verify_probe
from shardlift.errors import HookError
from shardlift.model import Node, Strategy, TrafficHook
from shardlift.model.hooks import HookKind
from shardlift.service.requests import RestartRequest, UpgradeRequest
from shardlift.traffic.haproxy import Haproxy
from tests.engine.cluster import real_home
from tests.engine.moving import OLD, Moving, ess, moving, say
from tests.observations import CLUSTER

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
async def balancer_of(home: Path, nodes: Sequence[Node]) -> AsyncIterator[Balancer]:
    """HAProxy in front of these nodes, which it has found healthy."""
    address = "127.0.0.1"
    made = Balancer(f"http://{address}:{free_port(address)}", home / "haproxy.sock")
    servers = "\n".join(f"    server s{number} {node.address}:{node.http_port}" for number, node in enumerate(nodes, 1))
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


def balancer_for(at: Moving) -> AbstractAsyncContextManager[Balancer]:
    return balancer_of(at.stage.settings.home, at.stage.cluster.nodes)


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


class Stub:
    """Something with a node's address that answers health checks at once, and anything else when it is let."""

    def __init__(self) -> None:
        self.let, self.asked = asyncio.Event(), asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/_cluster/health" not in head:
                self.asked.set()
                await self.let.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a health check that has seen enough
        finally:
            writer.close()


async def test_haproxy_itself_does_as_the_hook_expects() -> None:
    stubs = [Stub() for _ in CLUSTER.nodes]
    async with AsyncExitStack() as stack:
        home = stack.enter_context(real_home())
        nodes, servers = [], []
        for at, (node, stub) in enumerate(zip(CLUSTER.nodes, stubs, strict=True)):
            server = await asyncio.start_server(stub.answer, f"127.0.0.{at + 2}", 0)
            await stack.enter_async_context(server)
            servers.append(server)
            nodes.append(replace(node, address=f"127.0.0.{at + 2}", http_port=server.sockets[0].getsockname()[1]))
        balancer = await stack.enter_async_context(balancer_of(home, nodes))
        hook = Haproxy(str(balancer.socket), (_BACKEND,), 10)
        client = await stack.enter_async_context(OnceOnly(balancer.url))
        assert await hook.pools(nodes[0]) == (_BACKEND,)

        # Roundrobin: of three calls at once each server has one.
        calls = [asyncio.create_task(client.call(Call("GET", "/books"))) for _ in nodes]
        async with asyncio.timeout(20):
            for stub in stubs:
                await stub.asked.wait()
        assert await hook.sessions(nodes[0]) == 1
        await hook.remove(nodes[0], None)
        assert (await balancer.states())["s1"] == ("2", "8"), "drained, and its health checks go on"
        assert await hook.pools(nodes[0]) == ()
        assert await hook.sessions(nodes[0]) == 1, "a request that was begun goes on"
        for stub in stubs:
            stub.let.set()
            stub.asked.clear()
        assert all([(await call).ok for call in calls])
        assert await hook.sessions(nodes[0]) == 0
        assert all([(await client.call(Call("GET", "/books"))).ok for _ in range(12)])
        assert [stub.asked.is_set() for stub in stubs] == [False, True, True]

        await hook.remove(nodes[1], None)
        with pytest.raises(HookError, match="last server"):
            await hook.remove(nodes[2], None)
        await hook.put_back(nodes[0], None)
        await hook.put_back(nodes[1], None)
        assert set((await balancer.states()).values()) == {("2", "0")}

        await hook.remove(nodes[0], None)
        servers[0].close()
        async with asyncio.timeout(20):
            while (await balancer.states())["s1"][0] == "2":  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.05)
        with pytest.raises(HookError, match="health check fails"):
            await Haproxy(str(balancer.socket), (_BACKEND,), 2).put_back(nodes[0], None)
        with pytest.raises(HookError, match="does not show the servers of other"):
            await Haproxy(str(balancer.socket), ("other",), 2).servers()


@pytest.mark.parametrize("strategy", [Strategy.IN_PLACE, Strategy.DRAIN])
async def test_a_client_that_never_retries_misses_nothing_of_an_upgrade(strategy: Strategy) -> None:
    haproxy()
    async with moving(ess(3), zones=("zone-a",), way=(OLD, "opensearch:3.4.0")) as at, balancer_for(at) as balancer:
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
