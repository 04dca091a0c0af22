"""Scenarios that run on the simulator and on real nodes alike, and what is to be seen on both.

Each is written once, against `Stand`, and tells what it has seen; what that must be stands below it, once for both. So
wherever the simulator is not like the engines, one of two tests fails.

Compared exactly: each sub-step that was begun, in the order of beginning, with its end and the number of tries; rule,
severity, subject and deciders of each finding; and for each shard which node has its primary and which its replica.
That is possible because everything is placed so that each copy has just one place to go. Not compared: which of two
like indices moves first (they are told by the parts they came to play), where the balancer puts what (only how even it
leaves the nodes), times and wording.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shardlift.errors import EngineError
from shardlift.executor import Event
from shardlift.model import CopyState, Image, Node, ShardCopy, StepStatus, Strategy, Task, TaskStatus
from shardlift.service.requests import UpgradeRequest
from tests.stand import FIRST, INCLUDE, PLACES, REBALANCE, SECOND, THIRD, WHOLE, Rest, Stand, walked

_EXCLUDE = "cluster.routing.allocation.exclude._name"
_RATE = "indices.recovery.max_bytes_per_sec"
_REQUIRE = "index.routing.allocation.require._name"
_STOP_S = 60.0
_TRAPS = 6


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
        await stand.hands.put_index(solo, {INCLUDE: f"{stand.names[FIRST]},{stand.names[SECOND]}"})
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
    # One at a time (the stand's settings say so) and slowly, so that one is at home when the other is on its way.
    await stand.engine.put_setting("transient", _RATE, "40kb")
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
    await stand.engine.put_setting("transient", _RATE, None)
    await driving
    return task, pinned


async def _balanced(stand: Stand) -> dict[str, int]:
    """The six copies of the ring lie on two nodes. Set free, the balancer deals them out; which of them, it chooses."""
    for solo in stand.parts:
        await stand.hands.delete_index(solo)
    await stand.engine.put_setting("persistent", REBALANCE, None)

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
class Why:
    """Why a copy cannot leave: the engine's word on that, and by node the deciders that say no."""

    role: str
    primary_on: str
    can_move: str
    said: tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True)
class Trapped:
    """What the second node's drain leaves on it: with the balancer held off, and after it had been set free.

    `went_over`: primaries and replicas that the balancer has then taken to the new node.
    """

    held: tuple[Why, ...]
    went_over: tuple[int, int]
    stuck: tuple[Why, ...]


async def version_deadlock(stand: Stand, target: str) -> Trapped:
    """The first node is upgraded by hand; then the second is drained, once with the balancer held off, once after it
    was set free. Primaries that have gone to the new node can have no replica on an old one.

    All primaries are on the third node. So, whatever the balancer picks, a third of them goes over when it evens out.
    """
    await stand.line_up(target, Strategy.DRAIN)
    await stand.engine.put_setting("persistent", REBALANCE, "none")
    for number in range(_TRAPS):
        await stand.put_index(f"trap-{number}", THIRD, SECOND)
    await stand.settled()
    await _upgraded_by_hand(stand, await stand.node(FIRST), stand.service.backend.image(target))

    held = await _left_by_a_drain(stand, SECOND)
    back = await _left_by_a_drain(stand, FIRST)
    assert back == (), "all is as it was"

    await stand.engine.put_setting("persistent", REBALANCE, "all")
    await stand.until(lambda: stand.on(FIRST), lambda seen: len(seen) == 2 * _TRAPS // len(PLACES))
    await stand.settled()
    primaries = [copy.primary for copy in await stand.on(FIRST)]
    stuck = await _left_by_a_drain(stand, SECOND)
    return Trapped(held, (primaries.count(True), primaries.count(False)), stuck)


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


async def _left_by_a_drain(stand: Stand, place: str) -> tuple[Why, ...]:
    """What is left on the node once nothing more leaves it; the exclusion is taken back."""
    await stand.engine.put_setting("persistent", _EXCLUDE, stand.names[place])

    async def left() -> tuple[Why, ...] | None:
        await stand.settled()
        try:
            return tuple([await _why(stand, copy) for copy in await stand.on(place)])
        except EngineError:  # it has left between two questions
            return None

    seen = await stand.until(left, lambda seen: seen is not None and all(why.can_move == "no" for why in seen))
    await stand.engine.put_setting("persistent", _EXCLUDE, None)
    assert seen is not None, "waited for"
    return seen


async def _why(stand: Stand, copy: ShardCopy) -> Why:
    explained = await stand.engine.explain(copy)
    primary = next(one for one in await stand.engine.shards() if one.group == copy.group and one.primary)
    said: dict[str, set[str]] = {}
    for decision in explained.decisions:
        if decision.verdict == "NO" and decision.node not in {None, copy.node}:
            said.setdefault(stand.place(decision.node), set()).add(decision.decider)
    return Why(
        role="primary" if copy.primary else "replica",
        primary_on=stand.place(primary.node),
        can_move=explained.can_move,
        said=tuple((place, frozenset(said[place])) for place in PLACES if place in said),
    )


_WAITS_FOR_ITS_LIKE = Why(
    role="replica",
    primary_on=FIRST,
    can_move="no",
    said=((FIRST, frozenset({"same_shard"})), (THIRD, frozenset({"node_version"}))),
)
DEADLOCK = Trapped(held=(), went_over=(2, 2), stuck=(_WAITS_FOR_ITS_LIKE, _WAITS_FOR_ITS_LIKE))
