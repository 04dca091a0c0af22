"""In place: a node is not stopped before the engine would send its copies operations when it is back, and not files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.engine import calls, parse
from shardlift.model import RetainedCopy, Strategy
from shardlift.sim import MIB
from tests.unit.test_auto import moved_bytes
from tests.unit.test_upgrade_walk import assert_whole
from tests.worlds import open_lab

VIRTUAL_TIME = True
IN_PLACE = (Strategy.AUTO, Strategy.IN_PLACE)


@pytest.mark.parametrize("strategy", IN_PLACE)
async def test_after_a_bulk_load_the_first_node_waits_for_its_leases(fast_home: Path, strategy: Strategy) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.load_at_once("index-0")
        task = await lab.submit(strategy)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert sum(moved_bytes(lab).values()) < MIB, "replicas catch up from their own disk"


async def test_what_is_written_all_over_again_and_again_is_not_waited_for_without_end(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        lab.world.load_at_once("index-0", renewed_after_s=1e6)
        task = await lab.submit(Strategy.IN_PLACE)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        rows = [row for row in (await lab.task(task)).steps if row.order == 4]
        on_nodes = {row.node: row.evidence["rebuilt_copies"] for row in rows}
        assert set(on_nodes) == {node.name for node in lab.cluster.nodes}
        assert all(row.evidence["leases_again"] for row in rows), "so the next node will wait as long"
        waited_s = [(row.end - row.begin).total_seconds() for row in rows if row.begin and row.end]
        assert all(45 <= one < 60 for one in waited_s)
        assert moved_bytes(lab)["index-0"] > MIB
        assert moved_bytes(lab)["index-1"] < MIB


async def test_without_that_wait_the_files_are_copied(fast_home: Path) -> None:
    async with open_lab(fast_home, lease_timeout_s=0) as lab:
        lab.world.load_at_once("index-0")
        task = await lab.submit(Strategy.IN_PLACE)
        await lab.drive(lambda _event: lab.world.write())
        await assert_whole(lab, task.id)
        assert moved_bytes(lab)["index-0"] > MIB


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_what_is_said_to_come_back_as_operations_keeps_its_lease(docs: int, behind: int) -> None:
    """The engines' own rule, with as many operations more as are half of what it allows."""
    copy = RetainedCopy("index", 0, docs, behind, 1)
    if not copy.rebuilt:
        assert behind + docs // 20 <= docs / 10 + 1


@pytest.mark.parametrize(
    ("docs", "behind", "size_bytes", "small"),
    [
        (100, 3000, 50_000, True),
        (5000, 5000, 208, False),  # loaded within the last 10 s
        (0, 5000, 208, False),  # and not refreshed
        (10, 10, 4_000_000, False),
        (0, 10, 208, True),
    ],
)
def test_a_small_copy_is_not_waited_for(docs: int, behind: int, size_bytes: int, small: bool) -> None:
    assert RetainedCopy("index", 0, docs, behind, size_bytes).small is small


def _copy(leases: dict[str, int], checkpoint: int = 4994) -> dict[str, object]:
    listed = [{"id": name, "retaining_seq_no": at, "source": "peer recovery"} for name, at in leases.items()]
    return {
        "docs": {"count": 4995},
        "store": {"size_in_bytes": 4_146_395},
        "seq_no": {"global_checkpoint": checkpoint},
        "retention_leases": {"leases": listed},
    }


def test_leases_of_the_node_itself_are_read() -> None:
    own, other = "peer_recovery/X1", "peer_recovery/Y2"
    shards = {
        "late": [{"0": _copy({own: 0, other: 4995})}, {"1": _copy({own: 4995, other: 0})}],
        "alone": [{"0": _copy({own: 0})}],
        "followed": [{"0": _copy({own: 0, "cluster-following-index": 0})}],
        "gone": [{"0": _copy({other: 4995})}],
        "elder": [{"0": {"docs": {"count": 1}, "store": {"size_in_bytes": 1}, "seq_no": {"global_checkpoint": 0}}}],
    }
    found = parse.retained({"nodes": {"X1": {"indices": {"shards": shards}}}})
    assert found == (RetainedCopy("late", 0, 4995, 4995, 4_146_395), RetainedCopy("late", 1, 4995, 0, 4_146_395))
    assert [one.rebuilt for one in found] == [True, False]
    assert parse.retained({}) == (), "a node without a copy, or one that is no member"


def test_a_node_is_asked_for_by_its_quoted_name() -> None:
    assert calls.retained("a/b c").path == "/_nodes/a%2Fb%20c/stats/indices/docs,store"
