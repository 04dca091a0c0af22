"""`shardlift key ...` and `shardlift masterkey ...`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.clusters import Project
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.session import keep_first, keep_rotated, project_of, session_of, stored_credentials

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import Credentials
    from shardlift.store.keys import KeyRow

app = typer.Typer(no_args_is_help=True, help="Access keys of projects.")
master = typer.Typer(no_args_is_help=True, help="The key that secrets are encrypted with at rest.")

Ak = Annotated[str, typer.Argument(help="The key's AK, as `key list` shows it.")]
_DAY_S = 24 * 3600


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "",
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Make one more key of a project. Its secrets are shown now, and never again."""
    made = session_of(context).run(lambda service: _create(service, project, name))
    _show(made, as_json=as_json)
    if stored_credentials(session_of(context).settings()) != made:
        say("these secrets are not kept anywhere: note them now")


@app.command("list")
def list_(context: typer.Context, project: Project = None, as_json: AsJson = False) -> None:
    """All keys, without their secrets; with --project those of one project."""
    rows = session_of(context).run(lambda service: _list(service, project))
    if as_json:
        print_json({"total": len(rows), "keys": [asdict(row) for row in rows]})
        return
    table = [
        (row.ak, row.name, row.project, _minute(row.created_at), _minute(row.last_used_at), _minute(row.previous_until))
        for row in rows
    ]
    print_table(["AK", "NAME", "PROJECT", "CREATED", "LAST USED", "OLD SECRET UNTIL"], table, empty="no key")


@app.command("rotate")
def rotate(
    context: typer.Context,
    ak: Ak,
    overlap_s: Annotated[
        int, typer.Option(help="Seconds for which the old secret and token still count; 0 ends them now.")
    ] = _DAY_S,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Give a key a new secret and token, shown now and never again. Those from before the last rotation end at once."""
    session = session_of(context)
    made, kept = session.run(lambda service: _rotate(service, ak, overlap_s, project))
    _show(made, as_json=as_json)
    say("this home's profile has the new secret" if kept else "these secrets are not kept anywhere: note them now")
    say(f"the old secret and token count for {overlap_s} more seconds" if overlap_s else "the old secret has ended")


@app.command("revoke")
def revoke(
    context: typer.Context,
    ak: Ak,
    last: Annotated[bool, typer.Option("--last", help="Also when it is the project's last key.")] = False,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once. A project's last one only with --last: nobody can call its API then."""
    session = session_of(context)
    gone = session.run(lambda service: _revoke(service, ak, project, last=last))
    if as_json:
        print_json({"ak": gone.ak, "project_id": gone.project_id, "status": "revoked"})
    else:
        print_fields({"ak": gone.ak, "project": gone.project, "status": "revoked"})
    profile = stored_credentials(session.settings())
    if profile is not None and profile.ak == ak:
        say("this was the key of this home's profile: `shardlift credentials` shows one that counts no more")


@master.command("show")
def show_master(context: typer.Context, as_json: AsJson = False) -> None:
    """Tell where the master key is, its id, and that it opens every secret."""
    session = session_of(context)
    count, ids = session.run(_check)
    fields = {"file": str(session.settings().master_key_path), "key_ids": list(ids), "secrets": count}
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)


@master.command("rotate")
def rotate_master(context: typer.Context, as_json: AsJson = False) -> None:
    """Make a new master key and encrypt every secret with it. A server may run meanwhile."""
    session = session_of(context)
    old, new, count = session.run(lambda service: service.keys.rotate_master())
    fields = {"file": str(session.settings().master_key_path), "old_id": old, "new_id": new, "secrets": count}
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)
    say("copies of the database from before need the old key: keep it with them, or remove them")


async def _create(service: Service, project: str | None, name: str) -> Credentials:
    return await keep_first(service, await service.keys.create(await project_of(service, project), name))


async def _list(service: Service, project: str | None) -> tuple[KeyRow, ...]:
    return await service.keys.list(None if project is None else await service.project_id(project))


async def _rotate(service: Service, ak: str, overlap_s: int, project: str | None) -> tuple[Credentials, bool]:
    owner = None if project is None else await service.project_id(project)
    return await keep_rotated(service, await service.keys.rotate(ak, overlap_s, owner))


async def _revoke(service: Service, ak: str, project: str | None, *, last: bool) -> KeyRow:
    owner = None if project is None else await service.project_id(project)
    return await service.keys.revoke(ak, owner, last=last)


async def _check(service: Service) -> tuple[int, tuple[str, ...]]:
    return await service.keys.check(), service.keys.master_ids()


def _minute(at: object) -> str | None:
    return None if at is None else str(at)[:16]


def _show(found: Credentials, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
    else:
        print_fields(asdict(found))
