"""Options that say how a simulated cluster is made."""

from __future__ import annotations

from typing import Annotated

import typer

from shardlift.errors import UsageError
from shardlift.model import Simulation, size_bytes

Data = Annotated[str | None, typer.Option(help="Simulated: size of all primaries, such as 50GiB; 1GiB by default.")]
Indices = Annotated[int | None, typer.Option(help="Simulated: indices that the data is spread over; 5 by default.")]
Replicas = Annotated[int | None, typer.Option(help="Simulated: replicas of each; 1 by default.")]
Speed = Annotated[float | None, typer.Option(help="Simulated: its seconds in one of ours; 60 by default.")]


def simulation_of(
    data: str | None, indices: int | None, replicas: int | None, speed: float | None
) -> Simulation | None:
    """None when nothing was given. Raises UsageError."""
    given: dict[str, int | float] = {
        name: value
        for name, value in {"indices": indices, "replicas": replicas, "speed": speed}.items()
        if value is not None
    }
    if data is not None:
        parsed = size_bytes(data)
        if parsed is None:
            raise UsageError(f"{data!r} is no size", field="--data", value=data, remedy="give it as 50GiB, 200MiB or 0")
        given["data_bytes"] = parsed
    return Simulation(**given) if given else None  # type: ignore[arg-type]  # names and types are those above
