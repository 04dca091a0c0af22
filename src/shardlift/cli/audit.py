"""`shardlift audit ...`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.clusters import Project
from shardlift.cli.output import AsJson, print_json, print_table
from shardlift.cli.session import session_of

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import Page
    from shardlift.store.audit import AuditRow

app = typer.Typer(no_args_is_help=True, help="Who asked for which change.")


@app.command("list")
def list_(
    context: typer.Context,
    project: Project = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many records.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Changes asked for, accepted or refused, and refused sign-ins; newest first, by default of all projects."""
    page = session_of(context).run(lambda service: _list(service, project, limit))
    if as_json:
        print_json({"total": page.total, "records": [asdict(row) for row in page.items]})
        return
    rows = [
        (
            row.at.isoformat(timespec="seconds"),
            row.actor,
            row.address,
            row.action,
            row.cluster_id or row.subject,
            row.task_id,
            f"{row.outcome} {row.code}".strip(),
        )
        for row in page.items
    ]
    print_table(["AT", "WHO", "ADDRESS", "ACTION", "OF", "TASK", "OUTCOME"], rows, empty="nothing recorded")


async def _list(service: Service, project: str | None, limit: int) -> Page[AuditRow]:
    return await service.audit.list(None if project is None else await service.project_id(project), limit=limit)
