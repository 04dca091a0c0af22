"""A node fails half changed, somebody starts it by hand, and the task is retried: it is taken again, as safely."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from shardlift.errors import DriverError
from shardlift.executor import Event
from shardlift.model import Policy, StepStatus, Strategy, Task, TaskStatus
from shardlift.sim import MIB, IndexSpec
from tests.worlds import Crash, Lab, open_lab

VIRTUAL_TIME = True
SIX = {"nodes": 6, "zones": ("zone-a", "zone-b", "zone-c")}


async def fails(lab: Lab, task: Task, node: str, what: str, *, when: str = "before") -> Task:
    """The task as it is once the host of the node has refused something."""

    def refuse(*point: str) -> None:
        if point == (when, f"host.{what}", node):
            raise DriverError("input/output error")

    lab.fault = refuse
    await lab.drive(lambda _event: lab.world.write())
    lab.fault = lambda *_point: None
    failed = await lab.task(task)
    assert failed.status is TaskStatus.FAILED, failed.fail_message
    assert lab.world.nodes[node].pid is None
    return failed


async def started_by_hand(lab: Lab, node: str, *, alone: bool) -> None:
    """It runs, and unless all others are newer it is a member, with copies that have come to rest.

    `alone`: it has the only copy of an index made since.
    """
    lab.world.start(lab.world.nodes[node])
    await lab.clock.sleep(30)
    if alone:
        key = "index.routing.allocation.include._name"
        lab.world.create_index(IndexSpec("late", 1, 0, MIB, {key: node}))
        await lab.clock.sleep(60)
        lab.world.advance()
        del lab.world.indices["late"].settings[key]
        assert [copy.node for copy in lab.world.copies if copy.index == "late"] == [node]
    lab.world.advance()
    old_alone = {str(one.version) for name, one in lab.world.nodes.items() if name != node} == {"3.4.0"}
    joins = not old_alone or str(lab.world.nodes[node].version) == "3.4.0"
    assert (lab.world.nodes[node].pid is not None, lab.world.nodes[node].up) == (True, joins), (
        "the old may not join the new"
    )
    lab.world.write()


def watched(lab: Lab, node: str) -> list[tuple[bool, bool]]:
    """Of each stop of the node from now on: whether it was elected, and whether shards had their only copy on it."""
    stops: list[tuple[bool, bool]] = []

    def look(when: str, what: str, where: str) -> None:
        if (when, what, where) == ("before", "host.stop", node):
            others = {copy.group for copy in lab.world.copies if copy.serving and copy.node != node}
            alone = any(copy.serving and copy.group not in others for copy in lab.world.copies_on(node))
            stops.append((lab.world.elected == node, alone))

    lab.fault = look
    return stops


async def assert_done(lab: Lab, task: Task) -> Task:
    done = await lab.task(task)
    assert done.status is TaskStatus.SUCCESS, done.fail_message
    assert done.completed == done.total
    assert lab.versions() == {"3.4.0"}
    assert lab.world.lost() == {}
    assert (lab.world.persistent, lab.world.transient, lab.world.voting_excluded) == ({}, {}, set())
    assert all(node.up for node in lab.world.nodes.values())
    assert list(lab.world.nodes) == [node.name for node in lab.cluster.nodes]
    assert not any(data for node in lab.world.nodes.values() for data in node.set_aside.values()), "nothing is left"
    return done


@dataclass(frozen=True)
class Case:
    """Which node, what its host refuses and when, and the sub-step that fails of it. `alone`: once it is started it has
    the only copy of something, which can leave it."""

    strategy: Strategy
    at: int
    what: str
    when: str
    order: int
    alone: bool


CASES = [
    Case(Strategy.IN_PLACE, 0, "switch", "before", 7, False),
    Case(Strategy.IN_PLACE, 1, "restore", "before", 8, False),
    Case(Strategy.AUTO, 0, "switch", "before", 7, True),
    Case(Strategy.DRAIN, 0, "set aside", "before", 7, True),
    Case(Strategy.DRAIN, 0, "switch", "before", 7, True),
    Case(Strategy.DRAIN, 1, "restore", "after", 8, False),
    Case(Strategy.SURGE, 0, "set aside", "before", 7, True),
    Case(Strategy.SURGE, -1, "set aside", "before", 7, False),
    Case(Strategy.SURGE, -1, "switch", "before", 7, False),
    Case(Strategy.SURGE, -1, "hand over", "before", 7, False),
    Case(Strategy.SURGE, -1, "hand over", "after", 7, False),
    Case(Strategy.SURGE, -1, "restore", "before", 8, False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_retry_takes_it_again(fast_home: Path, case: Case) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(case.strategy)
        node = task.plan.nodes[case.at].name
        await fails(lab, task, node, case.what, when=case.when)
        await started_by_hand(lab, node, alone=case.alone)
        stops = watched(lab, node)
        await lab.service.retry(task.id)
        await lab.drive(lambda _event: lab.world.write())
        done = await assert_done(lab, task)
        assert stops == [(False, False)], "it is stopped once more, with nothing that only it has"
        attempts = [row.attempts for row in done.steps_of(node)]
        again = {*range(7), case.order}
        assert attempts == [2 if at in again else 1 for at in range(13)], "rows tell how often each was begun"


async def test_in_place_the_only_copy_on_it_keeps_it_up_until_somebody_stops_it(fast_home: Path) -> None:
    """What has been made on it since is started nowhere else: the safety check says so. Down, nothing keeps it."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)
        node = task.plan.nodes[0].name
        await fails(lab, task, node, "switch")
        await started_by_hand(lab, node, alone=True)
        stops = watched(lab, node)
        await lab.service.retry(task.id)
        await lab.drive()
        failed = await lab.task(task)
        rows = failed.steps_of(node)
        assert [row.status for row in rows] == [
            StepStatus.SUCCESS,
            StepStatus.FAILED,
            *([StepStatus.WAITING] * 11),
        ]
        assert "last_started_copy" in rows[1].desc
        assert "end its process" in rows[1].desc, "the remedy that always helps is named"
        assert stops == []
        lab.world.stop(lab.world.nodes[node])
        await lab.service.retry(task.id)
        await lab.drive()
        again = await lab.task(task)
        assert {row.status for row in again.steps_of(node)} == {StepStatus.SUCCESS}
        assert "is down again" in again.steps_of(node)[0].desc
        assert lab.world.lost() == {}


async def test_a_crash_in_between_takes_it_again_too(fast_home: Path) -> None:
    """No retry and no failure: the process of Shardlift is gone, the node is started, and then it goes on; and crashes
    at each moment until the node is stopped once more."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.DRAIN)
        node = task.plan.nodes[0].name

        def crash(event: Event) -> None:
            if event == Event("begun", node, 7):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await started_by_hand(lab, node, alone=False)
        stops = watched(lab, node)
        met: set[Event] = set()

        def crash_once(event: Event) -> None:
            lab.world.write()
            if event not in met and event.node == node and event.order <= 7:
                met.add(event)
                raise Crash

        for _ in range(3 * 8):
            with pytest.raises(Crash):
                await lab.drive(crash_once)
            rows = (await lab.task(task)).steps_of(node)
            assert [row.order for row in rows if row.status is StepStatus.RUNNING] in ([], [_last(met)])
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert stops == [(False, False)]


def _last(met: set[Event]) -> int:
    return max(event.order for event in met)


async def test_an_end_that_is_asked_for_waits_until_it_is_done(fast_home: Path) -> None:
    """It is half changed, so it is finished first, though it stands."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.DRAIN)
        node = task.plan.nodes[0].name
        await fails(lab, task, node, "restore")
        await started_by_hand(lab, node, alone=False)
        await lab.service.retry(task.id)

        def crash(event: Event) -> None:
            if event == Event("begun", node, 0):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await lab.service.abort(task.id)
        await lab.drive(lambda _event: lab.world.write())
        ended = await lab.task(task)
        assert (ended.status, ended.completed) == (TaskStatus.PARTIAL_FAILED, (node,)), ended.fail_message
        assert all(one.up for one in lab.world.nodes.values())
        assert lab.world.lost() == {}


async def test_in_a_batch_those_that_are_down_come_first(fast_home: Path) -> None:
    """Of two that were stopped one is started by hand: the other is brought back, then that one is stopped again."""
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        first, second = (plan.name for plan in task.plan.batches[0])
        await fails(lab, task, first, "switch")
        assert lab.world.nodes[second].pid is None
        await started_by_hand(lab, first, alone=False)
        stops = watched(lab, first)
        order: list[str] = []

        def look(event: Event) -> None:
            lab.world.write()
            if event.what == "acted" and event.order in (6, 11) and event.node in (first, second):
                order.append(f"{event.node == first} {event.order}")

        await lab.service.retry(task.id)
        await lab.drive(look)
        await assert_done(lab, task)
        assert order == ["False 11", "True 6", "True 11"]
        assert stops == [(False, False)]


async def test_a_mate_that_was_not_stopped_is_looked_at_again_as_well(fast_home: Path) -> None:
    """The run crashed when one of two was stopped; that one is started, and both stand when it goes on."""
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        first, second = (plan.name for plan in task.plan.batches[0])

        def crash(when: str, what: str, where: str) -> None:
            if (when, what, where) == ("before", "host.stop", second):
                raise DriverError("the host does not answer")

        lab.fault = crash
        await lab.drive()
        lab.fault = lambda *_point: None
        failed = await lab.task(task)
        assert [failed.steps_of(name)[6].status for name in (first, second)] == [StepStatus.SUCCESS, StepStatus.FAILED]
        await started_by_hand(lab, first, alone=False)
        checked: list[str] = []

        def look(event: Event) -> None:
            if event.what == "acted" and event.order == 1:
                checked.append(event.node)

        await lab.service.retry(task.id)
        await lab.drive(look)
        await assert_done(lab, task)
        assert checked[:2] == [first, second]


async def test_a_canary_is_emptied_again(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.DRAIN, policy=Policy(canary=True))
        node = task.plan.nodes[0].name
        assert task.plan.nodes[0].canary
        await fails(lab, task, node, "set aside")
        await started_by_hand(lab, node, alone=False)
        assert lab.world.copies_on(node)
        await lab.service.retry(task.id)
        await lab.service.approve(task.id)
        held: list[int] = []

        def look(event: Event) -> None:
            lab.world.write()
            if event == Event("begun", node, 11):
                held.append(len(lab.world.copies_on(node)))

        await lab.drive(look)
        await assert_done(lab, task)
        assert held == [0]
