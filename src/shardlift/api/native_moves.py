"""Changes of zones, replacements and restarts in the native API."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from shardlift.api import documents
from shardlift.api.auth import Located
from shardlift.api.bodies import native_parsed
from shardlift.api.docs import body_of, native_errors_of
from shardlift.api.native import located
from shardlift.api.native_schemas import CheckAnswer, TaskDocument
from shardlift.model import Task
from shardlift.service.requests import MigrateRequest, ReplaceRequest, RestartRequest

router = APIRouter(prefix="/api/v1/clusters/{cluster}", tags=["native"])
Found = Annotated[Located, Depends(located)]
_BEGUN = native_errors_of(404, 409, 412, 502)
_ASKED = native_errors_of(404, 412, 502)


class MigrateBody(BaseModel):
    """Which nodes go from where to where."""

    model_config = ConfigDict(extra="forbid")
    source: str = Field(min_length=1, max_length=1024, description="Zone that the nodes are in")
    target: str = Field(
        min_length=1, max_length=1024, description="Zone to go to; several, joined by commas, to be dealt over them"
    )
    inst_type: Literal["all", "ess", "ess-cold", "ess-client", "ess-master"] = Field(
        default="all", description="Type of the nodes"
    )
    backup_check: bool = Field(default=False, description="Refuse unless every index is in a successful snapshot")


class ReplaceBody(BaseModel):
    """Which node is replaced."""

    model_config = ConfigDict(extra="forbid")
    node: str = Field(min_length=1, max_length=128, description="Name or id of the node")
    migrate_data: bool = Field(
        default=True, description="Whether its shard copies leave it before; false for a node that is dead"
    )


class RestartBody(BaseModel):
    """Which nodes are restarted; without a body all of them."""

    model_config = ConfigDict(extra="forbid")
    by: Literal["role", "node", "az"] = Field(default="role", description="What `value` names")
    value: str = Field(
        default="all", min_length=1, max_length=8192, description="Types, names or ids, or zones, joined by commas"
    )


@router.post(
    "/migrate",
    summary="Starts a change of zones",
    status_code=202,
    openapi_extra=body_of(MigrateBody),
    responses=_BEGUN,
)
async def migrate(found: Found) -> TaskDocument:
    """Checked before the answer; the task is RUNNING when it leaves."""
    return _task(found, await found.service.migrate(_migration(found), found.project_id))


@router.post(
    "/replace",
    summary="Starts the replacement of a node",
    status_code=202,
    openapi_extra=body_of(ReplaceBody),
    responses=_BEGUN,
)
async def replace(found: Found) -> TaskDocument:
    """The node comes back new, with its id, name and address."""
    return _task(found, await found.service.replace(_replacement(found), found.project_id))


@router.post(
    "/restart",
    summary="Starts a restart of nodes one by one",
    status_code=202,
    openapi_extra=body_of(RestartBody, required=False),
    responses=_BEGUN,
)
async def restart(found: Found) -> TaskDocument:
    """Refused where a shard would be without a started copy meanwhile."""
    return _task(found, await found.service.restart(_restart(found), found.project_id))


@router.post(
    "/migrate/checks",
    summary="All checks and the dry run of a change of zones",
    openapi_extra=body_of(MigrateBody),
    responses=_ASKED,
)
async def check_migrate(found: Found) -> CheckAnswer:
    """Changes nothing."""
    return await _check(found, _migration(found))


@router.post(
    "/replace/checks",
    summary="All checks and the dry run of a replacement",
    openapi_extra=body_of(ReplaceBody),
    responses=_ASKED,
)
async def check_replace(found: Found) -> CheckAnswer:
    """Changes nothing."""
    return await _check(found, _replacement(found))


@router.post(
    "/restart/checks",
    summary="All checks of a restart",
    openapi_extra=body_of(RestartBody, required=False),
    responses=_ASKED,
)
async def check_restart(found: Found) -> CheckAnswer:
    """Changes nothing."""
    return await _check(found, _restart(found))


def _migration(found: Located) -> MigrateRequest:
    asked = native_parsed(MigrateBody, found.body)
    return MigrateRequest(
        cluster_id=found.cluster.id,
        source=asked.source,
        target=asked.target,
        inst_type=asked.inst_type,
        backup_check=asked.backup_check,
    )


def _replacement(found: Located) -> ReplaceRequest:
    asked = native_parsed(ReplaceBody, found.body)
    return ReplaceRequest(found.cluster.id, asked.node, migrate_data=asked.migrate_data)


def _restart(found: Located) -> RestartRequest:
    asked = native_parsed(RestartBody, found.body)
    return RestartRequest(found.cluster.id, by=asked.by, value=asked.value)


async def _check(found: Located, request: MigrateRequest | ReplaceRequest | RestartRequest) -> CheckAnswer:
    report = await found.service.check_move(request, found.project_id)
    return CheckAnswer.model_validate(documents.check_document(report))


def _task(found: Located, task: Task) -> TaskDocument:
    return TaskDocument.model_validate(documents.task_document(task, found.clock.now()))
