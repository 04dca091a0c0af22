"""How we serve HTTP: uvicorn on uvloop and httptools, a fraction of the time of its own loop and parser."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

import structlog
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_MAX_BYTES = 64 * 1024
_NEW_OBJECTS = 50_000
T = TypeVar("T")


class Arrivals:
    """Counts requests of the process as they come in: `last` is the number of the newest."""

    last = 0


ARRIVALS = Arrivals()
ARRIVED = "shardlift.arrived"  # in a request's scope: its number

Quick = Callable[[Any], Sequence[bytes] | None]
"""Of a request's ASGI scope: the rest of a 200's head, with the empty line that ends it, and its body; or None."""

_log = structlog.get_logger(__name__)


class BoundedHttp(HttpToolsProtocol):
    """Numbers requests as they come in, and bounds what is before, between and behind the parts of a body: httptools
    itself bounds none of it."""

    quick: ClassVar[Quick | None] = None
    _waiting: ClassVar[list[tuple[BoundedHttp, RequestResponseCycle, Any]]]
    _head: ClassVar[tuple[object, bytes]] = (None, b"")

    _bare_bytes = 0  # received since the last part of a body, or the last end of a request

    def on_headers_complete(self) -> None:
        ARRIVALS.last += 1
        self.scope[ARRIVED] = ARRIVALS.last  # type: ignore[literal-required]  # an extension of ours
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self.quick is None or app is not self.app or not cycle.keep_alive or self.pipeline or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
            return
        # Looked at together with all others that are ready now: what must be asked for them is asked once.
        if not self._waiting:
            self.loop.call_soon(self._answer_waiting)
        self._waiting.append((self, cycle, app))

    @classmethod
    def _answer_waiting(cls) -> None:
        waiting = cls._waiting[:]
        cls._waiting.clear()
        for protocol, cycle, app in waiting:
            protocol.answer(cycle, app)

    def answer(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answers at once, or starts the app."""
        answer = None
        try:
            answer = type(self).quick(cycle.scope)  # type: ignore[misc]
        except Exception:  # noqa: BLE001  (the app is there for what goes wrong, and has its own way to tell)
            _log.exception("quick_answer_crashed", path=cycle.scope["path"])
        if answer is None:
            super()._start_asgi_task(cycle, app)
        elif not self.transport.is_closing():
            self.transport.writelines([self._head_of(), *answer])
            cycle.response_started = cycle.response_complete = True
            cycle.message_event.set()
            cycle.on_response()

    def _head_of(self) -> bytes:
        """The status line and what uvicorn puts into each answer; its headers are another list each second."""
        told = self.server_state.default_headers
        known, head = self._head
        if known is not told:
            head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b: %b\r\n" % header for header in told)
            type(self)._head = (told, head)  # noqa: SLF001  (its own)
        return head

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


def http_of(app: Any) -> type[BoundedHttp]:
    """The protocol for one app, served by one loop, that may have quick answers."""
    quick = getattr(app, "quick", None)
    if quick is None:
        return BoundedHttp
    return type("QuickHttp", (BoundedHttp,), {"quick": staticmethod(quick), "_waiting": []})


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
