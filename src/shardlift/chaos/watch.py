"""The invariants, looked at after every event and before every effect, and the transcript of a trial."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from shardlift.chaos.process import Process
from shardlift.chaos.time import VirtualClock
from shardlift.model import AWARE_OF, StepStatus, Task, TaskStatus
from shardlift.sim import Copy, World

# A fault so fresh that neither the cluster nor anybody who asks it can know of it yet.
_UNKNOWABLE_S = 12.0
# Between our last look at the members and SIGTERM.
_JUST_LEFT_S = 0.5
_LEFT = "has left the cluster"
# Of those that can be elected, when several go together: one more may fail, and the rest are a majority.
_STAY_MIN = 3
_LINES_MAX = 20_000


class ViolationError(AssertionError):
    """An invariant does not hold. The message says which, and what was seen."""


@dataclass(slots=True)
class Watch:
    """Sees everything. `violations` collects; a trial ends at the first. `struck`: nodes that a fault took away.
    `stood_in_for`: masters of which each goes only while three others vote."""

    world: World
    clock: VirtualClock
    database: Path
    target: str
    lines: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    fault_at_s: float = -1e9
    left_at_s: float = -1e9
    struck: set[str] = field(default_factory=set)
    batches: tuple[frozenset[str], ...] = ()
    stood_in_for: frozenset[str] = frozenset()
    expected: dict[tuple[str, str], str] = field(default_factory=dict)
    on_violation: Callable[[], None] = lambda: None
    _lease: sqlite3.Connection | None = None

    def note(self, line: str) -> None:
        """One line of the transcript."""
        if len(self.lines) < _LINES_MAX:
            self.lines.append(f"{self.clock.elapsed_s():9.2f} {line}")

    def fault(self, line: str) -> None:
        """A fault strikes now: what is done within seconds of it could not know."""
        self.fault_at_s = self.clock.elapsed_s()
        self.note(f"FAULT {line}")

    def violated(self, what: str) -> None:
        self.violations.append(f"at {self.clock.elapsed_s():.2f} s: {what}")
        self.note(f"VIOLATION {what}")
        self.on_violation()

    # before and after what a control plane does

    def effect(self, process: Process, call: str, where: str) -> None:
        """Asked before each effect: is it this process's turn, and is the effect safe now?"""
        self._only_actor(process, call, where)
        if call == "host.stop":
            self._may_stop(where)
        if call == "host.discard":
            self._may_discard(where)
        if call == "host.delete" and self.world.copies_on(where):
            self.violated(f"{where} is deleted with {len(self.world.copies_on(where))} copies on it")

    def done(self, call: str, where: str) -> None:
        self.note(f"  did {call} {where}".rstrip())

    def _only_actor(self, process: Process, call: str, where: str) -> None:
        """Invariant 2: the row names this process as the owner."""
        if self._lease is None:
            self._lease = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        row = self._lease.execute("SELECT lease_owner FROM cluster").fetchone()
        owner = row[0] if row else None
        if owner != process.name:
            self.violated(f"{process.name} does {call} {where} while the lease is with {owner}")

    def _may_stop(self, name: str) -> None:
        """Invariant 1: every shard keeps a STARTED copy, and the votes that are left are a majority."""
        now_s = self.clock.elapsed_s()
        if now_s - self.fault_at_s < _UNKNOWABLE_S or now_s - self.left_at_s < _JUST_LEFT_S:
            return
        world = self.world
        alone = sorted(
            {f"{c.index}[{c.shard}]" for c in world.copies_on(name) if c.serving and not others(world, c, name)}
        )
        if alone:
            self.violated(f"{name} is stopped with the only started copy of {', '.join(alone[:5])}")
        together = next((batch for batch in self.batches if name in batch), frozenset({name}))
        down = sorted(node.name for node in world.nodes.values() if not node.up and node.name not in together)
        # Nothing is on an emptied spare that the absence of another node could make matter; votes are counted below.
        emptied = world.nodes[name].extra and not world.copies_on(name)
        if down and not emptied:
            self.violated(f"{name} is stopped while {', '.join(down)} is away")
        self._votes_stay(name, together)

    def _votes_stay(self, name: str, together: frozenset[str]) -> None:
        """All of a batch stop at the same moment: none of their votes counts. Where it takes several that can be
        elected, three of the others are there."""
        world = self.world
        if not world.quorum_without(together):
            self.violated(f"{name} is stopped, and the votes that are left are no majority")
        eligible = {node.name for node in world.nodes.values() if node.eligible}
        staying = [one for one in sorted(eligible - together) if world.nodes[one].working]
        if name in eligible and len(eligible & together) > 1 and len(staying) < _STAY_MIN:
            going = ", ".join(sorted(eligible & together))
            self.violated(f"{going} go together, and of the others only {', '.join(staying) or 'none'} can lead")
        if name in self.stood_in_for and len(staying) < _STAY_MIN:
            self.violated(f"{name} is stopped, and no extra master votes with {', '.join(staying) or 'nobody'}")
        node = world.nodes[name]
        if node.extra and (node.node_id in world.voters or world.elected == name):
            self.violated(f"the extra {name} is stopped while it votes or is the elected master")

    def _may_discard(self, name: str) -> None:
        """The data set aside may go only when nothing acknowledged is in it alone."""
        lost = self.world.lost(without=name)
        if lost:
            self.violated(f"the old data of {name} is deleted while acknowledged writes are missing: {some(lost)}")

    # after each event

    def after_event(self, line: str) -> None:
        self.note(line)
        if line.endswith(_LEFT):
            self.left_at_s = self.clock.elapsed_s()

    # in the end

    def judge(self, task: Task, *, settled: bool) -> None:
        """What must be true of a task that has ended, or that goes on after everything was mended."""
        world = self.world
        lost = world.lost()
        if lost:
            self.violated(f"acknowledged writes are lost: {some(lost)}")
        if task.status is TaskStatus.RUNNING:
            self.violated(f"the task has not ended, and says it waits for: {task.blocked_by or 'nothing'}")
            return
        if settled:
            if task.plan.aware and task.status is TaskStatus.SUCCESS and world.persistent.get(AWARE_OF) == "zone":
                self.expected["persistent", AWARE_OF] = "zone"
            self._settings_as_expected()
        extra = [node for node in world.nodes.values() if node.extra]
        spares = [node.name for node in extra]
        # One that takes copies, and one that votes.
        twice = len(extra) > len({node.holds_data for node in extra})
        if twice or (spares and task.status is TaskStatus.SUCCESS):
            self.violated(f"the task is {task.status}, and spare nodes are left: {', '.join(spares)}")
        if task.status is TaskStatus.SUCCESS:
            self._success(task)
        elif not task.fail_message:
            self.violated(f"the task is {task.status} and does not say why")
        if task.aborting and not any(row.status is StepStatus.FAILED for row in task.steps):
            self._none_left_down()

    def _none_left_down(self) -> None:
        """An end that was asked for leaves no node down, unless a fault has taken it or it is what failed."""
        down = {node.name for node in self.world.nodes.values() if node.pid is None} - self.struck
        if down:
            self.violated(f"the task was ended on request and leaves {', '.join(sorted(down))} down")

    def _settings_as_expected(self) -> None:
        world = self.world
        found = {("persistent", key): value for key, value in world.persistent.items()}
        found |= {("transient", key): value for key, value in world.transient.items()}
        for key in sorted({*found, *self.expected}):
            if found.get(key) != self.expected.get(key):
                self.violated(f"{key[0]} {key[1]} is {found.get(key)!r} in the end, not {self.expected.get(key)!r}")
        if world.voting_excluded:
            self.violated(f"voting exclusions are left: {sorted(world.voting_excluded)}")

    def _success(self, task: Task) -> None:
        versions = Counter(str(node.version) for node in self.world.nodes.values())
        if set(versions) != {self.target}:
            self.violated(f"the task is a success, but the nodes run {dict(versions)}")
        down = sorted(node.name for node in self.world.nodes.values() if not node.up)
        if set(down) - self.struck:
            self.violated(f"the task is a success, but {', '.join(down)} is away")
        zones = {node.name: node.to_zone for node in task.plan.nodes if node.to_zone is not None}
        elsewhere = sorted(name for name, zone in zones.items() if self.world.nodes[name].zone != zone)
        if elsewhere:
            self.violated(f"the task is a success, but {', '.join(elsewhere)} is in another zone than planned")
        if task.completed != task.total:
            self.violated("the task is a success, but not all nodes are completed")


def others(world: World, copy: Copy, name: str) -> bool:
    """Whether another node has a copy of the same shard that serves."""
    return any(other.serving and other.node != name for other in world.group(copy.group))


def some(lost: dict[tuple[str, int], int]) -> str:
    named = [f"{count} of {index}[{shard}]" for (index, shard), count in sorted(lost.items())]
    return ", ".join(named[:5])
