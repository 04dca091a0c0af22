"""Bytes copied by each strategy, beside the data there is and the plain documented script; wall time; error of ETA.

Simulated clusters run in virtual time, with the real control plane and a real database; real ones on this machine.
Bytes are what the engines' own recovery API tells. Aims and figures stand in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import structlog
from bench_moves_real import Besides, real, real_bare, real_plain
from bench_moves_sim import Size, simulated, simulated_plain
from bench_moves_told import BARE, PLAIN, Row
from rich.console import Console
from rich.table import Table

from shardlift.chaos.time import run_virtual
from shardlift.demo.run import ended_in_order
from shardlift.demo.stage import DemoOptions, Say
from shardlift.errors import ShardliftError
from shardlift.logs import configure_logs
from shardlift.model import Strategy, TaskStatus
from shardlift.sim import MIB

WALL_AIM, ETA_AIM = 1.15, 0.25
_ZONES = ("zone-a", "zone-b", "zone-c")
_WIDTH = 160


def show(rows: Sequence[Row]) -> None:
    table = Table(title="bytes copied, as a share of all shard copies (D)", title_justify="left")
    names = [name for name in rows[0] if name != "where"]
    for name in ("where", *names):
        table.add_column(name.replace("_", " "), justify="left" if name in ("where", "strategy", "ended") else "right")
    for row in rows:
        cells = ["" if row[name] is None else row[name] for name in ("where", *names)]
        table.add_row(*(f"{cell:,}" if type(cell) is int else str(cell) for cell in cells))
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(table)
    for line in verdicts(rows):
        print(line)


def verdicts(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        name = f"{row['where']}, {row['nodes']} nodes, {row['strategy']}"
        if row["within_aim"] is False:
            lines.append(f"MISSED: {name}: {row['bytes_over_data']} D, the aim is {row['aim']} D")
        if row["strategy"] in (PLAIN, BARE):
            continue
        if row["wall_over_limit"] and row["wall_over_limit"] > WALL_AIM:
            lines.append(f"MISSED: {name}: wall time {row['wall_over_limit']} times the limit, the aim is {WALL_AIM}")
        if row["eta_error"] is None or row["eta_error"] > ETA_AIM:
            lines.append(f"MISSED: {name}: at a quarter of the run ETA is off by {row['eta_error']}")
    return lines or ["all aims are met"]


def _numbers(text: str) -> list[int]:
    try:
        found = [int(one) for one in text.split(",") if one]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers like 10,100") from None
    if any(not 3 <= one <= 1000 for one in found):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r}: between 3 and 1000 nodes")
    return found


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number, one at least")
    return int(text)


def _strategies(text: str) -> list[str]:
    known = [*map(str, Strategy), PLAIN, BARE]
    chosen = [one.strip() for one in text.split(",")]
    for one in chosen:
        if one not in known:
            raise argparse.ArgumentTypeError(f"{one!r} is none of {', '.join(known)}")
    return chosen


async def _real(given: argparse.Namespace, nodes: int, name: str, say: Say) -> Row:
    options = DemoOptions(
        nodes=nodes,
        documents=given.docs,
        source=given.source,
        target=given.target,
        zones=_ZONES if given.batch_size > 1 else _ZONES[:1],
    )
    besides = Besides(given.small_indices, given.recoveries)
    if name == PLAIN:
        return await real_plain(options, say, besides)
    if name == BARE:
        return await real_bare(options, say, besides)
    return await real(replace(options, strategy=Strategy(name)), say, besides, batch_size=given.batch_size)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulated", type=_numbers, default=[10, 100, 1000], help='nodes, "" for none')
    parser.add_argument("--real", type=_numbers, default=[3, 6], help='nodes, "" for none')
    parser.add_argument("--strategies", type=_strategies, default=[*map(str, Strategy), PLAIN, BARE])
    parser.add_argument("--copies", type=int, default=10, help="shard copies on each simulated node")
    parser.add_argument("--copy-mib", type=int, default=1024, help="size of each")
    parser.add_argument("--docs", type=int, default=40_000, help="documents in each real cluster")
    parser.add_argument("--batch-size", type=_at_least_one, default=1, help="real nodes taken at once, in three zones")
    parser.add_argument("--small-indices", type=_at_least_one, default=0, help="of 6 copies, besides, on real nodes")
    parser.add_argument("--recoveries", type=_at_least_one, help="at once for a real node, as if somebody chose that")
    parser.add_argument("--source", default=DemoOptions().source, help="image of real nodes before")
    parser.add_argument("--target", default=DemoOptions().target, help="and after")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout instead of the table")
    given = parser.parse_args()
    begin = time.monotonic()
    configure_logs()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", file=sys.stderr, flush=True)

    rows: list[Row] = []
    try:
        for nodes in given.simulated:
            size = Size(nodes, given.copies, given.copy_mib * MIB)
            for name in (one for one in given.strategies if one != BARE):
                work = simulated_plain(size) if name == PLAIN else simulated(size, Strategy(name))
                rows.append(run_virtual(work))
                say(json.dumps(rows[-1]))
        for nodes in given.real:
            for name in given.strategies:
                rows.append(asyncio.run(ended_in_order(_real(given, nodes, name, say))))
                say(json.dumps(rows[-1]))
    except ShardliftError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    if not rows:
        parser.error("nothing to run: give --simulated or --real a number of nodes")
    if given.json:
        print(json.dumps({"runs": rows, "verdicts": verdicts(rows)}, indent=2))
    else:
        show(rows)
    ours = [row for row in rows if row["strategy"] not in (PLAIN, BARE)]
    return 0 if all(row["ended"] == str(TaskStatus.SUCCESS) for row in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
