"""The cluster as a whole, from the engine's JSON. Pure; raises LookupError, TypeError or ValueError on other shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from shardlift.engine.parse_indices import flat_value
from shardlift.model import (
    BackupSeen,
    ClusterSettings,
    Decision,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    Recovery,
    RetainedCopy,
    ShardCopy,
    VotingSeen,
)

Json = Any

_PEER_LEASE = "peer_recovery/"


def health(body: Json) -> HealthSeen:
    return HealthSeen(
        status=Health(body["status"]),
        nodes=body["number_of_nodes"],
        data_nodes=body["number_of_data_nodes"],
        active_shards=body["active_shards"],
        relocating=body["relocating_shards"],
        initializing=body["initializing_shards"],
        unassigned=body["unassigned_shards"],
        pending_tasks=body["number_of_pending_tasks"],
        timed_out=body["timed_out"],
        in_flight_fetch=body["number_of_in_flight_fetch"],
    )


# Defaults that rules and dry run look at; an engine has a thousand.
_DEFAULTS = (
    "cluster.routing.",
    "cluster.max_shards_per_",
    "indices.recovery.max_bytes_per_sec",
    "discovery.zen.minimum_master_nodes",
)


def settings(body: Json) -> ClusterSettings:
    """From `_cluster/settings?flat_settings=true`."""
    return ClusterSettings(*(_flat(body[name]) for name in ("persistent", "transient")))


def all_settings(body: Json) -> ClusterSettings:
    """From the same with `include_defaults=true` and a filter, which may drop empty layers."""
    defaults = {key: value for key, value in _flat(body["defaults"]).items() if key.startswith(_DEFAULTS)}
    return ClusterSettings(_flat(body.get("persistent", {})), _flat(body.get("transient", {})), defaults)


def _flat(layer: Json) -> dict[str, str]:
    # 6.8 writes the default of an empty list as the word [].
    return {key: "" if value == "[]" else flat_value(value) for key, value in layer.items()}


def voting(state: Json) -> VotingSeen | None:
    """From a cluster state's metadata; None where the engine has no voting configuration (6.8)."""
    found = state.get("metadata", {}).get("cluster_coordination")
    if found is None or "last_committed_config" not in found:
        return None
    return VotingSeen(
        config_ids=frozenset(found["last_committed_config"]),
        excluded_names=frozenset(entry["node_name"] for entry in found.get("voting_config_exclusions", ())),
    )


def running_snapshots(body: Json) -> int:
    """From `_snapshot/_status`, which without a name lists what is under way. A filter drops an empty list."""
    return len(body.get("snapshots", ()))


def listing(body: Json) -> Json:
    """A repository's snapshots, looked at so far that the functions below can rely on their shape."""
    for one in body.get("snapshots", ()):
        _ = one["snapshot"], one["state"], one["indices"]
    return body


def snapshotted(listings: Iterable[Json], found: Iterable[IndexSeen]) -> frozenset[str]:
    """The open indices that are in a successful snapshot of any repository. `listings`: one per repository."""
    safe = {
        index
        for listing in listings
        for snapshot in listing.get("snapshots", ())
        if snapshot["state"] == "SUCCESS"
        for index in snapshot["indices"]
    }
    return frozenset(index.name for index in found if not index.closed and index.name in safe)


def newest_listed(listing: Json, found: Iterable[IndexSeen], limit: int) -> tuple[str, ...]:
    """The last `limit` finished snapshots of a repository that hold any of these indices, in the engine's order (by
    time where the repository tells it, else by name)."""
    names = {index.name for index in found}
    held = [one["snapshot"] for one in _finished(listing) if not names.isdisjoint(one["indices"])]
    return tuple(held[-limit:])


def snapshot_details(body: Json) -> dict[str, BackupSeen]:
    """By snapshot, from `_snapshot/<repository>/<names>`."""
    return {one["snapshot"]: _backup(one) for one in body.get("snapshots", ())}


def _backup(entry: Json) -> BackupSeen:
    ended_ms = entry.get("end_time_in_millis")
    ended_at = datetime.fromtimestamp(ended_ms / 1000, UTC) if ended_ms else None
    return BackupSeen(entry["snapshot"], ended_at, entry.get("shards", {}).get("failed"))


def backups(listing: Json, details: Mapping[str, BackupSeen], found: Iterable[IndexSeen]) -> dict[str, BackupSeen]:
    """The newest finished snapshot of each open index in one repository. `details`: of some of the snapshots."""
    names = {index.name for index in found if not index.closed}
    newest: dict[str, BackupSeen] = {}
    for entry in _finished(listing):
        backup = details.get(entry["snapshot"], BackupSeen(entry["snapshot"], None, None))
        newest.update((name, newer(newest.get(name), backup)) for name in names.intersection(entry["indices"]))
    return newest


def newer(one: BackupSeen | None, other: BackupSeen) -> BackupSeen:
    """Which of two ended later; the second if that is not known."""
    if one is None or one.ended_at is None:
        return other
    return one if other.ended_at is None or other.ended_at < one.ended_at else other


def _finished(listing: Json) -> Iterator[Json]:
    return (one for one in listing.get("snapshots", ()) if one["state"] in {"SUCCESS", "PARTIAL"})


def running_work(body: Json) -> tuple[str, ...] | None:
    """From `_tasks?group_by=none`: what was begun by somebody, not by another task. None when a node did not answer."""
    if body.get("node_failures"):
        return None
    own = (task for task in body.get("tasks", ()) if "parent_task_id" not in task)
    return tuple(sorted(f"{task['action']} (task {task['node']}:{task['id']})" for task in own))


def dangling(body: Json) -> tuple[str, ...] | None:
    """From `_dangling`; None when a node did not answer."""
    if body.get("_nodes", {}).get("failed"):
        return None
    return tuple(sorted({entry["index_name"] for entry in body.get("dangling_indices", ())}))


def leaving(state: Json) -> frozenset[str]:
    """Ids of the nodes that Elasticsearch was told to expect to shut down, from a cluster state's metadata."""
    return frozenset(_node_ids(state.get("metadata", {}).get("node_shutdown")))


def _node_ids(value: Json) -> Iterator[str]:
    # By key, at whatever depth: the layout changed between the versions of 7 and 8.
    if isinstance(value, Mapping):
        if "node_id" in value:
            yield str(value["node_id"])
        value = value.values()
    elif not isinstance(value, list):
        return
    for entry in value:
        yield from _node_ids(entry)


def explanation(copy: ShardCopy, body: Json) -> Explanation:
    """From `_cluster/allocation/explain`. A copy that can remain is asked whether it could be rebalanced away."""
    word = body.get("can_move_to_other_node") or body.get("can_allocate") or body.get("can_rebalance_to_other_node")
    decisions = tuple(_decisions(body))
    if word is None:
        # On its way the engine explains no further: a relocating copy moves, an initializing one will be asked later.
        moving = body["current_state"] == "relocating"
        word = "yes" if moving else "throttled"
        decisions += (Decision("in_progress", "YES" if moving else "THROTTLE", body.get("explanation", "")),)
    return Explanation(copy.index, copy.shard, copy.primary, word, decisions)


def move_verdicts(moves: Iterable[Move], body: Json) -> tuple[MoveVerdict, ...]:
    """From `_cluster/reroute?dry_run&explain`: one explanation for each move, in the order they were sent."""
    told = body.get("explanations", ())
    return tuple(_verdict(move, entry) for move, entry in zip(moves, told, strict=True))


def _verdict(move: Move, entry: Json) -> MoveVerdict:
    said = tuple(_decision(one, move.target) for one in entry["decisions"])
    # THROTTLE only means later; a move command is carried out in spite of it (MoveAllocationCommand).
    return MoveVerdict(
        move,
        allowed=all(one.verdict != "NO" for one in said),
        decisions=tuple(one for one in said if one.verdict != "YES"),
    )


def _decisions(body: Json) -> Iterator[Decision]:
    """What keeps the copy from staying, then cluster-wide objections, then each node's. The engine leaves out YES."""
    here = body.get("current_node", {}).get("name")
    for entry in body.get("can_remain_decisions", ()):
        yield _decision(entry, here)
    for entry in body.get("can_rebalance_cluster_decisions", ()):
        yield _decision(entry, None)
    for node in body.get("node_allocation_decisions", ()):
        for entry in node.get("deciders", ()):
            yield _decision(entry, node["node_name"])


def _decision(entry: Json, node: str | None) -> Decision:
    return Decision(entry["decider"], entry["decision"].upper(), entry["explanation"], node)


def client_requests(body: Json) -> int:
    """Requests in progress that clients sent to the node, from `_tasks?group_by=none`.

    Sub-requests (those with a parent) are left out: other nodes send them on behalf of their own clients, and they do
    not end as long as the node holds shards.
    """
    return sum(1 for task in body.get("tasks", ()) if "parent_task_id" not in task)


def retained(body: Json) -> tuple[RetainedCopy, ...]:
    """Copies of the one node asked for, from `_nodes/NODE/stats?level=shards`. Those without a lease are left out."""
    found = [
        _retained(node_id, index, int(number), copy)
        for node_id, node in body.get("nodes", {}).items()
        for index, shards in node["indices"]["shards"].items()
        for shard in shards
        for number, copy in shard.items()
    ]
    return tuple(one for one in found if one is not None)


def _retained(node_id: str, index: str, shard: int, copy: Json) -> RetainedCopy | None:
    leases = {one["id"]: one["retaining_seq_no"] for one in copy.get("retention_leases", {}).get("leases", ())}
    own = leases.get(f"{_PEER_LEASE}{node_id}")
    if own is None or sum(name.startswith(_PEER_LEASE) for name in leases) == 1:
        return None
    return RetainedCopy(
        index=index,
        shard=shard,
        docs=copy["docs"]["count"],
        behind=max(copy["seq_no"]["global_checkpoint"] + 1 - own, 0),
        bytes=copy["store"]["size_in_bytes"],
    )


def recoveries(body: Json) -> tuple[Recovery, ...]:
    """Peer recoveries, from `_recovery`. Reused bytes are not counted: they did not travel."""
    found = [
        _recovery(index, entry)
        for index, value in body.items()
        for entry in value["shards"]
        if entry["type"] == "PEER" and entry["source"].get("name")
    ]
    return tuple(sorted(found, key=lambda recovery: recovery.key))


def _recovery(index: str, entry: Json) -> Recovery:
    return Recovery(
        index=index,
        shard=int(entry["id"]),
        source=entry["source"]["name"],
        target=entry["target"]["name"],
        started_at_ms=entry["start_time_in_millis"],
        bytes=entry["index"]["size"]["recovered_in_bytes"],
        done=entry["stage"] == "DONE",
    )
