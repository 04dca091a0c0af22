"""Leases on clusters: at most one process acts on a cluster (invariant 2).

The lease stands on the CLUSTER row, not on the task: with one per task, two tasks of one cluster could run at once.
A claim raises the epoch; each journal write is conditional on it, and before each effect the holder looks at its own
clock. The holder gives up earlier than the row says, so that it and the next one never both think they own it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Integer, Select, bindparam, or_, select, update
from sqlalchemy.dialects import sqlite

from shardlift.clock import Clock
from shardlift.errors import FencedError, ShardliftError
from shardlift.store.database import Database
from shardlift.store.queue import TURNS, at
from shardlift.store.tables import cluster, setting_change, stored, task

# The kind of a row in the ledger that is a spare node: its name, and all of it as JSON.
SPARE = "spare"
_log = structlog.get_logger(__name__)
# The share of the lease after which the holder itself no longer trusts it; the rest covers clocks that run apart.
_TRUSTED = 0.75


_COLUMNS = (cluster.c.id, cluster.c.lease_owner, cluster.c.lease_until, cluster.c.epoch)


def _with_work() -> Select[Any]:
    unfinished = select(task.c.id).where(task.c.cluster_id == cluster.c.id, task.c.status == "RUNNING").exists()
    left = (
        select(setting_change.c.id)
        .join(task, task.c.id == setting_change.c.task_id)
        .where(setting_change.c.cluster_id == cluster.c.id, setting_change.c.restored.is_(False))
        # A spare node stays for the retry of a failed task; once that is given up, it is work.
        .where(or_(setting_change.c.kind != SPARE, task.c.status != "FAILED", task.c.aborting))
        .exists()
    )
    return (
        select(*_COLUMNS)
        .join(TURNS, TURNS.c.cluster_id == cluster.c.id, isouter=True)
        .where(or_(TURNS.c.place <= bindparam("project_max", type_=Integer), TURNS.c.begun, ~unfinished & left))
        .order_by(TURNS.c.place, cluster.c.id)
        .limit(1000)
    )


# Asked after every change, so compiled once and carried out on the spot: it costs a fraction of a transaction.
_WITH_WORK = _with_work().compile(dialect=sqlite.dialect(paramstyle="named"))
_WITH_WORK_SQL = str(_WITH_WORK)
_LEASE_OF = select(*_COLUMNS).where(cluster.c.id == bindparam("cluster_id"))


class _Row(NamedTuple):
    id: str
    lease_owner: str | None
    lease_until: float
    epoch: int


@dataclass(frozen=True, slots=True)
class _Sighting:
    """A lease as we have seen it unchanged (owner, epoch, end) since then, on our clock's `elapsed_s` scale."""

    mark: tuple[str | None, int, float]
    since_s: float


@dataclass(slots=True)
class Lease:
    """A claim on one cluster. `trusted_until_s` is on the clock's `elapsed_s` scale and moves with each renewal.

    `over`: its holder is done with it, so nobody is stopped when it can no longer be renewed.
    """

    cluster_id: str
    owner: str
    epoch: int
    trusted_until_s: float
    clock: Clock
    lost: bool = False
    over: bool = False

    def check(self) -> None:
        """Raises FencedError when the lease may no longer be ours. Called before each effect."""
        if self.lost or self.clock.elapsed_s() >= self.trusted_until_s:
            raise FencedError(
                f"the lease on cluster {self.cluster_id} (epoch {self.epoch}) has run out; another process may own it"
            )


class Leases:
    """Claims, renewals and releases of one process, known as `owner`."""

    def __init__(self, database: Database, clock: Clock, owner: str, lease_s: float, *, project_max: int = 20) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._lease_s = lease_s
        self._project_max = project_max
        self._seen: dict[str, _Sighting] = {}

    async def claimable(self) -> tuple[str, ...]:
        """Clusters with a free lease and work that may be done now, the oldest task first.

        Work is a RUNNING task whose turn it is (`TURNS`), or settings left by tasks that have ended. While a task is
        paused or waits, what it has set stays: it is held until the task ends.
        """
        now = self._clock.now()
        values = _WITH_WORK.construct_params({**at(now), "project_max": self._project_max})
        values["now"] = stored(now)
        rows = [_Row(*row) for row in await self._database.glance(_WITH_WORK_SQL, values)]
        self._seen = {row.id: self._sighting(row) for row in rows}
        return tuple(row.id for row in rows if self._free(row))

    async def claim(self, cluster_id: str) -> Lease | None:
        """Takes the lease when it is free or run out; None when somebody else holds it or the cluster is gone."""
        before_s = self._clock.elapsed_s()
        async with self._database.write() as connection:
            row = (await connection.execute(_LEASE_OF, {"cluster_id": cluster_id})).one_or_none()
            if row is None or not self._free(row):
                return None
            await connection.execute(
                update(cluster)
                .where(cluster.c.id == cluster_id)
                .values(
                    lease_owner=self._owner,
                    lease_until=self._clock.now().timestamp() + self._lease_s,
                    epoch=cluster.c.epoch + 1,
                )
            )
        return Lease(cluster_id, self._owner, row.epoch + 1, before_s + self._lease_s * _TRUSTED, self._clock)

    def _sighting(self, row: Any) -> _Sighting:
        mark = (row.lease_owner, row.epoch, row.lease_until)
        before = self._seen.get(row.id)
        return before if before is not None and before.mark == mark else _Sighting(mark, self._clock.elapsed_s())

    def _free(self, row: Any) -> bool:
        """Whether the lease was given back, or has not been renewed for its length while we were looking.

        Our own elapsed time decides, not the wall time in the row: clocks of two machines run apart, and any clock may
        be set. Only who has never looked at the cluster goes by wall time, with a whole length to spare.
        """
        if row.lease_until == 0:
            return True
        seen = self._seen.get(row.id)
        if seen is None:
            return bool(row.lease_until + self._lease_s < self._clock.now().timestamp())
        same = seen.mark == (row.lease_owner, row.epoch, row.lease_until)
        return same and self._clock.elapsed_s() - seen.since_s >= self._lease_s

    async def renew(self, lease: Lease) -> None:
        """Prolongs the lease. Marks it lost when the row has another epoch or owner."""
        # Read before the write is sent: a renewal that takes long must not make the lease look longer than it is.
        before_s = self._clock.elapsed_s()
        async with self._database.write() as connection:
            done = await connection.execute(
                update(cluster)
                .where(
                    cluster.c.id == lease.cluster_id,
                    cluster.c.epoch == lease.epoch,
                    cluster.c.lease_owner == lease.owner,
                )
                .values(lease_until=self._clock.now().timestamp() + self._lease_s)
            )
        if done.rowcount != 1:
            lease.lost = True
            return
        lease.trusted_until_s = before_s + self._lease_s * _TRUSTED

    @asynccontextmanager
    async def kept(self, lease: Lease, renew_s: float) -> AsyncIterator[Lease]:
        """Renews the lease every `renew_s` while the body runs, and gives it back at the end.

        When it is lost the body is cancelled, and FencedError raised in place of that. A body that removes the cluster
        itself says before that the lease is `over`.
        """
        body = asyncio.current_task()
        assert body is not None, "a coroutine runs in a task"
        renewing = asyncio.create_task(self._keep(lease, renew_s, body))
        try:
            yield lease
        except asyncio.CancelledError:
            if lease.lost:
                body.uncancel()
                raise FencedError(f"the lease on cluster {lease.cluster_id} was lost") from None
            raise
        finally:
            lease.over = True
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            with suppress(ShardliftError):
                await self.release(lease)

    async def _keep(self, lease: Lease, renew_s: float, body: asyncio.Task[object]) -> None:
        while not lease.lost:
            await self._clock.sleep(renew_s)
            try:
                await self.renew(lease)
            except ShardliftError as error:
                _log.warning("lease not renewed", cluster=lease.cluster_id, error=error.message)
                try:
                    lease.check()
                except FencedError:
                    lease.lost = True
        if not lease.over:
            body.cancel()

    async def release(self, lease: Lease) -> None:
        """Gives the lease back at once, if it is still ours."""
        lease.lost = True
        async with self._database.write() as connection:
            await connection.execute(
                update(cluster)
                .where(cluster.c.id == lease.cluster_id, cluster.c.epoch == lease.epoch)
                .values(lease_until=0, lease_owner=None)
            )

    async def reap(self, prefix: str) -> None:
        """Frees leases of owners whose name starts with `prefix`, which the caller knows to be dead.

        `serve` calls it right after it took the lock of its home: the kernel's lock proves that the one before is gone.
        """
        async with self._database.write() as connection:
            await connection.execute(
                update(cluster).where(cluster.c.lease_owner.startswith(prefix, autoescape=True)).values(lease_until=0)
            )
