"""`shardlift cluster ...`: real clusters on this machine, and simulated ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.hooks import hook_fields
from shardlift.cli.images import pull_with_bar
from shardlift.cli.output import AsJson, print_fields, print_json, print_table, say
from shardlift.cli.routes import document_of, route_words
from shardlift.cli.session import Session, project_of, session_of
from shardlift.cli.simulation import Data, Indices, Replicas, Speed, simulation_of
from shardlift.errors import UsageError
from shardlift.model import Cluster, InstanceType, Node, Strategy

if TYPE_CHECKING:  # at run time the session imports them, once a command needs them
    from shardlift.service import Service
    from shardlift.service.requests import CreateCluster, NodeState

app = typer.Typer(no_args_is_help=True, help="Clusters and their nodes.")

Project = Annotated[str | None, typer.Option(help="Project, by name or id; by default the profile's.")]
ClusterRef = Annotated[str, typer.Argument(help="Name or id of the cluster.")]

_ROLES = {
    "data": InstanceType.ESS,
    "cold": InstanceType.COLD,
    "client": InstanceType.CLIENT,
    "master": InstanceType.MASTER,
}


@app.command("create")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the new cluster.")],
    *,
    image: Annotated[str, typer.Option(help="`opensearch:2.19.4`, a name or an id.")],
    nodes: Annotated[int, typer.Option(help="How many data nodes, which are master-eligible too.")] = 3,
    roles: Annotated[
        str | None, typer.Option(help="Instead of --nodes: `data=3,master=3,cold=2,client=1`, any of them.")
    ] = None,
    zones: Annotated[str, typer.Option(help="Zones `a,b,c`, dealt to the nodes in turn.")] = "zone-a",
    strategy: Annotated[Strategy, typer.Option(help="How its nodes are upgraded unless a request says so.")] = (
        Strategy.AUTO
    ),
    driver: Annotated[str, typer.Option(help="Where nodes live: `local`, or `sim` for simulated ones.")] = "local",
    heap_mib: Annotated[int | None, typer.Option(help="Heap of each node, MiB.")] = None,
    data: Data = None,
    indices: Indices = None,
    replicas: Replicas = None,
    speed: Speed = None,
    project: Project = None,
    as_json: AsJson = False,
) -> None:
    """Boot a new cluster and wait until all its nodes have joined and it is green."""
    from shardlift.service.requests import CreateCluster, NodeGroup  # noqa: PLC0415 - slow to import

    session = session_of(context)
    counts = {InstanceType.ESS: nodes} if roles is None else counts_of(roles)
    request = CreateCluster(
        project_id="",
        name=name,
        image=image,
        groups=tuple(NodeGroup(instance_type, count) for instance_type, count in counts.items()),
        zones=tuple(zones.split(",")),
        driver=driver,
        strategy=strategy,
        heap_mib=heap_mib,
        simulation=simulation_of(data, indices, replicas, speed),
    )
    cluster, states = session.run(lambda service: _create(service, request, project))
    _show(cluster, states, as_json=as_json)


@app.command("list")
def list_(context: typer.Context, project: Project = None, as_json: AsJson = False) -> None:
    """All clusters; with --project those of one project."""
    clusters = session_of(context).run(lambda service: _list(service, project))
    if as_json:
        from shardlift.api.documents import cluster_document  # noqa: PLC0415 - slow to import

        print_json({"total": len(clusters), "clusters": [cluster_document(cluster, None) for cluster in clusters]})
        return
    rows = [
        (
            cluster.name,
            f"{cluster.engine}:{cluster.version}",
            len(cluster.nodes),
            f"{cluster.status.name.lower()}{f' ({cluster.busy_with})' if cluster.busy_with else ''}",
            cluster.id,
        )
        for cluster in clusters
    ]
    print_table(["NAME", "VERSION", "NODES", "STATUS", "ID"], rows, empty="no cluster yet; `shardlift cluster create`")


@app.command("show")
def show(context: typer.Context, cluster: ClusterRef, project: Project = None, as_json: AsJson = False) -> None:
    """One cluster, with each node's process and the version that the node reports."""
    found, states, spares, route = session_of(context).run(lambda service: _seen(service, cluster, project))
    _show(found, states, spares, route, as_json=as_json)


@app.command("delete")
def delete(context: typer.Context, cluster: ClusterRef, project: Project = None, as_json: AsJson = False) -> None:
    """Stop a cluster's nodes and remove all their files. Nothing of its data stays."""
    found = session_of(context).run(lambda service: _delete(service, cluster, project))
    if as_json:
        print_json({"cluster_id": found.id, "name": found.name, "deleted": True})
    else:
        say(f"cluster {found.name} is gone, with its data")


def show_cluster(session: Session, ref: str) -> Cluster:
    """The cluster, without the state of its nodes. Raises NotFoundError."""
    return session.run(lambda service: service.cluster(ref))


async def _create(
    service: Service, request: CreateCluster, project: str | None
) -> tuple[Cluster, dict[str, NodeState]]:
    from dataclasses import replace  # noqa: PLC0415

    from shardlift.service.clusters import validate  # noqa: PLC0415 - slow to import

    image = service.image(request.image)
    complete = replace(request, project_id=await project_of(service, project))
    validate(complete)  # before a long download is begun in vain
    if request.driver == "local":
        pull_with_bar(service.settings, image)
    say(f"booting {sum(group.count for group in request.groups)} nodes of {image.reference} ...")
    cluster = await service.create_cluster(complete)
    return cluster, await service.node_states(cluster)


async def _list(service: Service, project: str | None) -> tuple[Cluster, ...]:
    page = await service.clusters(None if project is None else await service.project_id(project))
    return page.items


async def _seen(
    service: Service, ref: str, project: str | None
) -> tuple[Cluster, dict[str, NodeState], tuple[Node, ...], dict[str, object] | None]:
    cluster = await service.cluster(ref, None if project is None else await service.project_id(project))
    routes = await service.routes.of_cluster(cluster)
    route = await document_of(service, routes[0]) if routes else None
    spares = await service.spares(cluster)
    return cluster, await service.node_states(cluster, spares), spares, route


async def _delete(service: Service, ref: str, project: str | None) -> Cluster:
    project_id = None if project is None else await service.project_id(project)
    cluster = await service.cluster(ref, project_id)
    await service.delete_cluster(cluster.id, project_id)
    return cluster


def counts_of(text: str) -> dict[InstanceType, int]:
    """Reads `data=3,master=3`. Raises UsageError."""
    counts: dict[InstanceType, int] = {}
    for part in text.split(","):
        role, _, number = part.partition("=")
        if role not in _ROLES or not number.isdecimal() or _ROLES[role] in counts:
            raise UsageError(
                f"{part!r} is not a role with a count, or names a role twice",
                field="--roles",
                value=text,
                remedy=f"give each at most once, as data=3,master=3; roles are {', '.join(_ROLES)}",
            )
        counts[_ROLES[role]] = int(number)
    return counts


def _show(
    cluster: Cluster,
    states: dict[str, NodeState],
    spares: tuple[Node, ...] = (),
    route: dict[str, object] | None = None,
    *,
    as_json: bool,
) -> None:
    from shardlift.api.documents import cluster_document  # noqa: PLC0415 - slow to import

    document = cluster_document(cluster, states, spares) | {"route": route}
    if as_json:
        print_json(document)
        return
    fields = {key: value for key, value in document.items() if key not in {"nodes", "spares", "route"}}
    fields["traffic_hook"] = "; ".join(f"{key} {value}" for key, value in hook_fields(cluster).items()) or None
    if route is not None:
        fields["route"] = route_words(route)
    if spares:
        fields["spares"] = ", ".join(node.name for node in spares)
    print_fields({**fields, "status": f"{cluster.status.name.lower()} ({cluster.status})"})
    rows = [
        (node.name, node.url, node.zone, ",".join(node.roles) or "default", states[node.name].version or "no answer",
         states[node.name].pid)
        for node in (*cluster.nodes, *spares)
    ]  # fmt: skip
    print_table(["NODE", "URL", "ZONE", "ROLES", "VERSION", "PID"], rows, empty="it has no nodes")
