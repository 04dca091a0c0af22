"""Nodes of one zone taken together: which are, that nothing is lost by it, and what a crash or failure leaves."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.checks import Subject, check_batches
from shardlift.errors import DriverError
from shardlift.executor import Event
from shardlift.model import Policy, Severity, StepStatus, Strategy, TaskStatus
from shardlift.planner import make_batches
from tests.unit.test_rules_properties import subjects
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Crash, Lab, open_lab

VIRTUAL_TIME = True
ZONES = ("zone-a", "zone-b", "zone-c")
SIX = {"nodes": 6, "zones": ZONES, "data_only": 3}


def zone_of(lab: Lab, name: str) -> str:
    return lab.cluster.node(name).zone


@pytest.mark.parametrize("strategy", [Strategy.IN_PLACE, Strategy.AUTO])
async def test_a_zone_takes_the_time_of_one_boot(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(strategy, batch_size=2)
        assert [len(batch) for batch in task.plan.batches] == [2, 2, 2]
        for batch in task.plan.batches:
            assert len({zone_of(lab, node.name) for node in batch}) == 1
        assert task.total[-1] == lab.world.elected
        away: dict[int, int] = defaultdict(int)

        def note(_event: Event) -> None:
            lab.world.write()
            away[sum(node.pid is None for node in lab.world.nodes.values())] += 1

        await lab.drive(note)
        await assert_whole(lab, task.id)
        assert max(away) == 2
        assert lab.effects_of("set aside") == []


async def test_a_drain_takes_one_node_at_a_time(fast_home: Path) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.DRAIN, batch_size=2)
        assert [len(batch) for batch in task.plan.batches] == [1] * 6


async def test_at_most_half_of_the_data_nodes_and_one_master(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=("zone-a",), data_only=3, indices=1, shards=1) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=50)
        assert max(len(batch) for batch in task.plan.batches) <= 3
    other = fast_home / "all"
    other.mkdir()
    async with open_lab(other, nodes=6, zones=("zone-a",), indices=1, shards=1) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=3)
        assert [len(batch) for batch in task.plan.batches] == [1] * 6, "each of them can be elected"


async def test_the_canary_goes_alone(fast_home: Path) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.AUTO, batch_size=2, policy=Policy(canary=True))
        assert len(task.plan.batches[0]) == 1
        assert task.plan.batches[0][0].canary
        assert max(len(batch) for batch in task.plan.batches) == 2


@pytest.mark.parametrize("order", [0, 1, 4, 5, 6, 7, 10, 11, 12])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_crash_in_the_middle_of_a_batch(fast_home: Path, order: int, which: int) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        node = task.plan.batches[1][which].name

        def crash(event: Event) -> None:
            lab.world.write()
            if (event.what, event.node, event.order) == ("acted", node, order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


async def test_one_of_a_batch_does_not_start(fast_home: Path) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.AUTO, batch_size=2)
        bad, good = (node.name for node in task.plan.batches[0])
        lab.world.nodes[bad].starts = False
        await lab.drive(lambda _event: lab.world.write())
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        states = {(row.node, row.order): row.status for row in failed.steps}
        assert (states[bad, 10], states[good, 10]) == (StepStatus.FAILED, StepStatus.SUCCESS)
        assert (lab.world.persistent, lab.world.transient) == ({}, {})
        lab.world.nodes[bad].starts = True
        await lab.service.retry(task.id)
        lab.world.effects.clear()  # its start is tried again
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


async def test_one_of_a_batch_fails_before_it_is_stopped(fast_home: Path) -> None:
    """Then none of them has been stopped, and after a retry all are looked at again from the beginning."""
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        first, second = (node.name for node in task.plan.batches[0])
        lab.fault = lambda when, what, where: _refuse(when, what, where, second)
        await lab.drive(lambda _event: lab.world.write())
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED, failed.fail_message
        assert lab.effects_of("stop") == []
        await lab.service.retry(task.id)
        again = await lab.task(task)
        assert {row.status for row in again.steps} == {StepStatus.WAITING}
        lab.fault = lambda _when, _what, _where: None
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert Counter(lab.effects_of("stop"))[first] == 1


def _refuse(when: str, what: str, where: str, node: str) -> None:
    if (when, what, where) == ("before", "host.backup", node):
        raise DriverError("no space left on the backup disk")


@settings(max_examples=60, deadline=None)
@given(subject=subjects, size=st.integers(1, 6), strategy=st.sampled_from([Strategy.IN_PLACE, Strategy.AUTO]))
def test_whatever_the_cluster_batches_are_proven(subject: Subject, size: int, strategy: Strategy) -> None:
    subject = replace(subject, node=None, batch_size=size, strategy=strategy)
    batches = make_batches(subject)
    names = [node.name for batch in batches for node in batch]
    assert sorted(names) == sorted(node.name for node in subject.taken)
    for batch in batches:
        assert len(batch) <= max(size, 1)
        assert len({node.zone for node in batch}) == 1
    if any(len(batch) > 1 for batch in batches):
        found = check_batches(replace(subject, budget=size), batches)
        assert [finding for finding in found if finding.severity is Severity.BLOCK] == []
