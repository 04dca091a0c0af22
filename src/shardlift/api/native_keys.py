"""What a project may know of its own access: its keys without their secrets, its agencies, and its audit log.

There is no call that makes or changes a key: a stolen one must not be able to make others, or to lock its owner out.
`shardlift key` does that, on the server's own machine.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from shardlift.api.auth import Caller, authenticate
from shardlift.api.docs import native_errors_of
from shardlift.api.names import Counted, Whole

router = APIRouter(prefix="/api/v1", tags=["native"])

In = Annotated[Caller, Depends(authenticate)]
Start = Annotated[Annotated[int, Field(ge=1)], Whole, Query(description="1-based index of the first item")]
Limit = Annotated[Counted, Whole, Query(description="Items per page")]


class _Document(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class KeyDocument(_Document):
    """An access key. Its secrets are shown when it is made, and never again."""

    ak: str = Field(description="The access key's id")
    name: str = Field(description="What it was named when it was made")
    created_at: datetime = Field(description="When it was made, UTC")
    last_used_at: datetime | None = Field(description="When it was last used, to the minute; null for never")
    previous_until: datetime | None = Field(
        description="Until when its secret from before the rotation counts, or null"
    )


class KeyList(_Document):
    """The project's keys, oldest first."""

    total: int = Field(description="How many there are")
    keys: list[KeyDocument] = Field(description="All of them")


class AgencyDocument(_Document):
    """A named profile that says what may be done in its name."""

    name: str = Field(description="The name that requests give")
    actions: list[str] = Field(description="What it allows: upgrade, az_migrate, replace, restart")
    created_at: datetime = Field(description="When it was made, UTC")


class AgencyList(_Document):
    """The project's agencies. Without any, every well-formed name is taken."""

    total: int = Field(description="How many there are")
    agencies: list[AgencyDocument] = Field(description="All of them, by name")


class AuditDocument(_Document):
    """A change that somebody asked for."""

    id: int = Field(description="Grows with time")
    at: datetime = Field(description="When it was answered, UTC")
    actor: str = Field(description="The access key, or user:NAME for the command line")
    address: str = Field(description="Address that the request came from")
    door: str = Field(description="css, native or command")
    action: str = Field(description="What was asked for, or sign_in for a refused signature or token")
    cluster_id: str = Field(description="The cluster, empty without one")
    task_id: str = Field(description="The task, empty without one")
    subject: str = Field(description="Whatever else it was done to: a key, an agency, a name")
    outcome: str = Field(description="accepted, refused or failed")
    code: str = Field(description="The error code that was answered, empty for none")
    request_id: str = Field(description="X-Request-Id of the answer")


class AuditPage(_Document):
    """Records, newest first."""

    total: int = Field(description="How many there are in all")
    records: list[AuditDocument] = Field(description="Those of this page")


@router.get("/keys", summary="The project's keys, without secrets", responses=native_errors_of())
async def list_keys(caller: In) -> KeyList:
    """Oldest first. Keys are made, rotated and revoked by `shardlift key` alone."""
    keys = [KeyDocument.model_validate(row) for row in await caller.service.keys.list(caller.project_id)]
    return KeyList(total=len(keys), keys=keys)


@router.get("/agencies", summary="The project's agencies", responses=native_errors_of())
async def list_agencies(caller: In) -> AgencyList:
    """By name. They are made by `shardlift agency`."""
    found = await caller.service.agencies.list(caller.project_id)
    agencies = [AgencyDocument.model_validate(agency) for agency in found]
    return AgencyList(total=len(agencies), agencies=agencies)


@router.get("/audit", summary="Who asked for which change in the project", responses=native_errors_of())
async def list_audit(caller: In, start: Start = 1, limit: Limit = 100) -> AuditPage:
    """Accepted and refused ones, newest first, and refused sign-ins with the project's keys."""
    page = await caller.service.audit.list(caller.project_id, start=start, limit=limit)
    return AuditPage(total=page.total, records=[AuditDocument.model_validate(row) for row in page.items])
