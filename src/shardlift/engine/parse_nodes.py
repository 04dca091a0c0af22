"""Members of a cluster, from the engine's JSON. Pure; raises LookupError, TypeError or ValueError on another shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from shardlift.model import EngineKind, NodeSeen, PluginSeen, Version

Json = Any

_LOWEST_ELASTICSEARCH_MAJOR = 6  # OpenSearch began anew at 1; Elasticsearch below 6.8 is out of our range


def engine_of(version: Version) -> EngineKind:
    """Which engine a node of this version is: the two number spaces do not meet."""
    return EngineKind.ELASTICSEARCH if version.major >= _LOWEST_ELASTICSEARCH_MAJOR else EngineKind.OPENSEARCH


def names(state: Json) -> dict[str, str]:
    """Node id to node name, from a cluster state with `nodes`."""
    return {node_id: node["name"] for node_id, node in state.get("nodes", {}).items()}


def elected(state: Json) -> str | None:
    """Name of the elected master, from a cluster state with `master_node` and `nodes`."""
    node_id = state.get("master_node") or state.get("cluster_manager_node")
    return names(state).get(node_id) if node_id else None


def versions(info: Json) -> frozenset[Version]:
    """The versions that run in the cluster, from `/_nodes`."""
    return frozenset(Version.parse(node["version"]) for node in info["nodes"].values())


def members(state: Json, info: Json) -> tuple[NodeSeen, ...]:
    """The master's list of nodes with each one's own account of itself, by name.

    A node that the master lists, but that did not answer `/_nodes` (it is just leaving or hangs), is left out: its
    version is unknown, and a member of unknown version must not look like one of the right version.
    """
    own = info["nodes"]
    seen = (_member(node_id, entry, own[node_id]) for node_id, entry in state["nodes"].items() if node_id in own)
    return tuple(sorted(seen, key=lambda node: node.name))


def _member(node_id: str, entry: Json, own: Json) -> NodeSeen:
    version = Version.parse(own["version"])
    jvm = own.get("jvm", {})
    return NodeSeen(
        name=entry["name"],
        id=node_id,
        ephemeral_id=entry["ephemeral_id"],
        address=entry["transport_address"],
        engine=engine_of(version),
        version=version,
        roles=frozenset(own.get("roles", ())),
        attributes={str(key): str(value) for key, value in own.get("attributes", {}).items()},
        plugins=tuple(
            sorted(
                (PluginSeen(plugin["name"], str(plugin["version"])) for plugin in own.get("plugins", ())),
                key=lambda plugin: plugin.name,
            )
        ),
        java_version=jvm.get("version"),
        started_at_ms=jvm.get("start_time_in_millis"),
    )


# What Elasticsearch 7.10 says of an OpenSearch 1.x node in its cluster, because that one presents itself so to it.
_DISGUISE = Version(7, 10, 2)


def disguised(nodes: tuple[NodeSeen, ...]) -> tuple[str, ...]:
    """Names of the nodes whose version only they themselves can tell."""
    return tuple(node.name for node in nodes if node.version == _DISGUISE)


def with_own_versions(nodes: tuple[NodeSeen, ...], told: Mapping[str, Version | None]) -> tuple[NodeSeen, ...]:
    """The nodes with the versions that they told of themselves; without those that could not say (None)."""
    seen = []
    for node in nodes:
        version = told.get(node.name, node.version)
        if version is not None:
            seen.append(replace(node, version=version, engine=engine_of(version)))
    return tuple(seen)


def with_load(nodes: tuple[NodeSeen, ...], stats: Json) -> tuple[NodeSeen, ...]:
    """The nodes with disk and load figures from `/_nodes/stats`, where that has them."""
    found = stats.get("nodes", {})
    return tuple(_loaded(node, found.get(node.id, {})) for node in nodes)


def _loaded(node: NodeSeen, stats: Json) -> NodeSeen:
    disk = _at(stats, "fs", "total")
    return replace(
        node,
        disk_total_bytes=_known(disk.get("total_in_bytes")),
        disk_available_bytes=_known(disk.get("available_in_bytes")),
        heap_used_percent=_known(_at(stats, "jvm", "mem").get("heap_used_percent")),
        cpu_percent=_known(_at(stats, "process", "cpu").get("percent")),
        load_1m=_load_1m(stats),
        search_queue=_known(_at(stats, "thread_pool", "search").get("queue")),
        write_queue=_known(_at(stats, "thread_pool", "write").get("queue")),
        search_total=_known(_at(stats, "indices", "search").get("query_total")),
        search_time_ms=_known(_at(stats, "indices", "search").get("query_time_in_millis")),
        write_total=_known(_at(stats, "indices", "indexing").get("index_total")),
        write_time_ms=_known(_at(stats, "indices", "indexing").get("index_time_in_millis")),
        rejected_total=_sum(_known(_at(stats, "thread_pool", pool).get("rejected")) for pool in ("search", "write")),
    )


def with_processors(nodes: tuple[NodeSeen, ...], info: Json) -> tuple[NodeSeen, ...]:
    """The nodes with the processors that each engine uses, from `/_nodes/os`."""
    found = info.get("nodes", {})
    return tuple(replace(node, processors=_processors(_at(found.get(node.id, {}), "os"))) for node in nodes)


def configured(info: Json, key: str) -> dict[str, str | None]:
    """By node name, from `/_nodes/settings?flat_settings=true`: the value of the key, None where it is not set."""
    found = {node["name"]: _at(node, "settings").get(key) for node in info["nodes"].values()}
    return {name: None if value is None else str(value) for name, value in found.items()}


def _processors(os: Mapping[str, Any]) -> int | None:
    return _known(os.get("allocated_processors")) or _known(os.get("available_processors"))


def _load_1m(stats: Json) -> float | None:
    value = _at(stats, "os", "cpu", "load_average").get("1m")
    return float(value) if isinstance(value, int | float) and value >= 0 else None


def _at(value: Json, *path: str) -> Mapping[str, Any]:
    """The object at the path; an empty one where the engine left it out."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _sum(figures: Iterable[int | None]) -> int | None:
    known = list(figures)
    return None if None in known else sum(figure or 0 for figure in known)


def _known(value: object) -> int | None:
    """A figure; the engines write -1 for what their platform does not tell."""
    return value if isinstance(value, int) and value >= 0 else None
