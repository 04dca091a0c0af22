"""Routes of several hops in the native API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from shardlift.api import route_documents
from shardlift.api.auth import Located
from shardlift.api.bodies import native_parsed
from shardlift.api.docs import body_of, errors_of
from shardlift.api.native import located, upgrade_request_of
from shardlift.api.native_schemas import FindingDocument, PlanDocument, UpgradeBody
from shardlift.model import Route
from shardlift.service.requests import UpgradeRequest

router = APIRouter(prefix="/api/v1/clusters/{cluster}/route", tags=["native"])
Found = Annotated[Located, Depends(located)]

_VIA_MAX = 8


class RouteBody(UpgradeBody):
    """Where to go, as for an upgrade, and what to pass on the way. `upgrade_type` is of no effect."""

    via: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default_factory=list, max_length=_VIA_MAX, description="Images that the route must pass, in order"
    )


class HopReportDocument(BaseModel):
    """One hop that would be made, and what is known of it today."""

    source: str = Field(alias="from", description="What runs before it, engine:version")
    to: str = Field(description="What runs after it, engine:version")
    image_id: str = Field(description="Image to go to")
    strategy: str = Field(description="How nodes would be emptied")
    nodes: int | None = Field(description="How many nodes it takes; null when something blocks")
    bytes_to_copy: int | None = Field(
        description="Shard data to be sent between nodes; null when nothing is to be done"
    )
    download_bytes: int = Field(description="Of its image; 0 when it is ready")
    rebuild_first: list[str] = Field(description="Indices to be made again (reindexed) before it, as too old for it")
    findings: list[FindingDocument] = Field(description="Objections that are no earlier hop's as well")
    plan: PlanDocument | None = Field(description="What would be done; null when something blocks")


class RouteReportDocument(BaseModel):
    """A route as it would be. Nothing was changed."""

    cluster_id: str = Field(description="Cluster id")
    ok: bool = Field(description="Whether it could begin now")
    hops: list[HopReportDocument] = Field(description="In order")


class HopDocument(BaseModel):
    """One hop of a route."""

    to: str | None = Field(description="engine:version; null when the image has left the catalogue")
    image_id: str = Field(description="Image to go to")
    task_id: str | None = Field(description="Its task; null before it has begun")
    status: str = Field(description="WAITING, or its task's status")


class RouteDocument(BaseModel):
    """A route that was begun."""

    route_id: str = Field(description="Route id")
    cluster_id: str = Field(description="Cluster id")
    status: str = Field(description="RUNNING also while it waits; SUCCESS; ABORTED")
    hop: int = Field(description="How many hops have begun")
    hops_total: int = Field(description="How many there are")
    strategy: str | None = Field(description="How nodes are emptied; null for the cluster's own way")
    waiting_for: str | None = Field(description="Why it does not go on, and what to do; null while it does")
    look_at: str | None = Field(description="ISO 8601, UTC; when it is asked again whether it may go on")
    created_at: str = Field(description="ISO 8601, UTC")
    ended_at: str | None = Field(description="ISO 8601, UTC; null while it is RUNNING")
    hops: list[HopDocument] = Field(description="In order")


@router.get("", summary="The cluster's route", responses=errors_of(401, 404))
async def show_route(found: Found) -> RouteDocument:
    """The newest one, also when it has ended; 404 when there never was one."""
    return await _answer(found, await found.service.routes.newest(found.cluster))


@router.post(
    "/checks",
    summary="Finds a route, and what is in its way",
    openapi_extra=body_of(RouteBody),
    responses=errors_of(400, 401, 404, 412),
)
async def check_route(found: Found) -> RouteReportDocument:
    """Changes nothing. One hop where one is enough."""
    request, via = _asked(found)
    report = await found.service.routes.plan(found.cluster, request, via)
    return RouteReportDocument.model_validate(route_documents.route_report_document(report))


@router.post(
    "",
    summary="Begins a route",
    status_code=202,
    openapi_extra=body_of(RouteBody),
    responses=errors_of(400, 401, 404, 409, 412),
)
async def begin_route(found: Found) -> RouteDocument:
    """Checked before the answer; the first hop's task is RUNNING when it leaves, the others follow by themselves."""
    request, via = _asked(found)
    return await _answer(found, await found.service.routes.begin(found.cluster, request, via))


@router.post("/resume", summary="Looks at a waiting route now", responses=errors_of(401, 404, 412))
async def resume_route(found: Found) -> RouteDocument:
    """A route that waits is looked at every half minute; this asks for the next look at once."""
    return await _answer(found, await found.service.routes.resume(found.cluster))


@router.post("/abort", summary="Ends a route", responses=errors_of(401, 404, 412))
async def abort_route(found: Found) -> RouteDocument:
    """No further hop begins, and the task under way is aborted."""
    return await _answer(found, await found.service.routes.abort(found.cluster))


def _asked(found: Located) -> tuple[UpgradeRequest, list[str]]:
    asked = native_parsed(RouteBody, found.body)
    return upgrade_request_of(found, asked), asked.via


async def _answer(found: Located, route: Route) -> RouteDocument:
    images = {image.id: image for image in found.service.images()}
    task = None if route.task_id is None else await found.service.task(route.task_id)
    return RouteDocument.model_validate(route_documents.route_document(route, images, task))
