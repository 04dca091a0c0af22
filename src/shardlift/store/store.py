"""Reads, and the writes that need no lease: projects, new clusters, new tasks, requests to retry or abort."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.errors import BusyError, NotFoundError, UsageError
from shardlift.model import (
    SUB_STEPS,
    Cluster,
    ClusterStatus,
    Node,
    StepRow,
    StepStatus,
    Task,
    TaskKind,
    TaskStatus,
)
from shardlift.store.codec import (
    cluster_from,
    node_from,
    plan_to_json,
    policy_to_json,
    step_from,
    task_from,
)
from shardlift.store.database import Database
from shardlift.store.queue import TURNS, at
from shardlift.store.tables import cluster, node, project, step, task

_SHUTDOWN = 6


# Nodes taken together with one that failed, and that have not been stopped either: what was set for them is taken back.
_STANDING = step.alias()
_RESET_MATES = (
    update(step)
    .where(
        step.c.task_id == bindparam("of_task"),
        step.c.order < _SHUTDOWN,
        step.c.status == str(StepStatus.SUCCESS),
        step.c.node.in_(
            select(_STANDING.c.node).where(
                _STANDING.c.task_id == bindparam("of_task"),
                _STANDING.c.order == _SHUTDOWN,
                _STANDING.c.status == str(StepStatus.WAITING),
            )
        ),
    )
    .values(status=str(StepStatus.WAITING), end=None)
)


class Store:
    """One door to the tables for everything that is not the journal of a task under way."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # projects

    async def add_project(self, project_id: str, name: str, at: datetime) -> None:
        async with self.database.write() as connection:
            await insert_project(connection, project_id, name, at)

    async def projects(self) -> tuple[tuple[str, str], ...]:
        """(id, name) of each project, oldest first."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(project.c.id, project.c.name).order_by(project.c.created_at))
            return tuple((row.id, row.name) for row in rows)

    # clusters

    async def add_cluster(self, new: Cluster) -> None:
        """Writes a cluster and its nodes. Raises UsageError when the project has one of that name."""
        try:
            async with self.database.write() as connection:
                await connection.execute(insert(cluster).values(_cluster_values(new)))
                rows = [_node_values(one, position) for position, one in enumerate(new.nodes)]
                await connection.execute(insert(node), rows)
        except IntegrityError as error:
            if "cluster.project_id" not in str(error.orig):
                raise BusyError(
                    "an address chosen for a node was taken by another cluster at the same moment",
                    remedy="run the command again",
                ) from None
            raise UsageError(
                f"there is a cluster {new.name!r} in this project already",
                field="name",
                value=new.name,
                remedy="choose another name, or delete that cluster first",
            ) from None

    async def clusters(
        self, project_id: str | None, start: int = 1, limit: int = 1000
    ) -> tuple[int, tuple[Cluster, ...]]:
        """(how many there are, those from the 1-based `start` on), newest first."""
        where: list[ColumnElement[bool]] = [] if project_id is None else [cluster.c.project_id == project_id]
        async with self.database.read() as connection:
            total = await connection.scalar(select(func.count()).select_from(cluster).where(*where))
            query = select(cluster).where(*where).order_by(cluster.c.created_at.desc(), cluster.c.id)
            rows = (await connection.execute(query.offset(start - 1).limit(limit))).all()
            return total or 0, await _with_nodes(connection, rows)

    async def cluster(self, ref: str, project_id: str | None = None) -> Cluster:
        """By id, or by name when only one has it. Another project's is not found, in the words for a missing one."""
        where: list[ColumnElement[bool]] = [(cluster.c.id == ref) | (cluster.c.name == ref)]
        if project_id is not None:
            where.append(cluster.c.project_id == project_id)
        async with self.database.read() as connection:
            rows = (await connection.execute(select(cluster).where(*where).limit(2))).all()
            exact = [row for row in rows if row.id == ref]
            if len(exact or rows) != 1:
                why = f"no cluster {ref!r}" if not rows else f"several clusters are named {ref!r}"
                remedy = "`shardlift cluster list` shows them" if not rows else "give the cluster's id"
                raise NotFoundError(why, field="cluster", value=ref, remedy=remedy)
            return (await _with_nodes(connection, exact or rows))[0]

    async def set_cluster_status(
        self, cluster_id: str, status: ClusterStatus, reason: str | None, at: datetime
    ) -> None:
        async with self.database.write() as connection:
            await connection.execute(
                update(cluster)
                .where(cluster.c.id == cluster_id)
                .values(status=str(status), failed_reason=reason, updated_at=at)
            )

    async def remove_cluster(self, cluster_id: str) -> None:
        async with self.database.write() as connection:
            await connection.execute(delete(cluster).where(cluster.c.id == cluster_id))

    async def addresses(self) -> frozenset[str]:
        """Addresses of all nodes of all clusters."""
        async with self.database.read() as connection:
            return frozenset((await connection.execute(select(node.c.address))).scalars())

    # tasks

    async def add_task(self, new: Task) -> None:
        """Writes the task, its plan and 13 WAITING rows a node, at once. Raises BusyError while another one runs."""
        try:
            async with self.database.write() as connection:
                await insert_task(connection, new)
        except IntegrityError:
            raise busy(new.cluster_id) from None

    async def tasks(
        self, cluster_id: str, kind: TaskKind | None = None, start: int = 1, limit: int = 10
    ) -> tuple[int, tuple[Task, ...]]:
        """(how many there are, those from the 1-based `start` on), newest first."""
        where = [task.c.cluster_id == cluster_id]
        if kind is not None:
            where.append(task.c.kind == str(kind))
        async with self.database.read() as connection:
            total = await connection.scalar(select(func.count()).select_from(task).where(*where))
            query = select(task).where(*where).order_by(task.c.sequence.desc()).offset(start - 1).limit(limit)
            rows = (await connection.execute(query)).all()
            return total or 0, await _with_steps(connection, rows)

    async def running_tasks(self, cluster_id: str) -> tuple[Task, ...]:
        """Those under way: one at most, as the schema has it."""
        query = select(task).where(task.c.cluster_id == cluster_id, task.c.status == str(TaskStatus.RUNNING))
        async with self.database.read() as connection:
            return await _with_steps(connection, (await connection.execute(query)).all())

    async def task(self, task_id: str, project_id: str | None = None) -> Task:
        """Another project's is not found, by the same statement and in the same words as one that does not exist."""
        where = [task.c.id == task_id]
        if project_id is not None:
            where.append(task.c.project_id == project_id)
        async with self.database.read() as connection:
            rows = (await connection.execute(select(task).where(*where))).all()
            if not rows:
                raise NotFoundError(
                    f"no task {task_id!r}",
                    field="task",
                    value=task_id,
                    remedy="`shardlift task list CLUSTER` shows the tasks of a cluster",
                )
            return (await _with_steps(connection, rows))[0]

    async def request_retry(self, task_id: str) -> bool:
        """FAILED back to RUNNING, from its failed sub-step on. False when it is no longer FAILED.

        A node that failed before it was stopped begins again at sub-step 0: with the failure its exclusion was taken
        back, so shards may have returned to it since.
        """
        try:
            async with self.database.write() as connection:
                done = await connection.execute(
                    update(task)
                    .where(task.c.id == task_id, task.c.status == str(TaskStatus.FAILED), task.c.aborting.is_(False))
                    .values(
                        status=str(TaskStatus.RUNNING),
                        ended_at=None,
                        fail_message=None,
                        # Who asks it to go on wants it to go on.
                        paused=False,
                        at_rest=False,
                        hold_until=None,
                        waiting_for=None,
                        execute_times=task.c.execute_times + 1,
                        revision=task.c.revision + 1,
                    )
                )
                if done.rowcount != 1:
                    return False
                failed = select(step.c.node, step.c.order).where(
                    step.c.task_id == task_id, step.c.status == str(StepStatus.FAILED)
                )
                revision = select(task.c.revision).where(task.c.id == task_id).scalar_subquery()
                for row in (await connection.execute(failed)).all():
                    first = 0 if row.order <= _SHUTDOWN else row.order
                    await connection.execute(
                        update(step)
                        .where(
                            step.c.task_id == task_id, step.c.node == row.node, step.c.order.between(first, row.order)
                        )
                        .values(status=str(StepStatus.WAITING), end=None, progress={}, revision=revision)
                    )
                await connection.execute(_RESET_MATES, {"of_task": task_id})
                return True
        except IntegrityError:
            raise busy((await self.task(task_id)).cluster_id) from None

    async def request(self, task_id: str, *, paused: bool | None = None, approved: bool | None = None) -> None:
        """Pauses or resumes a RUNNING task, or approves its canary. Nothing happens to one that has ended."""
        values: dict[str, object] = {} if approved is None else {"approved": approved}
        if paused is not None:
            # Why it waited is no longer why it does; its policy is asked again when it goes on.
            values |= {"paused": paused, "hold_until": None, "waiting_for": None}
        async with self.database.write() as connection:
            await connection.execute(
                update(task)
                .where(task.c.id == task_id, task.c.status == str(TaskStatus.RUNNING), task.c.aborting.is_(False))
                .values(values | {"revision": task.c.revision + 1})
            )

    async def places(self, project_id: str, now: datetime) -> dict[str, int]:
        """By task, its place among those of the project that have not begun to be worked on; 1 is the project's first.

        Those that are being worked on count, and are left out.
        """
        query = select(TURNS.c.task_id, TURNS.c.place).where(TURNS.c.project_id == project_id, ~TURNS.c.begun)
        async with self.database.read() as connection:
            return {row.task_id: row.place for row in await connection.execute(query, at(now))}

    async def request_abort(self, task_id: str, status: TaskStatus, account: str) -> bool:
        """Asks for an end: of a RUNNING task at the next safe point, of a FAILED one at once with `status`.

        `account` tells how far it came, and is added to why it failed.
        Returns False when the task has ended in another way meanwhile.
        """
        async with self.database.write() as connection:
            done = await connection.execute(
                update(task)
                .where(
                    task.c.id == task_id,
                    task.c.status.in_((str(TaskStatus.RUNNING), str(TaskStatus.FAILED))),
                    task.c.aborting.is_(False),
                )
                .values(aborting=True, revision=task.c.revision + 1)
            )
            if done.rowcount != 1:
                return False
            await connection.execute(
                update(task)
                .where(task.c.id == task_id, task.c.status == str(TaskStatus.FAILED))
                .values(status=str(status), fail_message=func.coalesce(task.c.fail_message + "; ", "") + account)
            )
            return True


async def insert_project(connection: AsyncConnection, project_id: str, name: str, at: datetime) -> None:
    """Raises UsageError when there is one of that name."""
    taken = await connection.scalar(select(project.c.id).where(project.c.name == name))
    if taken is not None:
        raise UsageError(f"there is a project {name!r} already", field="name", value=name, remedy="choose another name")
    await connection.execute(insert(project).values(id=project_id, name=name, created_at=at))


async def insert_task(connection: AsyncConnection, new: Task) -> None:
    """The task, its plan and its WAITING rows. Raises IntegrityError while another one runs."""
    rows = [
        {
            "task_id": new.id,
            "position": at * len(SUB_STEPS) + sub.order,
            "node": name,
            "order": sub.order,
            "name": sub.name,
            "status": str(StepStatus.WAITING),
            "desc": sub.desc,
            "attempts": 0,
            "evidence": {},
            "progress": {},
        }
        for at, name in enumerate(new.total)
        for sub in SUB_STEPS
    ]
    await connection.execute(insert(task).values(_task_values(new)))
    await connection.execute(insert(step), rows)


def busy(cluster_id: str) -> BusyError:
    """What is raised when a cluster has a RUNNING task already."""
    return BusyError(
        "another task is running on this cluster",
        field="cluster",
        value=cluster_id,
        remedy=f"`shardlift task list {cluster_id}` shows it; wait for it, or abort it",
    )


async def _with_nodes(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> tuple[Cluster, ...]:
    ids = [row.id for row in rows]
    members: dict[str, list[Node]] = defaultdict(list)
    for row in await connection.execute(select(node).where(node.c.cluster_id.in_(ids)).order_by(node.c.position)):
        members[row.cluster_id].append(node_from(row))
    running = select(task.c.cluster_id, task.c.kind).where(
        task.c.cluster_id.in_(ids), task.c.status == str(TaskStatus.RUNNING)
    )
    busy = {row.cluster_id: row.kind for row in await connection.execute(running)}
    return tuple(cluster_from(row, members[row.id], busy.get(row.id)) for row in rows)


async def _with_steps(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> tuple[Task, ...]:
    steps: dict[str, list[StepRow]] = defaultdict(list)
    query = select(step).where(step.c.task_id.in_([row.id for row in rows])).order_by(step.c.position)
    for row in await connection.execute(query):
        steps[row.task_id].append(step_from(row))
    return tuple(task_from(row, steps[row.id]) for row in rows)


def _cluster_values(new: Cluster) -> dict[str, object]:
    return {
        "id": new.id,
        "project_id": new.project_id,
        "name": new.name,
        "engine": str(new.engine),
        "version": str(new.version),
        "image_id": new.image_id,
        "driver": new.driver,
        "strategy": str(new.strategy),
        "status": str(new.status),
        "heap_mib": new.heap_mib,
        "created_at": new.created_at,
        "updated_at": new.updated_at,
        "failed_reason": new.failed_reason,
    }


def _node_values(new: Node, position: int) -> dict[str, object]:
    return {
        "id": new.id,
        "cluster_id": new.cluster_id,
        "position": position,
        "name": new.name,
        "instance_type": str(new.instance_type),
        "roles": list(new.roles),
        "zone": new.zone,
        "address": new.address,
        "http_port": new.http_port,
        "transport_port": new.transport_port,
        "image_id": new.image_id,
    }


def _task_values(new: Task) -> dict[str, object]:
    return {
        "id": new.id,
        "cluster_id": new.cluster_id,
        "project_id": new.project_id,
        "kind": str(new.kind),
        "status": str(new.status),
        "image_id": new.image_id,
        "strategy": str(new.strategy),
        "plan": plan_to_json(new.plan),
        "agency": new.agency,
        "created_at": new.created_at,
        "ended_at": new.ended_at,
        "execute_times": new.execute_times,
        "revision": new.revision,
        "bytes_moved": new.bytes_moved,
        "aborting": new.aborting,
        "fail_message": new.fail_message,
        "policy": policy_to_json(new.policy),
        "paused": new.paused,
        "approved": new.approved,
        "at_rest": new.at_rest,
        "hold_until": new.hold_until,
        "waiting_for": new.waiting_for,
    }
