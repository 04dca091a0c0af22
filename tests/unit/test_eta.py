"""The time left: what must hold whatever a task has been through, and how good the guess is on the simulated world."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.executor import Event
from shardlift.model import AT_ONCE, SUB_STEPS, Eta, StepRow, StepStatus, Strategy, Task, TaskStatus, eta
from tests.fakes import START, make_cluster, make_image, make_task
from tests.worlds import open_lab

VIRTUAL_TIME = True
IMAGE = make_image("3.4.0")
NODES, ORDERS = 4, len(SUB_STEPS)
BOOT = 10
TASK = make_task(make_cluster("p", IMAGE, nodes=NODES), IMAGE)
SECONDS = st.floats(0, 1e5)


def walked(done: int, took_s: list[float], tries: list[int]) -> Task:
    """The task with so many sub-steps done, each in its time, one after the other; the next one has just begun."""
    rows, at = [], START
    for place, row in enumerate(TASK.steps):
        if place > done:
            rows.append(replace(row, status=StepStatus.WAITING, begin=None, end=None))
            continue
        end = at + timedelta(seconds=took_s[place])
        ended = {"status": StepStatus.SUCCESS, "end": end} if place < done else {"status": StepStatus.RUNNING}
        rows.append(replace(row, begin=at, attempts=tries[place], **ended))
        at = end if place < done else at
    return replace(TASK, steps=tuple(rows))


def now_of(task: Task) -> datetime:
    return max((row.end or row.begin for row in task.steps if row.begin), default=START)


walks = st.builds(
    walked,
    st.integers(0, NODES * ORDERS - 1),
    st.lists(SECONDS, min_size=NODES * ORDERS, max_size=NODES * ORDERS),
    st.lists(st.integers(1, 3), min_size=NODES * ORDERS, max_size=NODES * ORDERS),
)


def order(told: Eta) -> bool:
    return 0 <= told.low_s <= told.left_s <= told.high_s


@settings(max_examples=50)
@given(walks, SECONDS, SECONDS)
def test_never_negative_and_never_more_as_time_passes(task: Task, first_s: float, more_s: float) -> None:
    begun = now_of(task)
    earlier = eta(task, begun + timedelta(seconds=first_s))
    later = eta(task, begun + timedelta(seconds=first_s + more_s))
    assert (earlier is None) is (later is None)
    if earlier is not None and later is not None:
        assert order(earlier)
        assert order(later)
        assert later.left_s <= earlier.left_s + 1e-6
        assert later.high_s - later.left_s >= earlier.high_s - earlier.left_s - 1e-6, "what is overdue is less sure"


@settings(max_examples=50)
@given(walks)
def test_nothing_is_told_before_each_sub_step_left_is_measured(task: Task) -> None:
    left = {0} | {row.order for row in task.steps if row.status is not StepStatus.SUCCESS}
    measured = {row.order for row in task.steps if row.status is StepStatus.SUCCESS}
    assert (eta(task, now_of(task)) is None) is bool(left - measured)


@settings(max_examples=50)
@given(walks, st.sampled_from([TaskStatus.SUCCESS, TaskStatus.FAILED, TaskStatus.PARTIAL_FAILED]))
def test_zero_at_the_end(task: Task, status: TaskStatus) -> None:
    assert eta(replace(task, status=status, ended_at=START), START) == Eta(0, 0, 0)


@settings(max_examples=50)
@given(st.lists(SECONDS, min_size=ORDERS, max_size=ORDERS), st.integers(ORDERS, NODES * ORDERS - 1))
def test_nodes_that_are_alike_are_told_exactly(took_s: list[float], done: int) -> None:
    task = walked(done, took_s * NODES, [1] * NODES * ORDERS)
    told = eta(task, now_of(task))
    truth_s = sum((took_s * NODES)[done:]) + took_s[0]  # the last one is the settling, as long as a drain
    assert told is not None
    assert abs(told.left_s - truth_s) <= 1e-3 + 1e-9 * truth_s  # a timedelta has microseconds


def test_fewer_nodes_left_take_less_time_and_a_longer_task_is_told_better() -> None:
    took_s = [10.0 + place % ORDERS + 3 * (place // ORDERS % 2) for place in range(NODES * ORDERS)]
    told = [eta(task, now_of(task)) for done in (1, 2, 3) for task in [walked(done * ORDERS, took_s, [1] * 52)]]
    left = [one.left_s for one in told if one]
    assert left == sorted(left, reverse=True)
    assert len(left) == 3
    spread = [(one.high_s - one.low_s) / one.left_s for one in told if one]
    assert spread == sorted(spread, reverse=True)


def test_a_drain_goes_by_the_bytes_left_where_it_tells_them() -> None:
    task = walked(ORDERS, [60.0] * NODES * ORDERS, [1] * NODES * ORDERS)

    def with_bytes(left: int) -> float:
        rows = list(task.steps)
        rows[0] = replace(rows[0], evidence={"bytes_moved": 6000})  # 100 a second
        rows[ORDERS] = replace(rows[ORDERS], progress={"bytes_left": left})
        told = eta(replace(task, steps=tuple(rows)), now_of(task))
        assert told is not None
        return told.left_s

    assert abs(with_bytes(5000) - with_bytes(0) - 50) < 1e-6
    assert with_bytes(0) == with_bytes(-1)


def test_a_drain_goes_by_the_copies_left() -> None:
    task = walked(ORDERS, [60.0] * NODES * ORDERS, [1] * NODES * ORDERS)

    def with_copies(left: int) -> Task:
        rows = list(task.steps)
        rows[0] = replace(rows[0], evidence={"copies_moved": 30})  # two seconds each
        rows[ORDERS] = replace(rows[ORDERS], progress={"shards_left": left})
        return replace(task, steps=tuple(rows))

    others_s = 60.0 * 3 * ORDERS  # of which one is the settling
    for left in (0, 7, 30, 900):
        told = eta(with_copies(left), now_of(task) + timedelta(seconds=45))
        assert told is not None
        assert told.left_s == others_s + 2 * left


def test_waiting_for_people_is_no_measure() -> None:
    took_s = [60.0] * NODES * ORDERS
    took_s[11] = 86_400.0  # the canary waited a day for approval
    task = walked(2 * ORDERS, took_s, [1] * NODES * ORDERS)
    first, *others = task.plan.nodes
    plan = replace(task.plan, batches=((replace(first, canary=True),), *((node,) for node in others)))
    told = eta(replace(task, plan=plan), now_of(task))
    assert told is not None
    assert told.left_s == 60.0 * (2 * ORDERS + 1)
    tried = list(task.steps)
    tried[11] = replace(tried[11], attempts=2)
    again = eta(replace(task, steps=tuple(tried)), now_of(task))
    assert again is not None
    assert again.left_s == told.left_s, "nor is a sub-step that had failed before"


def test_the_time_until_its_window_opens_counts() -> None:
    task = walked(ORDERS, [60.0] * NODES * ORDERS, [1] * NODES * ORDERS)
    now = now_of(task)
    plain, held = eta(task, now), eta(replace(task, hold_until=now + timedelta(hours=2)), now)
    assert plain is not None
    assert held is not None
    assert held.left_s - plain.left_s == 7200
    assert held.low_s - plain.low_s == held.high_s - plain.high_s == 7200


def with_spares(task: Task, *, runs: int = 1, takes_over: bool = True) -> Task:
    """The task by `surge`: its nodes in so many runs of equal length, each with a spare of its own."""
    nodes = list(task.plan.nodes)
    each = len(nodes) // runs
    for at, node in enumerate(nodes):
        spare, last = f"spare-{at // each}", at % each == each - 1
        fills = spare if at % each == 0 else nodes[at - 1].name
        over = last and takes_over
        nodes[at] = replace(node, spare=spare, fills=fills, takes_over=over, empties_spare=last and not over)
    return replace(task, plan=replace(task.plan, batches=tuple((node,) for node in nodes)))


def test_what_a_batch_does_at_once_counts_once() -> None:
    """Two batches of two nodes, the second in its boots: one began 20 s before the other."""
    pairs = make_task(make_cluster("p", IMAGE, nodes=NODES), IMAGE, batch_size=2).plan
    rows = list(walked(2 * ORDERS, [60.0] * NODES * ORDERS, [1] * NODES * ORDERS).steps)
    rows[2 * ORDERS] = replace(rows[2 * ORDERS], begin=None, status=StepStatus.WAITING)
    task = replace(TASK, steps=tuple(rows), plan=pairs)
    settling_s = 60.0
    assert left_s(task) == 60.0 * (2 * ORDERS - len(AT_ONCE)) + settling_s
    now = now_of(task) + timedelta(seconds=30)
    for node, begun_s in ((2, 30), (3, 10)):
        boot = node * ORDERS + BOOT
        for place in range(node * ORDERS, boot):
            rows[place] = replace(rows[place], status=StepStatus.SUCCESS)
        rows[boot] = replace(rows[boot], status=StepStatus.RUNNING, begin=now - timedelta(seconds=begun_s))
    told = eta(replace(task, steps=tuple(rows)), now)
    assert told is not None
    assert told.left_s == 50 + 60.0 * 2 * 2 + settling_s


def of_surge(done: int, *, boots: tuple[int, ...] = (0,)) -> Task:
    """Each sub-step takes a minute; the nodes of these numbers have waited 9 s longer, for a spare."""
    took_s = [60.0] * NODES * ORDERS
    for node in boots:
        took_s[node * ORDERS] += 9
    rows = list(walked(done, took_s, [1] * NODES * ORDERS).steps)
    for node in boots:
        rows[node * ORDERS] = replace(rows[node * ORDERS], evidence={"spare_boot_s": 9.0, "bytes_moved": 6000})
    return replace(TASK, steps=tuple(rows))


STOP_S = 60.0


def left_s(task: Task, spent_s: float = 0) -> float:
    told = eta(task, now_of(task) + timedelta(seconds=spent_s))
    assert told is not None
    return told.left_s


def test_the_boot_of_the_spare_is_no_drain() -> None:
    """Nor does the last node leave anything to be spread. Its spare is stopped as nodes are."""
    whole_s = 60.0 * 3 * ORDERS + STOP_S
    assert left_s(with_spares(of_surge(ORDERS))) == whole_s
    half = with_spares(of_surge(ORDERS))
    rows = list(half.steps)
    rows[ORDERS] = replace(rows[ORDERS], progress={"bytes_left": 3000})
    assert left_s(replace(half, steps=tuple(rows))) == whole_s - 30, "100 bytes a second, not 87"


def test_each_spare_that_is_still_to_come_boots() -> None:
    task = with_spares(of_surge(ORDERS), runs=2)
    assert left_s(task) == 60.0 * 3 * ORDERS + 9 + 2 * STOP_S
    booting = with_spares(of_surge(2 * ORDERS, boots=(0, 2)), runs=2)
    rows = [replace(row, evidence={}) if row.status is StepStatus.RUNNING else row for row in booting.steps]
    booting = replace(booting, steps=tuple(rows))
    assert left_s(booting) == 60.0 * 2 * ORDERS + 9 + STOP_S
    assert left_s(booting, spent_s=5) == 60.0 * 2 * ORDERS + 4 + STOP_S
    rows[2 * ORDERS] = replace(rows[2 * ORDERS], progress={"shards_left": 7})
    assert left_s(replace(booting, steps=tuple(rows)), spent_s=9) < 60.0 * 2 * ORDERS + STOP_S, "it is up"


def test_a_spare_that_nobody_takes_over_is_drained_once() -> None:
    task = with_spares(of_surge(ORDERS), takes_over=False)
    assert left_s(task) == 60.0 * (3 * ORDERS + 1)


@pytest.mark.parametrize("nodes", [5, 7])
async def test_surge_on_the_simulated_world_is_told_within_a_fifth(fast_home: Path, nodes: int) -> None:
    async with open_lab(fast_home, nodes=nodes, indices=6) as lab:
        task = await lab.submit(Strategy.SURGE)
        ends: list[datetime] = []

        def note(event: Event) -> None:
            if (event.what, event.order) == ("journaled", 12):
                ends.append(lab.clock.now())

        await lab.drive(note)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert done.ended_at is not None
        for at in ends[:-1]:
            seen = eta(as_of(done, at), at)
            assert seen is not None
            truth_s = (done.ended_at - at).total_seconds()
            assert abs(seen.left_s - truth_s) <= 0.2 * truth_s, (seen, truth_s)


async def test_on_the_simulated_world_the_truth_lies_in_the_range(fast_home: Path) -> None:
    """Seven nodes are drained and filled again; asked whenever a node is done."""
    async with open_lab(fast_home, nodes=7, indices=6) as lab:
        told: list[tuple[float, Eta]] = []
        task = await lab.submit()
        ends: list[tuple[str, datetime]] = []

        def note(event: Event) -> None:
            if (event.what, event.order) == ("journaled", 12):
                ends.append((event.node, lab.clock.now()))

        await lab.drive(note)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS
        assert done.ended_at is not None
        for _, at in ends[:-1]:
            seen = eta(as_of(done, at), at)
            assert seen is not None
            told.append(((done.ended_at - at).total_seconds(), seen))
        inside = [one.low_s <= truth_s <= one.high_s for truth_s, one in told]
        assert len(inside) == 6
        assert sum(inside) >= 5, told


def off(task: Task, at: datetime) -> float:
    """By how much of what was left the time told at that moment was wrong."""
    assert task.ended_at is not None
    told = eta(as_of(task, at), at)
    assert told is not None
    truth_s = (task.ended_at - at).total_seconds()
    return abs(told.left_s - truth_s) / truth_s


def as_of(task: Task, at: datetime) -> Task:
    """The task as it was read at that moment."""

    def before(row: StepRow) -> StepRow:
        if row.end is not None and row.end <= at:
            return row
        running = row.begin is not None and row.begin < at
        status = StepStatus.RUNNING if running else StepStatus.WAITING
        return replace(row, status=status, begin=row.begin if running else None, end=None)

    return replace(task, status=TaskStatus.RUNNING, ended_at=None, steps=tuple(before(row) for row in task.steps))
