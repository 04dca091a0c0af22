"""Nodes that misbehave, as tiny HTTP servers: each answers, resets, hangs or is not there at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    params: dict[str, str]
    body: object


@dataclass(frozen=True)
class Reply:
    """`status` and JSON `body`. `reset`: the connection is cut instead. `hang`: no answer, ever."""

    status: int = 200
    body: object = field(default_factory=dict)
    reset: bool = False
    hang: bool = False
    raw: bytes | None = None


RESET = Reply(reset=True)
HANG = Reply(hang=True)
NO_MASTER = Reply(503, {"error": {"type": "master_not_discovered_exception", "reason": None}, "status": 503})


@dataclass
class FakeNode:
    """`answer` gives the reply to each request; `asked` keeps all requests. `url` is set while it listens."""

    answer: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _request(reader)) is not None:
                self.asked.append(request)
                reply = self.answer(request)
                if reply.reset:
                    writer.transport.abort()
                    return
                if reply.hang:
                    await reader.read()  # until the client gives up
                    return
                body = reply.raw if reply.raw is not None else json.dumps(reply.body).encode()
                head = f"HTTP/1.1 {reply.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
                writer.write(head.encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Asked | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode().split(" ", 2)
    length = 0
    while (header := (await reader.readline()).decode().strip()) != "":
        name, _, value = header.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    body = await reader.readexactly(length)
    parts = urlsplit(target)
    return Asked(method, parts.path, dict(parse_qsl(parts.query)), json.loads(body) if body else None)


def always(reply: Reply) -> Callable[[Asked], Reply]:
    return lambda _asked: reply


def in_turn(*replies: Reply) -> Callable[[Asked], Reply]:
    """Each reply once, the last one for ever."""
    left = list(replies)
    return lambda _asked: left.pop(0) if len(left) > 1 else left[0]


@asynccontextmanager
async def listening(*nodes: FakeNode) -> AsyncIterator[dict[str, str]]:
    """The nodes' endpoints, `n1` and so on, while they listen."""
    servers = []
    for node in nodes:
        server = await asyncio.start_server(node.handle, "127.0.0.1", 0)
        node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        servers.append(server)
    try:
        yield {f"n{at}": node.url for at, node in enumerate(nodes, 1)}
    finally:
        for server in servers:
            server.close()


async def unused_url() -> str:
    """A URL at which nothing listens."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return f"http://127.0.0.1:{port}"
