"""`shardlift fault ...`: faults of simulated clusters, on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.session import session_of
from shardlift.errors import UsageError
from shardlift.model import Fault, FaultKind

if TYPE_CHECKING:  # at run time they are imported once a command needs them
    from shardlift.service import Service
    from shardlift.service.faults import Faults

app = typer.Typer(no_args_is_help=True, help="Faults of simulated clusters, on demand.")

ClusterRef = Annotated[str, typer.Argument(help="Name or id of a simulated cluster.")]


@app.command("add")
def add(
    context: typer.Context,
    cluster: ClusterRef,
    kind: Annotated[FaultKind, typer.Argument(help="What goes wrong.")],
    *,
    node: Annotated[str | None, typer.Option(help="A node's name, its id, or its place: 1 is the first.")] = None,
    order: Annotated[int | None, typer.Option(help="step: the sub-step that fails, 0 to 12.")] = None,
    call: Annotated[str | None, typer.Option(help="call: a CSS operation, such as `upgrade_detail`.")] = None,
    status: Annotated[int | None, typer.Option(help="call: what it answers: 429, 500, 502, 503 or 504.")] = None,
    factor: Annotated[float | None, typer.Option(help="slow: how many times slower.")] = None,
    times: Annotated[int | None, typer.Option(help="How often it strikes; once by default.")] = None,
    message: Annotated[str | None, typer.Option(help="step, call: what it says.")] = None,
    lost: Annotated[bool, typer.Option("--lost", help="call: it is carried out, only its answer is lost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let something go wrong, at once or when its time comes."""
    from shardlift.service.faults import FaultRequest  # noqa: PLC0415 - slow to import

    asked = FaultRequest(kind, node, order, call, status, factor, times, message, lost or None)
    added = session_of(context).run(lambda service: _faults(service).add(cluster, asked))
    if as_json:
        print_json(_document(added))
    else:
        print_fields({name: value for name, value in _document(added).items() if value not in (None, False)})


@app.command("list")
def list_(context: typer.Context, cluster: ClusterRef, as_json: AsJson = False) -> None:
    """Faults in force, and those that will strike yet."""
    _print(session_of(context).run(lambda service: _faults(service).listed(cluster)), as_json=as_json)


@app.command("clear")
def clear(
    context: typer.Context,
    cluster: ClusterRef,
    fault: Annotated[str | None, typer.Argument(help="Id of the fault.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Clear all of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a fault, or all of them, and mend what they have broken."""
    if (fault is None) is not every:
        raise UsageError(
            "give the id of a fault, or --all", field="fault", value=fault, remedy="`shardlift fault list` shows ids"
        )
    cleared = session_of(context).run(lambda service: _faults(service).clear(cluster, fault))
    if not as_json:
        say(f"cleared {len(cleared)} faults")
    _print(cleared, as_json=as_json)


def _faults(service: Service) -> Faults:
    from shardlift.api.faults import call_names  # noqa: PLC0415 - slow to import
    from shardlift.service.faults import Faults  # noqa: PLC0415 - slow to import

    return Faults(service, call_names())


def _document(fault: Fault) -> dict[str, object]:
    from shardlift.api.faults import fault_document  # noqa: PLC0415 - slow to import

    return fault_document(fault)


def _print(found: tuple[Fault, ...], *, as_json: bool) -> None:
    if as_json:
        print_json({"total": len(found), "faults": [_document(fault) for fault in found]})
        return
    rows = [
        (fault.id, fault.kind, fault.node, fault.order, fault.call, fault.status, fault.factor, fault.times)
        for fault in found
    ]
    print_table(["ID", "KIND", "NODE", "ORDER", "CALL", "STATUS", "FACTOR", "TIMES"], rows, empty="no fault")
