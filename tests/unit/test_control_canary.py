"""A canary is back, holds nothing, and waits for somebody's word; on the simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from shardlift.executor import Event
from shardlift.model import Policy, StepStatus, Strategy, Task, TaskStatus
from shardlift.sim import IndexSpec
from tests.unit.test_upgrade_walk import BOTH, assert_whole
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
EXCLUDE_NAME = "cluster.routing.allocation.exclude._name"
CANARY = Policy(canary=True)


@asynccontextmanager
async def driven(lab: Lab) -> AsyncIterator[asyncio.Task[None]]:
    driving = asyncio.create_task(lab.drive())
    try:
        yield driving
    finally:
        driving.cancel()
        with suppress(asyncio.CancelledError, Crash):
            await driving


async def until_it_waits(lab: Lab, task: Task) -> Task:
    """The task once its canary waits; a canary that never does ends the test by the clock."""
    async with asyncio.timeout(20_000):
        while True:
            now = await lab.task(task)
            if "approval" in (now.blocked_by or "") or now.status is not TaskStatus.RUNNING:
                return now
            await lab.clock.sleep(5)


def holds(lab: Lab, name: str) -> int:
    lab.world.advance()
    return len(lab.world.placed_on(name))


@BOTH
async def test_holds_no_copy_until_it_is_approved(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy, policy=CANARY)
        canary = task.total[0]
        assert [node.canary for node in task.plan.nodes] == [True, False, False]
        lab.world.write_every(5)
        async with driven(lab) as driving:
            waits = await until_it_waits(lab, task)
            assert f"task approve {task.id}" in (waits.blocked_by or "")
            assert waits.steps_of(canary)[11].status is StepStatus.RUNNING
            node = lab.world.nodes[canary]
            assert (node.up, str(node.version), holds(lab, canary)) == (True, "3.4.0", 0)
            lab.world.create_index(IndexSpec("meanwhile", 2, 1))
            # Somebody's clean-up takes our exclusion away.
            lab.world.put_cluster_setting("persistent", EXCLUDE_NAME, None)
            await lab.clock.sleep(600)
            assert holds(lab, canary) == 0
            assert lab.world.persistent[EXCLUDE_NAME] == canary
            assert not driving.done()
            assert (await lab.service.approve(task.id)).approved
            await lab.service.approve(task.id)
            await driving
        assert lab.world.failed_writes == 0
        await assert_whole(lab, task.id)


async def test_approved_in_advance_it_does_not_wait(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=CANARY)
        await lab.service.approve(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_crash_while_it_waits_then_pause_then_approve(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=CANARY)
        async with driven(lab):
            await until_it_waits(lab, task)
        await lab.service.leases.reap("test:")
        async with driven(lab) as driving:
            await until_it_waits(lab, task)
            await lab.service.pause(task.id)
            await driving
        rests = await lab.task(task)
        assert (rests.status, rests.at_rest) == (TaskStatus.RUNNING, True)
        assert f"task resume {task.id}" in (rests.blocked_by or "")
        assert await lab.service.leases.claimable() == ()
        await lab.clock.sleep(600)
        assert holds(lab, task.total[0]) == 0
        await lab.service.resume(task.id)
        async with driven(lab) as driving:
            await until_it_waits(lab, task)
            await lab.service.approve(task.id)
            await driving
        await assert_whole(lab, task.id)


@BOTH
async def test_abort_while_it_waits(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy, policy=CANARY)
        async with driven(lab) as driving:
            await until_it_waits(lab, task)
            await lab.service.abort(task.id)
            await driving
        ended = await lab.task(task)
        assert (ended.status, ended.completed) == (TaskStatus.PARTIAL_FAILED, task.total[:1])
        assert (lab.world.persistent, lab.world.transient) == ({}, {})
        assert lab.world.lost() == {}


async def test_a_canary_that_failed_is_excluded_again_before_it_starts(fast_home: Path) -> None:
    """With the failure all settings went back, so its name must stand there again before its process does."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=CANARY)
        canary = lab.world.nodes[task.total[0]]
        canary.starts = False
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert lab.world.persistent == {}
        canary.starts = True
        await lab.service.retry(task.id)
        excluded: list[str | None] = []

        def look(event: Event) -> None:
            if event == Event("begun", canary.name, 10):
                excluded.append(lab.world.persistent.get(EXCLUDE_NAME))

        driving = asyncio.create_task(lab.drive(look))
        await until_it_waits(lab, task)
        assert excluded == [canary.name]
        assert holds(lab, canary.name) == 0
        await lab.service.approve(task.id)
        await driving
        assert (await lab.task(task)).status is TaskStatus.SUCCESS


@pytest.mark.parametrize("order", [0, 4, 7, 10, 11])
async def test_crash_on_the_way_of_a_canary(fast_home: Path, order: int) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE, policy=CANARY)

        def crash(event: Event) -> None:
            if event == Event("begun", task.total[0], order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        async with driven(lab) as driving:
            await until_it_waits(lab, task)
            assert holds(lab, task.total[0]) == 0
            await lab.service.approve(task.id)
            await driving
        await assert_whole(lab, task.id)
