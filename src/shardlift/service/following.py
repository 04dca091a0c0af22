"""Following a task, or a cluster's tasks, change by change: each wake-up costs one look into an index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from shardlift.clock import Clock
from shardlift.errors import NotFoundError
from shardlift.model import Task
from shardlift.store import Database, changed_task, newest_tasks, task_revision

T = TypeVar("T")

# Of a cluster's tasks so many are followed. A new one begins when the one before has ended, so that two changes of any
# but the newest few can not come between two looks.
_NEWEST_MAX = 10


class Follower:
    """Waits for changes. `with_turns` adds to a task what is computed when it is read."""

    def __init__(self, database: Database, clock: Clock, with_turns: Callable[[Task], Awaitable[Task]]) -> None:
        self._database = database
        self._clock = clock
        self._with_turns = with_turns

    async def past(self, task_id: str, revision: int, timeout_s: float) -> None:
        """Returns once the task's revision is above this one, or it is gone, or after `timeout_s`."""

        async def news() -> bool:
            now = await task_revision(self._database, task_id)
            return now is None or now > revision

        await self._until(news, timeout_s)

    async def next_of(self, before: Task, timeout_s: float) -> Task:
        """The task at its next change, or `before` itself after `timeout_s`. Raises NotFoundError when it is gone."""
        await self.past(before.id, before.revision, timeout_s)
        now = await changed_task(self._database, before)
        if now is None:
            raise NotFoundError(f"task {before.id} is gone, and its cluster with it", field="task", value=before.id)
        return before if now.revision == before.revision else await self._with_turns(now)

    async def tasks_of(
        self, cluster_id: str, seen: tuple[tuple[str, int], ...] | None, timeout_s: float
    ) -> tuple[tuple[str, int], ...]:
        """(id, revision) of the cluster's newest tasks, oldest first: at once, or when they are no longer `seen`."""
        found: tuple[tuple[str, int], ...] = ()

        async def news() -> bool:
            nonlocal found
            found = await newest_tasks(self._database, cluster_id, _NEWEST_MAX)
            return found != seen

        await self._until(news, timeout_s)
        return found

    async def _until(self, news: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        end_s = self._clock.elapsed_s() + timeout_s
        mark: int | None = None
        while True:  # ends by the clock
            left_s = max(end_s - self._clock.elapsed_s(), 0)
            mark = await self._database.wait_change(mark, left_s)
            if await news() or not left_s:
                return
