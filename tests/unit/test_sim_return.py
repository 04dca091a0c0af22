"""How long a simulated node takes to have its copies back, held against what real ones took."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardlift.chaos.time import run_virtual
from shardlift.model import Strategy, TaskStatus
from tests.worlds import open_lab

pytestmark = pytest.mark.walks

_RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"
_REJOIN = 11
# Three nodes of OpenSearch 2.19.4 to 3.4.0 in place, two quiet cores: copies a node, recoveries at once, and the mean
# seconds of sub-step 11 (docs/decisions/0028).
_SEEN = [
    (15, 8, 2.4),
    (15, 64, 1.9),
    (45, 8, 4.8),
    (45, 24, 3.2),
    (45, 64, 2.4),
    (205, 8, 17.2),
    (205, 64, 7.4),
    (205, 250, 5.6),
]


@pytest.mark.parametrize(("copies", "at_once", "real_s"), _SEEN)
def test_copies_return_as_fast_as_on_real_nodes(fast_home: Path, copies: int, at_once: int, real_s: float) -> None:
    """Within a quarter: from one run to the next real ones differ by about as much."""
    assert abs(run_virtual(_rejoin_s(fast_home, copies, at_once)) - real_s) <= 0.25 * real_s


async def _rejoin_s(home: Path, copies: int, at_once: int) -> float:
    async with open_lab(home, indices=round(copies / 2), shards=3) as lab:
        lab.world.persistent[_RECOVERIES] = str(at_once)
        task = await lab.submit(Strategy.IN_PLACE)
        await lab.drive()
        done = await lab.task(task)
    assert done.status is TaskStatus.SUCCESS
    took = [
        (row.end - row.begin).total_seconds() for row in done.steps if row.order == _REJOIN and row.end and row.begin
    ]
    assert len(took) == len(done.plan.nodes)
    return sum(took) / len(took)
