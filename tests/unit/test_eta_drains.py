"""The time left of drains: by bytes and by copies, and of nodes that are still to come by what the plan foresees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardlift.model import Leaving, Settling, StepStatus, Strategy, Task
from shardlift.sim import MIB
from tests.unit.test_eta import NODES, ORDERS, left_s, off, walked
from tests.unit.test_eta_end import quarter
from tests.worlds import open_lab

VIRTUAL_TIME = True
MINUTES = [60.0] * NODES * ORDERS


def drained(done: int, moved: dict[str, int], *, left: dict[str, int] | None = None, **node: object) -> Task:
    """Each sub-step takes a minute; each drain that is done has moved so much, and `left` is what the one under way
    tells. `node`: what the plan says of each node."""
    task = walked(done, MINUTES, [1] * NODES * ORDERS)
    rows = [
        replace(row, evidence=moved) if row.order == 0 and row.status is StepStatus.SUCCESS else row
        for row in task.steps
    ]
    rows[done] = replace(rows[done], progress=left or {})
    batches = tuple(tuple(replace(one, **node) for one in batch) for batch in task.plan.batches)  # type: ignore[arg-type]
    return replace(task, steps=tuple(rows), plan=replace(task.plan, batches=batches, settling=Settling(0, 0)))


def drains_s(task: Task, nodes: int) -> float:
    """What is left of all drains, `nodes` of which are not done."""
    return left_s(task) - nodes * (ORDERS - 1) * 60.0


def test_nodes_to_come_take_as_long_as_what_leaves_them() -> None:
    """The first node's copies are on the others by then, so these have more to move."""
    told = {"bytes_moved": 6000, "copies_moved": 0}
    assert drains_s(drained(ORDERS, told, leaving=Leaving(0, 9000)), 3) == 3 * 90
    assert drains_s(drained(ORDERS, told, leaving=Leaving(0, 0)), 3) == 0
    assert drains_s(drained(ORDERS, told), 3) == 3 * 60, "a plan of an older release does not say"
    nothing = drained(ORDERS, {}, leaving=Leaving(0, 9000))
    assert drains_s(nothing, 3) == 4 * 60, "no byte was measured; nor is known how fast the end is"


def test_small_copies_count_though_they_have_few_bytes() -> None:
    told = {"bytes_moved": 1000, "copies_moved": 60}
    assert drains_s(drained(ORDERS, told, leaving=Leaving(90, 1500)), 3) == pytest.approx(3 * 90)
    running = drained(ORDERS, told, left={"bytes_left": 10, "shards_left": 30}, leaving=Leaving(60, 1000))
    assert drains_s(running, 3) == pytest.approx(30 + 2 * 60, rel=1e-3)


def test_large_copies_count_by_their_bytes() -> None:
    told = {"bytes_moved": 60 * 2**30, "copies_moved": 60}
    assert drains_s(drained(ORDERS, told, leaving=Leaving(30, 60 * 2**30)), 3) == pytest.approx(3 * 60, rel=2e-3)


def test_what_settles_takes_its_rounds() -> None:
    told = {"bytes_moved": 6000, "copies_moved": 0}
    task = drained(ORDERS, told, leaving=Leaving(0, 0))
    settling = replace(task, plan=replace(task.plan, settling=Settling(6000, 100)))
    assert left_s(settling) - left_s(task) == pytest.approx(60 + 100 * 0.57)


@pytest.mark.walks
@pytest.mark.parametrize(("nodes", "shards", "copy_mib"), [(3, 18, 0.3), (3, 2, 500), (6, 9, 0.3)])
async def test_drains_of_many_small_copies_are_told_as_well_as_of_few_large(
    fast_home: Path, nodes: int, shards: int, copy_mib: float
) -> None:
    """What the engine evens out at the end, two copies at a time, is most of the time that is left then."""
    async with open_lab(fast_home, nodes=nodes, indices=6, shards=shards) as lab:
        for index in lab.world.indices.values():
            index.copy_bytes = int(copy_mib * MIB)
        task = await lab.submit(Strategy.DRAIN)
        await lab.drive()
        done = await lab.task(task)
        assert off(done, quarter(done)) <= 0.25
