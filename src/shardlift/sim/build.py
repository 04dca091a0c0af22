"""A simulated world made to measure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from shardlift.clock import Clock
from shardlift.model import Cluster, CopyState, EngineKind, Image, Node, Version
from shardlift.sim import membership
from shardlift.sim.deciders import verdicts
from shardlift.sim.parts import Copy, IndexSpec, SimIndex, SimNode
from shardlift.sim.world import World

_DEFAULT_ROLES = {
    EngineKind.OPENSEARCH: ("cluster_manager", "data", "ingest"),
    EngineKind.ELASTICSEARCH: ("master", "data", "ingest"),
}


def sim_image(version: str, engine: EngineKind = EngineKind.OPENSEARCH) -> Image:
    """An image that only simulated nodes can run."""
    return Image(
        id=f"image-{engine}-{version}",
        display_name=f"{version}_1.0.0_1124",
        description="simulated",
        engine=engine,
        version=Version.parse(version),
        sha256="0" * 64,
        size_bytes=1,
        java_min=11,
        java_max=25,
        priority=1,
        path="/simulated",
    )


def build_world(
    cluster: Cluster, clock: Clock, *, indices: Sequence[IndexSpec], disk_bytes: int | None = None
) -> World:
    """A started, green cluster of that shape, its copies dealt to the data nodes in turn.

    Raises ValueError when a copy finds no place. A fifth of each disk holds other things.
    """
    nodes = [_node(node, cluster, at) for at, node in enumerate(cluster.nodes)]
    if disk_bytes is not None:
        for node in nodes:
            node.disk_bytes, node.filler_bytes = disk_bytes, disk_bytes // 5
    made = [
        SimIndex(
            spec.name, spec.primaries, spec.replicas, spec.copy_bytes, cluster.engine, cluster.version,
            dict(spec.settings),
        )
        for spec in indices
    ]  # fmt: skip
    copies = [
        Copy(index.name, shard, number == 0, CopyState.UNASSIGNED, None)
        for index in made
        for shard in range(index.primaries)
        for number in range(index.replicas + 1)
    ]
    world = World(nodes, made, copies, clock)
    world.elected = next(node.name for node in nodes if node.eligible)
    membership.reconfigure(world)
    data = [node for node in nodes if node.holds_data]
    turn = itertools.cycle(range(len(data)))
    for copy in copies:
        _place(world, copy, data, next(turn))
    return world


def extra_node(world: World, node: Node, image: Image) -> SimNode:
    """One more node on a machine like those of the others, not started yet, with an empty disk."""
    like = next(iter(world.nodes.values()))
    return SimNode(
        name=node.name,
        address=node.address,
        zone=node.zone,
        roles=frozenset(node.roles or _DEFAULT_ROLES[image.engine]),
        engine=image.engine,
        version=image.version,
        image_id=image.id,
        node_id=f"id-new-{world.new_number()}",
        ephemeral_id="",
        boot_s=like.boot_s,
        disk_bytes=like.disk_bytes,
        filler_bytes=like.disk_bytes // 5,
        extra=True,
    )


def _place(world: World, copy: Copy, data: list[SimNode], first: int) -> None:
    for at in range(len(data)):
        node = data[(first + at) % len(data)]
        if not [one for one in verdicts(world, copy, node) if one.verdict == "NO"]:
            world.routing.put(copy, CopyState.STARTED, node.name)
            copy.aid = world.new_number()
            world.shards[copy.group].in_sync.add(copy.aid)
            return
    raise ValueError(f"no node may have {copy.label}")


def _node(node: Node, cluster: Cluster, at: int) -> SimNode:
    return SimNode(
        name=node.name,
        address=node.address,
        zone=node.zone,
        roles=frozenset(node.roles or _DEFAULT_ROLES[cluster.engine]),
        engine=cluster.engine,
        version=cluster.version,
        image_id=node.image_id,
        node_id=f"id-{at}",
        ephemeral_id=f"e-{at}",
        pid=100 + at,
        up=True,
        serving=True,
        booted=True,
    )
