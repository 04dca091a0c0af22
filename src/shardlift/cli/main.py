"""The root command: its options, and the groups and commands below it."""

from __future__ import annotations

from typing import Annotated

import typer

from shardlift import __version__

app = typer.Typer(name="shardlift", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"shardlift {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    """Upgrades Elasticsearch and OpenSearch clusters node by node, and answers the CSS upgrade API."""


def main() -> None:
    """Entry point of `shardlift`."""
    app()
