"""`shardlift route ...`, and what `shardlift upgrade` does where a single upgrade does not lead there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.images import pull_with_bar
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.progress import follow, size, task_view
from shardlift.cli.session import Session, server_url, session_of
from shardlift.errors import RefusedError
from shardlift.model import Route, RouteStatus, TaskStatus

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import RouteReport, UpgradeRequest

app = typer.Typer(no_args_is_help=True, help="Upgrades of several hops.")

ClusterRef = Annotated[str, typer.Argument(help="Name or id of the cluster.")]
Via = Annotated[
    list[str] | None, typer.Option("--via", help="An image that the route must pass; repeatable, in order.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Run a route of several hops without asking.")]

_WAIT_S = 10.0
_NAMED_MAX = 5
_INTERRUPTED = 130


@app.command("show")
def show(context: typer.Context, cluster: ClusterRef, as_json: AsJson = False) -> None:
    """A cluster's newest route: its hops, their tasks, and what it waits for."""
    print_route(session_of(context).run(lambda service: _shown(service, cluster)), as_json=as_json)


@app.command("resume")
def resume(context: typer.Context, cluster: ClusterRef, as_json: AsJson = False) -> None:
    """Look now whether a waiting route may go on; otherwise that is done every half minute."""

    async def work(service: Service) -> dict[str, object]:
        await service.routes.resume(await service.cluster(cluster))
        return await _shown(service, cluster)

    print_route(session_of(context).run(work), as_json=as_json)


@app.command("abort")
def abort(context: typer.Context, cluster: ClusterRef, as_json: AsJson = False) -> None:
    """End a route: no further hop begins, and the task under way is aborted."""

    async def work(service: Service) -> dict[str, object]:
        await service.routes.abort(await service.cluster(cluster))
        return await _shown(service, cluster)

    print_route(session_of(context).run(work), as_json=as_json)


async def needs_route(service: Service, request: UpgradeRequest, via: Sequence[str]) -> bool:
    """Whether no single upgrade leads there, or more than one was asked for. Raises NotFoundError."""
    from shardlift.checks import hop_allowed  # noqa: PLC0415 - slow to import

    cluster, image = await service.cluster(request.cluster_id), service.image(request.image)
    if via:
        return True
    refused = hop_allowed(cluster.engine, cluster.version, image.engine, image.version) is not None
    return refused and cluster.image_id != image.id


async def route_or_none(service: Service, request: UpgradeRequest, via: Sequence[str] = ()) -> RouteReport | None:
    """What to offer in place of a single upgrade; None where one is enough, or nothing leads there."""
    if not await needs_route(service, request, via):
        return None
    cluster = await service.cluster(request.cluster_id)
    try:
        service.routes.way(cluster, request, via)
    except RefusedError:
        if via:
            raise
        return None
    say(f"looking for a way from {cluster.engine}:{cluster.version} to {request.image} ...")
    return await service.routes.plan(cluster, request, via)


def upgrade_by_route(
    session: Session,
    request: UpgradeRequest,
    via: Sequence[str],
    report: RouteReport,
    *,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> int:
    """Shows the route, and runs it once it is approved. Returns the exit code."""
    if not as_json:
        print_route_report(report)
    if report.blocking:
        raise RefusedError(
            f"the route of {len(report.hops)} hops cannot begin now",
            report.blocking,
            remedy="; ".join(dict.fromkeys(finding.remedy for finding in report.blocking)),
        )
    if not yes and not _approved(report, as_json=as_json):
        return _how(request, via, report, as_json=as_json)

    async def begin(service: Service) -> dict[str, object]:
        cluster = await service.cluster(request.cluster_id)
        if cluster.driver == "local" and cluster.busy_with is None:
            pull_with_bar(service.settings, report.hops[0].leg.image)  # the service would do it too, but silently
        await service.routes.begin(cluster, request, via)
        return await _shown(service, cluster.id)

    begun = session.run(begin)
    if server_url(session.settings()) is None:
        say("no `shardlift serve` is running on this home: the route waits until one is started")
    if watch:
        return watch_route(session, request.cluster_id, as_json=as_json)
    print_route(begun, as_json=as_json)
    say("follow it with `shardlift route show`, its present hop with `shardlift task watch`")
    return 0


def _approved(report: RouteReport, *, as_json: bool) -> bool:
    """The answer of the person at the terminal; False where there is none to ask."""
    if as_json or not at_terminal():
        return False
    return typer.confirm(f"Run these {len(report.hops)} hops one after the other?", default=False, err=True)


def at_terminal() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _how(request: UpgradeRequest, via: Sequence[str], report: RouteReport, *, as_json: bool) -> int:
    named = "".join(f" --via {one}" for one in via)
    remedy = f"`shardlift upgrade {request.cluster_id} --to {request.image}{named} --yes` runs these hops"
    message = f"no single upgrade leads there, but a route of {len(report.hops)} hops does; nothing was begun"
    if as_json:
        from shardlift.api.route_documents import route_report_document  # noqa: PLC0415 - slow to import

        told = {"error": RefusedError.code, "message": message, "remedy": remedy}
        print_json(told | {"route": route_report_document(report)})
    else:
        say(message)
    say(f"remedy: {remedy}")
    return RefusedError.exit_code


def print_route_report(report: RouteReport) -> None:
    """Hops with what each takes, then what was found about each."""
    rows = [
        (
            number,
            hop.leg.source,
            hop.leg.image.reference,
            hop.check.strategy,
            len(hop.check.plan.nodes) if hop.check.plan else None,
            size(hop.check.forecast.size_bytes) if hop.check.forecast else None,
            size(hop.download_bytes) if hop.download_bytes else None,
            _in_the_way(hop.leg.rebuild, len(hop.blocking)),
        )
        for number, hop in enumerate(report.hops, 1)
    ]
    columns = ["HOP", "FROM", "TO", "STRATEGY", "NODES", "TO COPY", "DOWNLOAD", "IN THE WAY"]
    print_table(columns, rows, empty="")
    found = [
        (number, f.severity, f.rule, f.subject, f.reason, f.evidence, f.remedy)
        for number, hop in enumerate(report.hops, 1)
        for f in hop.check.findings
    ]
    if found:
        print_table(["HOP", "", "RULE", "ABOUT", "REASON", "SEEN", "REMEDY"], found, empty="")
    for number, hop in enumerate(report.hops, 1):
        if hop.leg.rebuild:
            say(rebuild_text(number, hop.leg.source, hop.leg.image.reference, hop.leg.rebuild))


def _in_the_way(rebuild: Sequence[str], blocking: int) -> str:
    words = [f"{blocking} findings"] if blocking else []
    if rebuild:
        words.append(f"{len(rebuild)} indices to be made again first")
    return ", ".join(words) or "nothing"


def rebuild_text(number: int, source: str, target: str, rebuild: Sequence[str]) -> str:
    """What is to be done before that hop, for a person."""
    named = ", ".join(rebuild[:_NAMED_MAX])
    more = f" and {len(rebuild) - _NAMED_MAX} more" if len(rebuild) > _NAMED_MAX else ""
    return (
        f"before hop {number}, on {source}: {target} does not open {named}{more}; copy each into a new index"
        " (POST _reindex), then delete the old one (docs/rules/index_compatible.md). The route waits there for that"
    )


def print_route(document: dict[str, object], *, as_json: bool) -> None:
    """A route that was begun."""
    if as_json:
        print_json(document)
        return
    hops = document["hops"]
    assert isinstance(hops, list)
    print_fields({key: value for key, value in document.items() if key != "hops"})
    rows = [(number, hop["to"] or hop["image_id"], hop["status"], hop["task_id"]) for number, hop in enumerate(hops, 1)]
    print_table(["HOP", "TO", "STATUS", "TASK"], rows, empty="")


def route_words(document: dict[str, object]) -> str:
    """One line about it: `hop 2 of 3 to opensearch:3.4.0, RUNNING: waits for ...`."""
    hops = document["hops"]
    assert isinstance(hops, list)
    last = hops[-1]["to"] or hops[-1]["image_id"]
    waits = f": waits: {document['waiting_for']}" if document["waiting_for"] else ""
    return f"hop {document['hop']} of {document['hops_total']} to {last}, {document['status']}{waits}"


def watch_route(session: Session, ref: str, *, as_json: bool) -> int:
    """Follows the route's tasks one after the other to its end. 0 when it succeeded, 1 when not, 130 after Ctrl-C.

    Ends with 1 as well where the route waits for somebody: it goes on in the server once that is done.
    """
    try:
        document = session.run(lambda service: _followed(service, ref))
    except KeyboardInterrupt:
        say(f"no longer watching; the route goes on in the server: `shardlift route show {ref}`")
        return _INTERRUPTED
    print_route(document, as_json=as_json)
    return 0 if document["status"] == RouteStatus.SUCCESS else 1


async def _followed(service: Service, ref: str) -> dict[str, object]:
    cluster = await service.cluster(ref)
    told = -1
    mark: int | None = None
    while True:  # ends with the route, or when it waits for somebody; each task is bounded in time
        route = await service.routes.newest(cluster)
        if route.task_id is not None and route.begun != told:
            told = route.begun
            say(f"hop {route.begun} of {len(route.hops)}: task {route.task_id}")
            with task_view() as view:
                await follow(service, route.task_id, view)
        elif route.status is not RouteStatus.RUNNING or await _stopped(service, route):
            return await _shown(service, ref)
        else:
            mark = await service.store.database.wait_change(mark, _WAIT_S)


async def _stopped(service: Service, route: Route) -> bool:
    """Whether it waits for somebody to do something."""
    if route.waiting_for is None or route.task_id is None:
        return False
    return (await service.task(route.task_id)).status is not TaskStatus.RUNNING


async def _shown(service: Service, ref: str) -> dict[str, object]:
    cluster = await service.cluster(ref)
    return await document_of(service, await service.routes.newest(cluster))


async def document_of(service: Service, route: Route) -> dict[str, object]:
    from shardlift.api.route_documents import route_document  # noqa: PLC0415 - slow to import

    images = {image.id: image for image in service.images()}
    task = None if route.task_id is None else await service.task(route.task_id)
    return route_document(route, images, task)
