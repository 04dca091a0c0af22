"""Rules about the state the cluster must be in: healthy, at rest, backed up where that is wished."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from shardlift.checks.explain import left_behind, unexplained_unassigned
from shardlift.checks.subject import Subject, blocks, some, warns
from shardlift.model import Finding, Health, NodeSeen, ShardCopy

# Limits of the CSS load check, as its user guide gives them.
_SEARCH_QUEUE_MAX = 1000
_WRITE_QUEUE_MAX = 200
_CPU_PERCENT_MAX = 90
_LOAD_PER_PROCESSOR_MAX = 0.8
# A busy cluster nearly always has a few; a queue this long means that the master does not keep up.
_PENDING_TASKS_MAX = 10
_BACKUP_AGE_MAX = timedelta(days=2)


def cluster_healthy(subject: Subject) -> Iterator[Finding]:
    """Green, or yellow with every unassigned replica explained; nothing initializing.

    Explained by node versions: "wait for green" can never end while these are mixed. Or by a node that is out and is
    about to be repaired: its replicas wait for it, and their primaries serve. To start a node that is out takes nothing
    away, so copies on the move do not matter then. Red never passes.
    """
    health = subject.seen.health
    name = subject.cluster.name
    if health.status is Health.RED:
        lost = sorted({f"{c.index}[{c.shard}]" for c in subject.seen.shards if c.primary and not c.serving})
        yield blocks(
            "cluster_healthy",
            name,
            reason="the cluster is red: primaries are missing",
            evidence=some(lost) or "health says red",
            remedy="start the nodes that hold them, or DELETE or restore their indices, then try again",
        )
        return
    moving = health.initializing or (health.relocating and subject.node is None)
    if moving and not subject.repairing:
        told = warns if subject.repairs else blocks
        yield told(
            "cluster_healthy",
            name,
            reason="shards are on the move",
            evidence=f"{health.initializing} initializing, {health.relocating} relocating",
            remedy="wait until GET _cluster/health shows none relocating and none initializing, then try again",
        )
    unexplained = _unexplained(subject)
    if unexplained:
        shown = [f"{c.index}[{c.shard}] {c.unassigned_reason or ''}".strip() for c in unexplained]
        one = unexplained[0]
        asked = f'{{"index": "{one.index}", "shard": {one.shard}, "primary": {str(one.primary).lower()}}}'
        yield blocks(
            "cluster_healthy",
            name,
            reason=f"{len(unexplained)} unassigned shard copies are not explained by node versions",
            evidence=some(shown),
            remedy=f"GET _cluster/allocation/explain {asked} tells why; mend that, or "
            f'PUT {one.index}/_settings {{"index.number_of_replicas": 0}} if the copy is not needed',
        )


def _unexplained(subject: Subject) -> list[ShardCopy]:
    unexplained = unexplained_unassigned(subject.seen.nodes, subject.seen.shards)
    if not subject.repairs:
        return list(unexplained)
    return [copy for copy in unexplained if not left_behind(copy, subject.seen.groups[copy.group])]


def cluster_state_at_rest(subject: Subject) -> Iterator[Finding]:
    """The elected master keeps up with its work, and knows which copies lie on which disk."""
    health = subject.seen.health
    if health.pending_tasks > _PENDING_TASKS_MAX or health.in_flight_fetch:
        yield blocks(
            "cluster_state_at_rest",
            subject.cluster.name,
            reason="the elected master has a backlog",
            evidence=f"{health.pending_tasks} pending tasks (more than {_PENDING_TASKS_MAX} are too many), "
            f"{health.in_flight_fetch} questions about copies on disks unanswered",
            remedy="GET _cluster/pending_tasks names them; wait until they are done, then try again",
        )


def no_running_snapshot(subject: Subject) -> Iterator[Finding]:
    """No snapshot runs: a primary being copied cannot move, and stopping its node fails the snapshot."""
    running = subject.seen.running_snapshots
    if running or running is None:
        unknown = running is None
        yield blocks(
            "no_running_snapshot",
            subject.cluster.name,
            reason="it is not known whether a snapshot is being taken" if unknown else "a snapshot is being taken",
            evidence="GET _snapshot/_status did not answer" if unknown else f"{running} running",
            remedy="wait until GET _snapshot/_status answers with an empty list, or DELETE the running snapshot",
        )


def no_running_work(subject: Subject) -> Iterator[Finding]:
    """Nothing long runs that a restart would break half-way: reindex, update by query, force merge, shrink."""
    work = subject.seen.running_work
    if work is None:
        yield blocks(
            "no_running_work",
            subject.cluster.name,
            reason="it is not known whether work runs that a restart would break",
            evidence="GET _tasks did not answer for all nodes",
            remedy="try again when GET _tasks?actions=*reindex*,*forcemerge* answers without node_failures",
        )
    elif work:
        yield blocks(
            "no_running_work",
            subject.cluster.name,
            reason="work is under way that a restart would break half-way",
            evidence=some(list(work)),
            remedy="wait until GET _tasks no longer lists it, or POST _tasks/<task>/_cancel with the task named here",
        )


def indices_backed_up(subject: Subject) -> Iterator[Finding]:
    """On request (indices_backup_check): every index is in a successful snapshot, best a whole and recent one."""
    if not subject.backup_check:
        return
    held, backups = subject.seen.snapshotted, subject.seen.backups
    missing = sorted(index.name for index in subject.seen.indices if held is None or index.name not in held)
    if missing:
        partial = backups.get(missing[0])
        told = f"{len(held or ())} indices are" if partial is None else f"{missing[0]} is in {partial.snapshot} in part"
        yield blocks(
            "indices_backed_up",
            some(missing),
            reason=f"{len(missing)} indices are in no successful snapshot",
            evidence="GET _snapshot/<repository>/_all did not answer" if held is None else told,
            remedy="PUT _snapshot/<repository>/<name>?wait_for_completion=true with these indices, or send "
            "indices_backup_check false",
        )
    stale = {
        name: f"{name}: {one.snapshot}, ended {one.ended_at:%Y-%m-%d %H:%M} UTC, {one.failed_shards} shards failed"
        for name, one in sorted(backups.items())
        if one.ended_at is not None and (subject.seen.at - one.ended_at > _BACKUP_AGE_MAX or one.failed_shards)
    }
    if stale:
        yield warns(
            "indices_backed_up",
            some(list(stale)),
            reason=f"the newest snapshot of {len(stale)} indices is old or lacks shards",
            evidence=some(list(stale.values())),
            remedy="PUT _snapshot/<repository>/<name>?wait_for_completion=true takes a new one",
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
                remedy="wait for a quieter time (GET _cat/nodes shows load and CPU), or send cluster_load_check false",
            )


def load_figures(node: NodeSeen) -> tuple[tuple[str, float | None, float], ...]:
    """What a node bears: what, how much (None: not known), and from where on it is too much."""
    load = None if node.load_1m is None or not node.processors else node.load_1m / node.processors
    return (
        ("search queue", node.search_queue, _SEARCH_QUEUE_MAX),
        ("write queue", node.write_queue, _WRITE_QUEUE_MAX),
        ("CPU percent", node.cpu_percent, _CPU_PERCENT_MAX),
        ("load per processor", load, _LOAD_PER_PROCESSOR_MAX),
    )


def _loads(node: NodeSeen) -> Iterator[str]:
    for what, value, limit in load_figures(node):
        if value is None:
            yield f"{what} is not known"
        elif value >= limit:
            yield f"{what} is {value:.2f}, the limit {limit}"
