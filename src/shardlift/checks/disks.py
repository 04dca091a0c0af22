"""Rules about disks: room for what leaves a node, and the watermarks above which nothing comes to one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from shardlift.checks.placement import items
from shardlift.checks.subject import Subject, blocks, warns
from shardlift.checks.zones import held_settings
from shardlift.model import (
    FORCED_ZONES,
    WATERMARK_LOW,
    Finding,
    NodeSeen,
    Strategy,
    free_at_low,
    thresholds_enabled,
    watermark_low,
)

# CSS asks for 20 % of the disk to stay free while one node's data sits on the others; also below the engines' own low
# watermark of 85 %.
_DISK_USED_MAX = 0.80


@dataclass(slots=True)
class _Pool:
    """Nodes among which data moves, in bytes. `roomiest`: the two with the most free space, so that one may be left
    out."""

    total: int = 0
    used: int = 0
    roomiest: tuple[tuple[int, str], ...] = ()

    def add(self, node: NodeSeen) -> None:
        self.total += node.disk_total_bytes or 0
        self.used += node.disk_used_bytes or 0
        self.roomiest = tuple(sorted((*self.roomiest, (node.disk_available_bytes or 0, node.name)), reverse=True)[:2])


def disk_room(subject: Subject) -> Iterator[Finding]:
    """The data of the node to be drained fits on the others: used / (capacity without it) below 80 %.

    Asked per tier, since data stays in its tier, and per zone where that one is forced: not of a zone that is being
    emptied, which is taken out of the list before. The largest shard must also fit on one of them. Nodes that share one
    file system report the same disk; taking each figure as it stands errs on the safe side for used space. In place
    nothing moves, so only a warning is due there; with surge it goes to the empty disk of a spare.
    """
    if subject.strategy is Strategy.SURGE:
        return  # what leaves a node goes to one whose disk is empty
    told = blocks if subject.strategy is Strategy.DRAIN else warns
    data = [node for node in subject.seen.nodes if node.holds_data]
    unknown = next((node for node in data if node.disk_used_bytes is None), None)
    if unknown is not None:
        yield told(
            "disk_room",
            unknown.name,
            reason="its disk usage is not known",
            evidence="GET _nodes/stats/fs has no figures for it",
            remedy="see in its log whether its data path is readable, until GET _cat/allocation shows its disk",
        )
        return
    forced = items(held_settings(subject).effective(FORCED_ZONES))
    pools: dict[object, _Pool] = {}
    for node in data:
        for pool in {_pool(node, forced), _pool(node, ())}:
            pools.setdefault(pool, _Pool()).add(node)
    taken = {node.name for node in subject.taken}
    for node in data:
        if node.name not in taken:
            continue
        problem = _too_full(subject, node, pools[_pool(node, forced)])
        if problem is not None:
            yield told(
                "disk_room",
                node.name,
                reason="the other nodes' disks are too full to take its data",
                evidence=problem,
                remedy="DELETE indices that are not needed, add a data node, or use the strategy in_place",
            )


def _pool(node: NodeSeen, forced: Collection[str]) -> object:
    tiers = frozenset(role for role in node.roles if role == "data" or role.startswith("data_"))
    return tiers, node.zone if node.zone in forced else None


def _too_full(subject: Subject, node: NodeSeen, pool: _Pool) -> str | None:
    copies = subject.seen.copies_on(node.name)
    known = [copy.size_bytes for copy in copies if copy.size_bytes is not None]
    # A copy of unknown size is somewhere in what the disk holds.
    need = sum(known) if len(known) == len(copies) else max(node.disk_used_bytes or 0, sum(known))
    total = pool.total - (node.disk_total_bytes or 0)
    used = pool.used - (node.disk_used_bytes or 0) + need
    if not total:
        return None  # whether a lone node of a tier can be drained at all is the dry run's question
    if used / total > _DISK_USED_MAX:
        return f"{used / total:.0%} would be used of {total} bytes, the limit is {_DISK_USED_MAX:.0%}"
    largest = max(known, default=0)
    room = next((free for free, name in pool.roomiest if name != node.name), 0)
    return None if largest <= room else f"its largest shard has {largest} bytes, no other node more than {room} free"


def disk_watermarks(subject: Subject) -> Iterator[Finding]:
    """No data node is above the low watermark in force: no replica may come to one, not even back to its own node.

    Once a node is drained the others may well be that full, with all of it to return soon; so what counts when a node
    is to stop is whether copies could return to that node itself.
    """
    settings = subject.seen.settings
    if not thresholds_enabled(settings):
        return
    for node in subject.seen.nodes:
        if not node.holds_data:
            continue
        free, total = node.disk_available_bytes, node.disk_total_bytes
        needed = None if total is None else free_at_low(settings, total)
        if free is not None and needed is not None and free > needed:
            continue
        returns = subject.node is None or (subject.node.name == node.name and subject.strategy.keeps_data)
        told = blocks if returns else warns
        yield told(
            "disk_watermarks",
            node.name,
            reason="its disk is above the low watermark, or that is not known: no replica may come to it",
            evidence=f"{free} bytes free of {total}, {WATERMARK_LOW} is {watermark_low(settings)}",
            remedy="DELETE indices that are not needed or add a data node, until GET _cat/allocation shows it below; "
            f"if the disk is large enough, raise {WATERMARK_LOW} and the watermarks above it (PUT _cluster/settings)",
        )
