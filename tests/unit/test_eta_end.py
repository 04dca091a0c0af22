"""The time left of what comes after the last node, which no earlier node tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from shardlift.allocation import build_state
from shardlift.model import ClusterSettings, Leaving, Settling, StepStatus, Task, TaskStatus, eta
from shardlift.planner.settling import settling
from shardlift.service.requests import MigrateRequest
from shardlift.sim import MIB
from shardlift.store.codec import plan_from, plan_to_json
from tests import observations
from tests.observations import NAMES, copy, index, member
from tests.unit.test_eta import NODES, ORDERS, left_s, now_of, off, walked
from tests.worlds import Lab, open_lab

VIRTUAL_TIME = True
NODE_S = 60.0 * ORDERS
NO_SETTINGS = ClusterSettings()
MINUTES = [60.0] * NODES * ORDERS


def drained(done: int, *, limit: int | None = None, **plan: object) -> Task:
    """Each sub-step takes a minute, and each drain has moved 6,000 bytes in it: 100 a second. `limit`: what stood there
    before it was raised."""
    task = walked(done, MINUTES, [1] * NODES * ORDERS)
    told = {"bytes_moved": 6000} | ({} if limit is None else {"recovery_limit_before_bytes_per_s": limit})
    rows = [
        replace(row, evidence=told) if row.order == 0 and row.status is StepStatus.SUCCESS else row
        for row in task.steps
    ]
    return replace(task, steps=tuple(rows), plan=replace(task.plan, **plan))  # type: ignore[arg-type]


def settling_s(task: Task, spent_s: float = 0) -> float:
    """What is left of a task with one node still to come, without that node."""
    return left_s(task, spent_s) - NODE_S


ONE_LEFT = (NODES - 1) * ORDERS


def test_the_moves_that_the_plan_foresees_go_as_fast_as_drains_did() -> None:
    assert settling_s(drained(ONE_LEFT, settling=Settling(20_000, 0))) == 200
    assert settling_s(drained(ONE_LEFT, settling=Settling(0, 0))) == 0


def test_where_the_plan_knows_nothing_it_is_one_drain_more() -> None:
    assert settling_s(drained(ONE_LEFT)) == 60
    assert settling_s(drained(ONE_LEFT, limit=25)) == 60 * 4, "at a quarter of the speed"
    unknown = replace(walked(ONE_LEFT, MINUTES, [1] * NODES * ORDERS))
    assert settling_s(replace(unknown, plan=replace(unknown.plan, settling=Settling(20_000, 0)))) == 60, (
        "no byte was measured"
    )


def test_the_raised_limit_is_none_of_the_end() -> None:
    assert settling_s(drained(ONE_LEFT, limit=25, settling=Settling(20_000, 0))) == 800
    assert settling_s(drained(ONE_LEFT, limit=400, settling=Settling(20_000, 0))) == 200, (
        "it was not what held drains up"
    )


def test_shards_are_waited_for_no_longer_than_the_task_does() -> None:
    task = drained(ONE_LEFT, settling=Settling(10**9, 0), settling_max_s=600.0)
    assert settling_s(task) == 600
    told = eta(task, now_of(task))
    assert told is not None
    assert told.high_s - told.left_s < NODE_S, "a bound is no guess"
    assert settling_s(drained(ONE_LEFT, settling=Settling(1000, 0), settling_max_s=600.0)) == 10


def test_after_the_last_node_it_passes() -> None:
    task = drained(NODES * ORDERS, settling=Settling(20_000, 0))
    assert (left_s(task), left_s(task, 150), left_s(task, 900)) == (200, 50, 0)


def test_a_plan_of_an_older_release_is_still_read() -> None:
    old = drained(0).plan
    batches = tuple(tuple(replace(node, leaving=Leaving(3, 7)) for node in batch) for batch in old.batches)
    told = plan_to_json(replace(old, batches=batches, settling=Settling(7, 1), settling_max_s=600.0))
    assert plan_from(told) == replace(old, batches=batches, settling=Settling(7, 1), settling_max_s=600.0)
    for key in ("settling", "settling_max_s"):
        del told[key]
    for batch in told["batches"]:
        for node in batch:
            del node["leaving"]
    assert plan_from(told) == old


def in_zones(*zones: str, aware: bool = True, settings: ClusterSettings = NO_SETTINGS, **more: object) -> Settling:
    """The three nodes in these zones, with both copies of `books` (10 bytes each) on the first two of them."""
    nodes = tuple(member(name, attributes={"zone": zone}) for name, zone in zip(NAMES, zones, strict=True))
    seen = observations.seen(nodes=nodes, **more)
    return settling(build_state(seen, observations.CLUSTER.nodes, nodes[0].release), settings, aware=aware)


def test_copies_that_share_a_zone_part() -> None:
    assert in_zones("zone-a", "zone-a", "zone-b") == Settling(10, 1)
    assert in_zones("zone-a", "zone-b", "zone-b") == Settling(0, 0)
    assert in_zones("zone-a", "zone-b", "zone-c") == Settling(0, 0)
    assert in_zones("zone-a", "zone-a", "zone-b", aware=False) == Settling(0, 0)


def test_then_counts_of_copies_are_evened_out() -> None:
    """Both primaries leave the first node for the third, at once; then one copy goes from the second to the first."""
    logs = (copy(NAMES[0], primary=True, index="logs", size_bytes=30),)
    logs += (copy(NAMES[1], primary=False, index="logs", size_bytes=30),)
    shards = (*observations.seen().shards, *logs)
    indices = index(), index("logs")
    assert in_zones("zone-a", "zone-a", "zone-b", shards=shards, indices=indices) == Settling((10 + 30) + 10, 2)
    # Three moves, two at a time unless somebody has set another number.
    for text, rounds in (("1", 3), ("3", 1), ("-1", 1)):
        at_once = ClusterSettings(persistent={"cluster.routing.allocation.cluster_concurrent_rebalance": text})
        found = in_zones("zone-a", "zone-a", "zone-b", settings=at_once, shards=shards, indices=indices)
        assert found == Settling(50, rounds)
    # Where engines may not balance, copies that share a zone part all the same.
    never = ClusterSettings(transient={"cluster.routing.rebalance.enable": "none"})
    assert in_zones("zone-a", "zone-a", "zone-b", settings=never, shards=shards, indices=indices) == Settling(40, 1)
    assert in_zones("zone-a", "zone-a", "zone-b", aware=False, shards=shards, indices=indices) == Settling(10, 1)


def test_a_copy_that_can_go_nowhere_is_no_move() -> None:
    held = index(settings={"index.routing.allocation.include._name": f"{NAMES[0]},{NAMES[1]}"})
    assert in_zones("zone-a", "zone-a", "zone-b", indices=(held,)) == Settling(0, 0)


def quarter(task: Task) -> datetime:
    assert task.status is TaskStatus.SUCCESS, task.fail_message
    assert task.ended_at is not None
    return task.created_at + (task.ended_at - task.created_at) / 4


def resize(lab: Lab, sizes: dict[str, int]) -> None:
    for name, size_bytes in sizes.items():
        lab.world.indices[name].copy_bytes = size_bytes


@pytest.mark.walks
@pytest.mark.parametrize(
    ("shards", "sizes"),
    [
        (6, {f"index-{at}": 500 * MIB for at in range(6)}),  # drains go four times as fast as what comes after them
        (1, dict.fromkeys(("index-0", "index-3"), 5000 * MIB)),  # both copies of these stay in the old zone until then
    ],
)
async def test_moves_after_awareness_are_told(fast_home: Path, shards: int, sizes: dict[str, int]) -> None:
    """Six nodes of one zone are dealt over three, and what is moved after the last of them takes longest of all."""
    async with open_lab(fast_home, nodes=6, indices=6, shards=shards) as lab:
        resize(lab, sizes)
        task = await lab.service.migrate(MigrateRequest(lab.cluster.id, "zone-a", "zone-a,zone-b,zone-c"))
        assert task.plan.settling_max_s == lab.service.settings.rejoin_timeout_s
        await lab.drive()
        done = await lab.task(task)
        assert off(done, quarter(done)) <= 0.25
        assert done.ended_at is not None
        last = max(row.end for row in done.steps if row.end)
        drains_s = [
            (row.end - row.begin).total_seconds() for row in done.steps if row.order == 0 and row.end and row.begin
        ]
        assert (done.ended_at - last).total_seconds() > 2 * max(drains_s)
