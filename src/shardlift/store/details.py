"""What a poll of the upgrade details reads: whether anything has changed, and tasks without the rows that nobody sees.

A poll comes far more often than a change. So it asks the database one cheap question each time, whatever is kept in
memory, and reads tasks only when the answer is a new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from shardlift.bounded import Bounded
from shardlift.model import SUB_STEPS, Node, Plan, StepRow, StepStatus, Task, TaskKind
from shardlift.store.codec import plan_from, spare_from, step_from, task_from
from shardlift.store.database import Database
from shardlift.store.leases import SPARE
from shardlift.store.tables import cluster, setting_change, step, task

# On SQLite's own terms: these run in the event loop's thread, and so must be lookups in an index.
_OWNED = "SELECT driver FROM cluster WHERE id = ? AND project_id = ?"
_LATEST = "SELECT max(sequence) FROM task WHERE cluster_id = ? AND kind = ?"
_NEWER = "SELECT count(*) FROM task WHERE cluster_id = ? AND kind = ? AND sequence > ?"
_PAGE = "SELECT id, revision FROM task WHERE cluster_id = ? AND kind = ? ORDER BY sequence DESC LIMIT ? OFFSET ?"
_COUNTS_MAX = 10_000
_PAGE_MAX = 100
_PLAN_NODES_MAX = 50_000

_BEGUN = datetime(1970, 1, 1, tzinfo=UTC)
_COLUMNS = [column for column in task.c if column is not task.c.plan]
_TASKS = select(*_COLUMNS).where(task.c.id.in_(bindparam("ids", expanding=True)))
_PLANS = select(task.c.id, task.c.plan).where(task.c.id.in_(bindparam("ids", expanding=True)))
_NODES = (
    select(
        step.c.task_id,
        step.c.node,
        func.min(case((step.c.status == str(StepStatus.SUCCESS), 1), else_=0)).label("done"),
        func.max(step.c.begin.is_not(None)).label("begun"),
    )
    .where(step.c.task_id.in_(bindparam("ids", expanding=True)))
    .group_by(step.c.task_id, step.c.node)
)


_LAST = select(func.max(task.c.sequence)).where(task.c.cluster_id == cluster.c.id).correlate(cluster).scalar_subquery()
_NEWEST = (
    select(task.c.id)
    .select_from(cluster.join(task, task.c.sequence == _LAST))
    .where(cluster.c.id.in_(bindparam("ids", expanding=True)))
)
_ALL_STEPS = select(step).where(step.c.task_id.in_(bindparam("ids", expanding=True))).order_by(step.c.position)

_SPARES = (
    select(setting_change.c.ours)
    .where(setting_change.c.cluster_id == bindparam("cluster_id"), setting_change.c.restored.is_(False))
    .where(setting_change.c.kind == SPARE)
    .order_by(setting_change.c.id)
)


@lru_cache(_PAGE_MAX)
def _steps_of(count: int) -> Select[Any]:
    """The rows of so many pairs of task and node. One OR each: SQLite looks a list of pairs up in no index."""
    pairs = (
        and_(step.c.task_id == bindparam(f"task_{at}"), step.c.node == bindparam(f"node_{at}")) for at in range(count)
    )
    return select(step).where(or_(*pairs)).order_by(step.c.task_id, step.c.position)


@dataclass(frozen=True, slots=True)
class PageState:
    """What decides a page of tasks: how many there are, and (id, revision) of those on it, newest first.

    `driver` is the cluster's, which never changes. Two pages of a cluster with the same state hold the same tasks, word
    for word: a revision grows with every change.
    """

    driver: str
    total: int
    items: tuple[tuple[str, int], ...]


class Details:
    """Reads for the polls of one process. What it keeps is bounded, and never answers without the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Bounded[tuple[str, str], tuple[int, int]] = Bounded(_COUNTS_MAX)
        self._plans: Bounded[str, Plan] = Bounded(_PLAN_NODES_MAX)

    def mark(self) -> int:
        """A number that is another one once any process has changed anything."""
        return self._database.mark()

    def page(self, project_id: str, cluster_id: str, kind: TaskKind, start: int, limit: int) -> PageState | None:
        """The page from the 1-based `start` on, at most `limit` long, at one moment; None without such a cluster."""
        owned = (cluster_id, str(kind))
        with self._database.moment() as ask:
            found = ask(_OWNED, (cluster_id, project_id))
            if not found:
                return None
            driver = found[0][0]
            latest = ask(_LATEST, owned)[0][0]
            if latest is None:
                return PageState(driver, 0, ())
            items = tuple(ask(_PAGE, (*owned, limit, start - 1)))
            # A task leaves only with its whole cluster, so counting on from the last known one is counting all.
            seen, total = self._counts.get(owned) or (0, 0)
            if latest != seen:
                total += ask(_NEWER, (*owned, seen))[0][0]
                self._counts.put(owned, (latest, total))
        return PageState(driver, total, items)

    async def tasks(self, ids: Sequence[str]) -> tuple[Task, ...]:
        """Those of the tasks that exist, in no order, at one moment, with the journal rows that tell what people see.

        `completed`, `current` and `shown_node` are those of the whole task, and `steps_of(shown_node)` is whole. Of
        other nodes there is at most one row, which says whether it is completed or has begun.
        """
        async with self._database.read() as connection:
            rows = (await connection.execute(_TASKS, {"ids": ids})).all()
            plans = await self._plans_of(connection, [row.id for row in rows])
            outlines: dict[str, list[StepRow]] = defaultdict(list)
            for node in await connection.execute(_NODES, {"ids": ids}):
                if node.done or node.begun:
                    outlines[node.task_id].append(_outline(node))
            found = [_task(row, plans[row.id], outlines[row.id]) for row in rows]
            pairs = [(one.id, one.shown_node) for one in found if one.shown_node is not None]
            shown: dict[str, list[StepRow]] = defaultdict(list)
            for some in _batches(pairs):
                named = {f"task_{at}": one for at, (one, _) in enumerate(some)}
                named |= {f"node_{at}": node for at, (_, node) in enumerate(some)}
                for row in await connection.execute(_steps_of(len(some)), named):
                    shown[row.task_id].append(step_from(row))
        return tuple(_with_shown(one, shown[one.id]) for one in found)

    async def newest(self, cluster_ids: Sequence[str]) -> dict[str, Task]:
        """The newest task of each of the clusters that have one, with all its rows, at one moment."""
        tasks: dict[str, Task] = {}
        async with self._database.read() as connection:
            last = (await connection.execute(_NEWEST, {"ids": cluster_ids})).all()
            rows = (await connection.execute(_TASKS, {"ids": [row.id for row in last]})).all() if last else ()
            plans = await self._plans_of(connection, [row.id for row in rows])
            steps: dict[str, list[StepRow]] = defaultdict(list)
            for row in await connection.execute(_ALL_STEPS, {"ids": list(plans)}) if plans else ():
                steps[row.task_id].append(step_from(row))
        for row in rows:
            tasks[row.cluster_id] = _task(row, plans[row.id], steps[row.id])
        return tasks

    async def spares(self, cluster_id: str) -> tuple[Node, ...]:
        """Spare nodes that there are, or may be: their rows come before they do, and go after they have gone."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_SPARES, {"cluster_id": cluster_id})).scalars()
        return tuple(spare_from(row) for row in rows)

    async def _plans_of(self, connection: AsyncConnection, ids: Iterable[str]) -> dict[str, Plan]:
        """A plan never changes, and is most of what a large task weighs."""
        plans = {one: self._plans.get(one) for one in ids}
        missing = [one for one, plan in plans.items() if plan is None]
        for row in await connection.execute(_PLANS, {"ids": missing}) if missing else ():
            plan = plan_from(row.plan)
            plans[row.id] = plan
            self._plans.put(row.id, plan, 1 + len(plan.nodes))
        return {one: plan for one, plan in plans.items() if plan is not None}


def _batches(pairs: Sequence[tuple[str, str]]) -> Iterable[Sequence[tuple[str, str]]]:
    return (pairs[at : at + _PAGE_MAX] for at in range(0, len(pairs), _PAGE_MAX))


def _outline(node: Row[Any]) -> StepRow:
    """One row in place of 13: completed, or begun and not completed."""
    last = SUB_STEPS[-1]
    status = StepStatus.SUCCESS if node.done else StepStatus.RUNNING
    return StepRow(node.task_id, node.node, last.order, last.name, status, "", 1, begin=_BEGUN if node.begun else None)


def _task(row: Row[Any], plan: Plan, steps: Iterable[StepRow]) -> Task:
    return task_from(row, steps, plan)


def _with_shown(one: Task, rows: Sequence[StepRow]) -> Task:
    shown = one.shown_node
    return replace(one, steps=(*(row for row in one.steps if row.node != shown), *rows))
