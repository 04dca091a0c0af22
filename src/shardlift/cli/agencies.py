"""`shardlift agency ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.clusters import Project
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.session import project_of, session_of

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.agencies import Agency

app = typer.Typer(no_args_is_help=True, help="Named profiles that say what may be done in their name.")

Name = Annotated[str, typer.Argument(help="Name of the agency: letters, digits, - and _.")]


@app.command("create")
def create(
    context: typer.Context,
    name: Name,
    allow: Annotated[
        list[str], typer.Option(help="What it allows: upgrade, az_migrate, replace or restart; may be repeated.")
    ],
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Make an agency. From a project's first one on, requests must name one that allows what they ask for."""
    made, first = session_of(context).run(lambda service: _create(service, project, name, tuple(allow)))
    if as_json:
        print_json(_document(made))
    else:
        print_fields({"name": made.name, "actions": list(made.actions)})
    if first:
        say("the project's first agency: from now on CSS requests must name one that allows what they ask for")


@app.command("list")
def list_(context: typer.Context, project: Project = None, as_json: AsJson = False) -> None:
    """A project's agencies."""
    found = session_of(context).run(lambda service: _list(service, project))
    if as_json:
        print_json({"total": len(found), "agencies": [_document(agency) for agency in found]})
    else:
        rows = [(agency.name, ", ".join(agency.actions)) for agency in found]
        print_table(["NAME", "ALLOWS"], rows, empty="no agency: requests may name any")


@app.command("delete")
def delete(context: typer.Context, name: Name, project: Project = None, as_json: AsJson = False) -> None:
    """Remove an agency. Its running tasks go on, but can no longer be retried by the CSS API."""
    left = session_of(context).run(lambda service: _delete(service, project, name))
    if as_json:
        print_json({"name": name, "status": "deleted"})
    else:
        print_fields({"name": name, "status": "deleted"})
    if not left:
        say("this was the project's last agency: from now on requests may name any")


async def _create(service: Service, project: str | None, name: str, allow: tuple[str, ...]) -> tuple[Agency, bool]:
    project_id = await project_of(service, project)
    made = await service.agencies.create(project_id, name, allow)
    return made, len(await service.agencies.list(project_id)) == 1


async def _list(service: Service, project: str | None) -> tuple[Agency, ...]:
    return await service.agencies.list(await project_of(service, project))


async def _delete(service: Service, project: str | None, name: str) -> int:
    project_id = await project_of(service, project)
    await service.agencies.delete(project_id, name)
    return len(await service.agencies.list(project_id))


def _document(agency: Agency) -> dict[str, object]:
    return {"name": agency.name, "actions": list(agency.actions), "created_at": agency.created_at}
