"""The journal of a task under way. Every write holds the cluster's epoch, or it is refused (invariant 2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Text, Update, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.errors import FencedError
from shardlift.model import Policy, StepStatus, TaskStatus
from shardlift.store.codec import policy_from
from shardlift.store.database import Database
from shardlift.store.leases import SPARE, Lease
from shardlift.store.tables import UtcTime, cluster, node, recovery, setting_change, step, task

# Built once: they stand around every journal write. FOR SHARE matters on PostgreSQL, where a bare SELECT would let a
# stale write commit after a new claim. SQLite's write transaction is exclusive, and SQLAlchemy leaves the words out.
_MINE = (
    select(cluster.c.id)
    .where(
        cluster.c.id == bindparam("lease_cluster"),
        cluster.c.epoch == bindparam("lease_epoch"),
        cluster.c.lease_owner == bindparam("lease_owner"),
    )
    .with_for_update(read=True)
)
_REVISED = update(task).where(task.c.id == bindparam("of_task")).values(revision=task.c.revision + 1)
_CONTROL = select(task.c.aborting, task.c.paused, task.c.approved, task.c.policy).where(
    task.c.id == bindparam("of_task")
)
_STEP = update(step).where(
    step.c.task_id == bindparam("of_task"), step.c.node == bindparam("of_node"), step.c.order == bindparam("of_order")
)
_NEXT = (select(task.c.revision + 1).where(task.c.id == bindparam("of_task"))).scalar_subquery()
_BEGUN = _STEP.values(
    {
        step.c.revision: _NEXT,
        step.c.status: str(StepStatus.RUNNING),
        step.c.begin: func.coalesce(step.c.begin, bindparam("at", type_=UtcTime)),
        step.c.attempts: step.c.attempts + 1,
        step.c.progress: {},
    }
)
_REOPENED = (
    update(step)
    .where(
        step.c.task_id == bindparam("of_task"),
        step.c.node.in_(bindparam("of_nodes", expanding=True)),
        (step.c.order <= bindparam("last")) | (step.c.status == str(StepStatus.RUNNING)),
        step.c.status != str(StepStatus.WAITING),
    )
    .values({step.c.revision: _NEXT, step.c.status: str(StepStatus.WAITING), step.c.end: None, step.c.progress: {}})
)
_PROGRESS = _STEP.values({step.c.revision: _NEXT, step.c.progress: bindparam("new_progress")})
_ENDED = _STEP.values(
    {
        step.c.revision: _NEXT,
        step.c.status: bindparam("new_status"),
        step.c.desc: bindparam("new_desc", type_=Text),
        step.c.evidence: bindparam("new_evidence"),
        step.c.end: bindparam("at", type_=UtcTime),
        step.c.progress: {},
    }
)


@dataclass(frozen=True, slots=True)
class SettingChange:
    """One change of ours to the cluster, written BEFORE it is made, so that a crash in between leaves a trace.

    `kind`: `value` (the key was `before`, None for unset, and we set `ours`), `token` (`ours` is one item of the
    comma-joined list in the key), `limit` (as `value`, but `ours` is each value of ours that may be in force, joined by
    commas; empty once somebody else has set the key), `voting` (`ours` names the node excluded from voting), `traffic`
    (`ours` names the node that clients are led away from, `before` the pools that led to it, joined by commas, None
    when not known).
    """

    id: int
    task_id: str
    kind: str
    layer: str
    key: str
    before: str | None
    ours: str


@dataclass(frozen=True, slots=True)
class Control:
    """What people want of a task under way, as it stands now."""

    aborting: bool
    paused: bool
    approved: bool
    policy: Policy


class Journal:
    """Journal writes for one cluster under one lease."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self.lease = lease
        self._counted: dict[str, dict[str, int]] = {}

    @asynccontextmanager
    async def _fenced(self) -> AsyncIterator[AsyncConnection]:
        async with self._database.write() as connection:
            lease = self.lease
            mine = await connection.scalar(
                _MINE,
                {"lease_cluster": lease.cluster_id, "lease_epoch": lease.epoch, "lease_owner": lease.owner},
            )
            if mine is None:
                self.lease.lost = True
                raise FencedError(f"cluster {self.lease.cluster_id} has a newer owner than epoch {self.lease.epoch}")
            yield connection
        self.lease.check()

    async def begin_step(self, task_id: str, name: str, order: int, at: datetime) -> None:
        """RUNNING, one attempt more; the first beginning stays."""
        await self._step(_BEGUN, task_id, name, order, at=at)

    async def reopen(self, task_id: str, names: Sequence[str], *, last: int) -> None:
        """The sub-steps of these nodes up to order `last`, and one under way, are to be done again; at once or not.

        Beginnings, attempts and evidence stay, as with a retry.
        """
        async with self._fenced() as connection:
            await connection.execute(_REOPENED, {"of_task": task_id, "of_nodes": list(names), "last": last})
            await connection.execute(_REVISED, {"of_task": task_id})

    async def progress(self, task_id: str, name: str, order: int, progress: Mapping[str, object]) -> None:
        await self._step(_PROGRESS, task_id, name, order, new_progress=dict(progress))

    async def end_step(
        self,
        task_id: str,
        name: str,
        order: int,
        *,
        status: StepStatus,
        desc: str,
        evidence: Mapping[str, object],
        at: datetime,
    ) -> None:
        await self._step(
            _ENDED,
            task_id,
            name,
            order,
            new_status=str(status),
            new_desc=desc,
            new_evidence=dict(evidence),
            at=at,
        )

    async def node_switched(self, node_id: str, image_id: str, zone: str | None) -> None:
        """The node runs this image from now on, and is in this zone; None: it has stayed where it was."""
        values = {"image_id": image_id} | ({} if zone is None else {"zone": zone})
        async with self._fenced() as connection:
            await connection.execute(update(node).where(node.c.id == node_id).values(values))

    async def end_task(
        self,
        task_id: str,
        status: TaskStatus,
        message: str | None,
        at: datetime,
        *,
        cluster_image: tuple[str, str, str] | None = None,
    ) -> None:
        """Ends the task; with `cluster_image` (image id, engine, version) the cluster changes in the same moment."""
        async with self._fenced() as connection:
            await connection.execute(
                update(task)
                .where(task.c.id == task_id)
                .values(
                    status=str(status),
                    fail_message=message,
                    ended_at=at,
                    hold_until=None,
                    waiting_for=None,
                    revision=task.c.revision + 1,
                )
            )
            values: dict[str, object] = {"updated_at": at}
            if cluster_image is not None:
                values |= dict(zip(("image_id", "engine", "version"), cluster_image, strict=True))
            await connection.execute(update(cluster).where(cluster.c.id == self.lease.cluster_id).values(values))

    async def control(self, task_id: str) -> Control:
        async with self._database.read() as connection:
            row = (await connection.execute(_CONTROL, {"of_task": task_id})).one_or_none()
            if row is None:
                raise FencedError(f"task {task_id} is gone, and its cluster with it")
            return Control(row.aborting, row.paused, row.approved, policy_from(row.policy))

    async def go_on(self, task_id: str) -> None:
        """The task is no longer at rest. Written before anything is done that must not be left as it is."""
        await self._control(task_id, at_rest=False, hold_until=None, waiting_for=None)

    async def waiting(self, task_id: str, waiting_for: str | None) -> None:
        """Says why the task does not go from one node to the next."""
        await self._control(task_id, waiting_for=waiting_for)

    async def rest(self, task_id: str, waiting_for: str, *, hold_until: datetime | None, pause: bool) -> None:
        """The task stays where it is, with no node half done. `pause`: until somebody resumes it."""
        paused = {"paused": True} if pause else {}
        await self._control(task_id, at_rest=True, waiting_for=waiting_for, hold_until=hold_until, **paused)

    async def _control(self, task_id: str, **values: object) -> None:
        async with self._fenced() as connection:
            await connection.execute(
                update(task).where(task.c.id == task_id).values(**values, revision=task.c.revision + 1)
            )

    async def restored_keys(self, task_id: str) -> tuple[str, ...]:
        """Settings that the task had changed and that are put back, sorted."""
        query = select(setting_change.c.key).where(
            setting_change.c.task_id == task_id,
            setting_change.c.restored.is_(True),
            setting_change.c.key != "",
            setting_change.c.kind != SPARE,
            setting_change.c.ours != "",
        )
        async with self._database.read() as connection:
            return tuple(sorted(set((await connection.execute(query)).scalars())))

    async def add_recoveries(self, task_id: str, seen: Iterable[tuple[str, int]]) -> None:
        """Counts bytes of recoveries, each key once; a later, larger reading of the same key replaces the earlier.

        The engines tell again what they have told before, of every copy there is. What has been counted is read once
        under a lease: nobody else counts meanwhile, or this would be refused.
        """
        known = self._counted.pop(task_id, None)  # kept again once it is written
        async with self._fenced() as connection:
            if known is None:
                rows = await connection.execute(
                    select(recovery.c.key, recovery.c.bytes).where(recovery.c.task_id == task_id)
                )
                known = {row.key: row.bytes for row in rows}
            sizes = {key: size for key, size in dict(seen).items() if size > known.get(key, -1)}
            new = [{"task_id": task_id, "key": key, "bytes": size} for key, size in sizes.items() if key not in known]
            if new:
                await connection.execute(insert(recovery), new)
            for key in [key for key in sizes if key in known]:
                await connection.execute(
                    update(recovery)
                    .where(recovery.c.task_id == task_id, recovery.c.key == key)
                    .values(bytes=sizes[key])
                )
            known |= sizes
            await connection.execute(
                update(task)
                .where(task.c.id == task_id)
                .values(bytes_moved=sum(known.values()), revision=task.c.revision + 1)
            )
        self._counted[task_id] = known

    # the ledger of changed settings

    async def add_change(self, task_id: str, kind: str, *, layer: str, key: str, before: str | None, ours: str) -> None:
        """Written before the change is made, so that a crash in between leaves a trace."""
        async with self._fenced() as connection:
            await connection.execute(
                insert(setting_change).values(
                    cluster_id=self.lease.cluster_id,
                    task_id=task_id,
                    kind=kind,
                    layer=layer,
                    key=key,
                    before=before,
                    ours=ours,
                    restored=False,
                    note="",
                )
            )

    async def open_changes(self) -> tuple[SettingChange, ...]:
        """Changes not yet put back, of any task of this cluster, newest first: the order to undo them in."""
        query = (
            select(setting_change)
            .where(setting_change.c.cluster_id == self.lease.cluster_id, setting_change.c.restored.is_(False))
            .order_by(setting_change.c.id.desc())
        )
        async with self._database.read() as connection:
            return tuple(_change_from(row) for row in await connection.execute(query))

    async def addresses(self) -> frozenset[str]:
        """Addresses of all nodes of all clusters."""
        async with self._database.read() as connection:
            return frozenset((await connection.execute(select(node.c.address))).scalars())

    async def change_restored(self, change_id: int, note: str) -> None:
        async with self._fenced() as connection:
            await connection.execute(
                update(setting_change).where(setting_change.c.id == change_id).values(restored=True, note=note)
            )

    async def change_ours(self, change_id: int, ours: str) -> None:
        """What may stand there from now on; as with a new change, written before it is made."""
        async with self._fenced() as connection:
            await connection.execute(update(setting_change).where(setting_change.c.id == change_id).values(ours=ours))

    async def change_before(self, change_id: int, before: str) -> None:
        """What it is put back to from now on."""
        async with self._fenced() as connection:
            await connection.execute(
                update(setting_change).where(setting_change.c.id == change_id).values(before=before)
            )

    async def disputed(self, task_id: str, key: str) -> bool:
        """Whether somebody else has changed the key while the task held it, as far as that was noted at the end."""
        query = select(setting_change.c.id).where(
            setting_change.c.task_id == task_id, setting_change.c.key == key, setting_change.c.note != ""
        )
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def _step(self, change: Update, task_id: str, name: str, order: int, **values: Any) -> None:
        async with self._fenced() as connection:
            row = {"of_task": task_id, "of_node": name, "of_order": order}
            await connection.execute(change, row | values)
            await connection.execute(_REVISED, {"of_task": task_id})


def _change_from(row: Row[Any]) -> SettingChange:
    return SettingChange(row.id, row.task_id, row.kind, row.layer, row.key, row.before, row.ours)
