"""Rules about versions, images and the machines: hop, indices, JVM, plugins, disk."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.subject import Subject, blocks, warns
from shardlift.checks.versions import hop_allowed, oldest_index
from shardlift.model import Finding, NodeSeen, Strategy

_NAMED_MAX = 5
# CSS asks for 20 % of the disk to stay free while one node's data sits on the others; also below the engines' own low
# watermark of 85 %.
_DISK_USED_MAX = 0.80


def target_differs(subject: Subject) -> Iterator[Finding]:
    """There is something to do: at least one node does not run the image."""
    if not subject.taken:
        yield blocks(
            "target_differs",
            subject.cluster.name,
            reason="all nodes run the target image already",
            evidence=f"image {subject.image.display_name}",
            remedy="choose another image",
        )


def version_hop_allowed(subject: Subject) -> Iterator[Finding]:
    """Each version that runs now may be followed by the target, as the nodes themselves report it."""
    seen = {(node.engine, node.version) for node in subject.seen.nodes}
    for engine, version in sorted(seen):
        reason = hop_allowed(engine, version, subject.image.engine, subject.image.version)
        if reason is not None:
            yield blocks(
                "version_hop_allowed",
                subject.cluster.name,
                reason=f"{engine} {version} cannot go to {subject.image.reference} in one rolling upgrade",
                evidence=reason,
                remedy="choose an allowed target (`shardlift image list`), and go there in several hops",
            )


def index_compatible(subject: Subject) -> Iterator[Finding]:
    """The target opens every index, closed ones too: a node with an index out of range may not even join."""
    for index in subject.seen.indices:
        if index.created_by is None or index.created_on is None:
            reason: str | None = "the version that created it is not known"
        else:
            reason = oldest_index(subject.image.engine, index.created_by, index.created_on, subject.image.version)
        if reason is not None:
            yield blocks(
                "index_compatible",
                index.name,
                reason="the target cannot open this index",
                evidence=reason,
                remedy="reindex it on the present version, or delete it",
            )


def java_available(subject: Subject) -> Iterator[Finding]:
    """A JVM in the image's range is at hand, before any node is stopped."""
    if subject.java_problem is not None:
        yield blocks(
            "java_available",
            subject.image.reference,
            reason="no fitting JVM on the host",
            evidence=subject.java_problem,
            remedy=f"install Java {subject.image.java_min} to {subject.image.java_max}, or set SHARDLIFT_JAVA_HOMES",
        )


def plugins_available(subject: Subject) -> Iterator[Finding]:
    """Each plugin in use comes with the target image: a node that lacks one fails to start or to read its indices."""
    if subject.image_plugins is None:
        return
    offered = {plugin.name for plugin in subject.image_plugins}
    for node in subject.seen.nodes:
        missing = sorted({plugin.name for plugin in node.plugins} - offered)
        if missing:
            yield blocks(
                "plugins_available",
                node.name,
                reason="plugins in use do not come with the target image",
                evidence=", ".join(missing),
                remedy="add an image that has them (`shardlift image add`), or remove them from the cluster",
            )


def disk_room(subject: Subject) -> Iterator[Finding]:
    """The data of the node to be drained fits on the others: used / (capacity without it) below 80 %.

    Nodes that share one file system report the same disk; taking each figure as it stands errs on the safe side for
    used space and is checked per node for the largest shard. In place nothing moves, so only a warning is due there.
    """
    data = [node for node in subject.seen.nodes if node.holds_data]
    told = blocks if subject.strategy is Strategy.DRAIN else warns
    for node in data:
        if node.disk_total_bytes is None or node.disk_available_bytes is None:
            yield told(
                "disk_room",
                node.name,
                reason="its disk usage is not known",
                evidence="_nodes/stats/fs has no figures for it",
                remedy="see whether the node's data path is readable",
            )
            return
    for name in (one.name for one in subject.taken):
        rest = [node for node in data if node.name != name]
        need = sum(copy.size_bytes or 0 for copy in subject.seen.copies_on(name))
        total = sum(node.disk_total_bytes or 0 for node in rest)
        used = sum(_used(node) for node in rest) + need
        if rest and total and used / total > _DISK_USED_MAX:
            yield told(
                "disk_room",
                name,
                reason="the other nodes' disks are too full to take its data",
                evidence=f"{used / total:.0%} would be used of {total} bytes, the limit is {_DISK_USED_MAX:.0%}",
                remedy="free disk space, add a data node, or use the strategy in_place",
            )


def _used(node: NodeSeen) -> int:
    assert node.disk_total_bytes is not None, "looked at by the caller"
    assert node.disk_available_bytes is not None, "looked at by the caller"
    return node.disk_total_bytes - node.disk_available_bytes
