"""`shardlift check` and `shardlift upgrade`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.forecast import print_forecast
from shardlift.cli.images import pull_with_bar
from shardlift.cli.options import Gate, Window
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.routes import Via, Yes, print_route_report, route_or_none, upgrade_by_route
from shardlift.cli.session import session_of
from shardlift.cli.tasks import Watch, begin_or_watch
from shardlift.errors import RefusedError
from shardlift.model import Strategy, Task

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import CheckReport, RouteReport, UpgradeRequest

ClusterRef = Annotated[str, typer.Argument(help="Name or id of the cluster.")]
To = Annotated[str, typer.Option("--to", help="The image to go to: `opensearch:3.4.0`, a name or an id.")]
How = Annotated[Strategy | None, typer.Option(help="By default the cluster's own.")]
BatchSize = Annotated[int, typer.Option(min=1, help="At most so many nodes at a time.")]
BackupCheck = Annotated[bool, typer.Option("--backup-check", help="Refuse unless every index is in a snapshot.")]
Canary = Annotated[
    bool, typer.Option("--canary", help="The first node comes back without shards and waits for `task approve`.")
]
LoadCheck = Annotated[bool, typer.Option("--load-check", help="Refuse while the nodes are under load.")]


def check(
    context: typer.Context,
    cluster: ClusterRef,
    *,
    to: To,
    strategy: How = None,
    batch_size: BatchSize = 1,
    backup_check: BackupCheck = False,
    load_check: LoadCheck = False,
    canary: Canary = False,
    via: Via = None,
    as_json: AsJson = False,
) -> None:
    """Run all checks and the dry run of the whole plan. Changes nothing. Exit code 3 when a rule forbids it.

    Where no single upgrade leads there the route of several hops is shown as well, which `upgrade` offers.
    """
    from shardlift.api.documents import check_document  # noqa: PLC0415 - slow to import
    from shardlift.api.route_documents import route_report_document  # noqa: PLC0415 - slow to import

    request = _request(cluster, to, strategy, batch_size, backup_check=backup_check, load_check=load_check)
    request = _with_policy(request, canary=canary, gates=(), windows=())
    report, route = session_of(context).run(lambda service: _check(service, request, via or ()))
    if as_json:
        print_json(check_document(report) | {"route": route_report_document(route) if route else None})
    else:
        print_report(report)
        if route is not None:
            print_route_report(route)
    if report.plan is None:
        raise typer.Exit(RefusedError.exit_code)


def upgrade(
    context: typer.Context,
    cluster: ClusterRef,
    *,
    to: To,
    strategy: How = None,
    batch_size: BatchSize = 1,
    backup_check: BackupCheck = False,
    load_check: LoadCheck = False,
    canary: Canary = False,
    gate: Gate = None,
    window: Window = None,
    via: Via = None,
    yes: Yes = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Start the upgrade of all nodes of a cluster, once all checks have passed.

    Where no single upgrade leads there, or with --via, a route of several hops is shown, and run once it is approved.
    """
    session = session_of(context)
    request = _request(cluster, to, strategy, batch_size, backup_check=backup_check, load_check=load_check)
    request = _with_policy(request, canary=canary, gates=gate or (), windows=window or ())
    route = session.run(lambda service: _route(service, request, via or ()))
    if route is not None:
        code = upgrade_by_route(session, request, via or (), route, yes=yes, watch=watch, as_json=as_json)
        raise typer.Exit(code)
    task = session.run(lambda service: _upgrade(service, request))
    raise typer.Exit(begin_or_watch(session, task, watch=watch, as_json=as_json))


def _request(
    cluster: str, to: str, strategy: Strategy | None, batch_size: int, *, backup_check: bool, load_check: bool
) -> UpgradeRequest:
    from shardlift.service.requests import UpgradeRequest  # noqa: PLC0415 - slow to import

    return UpgradeRequest(
        cluster_id=cluster,
        image=to,
        strategy=strategy,
        backup_check=backup_check,
        load_check=load_check,
        batch_size=batch_size,
    )


def _with_policy(
    request: UpgradeRequest, *, canary: bool, gates: Sequence[str], windows: Sequence[str]
) -> UpgradeRequest:
    from shardlift.service.policies import policy_from_words  # noqa: PLC0415 - slow to import

    return replace(request, policy=policy_from_words(canary, gates, windows))


async def _check(
    service: Service, request: UpgradeRequest, via: Sequence[str]
) -> tuple[CheckReport, RouteReport | None]:
    return await service.check(await _known(service, request)), await route_or_none(service, request, via)


async def _route(service: Service, request: UpgradeRequest, via: Sequence[str]) -> RouteReport | None:
    return await route_or_none(service, request, via)


async def _upgrade(service: Service, request: UpgradeRequest) -> Task:
    request = await _known(service, request)
    cluster, image = await service.cluster(request.cluster_id), service.image(request.image)
    if cluster.driver == "local" and cluster.busy_with is None:
        pull_with_bar(service.settings, image)  # the service would do it too, but silently
    say(f"checking {cluster.name} ...")
    return await service.upgrade(request)


async def _known(service: Service, request: UpgradeRequest) -> UpgradeRequest:
    """The request with the cluster's id in place of its name. Raises NotFoundError."""
    return replace(request, cluster_id=(await service.cluster(request.cluster_id)).id)


def print_report(report: CheckReport) -> None:
    """Findings, dry run and plan, for a person."""
    print_fields({"image": report.image_id, "strategy": report.strategy, "findings": len(report.findings)})
    rows = [(f.severity, f.rule, f.subject, f.reason, f.evidence, f.remedy) for f in report.findings]
    if rows:
        print_table(["", "RULE", "ABOUT", "REASON", "SEEN", "REMEDY"], rows, empty="")
    if report.forecast is not None:
        print_forecast(report.forecast, report.plan)
    if report.plan is None:
        say("refused: see the findings marked `block`")
        return
    if report.forecast is None:
        say("the plan has no node: all of them run the target")
    say("nothing blocks it, and nothing was changed")
