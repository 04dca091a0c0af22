"""Server-sent events: what happens to a task, or on a cluster, as it happens.

Nothing is queued for a client. What it is sent next is made when it has taken what came before, from what the task has
become since, so a slow client gets fewer and newer events, and needs no more memory than a fast one. All that is kept
between two events is one reading of each task that is followed.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, cast

import structlog
from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import ServerSentEvent, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from shardlift.api import documents
from shardlift.api.auth import Caller, Located
from shardlift.api.docs import native_errors_of
from shardlift.api.errors import native_error
from shardlift.api.limits import ThrottledError
from shardlift.api.native import In, InPath, Owned
from shardlift.errors import NotFoundError, UsageError
from shardlift.model import Task, TaskStatus

router = APIRouter(prefix="/api/v1", tags=["native"])

# A stream is ended after so long, and the client comes back where it was: a key that was revoked is found out then.
STREAM_MAX_S = 3600.0
HEARTBEAT_S = 15.0
# A client that takes nothing for so long is dropped.
TAKE_S = 60.0
_AGAIN_S = 5
_RETRY_MS = 2000
_FRESH = -1
_BEAT = ServerSentEvent(comment="ping")
# One event; readers of OpenAPI take the schema of a stream for that of its items.
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["cluster", "step", "task", "end"], "description": "What is told"},
        "id": {"type": "string", "description": "Send the last one as `Last-Event-ID` to go on behind it"},
        "data": {
            "type": "string",
            "description": "JSON: the cluster, the sub-step, or the task without `batches` and `steps`",
        },
        "retry": {"type": "integer", "description": "Milliseconds to wait before coming back"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events, until the task has ended or the client leaves",
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}

_log = structlog.get_logger(__name__)


class EventStream(StreamingResponse):
    """Sends events for as long as the client takes them."""

    # Its media type is not a default: FastAPI would document errors under it.

    def __init__(self, content: AsyncIterator[bytes], status_code: int = 200) -> None:
        # Proxies must neither keep nor hold back what they pass on.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, status_code, headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            async with asyncio.timeout(TAKE_S):
                await send(message)

        try:
            await super().__call__(scope, receive, bounded)
        except TimeoutError:
            # Returned from half-way, the server cuts the connection.
            _log.info("event_stream_dropped", path=scope["path"], reason=f"the client took nothing for {TAKE_S:.0f} s")


class Streams:
    """Open streams by project, at most `most` of each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def take(self, project_id: str) -> None:
        """Raises ThrottledError when the project has as many as it may."""
        if self._open[project_id] >= self._most:
            raise ThrottledError(_AGAIN_S, f"{self._most} event streams of this project are open; close one.")
        self._open[project_id] += 1

    def give(self, project_id: str) -> None:
        self._open[project_id] -= 1
        if not self._open[project_id]:
            del self._open[project_id]

    def __len__(self) -> int:
        return self._open.total()


async def _slot(request: Request, caller: In) -> AsyncIterator[None]:
    """One of the project's streams, given back when the answer ends, however it ends."""
    streams = cast("Streams", request.app.state.streams)
    streams.take(caller.project_id)
    try:
        yield
    finally:
        streams.give(caller.project_id)


LastEvent = Annotated[
    str | None, Header(alias="Last-Event-ID", description="Go on behind this event; browsers send it by themselves")
]


async def _revision(last_event_id: LastEvent = None) -> int:
    """The revision that the client has; `_FRESH` when it has none."""
    if last_event_id is None:
        return _FRESH
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= 18):  # noqa: PLR2004  (fits)
        raise _no_id(last_event_id)
    return int(last_event_id)


async def _task_and_revision(last_event_id: LastEvent = None) -> tuple[str, int]:
    """Id of the task and its revision that the client has."""
    if last_event_id is None:
        return "", _FRESH
    task_id, _, revision = last_event_id.partition(":")
    return task_id, await _revision(revision)


def _no_id(value: str) -> Exception:
    problem = "Last-Event-ID is none of this stream's ids"
    return native_error(UsageError(problem, field="Last-Event-ID", value=value, remedy="leave it out to begin anew"))


@router.get(
    "/tasks/{task_id}/events",
    summary="What happens to a task, as server-sent events",
    response_class=EventStream,
    dependencies=[Depends(_slot)],
    responses=native_errors_of(404) | _STREAM,
)
async def task_events(owned: Owned, seen: Annotated[int, Depends(_revision)]) -> EventStream:
    """`step` for each sub-step that has changed, then `task`, which carries the id; `end` once it is RUNNING no more.

    A comment comes every 15 seconds in which nothing happens. A client that comes back with `Last-Event-ID` gets what
    has changed since; of several changes of one sub-step it gets the last. After an hour the stream ends without `end`.
    """
    return EventStream(_encoded(_task_events(*owned, seen)))


async def _task_events(caller: Caller, task: Task, seen: int) -> AsyncIterator[ServerSentEvent]:
    end_s = caller.clock.elapsed_s() + STREAM_MAX_S
    seen = seen if seen <= task.revision else _FRESH
    yield ServerSentEvent(comment="events of a task", retry=_RETRY_MS)
    while True:  # ends by the clock, or with the task
        if task.revision > seen:
            for event in _told(task, seen, caller.clock.now(), str(task.revision)):
                yield event
            seen = task.revision
        if task.status is not TaskStatus.RUNNING:
            yield ServerSentEvent(event="end", data={"task_id": task.id, "status": str(task.status)}, id=str(seen))
            return
        if caller.clock.elapsed_s() >= end_s:
            return
        try:
            task = await caller.service.next_of(task, HEARTBEAT_S)
        except NotFoundError:
            return  # its cluster was deleted
        if task.revision == seen:
            yield _BEAT


@router.get(
    "/clusters/{cluster}/events",
    summary="What happens on a cluster, as server-sent events",
    response_class=EventStream,
    dependencies=[Depends(_slot)],
    responses=native_errors_of(404) | _STREAM,
)
async def cluster_events(found: InPath, last: Annotated[tuple[str, int], Depends(_task_and_revision)]) -> EventStream:
    """`cluster` at first and when a task begins or ends; then `step` and `task` as a task's own stream has them.

    The first time it begins with the newest task. It goes on with the tasks to come until the client leaves, or for an
    hour: then come back with `Last-Event-ID`.
    """
    return EventStream(_encoded(_cluster_events(found, last)))


async def _cluster_events(found: Located, last: tuple[str, int]) -> AsyncIterator[ServerSentEvent]:
    end_s = found.clock.elapsed_s() + STREAM_MAX_S
    yield ServerSentEvent(comment="events of a cluster", retry=_RETRY_MS)
    yield _cluster(found)
    busy, pages = found.cluster.busy_with, None
    have: dict[str, int] | None = None
    followed: dict[str, Task] = {}
    try:
        while found.clock.elapsed_s() < end_s:
            before, pages = pages, await found.service.tasks_of(found.cluster.id, pages, HEARTBEAT_S)
            if pages == before:
                yield _BEAT
            have = _had(pages, last) if have is None else have
            for task_id, revision in pages:
                if revision <= have.get(task_id, _FRESH):
                    continue
                task = await _as_it_is(found, followed.get(task_id), task_id)
                for event in _told(task, have.get(task_id, _FRESH), found.clock.now(), f"{task.id}:{task.revision}"):
                    yield event
                followed[task_id], have[task_id] = task, task.revision
            followed = {task_id: followed[task_id] for task_id, _ in pages if task_id in followed}
            now = await found.service.cluster(found.cluster.id, found.project_id)
            if now.busy_with != busy:
                busy = now.busy_with
                yield _cluster(replace(found, cluster=now))
    except NotFoundError:
        return  # it was deleted


def _had(pages: tuple[tuple[str, int], ...], last: tuple[str, int]) -> dict[str, int]:
    """By task the revision that the client has when it comes; of tasks before its last one it wants to know nothing."""
    ids = [task_id for task_id, _ in pages]
    known = last[0] in ids
    older = pages[: ids.index(last[0]) if known else max(len(ids) - 1, 0)]
    return dict(older) | (dict([last]) if known else {})


async def _as_it_is(caller: Caller, before: Task | None, task_id: str) -> Task:
    if before is None:
        return await caller.service.task(task_id, caller.project_id)
    return await caller.service.next_of(before, 0)


async def _encoded(told: AsyncIterator[ServerSentEvent]) -> AsyncIterator[bytes]:
    async for one in told:
        data = None if one.data is None else json.dumps(one.data, separators=(",", ":"))
        yield format_sse_event(data_str=data, event=one.event, id=one.id, retry=one.retry, comment=one.comment)


def _told(task: Task, seen: int, now: datetime, event_id: str) -> list[ServerSentEvent]:
    """What has changed in the task since the revision `seen`; the last event closes the change, and has the id."""
    rows = [row for row in task.steps if row.revision > seen and (row.begin or seen != _FRESH)]
    rows.sort(key=lambda row: row.revision)  # stable: what changed together keeps the order of the plan
    told = [ServerSentEvent(event="step", data=documents.step_document(row)) for row in rows]
    return [*told, ServerSentEvent(event="task", data=documents.task_head(task, now), id=event_id)]


def _cluster(found: Located) -> ServerSentEvent:
    return ServerSentEvent(event="cluster", data=documents.cluster_document(found.cluster, None))
