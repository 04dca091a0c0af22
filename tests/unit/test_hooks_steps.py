"""Clients are led away from a node before it stops and back to it when it is whole again, whatever happens between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shardlift.errors import BusyError, HookError
from shardlift.executor import Event
from shardlift.model import HookKind, InstanceType, Leftovers, StepStatus, Strategy, Task, TaskStatus, TrafficHook
from shardlift.service.requests import RestartRequest
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True

HOOK = TrafficHook(HookKind.HAPROXY, socket="/run/haproxy.sock", backends=("nodes",))


@pytest.fixture
async def lab(fast_home: Path) -> AsyncIterator[Lab]:
    async with open_lab(fast_home) as made:
        await made.service.set_hook(made.cluster.id, HOOK)
        yield made


async def restart(lab: Lab) -> Task:
    return await lab.service.restart(RestartRequest(lab.cluster.id, "role", "all"))


async def settled(lab: Lab) -> None:
    """Time passes for the runner, as long as something is left to be done."""
    for _ in range(20):
        if not await lab.service.leases.claimable():
            return
        await lab.drive()
        await lab.clock.sleep(6)
    raise AssertionError("something is left for ever")


async def test_each_node_is_out_while_it_is_down_and_in_before_the_next(lab: Lab) -> None:
    seen: list[tuple[str, str, int]] = []

    def watch(when: str, what: str, where: str) -> None:
        if when == "after" and what in {"balancer.remove", "balancer.put_back", "host.stop", "host.start"}:
            seen.append((where, what, len(lab.world.led_away)))

    lab.fault = watch
    task = await restart(lab)
    await lab.drive()
    task = await lab.task(task)
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    order = ("balancer.remove", "host.stop", "host.start", "balancer.put_back")
    assert seen == [(node, what, int(what != order[3])) for node in task.total for what in order]
    steps = {(row.node, row.order): row for row in task.steps}
    for node in task.total:
        assert steps[node, 3].evidence["hook"] == "haproxy"
        assert steps[node, 3].evidence["pools"] == ["nodes"]
        assert steps[node, 3].evidence["in_flight"] == 0
        assert "Clients are led to it" in steps[node, 11].desc


async def test_a_node_that_others_had_taken_out_stays_out(lab: Lab) -> None:
    lab.world.led_away.add(lab.cluster.nodes[1].name)
    task = await restart(lab)
    await lab.drive()
    assert (await lab.task(task)).status is TaskStatus.SUCCESS
    assert lab.world.led_away == {lab.cluster.nodes[1].name}


async def test_a_hook_that_fails_stops_the_task_and_takes_nothing_down(lab: Lab) -> None:
    def broken(when: str, what: str, where: str) -> None:
        if what == "balancer.remove":
            raise HookError("the balancer says no", remedy="ask it why")

    lab.fault = broken
    task = await restart(lab)
    await lab.drive()
    task = await lab.task(task)
    failed = next(row for row in task.steps if row.status is StepStatus.FAILED)
    assert (task.status, failed.order) == (TaskStatus.FAILED, 3)
    assert "the balancer says no" in failed.desc
    assert "ask it why" in failed.desc
    assert lab.effects_of("stop") == []
    assert lab.world.led_away == set()
    lab.fault = lambda *_: None
    await lab.service.retry(task.id)
    await lab.drive()
    assert (await lab.task(task)).status is TaskStatus.SUCCESS


async def test_a_hook_that_fails_twice_and_then_works_is_no_failure(lab: Lab) -> None:
    tries = []

    def stumbles(when: str, what: str, where: str) -> None:
        if when == "before" and what == "balancer.remove":
            tries.append(where)
            if len(tries) < 3:
                raise HookError("it reloads")

    lab.fault = stumbles
    task = await restart(lab)
    await lab.drive()
    assert (await lab.task(task)).status is TaskStatus.SUCCESS
    assert len(tries) == 5


@pytest.mark.parametrize(("what", "order"), [("acted", 3), ("begun", 6), ("acted", 6), ("acted", 10), ("acted", 11)])
async def test_after_a_crash_whoever_takes_over_puts_the_node_back(lab: Lab, order: int, what: str) -> None:
    task = await restart(lab)

    def crash(event: Event) -> None:
        if (event.what, event.node, event.order) == (what, task.total[0], order):
            raise Crash

    with pytest.raises(Crash):
        await lab.drive(crash)
    await lab.drive()
    assert (await lab.task(task)).status is TaskStatus.SUCCESS
    assert lab.world.led_away == set()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["balancer.remove", "balancer.put_back"])
async def test_a_crash_around_the_call_itself_leaves_nobody_out(lab: Lab, when: str, what: str) -> None:
    task = await restart(lab)

    def crash(at: str, call: str, where: str) -> None:
        if (at, call) == (when, what):
            raise Crash

    lab.fault = crash
    with pytest.raises(Crash):
        await lab.drive()
    lab.fault = lambda *_: None
    await lab.service.abort(task.id)
    await settled(lab)
    assert (await lab.task(task)).status in {TaskStatus.FAILED, TaskStatus.PARTIAL_FAILED}
    assert lab.world.led_away == set()


async def test_a_balancer_that_forgot_is_told_again_before_the_node_stops(lab: Lab) -> None:
    """The control plane died after the node was taken out; HAProxy was started again meanwhile, and leads to it."""
    task = await restart(lab)

    def crash(event: Event) -> None:
        if (event.what, event.order) == ("journaled", 4):
            raise Crash

    with pytest.raises(Crash):
        await lab.drive(crash)
    lab.world.led_away.clear()
    out_at_stop: list[bool] = []

    def watch(when: str, what: str, where: str) -> None:
        if (when, what) == ("before", "host.stop"):
            out_at_stop.append(where in lab.world.led_away)

    lab.fault = watch
    await lab.drive()
    assert (await lab.task(task)).status is TaskStatus.SUCCESS
    assert out_at_stop == [True, True, True]


async def test_a_node_that_does_not_start_stays_out_until_it_is_up(lab: Lab) -> None:
    task = await restart(lab)
    first = task.total[0]
    lab.world.nodes[first].starts = False
    await lab.drive()
    task = await lab.task(task)
    assert task.status is TaskStatus.FAILED
    assert "stays out of the balancer" in str(task.fail_message)
    await lab.drive()
    assert lab.world.led_away == {first}
    lab.world.nodes[first].starts = True
    lab.world.start(lab.world.nodes[first])
    await lab.clock.sleep(60)
    await settled(lab)
    assert lab.world.led_away == set()


async def test_an_abort_after_the_node_was_led_away_puts_it_back(lab: Lab) -> None:
    task = await restart(lab)

    def crash(event: Event) -> None:
        if (event.what, event.order) == ("journaled", 4):
            raise Crash

    with pytest.raises(Crash):
        await lab.drive(crash)
    await lab.service.abort(task.id)
    await settled(lab)
    assert (await lab.task(task)).status is TaskStatus.FAILED
    assert lab.world.led_away == set()
    assert lab.effects_of("stop") == []


@pytest.mark.parametrize("leftovers", list(Leftovers))
async def test_requests_in_flight_after_the_bound(lab: Lab, leftovers: Leftovers) -> None:
    first = (await restart_plan(lab))[0]
    hook = TrafficHook(HookKind.HAPROXY, socket="/s", backends=("n",), leftovers=leftovers, in_flight_timeout_s=20)
    await lab.service.set_hook(lab.cluster.id, hook)
    lab.world.requests[first] = 7
    task = await restart(lab)
    await lab.drive()
    task = await lab.task(task)
    row = next(row for row in task.steps if (row.node, row.order) == (first, 3))
    assert "7 requests" in row.desc
    assert row.evidence["in_flight"] == 7
    assert row.evidence["waited_s"] >= 20
    if leftovers is Leftovers.FAIL:
        assert (task.status, row.status) == (TaskStatus.FAILED, StepStatus.FAILED)
        assert lab.effects_of("stop") == []
    else:
        assert (task.status, row.status) == (TaskStatus.SUCCESS, StepStatus.SUCCESS)
    assert lab.world.led_away == set()


async def restart_plan(lab: Lab) -> tuple[str, ...]:
    report = await lab.service.check_move(RestartRequest(lab.cluster.id, "role", "all"))
    assert report.plan is not None
    return tuple(node.name for node in report.plan.nodes)


async def test_the_wait_ends_when_the_last_request_does(lab: Lab) -> None:
    first = (await restart_plan(lab))[0]
    lab.world.requests[first] = 1

    def ends() -> str:
        lab.world.requests.clear()
        return "the last request ends"

    lab.world.at(30, ends)
    task = await restart(lab)
    await lab.drive()
    task = await lab.task(task)
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    row = next(row for row in task.steps if (row.node, row.order) == (first, 3))
    assert 25 < row.evidence["waited_s"] < 40


async def test_other_types_of_nodes_are_not_led_away(lab: Lab) -> None:
    hook = TrafficHook(HookKind.HAPROXY, types=(InstanceType.ESS,), socket="/s", backends=("n",))
    await lab.service.set_hook(lab.cluster.id, hook)
    with pytest.raises(Exception, match="no nodes of these types"):
        await lab.service.set_hook(
            lab.cluster.id, TrafficHook(HookKind.HAPROXY, types=(InstanceType.CLIENT,), socket="/s", backends=("n",))
        )


async def test_the_hook_stays_as_it_is_while_a_task_runs(lab: Lab) -> None:
    await restart(lab)
    with pytest.raises(BusyError, match="traffic hook stays as it is"):
        await lab.service.set_hook(lab.cluster.id, None)
    await lab.drive()
    assert (await lab.service.set_hook(lab.cluster.id, None)).cluster.traffic_hook is None


async def test_a_master_key_that_is_gone_fails_the_task_before_anything_is_stopped(lab: Lab) -> None:
    lab.service.settings.master_key_path.unlink()
    task = await restart(lab)
    await lab.drive()
    task = await lab.task(task)
    failed = next(row for row in task.steps if row.status is StepStatus.FAILED)
    assert (task.status, failed.order) == (TaskStatus.FAILED, 3)
    assert "master key" in failed.desc
    assert lab.effects_of("stop") == []


async def test_without_the_hook_a_node_left_out_is_forgotten_and_told(lab: Lab) -> None:
    task = await restart(lab)
    first = task.total[0]
    lab.world.nodes[first].starts = False
    await lab.drive()
    done = await lab.service.set_hook(lab.cluster.id, None)
    assert done.out == (first,)
    await settled(lab)


async def test_an_upgrade_by_drain_does_it_too(lab: Lab) -> None:
    task = await lab.submit(Strategy.DRAIN)
    await lab.drive()
    task = await lab.task(task)
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    assert lab.world.led_away == set()
    assert all(row.evidence["hook"] == "haproxy" for row in task.steps if row.order == 3)
