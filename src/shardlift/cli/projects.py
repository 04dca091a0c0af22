"""`shardlift project ...` and `shardlift credentials`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.session import keep_first, no_credentials, server_url, session_of, stored_credentials

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import Credentials

app = typer.Typer(no_args_is_help=True, help="Tenants: each has its own keys and sees its own clusters.")


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new project.")],
    as_json: AsJson = False,
) -> None:
    """Make a project with keys. They are shown once; the first project's are kept as this home's profile."""
    session = session_of(context)
    made = session.run(lambda service: _create(service, name))
    _show(made, as_json=as_json)
    if stored_credentials(session.settings()) != made:
        say("these keys are not kept anywhere: note them now")


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """All projects."""
    projects = session_of(context).run(lambda service: service.projects())
    if as_json:
        documents = [{"project_id": project.id, "name": project.name} for project in projects]
        print_json({"total": len(projects), "projects": documents})
    else:
        rows = [(project.name, project.id) for project in projects]
        print_table(["NAME", "ID"], rows, empty="no project yet; `shardlift serve` makes the first one")


def credentials(context: typer.Context, as_json: AsJson = False) -> None:
    """Show url, project_id, ak, sk and token of this home's profile."""
    settings = session_of(context).settings()
    found = stored_credentials(settings)
    if found is None:
        raise no_credentials(settings)
    _show(found, as_json=as_json)
    if server_url(settings) is None:
        say("no `shardlift serve` is running on this home: the url answers once it does")


async def _create(service: Service, name: str) -> Credentials:
    return await keep_first(service, await service.create_project(name))


def _show(found: Credentials, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
    else:
        print_fields(asdict(found))
