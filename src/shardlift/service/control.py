"""What people do to a task that exists: pause, resume, approve, retry, abort, and change its policy.

Each may be sent twice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from shardlift.clock import Clock
from shardlift.errors import NotFoundError, RefusedError, UsageError
from shardlift.model import Image, Policy, Task, TaskStatus, partial_account
from shardlift.service.policies import changed_policy
from shardlift.service.requests import PolicyChange
from shardlift.store import Store, set_policy


class TaskControl:
    """Writes wishes into the task's row; whoever drives the task heeds them. `image` gives an image by its id."""

    def __init__(self, store: Store, clock: Clock, project_max: int, image: Callable[[str], Image]) -> None:
        self._store = store
        self._clock = clock
        self._project_max = project_max
        self._image = image

    async def pause(self, task: Task) -> None:
        """A RUNNING task stops before the next node that has not begun; a canary that waits for approval at once."""
        _in_progress(task, "paused")
        if not task.paused:
            await self._store.request(task.id, paused=True)

    async def resume(self, task: Task) -> None:
        """It goes on from the journal as soon as it is its turn."""
        _in_progress(task, "resumed")
        if task.paused:
            await self._store.request(task.id, paused=False)

    async def approve(self, task: Task) -> None:
        """Its canary may take shards, and the other nodes follow. Before the canary is back that is said in advance."""
        _in_progress(task, "approved")
        if not any(node.canary for node in task.plan.nodes):
            raise RefusedError(
                f"task {task.id} has no canary that could be approved",
                remedy="nothing waits for approval; `shardlift upgrade --canary` makes the first node a canary",
            )
        if not task.approved:
            await self._store.request(task.id, approved=True)

    async def set_policy(self, task: Task, change: PolicyChange) -> None:
        """From the next look between two nodes on the task goes by the changed policy; a FAILED one once it is retried.

        A paused task stays paused.
        """
        policy = changed_policy(task.policy, change)
        if task.status is not TaskStatus.FAILED or task.aborting:
            _in_progress(task, "given another policy")
        if change.canary and not task.policy.canary:
            raise UsageError(
                f"task {task.id} was planned without a canary",
                field="canary",
                value=True,
                remedy="pause the task to look at a node, or abort it and start one with a canary for the nodes left",
            )
        if policy == task.policy:
            return

        def changed(now: Policy) -> Policy:
            return changed_policy(now, change)

        if not await set_policy(self._store.database, task.id, changed, approved=change.canary is False):
            raise RefusedError(
                f"task {task.id} has ended meanwhile", remedy="start a new upgrade for the nodes that are left, if any"
            )

    async def retry(self, task: Task) -> None:
        """A FAILED task goes on from its failed sub-step, also when it had been paused before it failed."""
        if task.status is TaskStatus.FAILED and not task.aborting:
            await self._store.request_retry(task.id)
        elif task.status is not TaskStatus.RUNNING or task.execute_times == 1 or task.aborting:
            raise RefusedError(
                f"task {task.id} is {task.status}{' and was aborted' if task.aborting else ''}; only a FAILED one that "
                "was not aborted can be retried",
                remedy="start a new upgrade for the nodes that are left",
            )

    async def abort(self, task: Task) -> None:
        """A RUNNING task ends at the next safe point, a FAILED one is given up; all settings are put back."""
        if task.aborting:
            return
        if task.status in {TaskStatus.SUCCESS, TaskStatus.PARTIAL_FAILED}:
            raise RefusedError(f"task {task.id} has ended already: {task.status}", remedy="there is nothing to abort")
        target = task.image_id
        status = TaskStatus.PARTIAL_FAILED if task.completed else TaskStatus.FAILED
        with suppress(NotFoundError):  # an image that has left the catalogue is told by its id
            target = self._image(task.image_id).reference
        account = partial_account(task.kind, task.total, task.completed, target)
        await self._store.request_abort(task.id, status, f"given up on request: {account} or as the failure left them")

    async def with_turns(self, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        """The tasks, those of them that wait for their turn with their place in the queue."""
        projects = {task.project_id for task in tasks if task.status is TaskStatus.RUNNING and task.at_rest}
        places: dict[str, int] = {}
        for project_id in projects:
            places |= await self._store.places(project_id, self._clock.now())
        return tuple(self._queued(task, places.get(task.id, 0) - self._project_max) for task in tasks)

    def _queued(self, task: Task, position: int) -> Task:
        if position < 1 or task.status is not TaskStatus.RUNNING:
            return task
        waiting_for = (
            f"its turn: {position} task{'s' * (position > 1)} before it, since at most {self._project_max} clusters of "
            "a project are worked on at a time; end or pause another, or raise SHARDLIFT_PROJECT_CLUSTERS_MAX"
        )
        return replace(task, queue_position=position, waiting_for=waiting_for)


def _in_progress(task: Task, what: str) -> None:
    """Raises RefusedError for a task that has ended, or is about to."""
    if task.status is TaskStatus.RUNNING and not task.aborting:
        return
    if task.status is TaskStatus.RUNNING:
        remedy = "it ends at the next safe point; wait for that"
    elif task.status is TaskStatus.FAILED and not task.aborting:
        remedy = f"`shardlift task retry {task.id}` lets it go on from the sub-step that failed"
    else:
        remedy = "start a new upgrade for the nodes that are left, if any"
    state = "being aborted" if task.aborting and task.status is TaskStatus.RUNNING else str(task.status)
    raise RefusedError(f"task {task.id} cannot be {what}: it is {state}", remedy=remedy)
