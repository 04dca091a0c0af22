"""May this copy go to that node? The engines' allocation deciders, each a pure function that objects or is silent.

Each is named by the engine's word for it, and gives the reason of its objection, or None. Sources: the classes of the
same names in OpenSearch and Elasticsearch (`org.*.cluster.routing.allocation.decider`), gathered in the project's notes
on mechanics. What passes by itself (throttling, snapshots) is not modelled: a plan has time.
"""

from __future__ import annotations

from collections.abc import Callable

from shardlift.allocation.state import Copy, Index, Kin, Place, State
from shardlift.model import Decision

Objection = str | None
Decider = Callable[[State, Copy, Place], Objection]
CopyDecider = Callable[[State, Copy], Objection]
PlaceDecider = Callable[[State, Kin, Place], Objection]

_SNAPSHOT_ROLES = frozenset({"search", "warm"})


# Asked of a node for all indices of a kin: their answer stays as long as the node does.


def data_role(state: State, kin: Kin, place: Place) -> Objection:
    """Copies are on data nodes only; those of an index mounted from a snapshot are where such are read.

    OpenSearch reads them on nodes with the role `search` (3.x: `warm`) only, Elasticsearch those that are mounted in
    part on `data_frozen` nodes only.
    """
    del state
    if kin.mounted == "remote_snapshot":
        fits, needed = not place.roles.isdisjoint(_SNAPSHOT_ROLES), "search or warm"
    elif kin.mounted == "partial":
        fits, needed = "data_frozen" in place.roles, "data_frozen"
    else:
        fits, needed = place.holds_data, "data"
    return None if fits else f"the node lacks the role {needed}"


def filter(state: State, kin: Kin, place: Place) -> Objection:  # noqa: A001 - the engine's word
    """`require`, `include` and `exclude` of the cluster, then of the index."""
    del state
    for one in kin.filters:
        told = one.objection(place)
        if told is not None:
            return told
    return None


def data_tier(state: State, kin: Kin, place: Place) -> Objection:
    """Elasticsearch's tiers: the first preferred tier that any member has, or the tiers that are required.

    A node being drained is still a member, so its tier counts even if it is the only one of it. `data` means all tiers.
    """
    for key, tiers in kin.tiers:
        if key == "include._tier_preference":
            roles = [one.roles for one in state.places.values() if one.present]
            there = next((tier for tier in tiers if any(_in_tier(tier, own) for own in roles)), None)
            fits = there is not None and _in_tier(there, place.roles)
        else:
            some = all if key.startswith("require") else any
            fits = some(_in_tier(tier, place.roles) for tier in tiers)
        if not fits:
            return f"node does not match [index.routing.allocation.{key}] [{','.join(tiers)}]"
    return None


def _in_tier(tier: str, roles: frozenset[str]) -> bool:
    return "data" in roles or tier in roles


# Asked of a copy wherever it may want to go.


def enable(state: State, copy: Copy) -> Objection:
    """`allocation.enable`, of the index before the cluster's, gates the targets of relocations too."""
    del state
    value = copy.group.index.enable
    if value in {"none", "new_primaries"} or (value == "primaries" and not copy.primary):
        return f"allocations are restricted by [enable={value}]"
    return None


def closed_index(state: State, copy: Copy) -> Objection:
    """A closed index is only replicated, and moved, when it was closed on 7.2 or later."""
    del state
    return "the index is closed and was not verified when it was" if copy.group.index.fixed else None


def replica_after_primary_active(state: State, copy: Copy) -> Objection:
    """A replica is copied from its primary, so that must be somewhere."""
    del state
    primary = copy.group.primary
    if primary is copy or (primary is not None and primary.place is not None):
        return None
    return "the primary of this replica is not active"


# Asked of a copy and a node.


def same_shard(state: State, copy: Copy, place: Place) -> Objection:
    """Two copies of a shard are never on one node."""
    del state
    for other in copy.group.copies:
        if other.place is place:
            return "a copy of this shard is already allocated to this node"
    return None


def node_version(state: State, copy: Copy, place: Place) -> Objection:
    """A primary never goes to an older node than its own, a replica never to one older than its primary's.

    A segment-replicated primary does not go to a newer node as long as an active replica is on an older one: that
    could not read the segments.
    """
    del state
    primary = copy.group.primary
    if primary is not copy:
        holder = None if primary is None else primary.place
        if holder is not None and place.rank < holder.rank:
            return f"target node [{_told(place)}] is older than the node [{_told(holder)}] of the primary"
        return None
    source = copy.place
    if source is not None and place.rank < source.rank:
        return f"cannot relocate the primary from [{_told(source)}] to the older [{_told(place)}]"
    if copy.group.index.segment:
        for other in copy.group.copies:
            if other is not copy and other.started and other.place is not None and other.place.rank < place.rank:
                return f"a replica of this segment-replicated shard is on an older node [{_told(other.place)}]"
    return None


def _told(place: Place) -> str:
    return f"{'OpenSearch' if place.release[0] else 'Elasticsearch'} {place.release[1]}"


def awareness(state: State, copy: Copy, place: Place) -> Objection:
    """At most ceil(copies / values) copies of a shard in nodes of one value of an awareness attribute.

    Values are those of the data nodes present, the drained one too, and the forced ones. An index that expands to all
    nodes is exempt.
    """
    index = copy.group.index
    if index.expands is not None and index.expands[1] is None:
        return None
    for at, attribute in enumerate(state.attributes):
        value = place.location[at]
        if value is None:
            return f"node does not contain the awareness attribute [{attribute}]"
        most = -(-index.wanted // max(state.zones[at], 1))
        held = 1
        for other in copy.group.copies:
            if other is not copy and other.place is not None and other.place.location[at] == value:
                held += 1
        if held > most:
            return (
                f"there are [{index.wanted}] copies of this shard and [{state.zones[at]}] values of [{attribute}]: "
                f"at most [{most}] of them for [{value}]"
            )
    return None


def shards_limit(state: State, copy: Copy, place: Place) -> Objection:
    """`total_shards_per_node` of the index and of the cluster."""
    index = copy.group.index
    if index.limit and place.of_index.get(index.name, 0) >= index.limit:
        return (
            f"too many shards of this index on the node [index.routing.allocation.total_shards_per_node={index.limit}]"
        )
    if state.node_limit and len(place.copies) >= state.node_limit:
        return f"too many shards on the node [cluster.routing.allocation.total_shards_per_node={state.node_limit}]"
    return None


def disk_threshold(state: State, copy: Copy, place: Place) -> Objection:
    """With the copy, the disk stays below the low watermark.

    The engine itself only wants it below that without the copy and below the high one with it; but above the low one
    the node would take no further copy.
    """
    del state
    most = place.most_bytes
    if most is None or place.used_bytes + copy.size_bytes <= most:
        return None
    return (
        f"the disk would be above the low watermark: [{place.used_bytes}] bytes used and [{copy.size_bytes}] more, "
        f"[{most}] allowed"
    )


PLACE_DECIDERS: tuple[PlaceDecider, ...] = (data_role, filter, data_tier)
ANYWHERE: tuple[CopyDecider, ...] = (enable, closed_index, replica_after_primary_active)
PAIR_DECIDERS: tuple[Decider, ...] = (same_shard, node_version, awareness, shards_limit, disk_threshold)
# Their objection ends when other copies leave the node.
ROOM: tuple[Decider, ...] = (shards_limit, disk_threshold)


def suits(state: State, kin: Kin, place: Place) -> bool:
    """Whether indices of that kin may have copies on the node at all."""
    return all(decide(state, kin, place) is None for decide in PLACE_DECIDERS)


def asked(state: State, index: Index, *, located: bool) -> tuple[Decider, ...]:
    """Those of the deciders about a copy and a node that can object to copies of the index at all, cheapest first.

    `located`: awareness is asked before, of a whole location.
    """
    bounded = any(place.most_bytes is not None for place in state.places.values())
    return (
        same_shard,
        node_version,
        *((disk_threshold,) if bounded else ()),
        *((shards_limit,) if index.limit or state.node_limit else ()),
        *((awareness,) if state.attributes and not located else ()),
    )


def objections(state: State, copy: Copy, place: Place) -> tuple[Decision, ...]:
    """Every decider's objection to the copy going to that node, in words."""
    kin = copy.group.index.kin
    said = [(one.__name__, one(state, kin, place)) for one in PLACE_DECIDERS]
    said += [(one.__name__, one(state, copy)) for one in ANYWHERE]
    said += [(one.__name__, one(state, copy, place)) for one in PAIR_DECIDERS]
    return tuple(Decision(name, "NO", told, place.name) for name, told in said if told is not None)
