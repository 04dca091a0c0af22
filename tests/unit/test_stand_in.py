"""While dedicated masters change zones an extra one stands in: it joins first, votes, and is gone in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from shardlift.api.documents import check_document
from shardlift.cli.forecast import print_forecast
from shardlift.executor import Event
from shardlift.model import (
    EngineKind,
    InstanceType,
    Task,
    TaskStatus,
)
from shardlift.service.requests import MigrateRequest
from shardlift.sim import sim_image
from tests.unit.test_moves import assert_done
from tests.unit.test_surge import crashes_with_a_row_and_no_spare, spares_of
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
A, B, C, D = "zone-a", "zone-b", "zone-c", "zone-d"
SPARE_NAME = "lab-1-spare-master"


def spread(lab: Lab) -> MigrateRequest:
    return MigrateRequest(lab.cluster.id, A, f"{A},{B},{C}", "ess-master", migrate_type="multi_az_change")


def masters_of(lab: Lab) -> list[str]:
    return [node.name for node in lab.cluster.nodes if node.instance_type is InstanceType.MASTER]


def eligible(lab: Lab) -> list[str]:
    """Members that work and can be elected."""
    return [node.name for node in lab.world.nodes.values() if node.working and node.eligible]


def votes_at_stops(lab: Lab) -> Callable[[str, str, str], None]:
    """A fault that does nothing but look: whenever a master is stopped, three others can vote and all voters live."""

    def look(when: str, what: str, where: str) -> None:
        if (when, what) != ("before", "host.stop") or not lab.world.nodes[where].eligible:
            return
        others = [name for name in eligible(lab) if name != where]
        assert len(others) >= 3, (where, others)
        live = {lab.world.nodes[name].node_id for name in eligible(lab)}
        assert {*lab.world.voters} <= live
        if "-spare-" in where:
            assert lab.world.nodes[where].node_id not in lab.world.voters
            assert lab.world.elected != where
        else:
            assert SPARE_NAME in others

    return look


async def assert_gone(lab: Lab, task: Task) -> Task:
    done = await assert_done(lab, task)
    assert spares_of(lab) == []
    own = {node.node_id for node in lab.world.nodes.values() if node.eligible}
    assert {*lab.world.voters} == own
    assert lab.effects_of("create") == lab.effects_of("delete") == [SPARE_NAME]
    return done


async def test_it_joins_before_the_first_and_goes_after_the_last(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await lab.service.migrate(spread(lab))
        first, last = task.plan.nodes
        assert {first.name, last.name} < {*masters_of(lab)}, "one stays: as few as can be move"
        assert [(node.spare, node.spare_zone) for node in task.plan.nodes] == [(SPARE_NAME, first.to_zone)] * 2
        assert [node.raises_spare for node in task.plan.nodes] == [True, False]
        assert [node.empties_spare for node in task.plan.nodes] == [False, True]
        fewest: Counter[int] = Counter()
        zones: set[str] = set()

        def look(_event: Event) -> None:
            lab.world.write()
            fewest[len(eligible(lab))] += 1
            zones.update(lab.world.nodes[name].zone for name in spares_of(lab))

        lab.fault = votes_at_stops(lab)
        await lab.drive(look)
        await assert_gone(lab, task)
        assert min(fewest) == 3
        assert max(fewest) == 4
        assert zones == {first.to_zone}
        assert Counter(lab.world.nodes[name].zone for name in masters_of(lab)) == {A: 1, B: 1, C: 1}
        order = [(what, name) for what, name in lab.world.effects if what in {"create", "start", "stop", "delete"}]
        assert order == [
            ("create", SPARE_NAME),
            ("start", SPARE_NAME),
            ("stop", first.name),
            ("start", first.name),
            ("stop", last.name),
            ("start", last.name),
            ("stop", SPARE_NAME),
            ("delete", SPARE_NAME),
        ]
        assert lab.world.failed_writes == 0


async def test_from_one_zone_to_another_with_data_nodes(fast_home: Path) -> None:
    """Of all types: data nodes first and without it, then the masters, the elected one last."""
    async with open_lab(fast_home, zones=(A,), masters=(A, A, A)) as lab:
        task = await lab.service.migrate(MigrateRequest(lab.cluster.id, A, D))
        assert [node.spare for node in task.plan.nodes] == [None] * 3 + [SPARE_NAME] * 3
        assert [node.raises_spare for node in task.plan.nodes] == [False] * 3 + [True, False, False]
        lab.fault = votes_at_stops(lab)
        await lab.drive(lambda _event: lab.world.write())
        await assert_gone(lab, task)
        assert {node.zone for node in lab.world.nodes.values()} == {D}


async def test_it_is_shown(fast_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        report = await lab.service.check_move(spread(lab))
        assert report.plan is not None
        assert report.plan.stand_in is not None
        assert report.plan.stand_in.spare == SPARE_NAME
        assert report.forecast is not None
        assert report.forecast.copies == 0
        print_forecast(report.forecast, report.plan)
        assert f"{SPARE_NAME} in {report.plan.nodes[0].to_zone} is one master more" in capsys.readouterr().err
        planned = check_document(report)["plan"]
        assert isinstance(planned, dict)
        assert [(one["spare"], one["spare_zone"]) for (one,) in planned["batches"]] == [
            (SPARE_NAME, report.plan.nodes[0].to_zone)
        ] * 2
        assert spares_of(lab) == [], "a check makes nothing"
        task = await lab.service.migrate(spread(lab))

        def crash(event: Event) -> None:
            if event == Event("acted", task.total[0], 6):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        cluster = await lab.service.cluster(lab.cluster.id)
        shown = await lab.service.spares(cluster)
        assert [(one.name, one.zone, one.roles, one.instance_type) for one in shown] == [
            (SPARE_NAME, task.plan.nodes[0].to_zone, ("cluster_manager",), InstanceType.MASTER)
        ]
        assert (await lab.service.node_states(cluster, shown))[SPARE_NAME].answers
        assert (await lab.task(task)).plan == task.plan, "it is in the plan that is kept"


async def test_one_master_alone_has_it_too(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, B, C)) as lab:
        task = await lab.service.migrate(MigrateRequest(lab.cluster.id, A, D, "ess-master"))
        (only,) = task.plan.nodes
        assert (only.raises_spare, only.empties_spare, only.spare_zone) == (True, True, D)
        lab.fault = votes_at_stops(lab)
        await lab.drive(lambda _event: lab.world.write())
        await assert_gone(lab, task)
        assert lab.world.failed_writes == 0


async def test_a_move_of_data_nodes_has_none(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A, B), masters=(A, A, A)) as lab:
        task = await lab.service.migrate(MigrateRequest(lab.cluster.id, A, D, "ess"))
        assert task.plan.stand_in is None
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert lab.effects_of("create") == []


async def test_whatever_crashes_when_the_end_is_the_same(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await lab.service.migrate(spread(lab))
        met, crashes = await lab.crash_everywhere(task.id)
        assert crashes > 80
        assert {("before", "host.create", SPARE_NAME), ("after", "host.delete", SPARE_NAME)} <= met
        await lab.drive()
        await assert_gone(lab, task)
        assert lab.world.failed_writes == 0


async def test_the_row_comes_before_the_node(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        await lab.service.migrate(spread(lab))
        await crashes_with_a_row_and_no_spare(lab)


@pytest.mark.parametrize(("at", "order"), [(0, 0), (0, 4), (0, 9), (1, 0), (1, 5)])
async def test_an_abort_removes_it(fast_home: Path, at: int, order: int) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await lab.service.migrate(spread(lab))
        victim = task.total[at]

        def look(event: Event) -> None:
            lab.world.write()
            if event == Event("acted", victim, order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(look)
        assert spares_of(lab) == [SPARE_NAME]
        await lab.service.abort(task.id)
        lab.fault = votes_at_stops(lab)
        await lab.drive(lambda _event: lab.world.write())
        ended = await lab.task(task)
        half = at > 0 or order > 6
        assert ended.status is (TaskStatus.PARTIAL_FAILED if half else TaskStatus.FAILED), ended.fail_message
        await lab.clock.sleep(100)
        lab.world.advance()
        assert spares_of(lab) == []
        assert sorted(eligible(lab)) == sorted(masters_of(lab))
        assert {*lab.world.voters} == {lab.world.nodes[name].node_id for name in masters_of(lab)}
        assert (lab.world.persistent, lab.world.transient, lab.world.voting_excluded) == ({}, {}, set())


async def failed_at(lab: Lab, at: int) -> Task:
    """A move whose master of that number does not start again."""
    task = await lab.service.migrate(spread(lab))
    lab.world.nodes[task.total[at]].starts = False
    await lab.drive(lambda _event: lab.world.write())
    failed = await lab.task(task)
    assert failed.status is TaskStatus.FAILED
    assert SPARE_NAME in (failed.fail_message or "")
    assert spares_of(lab) == [SPARE_NAME], "three vote although one is away"
    assert len(eligible(lab)) == 3
    return failed


@pytest.mark.parametrize("at", [0, 1])
async def test_after_a_failure_it_stays_for_the_retry(fast_home: Path, at: int) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await failed_at(lab, at)
        assert await lab.service.leases.claimable() == (), "nothing is to be done until somebody says so"
        lab.world.mend()
        await lab.service.retry(task.id)
        lab.fault = votes_at_stops(lab)
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert spares_of(lab) == []
        assert lab.effects_of("create") == lab.effects_of("delete") == [SPARE_NAME]


async def test_given_up_it_stays_until_the_masters_are_back(fast_home: Path) -> None:
    """With one of three away its vote is one of three: the engine would go on with a single voter without it."""
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await failed_at(lab, 0)
        await lab.service.abort(task.id)
        await lab.drive()
        assert spares_of(lab) == [SPARE_NAME]
        assert len(lab.world.voters) == 3
        assert await lab.service.leases.claimable() == (lab.cluster.id,), "it is tried again"
        lab.world.mend()
        lab.world.start(lab.world.nodes[task.total[0]])
        await lab.clock.sleep(100)
        await lab.drive()
        assert spares_of(lab) == []
        assert await lab.service.leases.claimable() == ()
        assert lab.world.voting_excluded == set()


@pytest.mark.parametrize("order", [0, 3, 12])
async def test_one_that_dies_is_started_again_or_goes(fast_home: Path, order: int) -> None:
    """Before the second master stops it has to be there; once that is back, it may be gone."""
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await lab.service.migrate(spread(lab))
        second = task.total[1]

        def die(event: Event) -> None:
            lab.world.write()
            if event == Event("begun", second, order):
                lab.world.kill_node(SPARE_NAME)
            if event == Event("acted", second, 0):
                assert lab.world.nodes[SPARE_NAME].serving, "what is left of it in the list of members is not it"

        lab.fault = votes_at_stops(lab)
        await lab.drive(die)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert spares_of(lab) == []
        assert lab.effects_of("start").count(SPARE_NAME) == (1 if order == 12 else 2)
        assert lab.world.failed_writes == 0


async def test_elected_it_hands_over_before_it_goes(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await lab.service.migrate(spread(lab))
        elected: list[str | None] = []

        def choose(event: Event) -> None:
            lab.world.write()
            if event == Event("acted", task.total[1], 1):
                lab.world.elected = SPARE_NAME
            if event == Event("begun", task.total[1], 12):
                elected.append(lab.world.elected)

        lab.fault = votes_at_stops(lab)
        await lab.drive(choose)
        await assert_gone(lab, task)
        assert elected == [SPARE_NAME]
        assert lab.world.elected in masters_of(lab)
        assert lab.world.failed_writes == 0


async def test_one_that_an_earlier_move_has_left_elsewhere_is_made_anew(fast_home: Path) -> None:
    async with open_lab(fast_home, masters=(A, A, A)) as lab:
        task = await failed_at(lab, 0)
        lab.world.mend()
        lab.world.start(lab.world.nodes[task.total[0]])
        await lab.clock.sleep(100)
        again = await lab.service.migrate(MigrateRequest(lab.cluster.id, A, D, "ess-master"))
        zones: list[str] = []

        def look(_event: Event) -> None:
            lab.world.write()
            zones.extend(lab.world.nodes[name].zone for name in spares_of(lab))

        lab.fault = votes_at_stops(lab)
        await lab.drive(look)
        done = await lab.task(again)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert zones[-1] == D
        assert spares_of(lab) == []
        assert lab.effects_of("create") == lab.effects_of("delete") == [SPARE_NAME] * 2


async def test_elasticsearch_6_with_it(fast_home: Path) -> None:
    """Four masters of which three must vote: five, of which three must, while they move."""
    image = sim_image("6.8.23", EngineKind.ELASTICSEARCH)
    async with open_lab(fast_home, masters=(A,) * 4, runs=image, images=(image,)) as lab:
        lab.world.persistent["discovery.zen.minimum_master_nodes"] = "3"
        task = await lab.service.migrate(spread(lab))
        assert task.plan.stand_in is not None
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert spares_of(lab) == []
        assert lab.effects_of("create") == lab.effects_of("delete") == [SPARE_NAME]
        assert lab.world.failed_writes == 0


async def test_elasticsearch_6_without_it(fast_home: Path) -> None:
    image = sim_image("6.8.23", EngineKind.ELASTICSEARCH)
    async with open_lab(fast_home, masters=(A,) * 3, runs=image, images=(image,)) as lab:
        lab.world.persistent["discovery.zen.minimum_master_nodes"] = "2"
        task = await lab.service.migrate(spread(lab))
        assert task.plan.stand_in is None
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert lab.effects_of("create") == []
