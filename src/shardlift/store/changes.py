"""What has changed in a task since it was last read, without reading all of it again: rows know their revision."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import bindparam, select

from shardlift.model import Task
from shardlift.store.codec import step_from, task_from
from shardlift.store.database import Database
from shardlift.store.tables import step, task

# Built once: followers ask after every change of anything.
_REVISION = select(task.c.revision).where(task.c.id == bindparam("of_task"))
_TASK = select(task).where(task.c.id == bindparam("of_task"))
_STEPS = select(step).where(step.c.task_id == bindparam("of_task"), step.c.revision > bindparam("after"))
_NEWEST = (
    select(task.c.id, task.c.revision)
    .where(task.c.cluster_id == bindparam("of_cluster"))
    .order_by(task.c.sequence.desc())
    .limit(bindparam("most"))
)


async def task_revision(database: Database, task_id: str) -> int | None:
    """None when the task is gone, and its cluster with it."""
    async with database.read() as connection:
        revision: int | None = await connection.scalar(_REVISION, {"of_task": task_id})
        return revision


async def changed_task(database: Database, before: Task) -> Task | None:
    """The task as it is now; of its sub-steps only those journaled since `before` are read. None when it is gone."""
    async with database.read() as connection:
        row = (await connection.execute(_TASK, {"of_task": before.id})).one_or_none()
        if row is None:
            return None
        asked = {"of_task": before.id, "after": before.revision}
        new = {(one.node, one.order): step_from(one) for one in await connection.execute(_STEPS, asked)}
    steps = tuple(new.get((old.node, old.order), old) for old in before.steps) if new else before.steps
    return replace(task_from(row, ()), steps=steps)


async def newest_tasks(database: Database, cluster_id: str, most: int) -> tuple[tuple[str, int], ...]:
    """(id, revision) of the cluster's newest tasks, oldest first."""
    async with database.read() as connection:
        rows = (await connection.execute(_NEWEST, {"of_cluster": cluster_id, "most": most})).all()
        return tuple((row.id, row.revision) for row in reversed(rows))
