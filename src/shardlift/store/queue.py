"""Whose turn it is: a project works on so many clusters at a time, oldest task first."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, Subquery, bindparam, case, func, or_, select

from shardlift.store.tables import UtcTime, cluster, task

NOW = bindparam("now", type_=UtcTime)
NOW_S = bindparam("now_s", type_=Float)


def at(now: datetime) -> dict[str, object]:
    """What the statements built from `TURNS` want to know: the time."""
    return {"now": now, "now_s": now.timestamp()}


def _turns() -> Subquery[Any]:
    """(task id, cluster id, project id, `begun`, `place`) of each RUNNING task that would go on if it were its turn.

    `place` counts from 1 within the project. Those that are being worked on come first, so that a node that is half
    done never waits; then the oldest. A task that is paused, or waits for its window, and is at rest takes no place.
    """
    begun = or_(task.c.aborting, task.c.at_rest.is_(False), cluster.c.lease_until >= NOW_S)
    order = (case((begun, 0), else_=1), task.c.sequence)
    return (
        select(
            task.c.id.label("task_id"),
            task.c.cluster_id,
            task.c.project_id,
            begun.label("begun"),
            func.row_number().over(partition_by=task.c.project_id, order_by=order).label("place"),
        )
        .join(cluster, cluster.c.id == task.c.cluster_id)
        .where(
            task.c.status == "RUNNING",
            or_(
                task.c.aborting,
                task.c.at_rest.is_(False),
                task.c.paused.is_(False) & or_(task.c.hold_until.is_(None), task.c.hold_until <= NOW),
            ),
        )
    ).subquery()


# Built once: it is asked at every turn of every runner and at every reading of a task.
TURNS = _turns()
