"""`shardlift migrate`, `shardlift replace` and `shardlift restart`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from shardlift.cli.output import AsJson, print_json, say
from shardlift.cli.session import session_of
from shardlift.cli.tasks import Watch, begin_or_watch
from shardlift.cli.upgrades import ClusterRef, print_report
from shardlift.errors import RefusedError, UsageError
from shardlift.model import Task

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import CheckReport, MigrateRequest, ReplaceRequest, RestartRequest

R = TypeVar("R", "MigrateRequest", "ReplaceRequest", "RestartRequest")

DryRun = Annotated[bool, typer.Option("--check", help="Only all checks and the dry run; changes nothing.")]


def migrate(
    context: typer.Context,
    cluster: ClusterRef,
    *,
    source: Annotated[str, typer.Option("--from", help="Zone that the nodes are in.")],
    target: Annotated[str, typer.Option("--to", help="Zone to go to; several (a,b,c): dealt evenly over them.")],
    inst_type: Annotated[str, typer.Option("--type", help="all, ess, ess-cold, ess-client or ess-master.")] = "all",
    check: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Move nodes to another zone, or spread them over several, one by one and with their data."""
    from shardlift.service.requests import MigrateRequest  # noqa: PLC0415 - slow to import

    def request(cluster_id: str) -> MigrateRequest:
        return MigrateRequest(cluster_id, source, target, inst_type=inst_type)

    _begin(context, cluster, request, lambda service: service.migrate, check=check, watch=watch, as_json=as_json)


def replace(
    context: typer.Context,
    cluster: ClusterRef,
    node: Annotated[str, typer.Argument(help="Name or id of the node.")],
    *,
    no_migrate_data: Annotated[
        bool,
        typer.Option("--no-migrate-data", help="Its copies do not leave it before; the others' fill it again."),
    ] = False,
    check: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Replace a node by a new one of the same name and address. Also one that is dead, with --no-migrate-data."""
    from shardlift.service.requests import ReplaceRequest  # noqa: PLC0415 - slow to import

    def request(cluster_id: str) -> ReplaceRequest:
        return ReplaceRequest(cluster_id, node, migrate_data=not no_migrate_data)

    _begin(context, cluster, request, lambda service: service.replace, check=check, watch=watch, as_json=as_json)


def restart(
    context: typer.Context,
    cluster: ClusterRef,
    *,
    node: Annotated[list[str] | None, typer.Option("--node", help="Only this one, by name or id; repeatable.")] = None,
    zone: Annotated[str | None, typer.Option("--zone", help="Only the nodes of these zones (a,b).")] = None,
    inst_type: Annotated[str | None, typer.Option("--type", help="Only nodes of these types (ess,ess-master).")] = None,
    check: DryRun = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Restart nodes one by one, all of them by default. Refused where a shard would be without a started copy."""
    from shardlift.service.requests import RestartRequest  # noqa: PLC0415 - slow to import

    given = {"node": ",".join(node or ()), "az": zone or "", "role": inst_type or ""}
    words = [(by, value) for by, value in given.items() if value]
    if len(words) > 1:
        raise UsageError(
            "--node, --zone and --type each choose nodes on their own",
            field="--" + {"az": "zone", "role": "type"}.get(words[1][0], words[1][0]),
            value=words[1][1],
            remedy="give one of them",
        )
    by, value = words[0] if words else ("role", "all")

    def request(cluster_id: str) -> RestartRequest:
        return RestartRequest(cluster_id, by, value)

    _begin(context, cluster, request, lambda service: service.restart, check=check, watch=watch, as_json=as_json)


def _begin(
    context: typer.Context,
    ref: str,
    request: Callable[[str], R],
    doing: Callable[[Service], Callable[[R], Awaitable[Task]]],
    *,
    check: bool,
    watch: bool,
    as_json: bool,
) -> None:
    session = session_of(context)
    if check:
        report = session.run(lambda service: _check(service, ref, request))
        if as_json:
            from shardlift.api.documents import check_document  # noqa: PLC0415 - slow to import

            print_json(check_document(report))
        else:
            print_report(report)
        raise typer.Exit(0 if report.plan is not None else RefusedError.exit_code)
    task = session.run(lambda service: _start(service, ref, request, doing))
    raise typer.Exit(begin_or_watch(session, task, watch=watch, as_json=as_json))


async def _check(service: Service, ref: str, request: Callable[[str], R]) -> CheckReport:
    return await service.check_move(request((await service.cluster(ref)).id))


async def _start(
    service: Service, ref: str, request: Callable[[str], R], doing: Callable[[Service], Callable[[R], Awaitable[Task]]]
) -> Task:
    cluster = await service.cluster(ref)
    say(f"checking {cluster.name} ...")
    return await doing(service)(request(cluster.id))
