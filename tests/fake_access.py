"""Who may do what, and who did: the parts of the fake service that most of its tests only pass by."""

from __future__ import annotations

from dataclasses import replace

from shardlift.service.agencies import Action, Agency
from shardlift.service.audit import Act
from shardlift.service.requests import Page
from shardlift.store.audit import AuditRow
from shardlift.store.keys import KeyRow


class FakeAudit:
    """Keeps (act, outcome, code) of each record."""

    def __init__(self) -> None:
        self.records: list[tuple[Act, str, str]] = []

    async def record(self, act: Act, outcome: str, code: str = "") -> None:
        self.records.append((replace(act), outcome, code))

    async def list(self, project_id: str | None = None, *, start: int = 1, limit: int = 100) -> Page[AuditRow]:
        return Page(0, ())


class FakeAgencies:
    """A project without agencies."""

    async def permit(self, project_id: str, name: str, action: Action) -> None:
        return None

    async def list(self, project_id: str) -> tuple[Agency, ...]:
        return ()


class FakeKeys:
    """The real ones are looked at in test_keys."""

    async def list(self, project_id: str | None = None) -> tuple[KeyRow, ...]:
        return ()
