"""A client as applications have one: it knows all nodes, and asks the next when one does not answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

_RETRIED_STATUS = frozenset({429, 500, 502, 503, 504})
_PAUSE_S = 0.05
_PAUSE_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, without its node. `again_path` replaces `path` from the second try on."""

    method: str
    path: str
    body: bytes | None = None
    again_path: str | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to. `status` 0: no answer. `errors`: one line per try that failed, oldest first.

    `unsent`: the first try met a node that takes no connections, so nothing of the call had reached the cluster.
    """

    status: int
    body: Any
    errors: tuple[str, ...]
    unsent: bool = False

    @property
    def ok(self) -> bool:
        return httpx.codes.is_success(self.status)

    @property
    def at_once(self) -> bool:
        """Good at the first try."""
        return self.ok and not self.errors

    def __str__(self) -> str:
        return f"status {self.status or 'none'}: {'; '.join(self.errors[-3:]) or self.body}"


class ClusterClient:
    """Calls a cluster through whichever node answers.

    A try fails on a broken or refused connection, a time-out, 429, 5xx, or an answer that `good` does not accept. The
    next try goes to the next node; after each whole round there is a growing pause. `deadline_s` bounds all of it.
    """

    def __init__(self, urls: Sequence[str], *, timeout_s: float = 10.0, deadline_s: float = 30.0) -> None:
        if not urls:
            raise ValueError("a cluster client needs at least one node")
        self._urls = tuple(urls)
        self._deadline_s = deadline_s
        self._turn = itertools.count()
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=100)
        # trust_env off: a proxy of the environment has no business between us and nodes of this machine.
        self._http = httpx.AsyncClient(timeout=timeout_s, limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, call: Call, *, good: Callable[[Any], bool] | None = None) -> Outcome:
        """Sends the call, at most until the deadline. Never raises for what the cluster does."""
        errors: list[str] = []
        unsent = False
        pause_s = _PAUSE_S
        end = time.monotonic() + self._deadline_s
        first = next(self._turn)
        for attempt in itertools.count():
            url = self._urls[(first + attempt) % len(self._urls)]
            seen = await self._try(url, call, again=attempt > 0)
            unsent = unsent or (attempt == 0 and seen.unsent)
            if seen.ok and good is not None and not good(seen.body):
                seen = Outcome(0, seen.body, (f"{url}: an answer that is not complete",))
            errors += seen.errors
            tried_enough = time.monotonic() + pause_s > end
            if seen.ok or tried_enough or not _worth_another_try(seen.status, call):
                return Outcome(seen.status, seen.body, tuple(errors), unsent)
            if (attempt + 1) % len(self._urls) == 0:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_MAX_S)
        raise AssertionError("the loop above ends by returning")

    async def ask(self, url: str, call: Call) -> Outcome:
        """Asks that very node, once."""
        return await self._try(url, call, again=False)

    async def _try(self, url: str, call: Call, *, again: bool) -> Outcome:
        path = call.again_path if again and call.again_path is not None else call.path
        headers = {"Content-Type": call.content_type} if call.body is not None else {}
        try:
            answer = await self._http.request(call.method, url + path, content=call.body, headers=headers)
            body = answer.json() if answer.content else None
        except httpx.TransportError as error:
            unsent = isinstance(error, httpx.ConnectError)
            return Outcome(0, None, (f"{url}: {type(error).__name__} {error}".rstrip(),), unsent)
        except ValueError:
            return Outcome(0, None, (f"{url}: an answer that is not JSON",))
        if answer.is_success:
            return Outcome(answer.status_code, body, ())
        return Outcome(answer.status_code, body, (f"{url}: {answer.status_code} {str(body)[:200]}",))


def _worth_another_try(status: int, call: Call) -> bool:
    """Silence, overload and server errors may pass; other statuses are the caller's own fault and stay.

    But for a conflict over an id that only this call uses. When a primary stops under a create, the engine itself sends
    it to the next primary, and finds there what the first one had replicated already. `again_path` then settles it.
    """
    return status == 0 or status in _RETRIED_STATUS or (status == httpx.codes.CONFLICT and call.again_path is not None)
