"""How we serve HTTP: uvicorn on uvloop and httptools, a fraction of the time of its own loop and parser."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX_BYTES = 64 * 1024
_NEW_OBJECTS = 50_000
T = TypeVar("T")


class Arrivals:
    """Counts requests of the process as they come in: `last` is the number of the newest."""

    last = 0


ARRIVALS = Arrivals()
ARRIVED = "shardlift.arrived"  # in a request's scope: its number


class BoundedHttp(HttpToolsProtocol):
    """Numbers requests as they come in, and bounds what is before, between and behind the parts of a body: httptools
    itself bounds none of it."""

    _bare_bytes = 0  # received since the last part of a body, or the last end of a request

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        ARRIVALS.last += 1
        self.scope[ARRIVED] = ARRIVALS.last  # type: ignore[literal-required]  # an extension of ours

    def data_received(self, data: bytes) -> None:
        self._bare_bytes += len(data)
        super().data_received(data)
        if self._bare_bytes > HEAD_MAX_BYTES and not self.transport.is_closing():
            self.send_400_response(f"Request line and headers are larger than {HEAD_MAX_BYTES} bytes.")

    def on_body(self, body: bytes) -> None:
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._bare_bytes = 0
        super().on_message_complete()


def settle() -> None:
    """To be called once all is loaded: what is there by then stays, so the collector need not look through it again.

    A request leaves little behind for the collector; looking for it after each few of them took a tenth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 20)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like asyncio.run, on the loop that we serve with."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
