"""How fast shard copies may move: the engines' limit of recoveries, raised while no node is busy. Pure.

The limit (`indices.recovery.max_bytes_per_sec`) is there to protect clients. So it is doubled only while every node is
known to have room, is halved as soon as one has none, and goes back to what it was when nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from shardlift.checks.gates import closed_gates
from shardlift.checks.settled import load_figures
from shardlift.model import Gates, NodeSeen

RECOVERY_LIMIT = "indices.recovery.max_bytes_per_sec"
_UNITS = {"b": 0, "k": 1, "kb": 1, "m": 2, "mb": 2, "g": 3, "gb": 3, "t": 4, "tb": 4, "p": 5, "pb": 5}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)([a-z]{1,2})")
# A node is busy from the limits of the rule load_low on, and calm below half of them. In between the limit stays as it
# is, or it would be raised and lowered in turn: moving faster is a load of its own.
_CALM_SHARE = 0.5
# A healthy heap goes up and down below three quarters.
_HEAP_CALM_PERCENT, _HEAP_BUSY_PERCENT = 75, 85
# A gate that just holds is no reason to go faster.
_LATENCY_CALM_SHARE = 0.8
_LATENCIES = frozenset({"search_latency_ms", "write_latency_ms"})
# More room on a disk is nothing that moving slower would bring.
_NO_LOAD = frozenset({"disk_percent"})
# Elasticsearch gives nodes of these tiers alone a limit by their memory, as long as nobody sets one.
_OWN_LIMIT = frozenset({"data_cold", "data_frozen"})


class Load(StrEnum):
    """`ALARM`: not known of some node, or above a gate of the task."""

    CALM = "calm"
    FAIR = "fair"
    BUSY = "busy"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """The load of the node that bears most, and for all but CALM which node that is and how much."""

    load: Load
    why: str = ""


def next_limit_bytes(base_bytes: int, present_bytes: int, load: Load, factor: int) -> int:
    """The limit from now on: never below what stood there, never above `factor` times that. Bytes per second."""
    wanted = {
        Load.CALM: present_bytes * 2,
        Load.FAIR: present_bytes,
        Load.BUSY: present_bytes // 2,
        Load.ALARM: base_bytes,
    }[load]
    return max(base_bytes, min(wanted, base_bytes * factor))


def judge_load(before: tuple[NodeSeen, ...], now: tuple[NodeSeen, ...], gates: Gates) -> LoadSeen:
    """What all nodes bear between two readings; `before` may be empty. CALM only for nodes that both of them know.

    Latencies are judged by the task's own gates alone: what is slow, only its people know.
    """
    if not now:
        return LoadSeen(Load.ALARM, "the nodes do not tell their load")
    earlier = {node.name: node for node in before}
    limits = {name: limit for name, limit in gates.limits.items() if name not in _NO_LOAD}
    asked = (
        (Load.ALARM, _unknown(now)),
        (Load.ALARM, _closed(earlier, now, limits)),
        (Load.BUSY, _above(earlier, now, calm=False)),
        (Load.FAIR, _above(earlier, now, calm=True)),
        (Load.FAIR, _closed(earlier, now, _tighter(limits))),
        (Load.FAIR, (f"{node.name} was not there before" for node in now if node.name not in earlier)),
    )
    return next((LoadSeen(load, why) for load, found in asked for why in found), LoadSeen(Load.CALM))


def base_limit_bytes(
    chosen: str | None, configured: Mapping[str, str | None], default: str | None, nodes: tuple[NodeSeen, ...]
) -> int | None:
    """The limit that stands on all nodes, in bytes per second; None where there is none, or not one for all.

    `chosen`: as a setting of the cluster, None while that has none. `configured`: by the name of each node that has
    told, the one in its configuration file. `default`: what holds otherwise.
    """
    if chosen is not None:
        return limit_bytes(chosen)
    if any(node.name not in configured for node in nodes):
        return None
    texts = {configured[node.name] for node in nodes}
    if len(texts) != 1:
        return None
    (text,) = texts
    if text is None and any(_own_limit(node) for node in nodes):
        return None
    return limit_bytes(text or default or "")


def limit_text(size_bytes: int) -> str:
    """As we write it: in bytes, which people do not. So theirs is told from ours even when it is just as much."""
    return f"{size_bytes}b"


def limit_bytes(text: str) -> int | None:
    """A limit in the engines' words; None for one that does not limit, or is none."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] not in _UNITS:
        return None
    return int(float(found[1]) * 1024 ** _UNITS[found[2]]) or None


def _own_limit(node: NodeSeen) -> bool:
    data = {role for role in node.roles if role == "data" or role.startswith("data_")}
    return bool(data) and data <= _OWN_LIMIT


def _figures(node: NodeSeen) -> Iterator[tuple[str, float | None, float, float]]:
    """What, how much, calm below, busy from."""
    for what, value, limit in load_figures(node):
        yield what, value, limit * _CALM_SHARE, limit
    yield "heap percent", node.heap_used_percent, _HEAP_CALM_PERCENT, _HEAP_BUSY_PERCENT


def _unknown(nodes: tuple[NodeSeen, ...]) -> Iterator[str]:
    for node in nodes:
        yield from (f"{node.name}: {what} is not known" for what, value, _, _ in _figures(node) if value is None)
        if node.rejected_total is None:
            yield f"{node.name}: rejections are not known"


def _above(earlier: Mapping[str, NodeSeen], nodes: tuple[NodeSeen, ...], *, calm: bool) -> Iterator[str]:
    for node in nodes:
        for what, value, calm_below, busy_from in _figures(node):
            limit = calm_below if calm else busy_from
            if value is not None and value >= limit:
                yield f"{node.name}: {what} is {value:.2f}, the limit {limit:g}"
        before = earlier.get(node.name, node)
        if (node.rejected_total or 0) > (before.rejected_total or 0):
            yield f"{node.name}: requests were refused"


def _closed(earlier: Mapping[str, NodeSeen], nodes: tuple[NodeSeen, ...], limits: Mapping[str, float]) -> Iterator[str]:
    for finding in closed_gates(earlier, nodes, limits):
        yield f"{finding.rule}: {finding.subject}: {finding.evidence}"


def _tighter(limits: Mapping[str, float]) -> dict[str, float]:
    return {name: limit * _LATENCY_CALM_SHARE for name, limit in limits.items() if name in _LATENCIES}
