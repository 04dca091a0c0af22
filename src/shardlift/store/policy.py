"""A task's policy, changed while the task may be going on."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select, update

from shardlift.model import Policy, TaskStatus
from shardlift.store.codec import policy_from, policy_to_json
from shardlift.store.database import Database
from shardlift.store.tables import task


async def set_policy(database: Database, task_id: str, change: Callable[[Policy], Policy], *, approved: bool) -> bool:
    """Puts what `change` makes of the policy in its place; with `approved` its canary is approved, too.

    Two changes at once do not undo each other. False when the task has ended, other than FAILED, or is to end.
    """
    unfinished = (
        task.c.id == task_id,
        task.c.status.in_((str(TaskStatus.RUNNING), str(TaskStatus.FAILED))),
        task.c.aborting.is_(False),
    )
    async with database.write() as connection:
        row = (await connection.execute(select(task.c.policy, task.c.paused).where(*unfinished))).one_or_none()
        if row is None:
            return False
        values: dict[str, object] = {"policy": policy_to_json(change(policy_from(row.policy)))}
        if approved:
            values["approved"] = True
        if not row.paused:
            # It is asked again whether it may go on; why it could not is no longer why.
            values |= {"hold_until": None, "waiting_for": None}
        await connection.execute(update(task).where(*unfinished).values(values | {"revision": task.c.revision + 1}))
        return True
