"""A world as a JSON document, and back. Versioned, bounded, and restored in place: whoever holds a node still does."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shardlift.errors import DriverError
from shardlift.model import CopyState, EngineKind, Version
from shardlift.sim import movement
from shardlift.sim.parts import LOAD_1M, Copy, Data, Group, Move, Shard, SimIndex, SimNode

if TYPE_CHECKING:
    from shardlift.sim.world import World

FORMAT = 1
_EFFECTS_MAX = 200
_RECOVERED_MAX = 5000
_LOG_MAX = 200
_PLAIN = (
    "name", "address", "zone", "image_id", "node_id", "ephemeral_id", "pid", "up", "serving", "hung", "booted",
    "starts", "boot_s", "disk_bytes", "filler_bytes", "started_at_ms", "writes", "slowness",
)  # fmt: skip
_COPY = ("index", "shard", "primary", "node", "aid", "documents", "target", "delayed_until_s", "reason")
_MOVE = ("source", "target", "total_bytes", "left_bytes", "started_at_ms", "replay", "done")
_WORLD = ("now_s", "last_number", "flow_number", "elected", "failed_writes", "write_every_s", "next_write_s")

Document = dict[str, Any]


def trim(world: World) -> None:
    """Forgets what is old, so that a world that runs for years stays small."""
    del world.effects[:-_EFFECTS_MAX]
    del world.recovered[:-_RECOVERED_MAX]
    for node in world.nodes.values():
        del node.log[:-_LOG_MAX]


def to_document(world: World) -> Document:
    """JSON-ready. Raises TypeError while an event is due that has no name: such a world cannot be written down."""
    where = {id(copy): at for at, copy in enumerate(world.copies)}
    return {
        "format": FORMAT,
        **{name: getattr(world, name) for name in _WORLD},
        "persistent": world.persistent,
        "transient": world.transient,
        "voting_excluded": sorted(world.voting_excluded),
        "voters": world.voters,
        "effects": world.effects,
        "snapshotting": sorted(world.snapshotting),
        "nodes": [_node(node) for node in world.nodes.values()],
        "indices": [_index(index) for index in world.indices.values()],
        "copies": [{name: getattr(copy, name) for name in _COPY} | {"state": copy.state} for copy in world.copies],
        "shards": [[*group, shard.acknowledged, sorted(shard.in_sync)] for group, shard in world.shards.items()],
        "moves": [_move(move) | {"at": where[id(move.copy)]} for move in world.moves],
        "rates": _rates(world),
        "recovered": [_move(move) | {"group": move.copy.group} for move in world.recovered],
        "due": [_due(entry) for entry in world.due],
    }


def restore(world: World, document: Mapping[str, Any]) -> None:
    """Makes the world what the document says. Raises DriverError when that is none of ours."""
    if document.get("format") != FORMAT:
        raise DriverError(
            f"a simulated cluster was written in format {document.get('format')!r}, and this version reads {FORMAT}",
            remedy="use the version of Shardlift that wrote it, or delete the cluster",
        )
    try:
        _restore(world, document)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DriverError(
            f"the file of a simulated cluster is damaged: {type(error).__name__}: {error}",
            remedy="delete the cluster and make it again",
        ) from None


def _restore(world: World, document: Mapping[str, Any]) -> None:
    for name in _WORLD:
        setattr(world, name, document[name])
    world.persistent, world.transient = dict(document["persistent"]), dict(document["transient"])
    world.voting_excluded, world.voters = set(document["voting_excluded"]), tuple(document["voters"])
    world.effects = [(what, where) for what, where in document["effects"]]
    world.snapshotting = frozenset((index, shard) for index, shard in document["snapshotting"])
    world.nodes = {one["name"]: _restored_node(world.nodes.get(one["name"]), one) for one in document["nodes"]}
    world.indices = {one["name"]: _restored_index(one) for one in document["indices"]}
    world.copies = [
        Copy(**{name: one[name] for name in _COPY}, state=CopyState(one["state"])) for one in document["copies"]
    ]
    world.shards = {
        (index, shard): Shard(acknowledged, set(in_sync)) for index, shard, acknowledged, in_sync in document["shards"]
    }
    world.index_groups()
    world.moves = [_restored_move(one, world.copies[one["at"]]) for one in document["moves"]]
    world.recovered = [_restored_move(one, _gone(*one["group"])) for one in document["recovered"]]
    rates = document["rates"]
    world.flow = None if rates is None else movement.Flow.known(world, rates["since_s"], rates["rates"])
    world.due = [(at_s, number, world.named(name, arguments)) for at_s, number, name, arguments in document["due"]]
    heapq.heapify(world.due)


def _rates(world: World) -> Document | None:
    if world.flow is None:
        return None
    return {"since_s": world.flow.since_s, "rates": [world.flow.rates.get(move) for move in world.moves]}


def _due(entry: tuple[float, int, Any]) -> list[Any]:
    at_s, number, event = entry
    if not hasattr(event, "arguments"):
        raise TypeError(f"an event without a name is due at {at_s}")
    return [at_s, number, event.name, event.arguments]


def _disk(disk: Mapping[Group, Data]) -> list[list[Any]]:
    return [[*group, data.aid, data.documents, data.leased] for group, data in disk.items()]


def _restored_disk(rows: list[list[Any]]) -> dict[Group, Data]:
    return {(index, shard): Data(*data) for index, shard, *data in rows}


def _node(node: SimNode) -> Document:
    return {name: getattr(node, name) for name in _PLAIN} | {
        "roles": sorted(node.roles),
        "engine": node.engine,
        "release": str(node.version),
        "disk": _disk(node.disk),
        "set_aside": {key: _disk(disk) for key, disk in node.set_aside.items()},
        "backups": sorted(node.backups),
        "restored": sorted(node.restored),
        "taken_over": sorted(node.taken_over),
        "extra": node.extra,
        "cold": node.cold,
        "load_1m": node.load_1m,
        "log": node.log,
    }


def _restored_node(known: SimNode | None, document: Document) -> SimNode:
    values: Document = {name: document[name] for name in _PLAIN}
    values |= {
        "roles": frozenset(document["roles"]),
        "engine": EngineKind(document["engine"]),
        "version": Version.parse(document["release"]),
        "disk": _restored_disk(document["disk"]),
        "set_aside": {key: _restored_disk(rows) for key, rows in document["set_aside"].items()},
        "backups": set(document["backups"]),
        "restored": set(document["restored"]),
        # A file of an older release has no spare nodes.
        "taken_over": set(document.get("taken_over", ())),
        "extra": bool(document.get("extra", False)),
        "cold": bool(document.get("cold", False)),
        "load_1m": document.get("load_1m", LOAD_1M),
        "log": list(document["log"]),
    }
    if known is None:
        return SimNode(**values)
    for name, value in values.items():
        setattr(known, name, value)
    return known


def _index(index: SimIndex) -> Document:
    plain = ("name", "primaries", "replicas", "copy_bytes", "created_by", "settings", "closed")
    return {name: getattr(index, name) for name in plain} | {"created_on": str(index.created_on)}


def _restored_index(document: Document) -> SimIndex:
    engine, release = EngineKind(document["created_by"]), Version.parse(document["created_on"])
    return SimIndex(**{**document, "created_by": engine, "created_on": release})


def _move(move: Move) -> Document:
    return {name: getattr(move, name) for name in (*_MOVE, "known_s")}


def _restored_move(document: Document, copy: Copy) -> Move:
    # In a file of an older release each recovery is known of at once.
    return Move(copy=copy, known_s=document.get("known_s", 0.0), **{name: document[name] for name in _MOVE})


def _gone(index: str, shard: int) -> Copy:
    """What is left of the copy of a recovery that has ended: which shard it was of."""
    return Copy(index, shard, primary=False, state=CopyState.STARTED, node=None)
