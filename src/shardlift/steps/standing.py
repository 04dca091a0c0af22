"""Which nodes of a batch stand, which are down, and which have been started by somebody before they were done.

A person who finds a node down starts it. If the task had stopped it and had begun to change it, it must be stopped once
more, with everything that protects before that done anew: it may have taken copies, be the elected master, or have
clients. So its sub-steps up to the shutdown are opened again, in one write, and it is taken like any other node that
stands. The sub-steps on its host go on where they were: they look whether their work is done.

Down again, before it was stopped by us, or no member, it has nothing to protect, and could perhaps not even come back.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace

import structlog

from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.model import SUB_STEPS, Cluster, NodePlan, StepRow, StepStatus
from shardlift.steps.context import Outcome
from shardlift.store import Journal

_log = structlog.get_logger(__name__)
_BACKUP, _SHUTDOWN, _REPLACEMENT, _START = 5, 6, 7, 10
# What sub-step 1 has noted of the node that was stopped; sub-step 11 tells the new process from it.
_WHO = ("ephemeral_id", "node_id", "version")

Rows = MutableMapping[tuple[str, int], StepRow]


@dataclass(frozen=True, slots=True)
class Standing:
    """Looks at the processes of nodes and at their rows, which it changes with the journal."""

    task_id: str
    cluster: Cluster
    driver: Driver
    engine: Engine
    journal: Journal
    rows: Rows

    def changing(self, name: str) -> bool:
        """Whether its change on its host has begun. Then it is finished, even if the task is to end."""
        return self.rows[name, _REPLACEMENT].begin is not None

    def untouched(self, batch: tuple[NodePlan, ...]) -> bool:
        """Whether nothing of these nodes is done or under way."""
        waiting = all(
            self.rows[plan.name, sub.order].status is StepStatus.WAITING for plan in batch for sub in SUB_STEPS
        )
        return waiting and not any(self.changing(plan.name) for plan in batch)

    async def runs(self, name: str) -> bool:
        return await self.driver.process(self.cluster.node(name)) is not None

    async def groups(self, batch: tuple[NodePlan, ...]) -> tuple[tuple[NodePlan, ...], ...]:
        """The batch in the order to take it: those that are down come first, since a retry may come hours later."""
        if self.untouched(batch):
            return (batch,)
        await self._take_again(batch)
        if len(batch) == 1:
            return (batch,)
        down = tuple([plan for plan in batch if self._done(plan.name, _SHUTDOWN) or not await self.runs(plan.name)])
        up = tuple(plan for plan in batch if plan not in down)
        return tuple(group for group in (down, up) if group)

    async def left_down(self, name: str, order: int) -> Outcome | None:
        """How a sub-step ends that protects a node which has nothing to protect: half changed, it is down or no member.

        The last node of an upgrade may not be able to join with its old engine. One that hangs may be missing from the
        list of nodes, but its copies still count. Right before it is stopped it is looked again. Raises EngineError.
        """
        if order >= _BACKUP or not self.changing(name) or (await self.runs(name) and await self._member(name)):
            return None
        known = self.rows[name, order].evidence
        return Outcome(
            "Passed: the node had been stopped for its change, and is down again or, started by somebody, no member of "
            "the cluster.",
            {key: known[key] for key in _WHO if key in known},
        )

    def remedy(self, name: str, order: int) -> str:
        """What helps besides when a node cannot be taken again; empty where that is not the matter."""
        if order > _SHUTDOWN or not self.changing(name):
            return ""
        return (
            "; or, since the node was started while it was half changed, end its process and retry: its change then "
            "goes on where it was, and clients miss meanwhile what only this node has"
        )

    async def _member(self, name: str) -> bool:
        if any(member.name == name for member in await self.engine.nodes()):
            return True
        return any(copy.node == name for copy in await self.engine.shards())

    async def _take_again(self, batch: tuple[NodePlan, ...]) -> None:
        """Opens the rows of nodes that run although they had been stopped to be changed and are not.

        Of their mates that stand as well, too: what those were found to be is as old.
        """
        halves = [plan.name for plan in batch if not all(self._done(plan.name, order) for order in range(_START))]
        stopped = [name for name in halves if self._done(name, _SHUTDOWN)]
        started = [name for name in stopped if await self.runs(name)]
        if not started:
            return
        standing = [name for name in halves if name in started or await self.runs(name)]
        _log.info("nodes that had been stopped were started by somebody, taken again", task=self.task_id, nodes=started)
        await self.journal.reopen(self.task_id, standing, last=_SHUTDOWN)
        for name in standing:
            for sub in SUB_STEPS:
                row = self.rows[name, sub.order]
                if sub.order <= _SHUTDOWN or row.status is StepStatus.RUNNING:
                    self.rows[name, sub.order] = replace(row, status=StepStatus.WAITING, end=None, progress={})

    def _done(self, name: str, order: int) -> bool:
        return self.rows[name, order].status is StepStatus.SUCCESS
