"""Walks a plan: act unless already done, verify, journal. It makes no choices of its own.

To resume is to run again: rows that are SUCCESS are passed, the first other one is begun again, and its step looks
whether its work is already done. So whatever crashes when, a node goes through its 13 sub-steps in order, and no
effect on the host is repeated (invariant 1 rests on the order, invariant 2 on the fence in the journal).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn, TypeVar

import structlog

from shardlift.bench import Bench
from shardlift.errors import DriverError, EngineError, FencedError, ShardliftError
from shardlift.model import (
    AT_ONCE,
    SUB_STEPS,
    NodePlan,
    StepRow,
    StepStatus,
    Task,
    TaskKind,
    TaskStatus,
    partial_account,
)
from shardlift.steps import STEPS, Ledger, Outcome, StepContext, StepFailedError, hold_cluster, settle_cluster
from shardlift.steps.account import end_account, failure_account
from shardlift.steps.boundary import Boundary
from shardlift.steps.context import AbortedError, SuspendedError
from shardlift.steps.migration import EXCLUDE_NAME
from shardlift.steps.spare import end_spares, spares_left
from shardlift.steps.standing import Standing
from shardlift.steps.zones import end_zones
from shardlift.store import Control, StoreError

_log = structlog.get_logger(__name__)
_ENGINE_ATTEMPTS, _ENGINE_PAUSE_FIRST_S = 5, 0.5
_SAFETY_CHECK, _TRAFFIC, _SHUTDOWN = 1, 3, 6
_LOG_FROM, _REJOIN = 6, 11

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """A moment of the walk: `what` is `begun`, `acted` (done, not yet journaled) or `journaled`."""

    what: str
    node: str
    order: int


class _Stop(Exception):  # noqa: N818  (a way out of the walk, not an error)
    """A sub-step has failed and its row says so."""

    def __init__(self, node: str, order: int, message: str) -> None:
        super().__init__(message)
        self.node, self.order, self.message = node, order, message


def _ignore(_event: Event) -> None:
    return None


class Executor:
    """Runs one task to its end, or until it is fenced, cancelled or without a database.

    `observer` is told each moment of the walk; tests crash there. What it raises at `begun` is how the sub-step fails.
    """

    def __init__(self, bench: Bench, task: Task, observer: Callable[[Event], None] = _ignore) -> None:
        self._bench = bench
        self._task = task
        self._observer = observer
        self._ledger = Ledger(bench.journal, bench.engine, task.id)
        self._rows = {(row.node, row.order): row for row in task.steps}
        self._standing = Standing(task.id, bench.cluster, bench.driver, bench.engine, bench.journal, self._rows)
        self._mates = {
            node.name: frozenset(other.name for other in batch if other is not node) | node.away_too
            for batch in task.plan.batches
            for node in batch
        }
        self._batches = tuple(frozenset(node.name for node in batch) for batch in task.plan.batches)
        self._number = {name: number for number, batch in enumerate(self._batches) for name in batch}
        self._resuming = True
        self._since_ms = int(task.created_at.timestamp() * 1000)

    async def run(self) -> TaskStatus:
        """The final status, or RUNNING when the task rests between two nodes until it is told to go on.

        Raises FencedError, StoreError or CancelledError with the journal as it then stands.
        """
        failed = next((row for row in self._task.steps if row.status is StepStatus.FAILED), None)
        try:
            if failed is not None:
                # A crash came between the failure of a sub-step and the end of its task.
                return await self._failed(_Stop(failed.node, failed.order, failed.desc))
            prepared = False
            for batch in self._task.plan.batches:
                await self._boundary(batch)
                if not prepared:
                    await self._bench.journal.go_on(self._task.id)
                    await self._prepare()
                    prepared = True
                await self._batch(batch)
            return await self._succeeded()
        except _Stop as stop:
            return await self._failed(stop)
        except AbortedError:
            return await self._aborted()
        except SuspendedError as suspended:
            return await self._suspended(suspended)

    async def _boundary(self, batch: tuple[NodePlan, ...]) -> None:
        """Before nodes of which nothing is done or under way: may they be begun now?"""
        if not self._standing.untouched(batch):
            return
        node = batch[0]
        bench = self._bench
        boundary = Boundary(self._task, bench.journal, bench.engine, bench.clock, bench.settings.gate_interval_s)
        try:
            await boundary.passed(node.name)
        except StepFailedError as error:
            # As a failure of its first sub-step, which is where a retry begins, and looks at the gates again.
            await self._fail_unbegun(node.name, 0, error)

    async def _prepare(self) -> None:
        """What the whole task needs. A failure here is one of the first sub-step that is still to be done."""
        row = self._next_row()
        if row is None:
            return
        try:
            await self._patiently(self._hold)
            await self._bench.driver.prepare(self._bench.image)
        except (EngineError, DriverError) as error:
            await self._fail_unbegun(row.node, row.order, error)

    async def _fail_unbegun(self, node: str, order: int, error: ShardliftError) -> NoReturn:
        """Ends the walk at a sub-step that what comes before it has kept from being tried.

        Begun all the same, or the node where the task failed would count as one that nobody has come to.
        """
        await self._bench.journal.begin_step(self._task.id, node, order, self._bench.clock.now())
        await self._journal_failure(node, order, error, {})
        raise _Stop(node, order, error.message) from None

    async def _hold(self) -> None:
        await hold_cluster(self._ledger, self._bench.engine, self._task.plan)
        canary = next((node for node in self._task.plan.nodes if node.canary and node.drained), None)
        if canary is None or (await self._bench.journal.control(self._task.id)).approved:
            return
        emptied, back = (self._rows[canary.name, order].status is StepStatus.SUCCESS for order in (0, _REJOIN))
        if emptied and not back:
            # When its node failed, and before the task was retried, the exclusion went with all other settings.
            await self._ledger.add_token(EXCLUDE_NAME, canary.name)

    async def _batch(self, batch: tuple[NodePlan, ...]) -> None:
        """All nodes of the batch through the sub-steps, side by side: none stops before all may, all boot at once.

        What changes settings of the cluster is done by one after the other. Those that are down already, after a crash
        or a failure, are brought back before the others are looked at again.
        """
        for number, group in enumerate(await self._standing.groups(batch)):
            self._resuming = self._resuming or number > 0
            await self._walk(group)
        for plan in batch:
            await self._bench.journal.node_switched(plan.node_id, self._bench.image.id, plan.to_zone)

    async def _walk(self, group: tuple[NodePlan, ...]) -> None:
        for sub in SUB_STEPS:
            todo = [plan for plan in group if self._rows[plan.name, sub.order].status is not StepStatus.SUCCESS]
            if not todo:
                continue
            if await self._may_end(todo, sub.order) and await self._abort_requested():
                raise AbortedError("the task was asked to end")
            resuming, self._resuming = self._resuming, False
            if sub.order in AT_ONCE and len(todo) > 1:
                await self._together(todo, sub.order, resuming=resuming)
            else:
                for plan in todo:
                    await self._step(plan, sub.order, resuming=resuming)

    async def _together(self, todo: list[NodePlan], order: int, *, resuming: bool) -> None:
        """Waits for all of them also when one fails: no effect is left under way."""
        ends = await asyncio.gather(
            *(self._step(plan, order, resuming=resuming) for plan in todo), return_exceptions=True
        )
        errors = [end for end in ends if isinstance(end, BaseException)]
        # A lost lease or database says more than a failed sub-step, and must not be taken for one.
        for error in sorted(errors, key=lambda one: isinstance(one, _Stop)):
            raise error

    async def _may_end(self, todo: list[NodePlan], order: int) -> bool:
        return all([await self._may_end_before(plan, order) for plan in todo])

    async def _abort_requested(self) -> bool:
        return (await self._bench.journal.control(self._task.id)).aborting

    async def _may_end_before(self, plan: NodePlan, order: int) -> bool:
        """Up to the shutdown an end leaves the node as it was; once its process is gone it is finished first.

        The shutdown itself may have been done by a run that crashed before it could say so. One that was started again
        by somebody, half changed, is finished, too.
        """
        if order < _SHUTDOWN:
            return not self._standing.changing(plan.name)
        return order == _SHUTDOWN and not self._standing.changing(plan.name) and await self._standing.runs(plan.name)

    async def _step(self, plan: NodePlan, order: int, *, resuming: bool) -> None:
        bench, task_id = self._bench, self._task.id
        await bench.journal.begin_step(task_id, plan.name, order, bench.clock.now())
        context = self._context(plan, order)
        try:
            self._observer(Event("begun", plan.name, order))
            if resuming and _SAFETY_CHECK < order <= _SHUTDOWN and await bench.driver.process(context.node) is not None:
                # The check was passed by an earlier run, maybe hours ago, and the node still stands.
                await self._patiently(lambda: STEPS[_SAFETY_CHECK](context))
                if order > _TRAFFIC:
                    # Its balancer may have been started again meanwhile, and know nothing of what it was told.
                    await self._patiently(lambda: STEPS[_TRAFFIC](context))
            outcome = await self._patiently(lambda: self._standing.left_down(plan.name, order))
            if outcome is None:
                outcome = await self._patiently(lambda: STEPS[order](context))
        except (FencedError, StoreError, AbortedError, SuspendedError):
            raise
        except ShardliftError as error:
            await self._journal_failure(plan.name, order, error, await self._log_of(context, order))
            raise _Stop(plan.name, order, error.message) from None
        except Exception as error:  # noqa: BLE001  (whatever breaks, the task must end FAILED and say so)
            _log.exception("sub-step broke", task=task_id, node=plan.name, order=order)
            told = ShardliftError(
                f"an error in Shardlift itself: {type(error).__name__}: {error}",
                remedy="see the log of `shardlift serve`, report it, then retry",
            )
            await self._journal_failure(plan.name, order, told, {})
            raise _Stop(plan.name, order, told.message) from None
        self._observer(Event("acted", plan.name, order))
        await self._journal_success(plan.name, order, outcome)
        self._observer(Event("journaled", plan.name, order))

    async def _journal_success(self, node: str, order: int, outcome: Outcome) -> None:
        await self._end_step(node, order, StepStatus.SUCCESS, outcome.desc, outcome.evidence)

    async def _journal_failure(self, node: str, order: int, error: ShardliftError, more: Mapping[str, object]) -> None:
        desc, evidence = failure_account(error, more)
        _log.warning("sub-step failed", task=self._task.id, node=node, order=order, error=error.message)
        told = f"{desc}{self._standing.remedy(node, order)}"
        await self._end_step(node, order, StepStatus.FAILED, told, evidence)

    async def _end_step(
        self, node: str, order: int, status: StepStatus, desc: str, evidence: Mapping[str, object]
    ) -> None:
        at = self._bench.clock.now()
        await self._bench.journal.end_step(
            self._task.id, node, order, status=status, desc=desc, evidence=evidence, at=at
        )
        old = self._rows[node, order]
        self._rows[node, order] = StepRow(
            old.task_id, node, order, old.name, status, desc, old.attempts + 1, old.begin or at, at, evidence
        )

    async def _log_of(self, context: StepContext, order: int) -> dict[str, object]:
        if not _LOG_FROM <= order <= _REJOIN:
            return {}
        try:
            return {"log": list(await context.driver.log_tail(context.node))}
        except DriverError as error:
            return {"log": [error.message]}

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Begins the work again when the cluster did not answer: steps are safe to repeat, and nodes come back."""
        pause_s = _ENGINE_PAUSE_FIRST_S
        for _ in range(_ENGINE_ATTEMPTS - 1):
            try:
                return await work()
            except EngineError as error:
                _log.info("cluster did not answer, asked again", task=self._task.id, error=error.message)
            await self._bench.clock.sleep(pause_s)
            pause_s *= 2
        return await work()

    # the ends, and the rest

    async def _succeeded(self) -> TaskStatus:
        bench, image, plan = self._bench, self._bench.image, self._task.plan
        zones = await self._patiently(lambda: end_zones(self._ledger, bench.engine, plan))
        notes = *zones, *await self.end_spares(), *await self._settle(timeout_s=bench.settings.rejoin_timeout_s)
        await self._count_recoveries()
        await bench.journal.end_task(
            self._task.id,
            TaskStatus.SUCCESS,
            "; ".join(notes) or None,
            bench.clock.now(),
            cluster_image=(image.id, str(image.engine), str(image.version)),
        )
        return TaskStatus.SUCCESS

    async def _failed(self, stop: _Stop) -> TaskStatus:
        notes = *await self._settle(timeout_s=0), *await spares_left(self._ledger)
        message = f"{stop.node}, sub-step {stop.order} ({SUB_STEPS[stop.order].name}): {stop.message}"
        return await self._end(TaskStatus.FAILED, "; ".join([message, *notes]))

    async def _aborted(self) -> TaskStatus:
        notes = *await self.end_spares(), *await self._settle(timeout_s=0)
        total = self._task.total
        done = [name for name in total if self._rows[name, 12].status is StepStatus.SUCCESS]
        told = partial_account(self._task.kind, total, done, self._bench.image.reference)
        keys = await self._bench.journal.restored_keys(self._task.id)
        account = end_account(told, keys, mixed=bool(done) and self._task.kind is TaskKind.UPGRADING)
        return await self._end(TaskStatus.PARTIAL_FAILED if done else TaskStatus.FAILED, "; ".join([*account, *notes]))

    async def end_spares(self) -> tuple[str, ...]:
        """Empties and removes spare nodes that are left. A line for each that has to stay, and why."""
        context, journal, task_id = self._context(self._task.plan.nodes[0], 0), self._bench.journal, self._task.id
        return await end_spares(context, self._patiently, self._hold, lambda why: journal.waiting(task_id, why))

    async def _suspended(self, suspended: SuspendedError) -> TaskStatus:
        if not any(row.begin for row in self._rows.values()):
            # Nothing has been done yet that anything must be held for; a run before may have got as far as that.
            await self._settle(timeout_s=0)
        await self._bench.journal.rest(
            self._task.id, suspended.message, hold_until=suspended.hold_until, pause=suspended.pause
        )
        return TaskStatus.RUNNING

    async def _end(self, status: TaskStatus, message: str) -> TaskStatus:
        await self._bench.journal.end_task(self._task.id, status, message, self._bench.clock.now())
        return status

    async def _settle(self, *, timeout_s: float) -> tuple[str, ...]:
        """Puts settings back. What cannot be put back now stays in the ledger, and the runner goes on trying."""
        bench = self._bench
        notes: tuple[str, ...] = ()
        try:
            notes = await self._patiently(
                lambda: settle_cluster(self._ledger, bench.engine, bench.clock, timeout_s=timeout_s)
            )
        except EngineError as error:
            notes = (f"settings could not be put back yet ({error.message}); it is tried again",)
        try:
            return *notes, *await self._patiently(bench.traffic.restore)
        except EngineError as error:
            return *notes, f"nodes could not be put back in the balancer yet ({error.message}); it is tried again"

    # what steps are given

    def _next_row(self) -> StepRow | None:
        return next((row for row in self._task.steps if row.status is not StepStatus.SUCCESS), None)

    async def _count_recoveries(self) -> None:
        seen = await self._bench.engine.recoveries()
        mine = [(one.key, one.bytes) for one in seen if one.started_at_ms >= self._since_ms]
        if mine:
            await self._bench.journal.add_recoveries(self._task.id, mine)

    def _context(self, plan: NodePlan, order: int) -> StepContext:
        bench, task_id = self._bench, self._task.id

        async def report(progress: Mapping[str, object]) -> None:
            await bench.journal.progress(task_id, plan.name, order, progress)

        async def control() -> Control:
            now = await bench.journal.control(task_id)
            finished = order <= _SHUTDOWN and self._standing.changing(plan.name)
            return replace(now, aborting=False) if finished else now

        return StepContext(
            task_id=task_id,
            cluster=bench.cluster,
            node=bench.cluster.node(plan.name),
            plan=plan,
            strategy=self._task.strategy,
            image=bench.image,
            settings=bench.settings,
            clock=bench.clock,
            engine=bench.engine,
            driver=bench.driver,
            ledger=self._ledger,
            traffic=bench.traffic,
            earlier=lambda earlier: self._rows[plan.name, earlier].evidence,
            report=report,
            count_recoveries=self._count_recoveries,
            control=control,
            check_lease=bench.journal.lease.check,
            mates=self._mates[plan.name],
            taken=self._batches[: self._number[plan.name]],
        )
