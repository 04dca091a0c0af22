"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Gate = Annotated[
    list[str] | None,
    typer.Option("--gate", help="NAME=VALUE, such as search_latency_ms=200: what must hold before each node."),
]
Window = Annotated[
    list[str] | None,
    typer.Option("--window", help='When nodes may be begun, such as "mon-fri 01:00-05:00 Europe/Berlin".'),
]
