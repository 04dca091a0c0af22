"""Puts the API together: both route sets, the docs page, and one shape for everything that goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from shardlift import __version__
from shardlift.api import css, css_moves, events, native, native_keys, native_moves, native_routes, nodes
from shardlift.api.audit_trail import CODE, AuditTrail
from shardlift.api.bodies import first_problem
from shardlift.api.docs import install_docs
from shardlift.api.errors import (
    BAD_PARAMETER,
    NOT_FOUND,
    SERVER_ERROR,
    WRONG_METHOD,
    ApiError,
    Row,
    css_error,
    native_error,
)
from shardlift.api.faults import install_faults
from shardlift.api.limits import make_limits
from shardlift.api.middleware import RequestGuard
from shardlift.api.pages import DetailPages
from shardlift.api.polls import Polls
from shardlift.clock import Clock, SystemClock
from shardlift.errors import ShardliftError
from shardlift.web import Quick

if TYPE_CHECKING:
    from shardlift.service import Service

_DESCRIPTION = """Upgrades Elasticsearch and OpenSearch clusters node by node.

**CSS** is the upgrade family of the CSS API, for its SDKs, Terraform and otcextensions, signed with AK and SK or with a
token. **native** is Shardlift's own API, with node states, checks, plans, evidence and events.
To try calls here, press *Authorize* and paste the token that `shardlift credentials` shows.
"""
_TAGS = [
    {"name": "CSS", "description": "The upgrade family of the CSS API"},
    {"name": "native", "description": "Shardlift's own API: everything that CSS has no words for"},
]

_log = structlog.get_logger(__name__)


def create_app(service: Service, *, clock: Clock | None = None) -> FastAPI:
    """The API over an open service. `clock` is what signatures are dated by, the machine's own by default.

    The app neither opens nor closes the service: who opened it does.
    """
    app = _Api(
        title="Shardlift",
        version=__version__,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,  # the stock pages load their scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,  # a redirect would lose the signature
        # Asked of each request anew, it took as long as all that we do for a poll; logs and /events tell what goes on.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.service = service
    app.state.clock = clock or SystemClock()
    app.state.streams = events.Streams(service.settings.project_streams_max)
    app.state.limits = make_limits(service.settings, app.state.clock.elapsed_s)
    app.include_router(css.router)
    app.include_router(css_moves.router)
    app.include_router(css_moves.restart_router)
    app.include_router(native.router)
    app.include_router(native_moves.router)
    app.include_router(native_routes.router)
    app.include_router(nodes.router)
    app.include_router(events.router)
    app.include_router(native_keys.router)
    install_docs(app)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(ShardliftError, _shardlift_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.state.detail_pages = DetailPages(service)
    disturbed = install_faults(app, service)
    app.add_middleware(AuditTrail)
    app.add_middleware(RequestGuard)  # the last one is the outermost
    app.look_first(
        partial(
            Polls,
            service=service,
            clock=app.state.clock,
            pages=app.state.detail_pages,
            limits=app.state.limits,
            disturbed=disturbed,
        )
    )
    return app


class _Api(FastAPI):
    """With a look at each request before the framework's own layers, which take longer than a poll does."""

    _first: ASGIApp | None = None

    quick: Quick | None = None

    def look_first(self, make: Callable[[ASGIApp], Polls]) -> None:
        """`make` is given the whole app, and makes what is called in its place."""
        self._first = polls = make(super().__call__)
        self.quick = polls.quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._first or super().__call__)(scope, receive, send)


def _operation_id(route: APIRoute) -> str:
    return f"{str(route.tags[0]).lower()}_{route.name}" if route.tags else route.name


def _is_native(request: Request) -> bool:
    return request.url.path.startswith("/api/")


def _answer(request: Request, error: ApiError) -> JSONResponse:
    request.scope[CODE] = error.row.code
    return error.response()


async def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _answer(request, error)


async def _shardlift_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ShardliftError)
    told = native_error(error) if _is_native(request) else css_error(error)
    if told.row.status >= SERVER_ERROR.status:
        _log.error("request_failed", error=error.code, message=error.message)
    return _answer(request, told)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    field, problem = first_problem(error.errors())
    extra = {"error": "usage", "message": problem, "field": field} if _is_native(request) else {}
    return _answer(request, ApiError(BAD_PARAMETER, problem, extra))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework itself refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    known = {404: NOT_FOUND, 405: WRONG_METHOD}
    row = known.get(error.status_code, Row(error.status_code, BAD_PARAMETER.code, BAD_PARAMETER.text))
    detail = "" if row is NOT_FOUND else str(error.detail)
    response = _answer(request, ApiError(row, detail))
    response.headers.update(error.headers or {})
    return response
