"""The upgrade family of the CSS API. Each call translates, asks the service, and renders; it decides nothing."""

# ruff: noqa: FAST003  # the path parameters are those of the dependencies, which ruff does not follow across modules

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from shardlift.api import render, schemas
from shardlift.api.agencies import permit
from shardlift.api.auth import Caller, Located, css_caller, css_cluster
from shardlift.api.bodies import check_agency, css_parsed, json_body
from shardlift.api.docs import body_of, errors_of
from shardlift.api.errors import (
    BAD_NODE_TYPE,
    BAD_PARAMETER,
    NO_TASK,
    NOT_RETRYABLE,
    NULL_BODY,
    ApiError,
    css_error,
)
from shardlift.api.names import UPGRADE_TYPES, Counted, Whole, is_name
from shardlift.api.pages import Asked, DetailPages
from shardlift.errors import BusyError, NotFoundError, RefusedError, ShardliftError, UsageError
from shardlift.model import Cluster, ClusterStatus, Image, Strategy, Task, TaskKind, TaskStatus
from shardlift.service.agencies import Action, action_of
from shardlift.service.requests import UpgradeRequest

if TYPE_CHECKING:
    from shardlift.service import Service

router = APIRouter(prefix="/v1.0/{project_id}", tags=["CSS"])

_PAGE_MAX = 1000

Start = Annotated[Counted | None, Whole, Query(description="1-based index of the first item; 1 by default")]
Offset = Annotated[Counted | None, Whole, Query(description="Another name of `start`")]
Limit = Annotated[Counted, Whole, Query(description="Items per page")]
InPath = Annotated[Located, Depends(css_cluster)]


@router.get(
    "/clusters",
    summary="ListClusters: the project's clusters",
    response_model_exclude_unset=True,
    responses=errors_of(403),
)
async def list_clusters(
    caller: Annotated[Caller, Depends(css_caller)],
    start: Start = None,
    offset: Offset = None,
    limit: Limit = 10,
) -> schemas.ClusterList:
    """Clusters of the project in the path, a page of them."""
    page = await caller.service.clusters(caller.project_id, start=start or offset or 1, limit=limit)
    clusters = await _details(caller.service, page.items)
    return schemas.ClusterList.model_validate({"totalSize": page.total, "clusters": clusters})


@router.get(
    "/clusters/{cluster_id}",
    summary="ShowCluster: one cluster",
    response_model_exclude_unset=True,
    responses=errors_of(403, 404),
)
async def show_cluster(found: InPath) -> schemas.ClusterDetail:
    """A cluster with its nodes. It is idle when `actions` is empty and `actionProgress` is `{}`."""
    shown = await _details(found.service, (found.cluster,))
    return schemas.ClusterDetail.model_validate(shown[0])


@router.get(
    "/clusters/{cluster_id}/upgrade/detail",
    summary="UpgradeDetail: obtaining upgrade details",
    response_model=schemas.UpgradeDetailPage,
    responses=errors_of(403, 404),
)
async def upgrade_detail(
    request: Request,
    found: InPath,
    *,
    start: Start = None,
    offset: Offset = None,
    limit: Limit = 10,
    action_mode: Annotated[
        Literal["UPGRADING", "AZ_MIGRATION", "REPLACING", "REBOOTING"],
        Query(description="Kind of the tasks to be shown; the last two are Shardlift's own words"),
    ] = "UPGRADING",
) -> Response:
    """The cluster's tasks, newest first, each with the 13 sub-steps of the node being upgraded."""
    pages: DetailPages = request.app.state.detail_pages
    asked = Asked(found.project_id, found.cluster.id, TaskKind(action_mode), start or offset or 1, limit)
    return Response(await pages.answer(asked), media_type="application/json")


@router.get(
    "/clusters/{cluster_id}/target/{upgrade_type}/images",
    summary="ListImages: images that the cluster can be upgraded to",
    responses=errors_of(403, 404),
)
async def list_images(
    found: InPath,
    upgrade_type: Annotated[str, Path(description="same, cross or cross-engine (also crossEngine)")],
    offset: Annotated[Annotated[int, Field(ge=0)], Whole, Query(description="0-based index of the first image")] = 0,
    limit: Annotated[Counted, Whole, Query(description="Images per page")] = _PAGE_MAX,
) -> schemas.ImageList:
    """Target images, the most recommended first. All on one page by default: Terraform looks at no other."""
    if upgrade_type not in UPGRADE_TYPES:
        raise ApiError(BAD_PARAMETER, f"upgrade_type: must be one of {', '.join(UPGRADE_TYPES)}.")
    images = await found.service.targets(found.cluster.id, UPGRADE_TYPES[upgrade_type], found.project_id)
    shown_images = [render.image_info(image) for image in images[offset : offset + limit]]
    return schemas.ImageList.model_validate(
        {"needUploadUpgradePlugin": False, "imageInfoList": shown_images, "totalSize": len(images)}
    )


@router.post(
    "/clusters/{cluster_id}/inst-type/{inst_type}/image/upgrade",
    summary="UpgradeCore: upgrading the engine",
    response_class=Response,
    openapi_extra=body_of(schemas.UpgradeCoreBody),
    responses=errors_of(403, 404, 409, 412),
)
async def upgrade_core(
    found: InPath, inst_type: Annotated[str, Path(description="`all`: an upgrade takes every node")]
) -> Response:
    """Checks everything first; when the empty 200 leaves, the task exists and its status is RUNNING."""
    if inst_type != "all":
        raise ApiError(BAD_NODE_TYPE, "inst_type must be all: an upgrade takes every node.")
    asked = _upgrade_body(found.body)
    try:
        image = found.service.image(asked.target_image_id)
    except NotFoundError as error:
        raise ApiError(BAD_PARAMETER, f"target_image_id: {error.message.rstrip('.')}.") from None
    await permit(found, asked.agency, Action.UPGRADE)
    await found.service.upgrade(
        UpgradeRequest(
            cluster_id=found.cluster.id,
            image=image.id,
            strategy=_css_strategy(found.cluster),
            agency=asked.agency,
            upgrade_type=UPGRADE_TYPES[asked.upgrade_type],
            backup_check=asked.indices_backup_check,
            load_check=asked.cluster_load_check,
            batch_size=asked.batch_size,
        ),
        found.project_id,
    )
    return Response()


@router.put(
    "/clusters/{cluster_id}/upgrade/{action_id}/retry",
    summary="RetryUpgradeTask: retrying a failed task, or aborting it",
    response_class=Response,
    openapi_extra=body_of(schemas.RetryBody, required=False),
    responses=errors_of(403, 404, 409, 412),
)
async def retry_upgrade_task(
    found: InPath,
    action_id: Annotated[str, Path(description="Task ID, as the upgrade details show it")],
    retry_mode: Annotated[
        Literal["abort", ""] | None, Query(description="abort: end the task instead; may stand in the body as well")
    ] = None,
) -> Response:
    """Goes on at the first sub-step that has not succeeded. Safe to be sent twice: the second one finds it done."""
    task = await _task(found, action_id)
    if "abort" in (retry_mode, css_parsed(schemas.RetryBody, json_body(found.body)).retry_mode):
        await _abort(found, task)
    else:
        await _retry(found, task)
    return Response()


def _css_strategy(cluster: Cluster) -> Strategy | None:
    """CSS drains, and its callers count on it; only who has chosen another strategy for the cluster gets that one."""
    return Strategy.DRAIN if cluster.strategy is Strategy.AUTO else None


async def _retry(found: Located, task: Task) -> None:
    if _retried_before(task):
        return
    await permit(found, task.agency, action_of(task.kind))
    try:
        await found.service.retry(task.id, found.project_id)
    except (UsageError, RefusedError, BusyError) as error:
        # The twin of this request may have been faster.
        now = await found.service.task(task.id)
        if not (now.execute_times > task.execute_times and now.status is TaskStatus.RUNNING):
            raise _not_now(error) from None


async def _abort(found: Located, task: Task) -> None:
    if task.aborting:
        return
    try:
        await found.service.abort(task.id, found.project_id)
    except (UsageError, RefusedError, BusyError) as error:
        if not (await found.service.task(task.id)).aborting:
            raise _not_now(error) from None


def _retried_before(task: Task) -> bool:
    """A running task that has been retried: this request is most likely that retry, sent again by the client."""
    return task.status is TaskStatus.RUNNING and task.execute_times > 1 and not task.aborting


def _not_now(error: ShardliftError) -> ApiError:
    told = css_error(error)
    if isinstance(error, UsageError) or (isinstance(error, RefusedError) and not error.findings):
        return ApiError(NOT_RETRYABLE, told.detail)
    return told


async def _task(found: Located, action_id: str) -> Task:
    if not is_name(action_id):
        raise ApiError(NO_TASK)
    try:
        task = await found.service.task(action_id, found.project_id)
    except NotFoundError:
        raise ApiError(NO_TASK) from None
    if task.cluster_id != found.cluster.id:
        raise ApiError(NO_TASK)
    return task


def _upgrade_body(body: bytes) -> schemas.UpgradeCoreBody:
    value = json_body(body)
    if value is None:
        raise ApiError(NULL_BODY)
    check_agency(value)
    return css_parsed(schemas.UpgradeCoreBody, value)


async def _details(service: Service, clusters: Sequence[Cluster]) -> list[dict[str, object]]:
    """Clusters in CSS's words. Tasks are read after the clusters: a busy one may end between, never begin.

    Of one that is idle and available no task tells anything more, and most clusters are.
    """
    telling = [one for one in clusters if one.status is not ClusterStatus.AVAILABLE or one.busy_with is not None]
    newest = await service.newest_tasks(telling)
    volume_gib = _volume_gib(service)
    return [
        render.cluster_detail(one, _image(service, one.image_id), newest.get(one.id), volume_gib=volume_gib)
        for one in clusters
    ]


def _image(service: Service, image_id: str) -> Image | None:
    try:
        return service.image(image_id)
    except NotFoundError:
        return None


def _volume_gib(service: Service) -> int:
    """Local nodes share the file system of SHARDLIFT_HOME; 0 when it cannot be read."""
    try:
        return shutil.disk_usage(service.settings.home).total >> 30
    except OSError:
        return 0
