"""Rules about versions, images and the machines: hop, indices, JVM, plugins."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.subject import Subject, blocks
from shardlift.checks.versions import hop_allowed, oldest_index
from shardlift.model import Finding


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
                remedy="go there in several hops, which `shardlift upgrade CLUSTER --to IMAGE` finds, or choose an "
                "allowed target (`shardlift image list`)",
            )


def index_compatible(subject: Subject) -> Iterator[Finding]:
    """The target opens every index, closed ones too: a node with an index out of range may not even join."""
    reasons: dict[object, str | None] = {}
    for index in subject.seen.indices:
        origin = index.created_by, index.created_on
        if origin not in reasons:
            if index.created_by is None or index.created_on is None:
                reasons[origin] = "the version that created it is not known"
            else:
                reasons[origin] = oldest_index(
                    subject.image.engine, index.created_by, index.created_on, subject.image.version
                )
        reason = reasons[origin]
        if reason is not None:
            yield blocks(
                "index_compatible",
                index.name,
                reason="the target cannot open this index",
                evidence=reason,
                remedy=f"copy it into a new index on the present version (POST _reindex), then DELETE {index.name}; or "
                "only delete it",
            )


def java_available(subject: Subject) -> Iterator[Finding]:
    """A JVM in the image's range is at hand, before any node is stopped."""
    if subject.java_problem is not None:
        yield blocks(
            "java_available",
            subject.image.reference,
            reason="no fitting JVM on the host",
            evidence=subject.java_problem,
            remedy=f"install Java {subject.image.java}, or set SHARDLIFT_JAVA_HOMES",
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
