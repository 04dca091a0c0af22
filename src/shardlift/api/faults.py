"""Faults of simulated clusters: asked for under /api/v1/faults, and at work on the answers of CSS calls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardlift.api import css, css_moves
from shardlift.api.auth import Caller, authenticate
from shardlift.api.bodies import native_parsed
from shardlift.api.docs import body_of, native_errors_of
from shardlift.api.documents import iso_time
from shardlift.api.errors import SERVER_ERROR, ApiError, Row, native_error
from shardlift.api.names import is_name
from shardlift.api.native import In, located
from shardlift.errors import DriverError, NotFoundError
from shardlift.model import Fault, FaultKind
from shardlift.service.faults import FaultRequest, Faults, fleet_of
from shardlift.sim import faults

if TYPE_CHECKING:
    from shardlift.service import Service
    from shardlift.sim import Fleet

router = APIRouter(prefix="/api/v1/faults", tags=["native"])

_PATH = re.compile(r"/v[12]\.0/([0-9A-Za-z]{1,64})/clusters/([0-9a-fA-F-]{36})(?:/.*)?")
_ROWS = {
    429: Row(429, "APIGW.0308", "The throttling threshold has been reached."),
    500: SERVER_ERROR,
    502: Row(502, SERVER_ERROR.code, "Bad gateway."),
    503: Row(503, SERVER_ERROR.code, "Service unavailable."),
    504: Row(504, SERVER_ERROR.code, "Gateway timeout."),
}
_LATER = frozenset({429, 503})
_CALLS = tuple(
    route
    for calls in (css.router, css_moves.router, css_moves.restart_router)
    for route in calls.routes
    if isinstance(route, APIRoute) and "{cluster_id}" in route.path
)


class FaultBody(BaseModel):
    """A fault to be added. Which fields count depends on `kind`."""

    model_config = ConfigDict(extra="forbid")

    cluster: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$", description="Id of a simulated cluster, or its name")
    kind: FaultKind = Field(description="What goes wrong")
    node: str | None = Field(
        default=None, min_length=1, max_length=128, description="A node's name, its id, or its place from 1 on"
    )
    order: int | None = Field(default=None, ge=0, le=12, strict=True, description="step: the sub-step that fails")
    call: str | None = Field(default=None, max_length=64, description="call: an operation such as `upgrade_detail`")
    status: Literal[429, 500, 502, 503, 504] | None = Field(
        default=None, description="call: what it answers; 500 by default"
    )
    factor: float | None = Field(default=None, gt=1, le=1000, description="slow: how many times slower")
    times: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        strict=True,
        description="How often it strikes; once for step and call, and until it is cleared for no-start by default",
    )
    message: str | None = Field(default=None, min_length=1, max_length=500, description="What it says")
    lost: bool | None = Field(
        default=None, strict=True, description="call: it is carried out, and only its answer is lost"
    )


class FaultDocument(BaseModel):
    """A fault in force, or one that will strike yet."""

    fault_id: str = Field(description="Its id, by which it is cleared")
    kind: FaultKind = Field(description="What goes wrong")
    added_at: str = Field(description="When it was asked for")
    node: str | None = Field(description="The node, if it is about one")
    order: int | None = Field(description="The sub-step that fails")
    call: str | None = Field(description="The operation whose answer is decided")
    status: int | None = Field(description="What it answers")
    factor: float | None = Field(description="How many times slower")
    times: int | None = Field(description="How often it still strikes; null until it is cleared")
    message: str | None = Field(description="What it says")
    lost: bool = Field(description="Whether the call is carried out before its answer is lost")


class FaultList(BaseModel):
    """Faults of one cluster, oldest first."""

    total: int = Field(description="How many")
    faults: list[FaultDocument] = Field(description="All of them")


ClusterName = Annotated[str, Query(description="Id of a simulated cluster, or its name")]


def call_names() -> frozenset[str]:
    """Operations that name a cluster in their path. Both versions and spellings of a restart are one."""
    return frozenset(_called(route) for route in _CALLS)


def _called(route: APIRoute) -> str:
    if route.name.startswith("rolling_"):
        return "rolling_restart"
    return "restart_cluster" if route.name.startswith("restart_") else route.name


@router.post(
    "",
    summary="Adds a fault to a simulated cluster",
    status_code=201,
    openapi_extra=body_of(FaultBody),
    responses=native_errors_of(404, 409),
)
async def add_fault(caller: In) -> FaultDocument:
    """It begins at once. Real clusters have no faults."""
    asked = native_parsed(FaultBody, caller.body)
    found = await located(asked.cluster, caller)
    request = FaultRequest(**asked.model_dump(exclude={"cluster"}))
    fault = await Faults(caller.service, call_names()).add(found.cluster.id, request, caller.project_id)
    return FaultDocument.model_validate(fault_document(fault))


@router.get("", summary="Faults of a simulated cluster", responses=native_errors_of(404))
async def list_faults(caller: In, cluster: ClusterName) -> FaultList:
    """Those in force, and those that will strike yet."""
    found = await located(cluster, caller)
    return _listed(await Faults(caller.service, call_names()).listed(found.cluster.id, caller.project_id))


@router.delete("", summary="Clears all faults of a simulated cluster", responses=native_errors_of(404))
async def clear_faults(caller: In, cluster: ClusterName) -> FaultList:
    """Mends what they have broken, and answers which they were."""
    found = await located(cluster, caller)
    return _listed(await Faults(caller.service, call_names()).clear(found.cluster.id, None, caller.project_id))


@router.delete("/{fault_id}", summary="Clears one fault", responses=native_errors_of(404))
async def clear_fault(
    caller: In, cluster: ClusterName, fault_id: Annotated[str, Path(description="Id of the fault")]
) -> FaultList:
    """Mends what it has broken, and answers which it was."""
    found = await located(cluster, caller)
    if not is_name(fault_id):
        raise native_error(NotFoundError("no such fault", remedy="GET /api/v1/faults lists them"))
    cleared = await Faults(caller.service, call_names()).clear(found.cluster.id, fault_id, caller.project_id)
    return _listed(cleared)


def fault_document(fault: Fault) -> dict[str, object]:
    """As the API and `--json` show it."""
    fields = ("kind", "node", "order", "call", "status", "factor", "times", "message", "lost")
    return {"fault_id": fault.id, "added_at": iso_time(fault.added_at)} | {
        name: getattr(fault, name) for name in fields
    }


def _listed(found: tuple[Fault, ...]) -> FaultList:
    return FaultList.model_validate({"total": len(found), "faults": [fault_document(fault) for fault in found]})


def install_faults(app: FastAPI, service: Service) -> Callable[[str], bool]:
    """Where simulated clusters can be: the routes, and the middleware that lets faults decide answers.

    Gives a function that says of a cluster whether a fault may want to decide its answers.
    """
    app.include_router(router)
    fleet = fleet_of(service.backend)
    if fleet is None:
        return lambda _cluster_id: False
    app.add_middleware(AnswerFaults, fleet=fleet)
    return lambda cluster_id: _awaits(fleet, cluster_id)


class AnswerFaults:
    """Answers a CSS call as a fault wants it. Only the caller whose cluster it is meets a fault: others are told what
    they are always told, and take nothing from its count."""

    def __init__(self, app: ASGIApp, *, fleet: Fleet) -> None:
        self._app = app
        self._fleet = fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if place is None or not _awaits(self._fleet, place[2].lower()):
            await self._app(scope, receive, send)
            return
        kept = _Kept(receive)
        try:
            caller = await _caller(scope, kept)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        fault = self._struck(scope, caller, place[1], place[2].lower())
        if fault is None:
            await self._app(scope, kept.again, send)
            return
        if fault.lost:
            await self._app(scope, kept.again, _nowhere)
        response = _answer(fault).response()
        if response.status_code in _LATER:
            response.headers["Retry-After"] = "1"
        await response(scope, receive, send)

    def _struck(self, scope: Scope, caller: Caller, project_id: str, cluster_id: str) -> Fault | None:
        site = self._fleet.site(cluster_id)
        name = _name(scope)
        if name is None or not caller.project_id == project_id == site.project_id:
            return None
        return faults.strike_call(site, name)


def _awaits(fleet: Fleet, cluster_id: str) -> bool:
    """Whether the cluster is simulated and any call fault waits there. Cheap: each CSS call comes through here."""
    try:
        if not fleet.has(cluster_id):
            return False
        waiting = faults.listed(fleet.site(cluster_id))
    except DriverError:
        return False  # the call itself will tell
    return any(fault.kind is FaultKind.CALL for fault in waiting)


class _Kept:
    """A request's messages, so that they can be read twice."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def __call__(self) -> Message:
        message = await self._receive()
        self._messages.append(message)
        return message

    async def again(self) -> Message:
        return self._messages.pop(0) if self._messages else await self._receive()


async def _caller(scope: Scope, receive: Receive) -> Caller:
    request = Request(scope, receive)
    return await authenticate(request, request.headers.get("Authorization"), request.headers.get("X-Auth-Token"))


def _name(scope: Scope) -> str | None:
    return next((_called(route) for route in _CALLS if route.matches(scope)[0] is Match.FULL), None)


def _answer(fault: Fault) -> ApiError:
    told = fault.message or f"Fault {fault.id} asked for this answer."
    return ApiError(_ROWS.get(fault.status or SERVER_ERROR.status, SERVER_ERROR), told)


async def _nowhere(_message: Message) -> None:
    return None
