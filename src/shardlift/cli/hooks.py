"""`shardlift cluster hook`: how clients are led away from a node before it stops."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.output import AsJson, print_fields, print_json, say
from shardlift.cli.session import session_of
from shardlift.errors import UsageError
from shardlift.model import USUAL_TYPES, Cluster, HookKind, InstanceType, Leftovers, TrafficHook

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.hooks import HookSet

_USUAL = ",".join(USUAL_TYPES)


def hook(
    context: typer.Context,
    cluster: Annotated[str, typer.Argument(help="Name or id of the cluster.")],
    *,
    haproxy: Annotated[str | None, typer.Option(help="HAProxy's runtime socket: its path, or HOST:PORT.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="HAProxy's backend; repeatable.")] = None,
    command: Annotated[
        str | None, typer.Option(help="Program with {action}, {node}, {address}, {port}; run without a shell.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="URL that is called; the same placeholders.")] = None,
    method: Annotated[str, typer.Option(help="POST, PUT or PATCH, for --url.")] = "POST",
    header: Annotated[list[str] | None, typer.Option(help="'Name: value', for --url; repeatable.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Clients are not led away any more.")] = False,
    types: Annotated[str, typer.Option(help="Types of nodes that clients are led to.")] = _USUAL,
    timeout: Annotated[float, typer.Option(help="Bound of one call, seconds.")] = 10.0,
    in_flight_timeout: Annotated[
        float, typer.Option(help="Bound of the wait until nothing is in flight on the node, seconds.")
    ] = 60.0,
    leftovers: Annotated[
        Leftovers, typer.Option(help="When that wait is in vain: fail the task, or go on and say so.")
    ] = Leftovers.FAIL,
    as_json: AsJson = False,
) -> None:
    """Set the traffic hook of a cluster, or show it when no option says what it is to be."""
    given = _one({"--haproxy": haproxy, "--command": command, "--url": url, "--none": none or None})
    _belongs("--backend", backend, "--haproxy", given)
    _belongs("--header", header, "--url", given)
    session = session_of(context)
    if given is None:
        _show(session.run(lambda service: service.cluster(cluster)), as_json=as_json)
        return
    wanted = TrafficHook(
        kind={"--haproxy": HookKind.HAPROXY, "--command": HookKind.COMMAND}.get(given, HookKind.HTTP),
        types=_types(types),
        timeout_s=timeout,
        in_flight_timeout_s=in_flight_timeout,
        leftovers=leftovers,
        argv=_words(command or ""),
        url=url or "",
        method=method.upper(),
        headers=tuple(_header(one) for one in header or ()),
        socket=haproxy or "",
        backends=tuple(backend or ()),
    )
    done = session.run(lambda service: _set(service, cluster, None if none else wanted))
    if done.out:
        what = "put them back by hand" if none else "the new hook is used to put them back"
        say(f"still out of the balancer: {', '.join(done.out)}; {what}")
    if not none:
        say("asked: it knows every node" if done.tried else "not tried: the first task that stops a node will call it")
    _show(done.cluster, as_json=as_json)


async def _set(service: Service, ref: str, wanted: TrafficHook | None) -> HookSet:
    return await service.set_hook(ref, wanted)


def _show(cluster: Cluster, *, as_json: bool) -> None:
    if as_json:
        print_json({"cluster_id": cluster.id, "name": cluster.name, "traffic_hook": cluster.traffic_hook})
    elif cluster.traffic_hook is None:
        say(f"cluster {cluster.name} has no traffic hook: clients are expected to retry on another node")
    else:
        print_fields({"cluster": cluster.name, **hook_fields(cluster)})


def hook_fields(cluster: Cluster) -> dict[str, object]:
    """The hook for people, a line for each part."""
    shown = cluster.traffic_hook or {}
    return {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in shown.items()}


def _one(kinds: dict[str, object]) -> str | None:
    given = [name for name, value in kinds.items() if value is not None]
    if len(given) > 1:
        raise UsageError(
            f"{given[0]} and {given[1]} are two hooks", field=given[1], remedy="a cluster has one: give one of them"
        )
    return given[0] if given else None


def _belongs(name: str, value: list[str] | None, to: str, given: str | None) -> None:
    if value and given != to:
        raise UsageError(f"{name} belongs to {to}", field=name, remedy="give both, or leave it out")


def _words(command: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise UsageError(
            f"the command cannot be taken apart: {error}", field="--command", value=command, remedy="see to its quotes"
        ) from None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("a header has no colon", field="--header", remedy="give it as 'Name: value'")
    return name.strip(), value.strip()


def _types(text: str) -> tuple[InstanceType, ...]:
    try:
        return tuple(dict.fromkeys(InstanceType(one.strip()) for one in text.split(",")))
    except ValueError:
        known = ", ".join(InstanceType)
        raise UsageError(
            "this names a type of node that there is not", field="--types", value=text, remedy=f"types are {known}"
        ) from None
