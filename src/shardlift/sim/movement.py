"""Where copies go, and how long that takes: allocation, relocation, recovery, promotion.

A peer recovery reads from the primary. Bytes flow at `indices.recovery.max_bytes_per_sec` of the source and of the
target, shared by the recoveries of each. A copy that finds its data on the node's disk only replays operations.

How long that takes beside its bytes was measured on three real nodes with 5, 15, 45 and 205 copies each, 8, 24, 64 and
250 of them at once (docs/decisions/0028): a while until source and target know of it, which passes for all at once, and
work for each copy, which the copies share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shardlift.model import AWARE_OF, REBALANCE, CopyState
from shardlift.model import Move as Wish
from shardlift.sim.deciders import allowed, immovable, may_remain, takes_none, unsuitable
from shardlift.sim.in_force import own_filters
from shardlift.sim.parts import Copy, Data, Group, Move, SimIndex, SimNode

if TYPE_CHECKING:
    from shardlift.sim.world import World

# Until the state of the cluster that has the copy is published and applied, and the one in which it is started.
_ASSIGNED_S = 0.55
# The elected master applies a state after all others. A source that has not heard of the copy when the target asks for
# it sleeps (OpenSearch, waitForAssignmentPropagate; Elasticsearch half as long): seen at the first copies of a node.
_HEARD_LAST_S = 1.0
_OPENED_S = 0.024
_MOMENT_S = 1e-6
_REPLAY_BYTES = 4096
_DELAYED_S = 60.0
_REBALANCES = 2
_UNEVEN = 2


def reroute(world: World) -> None:
    """Begins the recoveries and relocations that the settings ask for and the deciders allow."""
    if world.elected is None:
        return
    _expand(world)
    for copy in world.routing.unassigned():
        if copy.primary:
            _assign_primary(world, copy)
    replicas = [copy for copy in world.routing.unassigned() if not copy.primary]
    holders = _holders(world) if replicas else {}
    for copy in replicas:
        _assign_replica(world, copy, holders.get(copy.group, ()))
    for copy in restless(world):
        if copy.state is CopyState.STARTED and may_remain(world, copy):
            _move_away(world, copy)
    _rebalance(world)
    _plan_next(world)


def restless(world: World) -> list[Copy]:
    """The copies that `may_remain` can object to, in the order of the table.

    Copies that others send away cannot become more: no decider lets a node be filled above the high watermark, unless
    that is below the low one. With awareness of zones each copy may be one too many in its zone.
    """
    rules = world.in_force
    if rules.low_percent > rules.high_percent or rules.value(AWARE_OF):
        return [*world.copies]
    found = {copy for node in unsuitable(world) for copy in world.routing.placed(node.name)}
    for index in world.indices.values():
        if own_filters(index):
            for shard in range(index.primaries):
                found.update(world.group((index.name, shard)))
    return sorted(found, key=lambda copy: copy.number)


def node_left(world: World, node: SimNode) -> None:
    """Its copies are unassigned, replicas of its primaries are promoted, recoveries from and to it end."""
    for move in [one for one in world.moves if node.name in (one.source, one.target, one.copy.node)]:
        _cancel(world, move)
    for copy in world.copies_on(node.name):
        world.routing.put(copy, CopyState.UNASSIGNED, reason="NODE_LEFT")
        copy.delayed_until_s = world.now_s + _delay_s(world, copy)
        world.later(_delay_s(world, copy), "reroute")
    for copy in world.routing.unassigned():
        if copy.primary:
            _promote(world, copy)


def node_joined(world: World, node: SimNode) -> None:
    """What lies on its disk for indices that are gone is cleaned away."""
    for group in [group for group in node.disk if group not in world.shards]:
        del node.disk[group]


def _again(world: World) -> str:
    reroute(world)
    return ""


def _delay_s(world: World, copy: Copy) -> float:
    text = world.indices[copy.index].settings.get("index.unassigned.node_left.delayed_timeout", "")
    return float(text.rstrip("s")) if text.endswith("s") else _DELAYED_S


def _promote(world: World, lost: Copy) -> None:
    """A started replica becomes primary; the lost one waits as a replica.

    The engines take the one on the newest node, with segment replication the one on the oldest (RoutingNodes).
    """
    able = [copy for copy in world.group(lost.group) if copy.serving and not copy.primary]
    if not able:
        return
    segments = world.indices[lost.index].settings.get("index.replication.type") == "SEGMENT"
    ranked = sorted(able, key=lambda copy: (world.nodes[copy.node or ""].release, copy.node or ""))
    chosen = ranked[0 if segments else -1]
    world.routing.promote(chosen, lost)
    for move in [one for one in world.moves if one.copy.group == lost.group and one.copy is not chosen]:
        _cancel(world, move)


def _assign_primary(world: World, copy: Copy) -> None:
    shard = world.shards[copy.group]
    if copy.reason == "INDEX_CREATED":
        target = _best(world, copy)
        if target is not None:
            copy.aid = world.new_number()
            world.routing.put(copy, CopyState.STARTED, target.name)
            shard.in_sync.add(copy.aid)
        return
    for node in world.nodes.values():
        data = node.disk.get(copy.group)
        if node.up and data is not None and data.aid in shard.in_sync:
            copy.aid, copy.documents = data.aid, data.documents
            world.routing.put(copy, CopyState.STARTED, node.name)
            del node.disk[copy.group]
            return


def _holders(world: World) -> dict[Group, list[SimNode]]:
    """Members that have data of a shard on their disks and do not serve it."""
    found: dict[Group, list[SimNode]] = {}
    for node in world.nodes.values():
        for group in node.disk if node.up else ():
            found.setdefault(group, []).append(node)
    return found


def _assign_replica(world: World, copy: Copy, holders: Sequence[SimNode]) -> None:
    for node in holders:
        # Another copy of the shard may just have taken it.
        if copy.group in node.disk and allowed(world, copy, node):
            _begin(world, copy, node)
            return
    if copy.delayed_until_s > world.now_s:
        return
    target = _best(world, copy)
    if target is not None:
        _begin(world, copy, target)


def begin_move(world: World, wish: Wish) -> None:
    """A started copy begins to move because somebody has said so, whatever is on the move already."""
    copy = next(one for one in world.group((wish.index, wish.shard)) if one.node == wish.source)
    _begin(world, copy, world.nodes[wish.target])
    _plan_next(world)


def _move_away(world: World, copy: Copy) -> None:
    target = _best(world, copy)
    if target is not None:
        _begin(world, copy, target)


def _best(world: World, copy: Copy) -> SimNode | None:
    """The node with the fewest copies among those without an objection."""
    if immovable(world, copy):
        return None
    free = [node for node in world.nodes.values() if node.up and node.name != copy.node]
    able = [node for node in free if allowed(world, copy, node)]
    return min(able, key=lambda node: (world.tallied(node.name).copies, node.name), default=None)


def _begin(world: World, copy: Copy, target: SimNode) -> None:
    primary = world.primary(copy.group)
    assert primary is not None, "the decider replica_after_primary_active has said so"
    data = target.disk.get(copy.group)
    if data is not None and not data.leased:
        data = None
    size = world.indices[copy.index].copy_bytes if data is None else _REPLAY_BYTES
    if copy.state is CopyState.STARTED:
        world.routing.put(copy, CopyState.RELOCATING, copy.node, target.name)
    else:
        world.routing.put(copy, CopyState.INITIALIZING, target.name)
        copy.aid = world.new_number() if data is None else data.aid
        copy.documents = 0 if data is None else data.documents
        target.disk.pop(copy.group, None)
    world.moves.append(
        Move(
            copy=copy,
            source=primary.node or "",
            target=target.name,
            total_bytes=size,
            left_bytes=size + world.in_force.recovery_rate * _OPENED_S,
            started_at_ms=world.wall_ms(world.now_s),
            replay=data is not None,
            known_s=_known_s(world, primary.node, target),
        )
    )


def _known_s(world: World, source: str | None, target: SimNode) -> float:
    """From when on a recovery that begins now has anything sent."""
    late = target.cold and source == world.elected
    return world.now_s + _ASSIGNED_S + (_HEARD_LAST_S if late else 0.0)


class Flow:
    """Bytes per second of each recovery that both ends know of, until one more begins or one ends.

    By the move itself: a number of it (`id`) may be that of one which was cancelled meanwhile.
    """

    def __init__(self, world: World) -> None:
        self.since_s = world.now_s
        whole = world.in_force.recovery_rate
        self.rates: dict[Move, float] = {}
        flowing = [move for move in world.moves if move.known_s <= self.since_s + _MOMENT_S]
        sources = Counter(move.source for move in flowing)
        targets = Counter(move.target for move in flowing)
        for move in flowing:
            busiest = max(sources[move.source], targets[move.target])
            slowest = max(world.nodes[name].slowness for name in (move.source, move.target))
            self.rates[move] = whole / busiest / slowest

    @classmethod
    def known(cls, world: World, since_s: float, rates: list[float | None]) -> Flow:
        """A flow that was written down: a rate for each of the world's moves, None for one that came later."""
        flow = cls(world)
        flow.since_s = since_s
        flow.rates = {move: rate for move, rate in zip(world.moves, rates, strict=True) if rate is not None}
        return flow


def _plan_next(world: World) -> None:
    """Accounts for the bytes that have flowed, and schedules the moment at which the next recovery is done."""
    flow = world.flow
    if flow is not None:
        for move in world.moves:
            move.left_bytes -= flow.rates.get(move, 0.0) * (world.now_s - flow.since_s)
    world.flow = flow = Flow(world)
    if not world.moves:
        return
    number = world.new_flow()
    ends = [max(move.left_bytes, 0.0) / rate for move, rate in flow.rates.items()]
    begins = [move.known_s - world.now_s for move in world.moves if move not in flow.rates]
    world.later(min(ends + begins), "flowed", number)


def _flowed(world: World, number: int) -> str:
    if number != world.flow_number or world.flow is None:
        return ""
    for move in world.moves:
        move.left_bytes -= world.flow.rates.get(move, 0.0) * (world.now_s - world.flow.since_s)
    world.flow.since_s = world.now_s
    done = [move for move in world.moves if move.left_bytes <= 1]
    lines = [_finish(world, move) for move in done if move in world.moves]
    reroute(world)
    return "; ".join(lines)


def _finish(world: World, move: Move) -> str:
    copy = move.copy
    world.moves.remove(move)
    move.done = True
    world.nodes[move.target].cold = False
    world.recovered.append(move)
    shard = world.shards[copy.group]
    primary = world.primary(copy.group)
    if copy.state is CopyState.RELOCATING:
        source = copy.node or ""
        world.nodes[source].disk.pop(copy.group, None)
        old = copy.aid
        copy.aid = world.new_number()
        world.routing.put(copy, CopyState.STARTED, move.target)
        if primary is not None and not copy.primary:
            copy.documents = primary.documents
        shard.in_sync = {*(one for one in shard.in_sync if one != old), copy.aid}
        if copy.primary:
            # A primary that has moved restarts the recoveries of its replicas.
            for other in [one for one in world.moves if one.copy.group == copy.group]:
                other.left_bytes, other.source = float(other.total_bytes), move.target
                other.known_s = world.now_s + _ASSIGNED_S
        return f"{copy.label} moved {source} -> {move.target}"
    world.routing.put(copy, CopyState.STARTED, copy.node)
    copy.documents = primary.documents if primary is not None else 0
    shard.in_sync.add(copy.aid)
    return f"{copy.label} started on {move.target}"


def _cancel(world: World, move: Move) -> None:
    world.moves.remove(move)
    copy = move.copy
    if copy.state is CopyState.RELOCATING:
        world.routing.put(copy, CopyState.STARTED, copy.node)
    elif copy.state is CopyState.INITIALIZING:
        if move.replay:
            world.nodes[move.target].disk[copy.group] = Data(copy.aid, copy.documents)
        world.routing.put(copy, CopyState.UNASSIGNED, reason="ALLOCATION_FAILED")


def _expand(world: World) -> None:
    """`auto_expand_replicas` 0-all: as many copies as data nodes that no filter forbids."""
    for index in world.indices.values():
        if not index.expands:
            continue
        able = [node for node in world.nodes.values() if node.up and node.holds_data and not _filtered(world, node)]
        wanted = max(len(able) - 1, 0)
        if wanted != index.replicas:
            set_replicas(world, index, wanted, frozenset(node.name for node in able))


def set_replicas(world: World, index: SimIndex, replicas: int, able: frozenset[str] = frozenset()) -> None:
    """Adds unassigned replicas, or drops those that are not on one of the `able` nodes first."""
    for shard in range(index.primaries):
        _resize(world, index.name, shard, replicas + 1, able)
    index.replicas = replicas
    world.index_groups()


def _filtered(world: World, node: SimNode) -> bool:
    ids, names = (world.in_force.value(f"cluster.routing.allocation.exclude.{one}") for one in ("_id", "_name"))
    return node.node_id in ids.split(",") or node.name in names.split(",")


def _resize(world: World, index: str, shard: int, wanted: int, able: frozenset[str]) -> None:
    copies = world.group((index, shard))
    while len(copies) > wanted:
        spare = [copy for copy in copies if not copy.primary]
        gone = min(spare, key=lambda copy: (copy.node is not None, copy.node in able, copy.node or ""))
        for move in [one for one in world.moves if one.copy is gone]:
            world.moves.remove(move)
        copies.remove(gone)
        world.copies.remove(gone)
    for _ in range(wanted - len(copies)):
        world.copies.append(
            Copy(index, shard, primary=False, state=CopyState.UNASSIGNED, node=None, reason="REPLICA_ADDED")
        )


def _rebalance(world: World) -> None:
    """Evens out the number of copies, two at a time, once all of them are assigned."""
    kinds = world.setting(REBALANCE) or "all"
    count = world.routing.count
    if kinds == "none" or count(CopyState.UNASSIGNED) or count(CopyState.INITIALIZING):
        return
    limit = int(world.setting("cluster.routing.allocation.cluster_concurrent_rebalance") or _REBALANCES)
    while count(CopyState.RELOCATING) < limit:
        nodes = [node for node in world.nodes.values() if node.up and node.holds_data]
        load = {node.name: world.tallied(node.name).copies for node in nodes}
        chosen = _uneven(world, kinds, nodes, load)
        if chosen is None:
            return
        _begin(world, *chosen)


def _uneven(world: World, kinds: str, nodes: list[SimNode], load: dict[str, int]) -> tuple[Copy, SimNode] | None:
    heaviest = sorted(nodes, key=lambda node: (-load[node.name], node.name))
    for light in sorted(nodes, key=lambda node: (load[node.name], node.name)):
        if load[heaviest[0].name] - load[light.name] < _UNEVEN:
            break
        if takes_none(world, light):
            continue
        for heavy in heaviest:
            if load[heavy.name] - load[light.name] < _UNEVEN:
                break
            for copy in world.copies_on(heavy.name):
                fits = kinds in ("all", "primaries" if copy.primary else "replicas")
                if fits and copy.state is CopyState.STARTED and allowed(world, copy, light):
                    return copy, light
    return None


# By the names under which they are scheduled: these stand in files, so they stay.
EVENTS: dict[str, Callable[..., str]] = {"reroute": _again, "flowed": _flowed}
