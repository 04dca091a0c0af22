"""What to do about a copy that can go nowhere, by the decider that objects: requests to copy where there are any."""

from __future__ import annotations

import json
from collections.abc import Callable

from shardlift.checks import Subject
from shardlift.checks.subject import put_settings
from shardlift.model import AWARE_OF, IndexSeen


def remedy(subject: Subject, name: str, decider: str) -> str:
    """What lifts the objection of that decider to copies of the index, as a request where there is one."""
    index = next((one for one in subject.seen.indices if one.name == name), None)
    made = _REMEDIES.get(decider)
    return made(subject, name, index) if made else "add a data node that may hold the copy, then try again"


def _put(index: str, key: str, value: object) -> str:
    return f"PUT {index}/_settings {json.dumps({key: value})}"


def _own(index: IndexSeen | None, prefix: str) -> list[str]:
    found = () if index is None else sorted(index.settings.items())
    return [key for key, value in found if key.startswith(prefix) and value]


def _clear(subject: Subject, key: str) -> str:
    """Removes a cluster setting where it is; one from a configuration file can only be outdone."""
    settings = subject.seen.settings
    layer = next((one for one in ("transient", "persistent") if key in settings.layer(one)), None)
    return put_settings(layer or "persistent", key, None if layer else "")


def _filter(subject: Subject, name: str, index: IndexSeen | None) -> str:
    keys = [
        key
        for kind in ("require", "include", "exclude")
        for key in _own(index, f"index.routing.allocation.{kind}.")
        if not key.startswith(f"index.routing.allocation.{kind}._tier")
    ]
    if keys:
        return " and ".join(_put(name, key, None) for key in keys) + ", or let it name more nodes"
    settings = subject.seen.settings
    kinds = tuple(f"cluster.routing.allocation.{kind}." for kind in ("require", "include", "exclude"))
    keys = sorted(
        key
        for key in {*settings.persistent, *settings.transient, *settings.defaults}
        if key.startswith(kinds) and settings.effective(key)
    )
    return " and ".join(_clear(subject, key) for key in keys) or "remove the allocation filters"


def _shards_limit(subject: Subject, name: str, index: IndexSeen | None) -> str:
    key = "index.routing.allocation.total_shards_per_node"
    data = sum(node.holds_data for node in subject.seen.nodes)
    if index is not None and index.settings.get(key):
        now = index.settings[key]
        needed = -(-index.primaries * (index.replicas + 1) // max(data - 1, 1))
        more = max(needed, int(now) + 1 if now.isdecimal() else needed)
        return f"{_put(name, key, more)}, or {_put(name, key, None)}"
    return _clear(subject, "cluster.routing.allocation.total_shards_per_node")


def _enable(subject: Subject, name: str, index: IndexSeen | None) -> str:
    key = "index.routing.allocation.enable"
    if index is not None and index.settings.get(key):
        return _put(name, key, None)
    return _clear(subject, "cluster.routing.allocation.enable")


def _data_tier(_subject: Subject, name: str, index: IndexSeen | None) -> str:
    keys = [key for kind in ("require", "include") for key in _own(index, f"index.routing.allocation.{kind}._tier")]
    clear = " and ".join(_put(name, key, None) for key in keys)
    return f"add a node to that tier, or {clear} until the upgrade is done"


def _awareness(subject: Subject, name: str, index: IndexSeen | None) -> str:
    attributes = subject.seen.settings.effective(AWARE_OF)
    fewer = max((index.replicas if index else 1) - 1, 0)
    return (
        f"add a data node with another value of {attributes}, or {_put(name, 'index.number_of_replicas', fewer)} until "
        "the upgrade is done"
    )


def _same_shard(subject: Subject, name: str, index: IndexSeen | None) -> str:
    data = sum(node.holds_data for node in subject.seen.nodes)
    fewer = min(max((index.replicas if index else 1) - 1, 0), max(data - 2, 0))
    return f"add a data node, or {_put(name, 'index.number_of_replicas', fewer)} until the upgrade is done"


def _disk(_subject: Subject, _name: str, _index: IndexSeen | None) -> str:
    return (
        "free disk space on the other nodes or add a data node, until GET _cat/allocation?v shows room for the copy, "
        "or use the strategy in_place"
    )


def _node_version(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return (
        f"add a data node with the target version, or {_put(name, 'index.number_of_replicas', 0)} until the upgrade is "
        "done, or use the strategy in_place"
    )


def _closed(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return f"POST {name}/_open and wait for green, or DELETE {name}, or use the strategy in_place"


def _no_primary(_subject: Subject, name: str, _index: IndexSeen | None) -> str:
    return f"bring back the node with the primary of {name}, or restore the index from a snapshot"


_REMEDIES: dict[str, Callable[[Subject, str, IndexSeen | None], str]] = {
    "enable": _enable,
    "closed_index": _closed,
    "filter": _filter,
    "shards_limit": _shards_limit,
    "data_tier": _data_tier,
    "awareness": _awareness,
    "disk_threshold": _disk,
    "node_version": _node_version,
    "replica_after_primary_active": _no_primary,
    "same_shard": _same_shard,
}
