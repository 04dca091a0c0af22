"""The strategy surge: a spare joins first, everything moves once, and in the end the spare is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shardlift.errors import RefusedError
from shardlift.executor import Event
from shardlift.model import Strategy, Task, TaskStatus
from shardlift.service.requests import UpgradeRequest
from shardlift.sim import MIB, IndexSpec
from shardlift.store import Journal
from shardlift.store.leases import SPARE
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import NEW, Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True


def copied_bytes(lab: Lab) -> int:
    return sum(move.total_bytes for move in lab.world.recovered)


def data_bytes(lab: Lab) -> int:
    return sum(lab.world.indices[copy.index].copy_bytes for copy in lab.world.copies)


def spares_of(lab: Lab) -> list[str]:
    return [name for name in lab.world.nodes if "-spare-" in name]


async def failed_at_the_second(lab: Lab) -> tuple[Task, str]:
    """A task whose second node does not start; it and the node's name."""
    task = await lab.submit(Strategy.SURGE)
    second = task.plan.nodes[1].name
    lab.world.nodes[second].starts = False
    await lab.drive(lambda _event: lab.world.write())
    return task, second


async def mended(lab: Lab, node: str) -> None:
    """Somebody mends the cluster, and starts the node."""
    lab.world.mend()
    lab.world.start(lab.world.nodes[node])
    await lab.clock.sleep(100)


async def crashes_with_a_row_and_no_spare(lab: Lab) -> None:
    """Right before the spare is made: the ledger has it already, and nothing of it is there."""

    def crash(when: str, what: str, _where: str) -> None:
        if (when, what) == ("before", "host.create"):
            raise Crash

    lab.fault = crash
    with pytest.raises(Crash):
        await lab.drive()
    lease = await lab.service.leases.claim(lab.cluster.id)
    assert lease is not None
    kinds = [change.kind for change in await Journal(lab.service.store.database, lease).open_changes()]
    assert kinds.count(SPARE) == 1
    assert spares_of(lab) == []


async def assert_as_before(lab: Lab, task: Task) -> None:
    """The cluster is whole, has exactly its old nodes, and every one of them holds something."""
    await assert_whole(lab, task.id)
    own = [node.name for node in lab.cluster.nodes]
    assert list(lab.world.nodes) == own
    assert {copy.node for copy in lab.world.copies} == set(own)
    assert lab.effects_of("create") == lab.effects_of("delete")


async def test_every_copy_moves_once(fast_home: Path) -> None:
    async with open_lab(fast_home, indices=3, shards=4) as lab:
        task = await lab.submit(Strategy.SURGE)
        last = task.plan.nodes[-1]
        assert all(node.drained and node.fresh_data and node.spare == last.spare for node in task.plan.nodes)
        assert [node.takes_over for node in task.plan.nodes] == [False, False, True]
        await lab.drive(lambda _event: lab.world.write())
        await assert_as_before(lab, task)
        assert lab.effects_of("create") == [last.spare]
        assert lab.effects_of("hand over") == [last.name]
        assert copied_bytes(lab) <= 1.02 * data_bytes(lab), "what the spare holds is handed over, not copied"
        assert copied_bytes(lab) >= data_bytes(lab)
        assert lab.world.failed_writes == 0


async def test_the_dry_run_tells_the_bytes(fast_home: Path) -> None:
    async with open_lab(fast_home, indices=3, shards=4) as lab:
        request = UpgradeRequest(cluster_id=lab.cluster.id, image=NEW.id, strategy=Strategy.SURGE)
        report = await lab.service.check(request)
        assert report.forecast is not None
        assert report.plan is not None
        assert report.forecast.size_bytes == data_bytes(lab)
        first = report.forecast.nodes[0]
        assert [target.node for target in first.targets] == [report.plan.nodes[0].spare]
        assert spares_of(lab) == [], "a check makes nothing"


async def test_without_replicas_the_copies_move_home(fast_home: Path) -> None:
    """Each copy on the spare is the only one, so the spare may not be stopped with any."""
    async with open_lab(fast_home, replicas=0, shards=6) as lab:
        task = await lab.submit(Strategy.SURGE)
        assert [(node.takes_over, node.empties_spare) for node in task.plan.nodes] == [(False, False)] * 2 + [
            (False, True)
        ]
        await lab.drive(lambda _event: lab.world.write())
        await assert_as_before(lab, task)
        assert lab.effects_of("hand over") == []
        assert lab.world.failed_writes == 0
        assert copied_bytes(lab) <= data_bytes(lab) * (1 + 1 / 3) + 100 * MIB


async def test_two_data_nodes_are_enough(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=2) as lab:
        with pytest.raises(RefusedError):
            await lab.submit(Strategy.DRAIN)
        task = await lab.submit(Strategy.SURGE)
        voted: set[int] = set()

        def look(_event: Event) -> None:
            lab.world.write()
            voted.add(len(lab.world.voters))

        await lab.drive(look)
        await assert_as_before(lab, task)
        assert lab.world.failed_writes == 0
        assert max(voted) == 3, "the spare votes: of two, none could stop"
        assert len(lab.world.voters) == 1


async def test_with_awareness_each_zone_has_its_spare(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=("zone-a", "zone-b", "zone-c"), replicas=2) as lab:
        lab.world.put_cluster_setting("persistent", "cluster.routing.allocation.awareness.attributes", "zone")
        task = await lab.submit(Strategy.SURGE)
        assert len({node.spare for node in task.plan.nodes}) == 3
        assert all(node.takes_over for node in task.plan.nodes)
        await lab.drive(lambda _event: lab.world.write())
        lab.world.put_cluster_setting("persistent", "cluster.routing.allocation.awareness.attributes", None)
        await assert_as_before(lab, task)
        assert copied_bytes(lab) <= 1.02 * data_bytes(lab)


async def test_what_is_made_meanwhile_without_a_replica_is_kept(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.SURGE)
        last = task.plan.nodes[-1]

        def on_the_spare(event: Event) -> None:
            lab.world.write()
            if event == Event("journaled", last.name, 6):
                lab.world.create_index(
                    IndexSpec("late", 2, 0, MIB, {"index.routing.allocation.include._name": f"{last.spare},*-1"})
                )

        await lab.drive(on_the_spare)
        await assert_as_before(lab, task)
        assert all(copy.node is not None for copy in lab.world.copies)


@pytest.mark.parametrize("order", [0, 5])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_an_abort_empties_and_removes_the_spare(fast_home: Path, at: int, order: int) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.SURGE)
        victim = task.plan.nodes[at].name

        def look(event: Event) -> None:
            lab.world.write()
            if event == Event("acted", victim, order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(look)
        assert spares_of(lab) != []
        await lab.service.abort(task.id)
        await lab.drive(lambda _event: lab.world.write())
        ended = await lab.task(task)
        assert ended.status is (TaskStatus.PARTIAL_FAILED if at else TaskStatus.FAILED), ended.fail_message
        await lab.clock.sleep(100)
        lab.world.advance()
        assert spares_of(lab) == []
        assert lab.world.lost() == {}
        assert all(copy.node is not None for copy in lab.world.copies if copy.primary)
        assert (lab.world.persistent, lab.world.transient, lab.world.voting_excluded) == ({}, {}, set())


async def test_after_a_failure_the_spare_waits_for_the_retry(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task, _ = await failed_at_the_second(lab)
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        assert "spare" in (failed.fail_message or "")
        assert len(spares_of(lab)) == 1
        assert await lab.service.leases.claimable() == (), "nothing is to be done until somebody says so"
        cluster = await lab.service.cluster(lab.cluster.id)
        spares = await lab.service.spares(cluster)
        states = await lab.service.node_states(cluster, spares)
        shown = [(spare.name, states[spare.name].answers) for spare in spares]
        assert shown == [(task.plan.nodes[0].spare, True)], "people are shown what else runs"
        lab.world.mend()
        await lab.service.retry(task.id)
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert spares_of(lab) == []
        assert await lab.service.spares(cluster) == ()
        assert lab.effects_of("create") == lab.effects_of("delete") == [task.plan.nodes[0].spare]
        assert lab.world.lost() == {}


async def test_a_failed_task_that_is_given_up_loses_its_spare(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task, second = await failed_at_the_second(lab)
        await mended(lab, second)
        await lab.service.abort(task.id)
        assert await lab.service.leases.claimable() == (lab.cluster.id,)
        await lab.drive()
        assert spares_of(lab) == []
        assert lab.world.lost() == {}
        assert await lab.service.leases.claimable() == ()


async def test_a_spare_with_copies_stays_while_a_node_is_away(fast_home: Path) -> None:
    """Some of its copies may go to no older node, and the one newer node has them already: it goes with all there."""
    async with open_lab(fast_home) as lab:
        task, second = await failed_at_the_second(lab)
        (spare,) = spares_of(lab)
        await lab.service.abort(task.id)

        async def person() -> None:
            await lab.clock.sleep(60)
            lab.world.advance()
            assert lab.world.copies_on(spare)
            assert spare not in lab.effects_of("stop")
            lab.world.mend()
            lab.world.start(lab.world.nodes[second])

        helping = asyncio.create_task(person())
        await lab.drive()
        await helping
        await lab.clock.sleep(100)
        lab.world.advance()
        await lab.drive()
        assert spares_of(lab) == []
        assert lab.world.lost() == {}


async def test_a_new_task_finds_the_spare_of_a_failed_one(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task, second = await failed_at_the_second(lab)
        await mended(lab, second)
        again = await lab.submit(Strategy.SURGE)
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(again)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert spares_of(lab) == []
        assert lab.effects_of("create") == lab.effects_of("delete") == [task.plan.nodes[0].spare]
        assert lab.world.lost() == {}


async def test_a_spare_that_dies_with_what_is_missing_is_started_again(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0, shards=6) as lab:
        task, second = await failed_at_the_second(lab)
        await mended(lab, second)
        lab.world.kill_node(spares_of(lab)[0])
        await lab.service.abort(task.id)
        await lab.drive()
        assert spares_of(lab) == []
        assert lab.world.lost() == {}
        assert all(copy.node is not None for copy in lab.world.copies)


async def test_the_row_of_a_spare_comes_before_the_spare(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        await lab.submit(Strategy.SURGE)
        await crashes_with_a_row_and_no_spare(lab)
