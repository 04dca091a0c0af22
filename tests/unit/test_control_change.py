"""The policy of a task is changed while it goes on, waits, is paused, or has failed; on the simulated world."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from shardlift.chaos.time import EPOCH
from shardlift.errors import RefusedError, UsageError
from shardlift.executor import Event
from shardlift.model import Gates, OnBreach, Policy, TaskStatus, Window
from shardlift.service.requests import PolicyChange
from tests.unit.test_control_gates import CLOSED, OPEN, policy, until_blocked, write_from
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Lab, open_lab

VIRTUAL_TIME = True
TUESDAY = Policy(windows=(Window.parse("tue 01:00-02:00"),))
NO_WINDOWS, NO_GATES = PolicyChange(windows=()), PolicyChange(gates={})


async def test_a_gate_that_is_set_while_a_node_is_in_work_holds_before_the_next(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.write_every(1)
        task = await lab.submit()
        first, second, _ = task.total
        begun = asyncio.Event()
        driving = asyncio.create_task(
            lab.drive(lambda event: begun.set() if event == Event("begun", first, 4) else None)
        )
        await begun.wait()
        change = PolicyChange(gates={"write_latency_ms": CLOSED, "on_breach": "fail"})
        changed = await lab.service.set_policy(task.id, change)
        assert changed.revision > task.revision
        await driving
        failed = await lab.task(task)
        assert (failed.status, failed.completed) == (TaskStatus.FAILED, (first,))
        assert "gate_write_latency" in failed.steps_of(second)[0].desc
        # A FAILED task heeds a change once it is retried.
        await lab.service.set_policy(task.id, PolicyChange(gates={"write_latency_ms": OPEN}))
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_gate_that_waits_is_taken_away(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(CLOSED, OnBreach.WAIT, wait_timeout_s=10_000))
        driving = asyncio.create_task(lab.drive(write_from(lab, task.total[0], 12)))
        waits = await until_blocked(lab, task, "gate_write_latency")
        assert f"task policy {task.id} --no-gates" in (waits.blocked_by or "")
        await lab.service.set_policy(task.id, NO_GATES)
        await driving
        assert lab.clock.now() < EPOCH + timedelta(seconds=5000)
        await assert_whole(lab, task.id)


async def test_a_window_is_taken_away_and_the_task_is_claimed_again(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=TUESDAY)
        await lab.drive()
        rests = await lab.task(task)
        assert f"task policy {task.id} --no-windows" in (rests.blocked_by or "")
        assert await lab.service.leases.claimable() == ()
        changed = await lab.service.set_policy(task.id, NO_WINDOWS)
        assert (changed.hold_until, changed.waiting_for, changed.blocked_by) == (None, None, None)
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive()
        await assert_whole(lab, task.id)
        assert lab.clock.now() < EPOCH + timedelta(hours=1)


async def test_a_window_that_is_set_later_holds_the_next_node(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        begun = asyncio.Event()
        second = task.total[1]
        driving = asyncio.create_task(
            lab.drive(lambda event: begun.set() if event == Event("begun", second, 0) else None)
        )
        await begun.wait()
        await lab.service.set_policy(task.id, PolicyChange(windows=["tue 01:00-02:00"]))
        await driving
        rests = await lab.task(task)
        assert (rests.at_rest, rests.completed) == (True, task.total[:2])
        assert rests.hold_until == EPOCH + timedelta(hours=23)
        await lab.service.set_policy(task.id, NO_WINDOWS)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_paused_task_stays_paused(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(CLOSED, OnBreach.PAUSE))
        await lab.drive(write_from(lab, task.total[0], 12))
        assert (await lab.task(task)).paused
        changed = await lab.service.set_policy(task.id, NO_GATES)
        assert (changed.paused, changed.at_rest) == (True, True)
        assert f"task resume {task.id}" in (changed.blocked_by or "")
        assert await lab.service.leases.claimable() == ()
        await lab.service.resume(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_canary_may_be_given_up_and_not_be_asked_for(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=Policy(canary=True))
        same = await lab.service.set_policy(task.id, PolicyChange(canary=True))
        assert (same.revision, same.approved) == (task.revision, False)
        changed = await lab.service.set_policy(task.id, PolicyChange(canary=False))
        assert (changed.policy.canary, changed.approved) == (False, True)
        with pytest.raises(UsageError, match="without a canary"):
            await lab.service.set_policy(task.id, PolicyChange(canary=True))
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_changes_at_once_do_not_undo_each_other(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=TUESDAY)
        gates = {"heap_percent": 85.0}
        await asyncio.gather(
            lab.service.set_policy(task.id, NO_WINDOWS), lab.service.set_policy(task.id, PolicyChange(gates=gates))
        )
        assert (await lab.task(task)).policy == Policy(gates=Gates(heap_percent=85.0))


async def test_an_ended_task_is_refused(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        with pytest.raises(UsageError) as refused:
            await lab.service.set_policy(task.id, PolicyChange(gates={"load": 3}))
        assert refused.value.field == "gate"
        await lab.service.abort(task.id)
        await _refused(lab, task.id, "being aborted")
        await lab.drive()
        await _refused(lab, task.id, "FAILED")
        assert (await lab.task(task)).policy == Policy()


async def _refused(lab: Lab, task_id: str, state: str) -> None:
    with pytest.raises(RefusedError, match=state) as refused:
        await lab.service.set_policy(task_id, PolicyChange(windows=["00:00-24:00"]))
    assert refused.value.remedy
