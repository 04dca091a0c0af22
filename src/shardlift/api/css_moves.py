"""The rest of CSS's family that takes nodes one by one: change of zones, node replacement, restart."""

# ruff: noqa: FAST003  # the path parameters are those of the dependencies, which ruff does not follow across modules

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response

from shardlift.api import schemas
from shardlift.api.agencies import permit
from shardlift.api.auth import Located, css_cluster
from shardlift.api.bodies import check_agency, css_parsed, json_body
from shardlift.api.docs import body_of, errors_of
from shardlift.api.errors import (
    BAD_AZ,
    BAD_NODE_TYPE,
    BAD_PARAMETER,
    NO_NODE,
    NULL_BODY,
    UNKNOWN_AZ,
    UNSUPPORTED,
    ApiError,
    css_error,
)
from shardlift.errors import BusyError, NotFoundError, UsageError
from shardlift.model import InstanceType, TaskKind, TaskStatus
from shardlift.service.agencies import Action
from shardlift.service.requests import MigrateRequest, ReplaceRequest, RestartRequest

router = APIRouter(prefix="/v1.0/{project_id}", tags=["CSS"])
restart_router = APIRouter(tags=["CSS"])

Found = Annotated[Located, Depends(css_cluster)]
_FIELDS = {"inst_type": BAD_NODE_TYPE, "source_az": BAD_AZ, "target_az": BAD_AZ}


@router.post(
    "/clusters/{cluster_id}/inst-type/{inst_type}/azmigrate",
    summary="UpdateAzByInstanceType: changing the zones of nodes",
    response_class=Response,
    openapi_extra=body_of(schemas.AzMigrateBody),
    responses=errors_of(403, 404, 409, 412),
)
async def update_az(
    found: Found, inst_type: Annotated[str, Path(description="all, ess, ess-cold, ess-client or ess-master")]
) -> Response:
    """Checks everything first; when the empty 200 leaves, the task exists and its status is RUNNING."""
    value = json_body(found.body)
    if value is None:
        raise ApiError(NULL_BODY)
    check_agency(value)
    asked = css_parsed(schemas.AzMigrateBody, value)
    if inst_type in {*InstanceType} and all(node.instance_type != inst_type for node in found.cluster.nodes):
        raise ApiError(UNSUPPORTED, f"It has no nodes of type {inst_type}.")
    request = MigrateRequest(
        cluster_id=found.cluster.id,
        source=asked.source_az,
        target=asked.target_az,
        inst_type=inst_type,
        migrate_type=asked.migrate_type,
        agency=asked.agency,
        backup_check=asked.indices_backup_check,
    )
    await permit(found, asked.agency, Action.AZ_MIGRATE)
    try:
        await found.service.migrate(request, found.project_id)
    except UsageError as error:
        raise ApiError(_FIELDS.get(error.field or "", BAD_PARAMETER), css_error(error).detail) from None
    except NotFoundError as error:
        if error.field != "target_az":
            raise
        raise ApiError(UNKNOWN_AZ, f"target_az: {error.message}.") from None
    return Response()


@router.put(
    "/clusters/{cluster_id}/instance/{instance_id}/replace",
    summary="ReplaceNode: replacing a node",
    response_class=Response,
    responses=errors_of(403, 404, 409, 412),
)
async def replace_node(
    found: Found,
    instance_id: Annotated[str, Path(description="ID of the node, as the cluster's details show it")],
    migrate_data: Annotated[
        Literal["true", "false"],
        Query(alias="migrateData", description="Whether its shard copies leave it before; `false` for a dead node"),
    ] = "true",
    agency: Annotated[str | None, Query(description="Agency name; one of the project's, if it has any")] = None,
) -> Response:
    """The node comes back new, with its id, name and address. Safe to be sent twice: the second finds it under way."""
    if agency is not None:
        check_agency({"agency": agency})
    node = next((one for one in found.cluster.nodes if one.id == instance_id.lower()), None)
    if node is None:
        raise ApiError(NO_NODE)
    await permit(found, agency or "", Action.REPLACE)
    request = ReplaceRequest(found.cluster.id, node.id, migrate_data=migrate_data == "true", agency=agency or "")
    try:
        await found.service.replace(request, found.project_id)
    except BusyError:
        if not await _under_way(found, node.name):
            raise
    return Response()


async def _under_way(found: Located, node: str) -> bool:
    """Whether the running task is the replacement of this node: then this request is that one, sent again."""
    newest = (await found.service.tasks(found.cluster.id, kind=TaskKind.REPLACING, limit=1)).items
    return bool(newest) and newest[0].status is TaskStatus.RUNNING and newest[0].total == (node,)


async def _restart(found: Found) -> Response:
    """All nodes, or those named, one by one: clients are served meanwhile. Refused where a shard would not be."""
    asked = css_parsed(schemas.RestartBody, json_body(found.body))
    request = RestartRequest(found.cluster.id, by=asked.type, value=asked.value)
    await found.service.restart(request, found.project_id)
    return Response()


# Both versions, and both spellings of the rolling one, are in use. All do the same here: none takes a shard's last copy
# away.
for _version in ("v1.0", "v2.0"):
    for _word in ("restart", "rolling_restart", "rolling-restart"):
        restart_router.add_api_route(
            f"/{_version}/{{project_id}}/clusters/{{cluster_id}}/{_word}",
            _restart,
            methods=["POST"],
            name=f"{_word.replace('-', '_dash_')}_{_version.replace('.', '_')}",
            summary=f"RestartCluster: restarting nodes one by one ({_version}, {_word})",
            response_class=Response,
            openapi_extra=body_of(schemas.RestartBody, required=False),
            responses=errors_of(403, 404, 409, 412),
        )
