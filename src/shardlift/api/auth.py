"""Who asks: a signature with AK and SK, or a token. The project in the PATH is what is authorised, never a header."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import structlog
from fastapi import Depends, Path, Request, Security
from fastapi.security import APIKeyHeader

from shardlift.api.errors import (
    BAD_PARAMETER,
    BODY_TOO_LARGE,
    NO_ACCESS,
    NOT_FOUND,
    NOT_PERMITTED,
    UNAUTHENTICATED,
    ApiError,
    sentence,
)
from shardlift.api.limits import Limits, ThrottledError, site_of
from shardlift.api.names import is_uuid
from shardlift.api.signing import Claim, SignatureError, WireRequest, parse_authorization, verify
from shardlift.clock import Clock
from shardlift.errors import NotFoundError
from shardlift.model import Cluster
from shardlift.service.audit import SIGN_IN, current_act
from shardlift.service.requests import Key

if TYPE_CHECKING:
    from shardlift.service import Service

BODY_MAX_BYTES = 1 << 20
BODY_TIMEOUT_S = 30
_TOKEN_MAX = 4096
_SHOWN_OF_UNKNOWN = 6

_log = structlog.get_logger(__name__)

_SIGNATURE_HEADER = APIKeyHeader(
    name="Authorization",
    scheme_name="AK/SK signature",
    description="`SDK-HMAC-SHA256 Access=AK, SignedHeaders=..., Signature=...`, as the CSS SDKs make it.",
    auto_error=False,
)
_TOKEN_HEADER = APIKeyHeader(
    name="X-Auth-Token",
    scheme_name="token",
    description="The project's token; `shardlift credentials` shows it.",
    auto_error=False,
)


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated request: the project that it speaks for, and its whole body, already read and bounded."""

    service: Service
    clock: Clock
    project_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Located(Caller):
    """A caller and the cluster of theirs that the path names."""

    cluster: Cluster


async def authenticate(
    request: Request,
    signature: Annotated[str | None, Security(_SIGNATURE_HEADER)],
    token: Annotated[str | None, Security(_TOKEN_HEADER)],
) -> Caller:
    """The caller, or 401. A signature wins over a token, so that a wrong one is never hidden by the other."""
    service = cast("Service", request.app.state.service)
    body = await _body_of(request)
    if signature is not None:
        key = await _by_signature(service, request, signature, body)
    elif token is not None:
        key = await _by_token(service, request, token)
    else:
        # Who brings nothing guesses nothing: browsers and probes do so, and are no sign-in.
        raise ApiError(UNAUTHENTICATED, "Neither Authorization nor X-Auth-Token was sent.")
    act = current_act()
    if act is not None:
        act.actor, act.project_id = key.ak, key.project_id
    wait_s = _limits(request).keys.take(key.ak)
    if wait_s:
        raise ThrottledError(wait_s, "This key asks too often.")
    service.key_used(key.ak)
    structlog.contextvars.bind_contextvars(project_id=key.project_id)
    return Caller(service, request.app.state.clock, key.project_id, body)


async def css_caller(
    project_id: Annotated[str, Path(description="Project ID, as `shardlift credentials` shows it.")],
    caller: Annotated[Caller, Depends(authenticate)],
) -> Caller:
    """The caller, if the path names their own project."""
    if not secrets.compare_digest(project_id.encode(), caller.project_id.encode()):
        raise ApiError(NOT_PERMITTED)
    return caller


async def css_cluster(
    cluster_id: Annotated[str, Path(description="ID of the cluster, a UUID.")],
    caller: Annotated[Caller, Depends(css_caller)],
) -> Located:
    """The caller's cluster. One that is missing and one of another project's get the very same answer."""
    if not is_uuid(cluster_id):
        # Clients look a cluster up by name through this path and need the 404 to go on with the list.
        raise ApiError(NOT_FOUND)
    try:
        cluster = await caller.service.cluster(cluster_id.lower(), caller.project_id)
    except NotFoundError:
        raise ApiError(NO_ACCESS) from None
    if cluster.id != cluster_id.lower():  # another cluster may carry this very id as its name
        raise ApiError(NO_ACCESS)
    return Located(caller.service, caller.clock, caller.project_id, caller.body, cluster)


async def _by_signature(service: Service, request: Request, header: str, body: bytes) -> Key:
    clock = cast("Clock", request.app.state.clock)
    ak, project_id = "", ""
    try:
        claim = parse_authorization(header)
        ak = claim.ak
        wire = _wire(request, body)
        key = await service.key(ak)
        try:
            return _verified(wire, claim, key, clock)
        except SignatureError:
            # Once more with what the database has now. It is also what makes a wrong secret cost as much as an unknown
            # AK, one read and two signatures: without it the one would be refused from memory.
            key = await service.key(ak, fresh=True) if key else None
            project_id = key.project_id if key else ""
            return _verified(wire, claim, key, clock)
    except SignatureError as error:
        raise _refused(request, str(error), ak, project_id) from None


def _verified(wire: WireRequest, claim: Claim, key: Key | None, clock: Clock) -> Key:
    """An unknown AK gets the same answer as a wrong SK: no signature fits a key that nobody has."""
    now = clock.now()
    checked = key or Key(claim.ak, secrets.token_hex(), project_id="")
    verify(wire, claim, checked.sks(now), now)
    return checked


async def _by_token(service: Service, request: Request, token: str) -> Key:
    usable = 0 < len(token) <= _TOKEN_MAX and token.isascii() and token.isprintable()
    key = await service.token_key(token) if usable else None
    if key is None:
        raise _refused(request, "The token is not known", "", "")
    return key


def _refused(request: Request, reason: str, ak: str, project_id: str) -> ApiError:
    """401, or 429 when this address has been refused too often. A right key is let in whatever others do beside it."""
    limits = _limits(request)
    address = site_of(request.client.host if request.client else "")
    wait_s = limits.refused.take(address)
    if wait_s:
        return ThrottledError(wait_s, "Too many sign-ins from this address were refused.")
    _log.info("sign_in_refused", reason=reason, address=address)
    act = current_act()
    if act is not None and not limits.records.take(""):
        # An AK that nobody has may be a secret that was pasted into the wrong field.
        act.action, act.project_id = SIGN_IN, project_id
        act.actor = ak if project_id else f"{ak[:_SHOWN_OF_UNKNOWN]}..." if ak else "token or header"
    return ApiError(UNAUTHENTICATED, sentence(reason))


def _limits(request: Request) -> Limits:
    return cast("Limits", request.app.state.limits)


def _wire(request: Request, body: bytes) -> WireRequest:
    return WireRequest(
        method=request.method,
        path=request.scope["raw_path"],
        query=request.scope["query_string"],
        headers=tuple(request.scope["headers"]),
        body=body,
    )


async def _body_of(request: Request) -> bytes:
    """The body, at most BODY_MAX_BYTES and within BODY_TIMEOUT_S, whatever its Content-Length says."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > BODY_MAX_BYTES:
                    raise ApiError(BODY_TOO_LARGE, f"The body is larger than {BODY_MAX_BYTES} bytes.")
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError(BAD_PARAMETER, f"The body did not arrive within {BODY_TIMEOUT_S} seconds.") from None
    return b"".join(chunks)
