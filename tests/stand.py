"""Where scenarios are played: one cluster of three nodes, simulated or real, and what is noted of it.

Nodes are named by their place in the plan, since real nodes elect whom they like, and the elected one comes last.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.executor import Event
from shardlift.model import CopyState, Health, Node, ShardCopy, StepRow, StepStatus, Strategy, Task, TaskStatus
from shardlift.service import Service
from shardlift.service.requests import UpgradeRequest

T = TypeVar("T")

FIRST, SECOND, THIRD = PLACES = ("first", "second", "third")
REBALANCE = "cluster.routing.rebalance.enable"
INCLUDE = "index.routing.allocation.include._name"
_UNTIL_S, _ASK_AGAIN_S, _SETTLED_S = 90.0, 0.05, 30.0


class Hands(Protocol):
    """What an operator does to the cluster and to hosts, as far as the protocols of engine and driver have no word."""

    async def create_index(self, name: str, node: str) -> None:
        """One shard without a replica, about 100 KiB on disk, on that node, to which it is bound by `include._name`."""

    async def put_index(self, name: str, settings: Mapping[str, str | None]) -> None:
        """Changes settings; None takes one away."""

    async def delete_index(self, name: str) -> None:
        """With all its copies."""

    async def spoil_start(self, node: str) -> None:
        """From now on the engine of the node does not start."""

    async def mend_start(self, node: str) -> None:
        """It would start again."""

    async def drive(self, observer: Callable[[Event], None]) -> None:
        """Does the work that the service has for the cluster, as a server does."""


Walked = tuple[str, int, StepStatus, int]
"""Node, order, status, attempts."""
Found = tuple[str, str, str, frozenset[str]]
"""Rule, severity, subject, deciders."""
Copies = dict[str, tuple[str, ...]]
"""By index: the node of the primary, then that of the replica if it has one."""


@dataclass(frozen=True)
class Rest:
    """What is to be seen when a task has ended or failed. `told`: the engine's log says why its start failed."""

    status: TaskStatus
    steps: tuple[Walked, ...]
    copies: Copies
    findings: tuple[Found, ...] = ()
    told: bool = False


@dataclass
class Stand:
    """Three nodes behind a service. `parts`: what an index is called in what was seen, where chance has chosen it."""

    service: Service
    engine: Engine
    driver: Driver
    cluster_id: str
    hands: Hands
    names: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)

    # asking

    async def line_up(self, target: str, strategy: Strategy) -> UpgradeRequest:
        """Learns the places of the nodes in the plan."""
        request = UpgradeRequest(self.cluster_id, target, strategy)
        report = await self.service.check(request)
        assert report.plan is not None, [str(one) for one in report.blocking]
        self.names = {place: node.name for place, node in zip(PLACES, report.plan.nodes, strict=True)}
        return request

    async def node(self, place: str) -> Node:
        return (await self.service.cluster(self.cluster_id)).node(self.names[place])

    def place(self, name: str | None) -> str:
        return next(place for place, known in self.names.items() if known == name)

    async def until(self, ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
        """The first good answer. Nothing tells from outside when the cluster has got so far, so this asks again."""
        clock = self.service.clock
        end_s = clock.elapsed_s() + _UNTIL_S
        while not good(seen := await ask()):
            assert clock.elapsed_s() < end_s, seen
            await clock.sleep(_ASK_AGAIN_S)
        return seen

    async def settled(self) -> None:
        """Green, and nothing moves."""
        health = await self.engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=_SETTLED_S)
        assert health.settled, health
        assert health.status is Health.GREEN, health

    async def on(self, place: str) -> list[ShardCopy]:
        return [copy for copy in await self.engine.shards() if copy.node == self.names[place]]

    async def copies(self) -> Copies:
        found: dict[str, list[ShardCopy]] = {}
        for copy in await self.engine.shards():
            assert copy.state is CopyState.STARTED, copy
            found.setdefault(self.parts.get(copy.index, copy.index), []).append(copy)
        return {
            index: tuple(self.place(copy.node) for copy in sorted(copies, key=lambda one: not one.primary))
            for index, copies in found.items()
        }

    async def rest(self, task: Task) -> Rest:
        """The task as it now rests. Whatever became of it, no setting of Shardlift's is left."""
        await self.settled()
        task = await self.service.task(task.id)
        # In virtual time two may begin at the same moment; they keep the order of the plan.
        begun = sorted((row for row in task.steps if row.begin), key=lambda row: row.begin or task.created_at)
        failed = next((row for row in begun if row.status is StepStatus.FAILED), None)
        settings, voting = await self.engine.settings(), await self.engine.voting()
        assert (settings.persistent, settings.transient) == ({REBALANCE: "none"}, {})
        assert voting is not None
        assert not voting.excluded_names
        return Rest(
            status=task.status,
            steps=tuple((self.place(row.node), row.order, row.status, row.attempts) for row in begun),
            copies=await self.copies(),
            findings=() if failed is None else self._findings(failed),
            told=failed is not None and "Unrecognized VM option 'Nonsense'" in str(failed.evidence.get("log")),
        )

    def _findings(self, row: StepRow) -> tuple[Found, ...]:
        found = row.evidence.get("findings", [])
        assert isinstance(found, list)
        parts = {name: part for part, name in self.names.items()}
        return tuple(
            (
                str(one["rule"]),
                str(one["severity"]),
                re.sub(
                    r"[^ \[\]]+", lambda word: self.parts.get(word[0], parts.get(word[0], word[0])), str(one["subject"])
                ),
                frozenset(re.findall(r"(?:^|; )[^:;]+: ([a-z_]+): ", str(one["evidence"]))),
            )
            for one in found
        )

    # doing

    async def put_index(self, index: str, primary: str, replica: str | None = None) -> None:
        """An index of one shard with its copies just there; without a replica it stays bound to the node."""
        await self.hands.create_index(index, self.names[primary])
        if replica is None:
            return
        both = f"{self.names[primary]},{self.names[replica]}"
        await self.hands.put_index(index, {INCLUDE: both, "index.number_of_replicas": "1"})
        await self.settled()
        await self.hands.put_index(index, {INCLUDE: None})

    async def delete_indices(self) -> None:
        for index in {copy.index for copy in await self.engine.shards()}:
            await self.hands.delete_index(index)

    async def put_ring(self) -> None:
        """Three indices, each with its replica on the next node. The balancer is held off."""
        await self.engine.put_setting("persistent", REBALANCE, "none")
        for at, place in enumerate(PLACES):
            await self.put_index(f"ring-{at + 1}", place, PLACES[(at + 1) % 3])
        await self.settled()

    async def drive(self, observer: Callable[[Event], None] = lambda _event: None) -> None:
        await self.hands.drive(observer)


def walked(place: str, orders: range, **tries: int) -> tuple[Walked, ...]:
    """Sub-steps that succeeded; `_4=2` says that the one of order 4 was tried twice."""
    return tuple((place, order, StepStatus.SUCCESS, tries.get(f"_{order}", 1)) for order in orders)


WHOLE = range(13)
