"""What a sub-step has in hand, and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shardlift.clock import Clock
from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.errors import ShardliftError
from shardlift.model import Cluster, Finding, Image, Node, NodePlan, Strategy
from shardlift.settings import Settings
from shardlift.steps.balancing import Traffic
from shardlift.steps.ledger import Ledger
from shardlift.store import Control

_PAUSE_FIRST_S = 0.1
_PAUSE_LAST_S = 2.0
# A node that boots is asked alone and holds up everything, and to be refused a connection costs it nothing.
BOOT_PAUSE_S = 0.2
# Reading everything costs the cluster something: for each second of it so many pass before the next, a tenth in all.
READING_REST = 9


class StepFailedError(ShardliftError):
    """A named stop with evidence: the task ends FAILED at this sub-step. `findings` are rules that said no."""

    code = "step_failed"

    def __init__(
        self,
        message: str,
        *,
        evidence: Mapping[str, object] | None = None,
        findings: tuple[Finding, ...] = (),
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.evidence = dict(evidence or {})
        self.findings = findings


class AbortedError(ShardliftError):
    """The task was asked to end while a sub-step waited at a point where ending is safe."""

    code = "aborted"


class SuspendedError(ShardliftError):
    """The task is to rest where it is, with no node half done. Its message says what it waits for and what to do.

    `hold_until`: until its maintenance window opens. `pause`: its own policy pauses it, until somebody resumes it.
    """

    code = "suspended"

    def __init__(self, waiting_for: str, *, hold_until: datetime | None = None, pause: bool = False) -> None:
        super().__init__(waiting_for)
        self.hold_until = hold_until
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sub-step ended well: one sentence for `desc`, and JSON-ready evidence kept in the journal."""

    desc: str
    evidence: Mapping[str, object] = field(default_factory=dict)


async def _as_it_is(_moving: bool) -> None:
    return None


@dataclass(frozen=True, slots=True)
class StepContext:
    """One node of one task, and the doors to the cluster, the host and the journal.

    `earlier` gives the evidence of a sub-step of this node that is done. `check_lease` raises FencedError and is
    called before each effect on cluster or host. `report` writes the progress of the running sub-step.
    `control` says what people want of the task now. `mates`: names of the nodes that are taken together with this one.
    `taken`: names of those that have been taken before it, batch by batch. `pace` is called again and again while
    copies are to move, with whether some do, and sees to it that they move as fast as the nodes bear.
    """

    task_id: str
    cluster: Cluster
    node: Node
    plan: NodePlan
    strategy: Strategy
    image: Image
    settings: Settings
    clock: Clock
    engine: Engine
    driver: Driver
    ledger: Ledger
    traffic: Traffic
    earlier: Callable[[int], Mapping[str, object]]
    report: Callable[[Mapping[str, object]], Awaitable[None]]
    count_recoveries: Callable[[], Awaitable[None]]
    control: Callable[[], Awaitable[Control]]
    check_lease: Callable[[], None]
    mates: frozenset[str] = frozenset()
    taken: tuple[frozenset[str], ...] = ()
    pace: Callable[[bool], Awaitable[None]] = _as_it_is

    @property
    def zone(self) -> str:
        """Where the node is to be when it is back."""
        return self.plan.to_zone or self.node.zone

    @property
    def away(self) -> frozenset[str]:
        """Names of all nodes that may be away while this one is."""
        return self.mates | {self.node.name}

    @property
    def replaced(self) -> bool:
        """Whether anything about the node changes. Else it is only restarted."""
        return self.plan.fresh_data or self.zone != self.node.zone or self.node.image_id != self.image.id

    async def abort_requested(self) -> bool:
        return (await self.control()).aborting

    async def rounds(self, timeout_s: float, *, pause_last_s: float = _PAUSE_LAST_S) -> AsyncIterator[float]:
        """Yields the seconds left, again and again with a growing pause in between, until `timeout_s` have passed.

        For what can only be asked for and not waited on. The loop's body leaves it when it has what it wants. The pause
        grows up to `pause_last_s`.
        """
        start_s, pause_s = self.clock.elapsed_s(), _PAUSE_FIRST_S
        left_s = timeout_s
        while left_s > 0:
            self.check_lease()
            yield left_s
            await self.clock.sleep(min(pause_s, left_s))
            pause_s = min(pause_s * 1.5, pause_last_s)
            left_s = timeout_s - (self.clock.elapsed_s() - start_s)
