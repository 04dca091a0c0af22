"""HAProxy, told by its runtime API: https://docs.haproxy.org/2.6/management.html#9.3

One command a connection, as text, and the answer until HAProxy closes. A node leaves by `drain`: health checks go on,
so HAProxy itself knows when the node serves again; requests that it has begun end in peace.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from shardlift.errors import HookError
from shardlift.model import Node

_ANSWER_MAX_BYTES = 8 << 20
_RUNNING = 2
_LOOK_FIRST_S, _LOOK_LAST_S = 0.05, 0.5


@dataclass(frozen=True, slots=True)
class Server:
    """One line of `show servers state`. `forced`: not there by its configuration and checks alone."""

    backend: str
    name: str
    address: str
    port: int
    running: bool
    forced: bool

    @property
    def serving(self) -> bool:
        return self.running and not self.forced

    @property
    def path(self) -> str:
        return f"{self.backend}/{self.name}"


class Haproxy:
    """`socket`: absolute path or HOST:PORT of a runtime socket with `level admin`. `timeout_s` bounds each method.

    A node's server is the one with the node's address and HTTP port; where none has them, the one with its name.
    """

    def __init__(self, socket: str, backends: tuple[str, ...], timeout_s: float) -> None:
        self._socket = socket
        self._backends = backends
        self._timeout_s = timeout_s

    async def servers(self) -> tuple[Server, ...]:
        """All servers of the backends."""
        async with self._bounded():
            return await self._servers()

    async def pools(self, node: Node) -> tuple[str, ...] | None:
        async with self._bounded():
            return tuple(server.backend for server in self._of(node, await self._servers()) if not server.forced)

    async def remove(self, node: Node, pools: tuple[str, ...] | None) -> str:
        async with self._bounded():
            known = await self._servers()
            mine = [server for server in self._of(node, known) if pools is None or server.backend in pools]
            for server in mine:
                if not any(one.serving for one in known if one.backend == server.backend and one != server):
                    raise HookError(
                        f"{node.name} is the last server that HAProxy's backend {server.backend} leads clients to",
                        remedy="see why the others are down (`show servers state`), then retry",
                    )
            for server in mine:
                await self._set(server, "drain")
            await self._until(mine, lambda server: server.forced)
            return f"HAProxy drains {_names(mine)}"

    async def put_back(self, node: Node, pools: tuple[str, ...] | None) -> str:
        mine: list[Server] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                known = await self._servers()
                mine = [server for server in self._of(node, known) if pools is None or server.backend in pools]
                for server in mine:
                    await self._set(server, "ready")
                await self._until(mine, lambda server: server.serving)
        except TimeoutError:
            down = f" although {_names(mine)} was told to be ready: its health check fails" if mine else ""
            raise HookError(
                f"HAProxy leads no clients to {node.name} after {self._timeout_s:g} s{down}",
                remedy="see the server's check in HAProxy's log, then retry",
            ) from None
        return f"HAProxy leads clients to {_names(mine)} again"

    async def sessions(self, node: Node) -> int | None:
        async with self._bounded():
            mine = {server.path for server in self._of(node, await self._servers())}
            answers = [await self._ask(f"show stat {backend} 4 -1") for backend in self._backends]
            return sum(_sessions(answer, mine) for answer in answers)

    # asking

    def _of(self, node: Node, known: Iterable[Server]) -> list[Server]:
        found = []
        for backend in self._backends:
            here = [server for server in known if server.backend == backend]
            mine = [server for server in here if (server.address, server.port) == (node.address, node.http_port)]
            mine = mine or [server for server in here if server.name == node.name]
            if not mine:
                raise HookError(
                    f"HAProxy's backend {backend} has no server {node.address}:{node.http_port}, nor one named "
                    f"{node.name}",
                    remedy="add it there, or name with --types which nodes clients are led to",
                )
            found += mine
        return found

    async def _servers(self) -> tuple[Server, ...]:
        found: list[Server] = []
        for backend in self._backends:
            found += _parsed(await self._ask(f"show servers state {backend}"), backend)
        return tuple(found)

    async def _set(self, server: Server, state: str) -> None:
        said = (await self._ask(f"set server {server.path} state {state}")).strip()
        if said:
            raise HookError(
                f"HAProxy did not set {server.path} to {state}: {said[:200]}",
                remedy="its socket must be one with `level admin` in HAProxy's configuration",
            )

    async def _until(self, mine: list[Server], good: Callable[[Server], bool]) -> None:
        """Reads back what was set. The caller's time limit ends it."""
        paths, pause_s = {server.path for server in mine}, _LOOK_FIRST_S
        while not all(good(server) for server in await self._servers() if server.path in paths):
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LOOK_LAST_S)

    async def _ask(self, command: str) -> str:
        try:
            if self._socket.startswith("/"):
                reader, writer = await asyncio.open_unix_connection(self._socket)
            else:
                host, _, port = self._socket.rpartition(":")
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError as error:
            raise HookError(
                f"HAProxy's runtime socket {self._socket} cannot be reached: {error.strerror or type(error).__name__}",
                remedy="see `stats socket` in HAProxy's configuration, and whether the server's user may use it",
            ) from None
        try:
            writer.write(f"{command}\n".encode())
            await writer.drain()
            answer = await _all_of(reader)
        except OSError as error:
            raise HookError(f"HAProxy broke the connection: {error.strerror or type(error).__name__}") from None
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return answer.decode("utf-8", "replace")

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise HookError(
                f"HAProxy did not do within {self._timeout_s:g} s what {self._socket} was asked for",
                remedy="see whether HAProxy works, then retry",
            ) from None


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while chunk := await reader.read(65_536):
        answer += chunk
        if len(answer) > _ANSWER_MAX_BYTES:
            raise HookError(f"HAProxy answers with more than {_ANSWER_MAX_BYTES >> 20} MiB")
    return bytes(answer)


def _parsed(answer: str, backend: str) -> list[Server]:
    """`show servers state`: a version, a line of names behind `#`, then a line of words for each server."""
    _, mark, table = answer.partition("#")
    head, *lines = table.splitlines() or [""]
    if not mark:
        raise HookError(
            f"HAProxy does not show the servers of {backend}: {answer.strip()[:200]}",
            remedy="see whether HAProxy has a backend of that name",
        )
    rows = [dict(zip(head.split(), line.split(), strict=False)) for line in lines if line.strip()]
    try:
        return [
            Server(
                backend=row["be_name"],
                name=row["srv_name"],
                address=row["srv_addr"],
                port=int(row["srv_port"]),
                running=int(row["srv_op_state"]) == _RUNNING,
                forced=int(row["srv_admin_state"]) != 0,
            )
            for row in rows
        ]
    except (KeyError, ValueError):
        raise HookError(
            f"HAProxy's answer about {backend} is not understood", remedy="use HAProxy 2.2 or newer"
        ) from None


def _sessions(answer: str, paths: set[str]) -> int:
    """Running and queued ones of these servers, from the CSV of `show stat`."""
    rows = csv.DictReader(io.StringIO(answer.removeprefix("# ")))
    try:
        return sum(
            int(row["scur"] or 0) + int(row["qcur"] or 0) for row in rows if f"{row['pxname']}/{row['svname']}" in paths
        )
    except (KeyError, ValueError, TypeError):
        raise HookError("HAProxy's statistics are not understood", remedy="use HAProxy 2.2 or newer") from None


def _names(servers: list[Server]) -> str:
    return ", ".join(server.path for server in servers) or "no server"
