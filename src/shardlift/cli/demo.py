"""`shardlift demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from shardlift.cli.images import pull_with_bar
from shardlift.cli.output import AsJson
from shardlift.model import Strategy


def demo(
    *,
    source: Annotated[str, typer.Option("--from", help="The image to begin with.")] = "opensearch:2.19.4",
    target: Annotated[str, typer.Option("--to", help="The image to upgrade to.")] = "opensearch:3.4.0",
    nodes: Annotated[int, typer.Option(min=3, max=20, help="How many nodes, about 1 GiB of memory each.")] = 3,
    docs: Annotated[int, typer.Option(min=1, max=10_000_000, help="Documents to load before the upgrade.")] = 40_000,
    strategy: Annotated[
        Strategy, typer.Option(help="How nodes are emptied and refilled; through the CSS API, as here, auto drains.")
    ] = Strategy.DRAIN,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the cluster and its home for a look.")] = False,
    as_json: AsJson = False,
) -> None:
    """Boot a real cluster, load it, upgrade it under a client's load, prove that nothing was lost, and clean up."""
    from shardlift.demo import DemoOptions, run_demo  # noqa: PLC0415 - slow to import

    options = DemoOptions(source=source, target=target, nodes=nodes, documents=docs, strategy=strategy, keep=keep)
    raise typer.Exit(run_demo(options, pull_with_bar, as_json=as_json))
