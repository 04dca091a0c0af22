"""What `make bench-api` has measured, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bench_api import Server


def report(rows: list[dict[str, Any]], beside: list[Server], *, as_json: bool) -> None:
    """`rows` as `figures` gives them, then the servers that ours were measured beside."""
    others: list[dict[str, Any]] = [
        {"server": one.name, **{key: one.middle(key) for key in ("per_s", "cpu_us", "p50_ms", "p99_ms")}}
        for one in beside
    ]
    if as_json:
        json.dump({"shardlift": rows, "others": others}, sys.stdout, indent=1)
        return
    _show(rows, others)


def figures(
    ours: dict[str, Server],
    bares: dict[str, Server],
    moto_server: Server,
    changed: dict[str, float],
    sizes: dict[str, float],
) -> list[dict[str, Any]]:
    """A row for each home, by its name: our server beside itself with the first home, the bare app, and moto."""
    rows: list[dict[str, Any]] = []
    first = next(iter(ours))
    for name, server in ours.items():
        beside = bares[name]
        rows.append(
            {
                "home": name,
                "of_first": server.beside(ours[first]),
                "bare_of_first": beside.beside(bares[first]),
                "of_bare": server.beside(beside),
                "of_bare_cpu": beside.middle("cpu_us") / server.middle("cpu_us"),
                "times_moto": server.middle("per_s") / moto_server.middle("per_s"),
                "per_s": server.middle("per_s"),
                "cpu_us": server.middle("cpu_us"),
                "p50_ms": server.middle("p50_ms"),
                "p99_ms": server.middle("p99_ms"),
                "changed_ms": changed[name],
                "bytes": sizes[name],
            }
        )
    return rows


def _show(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    console = Console(width=180)
    table = Table("UpgradeDetail of Shardlift", box=None, pad_edge=False)
    heads = (
        "/ first row",
        "bare / its first",
        "/ bare",
        "/ bare, by CPU",
        "x moto",
        "requests/s",
        "CPU, us",
        "p50, ms",
        "p99, ms",
        "after a change, ms",
        "bytes",
    )
    for head in heads:
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            str(row["home"]),
            *(f"{row[key]:.2f}" for key in ("of_first", "bare_of_first", "of_bare")),
            f"{row['of_bare_cpu']:.2f}",
            f"{row['times_moto']:.1f}",
            f"{row['per_s']:,.0f}",
            f"{row['cpu_us']:.0f}",
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "changed_ms")),
            f"{row['bytes']:,.0f}",
        )
    console.print(table)
    table = Table("the others", box=None, pad_edge=False)
    for head in ("requests/s", "CPU, us", "p50, ms", "p99, ms"):
        table.add_column(head, justify="right")
    for row in others:
        numbers = f"{row['per_s']:,.0f}", f"{row['cpu_us']:.0f}", f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}"
        table.add_row(str(row["server"]), *numbers)
    console.print()
    console.print(table)
