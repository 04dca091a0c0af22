"""Tasks and their journal, as read back from the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shardlift.model.cluster import Strategy
from shardlift.model.plan import Plan


class TaskKind(StrEnum):
    """The CSS `actions` words."""

    UPGRADING = "UPGRADING"
    AZ_MIGRATION = "AZ_MIGRATION"


class TaskStatus(StrEnum):
    """The four words of the seed page; a task is RUNNING from the moment it exists."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    PARTIAL_FAILED = "PARTIAL_FAILED"


class StepStatus(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class StepRow:
    """The journal row of one (node, order). `evidence` is JSON-ready: what was seen, findings, the engine log's tail.

    `progress` says, while RUNNING, how far it is and what it waits for: `waiting_for`, `shards_left`, `bytes_left`.
    """

    task_id: str
    node: str
    order: int
    name: str
    status: StepStatus
    desc: str
    attempts: int
    begin: datetime | None = None
    end: datetime | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)
    progress: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One request to act on a cluster, its plan and how far it has come.

    `steps` are in plan order, then sub-step order. `current` names the nodes being worked on; `completed` those whose
    13 sub-steps are all SUCCESS. `execute_times` counts the runs: 1, and one more for each retry.
    `revision` grows with each journal write, so that a reader can wait for the next change.
    """

    id: str
    cluster_id: str
    project_id: str
    kind: TaskKind
    status: TaskStatus
    image_id: str
    strategy: Strategy
    plan: Plan
    agency: str
    created_at: datetime
    ended_at: datetime | None
    execute_times: int
    revision: int
    bytes_moved: int
    aborting: bool = False
    fail_message: str | None = None
    steps: tuple[StepRow, ...] = ()

    @property
    def total(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.plan.nodes)

    @property
    def completed(self) -> tuple[str, ...]:
        return tuple(name for name in self.total if self._all_done(name))

    @property
    def current(self) -> tuple[str, ...]:
        """Nodes that have begun and are not done. For a finished task that failed: the node it failed at."""
        return tuple(
            name
            for name in self.total
            if not self._all_done(name) and any(row.node == name and row.begin for row in self.steps)
        )

    def steps_of(self, node: str) -> tuple[StepRow, ...]:
        return tuple(row for row in self.steps if row.node == node)

    def _all_done(self, name: str) -> bool:
        rows = self.steps_of(name)
        return bool(rows) and all(row.status is StepStatus.SUCCESS for row in rows)
