"""What goes wrong on the way, on the simulated world: named stops with evidence, retry, abort, settings put back."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from shardlift.errors import BusyError, DriverError, FencedError, RefusedError, UsageError
from shardlift.executor import Event
from shardlift.model import CopyState, StepStatus, Strategy, TaskStatus
from shardlift.service.requests import UpgradeRequest
from shardlift.store import Journal, Leases, StoreError
from tests.unit.test_upgrade_walk import BOTH, assert_whole
from tests.worlds import NEW, OLD, Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True


def settings_of(lab: Lab) -> tuple[dict[str, str], dict[str, str], set[str]]:
    return lab.world.persistent, lab.world.transient, lab.world.voting_excluded


@BOTH
async def test_engine_that_does_not_start_then_retry(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)
        second = lab.world.nodes[task.total[1]]
        second.starts = False
        await lab.drive()
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        row = failed.steps_of(second.name)[10]
        assert row.status is StepStatus.FAILED
        assert "ended before it answered" in row.desc
        assert "retry" in row.desc, "the remedy stands in desc"
        assert row.evidence["log"] == ["Unrecognized VM option 'Nonsense'"]
        assert failed.current == (second.name,)
        assert "sub-step 10 (Node start)" in (failed.fail_message or "")
        assert settings_of(lab) == ({}, {}, set()), "settings are back although the task failed"
        second.starts = True
        assert (await lab.service.retry(task.id)).execute_times == 2
        again = await lab.service.retry(task.id)
        assert again.execute_times == 2, "sent twice, it is done once"
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert lab.effects_of("stop").count(second.name) == 1, "what was done is not done again"
        assert lab.world.lost() == {}


async def test_failure_is_completed_after_a_crash_in_the_middle_of_it(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        lab.world.nodes[task.total[0]].starts = False

        def crash(when: str, what: str, _where: str) -> None:
            if (when, what) == ("before", "put_setting") and lab.effects_of("start"):
                raise Crash

        lab.fault = crash
        with pytest.raises(Crash):
            await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.RUNNING
        lab.fault = lambda *_point: None
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert settings_of(lab) == ({}, {}, set())
        assert lab.effects_of("start").count(task.total[0]) == 1


async def test_another_node_dies_meanwhile(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit(Strategy.IN_PLACE)
        first, other = task.total[0], task.total[1]

        def kill(event: Event) -> None:
            if event == Event("acted", first, 10):
                lab.world.stop(lab.world.nodes[other])

        await lab.drive(kill)
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        row = failed.steps_of(first)[11]
        assert (row.status, row.evidence["missing"]) == (StepStatus.FAILED, [other])
        lab.world.start(lab.world.nodes[other])
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole_but_effects(lab, task.id)


async def assert_whole_but_effects(lab: Lab, task_id: str) -> None:
    task = await lab.service.task(task_id)
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    assert lab.versions() == {"3.4.0"}
    assert settings_of(lab) == ({}, {}, set())
    assert lab.world.lost() == {}


async def test_drain_that_cannot_end_fails_with_the_decider(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        task = await lab.submit()
        first = task.total[0]
        pinned = next(copy for copy in lab.world.copies if copy.node == first)
        key = "index.routing.allocation.require._name"
        lab.world.indices[pinned.index].settings[key] = first
        await lab.drive()
        failed = await lab.task(task)
        row = failed.steps_of(first)[0]
        assert (failed.status, row.status) == (TaskStatus.FAILED, StepStatus.FAILED)
        assert "filter" in row.desc
        assert f"{pinned.index}[{pinned.shard}]" in row.desc
        assert lab.effects_of("stop") == [], "nothing was stopped"
        del lab.world.indices[pinned.index].settings[key]
        await lab.service.retry(task.id)
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_retry_drains_again_what_came_back_meanwhile(fast_home: Path) -> None:
    """A failure before the stop takes the exclusion back; then shards may return, and must leave again."""
    async with open_lab(fast_home, replicas=0) as lab:
        task = await lab.submit()
        first = task.total[0]

        def upset(event: Event) -> None:
            if event == Event("begun", first, 1):
                lab.world.voting_excluded.add("somebody")

        await lab.drive(upset)
        failed = await lab.task(task)
        assert failed.steps_of(first)[1].status is StepStatus.FAILED
        assert "voting_exclusions_clean" in failed.steps_of(first)[1].desc
        returned = next(copy for copy in lab.world.copies if copy.node != first)
        lab.world.routing.put(returned, CopyState.STARTED, first)
        lab.world.nodes[first].disk[returned.group] = returned.documents
        lab.world.voting_excluded.clear()
        await lab.service.retry(task.id)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


@BOTH
@pytest.mark.parametrize(("node", "order", "done"), [(0, 3, 0), (0, 8, 1), (1, 0, 1), (1, 11, 2)])
async def test_abort(fast_home: Path, strategy: Strategy, node: int, order: int, done: int) -> None:
    """Before its shutdown a node is left as it was; after it, it is finished first."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)

        async def drive_and_abort() -> None:
            wanted = asyncio.Event()
            gate = asyncio.create_task(abort_when(wanted))
            await lab.drive(lambda e: wanted.set() if e == Event("begun", task.total[node], order) else None)
            await gate

        async def abort_when(wanted: asyncio.Event) -> None:
            await wanted.wait()
            await lab.service.abort(task.id)

        await drive_and_abort()
        ended = await lab.task(task)
        if ended.status is not TaskStatus.SUCCESS:
            assert ended.status is (TaskStatus.PARTIAL_FAILED if ended.completed else TaskStatus.FAILED)
            assert "ended on request" in (ended.fail_message or "")
        assert len(ended.completed) >= done
        assert all(one.up for one in lab.world.nodes.values()), "no node is left down"
        assert settings_of(lab) == ({}, {}, set())
        assert lab.world.lost() == {}
        with pytest.raises(RefusedError):
            await lab.service.retry(task.id)


async def test_abort_of_a_failed_task_gives_it_up(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        lab.world.nodes[task.total[1]].starts = False
        await lab.drive()
        aborted = await lab.service.abort(task.id)
        assert aborted.status is TaskStatus.PARTIAL_FAILED
        assert (await lab.service.abort(task.id)).status is TaskStatus.PARTIAL_FAILED, "sent twice, it is done once"
        with pytest.raises(RefusedError):
            await lab.service.retry(task.id)
        # What is left can be upgraded by a new task once the node is back.
        node = lab.world.nodes[task.total[1]]
        node.starts = True
        lab.world.start(node)
        await lab.clock.sleep(60)
        rest = await lab.submit()
        assert set(rest.total) == set(task.total[1:])
        await lab.drive()
        assert lab.versions() == {"3.4.0"}


async def test_settings_of_others_stay(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        rebalance, exclude = "cluster.routing.rebalance.enable", "cluster.routing.allocation.exclude._id"
        lab.world.transient[rebalance] = "replicas"
        lab.world.persistent[exclude] = "gone-node"
        lab.world.persistent["indices.recovery.max_bytes_per_sec"] = "80mb"
        task = await lab.submit()
        seen: list[str] = []
        await lab.drive(lambda _event: seen.append(lab.world.persistent.get(exclude, "")))
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert lab.world.transient == {rebalance: "replicas"}
        assert lab.world.persistent == {exclude: "gone-node", "indices.recovery.max_bytes_per_sec": "80mb"}
        assert all(value.split(",")[0] == "gone-node" for value in seen)
        assert any(value.count(",") == 1 for value in seen), "our token stood beside theirs"


async def test_setting_changed_by_somebody_else_is_left_and_told(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        rebalance = "cluster.routing.rebalance.enable"
        task = await lab.submit()

        def change(event: Event) -> None:
            if event == Event("begun", task.total[2], 12):
                lab.world.persistent[rebalance] = "primaries"

        await lab.drive(change)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert lab.world.persistent == {rebalance: "primaries"}
        assert "changed" in (done.fail_message or "")


async def test_one_task_a_cluster(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        await lab.submit()
        with pytest.raises(BusyError):
            await lab.submit()
        with pytest.raises(BusyError):
            await lab.service.delete_cluster(lab.cluster.id)


async def test_two_submits_at_once_make_one_task(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        results = await asyncio.gather(*(lab.submit() for _ in range(5)), return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 1
        assert all(isinstance(result, BusyError) for result in results if isinstance(result, BaseException))
        assert (await lab.service.tasks(lab.cluster.id)).total == 1


async def test_refusals_change_nothing(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        with pytest.raises(RefusedError) as refused:
            await lab.submit(Strategy.IN_PLACE)
        assert {finding.rule for finding in refused.value.findings} == {"last_started_copy"}
        assert all(finding.remedy and finding.evidence for finding in refused.value.findings)
        with pytest.raises(RefusedError) as refused:
            await lab.service.upgrade(UpgradeRequest(lab.cluster.id, OLD.id))
        assert "target_differs" in {finding.rule for finding in refused.value.findings}
        with pytest.raises(UsageError, match="cross"):
            await lab.service.upgrade(UpgradeRequest(lab.cluster.id, NEW.id, upgrade_type="same"))
        lab.world.stop(list(lab.world.nodes.values())[-1])
        with pytest.raises(RefusedError) as refused:
            await lab.submit()
        assert "cluster_healthy" in {finding.rule for finding in refused.value.findings}
        assert (await lab.service.tasks(lab.cluster.id)).total == 0
        assert lab.world.effects == []
        assert settings_of(lab) == ({}, {}, set())


async def test_stale_owner_is_fenced(fast_home: Path) -> None:
    """A process that lost its lease writes nothing more to the journal, and has no further effect."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        old = await lab.service.leases.claim(lab.cluster.id)
        assert old is not None
        others = Leases(lab.service.store.database, lab.clock, "other", 100_000)
        assert await others.claim(lab.cluster.id) is None, "held leases are not given away"
        await lab.service.leases.reap("test:")
        new = await others.claim(lab.cluster.id)
        assert new is not None
        assert new.epoch == old.epoch + 1
        before = await lab.task(task)
        with pytest.raises(FencedError):
            await Journal(lab.service.store.database, old).begin_step(task.id, task.total[0], 0, lab.clock.now())
        assert await lab.task(task) == before
        with pytest.raises(FencedError):
            old.check()
        await lab.service.leases.renew(old)
        assert old.lost


async def test_lease_is_given_up_by_its_own_clock(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        leases = Leases(lab.service.store.database, lab.clock, "me", 800)
        lease = await leases.claim(lab.cluster.id)
        assert lease is not None
        lease.check()
        await lab.clock.sleep(620)
        with pytest.raises(FencedError):
            lease.check()


async def test_full_disk_stops_and_goes_on(fast_home: Path) -> None:
    """The database refuses writes for a while, as on a full disk: the journal stays whole and the task goes on."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        refuse = {"on": False}

        def fill(event: Event) -> None:
            if event == Event("begun", task.total[1], 3):
                refuse["on"] = True

        real = lab.service.store.database.write

        def write_or_full():
            if refuse["on"]:
                raise StoreError("the database refused: database or disk is full", remedy="free space")
            return real()

        lab.service.store.database.write = write_or_full  # type: ignore[method-assign]
        await lab.drive(fill)
        assert (await lab.task(task)).status is TaskStatus.RUNNING
        refuse["on"] = False
        await lab.service.leases.reap("test:")
        await lab.drive()
        await assert_whole(lab, task.id)


async def test_locked_and_full_database_tell_it_and_lose_nothing(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        path = lab.service.settings.database_path
        # A real foreign lock on the file: longer than the busy time-out allows.
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as refused:
            await lab.service.abort(task.id)
        assert refused.value.remedy
        blocker.execute("ROLLBACK")
        blocker.close()
        assert not (await lab.task(task)).aborting
        await lab.drive()
        await assert_whole(lab, task.id)
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@BOTH
async def test_abort_after_a_crash_in_the_shutdown_leaves_no_node_down(fast_home: Path, strategy: Strategy) -> None:
    """The node is down although its shutdown is not journaled: it is finished before the task ends."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit(strategy)
        first = task.total[0]

        def crash(event: Event) -> None:
            if event == Event("acted", first, 6):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        assert not lab.world.nodes[first].up
        await lab.service.abort(task.id)
        await lab.drive()
        ended = await lab.task(task)
        assert (ended.status, ended.completed) == (TaskStatus.PARTIAL_FAILED, (first,))
        assert all(node.up for node in lab.world.nodes.values())
        assert settings_of(lab) == ({}, {}, set())


async def test_a_task_that_cannot_even_begin_tells_at_which_node(fast_home: Path) -> None:
    """Clients read the node of a FAILED task, and the beginning of the sub-step that failed."""
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        driver = lab.service.backend.driver("sim")
        prepare = driver.prepare

        async def full(_image: object) -> None:
            raise DriverError("no space left for the image")

        driver.prepare = full  # type: ignore[method-assign]
        await lab.drive()
        failed = await lab.task(task)
        assert (failed.status, failed.current) == (TaskStatus.FAILED, failed.total[:1])
        row = next(row for row in failed.steps if row.status is StepStatus.FAILED)
        assert (row.node, row.order, row.attempts) == (failed.total[0], 0, 1)
        assert row.begin is not None
        driver.prepare = prepare  # type: ignore[method-assign]
        await lab.service.retry(task.id)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
