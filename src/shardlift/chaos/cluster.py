"""The cluster of a scenario: as Shardlift keeps it, and as the simulated world has it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime

from shardlift.chaos.scenario import Scenario
from shardlift.clock import Clock
from shardlift.model import Cluster, ClusterStatus, InstanceType, Node, Strategy
from shardlift.sim import IndexSpec, World, build_world, sim_image

PROJECT = "trial"


OLD, TARGET = sim_image("2.19.4"), sim_image("3.4.0")
IMAGES = (OLD, TARGET)


def model_cluster(scenario: Scenario, now: Callable[[], datetime]) -> Cluster:
    """Its ids come from the seed, so that a trial can be repeated to the letter."""
    dice = random.Random(scenario.seed ^ 0x1D5)  # noqa: S311  (repeatable on purpose)
    cluster_id = _id(dice)
    nodes = tuple(
        Node(
            id=_id(dice),
            cluster_id=cluster_id,
            name=f"node-{at}",
            instance_type=_type(drawn.roles),
            roles=drawn.roles,
            zone=drawn.zone,
            address=f"127.77.0.{at}",
            http_port=9200,
            transport_port=9300,
            image_id=OLD.id,
        )
        for at, drawn in enumerate(scenario.nodes, 1)
    )
    return Cluster(
        id=cluster_id,
        project_id=PROJECT,
        name="trial",
        engine=OLD.engine,
        version=OLD.version,
        image_id=OLD.id,
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=now(),
        updated_at=now(),
        heap_mib=512,
        nodes=nodes,
    )


def simulated(scenario: Scenario, cluster: Cluster, clock: Clock) -> World:
    """The world, green and at rest, with the settings that stood there before us."""
    specs = [
        IndexSpec(
            name=drawn.name,
            primaries=drawn.primaries,
            replicas=drawn.replicas,
            copy_bytes=drawn.copy_bytes,
            settings=_settings(drawn.expand, segments=drawn.segments),
        )
        for drawn in scenario.indices
    ]
    world = build_world(cluster, clock, indices=specs)
    for drawn, node in zip(scenario.nodes, cluster.nodes, strict=True):
        world.nodes[node.name].boot_s = drawn.boot_s
    for layer, key, value in scenario.settings:
        world.put_cluster_setting(layer, key, value)
    for at_s, name, load in scenario.loads:
        world.at(at_s, _bears(world, name, load))
    world.write_every(scenario.writes_every_s)
    return world


def _bears(world: World, name: str, load: float | None) -> Callable[[], str]:
    def bear() -> str:
        if name in world.nodes:
            world.nodes[name].load_1m = load
        return f"the load of {name} is {load}"

    return bear


def _settings(expand: str, *, segments: bool) -> dict[str, str]:
    settings = {} if expand == "false" else {"index.auto_expand_replicas": expand}
    return settings | ({"index.replication.type": "SEGMENT"} if segments else {})


def _type(roles: tuple[str, ...]) -> InstanceType:
    if "data" in roles:
        return InstanceType.ESS
    return InstanceType.MASTER if "cluster_manager" in roles else InstanceType.CLIENT


def _id(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128), version=4))
