"""What today's cluster tells of an upgrade that comes later on its route. Pure."""

from __future__ import annotations

from dataclasses import replace

from shardlift.checks import Subject
from shardlift.model import Cluster, Image, Leg, NodeSeen, Observation


def foreseen(subject: Subject, legs: tuple[Leg, ...], source: Image) -> Subject:
    """The question of the last of `legs`, asked as if the others were done: all nodes run `source`, and the indices
    that have to be made again by then have been, each on what ran before its hop. All else is as it is today.

    `subject` asks about today's cluster; its image, and what is known of that image, are replaced by the caller.
    """
    last = legs[-1]
    return replace(
        subject,
        seen=_later(subject.seen, legs),
        cluster=_on(subject.cluster, source),
        image=last.image,
    )


def _later(seen: Observation, legs: tuple[Leg, ...]) -> Observation:
    last = legs[-1]

    def member(node: NodeSeen) -> NodeSeen:
        return replace(node, engine=last.engine, version=last.version)

    made = {name: (leg.engine, leg.version) for leg in legs for name in leg.rebuild}
    indices = tuple(
        index
        if index.name not in made
        else replace(index, created_by=made[index.name][0], created_on=made[index.name][1])
        for index in seen.indices
    )
    return replace(seen, nodes=tuple(member(node) for node in seen.nodes), indices=indices)


def _on(cluster: Cluster, image: Image) -> Cluster:
    nodes = tuple(replace(node, image_id=image.id) for node in cluster.nodes)
    return replace(cluster, engine=image.engine, version=image.version, image_id=image.id, nodes=nodes)
