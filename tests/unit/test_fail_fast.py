"""What is waited for, what ends a task at once, and whose settings win, on the simulated world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardlift.executor import Event
from shardlift.model import StepStatus, Strategy, Task, TaskStatus
from shardlift.sim import IndexSpec
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
EXCLUDE_ID = "cluster.routing.allocation.exclude._id"
REBALANCE = "cluster.routing.rebalance.enable"


def once(event: Event, act: Callable[[], object]) -> Callable[[Event], None]:
    """An observer that acts the first time that moment comes."""
    left = [act]

    def observe(seen: Event) -> None:
        if seen == event and left:
            left.pop()()

    return observe


async def failed_at(lab: Lab, task: Task, order: int) -> str:
    """Asserts that the first node failed there, untouched, with all settings back; returns its desc."""
    ended = await lab.task(task)
    assert ended.status is TaskStatus.FAILED, ended.status
    row = next(row for row in ended.steps if row.status is StepStatus.FAILED)
    assert row.order == order
    assert "remedy" in row.desc
    assert (lab.world.voting_excluded, REBALANCE in lab.world.persistent) == (set(), False)
    return row.desc


async def test_an_exclusion_taken_away_is_set_again(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        task = await lab.submit()
        seen: list[str] = []

        def clean_up(when: str, what: str, where: str) -> None:
            if when == "after" and what == "put_setting" and f"{EXCLUDE_ID}=id-" in where and not seen:
                seen.append(where)
                lab.world.at(1, lambda: lab.world.persistent.pop(EXCLUDE_ID, "") and "somebody cleans up")

        lab.fault = clean_up
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert seen


async def test_somebody_who_insists_is_named(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        task = await lab.submit()
        # Something that only an exclusion is left for: no explicit move is allowed.
        for index in lab.world.indices:
            lab.world.put_index_setting(index, "index.routing.allocation.require._name", task.plan.nodes[0].name)

        def insist() -> str:
            lab.world.persistent.pop(EXCLUDE_ID, None)
            lab.world.at(1, insist)
            return "somebody cleans up"

        lab.world.at(1, insist)
        await lab.drive()
        desc = await failed_at(lab, task, 0)
        assert "again and again" in desc
        assert EXCLUDE_ID in desc
        assert lab.effects_of("stop") == []


@pytest.mark.parametrize("strategy", list(Strategy))
async def test_a_snapshot_is_waited_for(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)

        def begin() -> None:
            lab.world.start_snapshot()
            lab.world.at(200, lambda: lab.world.end_snapshot() or "the snapshot has ended")

        await lab.drive(once(Event("begun", task.total[1], 1), begin))
        await assert_whole(lab, task.id)
        row = (await lab.task(task)).steps_of(task.total[1])[1]
        assert row.begin is not None
        assert row.end is not None
        assert (row.end - row.begin).total_seconds() > 100


async def test_a_snapshot_without_an_end_is_no_reason_to_wait_for_ever(fast_home: Path) -> None:
    async with open_lab(fast_home, safety_timeout_s=100) as lab:
        task = await lab.submit()
        await lab.drive(once(Event("begun", task.total[0], 1), lab.world.start_snapshot))
        assert "no_running_snapshot" in await failed_at(lab, task, 1)
        lab.world.end_snapshot()
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_an_index_made_after_the_safety_check_stops_the_shutdown(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)
        # Pinned, so that it is this node that has its only copy.
        spec = IndexSpec("late", replicas=0, settings={"index.routing.allocation.require._name": task.total[0]})
        await lab.drive(once(Event("begun", task.total[0], 6), lambda: lab.world.create_index(spec)))
        desc = await failed_at(lab, task, 6)
        assert "last_started_copy" in desc
        assert "late[0]" in desc
        assert lab.effects_of("stop") == []
        lab.world.delete_index("late")
        await lab.service.retry(task.id)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS


async def test_another_node_that_just_left_stops_the_shutdown(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)
        other = lab.world.nodes[task.total[1]]
        await lab.drive(once(Event("begun", task.total[0], 6), lambda: lab.world.stop(other)))
        assert other.name in await failed_at(lab, task, 6)
        assert lab.effects_of("stop") == []


async def test_a_voter_that_does_not_answer_for_a_moment_is_waited_for(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)
        other = task.total[1]

        def blink() -> None:
            lab.world.hang_node(other)
            lab.world.at(4, lambda: lab.world.unhang_node(other) or f"{other} goes on")

        await lab.drive(once(Event("begun", task.total[0], 6), blink))
        await assert_whole(lab, task.id)


async def test_a_new_index_during_a_drain_goes_elsewhere_or_leaves(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        spec = IndexSpec("late", primaries=3, replicas=0)
        await lab.drive(once(Event("begun", task.total[0], 0), lambda: lab.world.create_index(spec)))
        await assert_whole(lab, task.id)


async def test_archived_settings_are_told_with_the_request_that_removes_them(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()

        def archive() -> None:
            lab.world.persistent["archived.some.old.key"] = "1"

        await lab.drive(once(Event("begun", task.total[0], 0), archive))
        ended = await lab.task(task)
        row = next(row for row in ended.steps if row.status is StepStatus.FAILED)
        assert "no_archived_settings" in row.desc
        assert "archived.some.old.key" in row.desc
        assert '"archived.*": null' in row.desc
        await lab.service.backend.engine(lab.cluster).put_setting("persistent", "archived.*", None)
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_setting_changed_between_nodes_is_held_and_theirs_in_the_end(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        seen: list[str | None] = []

        def observe(event: Event) -> None:
            if event == Event("journaled", task.total[0], 12):
                lab.world.persistent[REBALANCE] = "replicas"
            if event.order == 5:
                seen.append(lab.world.persistent.get(REBALANCE))

        await lab.drive(observe)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert set(seen) == {"none"}, "it is held at each node"
        assert lab.world.persistent == {REBALANCE: "replicas"}, "what they chose stands in the end"


async def test_a_setting_changed_while_no_server_ran_is_theirs_in_the_end(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()

        class Gone(BaseException):
            pass

        def crash(event: Event) -> None:
            if event == Event("acted", task.total[0], 3):
                raise Gone

        with pytest.raises(Gone):
            await lab.drive(crash)
        await lab.service.leases.reap("test:")
        lab.world.persistent[REBALANCE] = "replicas"
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert lab.world.persistent == {REBALANCE: "replicas"}


async def test_a_full_disk_is_waited_for_and_told(fast_home: Path) -> None:
    """Disk thresholds pass by themselves, so a drain that they hold up is no stall; it says what it waits for."""
    async with open_lab(fast_home, replicas=0) as lab:
        task = await lab.submit()
        told: list[str] = []

        def fill() -> None:
            for name in list(lab.world.nodes):
                if name != task.total[0]:
                    lab.world.fill_disk(name)
            lab.world.at(300, free)

        def free() -> str:
            for name in list(lab.world.nodes):
                lab.world.free_disk(name)
            return "somebody frees the disks"

        def observe(event: Event) -> None:
            if event == Event("begun", task.total[0], 0):
                fill()

        lab.world.on_event = told.append
        await lab.drive(observe)
        await assert_whole(lab, task.id)
        row = (await lab.task(task)).steps_of(task.total[0])[0]
        assert row.begin is not None
        assert row.end is not None
        assert (row.end - row.begin).total_seconds() > 250
        assert "somebody frees the disks" in told
