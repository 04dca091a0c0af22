"""Gates and maintenance windows hold a task between two nodes; on the simulated world."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from shardlift.chaos.time import EPOCH
from shardlift.executor import Event
from shardlift.model import Gates, OnBreach, Policy, StepStatus, Task, TaskStatus, Window
from shardlift.runner import Runner
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
# Each indexing operation of the simulated world takes 1 ms.
CLOSED, OPEN = 0.5, 1.5


def policy(limit_ms: float, way: OnBreach, wait_timeout_s: float = 600) -> Policy:
    return Policy(gates=Gates(write_latency_ms=limit_ms, on_breach=way, wait_timeout_s=wait_timeout_s))


def write_from(lab: Lab, node: str, order: int) -> object:
    """From that sub-step on clients write."""
    return lambda event: lab.world.write_every(1) if event == Event("begun", node, order) else None


async def test_open_gates_let_it_pass(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.write_every(1)
        task = await lab.submit(policy=policy(OPEN, OnBreach.FAIL))
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_closed_gate_fails_the_next_node_and_retry_asks_again(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(CLOSED, OnBreach.FAIL))
        first, second, _ = task.total
        await lab.drive(write_from(lab, first, 11))
        failed = await lab.task(task)
        row = failed.steps_of(second)[0]
        assert (failed.status, row.status, failed.completed) == (TaskStatus.FAILED, StepStatus.FAILED, (first,))
        assert "gate_write_latency" in row.desc
        assert "1 ms, the limit is 0.5 ms" in row.desc
        assert {finding["rule"] for finding in row.evidence["findings"]} == {"gate_write_latency"}  # type: ignore[attr-defined]
        assert lab.effects_of("stop") == [first]
        assert (lab.world.persistent, lab.world.transient) == ({}, {})
        await lab.service.retry(task.id)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED, "it is asked again, and still closed"
        lab.world.write_every(0)
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


@pytest.mark.parametrize("way", [OnBreach.PAUSE, OnBreach.WAIT])
async def test_a_closed_gate_pauses_with_its_reason(fast_home: Path, way: OnBreach) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(CLOSED, way, wait_timeout_s=120))
        first = task.total[0]
        before_s = lab.clock.elapsed_s()
        await lab.drive(write_from(lab, first, 12))
        paused = await lab.task(task)
        assert (paused.status, paused.paused, paused.at_rest) == (TaskStatus.RUNNING, True, True)
        told = paused.blocked_by or ""
        assert "gate_write_latency" in told
        assert f"task resume {task.id}" in told
        assert ("closed for 1" in told) is (way is OnBreach.WAIT)
        if way is OnBreach.WAIT:
            assert lab.clock.elapsed_s() - before_s > 120
        assert await lab.service.leases.claimable() == ()
        lab.world.write_every(0)
        await lab.service.resume(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_a_gate_that_opens_again_is_waited_for(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(CLOSED, OnBreach.WAIT))
        driving = asyncio.create_task(lab.drive(write_from(lab, task.total[0], 12)))
        waits = await until_blocked(lab, task, "gate_write_latency")
        assert (waits.paused, waits.completed) == (False, task.total[:1])
        assert f"task abort {task.id}" in (waits.blocked_by or "")
        lab.world.write_every(0)
        await driving
        await assert_whole(lab, task.id)


async def test_a_cluster_that_does_not_answer_closes_the_gates_and_abort_ends_it(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=policy(OPEN, OnBreach.WAIT, wait_timeout_s=10_000))
        for node in lab.world.nodes.values():
            lab.world.hang_node(node.name)
        driving = asyncio.create_task(lab.drive())
        await until_blocked(lab, task, "unknown")
        for node in lab.world.nodes.values():
            lab.world.unhang_node(node.name)
        await lab.service.abort(task.id)
        await driving
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert lab.effects_of("stop") == []


async def until_blocked(lab: Lab, task: Task, words: str) -> Task:
    async with asyncio.timeout(20_000):
        while words not in ((now := await lab.task(task)).blocked_by or ""):
            await lab.clock.sleep(1)
    return now


async def test_a_window_holds_every_node_and_opens_by_itself(fast_home: Path) -> None:
    """The clock says Monday, 02:00 UTC, at the start."""
    windows = (Window.parse("mon 02:00-02:01"), Window.parse("mon 04:04-04:30 +02:00"))
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=Policy(windows=windows))
        await lab.clock.sleep(55)
        await lab.drive()
        rests = await lab.task(task)
        assert rests.completed, "begun in its window, finished after it"
        assert len(rests.completed) < 3
        assert (rests.status, rests.at_rest, rests.paused) == (TaskStatus.RUNNING, True, False)
        assert rests.hold_until == EPOCH + timedelta(minutes=4)
        assert "opens at 2026-01-05 02:04 UTC" in (rests.blocked_by or "")
        assert await lab.service.leases.claimable() == ()
        runner = Runner(
            lab.service.store, lab.service.leases, backend=lab.service.backend, settings=lab.service.settings,
            clock=lab.clock,
        )  # fmt: skip
        running = asyncio.create_task(runner.run())
        async with asyncio.timeout(3600):
            while (await lab.task(task)).status is TaskStatus.RUNNING:
                await lab.clock.sleep(10)
        running.cancel()
        await assert_whole(lab, task.id)
        done = await lab.task(task)
        for node in done.total[len(rests.completed) :]:
            assert done.steps_of(node)[0].begin >= EPOCH + timedelta(minutes=4)  # type: ignore[operator]


async def test_before_its_window_nothing_is_touched_and_it_can_be_ended(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(policy=Policy(windows=(Window.parse("tue 01:00-02:00"),)))
        await lab.drive()
        assert (lab.world.persistent, lab.world.effects) == ({}, [])
        assert (await lab.task(task)).hold_until == EPOCH + timedelta(hours=23)
        await lab.service.pause(task.id)
        await lab.service.resume(task.id)
        assert await lab.service.leases.claimable() == (lab.cluster.id,), "asked again"
        await lab.drive()
        assert (await lab.task(task)).hold_until == EPOCH + timedelta(hours=23)
        await lab.service.abort(task.id)
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED
