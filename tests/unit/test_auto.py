"""The strategy auto: only copies that are started nowhere else leave a node, and it keeps its data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shardlift.model import Strategy, TaskStatus
from shardlift.sim import MIB, IndexSpec
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import Lab, open_lab

VIRTUAL_TIME = True
ALONE = 50 * MIB


async def with_one_alone(lab: Lab, **settings: str) -> None:
    """Two shards more, of one copy each."""
    lab.world.create_index(IndexSpec("alone", 2, 0, ALONE, settings))
    await lab.clock.sleep(30)


def moved_bytes(lab: Lab) -> Counter[str]:
    moved: Counter[str] = Counter()
    for move in lab.world.recovered:
        moved[move.copy.index] += move.total_bytes
    return moved


async def test_only_copies_without_a_twin_are_moved(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        await with_one_alone(lab)
        task = await lab.submit(Strategy.AUTO)
        assert [(node.drained, node.rescued, node.fresh_data) for node in task.plan.nodes] == [(False, True, False)] * 3
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert lab.effects_of("set aside") == []
        moved = moved_bytes(lab)
        # Each of the two copies leaves its node once, the first one perhaps twice: then to a node that is not old.
        assert 2 * ALONE <= moved["alone"] <= 3 * ALONE
        assert moved["index-0"] + moved["index-1"] < MIB, "replicas catch up from their own disk"


async def test_what_may_go_nowhere_is_told(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        await with_one_alone(lab)
        task = await lab.submit(Strategy.AUTO)
        held = next(copy.node for copy in lab.world.copies if copy.index == "alone")
        assert held is not None
        lab.world.put_index_setting("alone", "index.routing.allocation.require._name", held)
        await lab.drive()
        failed = await lab.task(task)
        assert failed.status is TaskStatus.FAILED
        row = next(row for row in failed.steps if row.node == held and row.order == 0)
        assert [finding["rule"] for finding in row.evidence["findings"]] == ["drain_can_end"]
        assert "index.routing.allocation.require._name" in str(row.evidence["remedy"])
        assert (lab.world.persistent, lab.world.transient) == ({}, {})
        lab.world.put_index_setting("alone", "index.routing.allocation.require._name", None)
        await lab.service.retry(task.id)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)


@pytest.mark.parametrize("segment", [False, True])
async def test_without_any_replica_nothing_is_lost(fast_home: Path, segment: bool) -> None:
    async with open_lab(fast_home, replicas=0, shards=5) as lab:
        if segment:
            lab.world.put_index_setting("index-0", "index.replication.type", "SEGMENT")
        task = await lab.submit(Strategy.AUTO)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert lab.world.failed_writes == 0, "a copy moves while it serves"
