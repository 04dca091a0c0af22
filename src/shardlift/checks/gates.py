"""Gates between nodes: whether the cluster bears the upgrade well enough for the next node. Pure.

Engines count and never tell a rate, so each question is about two readings: what was done in between, and how long it
took. A counter that went backwards belongs to a process that was started in between, of which nothing can be said. What
could not be read is no proof that all is well, and counts as breached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from shardlift.model import Finding, Gates, NodeSeen, Observation, Severity

_REMEDY = "see what loads this node; the gate opens by itself once the value is within its limit"
_UNKNOWN_REMEDY = (
    "see why the node does not tell it (GET _nodes/stats); the gate opens once it is known and within limits"
)

# The value of one node between two readings: None is unknown, a negative one says that there is nothing to judge.
Reading = Callable[[NodeSeen, NodeSeen], float | None]
_NOTHING = -1.0


def gate_findings(before: Observation, now: Observation, gates: Gates) -> tuple[Finding, ...]:
    """The gates that are closed, in the order of `Gates.limits`, node by node.

    Counters are compared for nodes that both readings know; heap and disk are judged as they are now.
    """
    return closed_gates(before.members, now.nodes, gates.limits)


def closed_gates(
    before: Mapping[str, NodeSeen], now: Sequence[NodeSeen], limits: Mapping[str, float]
) -> tuple[Finding, ...]:
    """The same for the nodes alone; `before` by name."""
    return tuple(
        finding
        for name, limit in limits.items()
        for member in now
        for finding in _asked(name, limit, before.get(member.name), member)
    )


def gates_unknown(gates: Gates, why: str) -> tuple[Finding, ...]:
    """All gates closed, because the cluster did not answer."""
    return tuple(
        _closed(name, "cluster", "the cluster does not tell it", f"unknown: {why}", _UNKNOWN_REMEDY)
        for name in gates.limits
    )


def _asked(name: str, limit: float, before: NodeSeen | None, now: NodeSeen) -> Iterator[Finding]:
    reading, unit, applies = _READINGS[name]
    if not applies(now) or (before is None and name in _COUNTED):
        return
    value = reading(before or now, now)
    if value is None:
        yield _closed(name, now.name, "it is not known", f"unknown, the limit is {limit:g}{unit}", _UNKNOWN_REMEDY)
    elif value > limit:
        yield _closed(
            name, now.name, "it is above its limit", f"{value:.4g}{unit}, the limit is {limit:g}{unit}", _REMEDY
        )


def _closed(name: str, subject: str, reason: str, evidence: str, remedy: str) -> Finding:
    return Finding(_RULES[name], Severity.BLOCK, subject, reason, evidence, remedy)


def _latency(count: Callable[[NodeSeen], int | None], time_ms: Callable[[NodeSeen], int | None]) -> Reading:
    def reading(before: NodeSeen, now: NodeSeen) -> float | None:
        done, took_ms = _grown(count(before), count(now)), _grown(time_ms(before), time_ms(now))
        if done is None or took_ms is None:
            return None
        return _NOTHING if done <= 0 or took_ms < 0 else took_ms / done

    return reading


def _rejections(before: NodeSeen, now: NodeSeen) -> float | None:
    grown = _grown(before.rejected_total, now.rejected_total)
    return None if grown is None else max(grown, _NOTHING)


def _disk_percent(_before: NodeSeen, now: NodeSeen) -> float | None:
    if now.disk_used_bytes is None or not now.disk_total_bytes:
        return None
    return 100 * now.disk_used_bytes / now.disk_total_bytes


def _grown(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def _any(_node: NodeSeen) -> bool:
    return True


_COUNTED = frozenset({"search_latency_ms", "write_latency_ms", "rejections"})
_RULES = {
    "search_latency_ms": "gate_search_latency",
    "write_latency_ms": "gate_write_latency",
    "rejections": "gate_rejections",
    "heap_percent": "gate_heap",
    "disk_percent": "gate_disk",
}
# By limit: how it is read, its unit, and which nodes it is asked of.
_READINGS: dict[str, tuple[Reading, str, Callable[[NodeSeen], bool]]] = {
    "search_latency_ms": (
        _latency(lambda node: node.search_total, lambda node: node.search_time_ms),
        " ms",
        lambda node: node.holds_data,
    ),
    "write_latency_ms": (
        _latency(lambda node: node.write_total, lambda node: node.write_time_ms),
        " ms",
        lambda node: node.holds_data,
    ),
    "rejections": (_rejections, " requests", _any),
    "heap_percent": (lambda _before, now: now.heap_used_percent, " %", _any),
    "disk_percent": (_disk_percent, " %", lambda node: node.holds_data),
}
