"""Runs the API under uvicorn on a free port of this machine, for clients that block.

In a thread of its own for a service in memory, or in the test's own loop for a service that is bound to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from shardlift.web import http_of

_PATIENCE_S = 30


class _Server(uvicorn.Server):
    """Tells when it listens, so that nobody has to look again and again."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host="127.0.0.1",
                port=0,
                http=http_of(app),
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=_PATIENCE_S,
            )
        )
        self.listening = threading.Event()

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Base URL of the running app. The server has ended when this does."""
    server = _Server(app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        assert server.listening.wait(_PATIENCE_S), "the server did not start"
        yield server.url
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "the server did not end"


@asynccontextmanager
async def served_here(app: FastAPI) -> AsyncIterator[str]:
    """The same in the running loop: call blocking clients through `asyncio.to_thread`."""
    server = _Server(app)
    serving = asyncio.create_task(server.serve())
    try:
        assert await asyncio.to_thread(server.listening.wait, _PATIENCE_S), "the server did not start"
        yield server.url
    finally:
        server.should_exit = True
        await serving
