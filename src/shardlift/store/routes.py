"""Routes as rows. A hop and its task are written together: whatever crashes when, no hop is begun twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.errors import BusyError
from shardlift.model import Hop, Route, RouteStatus, Strategy, Task, TaskStatus
from shardlift.store.codec import policy_from, policy_to_json
from shardlift.store.database import Database
from shardlift.store.store import busy, insert_task
from shardlift.store.tables import route, route_hop, task

_MOST = 1000


@dataclass(frozen=True, slots=True)
class RouteDue:
    """A RUNNING route. `status`, `aborting` and `fail_message` are its newest task's."""

    route: Route
    status: TaskStatus | None
    aborting: bool
    fail_message: str | None


class RouteStore:
    """Reads and writes of routes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, new: Route, first: Task) -> None:
        """Writes the route with the task of its first hop. Raises BusyError while another task or route runs."""
        try:
            async with self._database.write() as connection:
                await insert_task(connection, first)
                await connection.execute(insert(route).values(_values(new)))
                rows = [
                    {"route_id": new.id, "position": at, "image_id": hop.image_id, "task_id": hop.task_id}
                    for at, hop in enumerate(new.hops)
                ]
                await connection.execute(insert(route_hop), rows)
        except IntegrityError as error:
            if "route." in str(error.orig):
                raise BusyError(
                    "the cluster is on a route already",
                    field="cluster",
                    value=new.cluster_id,
                    remedy=f"`shardlift route show {new.cluster_id}` shows it; wait for its end, or abort it",
                ) from None
            raise busy(new.cluster_id) from None

    async def go_on(self, route_id: str, position: int, next_task: Task) -> None:
        """Begins the hop at `position`. Raises BusyError when it has begun, the route has ended, or a task runs."""
        running = select(route.c.id).where(route.c.id == route_id, route.c.status == str(RouteStatus.RUNNING)).exists()
        try:
            async with self._database.write() as connection:
                await insert_task(connection, next_task)
                done = await connection.execute(
                    update(route_hop)
                    .where(
                        route_hop.c.route_id == route_id,
                        route_hop.c.position == position,
                        route_hop.c.task_id.is_(None),
                        running,
                    )
                    .values(task_id=next_task.id)
                )
                if done.rowcount != 1:
                    raise BusyError("the route has gone on, or has ended, meanwhile")  # rolls the task back
                await connection.execute(
                    update(route).where(route.c.id == route_id).values(waiting_for=None, look_at=None)
                )
        except IntegrityError:
            raise busy(next_task.cluster_id) from None

    async def due(self, now: datetime) -> tuple[RouteDue, ...]:
        """RUNNING routes that are not to be left alone for now, those first that have waited longest for a look."""
        wanted = or_(route.c.look_at.is_(None), route.c.look_at <= now)
        query = (
            select(route)
            .where(route.c.status == str(RouteStatus.RUNNING), wanted)
            .order_by(route.c.look_at, route.c.sequence)
            .limit(_MOST)
        )
        async with self._database.read() as connection:
            routes = await _with_hops(connection, (await connection.execute(query)).all())
            ids = [one.task_id for one in routes if one.task_id is not None]
            ended = select(task.c.id, task.c.status, task.c.aborting, task.c.fail_message).where(task.c.id.in_(ids))
            tasks = {row.id: row for row in await connection.execute(ended)}
        return tuple(_due(one, tasks.get(one.task_id)) for one in routes)

    async def of_cluster(self, cluster_id: str, limit: int = 100) -> tuple[Route, ...]:
        """The cluster's newest routes, newest first."""
        query = select(route).where(route.c.cluster_id == cluster_id).order_by(route.c.sequence.desc()).limit(limit)
        async with self._database.read() as connection:
            return await _with_hops(connection, (await connection.execute(query)).all())

    async def wait(self, route_id: str, waiting_for: str | None, look_at: datetime | None) -> None:
        """Says why a RUNNING route does not go on, and when it is looked at again."""
        async with self._database.write() as connection:
            await connection.execute(
                update(route)
                .where(route.c.id == route_id, route.c.status == str(RouteStatus.RUNNING))
                .values(waiting_for=waiting_for, look_at=look_at)
            )

    async def end(self, route_id: str, status: RouteStatus, at: datetime) -> bool:
        """False when it has ended already."""
        async with self._database.write() as connection:
            done = await connection.execute(
                update(route)
                .where(route.c.id == route_id, route.c.status == str(RouteStatus.RUNNING))
                .values(status=str(status), ended_at=at, waiting_for=None, look_at=None)
            )
            return done.rowcount == 1


def _due(one: Route, row: Any) -> RouteDue:
    if row is None:
        return RouteDue(one, None, aborting=False, fail_message=None)
    return RouteDue(one, TaskStatus(row.status), row.aborting, row.fail_message)


async def _with_hops(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> tuple[Route, ...]:
    hops: dict[str, list[Hop]] = defaultdict(list)
    query = (
        select(route_hop)
        .where(route_hop.c.route_id.in_([row.id for row in rows]))
        .order_by(route_hop.c.route_id, route_hop.c.position)
    )
    for row in await connection.execute(query):
        hops[row.route_id].append(Hop(row.image_id, row.task_id))
    return tuple(_route_from(row, hops[row.id]) for row in rows)


def _route_from(row: Row[Any], hops: Sequence[Hop]) -> Route:
    return Route(
        id=row.id,
        cluster_id=row.cluster_id,
        project_id=row.project_id,
        status=RouteStatus(row.status),
        hops=tuple(hops),
        strategy=None if row.strategy is None else Strategy(row.strategy),
        agency=row.agency,
        backup_check=row.backup_check,
        load_check=row.load_check,
        policy=policy_from(row.policy),
        created_at=row.created_at,
        ended_at=row.ended_at,
        waiting_for=row.waiting_for,
        look_at=row.look_at,
    )


def _values(new: Route) -> dict[str, object]:
    return {
        "id": new.id,
        "cluster_id": new.cluster_id,
        "project_id": new.project_id,
        "status": str(new.status),
        "strategy": None if new.strategy is None else str(new.strategy),
        "agency": new.agency,
        "backup_check": new.backup_check,
        "load_check": new.load_check,
        "policy": policy_to_json(new.policy),
        "created_at": new.created_at,
        "ended_at": new.ended_at,
        "waiting_for": new.waiting_for,
        "look_at": new.look_at,
    }
