"""Our data as JSON documents of the native API (and of `--json`). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from shardlift.model import Cluster, Forecast, Image, Node, NodePlan, Plan, Policy, StepRow, StepStatus, Task, eta
from shardlift.service.requests import CheckReport, NodeState


def iso_time(at: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond: `2023-01-05T02:23:39.120Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def image_document(image: Image) -> dict[str, object]:
    return {
        "image_id": image.id,
        "reference": image.reference,
        "name": image.display_name,
        "description": image.description,
        "engine": str(image.engine),
        "version": str(image.version),
        "java": f"{image.java_min}-{image.java_max}",
        "size_bytes": image.size_bytes,
        "priority": image.priority,
    }


def cluster_document(
    cluster: Cluster, states: Mapping[str, NodeState] | None, spares: Sequence[Node] | None = None
) -> dict[str, object]:
    """`states` None: they were not asked for, so each node's pid, version and answer are null; so with `spares`."""
    return {
        "cluster_id": cluster.id,
        "project_id": cluster.project_id,
        "name": cluster.name,
        "status": str(cluster.status),
        "engine": str(cluster.engine),
        "version": str(cluster.version),
        "image_id": cluster.image_id,
        "driver": cluster.driver,
        "strategy": str(cluster.strategy),
        "busy_with": cluster.busy_with,
        "failed_reason": cluster.failed_reason,
        "traffic_hook": None if cluster.traffic_hook is None else dict(cluster.traffic_hook),
        "created_at": iso_time(cluster.created_at),
        "updated_at": iso_time(cluster.updated_at),
        "nodes": [_node_document(node, states) for node in cluster.nodes],
        "spares": None if spares is None else [_node_document(node, states) for node in spares],
    }


def _node_document(node: Node, states: Mapping[str, NodeState] | None) -> dict[str, object]:
    state = states.get(node.name) if states else None
    return {
        "id": node.id,
        "name": node.name,
        "url": node.url,
        "zone": node.zone,
        "roles": list(node.roles),
        "type": str(node.instance_type),
        "image_id": node.image_id,
        "version": state.version if state else None,
        "pid": state.pid if state else None,
        "answers": state.answers if state else None,
    }


def check_document(report: CheckReport) -> dict[str, object]:
    return {
        "cluster_id": report.cluster_id,
        "image_id": report.image_id,
        "strategy": str(report.strategy),
        "ok": not report.blocking,
        "findings": [finding.as_dict() for finding in report.findings],
        "plan": plan_document(report.plan) if report.plan else None,
        "forecast": _forecast_document(report.forecast) if report.forecast else None,
    }


def _forecast_document(forecast: Forecast) -> dict[str, object]:
    """Bounded by the number of nodes."""
    return {
        "ends": forecast.ends,
        "exhaustive": forecast.exhaustive,
        "copies": forecast.copies,
        "size_bytes": forecast.size_bytes,
        "waiting": forecast.waiting,
        "nodes": [asdict(node) for node in forecast.nodes],
        "stuck": [asdict(one) for one in forecast.stuck],
        "unlisted_held": forecast.unlisted_held,
        "unlisted_kept": forecast.unlisted_kept,
        "peaks": [asdict(peak) for peak in forecast.peaks],
    }


def plan_document(plan: Plan) -> dict[str, object]:
    batches = [[_planned(node) for node in batch] for batch in plan.batches]
    return {"strategy": str(plan.strategy), "image_id": plan.image_id, "batches": batches}


def _planned(node: NodePlan) -> dict[str, object]:
    return {
        "name": node.name,
        "from_version": node.from_version,
        "fresh_data": node.fresh_data,
        "drained": node.drained,
        "rescued": node.rescued,
        "repair": node.repair,
        "canary": node.canary,
        "to_zone": node.to_zone,
        "spare": node.spare,
        "takes_over": node.takes_over,
        "spare_zone": node.spare_zone,
    }


def task_document(task: Task, now: datetime) -> dict[str, object]:
    return {
        **task_head(task, now),
        "batches": [[node.name for node in batch] for batch in task.plan.batches],
        "steps": [step_document(row) for row in task.steps],
    }


def task_head(task: Task, now: datetime) -> dict[str, object]:
    """The task without what grows with its nodes."""
    completed = task.completed
    return {
        "task_id": task.id,
        "cluster_id": task.cluster_id,
        "kind": str(task.kind),
        "status": str(task.status),
        "aborting": task.aborting,
        "image_id": task.image_id,
        "strategy": str(task.strategy),
        "created_at": iso_time(task.created_at),
        "ended_at": iso_time(task.ended_at),
        "execute_times": task.execute_times,
        "revision": task.revision,
        "nodes_total": len(task.total),
        "nodes_completed": len(completed),
        "current_nodes": list(task.current),
        "bytes_moved": task.bytes_moved,
        **eta_document(task, now),
        "blocked_by": task.blocked_by,
        "paused": task.paused,
        "at_rest": task.at_rest,
        "approved": task.approved,
        "waiting_for": task.waiting_for,
        "hold_until": iso_time(task.hold_until),
        "queue_position": task.queue_position,
        "policy": policy_document(task.policy),
        "fail_message": task.fail_message,
    }


def node_documents(task: Task, names: Sequence[str]) -> list[dict[str, object]]:
    """Nodes of the task, each with the state that its 13 sub-steps add up to."""
    rows: dict[str, list[StepRow]] = {name: [] for name in names}
    for row in task.steps:
        if row.node in rows:
            rows[row.node].append(row)
    batch_of = {node.name: number for number, batch in enumerate(task.plan.batches, 1) for node in batch}
    return [
        {
            "name": name,
            "batch": batch_of[name],
            "status": str(node_status(rows[name])),
            "begin": iso_time(min((row.begin for row in rows[name] if row.begin), default=None)),
            "end": iso_time(rows[name][-1].end if rows[name] else None),
            "steps": [step_document(row) for row in rows[name]],
        }
        for name in names
    ]


def node_status(rows: Sequence[StepRow]) -> StepStatus:
    """WAITING until its first sub-step begins, RUNNING until its last one ends, FAILED where one has failed."""
    said = {row.status for row in rows}
    if StepStatus.FAILED in said:
        return StepStatus.FAILED
    if said == {StepStatus.SUCCESS}:
        return StepStatus.SUCCESS
    return StepStatus.RUNNING if any(row.begin for row in rows) else StepStatus.WAITING


def policy_document(policy: Policy) -> dict[str, object]:
    gates = policy.gates
    told = None if gates is None else {**gates.limits, "on_breach": str(gates.on_breach)}
    if gates is not None and told is not None:
        told["wait_timeout_s"] = gates.wait_timeout_s
    return {"canary": policy.canary, "gates": told, "windows": [str(window) for window in policy.windows]}


def step_document(row: StepRow) -> dict[str, object]:
    return {
        "node": row.node,
        "order": row.order,
        "name": row.name,
        "status": str(row.status),
        "begin": iso_time(row.begin),
        "end": iso_time(row.end),
        "desc": row.desc,
        "attempts": row.attempts,
        "evidence": dict(row.evidence),
        "progress": dict(row.progress),
        "revision": row.revision,
    }


def eta_document(task: Task, now: datetime) -> dict[str, int | None]:
    """`eta_s` and its range in whole seconds; all null while nothing is known."""
    told = eta(task, now)
    if told is None:
        return {"eta_s": None, "eta_low_s": None, "eta_high_s": None}
    return {"eta_s": round(told.left_s), "eta_low_s": math.floor(told.low_s), "eta_high_s": math.ceil(told.high_s)}
