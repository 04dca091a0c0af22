"""Our data in CSS's words. Pure: what comes in decides what goes out, so every field can be tested on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from shardlift.model import (
    SUB_STEPS,
    Cluster,
    ClusterStatus,
    Image,
    Node,
    StepRow,
    StepStatus,
    Task,
    TaskKind,
    TaskStatus,
    ZoneChange,
)

_STOP_ORDER = 6  # Node shutdown: from here on the node may not answer
_REJOIN_ORDER = 11  # Cluster rejoin: from its success on it does
_EVIDENCE_MAX_CHARS = 1500
_TAIL_LINES = 5
_TELLING_CHARS = 8


def css_time(at: datetime | None) -> str:
    """UTC without zone, `2023-01-05T02:23:39`; unset is the empty string."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if at else ""


def upgrade_detail(task: Task, image: Image | None) -> dict[str, object]:
    """One GetUpgradeDetailInfo. `image` None: the catalogue no longer has it, so only its id is told."""
    out: dict[str, object] = {
        "id": task.id,
        "startTime": css_time(task.created_at),
        "endTime": css_time(task.ended_at),
        "status": str(task.status),
        "agencyName": task.agency,
    }
    if task.kind is TaskKind.UPGRADING:
        out["imageInfo"] = image_info(image) if image else _unknown_image(task.image_id)
    if task.plan.zones is not None:
        out |= _zones(task.plan.zones)
    out |= {
        "totalNodes": ",".join(task.total),
        "completedNodes": ",".join(task.completed),
        "currentNodeName": ",".join(task.current),
        "executeTimes": str(task.execute_times),
        "currentNodeDetail": [_step(task, row) for row in steps_shown(task)],
        "batchSize": max((len(batch) for batch in task.plan.batches), default=0),
        "currentBatchNodes": ",".join(_batch_shown(task)),
    }
    if task.status in (TaskStatus.FAILED, TaskStatus.PARTIAL_FAILED):
        out["failMessage"] = task.fail_message or ""
    return out


def _zones(change: ZoneChange) -> dict[str, object]:
    """JSON in strings, as CSS has it; `finalAzInfoMap` tells where the nodes of that type are at the end."""
    asked = {
        "instType": change.inst_type,
        "migrateType": change.migrate_type,
        "sourceAz": change.source,
        "targetAz": change.target,
    }
    final = {zone: ",".join(names) for zone, names in change.final}
    compact = (",", ":")
    return {
        "migrateParam": json.dumps(asked, separators=compact),
        "finalAzInfoMap": json.dumps(final, separators=compact),
    }


def image_info(image: Image) -> dict[str, object]:
    return {
        "id": image.id,
        "displayName": image.display_name,
        "imageDesc": image.description,
        "datastoreType": str(image.engine),
        "datastoreVersion": str(image.version),
        "priority": image.priority,
    }


def _unknown_image(image_id: str) -> dict[str, object]:
    names = ("displayName", "imageDesc", "datastoreType", "datastoreVersion")
    return {"id": image_id, **dict.fromkeys(names, ""), "priority": 0}


def steps_shown(task: Task) -> tuple[StepRow, ...]:
    """Always the 13 of one node, in order; those without a journal row yet are WAITING."""
    node = task.shown_node
    if node is None:
        return ()
    rows = {row.order: row for row in task.steps_of(node)}
    return tuple(
        rows.get(step.order) or StepRow(task.id, node, step.order, step.name, StepStatus.WAITING, step.desc, 0)
        for step in SUB_STEPS
    )


def _batch_shown(task: Task) -> tuple[str, ...]:
    if task.status is TaskStatus.SUCCESS:
        return ()
    node = task.shown_node
    for batch in task.plan.batches:
        names = tuple(planned.name for planned in batch)
        if node in names:
            return names
    return ()


def _step(task: Task, row: StepRow) -> dict[str, object]:
    if row.status is StepStatus.WAITING:
        # Waits for a retry's second attempt, perhaps: what its first one left is not this one's beginning or text.
        row = replace(row, desc=SUB_STEPS[row.order].desc, begin=None, end=None)
    # A client that only knows the four task words sees why it failed in the step's text.
    failed = row.status is StepStatus.FAILED
    evidence = evidence_text(row.evidence, row.desc) if failed else ""
    if failed and not evidence and task.fail_message and task.fail_message not in row.desc:
        evidence = task.fail_message
    desc = f"{row.desc.rstrip('.')}. {evidence}" if evidence else row.desc
    return {
        "order": row.order,
        "name": row.name,
        "status": str(row.status),
        "desc": desc,
        "beginTime": css_time(row.begin),
        "endTime": css_time(row.end),
    }


def evidence_text(evidence: Mapping[str, object], said: str = "") -> str:
    """Evidence as one bounded line, without what `said` already has. Of lists (log tails) the last lines are kept."""
    parts = []
    for key, value in evidence.items():
        text = _flat(value)
        told = f"{key}: {text}"
        # A short value (a pid, a 1) stands in many texts by chance.
        if text and told not in said and (len(text) < _TELLING_CHARS or text not in said):
            parts.append(told)
    line = "; ".join(parts)
    return line if len(line) <= _EVIDENCE_MAX_CHARS else line[:_EVIDENCE_MAX_CHARS] + "..."


def _flat(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_flat(item)}" for key, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " | ".join(_flat(item) for item in list(value)[-_TAIL_LINES:])
    lines = str(value).strip().splitlines()
    return " | ".join(line.strip() for line in lines[-_TAIL_LINES:])


def cluster_detail(cluster: Cluster, image: Image | None, task: Task | None, *, volume_gib: int) -> dict[str, object]:
    """ClusterDetail. `task` is the newest one, if any; `volume_gib` the disk that a local node's data lives on.

    `actionProgress` is an object in every state: clients compare it with `{}`, and null would never match.
    """
    failed = cluster.failed_reason
    return {
        "id": cluster.id,
        "name": cluster.name,
        "status": str(cluster.status),
        "actions": [cluster.busy_with] if cluster.busy_with else [],
        "actionProgress": {cluster.busy_with: f"{_percent(task)}%"} if cluster.busy_with else {},
        "failedReason": {"errorCode": "CSS.0005", "errorMsg": failed} if failed else None,
        "datastore": {
            "type": str(cluster.engine),
            "version": str(cluster.version),
            "subVersion": image.display_name if image else "",
        },
        "instances": [_instance(cluster, node, task, volume_gib) for node in cluster.nodes],
        "endpoint": ",".join(f"{node.address}:{node.http_port}" for node in cluster.nodes),
        "created": css_time(cluster.created_at),
        "updated": css_time(cluster.updated_at),
        "httpsEnable": False,
        "authorityEnable": False,
        "diskEncrypted": False,
        "backupAvailable": False,
    }


def _instance(cluster: Cluster, node: Node, task: Task | None, volume_gib: int) -> dict[str, object]:
    return {
        "id": node.id,
        "name": node.name,
        "type": str(node.instance_type),
        "status": str(_instance_status(cluster, node, task)),
        "azCode": node.zone,
        "ip": node.address,
        "specCode": f"{node.instance_type}.heap-{cluster.heap_mib}m",
        "volume": {"type": "LOCAL", "size": volume_gib},
    }


def _instance_status(cluster: Cluster, node: Node, task: Task | None) -> ClusterStatus:
    """A node between its shutdown and its rejoin is not available; an idle available cluster has all of its nodes."""
    if cluster.status is ClusterStatus.AVAILABLE and not cluster.busy_with:
        return ClusterStatus.AVAILABLE
    if cluster.status is ClusterStatus.CREATING:
        return ClusterStatus.CREATING
    if task is None:
        return cluster.status
    rows = {row.order: row for row in task.steps_of(node.name)}
    stopping, rejoin = rows.get(_STOP_ORDER), rows.get(_REJOIN_ORDER)
    away = stopping is not None and stopping.begin is not None
    back = rejoin is not None and rejoin.status is StepStatus.SUCCESS
    return ClusterStatus.UNAVAILABLE if away and not back else ClusterStatus.AVAILABLE


def _percent(task: Task | None) -> int:
    if task is None or not task.total:
        return 0
    done = sum(row.status is StepStatus.SUCCESS for row in task.steps)
    return 100 * done // (len(SUB_STEPS) * len(task.total))
