"""Whose turn it is: a project works on so many clusters at a time, oldest task first."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Select, case, func, or_, select

from shardlift.store.tables import cluster, task


def turns(now: datetime) -> Select[Any]:
    """(task id, cluster id, project id, `begun`, `place`) of each RUNNING task that would go on if it were its turn.

    `place` counts from 1 within the project. Those that are being worked on come first, so that a node that is half
    done never waits; then the oldest. A task that is paused, or waits for its window, and is at rest takes no place.
    """
    begun = or_(task.c.aborting, task.c.at_rest.is_(False), cluster.c.lease_until >= now.timestamp())
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
                task.c.paused.is_(False) & or_(task.c.hold_until.is_(None), task.c.hold_until <= now),
            ),
        )
    )
