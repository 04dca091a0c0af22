"""The time left of waits for retention leases in sub-step 4."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shardlift.model import RetainedCopy, Strategy, Task
from shardlift.steps.before import behind_again
from tests.unit.test_eta import NODES, ORDERS, left_s, off, walked
from tests.worlds import open_lab

VIRTUAL_TIME = True
HOLD = 4
NODE_S = 60.0 * ORDERS


def with_waits(done: int, waits: dict[int, tuple[float, bool]]) -> Task:
    """Each sub-step takes a minute, and the hold of the nodes of these numbers so many seconds more, for leases."""
    took_s = [60.0] * NODES * ORDERS
    for node, (wait_s, _) in waits.items():
        took_s[node * ORDERS + HOLD] += wait_s
    task = walked(done, took_s, [1] * NODES * ORDERS)
    rows = list(task.steps)
    for node, (wait_s, again) in waits.items():
        told = {"leases_waited_s": wait_s, "leases_again": again}
        rows[node * ORDERS + HOLD] = replace(rows[node * ORDERS + HOLD], evidence=told)
    return replace(task, steps=tuple(rows))


def waits_s(task: Task, spent_s: float = 0) -> float:
    """What is left, without the minutes of two nodes and of the settling."""
    return left_s(task, spent_s) - 2 * NODE_S - 60


def test_nodes_wait_for_leases_as_those_before_did_if_they_have_to() -> None:
    assert waits_s(with_waits(2 * ORDERS, {})) == 0
    assert waits_s(with_waits(2 * ORDERS, {0: (30, False)})) == 0, "it was because of what had been loaded before"
    assert waits_s(with_waits(2 * ORDERS, {0: (20, True), 1: (30, True)})) == 2 * 25
    assert waits_s(with_waits(2 * ORDERS, {0: (20, True)})) == 2 * 10, "the second had to wait for none"


def test_a_node_that_waits_has_the_rest_of_the_interval_left() -> None:
    at = 2 * ORDERS + HOLD
    task = with_waits(at, {})
    rows = list(task.steps)
    rows[at] = replace(rows[at], progress={"waiting_for": "the engine", "lease_wait_s": 30.0})
    waiting = replace(task, steps=tuple(rows))
    plain_s = left_s(task)
    assert [left_s(waiting, spent_s) - plain_s for spent_s in (0, 10, 30, 40)] == [30, 20, 0, 0]
    assert left_s(task, 10) == plain_s - 10, "one that does not say so holds already"


def retained(behind: int, *, docs: int = 1_000_000) -> tuple[RetainedCopy, ...]:
    return (RetainedCopy("books", 0, docs, behind, 10**9),)


@pytest.mark.parametrize(
    ("looks", "again"),
    [
        ([(0, retained(900_000))], False),  # nobody knows
        ([(0, retained(900_000)), (20, retained(900_000)), (21, retained(0))], False),  # loaded before
        ([(0, retained(60_000)), (20, retained(100_000)), (21, retained(0))], True),  # 57,000 in 30 s
        ([(0, retained(60_000)), (20, retained(90_000)), (21, retained(0))], False),  # 43,000
        ([(5, retained(0)), (5, retained(90_000))], False),
        ([(0, retained(60, docs=100)), (1, retained(90, docs=100))], True),
        ([(0, (RetainedCopy("few", 0, 9, 5, 9),)), (1, (RetainedCopy("few", 0, 9, 9, 9),))], False),
    ],
)
def test_whether_writes_go_on_fast_enough(looks: list[tuple[float, tuple[RetainedCopy, ...]]], *, again: bool) -> None:
    assert behind_again(looks) is again


@pytest.mark.walks
async def test_a_wait_for_what_was_loaded_before_is_not_told_of_all_nodes(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=5) as lab:
        lab.world.load_at_once("index-0")
        task = await lab.submit(Strategy.IN_PLACE)
        driving = asyncio.create_task(lab.drive())
        await lab.clock.sleep(10)
        hold = (await lab.task(task)).steps[HOLD]
        assert hold.progress["lease_wait_s"] == 30
        await driving
        done = await lab.task(task)
        holds = [row for row in done.steps if row.order == HOLD]
        assert [row.evidence.get("leases_again") for row in holds] == [False, None, None, None, None]
        assert done.steps[ORDERS - 1].end is not None
        assert off(done, done.steps[ORDERS - 1].end + timedelta(milliseconds=1)) <= 0.25
