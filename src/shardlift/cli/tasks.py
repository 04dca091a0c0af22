"""`shardlift task ...`: what was asked of a cluster, and how far it has come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.options import Gate, Window
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.progress import follow, task_view
from shardlift.cli.session import Session, server_url, session_of
from shardlift.errors import UsageError
from shardlift.model import Policy, Route, RouteStatus, Task, TaskStatus

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import Page

app = typer.Typer(no_args_is_help=True, help="Upgrades and their progress.")

TaskId = Annotated[str, typer.Argument(help="Id of the task.")]
Watch = Annotated[bool, typer.Option("--watch", help="Stay and show the progress until the task ends.")]

_INTERRUPTED = 130


@app.command("list")
def list_(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name or id of the cluster.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """A cluster's tasks, newest first."""
    page, routes = session_of(context).run(lambda service: _list(service, cluster, limit))
    if as_json:
        tasks = [document(task) | {"route": _place(task, routes)} for task in page.items]
        print_json({"total": page.total, "tasks": tasks})
        return
    rows = [
        (task.id, task.kind, task.status, f"{len(task.completed)}/{len(task.total)}", task.strategy,
         f"{task.created_at:%Y-%m-%d %H:%M:%S}", _hop(task, routes))
        for task in page.items
    ]  # fmt: skip
    columns = ["ID", "KIND", "STATUS", "NODES", "STRATEGY", "CREATED", "HOP"]
    print_table(columns, rows, empty="this cluster has no task yet")
    if routes and routes[0].status is RouteStatus.RUNNING and routes[0].waiting_for:
        say(f"its route waits: {routes[0].waiting_for}")


@app.command("show")
def show(context: typer.Context, task: TaskId, as_json: AsJson = False) -> None:
    """A task as it is now, with all sub-steps of all nodes."""
    print_task(session_of(context).run(lambda service: service.task(task)), as_json=as_json)


@app.command("watch")
def watch(context: typer.Context, task: TaskId, as_json: AsJson = False) -> None:
    """Follow a task to its end; exit code 0 only when it succeeds."""
    raise typer.Exit(watch_task(session_of(context), task, as_json=as_json))


@app.command("pause")
def pause(context: typer.Context, task: TaskId, as_json: AsJson = False) -> None:
    """Let a task stop before the next node; what is begun is finished first."""
    print_task(session_of(context).run(lambda service: service.pause(task)), as_json=as_json)


@app.command("resume")
def resume(context: typer.Context, task: TaskId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Let a paused task go on."""
    session = session_of(context)
    begun = session.run(lambda service: service.resume(task))
    raise typer.Exit(begin_or_watch(session, begun, watch=watch, as_json=as_json))


@app.command("approve")
def approve(context: typer.Context, task: TaskId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Let a task's canary take shards, and the other nodes follow."""
    session = session_of(context)
    begun = session.run(lambda service: service.approve(task))
    raise typer.Exit(begin_or_watch(session, begun, watch=watch, as_json=as_json))


@app.command("policy")
def policy(
    context: typer.Context,
    task: TaskId,
    *,
    gate: Gate = None,
    window: Window = None,
    no_gates: Annotated[bool, typer.Option("--no-gates", help="Take all gates away.")] = False,
    no_windows: Annotated[bool, typer.Option("--no-windows", help="Take all windows away.")] = False,
    no_canary: Annotated[bool, typer.Option("--no-canary", help="Approve the canary, now or in advance.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change gates and windows of a task under way; what is not named stays as it is."""
    from shardlift.service.policies import gates_from_words  # noqa: PLC0415 - slow to import
    from shardlift.service.requests import PolicyChange  # noqa: PLC0415 - slow to import

    for named, taken, option in ((gate, no_gates, "--no-gates"), (window, no_windows, "--no-windows")):
        if named and taken:
            raise UsageError("both new ones and none", field=option, value=True, remedy=f"leave {option} out")
    gates = gates_from_words(gate) if gate else {} if no_gates else None
    windows = window or ([] if no_windows else None)
    if gates is None and windows is None and not no_canary:
        raise UsageError(
            "nothing is to be changed", remedy="give --gate, --window, --no-gates, --no-windows or --no-canary"
        )
    change = PolicyChange(False if no_canary else None, gates, windows)
    print_task(session_of(context).run(lambda service: service.set_policy(task, change)), as_json=as_json)


@app.command("retry")
def retry(context: typer.Context, task: TaskId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Let a FAILED task go on from the sub-step that failed."""
    session = session_of(context)
    begun = session.run(lambda service: service.retry(task))
    raise typer.Exit(begin_or_watch(session, begun, watch=watch, as_json=as_json))


@app.command("abort")
def abort(context: typer.Context, task: TaskId, watch: Watch = False, as_json: AsJson = False) -> None:
    """End a task at the next safe point, and put every setting back."""
    session = session_of(context)
    ending = session.run(lambda service: service.abort(task))
    if watch:
        watch_task(session, task, as_json=as_json)
    else:
        print_task(ending, as_json=as_json)


def begin_or_watch(session: Session, task: Task, *, watch: bool, as_json: bool) -> int:
    """Shows the task that has just begun, or follows it. Returns the exit code."""
    if server_url(session.settings()) is None and task.status is TaskStatus.RUNNING:
        say("no `shardlift serve` is running on this home: the task waits until one is started")
    if watch:
        return watch_task(session, task.id, as_json=as_json)
    print_task(task, as_json=as_json)
    say(f"follow it with `shardlift task watch {task.id}`")
    return 0


def watch_task(session: Session, task_id: str, *, as_json: bool) -> int:
    """Follows the task to its end and shows it. Returns 0 when it succeeded, 1 when not, 130 after Ctrl-C."""
    try:
        with task_view() as view:
            task = session.run(lambda service: follow(service, task_id, view))
    except KeyboardInterrupt:
        say(f"no longer watching; the task goes on in the server: `shardlift task watch {task_id}`")
        return _INTERRUPTED
    if as_json:
        print_json(document(task))
    elif task.fail_message and task.status is not TaskStatus.SUCCESS:
        say(
            f"remedy: put right what failed, then `shardlift task retry {task_id}`, or `shardlift task abort {task_id}`"
        )
    return 0 if task.status is TaskStatus.SUCCESS else 1


def document(task: Task) -> dict[str, object]:
    from shardlift.api.documents import task_document  # noqa: PLC0415 - slow to import

    return task_document(task, datetime.now(UTC))


def print_task(task: Task, *, as_json: bool) -> None:
    if as_json:
        print_json(document(task))
        return
    fields = {key: value for key, value in document(task).items() if key not in ("steps", "batches", "revision")}
    print_fields(fields | {"policy": _policy_words(task.policy)})
    rows = [
        (row.node, row.order, row.name, row.status, _seconds(row.begin, row.end), row.desc)
        for row in task.steps
        if row.begin is not None
    ]
    print_table(["NODE", "ORDER", "SUB-STEP", "STATUS", "TOOK", "WHAT"], rows, empty="no sub-step has begun yet")


def _policy_words(policy: Policy) -> list[str]:
    words = ["canary"] if policy.canary else []
    if policy.gates is not None:
        words += [f"{name}={limit:g}" for name, limit in policy.gates.limits.items()]
        words.append(f"on_breach={policy.gates.on_breach}")
    return words + [f"window {window}" for window in policy.windows]


def _seconds(begin: datetime | None, end: datetime | None) -> str:
    return f"{(end - begin).total_seconds():.1f} s" if begin and end else ""


async def _list(service: Service, ref: str, limit: int) -> tuple[Page[Task], tuple[Route, ...]]:
    cluster = await service.cluster(ref)
    return await service.tasks(cluster.id, limit=limit), await service.routes.of_cluster(cluster)


def _place(task: Task, routes: tuple[Route, ...]) -> dict[str, object] | None:
    """Which hop of which route the task is."""
    found = ((route, route.number_of(task.id)) for route in routes)
    return next(
        (
            {"route_id": route.id, "hop": number, "hops_total": len(route.hops)}
            for route, number in found
            if number is not None
        ),
        None,
    )


def _hop(task: Task, routes: tuple[Route, ...]) -> str:
    place = _place(task, routes)
    return f"{place['hop']}/{place['hops_total']}" if place else ""
