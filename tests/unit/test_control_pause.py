"""Pausing, resuming and ending a task between two nodes, on the simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shardlift.errors import RefusedError
from shardlift.executor import Event
from shardlift.model import StepStatus, Strategy, Task, TaskStatus
from tests.unit.test_upgrade_walk import BOTH, assert_whole
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
REBALANCE = "cluster.routing.rebalance.enable"
Wish = Callable[[str], Awaitable[Task]]


async def drive_while(lab: Lab, task: Task, node: int, order: int, *wishes: Wish) -> None:
    """Drives the task; somebody has these wishes while that sub-step is under way."""
    moment = asyncio.Event()

    async def somebody() -> None:
        await moment.wait()
        for wish in wishes:
            await wish(task.id)

    waiting = asyncio.create_task(somebody())
    await lab.drive(lambda event: moment.set() if event == Event("begun", task.total[node], order) else None)
    await waiting


async def restart(lab: Lab) -> None:
    """Another process takes over from one that was killed."""
    await lab.service.leases.reap("test:")


@BOTH
async def test_pause_crash_restart_resume_success(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.transient[REBALANCE] = "replicas"
        task = await lab.submit(strategy)
        await drive_while(lab, task, 0, 0, lab.service.pause, lab.service.pause)
        paused = await lab.task(task)
        assert (paused.status, paused.paused, paused.at_rest) == (TaskStatus.RUNNING, True, True)
        assert paused.completed == task.total[:1], "the node in work was finished first"
        assert paused.current == ()
        assert f"task resume {task.id}" in (paused.blocked_by or "")
        assert lab.world.transient == {REBALANCE: "none"}, "two versions: what would deadlock stays held off"
        assert await lab.service.leases.claimable() == (), "nobody has anything to do"
        lease = await lab.service.leases.claim(lab.cluster.id)
        assert lease is not None, "a paused task holds no lease"
        await restart(lab)
        before = list(lab.world.effects)
        await lab.drive()
        assert lab.world.effects == before, "driven by mistake, it rests again at once"
        assert lab.world.transient == {REBALANCE: "none"}
        assert (await lab.task(task)).at_rest

        await lab.service.resume(task.id)
        resumed = await lab.service.resume(task.id)
        assert (resumed.paused, resumed.blocked_by) == (False, None)
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive(lambda _event: lab.world.write())
        assert lab.world.transient == {REBALANCE: "replicas"}
        lab.world.transient.clear()
        await assert_whole(lab, task.id)


async def test_crash_after_the_pause_in_a_half_done_node_finishes_it_first(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()

        def crash(event: Event) -> None:
            if event == Event("acted", task.total[0], 6):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await lab.service.pause(task.id)
        assert await lab.service.leases.claimable() == (lab.cluster.id,), "its node is down, so it does not rest"
        await lab.drive()
        rests = await lab.task(task)
        assert (rests.at_rest, rests.completed) == (True, task.total[:1])
        assert all(node.up for node in lab.world.nodes.values())
        await lab.service.resume(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


@pytest.mark.parametrize("point", [("journaled", 0, 12), ("begun", 1, 0), ("begun", 1, 9)])
async def test_crash_at_the_boundary_or_past_it_after_a_pause(fast_home: Path, point: tuple[str, int, int]) -> None:
    """Whatever the moment of the crash: a paused task rests only once no node is half done."""
    what, node, order = point
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)

        def crash(event: Event) -> None:
            if event == Event(what, task.total[node], order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await lab.service.pause(task.id)
        assert not (await lab.task(task)).at_rest
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive()
        rests = await lab.task(task)
        assert (rests.at_rest, rests.current) == (True, ())
        assert len(rests.completed) == node + 1
        assert all(one.up for one in lab.world.nodes.values())
        await lab.service.resume(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_crash_before_its_first_node_then_pause_holds_nothing(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()

        def crash(when: str, what: str, _where: str) -> None:
            if (when, what) == ("after", "put_setting"):
                raise Crash

        lab.fault = crash
        with pytest.raises(Crash):
            await lab.drive()
        lab.fault = lambda *_point: None
        assert lab.world.persistent == {REBALANCE: "none"}
        await lab.service.pause(task.id)
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive()
        assert (await lab.task(task)).at_rest
        assert lab.world.persistent == {}, "one version: there is nothing to hold off"


async def test_paused_before_its_first_node_nothing_is_touched(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        await lab.service.pause(task.id)
        assert await lab.service.leases.claimable() == ()
        await lab.drive()
        assert (lab.world.persistent, lab.world.transient, lab.world.effects) == ({}, {}, [])
        aborted = await lab.service.abort(task.id)
        assert aborted.aborting
        assert await lab.service.leases.claimable() == (lab.cluster.id,), "an end is for everybody, also the paused"
        await lab.drive()
        ended = await lab.task(task)
        assert ended.status is TaskStatus.FAILED
        assert "0 of 3 nodes run opensearch:3.4.0" in (ended.fail_message or "")
        assert lab.world.effects == []


@BOTH
async def test_abort_of_a_paused_task_gives_an_account(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.persistent[REBALANCE] = "primaries"
        task = await lab.submit(strategy)
        await drive_while(lab, task, 0, 0, lab.service.pause)
        await lab.service.abort(task.id)
        await lab.drive()
        ended = await lab.task(task)
        assert ended.status is TaskStatus.PARTIAL_FAILED
        first, second, third = task.total
        told = ended.fail_message or ""
        assert f"1 of 3 nodes run opensearch:3.4.0 ({first}), {second}, {third} as before" in told
        assert "settings put back" in told
        assert REBALANCE in told
        assert (lab.world.persistent, lab.world.transient) == ({REBALANCE: "primaries"}, {})
        assert lab.world.lost() == {}
        await lab.clock.sleep(600)  # the engine balances again, and comes to rest
        rest = await lab.submit(strategy)
        assert set(rest.total) == {second, third}, "a new upgrade takes the nodes that are left"


async def test_what_has_ended_is_not_paused_resumed_or_approved(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        with pytest.raises(RefusedError, match="no canary"):
            await lab.service.approve(task.id)
        lab.world.nodes[task.total[0]].starts = False
        await lab.drive()
        for wish in (lab.service.pause, lab.service.resume, lab.service.approve):
            with pytest.raises(RefusedError) as refused:
                await wish(task.id)
            assert f"task retry {task.id}" in (refused.value.remedy or "")
        lab.world.nodes[task.total[0]].starts = True
        await lab.service.retry(task.id)
        await lab.service.abort(task.id)
        with pytest.raises(RefusedError, match="being aborted"):
            await lab.service.pause(task.id)
        await lab.drive()
        with pytest.raises(RefusedError, match="PARTIAL_FAILED"):
            await lab.service.resume(task.id)


async def test_retry_takes_the_pause_back(fast_home: Path) -> None:
    """Its node failed before it came to rest: who asks it to go on wants it to go on."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        lab.world.nodes[task.total[0]].starts = False
        await drive_while(lab, task, 0, 0, lab.service.pause)
        failed = await lab.task(task)
        assert (failed.status, failed.paused, failed.blocked_by) == (TaskStatus.FAILED, True, None)
        assert failed.steps_of(task.total[0])[10].status is StepStatus.FAILED
        lab.world.nodes[task.total[0]].starts = True
        assert not (await lab.service.retry(task.id)).paused
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS


async def test_giving_up_a_failed_task_adds_the_account(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        lab.world.nodes[task.total[1]].starts = False
        await lab.drive()
        why = (await lab.task(task)).fail_message or ""
        given_up = await lab.service.abort(task.id)
        assert given_up.status is TaskStatus.PARTIAL_FAILED
        assert (given_up.fail_message or "").startswith(why)
        assert f"1 of 3 nodes run opensearch:3.4.0 ({task.total[0]})" in (given_up.fail_message or "")
