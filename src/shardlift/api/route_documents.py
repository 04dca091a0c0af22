"""Routes as JSON documents of the native API (and of `--json`). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from shardlift.api.documents import iso_time, plan_document
from shardlift.model import Image, Route, RouteStatus, Task
from shardlift.service.requests import HopReport, RouteReport


def route_report_document(report: RouteReport) -> dict[str, object]:
    """The hops in order, each with what it takes and what is in its way."""
    return {
        "cluster_id": report.cluster_id,
        "ok": not report.blocking,
        "hops": [_hop_report(hop) for hop in report.hops],
    }


def _hop_report(hop: HopReport) -> dict[str, object]:
    forecast = hop.check.forecast
    return {
        "from": hop.leg.source,
        "to": hop.leg.image.reference,
        "image_id": hop.leg.image.id,
        "strategy": str(hop.check.strategy),
        "nodes": len(hop.check.plan.nodes) if hop.check.plan else None,
        "bytes_to_copy": forecast.size_bytes if forecast else None,
        "download_bytes": hop.download_bytes,
        "rebuild_first": list(hop.leg.rebuild),
        "findings": [finding.as_dict() for finding in hop.check.findings],
        "plan": plan_document(hop.check.plan) if hop.check.plan else None,
    }


def route_document(route: Route, images: Mapping[str, Image], task: Task | None) -> dict[str, object]:
    """`images` by id, as far as they are known; `task` is that of the newest hop that has begun."""
    hops = []
    for at, hop in enumerate(route.hops, 1):
        image = images.get(hop.image_id)
        hops.append(
            {
                "to": image.reference if image else None,
                "image_id": hop.image_id,
                "task_id": hop.task_id,
                "status": _status(route, at, task) if hop.task_id else "WAITING",
            }
        )
    return {
        "route_id": route.id,
        "cluster_id": route.cluster_id,
        "status": str(route.status),
        "hop": route.begun,
        "hops_total": len(route.hops),
        "strategy": str(route.strategy) if route.strategy else None,
        "waiting_for": route.waiting_for,
        "look_at": iso_time(route.look_at),
        "created_at": iso_time(route.created_at),
        "ended_at": iso_time(route.ended_at),
        "hops": hops,
    }


def _status(route: Route, number: int, task: Task | None) -> str:
    """Of a hop that has begun: it begins only once those before it are SUCCESS."""
    if number < route.begun or route.status is RouteStatus.SUCCESS or task is None:
        return "SUCCESS"
    return str(task.status)
