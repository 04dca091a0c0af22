"""`shardlift serve`: the API and the runner in one process."""

from __future__ import annotations

from typing import Annotated

import typer

from shardlift.cli.output import AsJson, print_json, say
from shardlift.cli.session import session_of


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default SHARDLIFT_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port, 0 for any free one.")] = None,
    *,
    tls_cert: Annotated[
        str | None,
        typer.Option(help="PEM file with certificate and chain; by default SHARDLIFT_TLS_CERT_FILE."),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(help="PEM file with its private key; by default SHARDLIFT_TLS_KEY_FILE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve the API and drive all tasks, until Ctrl-C. The first start makes a project with keys."""
    from shardlift.serve import run  # noqa: PLC0415 - slow to import

    options = {"host": host, "port": port, "tls_cert_file": tls_cert, "tls_key_file": tls_key}
    given = {name: value for name, value in options.items() if value is not None}
    settings = session_of(context).settings(**given)
    say(f"serving {settings.home}; Ctrl-C ends it, and unfinished tasks go on at the next start")
    code = run(settings)
    if as_json:
        print_json({"home": str(settings.home), "status": "stopped"})
    raise typer.Exit(code)
