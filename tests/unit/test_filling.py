"""`drain` empties a node by explicit moves: the node that was taken last is filled, and each copy moves once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shardlift.model import Task
from shardlift.sim import MIB, IndexSpec
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Crash, Lab, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
REBALANCE = "cluster.routing.rebalance.enable"


def all_bytes(lab: Lab) -> int:
    return sum(lab.world.indices[copy.index].copy_bytes for copy in lab.world.copies)


def with_sizes(lab: Lab, step_bytes: int) -> None:
    """Each index larger than the one before, on disks that hold all of it."""
    for number, index in enumerate(lab.world.indices.values(), start=1):
        index.copy_bytes = number * step_bytes
    lab.world.index_groups()
    for node in lab.world.nodes.values():
        node.disk_bytes = 10 * all_bytes(lab)


def in_the_walk(lab: Lab, task: Task) -> int:
    """Bytes copied before settings were put back and the engine balances again."""
    ends = [row.end for row in task.steps if row.end is not None]
    last_ms = int(max(ends).timestamp() * 1000)
    return sum(move.total_bytes for move in lab.world.recovered if move.started_at_ms <= last_ms)


@pytest.mark.parametrize(("nodes", "replicas"), [(3, 0), (3, 1), (4, 2), (6, 1)])
async def test_each_copy_moves_once_and_those_of_the_first_node_twice(
    fast_home: Path, nodes: int, replicas: int
) -> None:
    async with open_lab(fast_home, nodes=nodes, indices=4, shards=nodes, replicas=replicas) as lab:
        whole = all_bytes(lab)
        task = await lab.submit()
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        done = await lab.task(task)
        assert in_the_walk(lab, done) <= 1.05 * whole * (1 + 1 / nodes)
        # After it the last node is empty, and the engine gives it its share.
        assert done.bytes_moved <= 1.05 * whole * (1 + 2 / nodes)
        held = Counter(copy.node for copy in lab.world.copies)
        assert max(held.values()) - min(held[node.name] for node in lab.world.nodes.values()) <= 1


async def test_the_node_taken_last_is_filled(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=4, shards=4) as lab:
        task = await lab.submit()
        targets: dict[str, set[str]] = {}

        def look(when: str, what: str, _where: str) -> None:
            for move in lab.world.moves if (when, what) == ("after", "move") else ():
                assert move.copy.node is not None
                targets.setdefault(move.copy.node, set()).add(move.target)
                assert lab.world.setting(REBALANCE) == "none"

        lab.fault = look
        await lab.drive()
        await assert_whole(lab, task.id)
        first, *others = task.total
        assert len(targets[first]) > 1, "what leaves the first node is spread"
        for before, node in zip(task.total, others, strict=False):
            assert targets[node] == {before}


async def test_the_window_and_one_recovery_for_each_shard(fast_home: Path) -> None:
    async with open_lab(fast_home, indices=3, shards=4) as lab:
        with_sizes(lab, 1200 * MIB)
        task = await lab.submit()
        most, largest = 0, 0

        def look(when: str, what: str, _where: str) -> None:
            nonlocal most, largest
            if (when, what) != ("after", "move"):
                return
            groups = Counter(move.copy.group for move in lab.world.moves)
            assert set(groups.values()) <= {1}, "one recovery for each shard at a time"
            most = max(most, len(lab.world.moves))
            largest = max(largest, sum(move.total_bytes for move in lab.world.moves))

        lab.fault = look
        await lab.drive()
        await assert_whole(lab, task.id)
        # 8 GiB, and the one that is begun when there is room left.
        assert 2 <= most <= 8
        assert largest <= (8192 + 3600) * MIB


async def test_the_largest_go_first(fast_home: Path) -> None:
    async with open_lab(fast_home, indices=3, shards=5) as lab:
        with_sizes(lab, 900 * MIB)
        task = await lab.submit()
        await lab.drive()
        await assert_whole(lab, task.id)
        ended = (await lab.task(task)).steps_of(task.total[0])[0].end
        assert ended is not None
        moved = [move for move in lab.world.recovered if move.started_at_ms <= int(ended.timestamp() * 1000)]
        sizes = [move.total_bytes for move in sorted(moved, key=lambda move: (move.started_at_ms, -move.total_bytes))]
        assert len({move.started_at_ms for move in moved}) > 1
        assert sizes == sorted(sizes, reverse=True)


async def test_a_snapshot_is_not_disturbed(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        first = task.total[0]
        lab.world.snapshotting = {copy.group for copy in lab.world.copies_on(first) if copy.primary}
        assert lab.world.snapshotting
        held = set(lab.world.snapshotting)
        lab.world.at(120, lambda: lab.world.snapshotting.clear() or "the snapshot has ended")

        def look(when: str, what: str, _where: str) -> None:
            if (when, what) == ("after", "move") and lab.world.snapshotting:
                assert not held & {move.copy.group for move in lab.world.moves if move.copy.primary}

        lab.fault = look
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


async def test_an_index_made_meanwhile_leaves_by_the_exclusion(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.submit()
        made: list[str] = []

        def make(when: str, what: str, _where: str) -> None:
            if (when, what) == ("after", "move") and not made:
                made.append("late")
                lab.world.create_index(IndexSpec("late", 6, 1, MIB, {}))

        lab.fault = make
        await lab.drive(lambda _event: lab.world.write())
        assert made
        await assert_whole(lab, task.id)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_at_any_move(fast_home: Path, when: str) -> None:
    async with open_lab(fast_home, indices=3, shards=3) as lab:
        whole = all_bytes(lab)
        task = await lab.submit()
        met: set[int] = set()
        calls = 0

        def crash(moment: str, what: str, _where: str) -> None:
            nonlocal calls
            if (moment, what) == (when, "move"):
                calls += 1
                if calls not in met and len(met) < 12:
                    met.add(calls)
                    raise Crash

        lab.fault = crash
        for _ in range(40):
            try:
                await lab.drive(lambda _event: lab.world.write())
                break
            except Crash:
                continue
        assert met
        await assert_whole(lab, task.id)
        assert in_the_walk(lab, await lab.task(task)) <= 1.05 * whole * (1 + 1 / 3), "nothing moves twice for a crash"


async def test_replicas_of_segment_replication_go_before_primaries(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=4, indices=3, shards=4) as lab:
        for name in lab.world.indices:
            lab.world.put_index_setting(name, "index.replication.type", "SEGMENT")
        task = await lab.submit()
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
