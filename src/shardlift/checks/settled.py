"""Rules about the state the cluster must be in: healthy, at rest, and free of other operations' leftovers."""

from __future__ import annotations

from collections.abc import Iterator

from shardlift.checks.explain import unexplained_unassigned
from shardlift.checks.subject import Subject, blocks, warns
from shardlift.model import Finding, Health, NodeSeen

_ENABLE = "cluster.routing.allocation.enable"
_EXCLUDE = "cluster.routing.allocation.exclude."
_NAMED_MAX = 5
# Limits of the CSS load check, as its user guide gives them.
_SEARCH_QUEUE_MAX = 1000
_WRITE_QUEUE_MAX = 200
_CPU_PERCENT_MAX = 90
_LOAD_PER_PROCESSOR_MAX = 0.8


def cluster_healthy(subject: Subject) -> Iterator[Finding]:
    """Green, or yellow with every unassigned replica explained by node versions; nothing initializing.

    "Wait for green" can never end while versions are mixed, so explained yellow counts as healthy.
    """
    health = subject.seen.health
    name = subject.cluster.name
    if health.status is Health.RED:
        lost = sorted({f"{c.index}[{c.shard}]" for c in subject.seen.shards if c.primary and not c.serving})
        yield blocks(
            "cluster_healthy",
            name,
            reason="the cluster is red: primaries are missing",
            evidence=", ".join(lost[:_NAMED_MAX]) or "health says red",
            remedy="bring the missing primaries back, or delete or restore their indices, then try again",
        )
        return
    if health.initializing or (health.relocating and subject.node is None):
        yield blocks(
            "cluster_healthy",
            name,
            reason="shards are on the move",
            evidence=f"{health.initializing} initializing, {health.relocating} relocating",
            remedy="wait until they have settled, then try again",
        )
    unexplained = unexplained_unassigned(subject.seen.nodes, subject.seen.shards)
    if unexplained:
        shown = ", ".join(f"{c.index}[{c.shard}] {c.unassigned_reason or ''}".strip() for c in unexplained[:_NAMED_MAX])
        yield blocks(
            "cluster_healthy",
            name,
            reason=f"{len(unexplained)} unassigned shard copies are not explained by node versions",
            evidence=shown,
            remedy="GET _cluster/allocation/explain tells why; mend it, or lower number_of_replicas, then try again",
        )


def voting_exclusions_clean(subject: Subject) -> Iterator[Finding]:
    """No voting exclusion is left over: with one, fewer nodes vote than it looks, and quorum is thinner."""
    voting = subject.seen.voting
    if voting is not None and voting.excluded_names - subject.own_tokens:
        yield blocks(
            "voting_exclusions_clean",
            subject.cluster.name,
            reason="voting exclusions of another operation are in force",
            evidence=f"excluded: {', '.join(sorted(voting.excluded_names - subject.own_tokens))}",
            remedy="DELETE _cluster/voting_config_exclusions?wait_for_removal=false once that operation is over",
        )


def allocation_enabled(subject: Subject) -> Iterator[Finding]:
    """Shard allocation is on; with it off nothing would leave a drained node or come back to a restarted one."""
    value = subject.seen.settings.effective(_ENABLE)
    if value not in (None, "all"):
        yield blocks(
            "allocation_enabled",
            subject.cluster.name,
            reason="shard allocation is restricted",
            evidence=f"{_ENABLE} is {value!r}",
            remedy=f"set {_ENABLE} to null in the layer that has it",
        )


def no_leftover_excludes(subject: Subject) -> Iterator[Finding]:
    """No allocation exclusion names a member: it holds back shards the plan counts on placing there."""
    settings = subject.seen.settings
    for key in sorted({*settings.persistent, *settings.transient}):
        if not key.startswith(_EXCLUDE):
            continue
        words = {word.strip() for word in (settings.effective(key) or "").split(",")} - {""} - subject.own_tokens
        hit = sorted(word for word in words if any(word in _names(node) for node in subject.seen.nodes))
        if hit:
            yield blocks(
                "no_leftover_excludes",
                subject.cluster.name,
                reason="an allocation exclusion that is not ours names members of the cluster",
                evidence=f"{key} holds {', '.join(hit)}",
                remedy=f"remove it from {key}, or wait for the operation that set it",
            )


def no_running_snapshot(subject: Subject) -> Iterator[Finding]:
    """No snapshot runs: a primary being copied cannot move, and stopping its node fails the snapshot."""
    running = subject.seen.running_snapshots
    if running:
        yield blocks(
            "no_running_snapshot",
            subject.cluster.name,
            reason="a snapshot is being taken",
            evidence=f"{running} running",
            remedy="wait for it to end (GET _snapshot/_status), then try again",
        )
    if running is None:
        yield warns(
            "no_running_snapshot",
            subject.cluster.name,
            reason="it is not known whether a snapshot runs",
            evidence="GET _snapshot/_status did not answer",
            remedy="look yourself before you go on",
        )


def indices_backed_up(subject: Subject) -> Iterator[Finding]:
    """On request (indices_backup_check): every index is in a successful snapshot."""
    if not subject.backup_check:
        return
    held = subject.seen.snapshotted
    missing = sorted(index.name for index in subject.seen.indices if held is None or index.name not in held)
    if missing:
        yield blocks(
            "indices_backed_up",
            ", ".join(missing[:_NAMED_MAX]) + (" ..." if len(missing) > _NAMED_MAX else ""),
            reason=f"{len(missing)} indices are in no successful snapshot",
            evidence="snapshots unreadable" if held is None else f"{len(held)} indices are",
            remedy="take a snapshot of them, or send indices_backup_check false",
        )


def load_low(subject: Subject) -> Iterator[Finding]:
    """On request (cluster_load_check): queues, CPU and load of each node below the limits of the CSS user guide."""
    if not subject.load_check:
        return
    for node in subject.seen.nodes:
        for words in _loads(node):
            yield blocks(
                "load_low",
                node.name,
                reason="the node is too busy, or its load is not known",
                evidence=words,
                remedy="wait for a quieter time, or send cluster_load_check false",
            )


def _loads(node: NodeSeen) -> Iterator[str]:
    load = None if node.load_1m is None or not node.processors else node.load_1m / node.processors
    for what, value, limit in (
        ("search queue", node.search_queue, _SEARCH_QUEUE_MAX),
        ("write queue", node.write_queue, _WRITE_QUEUE_MAX),
        ("CPU percent", node.cpu_percent, _CPU_PERCENT_MAX),
        ("load per processor", load, _LOAD_PER_PROCESSOR_MAX),
    ):
        if value is None:
            yield f"{what} is not known"
        elif value >= limit:
            yield f"{what} is {value:.2f}, the limit {limit}"


def _names(node: NodeSeen) -> set[str]:
    return {node.name, node.id, node.address}
