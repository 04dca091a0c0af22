"""Who did what: one record for each change that was asked for, by the API or a command.

Whoever begins a piece of work (a request, a command) opens an `Act`; what changes something notes what it is; whoever
ends the work writes the record. Nothing here ever holds a secret: an act has ids, names and codes, and no bodies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta

from shardlift.clock import Clock
from shardlift.service.requests import Page
from shardlift.store.audit import AuditRow, AuditStore

ACCEPTED = "accepted"
REFUSED = "refused"
FAILED = "failed"
SIGN_IN = "sign_in"

_act: ContextVar[Act | None] = ContextVar("shardlift_act", default=None)


@dataclass(slots=True)
class Act:
    """Work under way, and what is known of it so far. `actor`: an access key, or `user:NAME` of the command line."""

    door: str
    actor: str = ""
    address: str = ""
    request_id: str = ""
    project_id: str = ""
    action: str = ""
    cluster_id: str = ""
    task_id: str = ""
    subject: str = ""


@contextmanager
def acting(act: Act) -> Iterator[Act]:
    """`act` is what notes go to while this lasts."""
    token = _act.set(act)
    try:
        yield act
    finally:
        _act.reset(token)


def current_act() -> Act | None:
    return _act.get()


def note(
    action: str,
    *,
    project_id: str | None = None,
    cluster_id: str | None = None,
    task_id: str | None = None,
    subject: str | None = None,
) -> None:
    """Says what the work under way changes. Nothing happens when nobody keeps a record of it."""
    act = _act.get()
    if act is None:
        return
    act.action = action
    act.project_id = project_id or act.project_id
    act.cluster_id = cluster_id or act.cluster_id
    act.task_id = task_id or act.task_id
    act.subject = subject or act.subject


class Audit:
    """The log of all projects."""

    def __init__(self, store: AuditStore, clock: Clock, *, records_max: int, days: int) -> None:
        self._store = store
        self._clock = clock
        self._records_max = records_max
        self._age = timedelta(days=days)

    async def record(self, act: Act, outcome: str, code: str = "") -> None:
        """Writes the act down. Every now and then what is too old or too much goes, in the same transaction."""
        now = self._clock.now()
        row = AuditRow(
            id=0,
            at=now,
            project_id=act.project_id,
            actor=act.actor,
            address=act.address,
            door=act.door,
            action=act.action,
            cluster_id=act.cluster_id,
            task_id=act.task_id,
            subject=act.subject,
            outcome=outcome,
            code=code,
            request_id=act.request_id,
        )
        await self._store.add(row, signin=act.action == SIGN_IN, records_max=self._records_max, before=now - self._age)

    async def list(self, project_id: str | None = None, *, start: int = 1, limit: int = 100) -> Page[AuditRow]:
        """Newest first; of one project, or of all with what nobody's key asked for."""
        total, rows = await self._store.list(project_id, start, limit)
        return Page(total, rows)

    async def prune(self) -> None:
        """Removes what is too old, and of each project what is too much."""
        await self._store.prune(self._records_max, self._clock.now() - self._age)
