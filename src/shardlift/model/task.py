"""Tasks and their journal, as read back from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shardlift.model.cluster import Strategy
from shardlift.model.plan import Plan
from shardlift.model.policy import Policy


class TaskKind(StrEnum):
    """The CSS `actions` words."""

    UPGRADING = "UPGRADING"
    AZ_MIGRATION = "AZ_MIGRATION"
    REPLACING = "REPLACING"
    REBOOTING = "REBOOTING"

    @property
    def done_word(self) -> str:
        """What nodes that are done have become, as it stands behind `1 of 3 nodes`."""
        return _DONE_WORDS[self]


_DONE_WORDS = {
    TaskKind.UPGRADING: "run {image}",
    TaskKind.AZ_MIGRATION: "are where they are to be",
    TaskKind.REPLACING: "are replaced",
    TaskKind.REBOOTING: "are restarted",
}


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

    `revision` is that of its task at which the row last changed.
    `progress` says, while RUNNING, how far it is and what it waits for: `waiting_for`, `shards_left`, `bytes_left`,
    `recovery_limit_bytes_per_s`, `lease_wait_s` (from `begin` on, sub-step 4 waits about so long for the engine).
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
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One request to act on a cluster, its plan and how far it has come.

    `steps` are in plan order, then sub-step order. `current` names the nodes being worked on; `completed` those whose
    13 sub-steps are all SUCCESS. `execute_times` counts the runs: 1, and one more for each retry.
    `revision` grows with each journal write, so that a reader can wait for the next change.

    A RUNNING task is `paused` from the moment somebody, or its own policy, asks for it, and nothing moves once it is
    `at_rest`: then no node is half done, and it may stay so for as long as anybody likes. `hold_until` is the next
    opening of its maintenance windows while it waits for one, `waiting_for` says why it does not go from one node to
    the next and what to do. `approved`: its canary may take shards. `queue_position` (1 is the next to go) is computed
    when the task is read, and None for one that is not waiting for its turn.
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
    policy: Policy = field(default_factory=Policy)
    paused: bool = False
    approved: bool = False
    at_rest: bool = False
    hold_until: datetime | None = None
    waiting_for: str | None = None
    queue_position: int | None = None
    steps: tuple[StepRow, ...] = ()

    @property
    def total(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.plan.nodes)

    @property
    def completed(self) -> tuple[str, ...]:
        done = self._states()
        return tuple(name for name in self.total if done.get(name, (False, False))[0])

    @property
    def current(self) -> tuple[str, ...]:
        """Nodes that have begun and are not done. For a finished task that failed: the node it failed at."""
        begun = self._states()
        return tuple(name for name in self.total if begun.get(name) == (False, True))

    @property
    def shown_node(self) -> str | None:
        """The node to look at: the one being worked on, else the next one, else the last one done."""
        states, total = self._states(), self.total
        at = [states.get(name, (False, False)) for name in total]
        current = next((name for name, state in zip(total, at, strict=True) if state == (False, True)), None)
        if current is not None:
            return current
        waiting = next((name for name, (done, _) in zip(total, at, strict=True) if not done), None)
        if self.ended_at is not None or waiting is None:
            last = next((name for name, (done, _) in zip(reversed(total), reversed(at), strict=True) if done), None)
            return last or waiting
        return waiting

    @property
    def blocked_by(self) -> str | None:
        """What it waits for: by the sub-step under way, else by what keeps it between two nodes."""
        if self.status is not TaskStatus.RUNNING:
            return None
        if self.at_rest and self.paused:
            return self.waiting_for or paused_text(self.id)
        said = (row.progress.get("waiting_for") for row in self.steps if row.status is StepStatus.RUNNING)
        step = next((str(one) for one in said if one), None)
        return (self.waiting_for or step) if self.at_rest else (step or self.waiting_for)

    def steps_of(self, node: str) -> tuple[StepRow, ...]:
        return tuple(row for row in self.steps if row.node == node)

    def _states(self) -> dict[str, tuple[bool, bool]]:
        """By node: whether all rows are SUCCESS, and whether any has begun. One pass: there may be 13,000 rows."""
        out: dict[str, tuple[bool, bool]] = {}
        for row in self.steps:
            done, begun = out.get(row.node, (True, False))
            out[row.node] = (done and row.status is StepStatus.SUCCESS, begun or row.begin is not None)
        return out


def paused_text(task_id: str) -> str:
    """What a task waits for that somebody has paused."""
    return f"it is paused: `shardlift task resume {task_id}` lets it go on"


def partial_account(kind: TaskKind, total: Sequence[str], done: Sequence[str], target: str) -> str:
    """How far a task came that ended before its time: `1 of 3 nodes run opensearch:3.4.0 (a), b, c as before`."""
    left = [name for name in total if name not in done]
    named = f" ({', '.join(done)})" if done else ""
    before = f", {', '.join(left)} as before" if left else ""
    return f"{len(done)} of {len(total)} nodes {kind.done_word.format(image=target)}{named}{before}"
