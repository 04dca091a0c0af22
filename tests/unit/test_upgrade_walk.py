"""The whole walk of an upgrade on the simulated world: the way it should go, and every place to crash on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shardlift.executor import Event
from shardlift.model import StepStatus, Strategy, TaskStatus
from tests.worlds import NEW, Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
BOTH = pytest.mark.parametrize("strategy", list(Strategy))
HOST_EFFECTS = ("backup", "stop", "switch", "restore", "start", "set aside", "discard")


async def assert_whole(lab: Lab, task_id: str) -> None:
    """All that must be true after a success, however it was reached."""
    task = await lab.service.task(task_id)
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    assert task.completed == task.total
    assert all(row.status is StepStatus.SUCCESS for row in task.steps)
    assert lab.versions() == {"3.4.0"}
    assert lab.world.lost() == {}
    assert (lab.world.persistent, lab.world.transient, lab.world.voting_excluded) == ({}, {}, set())
    twice = {pair: count for pair, count in Counter(lab.world.effects).items() if count > 1}
    assert twice == {}, "a sub-step was done twice on a host"
    cluster = await lab.service.cluster(lab.cluster.id)
    assert (cluster.image_id, str(cluster.version), cluster.busy_with) == (NEW.id, "3.4.0", None)
    assert {node.image_id for node in cluster.nodes} == {NEW.id}


@BOTH
async def test_upgrades_node_by_node(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)
        assert task.status is TaskStatus.RUNNING
        assert [row.order for row in task.steps_of(task.total[0])] == list(range(13))
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        done = await lab.task(task)
        # The elected master goes last, so mastership moves once.
        assert done.total[-1] == "lab-1-ess-esn-1-1"
        assert [name for name in lab.effects_of("stop") if name in done.total] == list(done.total)
        assert bool(lab.effects_of("set aside")) is strategy.empties
        times = [moment for row in done.steps for moment in (row.begin, row.end)]
        assert times == sorted(times), "sub-steps follow each other in time"


@BOTH
@pytest.mark.parametrize("order", range(13))
async def test_crash_after_each_sub_step(fast_home: Path, strategy: Strategy, order: int) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)
        first = task.total[0]

        def crash(event: Event) -> None:
            lab.world.write()
            if event == Event("acted", first, order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        between = await lab.task(task)
        assert between.status is TaskStatus.RUNNING
        assert between.steps[order].status is StepStatus.RUNNING
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


@BOTH
async def test_crash_at_every_point_in_turn(fast_home: Path, strategy: Strategy) -> None:
    """Each moment of the walk and each side of each effect is crashed at once, one after the other, in one upgrade."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)
        met, crashes = await lab.crash_everywhere(task.id)
        await assert_whole(lab, task.id)
        assert crashes == len(met)
        assert crashes >= 3 * 13 * 3, "all moments of all sub-steps were met"
