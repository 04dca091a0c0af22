"""One way to ask a cluster something: whichever of its nodes answers, within a bound, or an error that tells all.

A call goes to the node that answered last. A node that refuses or resets the connection, stays silent for its share of
the time, or answers 5xx, hands the call to the next one; any other answer ends it. As long as some node is alive but
cannot answer (no elected master, shutting down), the nodes are asked again with a growing pause until time is up.
Asking twice is safe because everything that `RestEngine` sends may be sent twice: it sets, clears or reads.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from opensearchpy import AIOHttpConnection, AsyncOpenSearch
from opensearchpy.exceptions import (
    ConnectionError as NoConnectionError,
)
from opensearchpy.exceptions import (
    ConnectionTimeout,
    SerializationError,
    TransportError,
)

from shardlift.engine.complaint import complaint
from shardlift.errors import EngineError

Json = Any
"""What `json.loads` gives; `engine.parse` turns it into model values and trusts nothing in it."""

_PAUSE_FIRST_S = 0.05
_PAUSE_MAX_S = 1.0
_MASTER_SHARE = 0.8  # of an attempt's time; the rest brings the engine's own "no master" answer to us


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `answers` are statuses besides 2xx whose body is the result rather than an error.

    `wait_s`: how long the engine may hold the answer back (its `timeout` parameter), on top of the transport's bound.
    `patience_s`: more time for a call that works before it answers. `master`: the call takes `master_timeout`.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    answers: frozenset[int] = frozenset()
    wait_s: float | None = None
    patience_s: float = 0
    master: bool = False


class _Connection(AIOHttpConnection):
    """Silent: each failure is told once, in an EngineError, and hints about old parameters are no user's business."""

    def log_request_fail(self, *_args: Any, **_kwargs: Any) -> None:
        return

    def _raise_warnings(self, *_headers: Any) -> None:
        return


class Transport:
    """Asks the nodes of one cluster. `endpoints`: node name to base URL; `request_timeout_s` bounds each call."""

    def __init__(self, endpoints: Mapping[str, str], *, request_timeout_s: float) -> None:
        if not endpoints:
            raise EngineError("the cluster has no node to ask")
        self._timeout_s = request_timeout_s
        self._last_good = next(iter(endpoints))
        # One client per node, so that it is us who choose the node and the time; the library's own pool hides both.
        self._clients = {
            name: AsyncOpenSearch(hosts=[url], connection_class=_Connection, max_retries=0, retry_on_timeout=False)
            for name, url in endpoints.items()
        }

    async def ask(self, call: Call) -> Json:
        """The answer's JSON. Raises EngineError that names the call and what each node said."""
        if call.wait_s:
            # A dead host must cost a short call's time, not a long poll's: find a living node first.
            await self.ask(Call("GET", "/_cluster/health", {"local": "true", "timeout": "0s"}))
        return await _Attempt(self, call).run()

    async def ask_node(self, name: str, call: Call, *, timeout_s: float) -> Json:
        """The answer of that very node, asked once. Raises EngineError."""
        if name not in self._clients:
            raise EngineError(f"{call.method} {call.path}: no address is known for node {name}")
        try:
            return await self.send(name, call, timeout_s=timeout_s)
        except (TransportError, SerializationError) as error:
            status = _status(error)
            raise EngineError(f"{call.method} {call.path}: {_told(name, error, timeout_s)}", status=status) from None

    async def send(self, name: str, call: Call, *, timeout_s: float, wait_s: float | None = None) -> Json:
        """One attempt at one node. Raises the library's own errors."""
        params: dict[str, object] = dict(call.params)
        if wait_s is not None:
            params["timeout"] = _millis(wait_s)
        if call.master:
            params["master_timeout"] = _millis(max(0.1, (timeout_s - (wait_s or 0)) * _MASTER_SHARE))
        request = self._clients[name].transport.perform_request(
            call.method, call.path, params=params, body=call.body, timeout=timeout_s
        )
        try:
            # The library's limit leaves out the time to queue for a connection; ours is the whole.
            return await asyncio.wait_for(request, timeout_s + 1)
        except TimeoutError:
            raise ConnectionTimeout("TIMEOUT", "no answer", None) from None
        except TransportError as error:
            if error.status_code in call.answers and isinstance(error.info, Mapping):
                return error.info
            raise

    def order(self) -> tuple[str, ...]:
        """All nodes, the one that answered last first."""
        names = tuple(self._clients)
        at = names.index(self._last_good)
        return names[at:] + names[:at]

    def knows(self, name: str) -> bool:
        """Whether that node has an address here."""
        return name in self._clients

    def answered(self, name: str) -> None:
        self._last_good = name

    @property
    def timeout_s(self) -> float:
        return self._timeout_s

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))


class _Attempt:
    """One call on its way round the nodes, with what each of them said."""

    def __init__(self, transport: Transport, call: Call) -> None:
        self._transport = transport
        self._call = call
        now = asyncio.get_running_loop().time()
        self._wait_until = now + (call.wait_s or 0)
        self._until = self._wait_until + call.patience_s + transport.timeout_s
        self._said: dict[str, str] = {}
        self._status: int | None = None

    async def run(self) -> Json:
        for pause_s in _pauses():
            alive = False
            for name, share in self._shares():
                try:
                    answer = await self._send(name, share)
                except (TransportError, SerializationError) as error:
                    self._judge(name, error, share)
                    alive = alive or not _refused(error)
                else:
                    self._transport.answered(name)
                    return answer
            if not alive or self._left() <= pause_s:
                break
            await asyncio.sleep(pause_s)
        said = "; ".join(self._said.values())
        raise EngineError(f"{self._what()}: no node could answer: {said}", status=self._status)

    async def _send(self, name: str, share_s: float) -> Json:
        if self._call.wait_s is None:
            return await self._transport.send(name, self._call, timeout_s=share_s)
        wait_s = max(0.0, self._wait_until - asyncio.get_running_loop().time())
        return await self._transport.send(name, self._call, timeout_s=share_s, wait_s=wait_s)

    def _shares(self) -> Iterator[tuple[str, float]]:
        """Each node with the seconds that it may take: half of what is left, all of it for the last one.

        What the engine was asked to hold back and `patience_s` are not shared out: the first node may use them up.
        """
        order = self._transport.order()
        for at, name in enumerate(order):
            now = asyncio.get_running_loop().time()
            held = max(0.0, self._wait_until - now) + self._call.patience_s
            spare = max(0.1, self._left() - held)
            yield name, held + (spare if at == len(order) - 1 else spare / 2)

    def _judge(self, name: str, error: TransportError | SerializationError, share_s: float) -> None:
        """Notes what the node said; raises when that settles the call."""
        told = _told(name, error, share_s)
        status = _status(error)
        if status is not None and status < 500:  # noqa: PLR2004  # below 500 it is the request that is at fault
            self._transport.answered(name)
            raise EngineError(f"{self._what()}: {told}", status=status) from None
        self._said[name] = told
        self._status = status if status is not None else self._status

    def _left(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    def _what(self) -> str:
        return f"{self._call.method} {self._call.path}"


def _pauses() -> Iterator[float]:
    """Seconds to wait between rounds; the caller's time bound ends it."""
    pause_s = _PAUSE_FIRST_S
    while pause_s > 0:
        yield pause_s
        pause_s = min(pause_s * 2, _PAUSE_MAX_S)


def _refused(error: TransportError | SerializationError) -> bool:
    """Whether nothing listens there: no second round will find it otherwise."""
    cause = error.info if isinstance(error, NoConnectionError) else None
    return isinstance(cause, OSError) and cause.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)


def _status(error: TransportError | SerializationError) -> int | None:
    status = error.status_code if isinstance(error, TransportError) else None
    return status if isinstance(status, int) else None


def _told(name: str, error: TransportError | SerializationError, timeout_s: float) -> str:
    """What one node said, for people."""
    if isinstance(error, SerializationError):
        return f"{name} answered something that is not JSON"
    if isinstance(error, ConnectionTimeout):
        return f"{name} did not answer within {timeout_s:.1f} s"
    if isinstance(error, NoConnectionError):
        return f"{name} {'refused' if _refused(error) else 'dropped'} the connection"
    return f"{name} answered {error.status_code}: {complaint(error.info, error.error)}"


def _millis(seconds: float) -> str:
    """An engine's time value."""
    return f"{int(seconds * 1000)}ms"
