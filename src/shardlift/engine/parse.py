"""The cluster as a whole, from the engine's JSON. Pure; raises LookupError, TypeError or ValueError on other shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from shardlift.engine.parse_indices import flat_value
from shardlift.model import (
    ClusterSettings,
    Decision,
    Explanation,
    Health,
    HealthSeen,
    IndexSeen,
    Move,
    MoveVerdict,
    Recovery,
    ShardCopy,
    VotingSeen,
)

Json = Any


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
    )


def settings(body: Json) -> ClusterSettings:
    """From `_cluster/settings?flat_settings=true`."""
    layers = ({key: flat_value(value) for key, value in body[name].items()} for name in ("persistent", "transient"))
    return ClusterSettings(*layers)


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
