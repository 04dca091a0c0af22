"""From a request to change, replace or restart nodes to what is to be done with which of them.

Looks at what Shardlift knows of the cluster, and at nothing else: what the rules say to it comes afterwards.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from shardlift.errors import NotFoundError, RefusedError, UsageError
from shardlift.model import AZ_MIGRATE, MULTI_AZ_CHANGE, Cluster, InstanceType, Node, Strategy, TaskKind, ZoneChange
from shardlift.planner import spread
from shardlift.service.requests import Intent, MigrateRequest, ReplaceRequest, RestartRequest

ALL = "all"
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_BY = ("role", "node", "az")
_NAMED_MAX = 10


def migration(cluster: Cluster, request: MigrateRequest, known_zones: frozenset[str]) -> Intent:
    """All nodes of the type from one zone to another, or dealt evenly over several.

    `known_zones`: those that there are, empty when any name will do. Raises NotFoundError for a zone that is none of
    them, UsageError with the field that is wrong otherwise: `inst_type`, `migrate_type`, `source_az`, `target_az`.
    """
    nodes = of_type(cluster, request.inst_type, "inst_type")
    source, target = _zones(request.source, "source_az"), _zones(request.target, "target_az")
    unknown = [zone for zone in target if known_zones and zone not in known_zones]
    if unknown:
        raise NotFoundError(
            f"there is no zone {unknown[0]}",
            field="target_az",
            value=unknown[0],
            remedy=f"choose of {', '.join(sorted(known_zones))}, or add it to SHARDLIFT_ZONES",
        )
    here = {node.zone for node in nodes}
    if not here & {*source}:
        raise UsageError(
            f"no {request.inst_type} node is in {request.source}",
            field="source_az",
            value=request.source,
            remedy=f"choose of {', '.join(sorted(here))}" if here else "the cluster has no such nodes",
        )
    migrate_type = request.migrate_type or (AZ_MIGRATE if len(target) == 1 else MULTI_AZ_CHANGE)
    if migrate_type not in (AZ_MIGRATE, MULTI_AZ_CHANGE):
        raise UsageError(
            f"no kind of migration {migrate_type!r}",
            field="migrate_type",
            value=migrate_type,
            remedy=f"choose {AZ_MIGRATE} or {MULTI_AZ_CHANGE}",
        )
    moves = _from_to(nodes, source, target) if migrate_type == AZ_MIGRATE else spread(nodes, target)
    if not moves:
        raise UsageError(
            f"the {request.inst_type} nodes are in {request.target} already",
            field="target_az",
            value=request.target,
            remedy="choose other zones",
        )
    return Intent(
        kind=TaskKind.AZ_MIGRATION,
        strategy=Strategy.DRAIN,
        chosen=frozenset(moves),
        to_zones=moves,
        zones=ZoneChange(request.inst_type, migrate_type, request.source, request.target, _final(nodes, moves)),
        agency=request.agency,
        backup_check=request.backup_check,
    )


def replacement(cluster: Cluster, request: ReplaceRequest) -> Intent:
    """One node comes back new, under the same id, name and address. Raises NotFoundError for an unknown one."""
    node = next((one for one in cluster.nodes if request.node in (one.id, one.name)), None)
    if node is None:
        raise NotFoundError(
            f"cluster {cluster.name} has no node {request.node!r}",
            field="node",
            value=request.node,
            remedy=f"choose of {', '.join(one.name for one in cluster.nodes[:_NAMED_MAX])}",
        )
    return Intent(
        kind=TaskKind.REPLACING,
        strategy=Strategy.DRAIN if request.migrate_data else Strategy.IN_PLACE,
        chosen=frozenset({node.name}),
        unsaved=not request.migrate_data,
        agency=request.agency,
    )


def restart(cluster: Cluster, request: RestartRequest) -> Intent:
    """Nodes end and start again one by one, with all that they have. Raises UsageError (`type`, `value`)."""
    if request.by not in _BY:
        raise UsageError(
            f"nodes are not restarted by {request.by!r}",
            field="type",
            value=request.by,
            remedy=f"choose of {', '.join(_BY)}",
        )
    names = _meant(cluster, request.by, request.value)
    if not names:
        raise UsageError(
            f"no node of cluster {cluster.name} is meant by {request.by} {request.value!r}",
            field="value",
            value=request.value,
            remedy="name node types (`all` for every node), node ids or zones, joined by commas",
        )
    return Intent(kind=TaskKind.REBOOTING, strategy=Strategy.IN_PLACE, chosen=names)


def one_image(cluster: Cluster, chosen: Iterable[str]) -> str:
    """The image that all of these nodes run. Raises RefusedError when they run two: an upgrade is half done."""
    taken = {*chosen}
    images = sorted({node.image_id for node in cluster.nodes if node.name in taken})
    if len(images) > 1:
        raise RefusedError(
            f"the nodes of cluster {cluster.name} run {len(images)} different images: {', '.join(images)}",
            remedy="finish the upgrade that was begun first: `shardlift upgrade` takes the nodes that are left",
        )
    return images[0]


def of_type(cluster: Cluster, inst_type: str, field: str) -> tuple[Node, ...]:
    """The nodes of that CSS type; `all`: every node. Raises UsageError for an unknown word, naming `field`."""
    if inst_type == ALL:
        return cluster.nodes
    if inst_type not in {*InstanceType}:
        raise UsageError(
            f"no node type {inst_type!r}",
            field=field,
            value=inst_type,
            remedy=f"choose of {', '.join((ALL, *InstanceType))}",
        )
    return tuple(node for node in cluster.nodes if node.instance_type == inst_type)


def _meant(cluster: Cluster, by: str, value: str) -> frozenset[str]:
    words = {part.strip() for part in value.split(",") if part.strip()}
    if by == "role":
        nodes: Iterable[Node] = (node for word in sorted(words) for node in of_type(cluster, word, "value"))
    elif by == "node":
        nodes = (node for node in cluster.nodes if words & {node.id, node.name})
    else:
        nodes = (node for node in cluster.nodes if node.zone in words)
    return frozenset(node.name for node in nodes)


def _from_to(nodes: Iterable[Node], source: Sequence[str], target: Sequence[str]) -> Mapping[str, str]:
    for field, zones in (("source_az", source), ("target_az", target)):
        if len(zones) != 1:
            raise UsageError(
                f"{AZ_MIGRATE} goes from one zone to one other",
                field=field,
                value=",".join(zones),
                remedy=f"name one zone, or use {MULTI_AZ_CHANGE}",
            )
    if source == target:
        raise UsageError(
            "source and target are the same zone", field="target_az", value=target[0], remedy="choose another zone"
        )
    return {node.name: target[0] for node in nodes if node.zone == source[0]}


def _final(nodes: Iterable[Node], moves: Mapping[str, str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    final: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        final[moves.get(node.name, node.zone)].append(node.name)
    return tuple((zone, tuple(names)) for zone, names in sorted(final.items()))


def _zones(text: str, field: str) -> tuple[str, ...]:
    zones = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not all(_ZONE.fullmatch(zone) for zone in zones):
        raise UsageError(
            f"{text!r} names no zone",
            field=field,
            value=text,
            remedy="a zone's name has 1 to 64 letters, digits, - . or _; several are joined by commas",
        )
    return zones
