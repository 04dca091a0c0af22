"""Nodes and shard copies as the dry run moves them about. Mutable, but without I/O, and never random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardlift.allocation.filters import Filter, filters_of
from shardlift.allocation.limits import most_used_bytes, whole, words
from shardlift.model import (
    AWARE_OF,
    AWARENESS,
    ClusterSettings,
    CopyState,
    EngineKind,
    IndexSeen,
    Node,
    NodeSeen,
    Observation,
    ShardCopy,
    Version,
)

_DEFAULT_ROLES = frozenset({"data", "ingest", "cluster_manager"})

Release = tuple[bool, Version]


@dataclass(slots=True, eq=False)
class Place:
    """A node. `rank` orders places by release; `open`: it may take copies now; `present`: it is a member; `joining`: it
    was none when observed; `turn` counts how often it came back.

    `most_bytes`: how full its disk may get, None when nothing bounds it. `load` orders places by how many copies and
    bytes they hold, 2.0 for an average one. `location`: its values of the awareness attributes.
    """

    number: int
    name: str
    id: str
    address: str
    roles: frozenset[str]
    attributes: Mapping[str, str]
    rank: int
    release: Release
    location: tuple[str | None, ...]
    total_bytes: int | None = None
    most_bytes: int | None = None
    used_bytes: int = 0
    peak_bytes: int = 0
    open: bool = True
    present: bool = True
    joining: bool = False
    turn: int = 0
    holds_data: bool = field(init=False)
    load: float = 0.0
    copies: dict[Copy, None] = field(default_factory=dict)
    of_index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.holds_data = any(role == "data" or role.startswith("data_") for role in self.roles)


@dataclass(frozen=True, slots=True, eq=False)
class Kin:
    """What indices have in common that may be on the same nodes: filters, tier settings, where snapshots are read.

    There is one of a sort in a state, so that kins are told apart by identity.
    """

    filters: tuple[Filter, ...]
    tiers: tuple[tuple[str, tuple[str, ...]], ...]
    mounted: str

    @property
    def names_ids(self) -> bool:
        return any(one.names_ids for one in self.filters)


@dataclass(slots=True, eq=False)
class Index:
    """`limit`: most copies on one node, 0 for no limit. `enable`: what may be allocated. `expands`: fewest and most
    replicas where the engine chooses their number, None for the most meaning one on every node."""

    seen: IndexSeen
    kin: Kin
    wanted: int
    limit: int
    enable: str
    segment: bool
    fixed: bool
    expands: tuple[int, int | None] | None
    groups: list[Group] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.seen.name


@dataclass(slots=True, eq=False)
class Group:
    """All copies of one shard."""

    index: Index
    shard: int
    copies: list[Copy] = field(default_factory=list)
    primary: Copy | None = None


@dataclass(slots=True, eq=False)
class Copy:
    """One copy; `place` is None while it has none. `started`: it holds all acknowledged writes."""

    group: Group
    size_bytes: int
    place: Place | None
    started: bool

    @property
    def primary(self) -> bool:
        return self.group.primary is self

    @property
    def elsewhere(self) -> bool:
        """Whether another started copy is on a node that stays: one that is open, so neither drained nor leaving."""
        return any(
            other is not self and other.started and other.place is not None and other.place.open
            for other in self.group.copies
        )


@dataclass(slots=True, eq=False)
class State:
    """A cluster. `zones`: for each awareness attribute its number of values. `spread`: whether any is set.

    `node_limit`: most copies on one node, 0 for no limit. `tiers`: whether this engine knows data tiers. `target`: the
    release that nodes come back with. `unplaced`: the copies without a node. `exchanges_left`: how many exchanges of
    two copies may still be tried. `common_bytes`: the size of an average copy.
    """

    settings: ClusterSettings
    places: dict[str, Place]
    indices: dict[str, Index]
    groups: dict[tuple[str, int], Group]
    attributes: tuple[str, ...]
    node_limit: int
    tiers: bool
    target: Release
    target_rank: int
    zones: tuple[int, ...] = ()
    per_copy: float = 0.0
    per_byte: float = 0.0
    common_bytes: int = 0
    unplaced: dict[Copy, None] = field(default_factory=dict)
    exchanges_left: int = 20_000

    def put(self, copy: Copy, place: Place | None) -> None:
        """Takes the copy from where it is to `place`, or nowhere."""
        source, weight = copy.place, self.per_copy + self.per_byte * copy.size_bytes
        if source is not None:
            del source.copies[copy]
            source.load -= weight
            source.used_bytes -= copy.size_bytes
            if copy.group.index.limit:
                source.of_index[copy.group.index.name] -= 1
        elif place is not None:
            self.unplaced.pop(copy, None)
        copy.place = place
        if place is None:
            copy.started = False
            self.unplaced[copy] = None
            return
        place.copies[copy] = None
        place.load += weight
        place.used_bytes += copy.size_bytes
        place.peak_bytes = max(place.peak_bytes, place.used_bytes)
        if copy.group.index.limit:
            place.of_index[copy.group.index.name] = place.of_index.get(copy.group.index.name, 0) + 1

    def full(self, place: Place) -> bool:
        """Whether the node takes no copy at all, however small."""
        over = place.most_bytes is not None and place.used_bytes > place.most_bytes
        return over or 0 < self.node_limit <= len(place.copies)

    def promote(self, group: Group) -> None:
        """Makes another started copy the primary, as the engine does when the primary's node stops.

        The one on the newest node; of a segment-replicated shard the one on the oldest.
        """
        primary = group.primary
        others = [one for one in group.copies if one is not primary and one.started and one.place is not None]
        living = [(one.place.rank, -at, one) for at, one in enumerate(others) if one.place and one.place.present]
        if living:
            chosen = min if group.index.segment else max
            group.primary = chosen(living, key=lambda item: item[:2])[2]

    def relocate(self, place: Place, zone: str) -> None:
        """The node that is away comes back in that zone, where it is to the others like one they have never seen."""
        place.attributes = {**place.attributes, "zone": zone}
        place.location = tuple(place.attributes.get(name) for name in self.attributes)
        place.joining = True

    def count_zones(self) -> None:
        """Counts the values of the awareness attributes: those of the data nodes present, and the forced ones."""
        data = [place for place in self.places.values() if place.present and place.holds_data]
        self.zones = tuple(
            len(
                {place.attributes[name] for place in data if name in place.attributes}
                | set(words(self.settings.effective(f"{AWARENESS}force.{name}.values")))
            )
            for name in self.attributes
        )


def build_state(seen: Observation, nodes: Iterable[Node], target: Release) -> State:
    """The state as observed, with the cluster's nodes that are out as places that are not present.

    A relocating copy counts where it goes to. A copy of unknown size counts as much as another one of its shard does,
    or else as the mean of all.
    """
    settings = seen.settings
    ranks = {release: at for at, release in enumerate(sorted({*(node.release for node in seen.nodes), target}))}
    attributes = words(settings.effective(AWARE_OF))
    places: dict[str, Place] = {}
    for node in seen.nodes:
        places[node.name] = _place(len(places), node, ranks[node.release], attributes, settings)
        places[node.name].open = node.name not in seen.leaving
    for known in nodes:
        if known.name not in places:
            places[known.name] = _absent(len(places), known, ranks[target], target, attributes)
    state = State(
        settings=settings,
        places=places,
        indices={},
        groups={},
        attributes=attributes,
        node_limit=whole(settings.effective("cluster.routing.allocation.total_shards_per_node")),
        tiers=any(node.engine is EngineKind.ELASTICSEARCH for node in seen.nodes),
        target=target,
        target_rank=ranks[target],
    )
    _add_indices(state, seen)
    _add_copies(state, seen.shards)
    state.count_zones()
    return state


def _place(number: int, node: NodeSeen, rank: int, attributes: tuple[str, ...], settings: ClusterSettings) -> Place:
    used = node.disk_used_bytes
    return Place(
        number=number,
        name=node.name,
        id=node.id,
        address=node.address,
        roles=node.roles,
        attributes=node.attributes,
        rank=rank,
        release=node.release,
        location=tuple(node.attributes.get(name) for name in attributes),
        total_bytes=node.disk_total_bytes,
        # As the engine does where it has no figures; the rule disk_room objects to that.
        most_bytes=None if used is None else most_used_bytes(settings, node.disk_total_bytes),
        used_bytes=used or 0,
        peak_bytes=used or 0,
    )


def _absent(number: int, node: Node, rank: int, release: Release, attributes: tuple[str, ...]) -> Place:
    known = {"zone": node.zone}
    return Place(
        number=number,
        name=node.name,
        id="",
        address=node.address,
        roles=frozenset(node.roles) or _DEFAULT_ROLES,
        attributes=known,
        rank=rank,
        release=release,
        location=tuple(known.get(name) for name in attributes),
        open=False,
        present=False,
        joining=True,
    )


def _add_indices(state: State, seen: Observation) -> None:
    settings = state.settings
    keys = {*settings.persistent, *settings.transient, *settings.defaults}
    effective = {key: settings.effective(key) or "" for key in keys if key.startswith("cluster.routing.allocation.")}
    filters = filters_of(effective, "cluster")
    enable = effective.get("cluster.routing.allocation.enable") or "all"
    kins: dict[_Sort, Kin] = {}
    for index in seen.indices:
        state.indices[index.name] = _index(index, _kin(index, filters, kins, tiers=state.tiers), enable)
    for copy in seen.shards:
        if copy.index not in state.indices:
            bare = IndexSeen(copy.index, None, None, 1, len(seen.groups[copy.group]) - 1, closed=False, settings={})
            state.indices[copy.index] = _index(bare, _kin(bare, filters, kins, tiers=state.tiers), enable)


def _index(seen: IndexSeen, kin: Kin, enable: str) -> Index:
    allocation = "index.routing.allocation."
    return Index(
        seen=seen,
        kin=kin,
        wanted=seen.replicas + 1,
        limit=whole(seen.settings.get(f"{allocation}total_shards_per_node")),
        enable=(seen.settings.get(f"{allocation}enable") or enable).lower(),
        segment=seen.segment_replication,
        fixed=seen.closed and seen.settings.get("index.verified_before_close") != "true",
        expands=_expands(seen),
    )


_Sort = tuple[tuple[Filter, ...], tuple[tuple[str, tuple[str, ...]], ...], str]


def _kin(index: IndexSeen, cluster: tuple[Filter, ...], kins: dict[_Sort, Kin], *, tiers: bool) -> Kin:
    prefix = "index.routing.allocation."
    wanted = tuple(
        (f"{kind}.{key}", words(value))
        for kind, key in (("include", "_tier_preference"), ("require", "_tier"), ("include", "_tier"))
        if tiers and (value := index.settings.get(f"{prefix}{kind}.{key}"))
    )
    mounted = index.settings.get("index.store.type", "") if index.searchable_snapshot else ""
    if mounted == "snapshot":
        mounted = "partial" if index.settings.get("index.store.snapshot.partial") == "true" else ""
    own = filters_of(index.settings, "index") if index.settings else ()
    sort = (cluster + own, wanted, mounted)
    return kins.setdefault(sort, Kin(*sort))


def _expands(index: IndexSeen) -> tuple[int, int | None] | None:
    low, dash, high = index.settings.get("index.auto_expand_replicas", "false").partition("-")
    if not index.expands or not dash or not low.isdecimal():
        return None
    return int(low), int(high) if high.isdecimal() else None


def _add_copies(state: State, shards: tuple[ShardCopy, ...]) -> None:
    known = [copy.size_bytes for copy in shards if copy.size_bytes is not None]
    mean = sum(known) // len(known) if known else 0
    largest: dict[tuple[str, int], int] = {}
    for seen in shards:
        if seen.size_bytes is not None:
            largest[seen.group] = max(largest.get(seen.group, 0), seen.size_bytes)
    data = sum(place.holds_data for place in state.places.values()) or 1
    total = sum(known) + mean * (len(shards) - len(known))
    state.common_bytes = mean
    state.per_copy = data / len(shards) if shards else 0.0
    state.per_byte = data / total if total else 0.0
    for seen in shards:
        group = state.groups.get(seen.group)
        if group is None:
            group = state.groups[seen.group] = Group(state.indices[seen.index], seen.shard)
            group.index.groups.append(group)
        size = largest.get(seen.group, mean) if seen.size_bytes is None else seen.size_bytes
        copy = Copy(group, size, None, started=False)
        group.copies.append(copy)
        if seen.primary:
            group.primary = copy
        _settle(state, copy, seen)


def _settle(state: State, copy: Copy, seen: ShardCopy) -> None:
    """Puts the copy where it is seen. A disk's usage includes it already, unless it is still on its way there."""
    place = state.places.get(seen.relocating_to or seen.node or "")
    if place is None:
        state.unplaced[copy] = None
        return
    arrived = seen.relocating_to is None
    used, peak = place.used_bytes, place.peak_bytes
    state.put(copy, place)
    copy.started = seen.state in (CopyState.STARTED, CopyState.RELOCATING)
    if arrived:
        place.used_bytes, place.peak_bytes = used, peak
