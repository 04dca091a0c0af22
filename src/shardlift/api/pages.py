"""Answers of UpgradeDetail as bytes, made once for each state of the tasks they show.

Why it holds: an answer is kept with the state that it was made from, and given out only when the database says, at
this very request, that the state is still that one; other processes write too. An answer is made of the parts of its
tasks, each kept with the revision that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shardlift.api import render, schemas
from shardlift.bounded import Bounded
from shardlift.errors import NotFoundError
from shardlift.model import Image, Task, TaskKind
from shardlift.service import Service
from shardlift.store import PageState

_PAGES_MAX_BYTES = 32 << 20
_PARTS_MAX_BYTES = 32 << 20
_TRIES = 3
_NEVER = -1
_SIMULATED = "sim"


class Asked(NamedTuple):
    """Which page: of whose cluster, of what kind, from the 1-based `start` on, at most `limit` tasks."""

    project_id: str
    cluster_id: str
    kind: TaskKind = TaskKind.UPGRADING
    start: int = 1
    limit: int = 10


@dataclass(slots=True)
class Page:
    """An answer, and what it was made from. `mark`: the database's when it was last asked for the state.

    `head`: its headers as they go over the wire, and behind them the name of the request's id.
    """

    mark: int
    images: tuple[Image, ...]
    simulated: bool
    head: bytes
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    state: PageState

    def holds(self, mark: int, images: tuple[Image, ...]) -> bool:
        """Whether it is known, without asking, to hold at the database's `mark`; so False says little."""
        return self.mark == mark and self.images is images

    def drop(self) -> None:
        """Whoever still has it finds that it never holds, and that it takes next to no memory."""
        self.mark, self.body = _NEVER, b""


@dataclass(frozen=True, slots=True)
class _Part:
    """One task in words: as it was at that revision, with the images that there were."""

    revision: int
    images: tuple[Image, ...]
    body: bytes

    def holds(self, revision: int, images: tuple[Image, ...]) -> bool:
        return self.revision == revision and (self.images is images or self.images == images)


class DetailPages:
    """The pages of one process. Takes at most 64 MiB."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._details = service.details
        self._pages: Bounded[Asked, Page] = Bounded(_PAGES_MAX_BYTES, Page.drop)
        self._parts: Bounded[str, _Part] = Bounded(_PARTS_MAX_BYTES)

    def kept(self, asked: Asked, mark: int, images: tuple[Image, ...]) -> Page | None:
        """The answer, if it is kept and still holds; None if it is to be made. `mark` is the database's of this moment.

        A page is there only for the project that owns its cluster. Takes microseconds, and a few lookups more
        when the mark is a new one.
        """
        page = self._pages.get(asked)
        if page is None or page.images != images:
            return None
        page.images = images
        if page.mark != mark:
            if page.state != self._state(asked):
                return None
            page.mark = mark
        return page

    async def answer(self, asked: Asked) -> bytes:
        """The answer, kept or made. Raises NotFoundError when the project has no such cluster."""
        mark = self._details.mark()  # before the state: a change in between is found by the next request
        images = self._service.images()
        page = self.kept(asked, mark, images)
        if page is not None:
            return page.body
        for _ in range(_TRIES):
            state = self._state(asked)
            if state is None:
                raise NotFoundError(f"no cluster {asked.cluster_id!r}", field="cluster", value=asked.cluster_id)
            parts = await self._parts_of(state, images)
            if parts is not None:
                body = _joined(state.total, parts)
                headers = _headers(body)
                head = b"".join(b"%b: %b\r\n" % header for header in headers) + b"x-request-id: "
                page = Page(mark, images, state.driver == _SIMULATED, head, body, headers, state)
                self._pages.put(asked, page, len(body))
                return body
        return await self._whole(asked, images)

    def _state(self, asked: Asked) -> PageState | None:
        return self._details.page(asked.project_id, asked.cluster_id, asked.kind, asked.start, asked.limit)

    async def _parts_of(self, state: PageState, images: tuple[Image, ...]) -> list[bytes] | None:
        """The tasks of the page as they are in that state; None when one of them has changed meanwhile."""
        parts = {task_id: self._parts.get(task_id) for task_id, _ in state.items}
        missing = [
            task_id
            for task_id, revision in state.items
            if (part := parts[task_id]) is None or not part.holds(revision, images)
        ]
        for task in await self._details.tasks(missing) if missing else ():
            parts[task.id] = part = _Part(task.revision, images, detail_bytes(task, _image(images, task.image_id)))
            self._parts.put(task.id, part, len(part.body))
        bodies = []
        for task_id, revision in state.items:
            part = parts[task_id]
            if part is None or not part.holds(revision, images):
                return None
            bodies.append(part.body)
        return bodies

    async def _whole(self, asked: Asked, images: tuple[Image, ...]) -> bytes:
        """Everything in one transaction: a task that changes faster than it is read needs one moment for all."""
        page = await self._service.tasks(asked.cluster_id, kind=asked.kind, start=asked.start, limit=asked.limit)
        return _joined(page.total, [detail_bytes(task, _image(images, task.image_id)) for task in page.items])


def detail_bytes(task: Task, image: Image | None) -> bytes:
    """One task as the answer holds it."""
    shown = schemas.UpgradeDetailInfo.model_validate(render.upgrade_detail(task, image))
    return shown.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _headers(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return (b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")


def _joined(total: int, parts: Sequence[bytes]) -> bytes:
    return b'{"totalSize":%d,"detailList":[%b]}' % (total, b",".join(parts))


def _image(images: tuple[Image, ...], image_id: str) -> Image | None:
    """None when the catalogue no longer has it."""
    return next((image for image in images if image.id == image_id), None)
