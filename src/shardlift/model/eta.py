"""How long a task will still take, told from what this very task has been seen to need. Pure.

Each of the 13 sub-steps has its own mean over the nodes that are through it, so the sub-steps of a node that is half
done count as soon as they have ended. Drains go by the bytes per second of all drains so far, where each copy counts
as some bytes more than it has: those still to come by what the dry run says that they move, the one under way by what
is left. One that only knows how many copies are left goes by the copies per second. A spare node boots once, before the
first drain that fills it, and is emptied once or, where its folder is taken over, stopped once.

What is copied after the last node is copied at the limit that stood there before drains raised it, few copies at a
time, and not waited for longer than the plan says.

A wait for retention leases in sub-step 4 is told apart. A node that waits has the rest of the engines' interval left;
nodes that are still to come wait as long as those before, where clients wrote on so fast that they have to.

Time in which the task waits for people (a pause, an approval, its turn, its gates) can not be known and is not
counted; the time until its maintenance window opens is.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import fmean

from shardlift.model.plan import AT_ONCE, NodePlan
from shardlift.model.task import StepRow, StepStatus, Task

_DRAIN, _HOLD, _SHUTDOWN, _REPLACED, _BOOT, _REJOIN, _LAST = 0, 4, 6, 7, 10, 11, 12
# What follows the last sub-step of the last node; what a spare node needs besides: to boot, to be emptied or, where
# its folder is taken over, to be stopped; and what a node waits for its retention leases.
_SETTLING, _SPARE_BOOT, _SPARE_DRAIN, _LEASES, _SPARE_STOP = 13, 14, 15, 16, 17
# What a copy costs besides its bytes, as bytes at the engines' own 40 MiB/s: 0.06 s of 32 at a time. And what a round
# takes of those in which the engine evens out. Seen on three real nodes with 71 small copies each.
_COPY_BYTES, _ROUND_S = 2_500_000, 0.57
# A mean of few is trusted as if one more had been seen that was off by half.
_PRIOR_DEVIATION = 0.5
# Of independent nodes 1.28 standard deviations would hold four of five. Later nodes hold more than earlier ones, which
# have given theirs away, so that the guess is often short; with this factor simulated upgrades keep the promise.
_FOUR_OF_FIVE = 1.64


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds left of the work itself: the best guess, and the range that it should stay in four times of five."""

    left_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True)
class _Took:
    """What one sub-step takes on a node: mean and standard deviation in seconds, `count` of those measured."""

    mean_s: float
    deviation_s: float
    count: int


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of the work that is left."""

    order: int
    left_s: float
    deviation_s: float
    overdue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Paces:
    """Seconds of a drain for each byte of work, and for each copy; None where no drain has told any."""

    work_s: float | None
    copy_s: float | None


def eta(task: Task, now: datetime) -> Eta | None:
    """The time left at `now`. None until each sub-step that is still to be done has been measured on some node.

    Zero for a task that has ended. Work on several nodes is counted one after the other, which is how it is done; of
    what the nodes of a batch do at once the longest counts.
    """
    if task.ended_at is not None:
        return Eta(0.0, 0.0, 0.0)
    if not task.steps:
        return None
    took = _measured(task)
    paces = _Paces(_seconds_per(_work_moved, task.steps), _seconds_per(_copies_moved, task.steps))
    plans = {node.name: node for node in task.plan.nodes}
    batches = {node.name: number for number, batch in enumerate(task.plan.batches) for node in batch}
    parts = [_settling(task, took.get(_DRAIN), paces, now)]
    at_once: dict[tuple[int, int], list[_Part | None]] = defaultdict(list)
    for row in (row for row in task.steps if row.status is not StepStatus.SUCCESS):
        here = at_once[batches[row.node], row.order] if row.order in AT_ONCE else parts
        here.extend(_parts(row, plans[row.node], took, paces, now))
    if None in parts or any(None in some for some in at_once.values()):
        return None
    known = [part for part in parts if part is not None]
    known += [max((one for one in some if one), key=lambda part: part.left_s) for some in at_once.values()]
    left_s = sum(part.left_s for part in known)
    variance = sum(part.deviation_s**2 for part in known)
    # Where a mean itself is off, it is off the same way for every node that is left.
    for order, count in Counter(part.order for part in known if part.order in took).items():
        variance += (count * took[order].deviation_s) ** 2 / took[order].count
    off_s = _FOUR_OF_FIVE * math.sqrt(variance)
    overdue_s = sum(part.overdue_s for part in known)
    held_s = max((task.hold_until - now).total_seconds(), 0.0) if task.hold_until else 0.0
    # What has taken longer than ever may well take as long again.
    return Eta(held_s + left_s, held_s + max(left_s - off_s, 0.0), held_s + left_s + off_s + overdue_s)


def _parts(
    row: StepRow, plan: NodePlan, took: Mapping[int, _Took], paces: _Paces, now: datetime
) -> Iterator[_Part | None]:
    """What is left of one sub-step, and of what the spare needs within it; None when nothing is known of it."""
    if row.order == _DRAIN and plan.raises_spare and not row.progress.keys() & {"bytes_left", "shards_left"}:
        yield _share(_SPARE_BOOT, row, took.get(_SPARE_BOOT) or took.get(_BOOT), now)
        row = replace(row, status=StepStatus.WAITING)  # the drain itself has not begun
    if row.order == _REPLACED and plan.takes_over:
        yield _share(_SPARE_STOP, row, took.get(_SHUTDOWN), now)
        row = replace(row, status=StepStatus.WAITING)
    if row.order == _LAST and plan.empties_spare and not plan.stands_in:
        yield _share(_SPARE_DRAIN, row, took.get(_DRAIN), now)
        row = replace(row, status=StepStatus.WAITING)
    if row.order == _HOLD and row.status is not StepStatus.RUNNING:
        yield _share(_LEASES, row, took.get(_LEASES), now)
    elif row.order == _HOLD and isinstance(wait_s := row.progress.get("lease_wait_s"), int | float):
        yield _share(_LEASES, row, _Took(wait_s, 0.0, 1), now)
        row = replace(row, status=StepStatus.WAITING)  # the hold itself has not begun
    if row.order == _DRAIN:
        yield _drain_left(row, _drain_takes(plan, took.get(_DRAIN), paces), paces, now)
    else:
        yield _share(row.order, row, took.get(row.order), now)


def _drain_left(row: StepRow, took: _Took | None, paces: _Paces, now: datetime) -> _Part | None:
    """What is left of a drain itself."""
    if row.status is StepStatus.RUNNING and row.begin is not None:
        size_bytes, copies = row.progress.get("bytes_left"), row.progress.get("shards_left")
        left_s = None
        if isinstance(size_bytes, int) and paces.work_s is not None:
            left_s = _work(size_bytes, copies) * paces.work_s
        elif isinstance(copies, int) and paces.copy_s is not None:
            left_s = max(copies, 0) * paces.copy_s
        if left_s is not None:
            return _Part(row.order, left_s, took.deviation_s if took else _PRIOR_DEVIATION * left_s)
    return _share(row.order, row, took, now)


def _drain_takes(plan: NodePlan, took: _Took | None, paces: _Paces) -> _Took | None:
    """Of one node, by what it is to move; as long as others where nobody knows that."""
    if took is None or plan.leaving is None or paces.work_s is None:
        return took
    mean_s = _work(plan.leaving.size_bytes, plan.leaving.copies) * paces.work_s
    return replace(took, mean_s=mean_s, deviation_s=took.deviation_s * mean_s / took.mean_s if took.mean_s else 0.0)


def _work(size_bytes: int, copies: object) -> int:
    return max(size_bytes, 0) + (max(copies, 0) * _COPY_BYTES if isinstance(copies, int) else 0)


def _share(order: int, row: StepRow, took: _Took | None, now: datetime) -> _Part | None:
    """What is left of what takes so long, if it began with the row; None when nobody knows how long."""
    if took is None:
        return None
    running = row.status is StepStatus.RUNNING and row.begin is not None
    spent_s = max((now - row.begin).total_seconds(), 0.0) if running and row.begin else 0.0
    return _Part(order, max(took.mean_s - spent_s, 0.0), took.deviation_s, max(spent_s - took.mean_s, 0.0))


def _settling(task: Task, drain: _Took | None, paces: _Paces, now: datetime) -> _Part | None:
    """After the last node: what the plan foresees that the engine moves by itself, and about one drain more where it
    foresees nothing."""
    if not task.plan.settles:
        return _Part(_SETTLING, 0.0, 0.0)
    if drain is None:
        return None
    mean_s, deviation_s = _settling_takes(task, drain, paces)
    most_s = task.plan.settling_max_s
    if most_s is not None and mean_s > most_s:
        mean_s, deviation_s = most_s, 0.0
    last = None
    if all(row.status is StepStatus.SUCCESS for row in task.steps):
        last = max((row.end for row in task.steps if row.end), default=None)
    spent_s = max((now - last).total_seconds(), 0.0) if last else 0.0
    return _Part(_SETTLING, max(mean_s - spent_s, 0.0), deviation_s, max(spent_s - mean_s, 0.0))


def _settling_takes(task: Task, drain: _Took, paces: _Paces) -> tuple[float, float]:
    """Mean and deviation in seconds. Bytes go as they did in drains, but not faster than the limit lets them then."""
    if paces.work_s is None:
        return drain.mean_s, drain.deviation_s
    drains = (row for row in task.steps if row.order == _DRAIN and row.status is StepStatus.SUCCESS)
    limits = (row.evidence.get("recovery_limit_before_bytes_per_s") for row in drains)
    byte_s = max([paces.work_s, *(1 / limit for limit in limits if isinstance(limit, int) and limit > 0)])
    settling = task.plan.settling
    if settling is None:
        return drain.mean_s * byte_s / paces.work_s, drain.deviation_s * byte_s / paces.work_s
    mean_s = settling.size_bytes * byte_s + settling.rounds * _ROUND_S
    return mean_s, _PRIOR_DEVIATION * mean_s


def _measured(task: Task) -> Mapping[int, _Took]:
    """By order. A row that was tried more than once, a canary that waited for people, and a last sub-step that emptied
    a spare count for want of others."""
    odd_ones = {(node.name, _REJOIN) for node in task.plan.nodes if node.canary}
    odd_ones |= {(node.name, _LAST) for node in task.plan.nodes if node.empties_spare}
    firsts = {node.name for node in task.plan.nodes if node.raises_spare}
    clean: dict[int, list[float]] = defaultdict(list)
    other: dict[int, list[float]] = defaultdict(list)
    for row in task.steps:
        if row.status is not StepStatus.SUCCESS or row.begin is None or row.end is None:
            continue
        seen = other if row.attempts > 1 or (row.node, row.order) in odd_ones else clean
        seen[row.order].append(_spent_s(row))
        if row.order == _DRAIN and row.node in firsts:
            seen[_SPARE_BOOT].append(_spare_boot_s(row))
        if row.order == _HOLD:
            seen[_LEASES].append(_lease_wait_s(row) if row.evidence.get("leases_again") is True else 0.0)
    return {order: _took(clean.get(order) or other[order]) for order in clean.keys() | other.keys()}


def _spent_s(row: StepRow) -> float:
    """On the sub-step itself: a drain has not begun while the spare boots, nor a hold while leases are waited for."""
    assert row.begin is not None, "it has ended"
    assert row.end is not None, "it has ended"
    return max((row.end - row.begin).total_seconds() - _spare_boot_s(row) - _lease_wait_s(row), 0.0)


def _spare_boot_s(row: StepRow) -> float:
    seconds = row.evidence.get("spare_boot_s")
    return float(seconds) if row.order == _DRAIN and isinstance(seconds, int | float) else 0.0


def _lease_wait_s(row: StepRow) -> float:
    seconds = row.evidence.get("leases_waited_s")
    return float(seconds) if row.order == _HOLD and isinstance(seconds, int | float) else 0.0


def _took(seen: Sequence[float]) -> _Took:
    mean_s = fmean(seen)
    off = sum((one - mean_s) ** 2 for one in seen) + (_PRIOR_DEVIATION * mean_s) ** 2
    return _Took(mean_s, math.sqrt(off / len(seen)), len(seen))


def _seconds_per(moved: Callable[[StepRow], int], rows: Iterable[StepRow]) -> float | None:
    """Seconds for one of what `moved` counts, of drains that are done; None when they have moved none."""
    amount, spent_s = 0, 0.0
    for row in rows:
        if row.order == _DRAIN and row.status is StepStatus.SUCCESS and (some := moved(row)) > 0:
            amount += some
            spent_s += _spent_s(row)
    return spent_s / amount if amount else None


def _copies_moved(row: StepRow) -> int:
    moved = row.evidence.get("copies_moved")
    return moved if isinstance(moved, int) else 0


def _work_moved(row: StepRow) -> int:
    """Nothing where only the copies were counted, or none had any bytes."""
    moved = row.evidence.get("bytes_moved")
    return _work(moved, _copies_moved(row)) if isinstance(moved, int) and moved > 0 else 0
