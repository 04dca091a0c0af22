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

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
ZONES = ("zone-a", "zone-b", "zone-c")
SIX = {"nodes": 6, "zones": ZONES, "data_only": 3}
PLAIN = {"nodes": 6, "zones": ZONES}


def zone_of(lab: Lab, name: str) -> str:
    return lab.cluster.node(name).zone


@pytest.mark.parametrize("shape", [SIX, PLAIN], ids=["half data only", "plain"])
@pytest.mark.parametrize("strategy", [Strategy.IN_PLACE, Strategy.AUTO])
async def test_a_zone_takes_the_time_of_one_boot(fast_home: Path, strategy: Strategy, shape: dict[str, object]) -> None:
    async with open_lab(fast_home, **shape) as lab:
        task = await lab.submit(strategy, batch_size=2)
        assert [len(batch) for batch in task.plan.batches] == [2, 2, 2]
        for batch in task.plan.batches:
            assert len({zone_of(lab, node.name) for node in batch}) == 1
        first_elected = lab.world.elected
        assert task.total[-1] == first_elected
        away: dict[int, int] = defaultdict(int)
        elected = []

        def note(_event: Event) -> None:
            lab.world.write()
            away[sum(node.pid is None for node in lab.world.nodes.values())] += 1
            elected.append(lab.world.elected)

        await lab.drive(note)
        await assert_whole(lab, task.id)
        assert max(away) == 2
        assert lab.effects_of("set aside") == []
        changes = [name for name, before in zip(elected[1:], elected, strict=False) if name not in {None, before}]
        assert len({*changes} - {first_elected}) == 1, "mastership has moved once"
        assert len(lab.world.voters) == (3 if shape is SIX else 5)


async def test_the_master_and_its_mate_go_together_and_the_new_one_is_neither(fast_home: Path) -> None:
    """The mate is the first candidate: only its exclusion keeps it from being elected."""
    async with open_lab(fast_home, **PLAIN) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        mate, old = (node.name for node in task.plan.batches[-1])
        assert old == lab.world.elected
        order = list(lab.world.nodes)
        lab.world.nodes = {name: lab.world.nodes[name] for name in sorted(order, key=lambda name: name != mate)}
        excluded, stopped = [], []

        def note(when: str, what: str, where: str) -> None:
            if (when, what) == ("after", "exclude_from_voting"):
                excluded.append(where)
            if (when, what) == ("before", "host.stop") and where in {mate, old}:
                stopped.append(
                    (lab.world.elected, set(lab.world.voting_excluded), lab.world.quorum_without({mate, old}))
                )

        lab.fault = note
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert excluded == [mate, old], "the master last, so that it steps down once"
        assert len(stopped) == 2
        for elected, still_excluded, quorum in stopped:
            assert elected not in {mate, old}
            assert (still_excluded, quorum) == (set(), True)
        assert lab.world.elected not in {mate, old}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("what", ["exclude mate", "exclude master", "clear"])
@pytest.mark.parametrize("then", ["goes on", "aborted"])
async def test_a_crash_in_the_middle_of_a_handover_leaves_no_exclusion(
    fast_home: Path, when: str, what: str, then: str
) -> None:
    async with open_lab(fast_home, **PLAIN) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        mate, old = (node.name for node in task.plan.batches[-1])
        calls = {"exclude mate": mate, "exclude master": old, "clear": ""}
        crashed = []

        def crash(now: str, call: str, where: str) -> None:
            mine = call == ("clear_voting_exclusions" if what == "clear" else "exclude_from_voting")
            if not crashed and now == when and mine and where == calls[what]:
                crashed.append(set(lab.world.voting_excluded))
                raise Crash

        lab.fault = crash
        with pytest.raises(Crash):
            await lab.drive(lambda _event: lab.world.write())
        (left,) = crashed
        assert left <= {mate, old}
        assert bool(left) is ((when, what) not in {("before", "exclude mate"), ("after", "clear")})
        if then == "aborted":
            await lab.service.abort(task.id)
        await lab.drive(lambda _event: lab.world.write())
        assert lab.world.voting_excluded == set()
        assert len(lab.world.voters) == 5
        if then == "aborted":
            assert (await lab.task(task)).status is TaskStatus.PARTIAL_FAILED
            assert all(node.up for node in lab.world.nodes.values())
        else:
            await assert_whole(lab, task.id)


async def test_votes_that_went_since_the_safety_check_keep_the_batch_up(fast_home: Path) -> None:
    """All others are there and answer; but while some were away the engine has given the vote to fewer."""
    async with open_lab(fast_home, **PLAIN) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        batch = [node.name for node in task.plan.batches[0]]

        def shrink(event: Event) -> None:
            if (event.what, event.node, event.order) == ("begun", batch[0], 6):
                others = [node for node in lab.world.nodes.values() if node.name not in batch]
                lab.world.voters = (*(lab.world.nodes[name].node_id for name in batch), others[0].node_id)

        await lab.drive(shrink)
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        assert "could not elect a master (3 nodes vote, 1 voters would stay)" in (failed.fail_message or "")
        assert lab.effects_of("stop") == []


async def test_while_the_configuration_does_not_shrink_masters_go_one_by_one(fast_home: Path) -> None:
    async with open_lab(fast_home, **PLAIN) as lab:
        lab.world.persistent["cluster.auto_shrink_voting_configuration"] = "false"
        task = await lab.submit(Strategy.IN_PLACE, batch_size=2)
        assert [len(batch) for batch in task.plan.batches] == [1] * 6


async def test_a_drain_takes_one_node_at_a_time(fast_home: Path) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.DRAIN, batch_size=2)
        assert [len(batch) for batch in task.plan.batches] == [1] * 6


async def test_at_most_half_of_the_data_nodes_and_fewer_than_half_of_the_votes(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=("zone-a",), data_only=3, indices=1, shards=1) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=50)
        assert max(len(batch) for batch in task.plan.batches) <= 3
    other = fast_home / "all"
    other.mkdir()
    async with open_lab(other, nodes=6, zones=("zone-a",), indices=1, shards=1) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=3)
        sizes = [len(batch) for batch in task.plan.batches]
        assert max(sizes) == 2, "each of them can be elected, and of three votes of five none may be missing more"
    third = fast_home / "three"
    third.mkdir()
    async with open_lab(third, nodes=4, zones=("zone-a",), indices=1, shards=1) as lab:
        task = await lab.submit(Strategy.IN_PLACE, batch_size=3)
        assert [len(batch) for batch in task.plan.batches] == [1] * 4, "two of three votes are no minority"


async def test_the_canary_goes_alone(fast_home: Path) -> None:
    async with open_lab(fast_home, **SIX) as lab:
        task = await lab.submit(Strategy.AUTO, batch_size=2, policy=Policy(canary=True))
        assert len(task.plan.batches[0]) == 1
        assert task.plan.batches[0][0].canary
        assert max(len(batch) for batch in task.plan.batches) == 2


@pytest.mark.parametrize("order", [0, 1, 4, 5, 6, 7, 10, 11, 12])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("shape", [SIX, PLAIN], ids=["half data only", "plain"])
async def test_a_crash_in_the_middle_of_a_batch(
    fast_home: Path, order: int, which: int, shape: dict[str, object]
) -> None:
    async with open_lab(fast_home, **shape) as lab:
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


@pytest.mark.parametrize("shape", [SIX, PLAIN], ids=["half data only", "plain"])
async def test_one_of_a_batch_does_not_start(fast_home: Path, shape: dict[str, object]) -> None:
    async with open_lab(fast_home, **shape) as lab:
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


@settings(max_examples=60)
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
