"""Shardlift beside a plain script of the documented procedure: same engine, nodes, documents and client load.

Each of the four runs has a fresh cluster. Exit code 1 when any of them lost a document or failed a client for good.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plain_upgrade import POLL_S, PlainUpgrade
from rich.console import Console
from rich.table import Table

from shardlift.cli.images import pull_with_bar
from shardlift.demo.report import boots_s, client_problems
from shardlift.demo.run import TERMINATED, ended_in_order, upgraded
from shardlift.demo.stage import DemoOptions, Probed, Say, staged, under_load
from shardlift.errors import ShardliftError
from shardlift.logs import configure_logs
from shardlift.model import Strategy

AIM = 1.15
_WIDTH = 180

Row = dict[str, Any]


async def shardlift_run(options: DemoOptions, say: Say) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        report = await upgraded(stage, options, say)
    row = _row("shardlift", options, report.seen, boots_s(report.task), report.task.bytes_moved)
    return {**row, "problems": list(report.problems), "notes": []}


async def plain_run(options: DemoOptions, say: Say) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        driver = stage.service.backend.driver(stage.cluster.driver)
        script = PlainUpgrade(stage.cluster, stage.target, driver, say)
        seen = await under_load(stage, lambda: script.run(options.strategy), say)
    row = _row("plain script", options, seen, script.boots_s, script.bytes_moved)
    stuck = [] if seen.result == "SUCCESS" else [f"plain script, {options.strategy}: {seen.result}"]
    return {**row, "problems": client_problems(seen), "notes": stuck}


def _row(who: str, options: DemoOptions, seen: Probed[str], boots: float, bytes_moved: int) -> Row:
    tallies = (seen.probe.writes, seen.probe.searches)
    return {
        "who": who,
        "strategy": str(options.strategy),
        "ended": seen.result.split(":")[0],
        "wall_s": round(seen.wall_s, 1),
        "boots_s": round(boots, 1),
        "wall_per_boots": round(seen.wall_s / boots, 2) if boots else None,
        "bytes_moved": bytes_moved,
        "requests": sum(tally.sent for tally in tallies),
        "met_down": sum(tally.met_down for tally in tallies),
        "failed_first_try": sum(tally.first_try_failed for tally in tallies),
        "failed_after_retry": sum(tally.failed for tally in tallies),
        "longest_gap_ms": round(max(tally.longest_gap_s for tally in tallies) * 1000),
        "lost": len(seen.verified.lost),
    }


async def bench(options: DemoOptions, say: Say) -> list[Row]:
    rows = []
    for strategy in (Strategy.IN_PLACE, Strategy.DRAIN):
        chosen = replace(options, strategy=strategy)
        for who, run in (("shardlift", shardlift_run), ("plain script", plain_run)):
            say(f"== {strategy}: {who}")
            rows.append(await run(chosen, say))
    return rows


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the figures say of the two aims."""
    by = {(row["strategy"], row["who"]): row for row in rows}
    ratio = by[Strategy.IN_PLACE, "shardlift"]["wall_per_boots"]
    met = "within" if ratio and ratio <= AIM else "NOT within"
    lines = [f"in place, wall time / boots: {ratio} ({met} the aim of {AIM})"]
    for strategy in (Strategy.IN_PLACE, Strategy.DRAIN):
        ours, script = by[strategy, "shardlift"]["wall_s"], by[strategy, "plain script"]["wall_s"]
        if by[strategy, "plain script"]["ended"] != "SUCCESS":
            lines.append(f"{strategy}: {ours} s, the plain script got stuck and never ended")
            continue
        lines.append(f"{strategy}: {ours} s, plain script {script} s ({'not slower' if ours <= script else 'SLOWER'})")
    return lines


def show(rows: Sequence[Row]) -> None:
    table = Table(title=f"rolling upgrade; the plain script polls every {POLL_S:.0f} s", title_justify="left")
    table.add_column("")
    for row in rows:  # a run is a column: so it fits a terminal of 80
        table.add_column(f"{row['who']}\n{row['strategy']}", justify="right")
    for name in rows[0]:
        if name not in ("who", "strategy", "problems", "notes"):
            cells = (f"{row[name]:,}" if isinstance(row[name], int) else str(row[name]) for row in rows)
            table.add_row(name.replace("_", " "), *cells)
    # A pipe has no width of its own, and 80 columns would cut every figure.
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(table)
    notes = [note for row in rows for note in row["notes"]]
    for line in [*verdicts(rows), *notes, *(f"problem: {problem}" for row in rows for problem in row["problems"])]:
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", default="opensearch:2.19.4")
    parser.add_argument("--to", dest="target", default="opensearch:3.4.0")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--docs", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of the table")
    given = parser.parse_args()
    options = DemoOptions(source=given.source, target=given.target, nodes=given.nodes, documents=given.docs)
    begin = time.monotonic()
    configure_logs()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    try:
        rows = asyncio.run(ended_in_order(bench(options, say)))
    except ShardliftError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    except asyncio.CancelledError:
        print("ended by a signal; everything was cleaned up", file=sys.stderr)
        return TERMINATED
    if given.json:
        print(json.dumps({"runs": rows, "verdicts": verdicts(rows)}, indent=2))
    else:
        show(rows)
    return 1 if any(row["problems"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
