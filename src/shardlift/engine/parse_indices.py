"""Indices and their shard copies, from the engine's JSON. Pure; raises LookupError, TypeError or ValueError."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shardlift.engine.parse_nodes import names
from shardlift.model import CopyState, EngineKind, IndexSeen, ShardCopy, Version

Json = Any

_OPENSEARCH_MASK = 0x08000000  # set in OpenSearch's version ids, so that they sort above every Elasticsearch id
_FIRST_INDEX_VERSION = 8_500_000  # Elasticsearch 8.9 and later number index formats apart from releases


def created(version_id: object) -> tuple[EngineKind, Version] | None:
    """Engine and version behind `index.version.created`, a decimal id such as 7100299 or 136408127.

    Ids are major, minor, patch and build, two digits each. Elasticsearch's index format numbers keep only the major
    version readable: minor and patch are given as 0 then.
    """
    try:
        number = int(str(version_id))
    except ValueError:
        return None
    if number <= 0:
        return None
    by = EngineKind.ELASTICSEARCH
    if number & _OPENSEARCH_MASK:
        by, number = EngineKind.OPENSEARCH, number ^ _OPENSEARCH_MASK
    elif number >= _FIRST_INDEX_VERSION:
        return by, Version(number // 1_000_000, 0, 0)
    return by, Version(number // 1_000_000, number // 10_000 % 100, number // 100 % 100)


def indices(state: Json) -> tuple[IndexSeen, ...]:
    """All indices by name, from a cluster state's metadata with flat settings."""
    found = state.get("metadata", {}).get("indices", {})
    return tuple(_index(name, found[name]) for name in sorted(found))


def _index(name: str, entry: Json) -> IndexSeen:
    settings = {key: flat_value(value) for key, value in entry["settings"].items()}
    origin = created(settings.get("index.version.created"))
    return IndexSeen(
        name=name,
        created_on=origin[1] if origin else None,
        created_by=origin[0] if origin else None,
        primaries=int(settings["index.number_of_shards"]),
        replicas=int(settings["index.number_of_replicas"]),
        closed=entry["state"] == "close",
        settings=settings,
    )


def flat_value(value: object) -> str:
    """A setting as a string, lists joined by commas."""
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def copies(state: Json) -> tuple[ShardCopy, ...]:
    """Every copy in the master's routing table, in the order index, shard, primary first.

    A relocating copy appears once, as its source; the target is in `relocating_to`.
    """
    node_names = names(state)
    found = [
        _copy(entry, node_names)
        for index in state.get("routing_table", {}).get("indices", {}).values()
        for shard in index["shards"].values()
        for entry in shard
    ]
    return tuple(sorted(found, key=lambda copy: (copy.index, copy.shard, not copy.primary, copy.node or "")))


def _copy(entry: Json, node_names: Mapping[str, str]) -> ShardCopy:
    state = CopyState(entry["state"])
    node, target = entry.get("node"), entry.get("relocating_node")
    return ShardCopy(
        index=entry["index"],
        shard=int(entry["shard"]),
        primary=bool(entry["primary"]),
        state=state,
        node=node_names.get(node, node) if node else None,
        relocating_to=node_names.get(target, target) if target and state is CopyState.RELOCATING else None,
        unassigned_reason=entry.get("unassigned_info", {}).get("reason") if state is CopyState.UNASSIGNED else None,
    )


Sizes = Mapping[tuple[str, int, bool, str], int]
"""Bytes by index, shard, primary and node id."""


def sizes(rows: Json) -> Sizes:
    """From `_cat/shards?format=json&bytes=b&h=index,shard,prirep,id,store`; copies without a size are left out."""
    return {
        (row["index"], int(row["shard"]), row["prirep"] == "p", row["id"]): int(row["store"])
        for row in rows
        if row.get("store") is not None and row.get("id")
    }


def with_sizes(found: tuple[ShardCopy, ...], node_ids: Mapping[str, str], known: Sizes) -> tuple[ShardCopy, ...]:
    """The copies with their sizes. `node_ids`: node name to id."""
    return tuple(
        replace(copy, size_bytes=known.get((copy.index, copy.shard, copy.primary, node_ids.get(copy.node or "", ""))))
        for copy in found
    )
