"""`shardlift emulate`: a server with a simulated cluster, to test automation against."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardlift.cli.clusters import counts_of
from shardlift.cli.output import AsJson, print_json, say
from shardlift.cli.session import session_of
from shardlift.cli.simulation import Data, Indices, Replicas, Speed, simulation_of
from shardlift.model import InstanceType, Simulation, Strategy

if TYPE_CHECKING:  # at run time they are imported once the command runs
    from shardlift.service import Service


def emulate(
    context: typer.Context,
    *,
    image: Annotated[str, typer.Option(help="What the nodes run at first.")] = "opensearch:2.19.4",
    nodes: Annotated[int, typer.Option(help="How many data nodes, which are master-eligible too.")] = 3,
    roles: Annotated[str | None, typer.Option(help="Instead of --nodes: `data=3,master=3,cold=2,client=1`.")] = None,
    zones: Annotated[str, typer.Option(help="Zones, dealt to the nodes in turn.")] = "zone-a,zone-b,zone-c",
    strategy: Annotated[Strategy, typer.Option(help="How its nodes are upgraded unless a request says so.")] = (
        Strategy.DRAIN
    ),
    data: Data = None,
    indices: Indices = None,
    replicas: Replicas = None,
    speed: Speed = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, 0 for any free one.")] = 0,
    home: Annotated[Path | None, typer.Option(help="Keep everything there, for the next time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the CSS API with a simulated cluster, print what clients need, and forget all of it at Ctrl-C."""
    from shardlift import emulator  # noqa: PLC0415 - slow to import
    from shardlift.serve import run  # noqa: PLC0415 - slow to import
    from shardlift.service.requests import NodeGroup  # noqa: PLC0415 - slow to import

    counts = {InstanceType.ESS: nodes} if roles is None else counts_of(roles)
    shape = emulator.Shape(
        image=image,
        groups=tuple(NodeGroup(kind, count) for kind, count in counts.items()),
        zones=tuple(zones.split(",")),
        strategy=strategy,
        simulation=simulation_of(data, indices, replicas, speed) or Simulation(),
    )

    async def readied(service: Service, url: str) -> None:
        del url  # the profile has it
        ready = await emulator.make_ready(service, await emulator.credentials_of(service), shape, service.settings.home)
        if as_json:
            print_json({**asdict(ready), "environment": dict(ready.environment())})
        else:
            sys.stdout.write(ready.exports())
        sys.stdout.flush()
        kept = "is kept" if home else "goes with it"
        say(f"{ready.cluster_name} is ready at {ready.url}; Ctrl-C ends the server, and everything {kept}")

    with nullcontext(home.absolute()) if home else emulator.temporary_home() as folder:
        settings = session_of(context).settings(home=folder, host=host, port=port)
        raise typer.Exit(run(settings, readied=readied))
