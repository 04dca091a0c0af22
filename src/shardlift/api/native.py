"""Our own API under /api/v1: what CSS's words have no room for. Node states, checks, evidence, progress, long polls."""

# ruff: noqa: FAST003  # the path parameters are those of the dependencies, which ruff does not follow across modules

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, Field

from shardlift.api import documents
from shardlift.api.auth import Caller, Located, authenticate
from shardlift.api.bodies import native_parsed
from shardlift.api.docs import body_of, native_errors_of
from shardlift.api.errors import native_error
from shardlift.api.names import UPGRADE_TYPES, Counted, Whole, is_name
from shardlift.api.native_schemas import (
    CheckAnswer,
    ClusterDocument,
    ClusterPage,
    GatesBody,
    ImagePage,
    PolicyChangeBody,
    TaskDocument,
    TaskPage,
    UpgradeBody,
)
from shardlift.errors import NotFoundError
from shardlift.model import Policy, Task, TaskKind
from shardlift.service.policies import policy_of
from shardlift.service.requests import PolicyChange, UpgradeRequest

router = APIRouter(prefix="/api/v1", tags=["native"])

Body = TypeVar("Body", bound=BaseModel)

In = Annotated[Caller, Depends(authenticate)]
Start = Annotated[Annotated[int, Field(ge=1)], Whole, Query(description="1-based index of the first item")]
Limit = Annotated[Counted, Whole, Query(description="Items per page")]
Revision = Annotated[int, Field(ge=0)]
Wait = Annotated[int, Field(ge=0, le=60)]


async def located(cluster: Annotated[str, Path(description="Id of the cluster, or its name")], caller: In) -> Located:
    """The caller's cluster; 404 with the same words for one that is missing and one of another project's."""
    missing = NotFoundError("no such cluster", remedy="GET /api/v1/clusters lists yours")
    if not is_name(cluster):
        raise native_error(missing)
    try:
        found = await caller.service.cluster(cluster, caller.project_id)
    except NotFoundError:
        raise native_error(missing) from None
    return Located(caller.service, caller.clock, caller.project_id, caller.body, found)


async def owned_task(task_id: Annotated[str, Path(description="Id of the task")], caller: In) -> tuple[Caller, Task]:
    """The caller's task; 404 with the same words for one that is missing and one of another project's."""
    missing = NotFoundError("no such task", remedy="GET /api/v1/clusters/{cluster}/tasks lists a cluster's")
    try:
        task = await caller.service.task(task_id, caller.project_id) if is_name(task_id) else None
    except NotFoundError:
        task = None
    if task is None:
        raise native_error(missing)
    return caller, task


InPath = Annotated[Located, Depends(located)]
Owned = Annotated[tuple[Caller, Task], Depends(owned_task)]


@router.get("/images", summary="Engine images of the catalogue", responses=native_errors_of())
async def list_images(caller: In) -> ImagePage:
    """All images, the most recommended first."""
    images = caller.service.images()
    return ImagePage.model_validate(
        {"total": len(images), "images": [documents.image_document(image) for image in images]}
    )


@router.get("/clusters", summary="The project's clusters", responses=native_errors_of())
async def list_clusters(caller: In, start: Start = 1, limit: Limit = 100) -> ClusterPage:
    """Clusters as they should be; one cluster alone also tells how its nodes are."""
    page = await caller.service.clusters(caller.project_id, start=start, limit=limit)
    clusters = [documents.cluster_document(cluster, None) for cluster in page.items]
    return ClusterPage.model_validate({"total": page.total, "clusters": clusters})


@router.get("/clusters/{cluster}", summary="A cluster and the state of its nodes", responses=native_errors_of(404, 502))
async def show_cluster(found: InPath) -> ClusterDocument:
    """With each node's process and the version that the node itself reports; spare nodes too."""
    spares = await found.service.spares(found.cluster)
    states = await found.service.node_states(found.cluster, spares)
    return ClusterDocument.model_validate(documents.cluster_document(found.cluster, states, spares))


@router.get(
    "/clusters/{cluster}/targets",
    summary="Images that the cluster can be upgraded to",
    responses=native_errors_of(404),
)
async def list_targets(
    found: InPath,
    upgrade_type: Annotated[
        Literal["same", "cross", "cross-engine", "crossEngine"], Query(description="Which kind of hop")
    ],
) -> ImagePage:
    """The most recommended first."""
    images = await found.service.targets(found.cluster.id, UPGRADE_TYPES[upgrade_type], found.project_id)
    return ImagePage.model_validate(
        {"total": len(images), "images": [documents.image_document(image) for image in images]}
    )


@router.post(
    "/clusters/{cluster}/checks",
    summary="All checks and the dry run of an upgrade",
    openapi_extra=body_of(UpgradeBody),
    responses=native_errors_of(404, 502),
)
async def check(found: InPath) -> CheckAnswer:
    """Changes nothing. `plan` is null when something blocks; `findings` say what, why, and what to do about it."""
    report = await found.service.check(upgrade_request(found))
    return CheckAnswer.model_validate(documents.check_document(report))


@router.post(
    "/clusters/{cluster}/upgrade",
    summary="Starts an upgrade",
    status_code=202,
    openapi_extra=body_of(UpgradeBody),
    responses=native_errors_of(404, 409, 412, 502),
)
async def upgrade(found: InPath) -> TaskDocument:
    """Checked before the answer; the task is RUNNING when it leaves."""
    task = await found.service.upgrade(upgrade_request(found), found.project_id)
    return _task(found, task)


@router.get("/clusters/{cluster}/tasks", summary="A cluster's tasks, newest first", responses=native_errors_of(404))
async def list_tasks(
    found: InPath,
    start: Start = 1,
    limit: Limit = 10,
    kind: Annotated[Literal["UPGRADING", "AZ_MIGRATION"] | None, Query(description="Only tasks of this kind")] = None,
) -> TaskPage:
    """Each with all sub-steps of all its nodes."""
    page = await found.service.tasks(found.cluster.id, kind=TaskKind(kind) if kind else None, start=start, limit=limit)
    tasks = [documents.task_document(task, found.clock.now()) for task in page.items]
    return TaskPage.model_validate({"total": page.total, "tasks": tasks})


@router.get("/tasks/{task_id}", summary="A task, at once or at its next change", responses=native_errors_of(404))
async def show_task(
    owned: Owned,
    after_revision: Annotated[
        Revision | None, Whole, Query(description="Answer as soon as the task's revision is above this one")
    ] = None,
    wait_s: Annotated[Wait, Whole, Query(description="Answer as it is after so many seconds at the latest")] = 30,
) -> TaskDocument:
    """Without `after_revision` at once. With it the answer waits for news, so that nobody has to poll."""
    caller, task = owned
    if after_revision is not None and task.revision <= after_revision:
        task = await caller.service.wait_task(task.id, after_revision, float(wait_s))
    return _task(caller, task)


@router.post("/tasks/{task_id}/retry", summary="Goes on with a failed task", responses=native_errors_of(404, 409, 412))
async def retry(owned: Owned) -> TaskDocument:
    """Goes on at the first sub-step that has not succeeded."""
    caller, task = owned
    return _task(caller, await caller.service.retry(task.id, caller.project_id))


@router.post("/tasks/{task_id}/pause", summary="Pauses a task", responses=native_errors_of(404, 409, 412))
async def pause(owned: Owned) -> TaskDocument:
    """It stops before the next node; what is begun is finished first. Nothing runs from then on until it is resumed."""
    caller, task = owned
    return _task(caller, await caller.service.pause(task.id, caller.project_id))


@router.post("/tasks/{task_id}/resume", summary="Lets a paused task go on", responses=native_errors_of(404, 409, 412))
async def resume(owned: Owned) -> TaskDocument:
    """Its windows and gates are asked again."""
    caller, task = owned
    return _task(caller, await caller.service.resume(task.id, caller.project_id))


@router.post("/tasks/{task_id}/approve", summary="Approves a task's canary", responses=native_errors_of(404, 409, 412))
async def approve(owned: Owned) -> TaskDocument:
    """The canary takes shards, and the other nodes follow. May be said before the canary is back."""
    caller, task = owned
    return _task(caller, await caller.service.approve(task.id, caller.project_id))


@router.patch(
    "/tasks/{task_id}/policy",
    summary="Changes a task's policy",
    openapi_extra=body_of(PolicyChangeBody),
    responses=native_errors_of(404, 412),
)
async def change_policy(owned: Owned) -> TaskDocument:
    """Heeded from the next look between two nodes on; of a FAILED task once it is retried."""
    caller, task = owned
    asked = native_parsed(PolicyChangeBody, caller.body)
    gates = None if asked.gates is None else _gates(asked.gates)
    change = PolicyChange(asked.canary, gates, asked.windows)
    return _task(caller, await caller.service.set_policy(task.id, change, caller.project_id))


@router.post("/tasks/{task_id}/abort", summary="Ends a task", responses=native_errors_of(404, 409, 412))
async def abort(owned: Owned) -> TaskDocument:
    """Ends it at the next safe point; all settings that it changed are put back."""
    caller, task = owned
    return _task(caller, await caller.service.abort(task.id, caller.project_id))


def upgrade_request(found: Located) -> UpgradeRequest:
    return upgrade_request_of(found, native_parsed(UpgradeBody, found.body))


def upgrade_request_of(found: Located, asked: UpgradeBody) -> UpgradeRequest:
    return UpgradeRequest(
        cluster_id=found.cluster.id,
        image=asked.image,
        strategy=asked.strategy,
        upgrade_type=UPGRADE_TYPES[asked.upgrade_type] if asked.upgrade_type else None,
        backup_check=asked.backup_check,
        load_check=asked.load_check,
        batch_size=asked.batch_size,
        policy=_policy(asked),
    )


def _policy(asked: UpgradeBody) -> Policy:
    return policy_of(asked.policy.canary, _gates(asked.policy.gates), asked.policy.windows)


def _gates(asked: GatesBody | None) -> dict[str, object]:
    """What was given of them; only that tells an empty object from one whose limits are missing."""
    return {} if asked is None else asked.model_dump(exclude_unset=True, exclude_none=True)


def _task(caller: Caller, task: Task) -> TaskDocument:
    return TaskDocument.model_validate(documents.task_document(task, caller.clock.now()))
