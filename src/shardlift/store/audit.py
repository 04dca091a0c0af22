"""The audit log's rows: added and read, never changed, and removed by age and count alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.store.database import Database
from shardlift.store.tables import audit

# Refused sign-ins need no key, so anybody can cause them: they have a tenth of the room, and never that of the changes.
_SIGNIN_SHARE = 10
_PRUNE_EVERY = 16


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One record. `outcome`: accepted, refused or failed; `code`: the error code that was answered, empty for none."""

    id: int
    at: datetime
    project_id: str
    actor: str
    address: str
    door: str
    action: str
    cluster_id: str
    task_id: str
    subject: str
    outcome: str
    code: str
    request_id: str


class AuditStore:
    """Bounded by project, so that nobody can push another's records out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, row: AuditRow, *, signin: bool, records_max: int, before: datetime) -> None:
        """Writes the row (its `id` is given by the table), and removes what is older than `before` or too much."""
        values = {**asdict(row), "signin": signin}
        del values["id"]
        for name in ("actor", "address", "action", "cluster_id", "task_id", "subject", "code", "request_id"):
            values[name] = values[name][: audit.c[name].type.length]  # type: ignore[attr-defined]  # all are String
        async with self._database.write() as connection:
            done = await connection.execute(insert(audit).values(values))
            new_id = done.inserted_primary_key[0] if done.inserted_primary_key else 0
            if new_id % _PRUNE_EVERY == 0:
                await connection.execute(delete(audit).where(audit.c.at < before))
                await _shorten(connection, row.project_id, records_max, signin=signin)

    async def list(self, project_id: str | None, start: int, limit: int) -> tuple[int, tuple[AuditRow, ...]]:
        """(how many there are, those from the 1-based `start` on), newest first."""
        where: list[ColumnElement[bool]] = [] if project_id is None else [audit.c.project_id == project_id]
        columns = [audit.c[name] for name in AuditRow.__dataclass_fields__]
        query = select(*columns).where(*where).order_by(audit.c.id.desc()).offset(start - 1).limit(limit)
        async with self._database.read() as connection:
            total = await connection.scalar(select(func.count()).select_from(audit).where(*where))
            rows = await connection.execute(query)
            return total or 0, tuple(AuditRow(**row._mapping) for row in rows)  # noqa: SLF001  (its public name)

    async def prune(self, records_max: int, before: datetime) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(audit).where(audit.c.at < before))
            groups = await connection.execute(select(audit.c.project_id, audit.c.signin).distinct())
            for row in groups.all():
                await _shorten(connection, row.project_id, records_max, signin=row.signin)


async def _shorten(connection: AsyncConnection, project_id: str, records_max: int, *, signin: bool) -> None:
    """Leaves the newest of one project; refused sign-ins are counted apart."""
    where = (audit.c.project_id == project_id, audit.c.signin.is_(signin))
    keep = max(records_max // _SIGNIN_SHARE, 1) if signin else records_max
    cut = select(audit.c.id).where(*where).order_by(audit.c.id.desc()).limit(1).offset(keep).scalar_subquery()
    await connection.execute(delete(audit).where(*where, audit.c.id <= cut))
