"""What one run of `make bench-moves` comes to: bytes beside the data, time beside its limit, the error of ETA."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shardlift.model import Task
from shardlift.model.eta import eta
from shardlift.sim import MIB

PLAIN = "plain drain"
BARE = "bare in place"
QUARTER = 0.25
_BANDWIDTH = 40 * MIB  # indices.recovery.max_bytes_per_sec as the engines have it
_MIGRATION, _BOOT = 0, 10

Row = dict[str, Any]


def aim_of(strategy: str, nodes: int) -> float | None:
    """Bytes over D that may be copied until the last node is back; None where nothing is promised."""
    return {
        "surge": 1.02,
        "drain": 1.05 * (1 + 1 / nodes),
        "in_place": 0.02,
        "auto": 0.02,
    }.get(strategy)


@dataclass
class Course:
    """What is noted while a task runs: (seconds since the epoch, seconds left as told then)."""

    guesses: list[tuple[float, float | None]] = field(default_factory=list)

    def note(self, task: Task, now: datetime) -> None:
        guess = eta(task, now)
        self.guesses.append((now.timestamp(), None if guess is None else guess.left_s))

    def error(self, begin_s: float, end_s: float) -> float | None:
        """At a quarter of the run: how far the time told to be left was off, as a share of what was left."""
        quarter_s = begin_s + QUARTER * (end_s - begin_s)
        left_s = next((left for at_s, left in self.guesses if at_s >= quarter_s and left is not None), None)
        at_s = next((at for at, left in self.guesses if at >= quarter_s and left is not None), end_s)
        if left_s is None or at_s >= end_s or at_s > begin_s + 2 * QUARTER * (end_s - begin_s):
            return None
        return abs(left_s - (end_s - at_s)) / (end_s - at_s)


def told(where: str, nodes: int, strategy: str, data_bytes: int, **seen: Any) -> Row:
    aim = aim_of(strategy, nodes)
    share = seen["walk_bytes"] / data_bytes
    limit_s = seen["boots_s"] + seen["walk_bytes"] / _BANDWIDTH
    return {
        "where": where,
        "nodes": nodes,
        "strategy": strategy,
        "at_once": seen.get("at_once", 1),
        "ended": seen["ended"],
        "data_bytes": data_bytes,
        "bytes_over_data": round(share, 3),
        "aim": aim and round(aim, 3),
        "within_aim": None if aim is None else share <= aim,
        "with_last_balancing": round(seen["bytes"] / data_bytes, 3),
        "wall_s": round(seen["wall_s"], 1),
        "limit_s": None if strategy == PLAIN else round(limit_s, 1),
        "wall_over_limit": None if strategy == PLAIN or not limit_s else round(seen["wall_s"] / limit_s, 2),
        "eta_error": None if seen.get("eta_error") is None else round(seen["eta_error"], 2),
    }


def of_task(task: Task) -> dict[str, Any]:
    """Wall time until the last node is back, and the boots it had to wait for: of each batch the longest, of each spare
    its own."""
    ends = [row.end for row in task.steps if row.end]
    begins = [row.begin for row in task.steps if row.begin]
    boots = {row.node: (row.end - row.begin).total_seconds() for row in task.steps
             if row.order == _BOOT and row.begin and row.end}  # fmt: skip
    boots_s = sum(max((boots.get(node.name, 0.0) for node in batch), default=0.0) for batch in task.plan.batches)
    first = {node.name for node in task.plan.nodes if node.raises_spare}
    spares = [row.evidence.get("spare_boot_s") for row in task.steps if row.order == _MIGRATION and row.node in first]
    boots_s += sum(one for one in spares if isinstance(one, int | float))
    return {
        "ended": str(task.status),
        "bytes": task.bytes_moved,
        "wall_s": (max(ends) - min(begins)).total_seconds(),
        "boots_s": boots_s,
        "end_s": max(ends).timestamp(),
    }
