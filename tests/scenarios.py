"""Scenarios that run on the simulator and on real nodes alike, and what is to be seen on both.

Each is written once, against `Stand`, and tells what it has seen; what that must be stands below it, once for both. So
wherever the simulator is not like the engines, one of two tests fails.

Compared exactly: each sub-step that was begun, in the order of beginning, with its end and the number of tries; rule,
severity, subject and deciders of each finding; and for each shard which node has its primary and which its replica.
That is possible because everything is placed so that each copy has just one place to go. Nodes are named by
their place in the plan, since real nodes elect whom they like. Not compared: which of two like indices moves first
(they are told by the parts they came to play), where the balancer puts what (only how even it leaves the nodes), times
and wording.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from shardlift.driver.protocol import Driver
from shardlift.engine.protocol import Engine
from shardlift.executor import Event
from shardlift.model import CopyState, Health, Image, Node, ShardCopy, StepRow, StepStatus, Strategy, Task, TaskStatus
from shardlift.service import Service
from shardlift.service.requests import UpgradeRequest

T = TypeVar("T")

FIRST, SECOND, THIRD = PLACES = ("first", "second", "third")
_REBALANCE = "cluster.routing.rebalance.enable"
_EXCLUDE = "cluster.routing.allocation.exclude._name"
_RATE = "indices.recovery.max_bytes_per_sec"
_RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"
_INCLUDE, _REQUIRE = "index.routing.allocation.include._name", "index.routing.allocation.require._name"
_UNTIL_S, _ASK_AGAIN_S, _STOP_S = 90.0, 0.05, 60.0
_SETTLED_S = 30.0
_SHARDS_OF_THE_TRAP = 4


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
        assert (settings.persistent, settings.transient) == ({_REBALANCE: "none"}, {})
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
        await self.hands.put_index(index, {_INCLUDE: both, "index.number_of_replicas": "1"})
        await self.settled()
        await self.hands.put_index(index, {_INCLUDE: None})

    async def delete_indices(self) -> None:
        for index in {copy.index for copy in await self.engine.shards()}:
            await self.hands.delete_index(index)

    async def put_ring(self) -> None:
        """Three indices, each with its replica on the next node. The balancer is held off."""
        await self.engine.put_setting("persistent", _REBALANCE, "none")
        for at, place in enumerate(PLACES):
            await self.put_index(f"ring-{at + 1}", place, PLACES[(at + 1) % 3])
        await self.settled()

    async def drive(self, observer: Callable[[Event], None] = lambda _event: None) -> None:
        await self.hands.drive(observer)


def walked(place: str, orders: range, **tries: int) -> tuple[Walked, ...]:
    """Sub-steps that succeeded; `_4=2` says that the one of order 4 was tried twice."""
    return tuple((place, order, StepStatus.SUCCESS, tries.get(f"_{order}", 1)) for order in orders)


WHOLE = range(13)


# In place.


async def in_place(stand: Stand, target: str) -> Rest:
    """Node after node with its data: replicas wait for it, and primaries go to whoever has the replica."""
    request = await stand.line_up(target, Strategy.IN_PLACE)
    await stand.put_ring()
    task = await stand.service.upgrade(request)
    await stand.drive()
    seen = await stand.rest(task)
    await stand.delete_indices()
    return seen


IN_PLACE = Rest(
    status=TaskStatus.SUCCESS,
    steps=tuple(row for place in PLACES for row in walked(place, WHOLE)),
    copies={"ring-1": (FIRST, SECOND), "ring-2": (SECOND, THIRD), "ring-3": (FIRST, THIRD)},
)


# Drain, with a copy that is pinned while its node is drained, and then with a node that does not start.


@dataclass(frozen=True)
class Drained:
    """What is seen when the drain is stuck, when the node is down, at the end; and copies per node once balanced."""

    stuck: Rest
    down: Rest
    done: Rest
    balanced: dict[str, int]


async def drain(stand: Stand, target: str) -> Drained:
    """The first node's drain gets stuck, the second node does not start; each is mended and the task retried."""
    request = await stand.line_up(target, Strategy.DRAIN)
    await stand.put_ring()
    for solo in ("solo-1", "solo-2"):
        await stand.put_index(solo, FIRST)
        # So that each has just one place to go.
        await stand.hands.put_index(solo, {_INCLUDE: f"{stand.names[FIRST]},{stand.names[SECOND]}"})
    await stand.settled()
    task, pinned = await _pinned_under_way(stand, request)
    stuck = await stand.rest(task)

    await stand.hands.put_index(pinned, {_REQUIRE: None})
    await stand.hands.spoil_start(stand.names[SECOND])
    await stand.service.retry(task.id)
    await stand.drive()
    down = await stand.rest(task)

    await stand.hands.mend_start(stand.names[SECOND])
    await stand.service.retry(task.id)
    await stand.drive()
    done = await stand.rest(task)
    balanced = await _balanced(stand)
    await stand.delete_indices()
    return Drained(stuck, down, done, balanced)


async def _pinned_under_way(stand: Stand, request: UpgradeRequest) -> tuple[Task, str]:
    """While the first node is drained, somebody binds a copy to it that has not begun to move."""
    # One at a time and slowly, so that one is still at home when the other is on its way.
    for key, value in ((_RATE, "40kb"), (_RECOVERIES, "1")):
        await stand.engine.put_setting("transient", key, value)
    task = await stand.service.upgrade(request)
    begun = asyncio.Event()
    driving = asyncio.create_task(
        stand.drive(lambda event: begun.set() if event == Event("begun", stand.names[FIRST], 0) else None)
    )
    await begun.wait()

    async def solos() -> dict[CopyState, str]:
        return {copy.state: copy.index for copy in await stand.on(FIRST) if copy.index.startswith("solo")}

    seen = await stand.until(solos, lambda seen: set(seen) == {CopyState.RELOCATING, CopyState.STARTED})
    pinned = seen[CopyState.STARTED]
    stand.parts = {pinned: "pinned", seen[CopyState.RELOCATING]: "moved"}
    await stand.hands.put_index(pinned, {_REQUIRE: stand.names[FIRST]})
    for key in (_RATE, _RECOVERIES):
        await stand.engine.put_setting("transient", key, None)
    await driving
    return task, pinned


async def _balanced(stand: Stand) -> dict[str, int]:
    """The six copies of the ring lie on two nodes. Set free, the balancer deals them out; which of them, it chooses."""
    for solo in stand.parts:
        await stand.hands.delete_index(solo)
    await stand.engine.put_setting("persistent", _REBALANCE, None)

    async def counts() -> dict[str, int]:
        copies = await stand.engine.shards()
        assert not any(copy.state is CopyState.UNASSIGNED for copy in copies), copies
        return {place: sum(copy.node == name for copy in copies) for place, name in stand.names.items()}

    seen = await stand.until(counts, lambda seen: len(set(seen.values())) == 1)
    await stand.settled()
    return seen


DRAIN = Drained(
    stuck=Rest(
        status=TaskStatus.FAILED,
        steps=((FIRST, 0, StepStatus.FAILED, 1),),
        copies={
            "ring-1": (THIRD, SECOND),
            "ring-2": (SECOND, THIRD),
            "ring-3": (THIRD, SECOND),
            "moved": (SECOND,),
            "pinned": (FIRST,),
        },
        findings=(("drain_can_end", "block", f"pinned[0] on {FIRST}", frozenset({"filter"})),),
    ),
    down=Rest(
        status=TaskStatus.FAILED,
        steps=(
            *walked(FIRST, WHOLE, _0=2),
            *walked(SECOND, range(10)),
            (SECOND, 10, StepStatus.FAILED, 1),
        ),
        copies={
            "ring-1": (THIRD, FIRST),
            "ring-2": (FIRST, THIRD),
            "ring-3": (THIRD, FIRST),
            "moved": (FIRST,),
            "pinned": (FIRST,),
        },
        told=True,
    ),
    done=Rest(
        status=TaskStatus.SUCCESS,
        steps=(*walked(FIRST, WHOLE, _0=2), *walked(SECOND, WHOLE, _10=2), *walked(THIRD, WHOLE)),
        copies={
            "ring-1": (SECOND, FIRST),
            "ring-2": (FIRST, SECOND),
            "ring-3": (SECOND, FIRST),
            "moved": (FIRST,),
            "pinned": (FIRST,),
        },
    ),
    balanced={FIRST: 2, SECOND: 2, THIRD: 2},
)


# The version deadlock.


@dataclass(frozen=True)
class Trapped:
    """Copies left on the second node by its drain: with the balancer held off, and after it was free in between.

    `went_over`: primaries that it has taken to the new node. `stuck`: of each copy that is left its role, the node of
    its primary, the engine's word on whether it can move, and by node the deciders that say no.
    """

    held: int
    went_over: int
    stuck: tuple[tuple[str, str, str, tuple[tuple[str, frozenset[str]], ...]], ...]


async def version_deadlock(stand: Stand, target: str) -> Trapped:
    """The first node is upgraded by hand; then the second is drained, once with the balancer held off, once after it
    was set free. Primaries that have gone to the new node can have no replica on an old one.

    Primaries alone may be balanced, and all are on the third node: so it is known which replicas they leave behind.
    """
    await stand.line_up(target, Strategy.DRAIN)
    await stand.engine.put_setting("persistent", _REBALANCE, "none")
    for number in range(_SHARDS_OF_THE_TRAP):
        await stand.put_index(f"trap-{number}", THIRD, SECOND)
    await stand.settled()
    await _upgraded_by_hand(stand, await stand.node(FIRST), stand.service.backend.image(target))

    held = len(await _drained_by_hand(stand, SECOND))
    back = len(await _drained_by_hand(stand, FIRST))
    assert back == 0, "all is as it was"

    await stand.engine.put_setting("persistent", _REBALANCE, "primaries")
    moved = await stand.until(lambda: stand.on(FIRST), lambda seen: len(seen) == _SHARDS_OF_THE_TRAP // 2)
    await stand.settled()
    went_over = [copy for copy in await stand.on(FIRST) if copy.primary]
    assert len(went_over) == len(moved)
    stuck = await _drained_by_hand(stand, SECOND)
    return Trapped(held, len(went_over), tuple([await _why(stand, copy) for copy in stuck]))


async def _upgraded_by_hand(stand: Stand, node: Node, image: Image) -> None:
    """As the engines' documents tell it, with an empty data path."""
    driver = stand.driver
    await driver.prepare(image)
    await driver.backup(node, key="by-hand")
    await driver.stop(node, timeout_s=_STOP_S)
    await driver.switch(node, image, key="by-hand", fresh_data=True)
    await driver.restore(node, image, key="by-hand")
    await driver.start(node)

    async def version() -> str | None:
        if not await stand.engine.answers(node.name):
            return None
        return next((str(seen.version) for seen in await stand.engine.nodes() if seen.name == node.name), None)

    await stand.until(version, lambda seen: seen == str(image.version))
    await stand.settled()


async def _drained_by_hand(stand: Stand, place: str) -> list[ShardCopy]:
    """What is left on the node once nothing more leaves it; the exclusion is taken back."""
    await stand.engine.put_setting("persistent", _EXCLUDE, stand.names[place])

    async def left() -> tuple[list[ShardCopy], set[str]]:
        await stand.settled()
        copies = await stand.on(place)
        return copies, {(await stand.engine.explain(copy)).can_move for copy in copies}

    copies, _ = await stand.until(left, lambda seen: seen[1] <= {"no"})
    await stand.engine.put_setting("persistent", _EXCLUDE, None)
    return copies


async def _why(stand: Stand, copy: ShardCopy) -> tuple[str, str, str, tuple[tuple[str, frozenset[str]], ...]]:
    explained = await stand.engine.explain(copy)
    primary = next(one for one in await stand.engine.shards() if one.group == copy.group and one.primary)
    said: dict[str, set[str]] = {}
    for decision in explained.decisions:
        if decision.verdict == "NO" and decision.node not in {None, copy.node}:
            said.setdefault(stand.place(decision.node), set()).add(decision.decider)
    by_node = tuple((place, frozenset(said[place])) for place in PLACES if place in said)
    return ("primary" if copy.primary else "replica", stand.place(primary.node), explained.can_move, by_node)


DEADLOCK = Trapped(
    held=0,
    went_over=2,
    stuck=(("replica", FIRST, "no", ((FIRST, frozenset({"same_shard"})), (THIRD, frozenset({"node_version"})))),) * 2,
)
