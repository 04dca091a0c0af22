"""A task's nodes and its plan, as the native API tells them: a page of nodes at a time, however many there are."""

# ruff: noqa: FAST003  # the path parameters are those of the dependencies, which ruff does not follow across modules

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from shardlift.api import documents
from shardlift.api.docs import body_of, native_errors_of
from shardlift.api.errors import native_error
from shardlift.api.names import is_name
from shardlift.api.native import InPath, Limit, Owned, Start, upgrade_request
from shardlift.api.native_schemas import PlanDocument, TaskNodeDocument, TaskNodePage, UpgradeBody
from shardlift.errors import NotFoundError, RefusedError

router = APIRouter(prefix="/api/v1", tags=["native"])


@router.post(
    "/clusters/{cluster}/plan",
    summary="The plan of an upgrade",
    openapi_extra=body_of(UpgradeBody),
    responses=native_errors_of(404, 412, 502),
)
async def plan(found: InPath) -> PlanDocument:
    """Changes nothing. Refused with the findings when something blocks; `checks` tells more, and never refuses."""
    report = await found.service.check(upgrade_request(found))
    if report.plan is None:
        remedy = "POST to `checks` with the same body shows the whole dry run"
        raise RefusedError(f"cluster {found.cluster.name} cannot go there now", report.blocking, remedy=remedy)
    return PlanDocument.model_validate(documents.plan_document(report.plan))


@router.get("/tasks/{task_id}/plan", summary="The plan that a task goes by", responses=native_errors_of(404))
async def task_plan(owned: Owned) -> PlanDocument:
    """Made when the task was, and never changed."""
    return PlanDocument.model_validate(documents.plan_document(owned[1].plan))


@router.get("/tasks/{task_id}/nodes", summary="A task's nodes and their sub-steps", responses=native_errors_of(404))
async def task_nodes(owned: Owned, start: Start = 1, limit: Limit = 10) -> TaskNodePage:
    """In plan order, each with its 13 sub-steps, their evidence and their progress."""
    _, task = owned
    names = task.total[start - 1 : start - 1 + limit]
    return TaskNodePage.model_validate({"total": len(task.total), "nodes": documents.node_documents(task, names)})


@router.get("/tasks/{task_id}/nodes/{node}", summary="One node of a task", responses=native_errors_of(404))
async def task_node(owned: Owned, node: Annotated[str, Path(description="Name of the node")]) -> TaskNodeDocument:
    """With its 13 sub-steps, their evidence and their progress."""
    _, task = owned
    if not is_name(node) or node not in task.total:
        remedy = "GET /api/v1/tasks/{task_id}/nodes lists them"
        raise native_error(NotFoundError("no such node in this task", remedy=remedy))
    return TaskNodeDocument.model_validate(documents.node_documents(task, [node])[0])
