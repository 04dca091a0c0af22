"""Rows to model values and plans to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from shardlift.model import (
    Cluster,
    ClusterStatus,
    EngineKind,
    ForcedZones,
    Gates,
    InstanceType,
    Leaving,
    Node,
    NodePlan,
    OnBreach,
    Plan,
    Policy,
    Settling,
    StepRow,
    StepStatus,
    Strategy,
    Task,
    TaskKind,
    TaskStatus,
    Version,
    Window,
    ZoneChange,
)


def node_from(row: Row[Any]) -> Node:
    return Node(
        id=row.id,
        cluster_id=row.cluster_id,
        name=row.name,
        instance_type=InstanceType(row.instance_type),
        roles=tuple(row.roles),
        zone=row.zone,
        address=row.address,
        http_port=row.http_port,
        transport_port=row.transport_port,
        image_id=row.image_id,
    )


def cluster_from(row: Row[Any], nodes: Iterable[Node], busy_with: str | None) -> Cluster:
    return Cluster(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        engine=EngineKind(row.engine),
        version=Version.parse(row.version),
        image_id=row.image_id,
        driver=row.driver,
        strategy=Strategy(row.strategy),
        status=ClusterStatus(row.status),
        created_at=row.created_at,
        updated_at=row.updated_at,
        heap_mib=row.heap_mib,
        nodes=tuple(nodes),
        failed_reason=row.failed_reason,
        traffic_hook=row.traffic_hook,
        busy_with=busy_with,
    )


def spare_to_json(spare: Node) -> str:
    return json.dumps(asdict(spare))


def spare_from(text: str) -> Node:
    """A spare node as its row in the ledger has it."""
    data = json.loads(text)
    return Node(
        **{**data, "roles": tuple(data["roles"]), "instance_type": InstanceType(data["instance_type"])},
    )


def plan_to_json(plan: Plan) -> dict[str, object]:
    return {
        "cluster_id": plan.cluster_id,
        "strategy": str(plan.strategy),
        "image_id": plan.image_id,
        "batches": [
            [
                {
                    "node_id": node.node_id,
                    "name": node.name,
                    "from_version": node.from_version,
                    "fresh_data": node.fresh_data,
                    "drained": node.drained,
                    "rescued": node.rescued,
                    "repair": node.repair,
                    "canary": node.canary,
                    "to_zone": node.to_zone,
                    "spare": node.spare,
                    "fills": node.fills,
                    "takes_over": node.takes_over,
                    "empties_spare": node.empties_spare,
                    "spare_zone": node.spare_zone,
                    "leaving": None if node.leaving is None else asdict(node.leaving),
                }
                for node in batch
            ]
            for batch in plan.batches
        ],
        "zones": None if plan.zones is None else asdict(plan.zones),
        "forced": None if plan.forced is None else asdict(plan.forced),
        "aware": plan.aware,
        "settling": None if plan.settling is None else asdict(plan.settling),
        "settling_max_s": plan.settling_max_s,
    }


def plan_from(data: Mapping[str, Any]) -> Plan:
    return Plan(
        cluster_id=data["cluster_id"],
        strategy=Strategy(data["strategy"]),
        image_id=data["image_id"],
        batches=tuple(tuple(_node_plan_from(node) for node in batch) for batch in data["batches"]),
        zones=_zones_from(data.get("zones")),
        forced=_forced_from(data.get("forced")),
        aware=data.get("aware", False),
        settling=None if (settling := data.get("settling")) is None else Settling(**settling),
        settling_max_s=data.get("settling_max_s"),
    )


def _node_plan_from(data: Mapping[str, Any]) -> NodePlan:
    leaving = None if (leaving := data.get("leaving")) is None else Leaving(**leaving)
    # A plan of an older release has no `drained`: then a node was drained exactly if its data path was to be fresh.
    return NodePlan(**{"drained": data["fresh_data"], **data, "leaving": leaving})


def _forced_from(data: Mapping[str, Any] | None) -> ForcedZones | None:
    return None if data is None else ForcedZones(**{name: tuple(zones) for name, zones in data.items()})


def _zones_from(data: Mapping[str, Any] | None) -> ZoneChange | None:
    if data is None:
        return None
    return ZoneChange(**{**data, "final": tuple((zone, tuple(names)) for zone, names in data["final"])})


def policy_to_json(policy: Policy) -> dict[str, object]:
    gates = policy.gates
    return {
        "canary": policy.canary,
        "gates": None if gates is None else {**asdict(gates), "on_breach": str(gates.on_breach)},
        "windows": [str(window) for window in policy.windows],
    }


def policy_from(data: Mapping[str, Any]) -> Policy:
    gates = data.get("gates")
    return Policy(
        canary=data.get("canary", False),
        gates=None if gates is None else Gates(**{**gates, "on_breach": OnBreach(gates["on_breach"])}),
        windows=tuple(Window.parse(text) for text in data.get("windows", ())),
    )


def step_from(row: Row[Any]) -> StepRow:
    return StepRow(
        task_id=row.task_id,
        node=row.node,
        order=row.order,
        name=row.name,
        status=StepStatus(row.status),
        desc=row.desc,
        attempts=row.attempts,
        begin=row.begin,
        end=row.end,
        evidence=row.evidence,
        progress=row.progress,
        revision=row.revision,
    )


def task_from(row: Row[Any], steps: Iterable[StepRow], plan: Plan | None = None) -> Task:
    """`plan`: the one in the row, where it has been read before."""
    return Task(
        id=row.id,
        cluster_id=row.cluster_id,
        project_id=row.project_id,
        kind=TaskKind(row.kind),
        status=TaskStatus(row.status),
        image_id=row.image_id,
        strategy=Strategy(row.strategy),
        plan=plan_from(row.plan) if plan is None else plan,
        agency=row.agency,
        created_at=row.created_at,
        ended_at=row.ended_at,
        execute_times=row.execute_times,
        revision=row.revision,
        bytes_moved=row.bytes_moved,
        aborting=row.aborting,
        fail_message=row.fail_message,
        policy=policy_from(row.policy),
        paused=row.paused,
        approved=row.approved,
        at_rest=row.at_rest,
        hold_until=row.hold_until,
        waiting_for=row.waiting_for,
        steps=tuple(steps),
    )
