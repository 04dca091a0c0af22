"""Bytes copied by each strategy, beside the data there is and the plain documented script; wall time; error of ETA.

Simulated clusters run in virtual time, with the real control plane and a real database; real ones on this machine.
Bytes are what the engines' own recovery API tells. Aims and figures stand in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from plain_upgrade import POLL_S, PlainUpgrade
from rich.console import Console
from rich.table import Table

from shardlift.chaos.time import VirtualClock, run_virtual
from shardlift.cli.images import pull_with_bar
from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.run import ended_in_order
from shardlift.demo.stage import DemoOptions, Say, Stage, staged
from shardlift.errors import ShardliftError
from shardlift.executor import Event
from shardlift.logs import configure_logs
from shardlift.model import Cluster, ClusterStatus, Health, InstanceType, Node, Strategy, Task, TaskStatus
from shardlift.model.eta import eta
from shardlift.runner import Runner
from shardlift.service import Service
from shardlift.service.requests import UpgradeRequest
from shardlift.settings import Settings
from shardlift.sim import MIB, IndexSpec, SimBackend, World, build_world, sim_image
from shardlift.sim.driver import SimDriver
from shardlift.sim.engine import SimEngine
from shardlift.store.database import connect, migrate
from shardlift.store.inline import InlineConnection

PLAIN = "plain drain"
WALL_AIM, ETA_AIM, QUARTER = 1.15, 0.25, 0.25
_BANDWIDTH = 40 * MIB  # indices.recovery.max_bytes_per_sec as the engines have it
_BOOT = 10
_LAST = 12
_STUCK_S = 60.0
_LONGEST_S = 1e7
_SAMPLES_MAX = 60
_SAMPLE_REAL_S = 1.0
_WIDTH = 160
_PROJECT = "b" * 32

Row = dict[str, Any]


def aim_of(strategy: str, nodes: int) -> float | None:
    """Bytes over D that may be copied until the last node is back; None where nothing is promised."""
    return {
        "surge": 1.02,
        "drain": 1.05 * (1 + 1 / nodes),
        "in_place": 0.02,
        "auto": 0.02,
    }.get(strategy)


@dataclass
class Course:
    """What is noted while a task runs: (seconds since the epoch, seconds left as told then)."""

    guesses: list[tuple[float, float | None]] = field(default_factory=list)

    def note(self, task: Task, now: datetime) -> None:
        guess = eta(task, now)
        self.guesses.append((now.timestamp(), None if guess is None else guess.left_s))

    def error(self, begin_s: float, end_s: float) -> float | None:
        """At a quarter of the run: how far the time told to be left was off, as a share of what was left."""
        quarter_s = begin_s + QUARTER * (end_s - begin_s)
        left_s = next((left for at_s, left in self.guesses if at_s >= quarter_s and left is not None), None)
        at_s = next((at for at, left in self.guesses if at >= quarter_s and left is not None), end_s)
        if left_s is None or at_s >= end_s or at_s > begin_s + 2 * QUARTER * (end_s - begin_s):
            return None
        return abs(left_s - (end_s - at_s)) / (end_s - at_s)


def told(where: str, nodes: int, strategy: str, data_bytes: int, **seen: Any) -> Row:
    aim = aim_of(strategy, nodes)
    share = seen["walk_bytes"] / data_bytes
    limit_s = seen["boots_s"] + seen["walk_bytes"] / _BANDWIDTH
    return {
        "where": where,
        "nodes": nodes,
        "strategy": strategy,
        "ended": seen["ended"],
        "data_bytes": data_bytes,
        "bytes_over_data": round(share, 3),
        "aim": aim and round(aim, 3),
        "within_aim": None if aim is None else share <= aim,
        "with_last_balancing": round(seen["bytes"] / data_bytes, 3),
        "wall_s": round(seen["wall_s"], 1),
        "limit_s": None if strategy == PLAIN else round(limit_s, 1),
        "wall_over_limit": None if strategy == PLAIN or not limit_s else round(seen["wall_s"] / limit_s, 2),
        "eta_error": None if seen.get("eta_error") is None else round(seen["eta_error"], 2),
    }


def of_task(task: Task) -> dict[str, Any]:
    """Wall time until the last node is back, and the boots it had to wait for: of each batch the longest."""
    ends = [row.end for row in task.steps if row.end]
    begins = [row.begin for row in task.steps if row.begin]
    boots = {row.node: (row.end - row.begin).total_seconds() for row in task.steps
             if row.order == _BOOT and row.begin and row.end}  # fmt: skip
    boots_s = sum(max((boots.get(node.name, 0.0) for node in batch), default=0.0) for batch in task.plan.batches)
    return {
        "ended": str(task.status),
        "bytes": task.bytes_moved,
        "wall_s": (max(ends) - min(begins)).total_seconds(),
        "boots_s": boots_s,
        "end_s": max(ends).timestamp(),
    }


# Simulated.


@dataclass(frozen=True)
class Size:
    nodes: int
    copies: int
    copy_bytes: int


def laid_out(size: Size, clock: VirtualClock) -> tuple[Cluster, World]:
    """So many nodes in three zones, each with `copies` shard copies: indices of one shard or more with one replica."""
    old = sim_image("2.19.4")
    now = datetime.now(UTC)
    nodes = tuple(
        Node(
            id=f"node-{number}",
            cluster_id="bench",
            name=f"bench-ess-esn-{number}-1",
            instance_type=InstanceType.ESS,
            # Three that may be elected: hundreds of voters are no cluster that anybody has.
            roles=() if number <= 3 else ("data", "ingest"),  # noqa: PLR2004
            zone="abc"[number % 3],
            address=f"127.{77 + number // 60000}.{number // 250}.{1 + number % 250}",
            http_port=9200,
            transport_port=9300,
            image_id=old.id,
        )
        for number in range(1, size.nodes + 1)
    )
    cluster = Cluster(
        id="bench",
        project_id=_PROJECT,
        name="bench",
        engine=old.engine,
        version=old.version,
        image_id=old.id,
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=now,
        updated_at=now,
        heap_mib=512,
        nodes=nodes,
    )
    shards = size.nodes * size.copies // 2
    indices = [
        IndexSpec(f"index-{at}", min(10, shards - 10 * at), 1, size.copy_bytes) for at in range(-(-shards // 10))
    ]
    return cluster, build_world(cluster, clock, indices=indices)


async def simulated(size: Size, strategy: Strategy) -> Row:
    clock = VirtualClock()
    cluster, world = laid_out(size, clock)
    new = sim_image("3.4.0")
    data_bytes = sum(world.indices[copy.index].copy_bytes for copy in world.copies)
    with tempfile.TemporaryDirectory(prefix="shardlift-bench-") as folder:
        # Wall time is told beside what the bytes take at the engines' own limit.
        settings = Settings(home=Path(folder), lease_s=1e6, lease_renew_s=1e5, recovery_raise_max=1)
        path = settings.database_path
        migrate(path)
        database = connect(path, lambda: InlineConnection(path, _Open()))
        backend = SimBackend(world, (sim_image("2.19.4"), new))
        service = Service(database, backend, settings, clock, "bench:1")
        try:
            await service.store.add_project(_PROJECT, "bench", clock.now())
            await service.store.add_cluster(cluster)
            task = await service.upgrade(UpgradeRequest(cluster_id=cluster.id, image=new.id, strategy=strategy))
            course = await _driven(service, task, clock)
            task = await service.task(task.id)
        finally:
            await database.close()
    seen = of_task(task)
    # What begins after that is the engine's own balancing, with all settings put back.
    last_ms = int(seen["end_s"] * 1000)
    walk = sum(move.total_bytes for move in world.recovered if move.started_at_ms <= last_ms)
    begin_s = task.created_at.timestamp()
    ended_s = task.ended_at.timestamp() if task.ended_at else seen["end_s"]
    error = course.error(begin_s, ended_s)
    return told("simulated", size.nodes, str(strategy), data_bytes, **seen, walk_bytes=walk, eta_error=error)


async def _driven(service: Service, task: Task, clock: VirtualClock) -> Course:
    course, wanted = Course(), asyncio.Event()
    nodes = len(task.plan.nodes)
    passed = 0

    def observe(event: Event) -> None:
        nonlocal passed
        passed += event.what == "journaled" and event.order == _LAST
        # Few looks: each one reads all rows of the task.
        near = QUARTER / 2 <= passed / nodes <= 2 * QUARTER
        if event.what == "journaled" and (nodes <= _SAMPLES_MAX // 6 or (event.order == _LAST and near)):
            wanted.set()

    async def look() -> None:
        while len(course.guesses) < _SAMPLES_MAX * 3:
            await wanted.wait()
            wanted.clear()
            course.note(await service.task(task.id), clock.now())
            # Between two looks at least a hundredth of the nodes.
            await clock.sleep(0 if nodes <= _SAMPLES_MAX // 6 else 60)

    looking = asyncio.create_task(look())
    runner = Runner(
        service.store, service.leases, backend=service.backend, settings=service.settings, clock=clock, observer=observe
    )
    await runner.drive(task.cluster_id)
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    return course


class _Open:
    def before(self) -> None:
        return None

    def committed(self) -> None:
        return None


async def simulated_plain(size: Size) -> Row:
    """As the documents have it: exclude, wait, stop, swap, start, wait, include, wait for green."""
    clock = VirtualClock()
    cluster, world = laid_out(size, clock)
    data_bytes = sum(world.indices[copy.index].copy_bytes for copy in world.copies)
    engine, driver, image = SimEngine(world), SimDriver(world), sim_image("3.4.0")
    key, boots_s, ended = "cluster.routing.allocation.exclude._name", 0.0, "SUCCESS"
    begin_s = clock.elapsed_s()
    for node in sorted(cluster.nodes, key=lambda one: one.name == world.elected):
        await engine.put_setting("persistent", key, node.name)
        if not await _left(world, engine, clock, node.name):
            ended = f"STUCK at node {list(cluster.nodes).index(node) + 1}"
            break
        await driver.backup(node, key="plain")
        await driver.stop(node, timeout_s=60)
        await driver.switch(node, image, key="plain", fresh_data=True)
        await driver.restore(node, image, key="plain")
        started_s = clock.elapsed_s()
        await driver.start(node)
        while not await engine.answers(node.name):
            await clock.sleep(POLL_S)
        boots_s += clock.elapsed_s() - started_s
        await engine.put_setting("persistent", key, None)
        await engine.health(wait_settled=True, wait_status=Health.GREEN, timeout_s=_LONGEST_S)
    walk = sum(move.total_bytes for move in (*world.recovered, *world.moves))
    wall_s = clock.elapsed_s() - begin_s
    return told(
        "simulated", size.nodes, PLAIN, data_bytes,
        ended=ended, walk_bytes=walk, bytes=walk, wall_s=wall_s, boots_s=boots_s,
    )  # fmt: skip


async def _left(world: World, engine: SimEngine, clock: VirtualClock, node: str) -> bool:
    """Whether the node is empty in the end; false when nothing has moved for a minute."""
    still_since_s = clock.elapsed_s()
    while any(copy.node == node for copy in await engine.shards()):
        if world.moves:
            still_since_s = clock.elapsed_s()
        if clock.elapsed_s() - still_since_s > _STUCK_S:
            return False
        await clock.sleep(POLL_S)
    return True


# Real.


async def real(options: DemoOptions, say: Say) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        data_bytes = await _data_bytes(stage)
        task = await stage.service.upgrade(
            UpgradeRequest(cluster_id=stage.cluster.id, image=stage.target.id, strategy=options.strategy)
        )
        course, service = Course(), stage.service
        clock = service.clock
        runner = Runner(service.store, service.leases, backend=service.backend, settings=service.settings, clock=clock)
        running = asyncio.create_task(runner.drive(stage.cluster.id))
        while not running.done():
            course.note(await service.task(task.id), clock.now())
            await asyncio.wait([running], timeout=_SAMPLE_REAL_S)
        await running
        task = await service.task(task.id)
        seen = of_task(task)
        rows = await service.backend.engine(stage.cluster).recoveries()
        last_ms = int(seen["end_s"] * 1000)
        after = sum(one.bytes for one in rows if one.started_at_ms > last_ms)
    ended_s = task.ended_at.timestamp() if task.ended_at else seen["end_s"]
    error = course.error(task.created_at.timestamp(), ended_s)
    walk = task.bytes_moved - after
    return told("real", options.nodes, str(options.strategy), data_bytes, **seen, walk_bytes=walk, eta_error=error)


async def real_plain(options: DemoOptions, say: Say) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        data_bytes = await _data_bytes(stage)
        script = PlainUpgrade(stage.cluster, stage.target, stage.service.backend.driver(stage.cluster.driver), say)
        begin_s = time.monotonic()
        result = await script.run(Strategy.DRAIN)
        wall_s = time.monotonic() - begin_s
    return told(
        "real", options.nodes, PLAIN, data_bytes,
        ended=result, walk_bytes=script.bytes_moved, bytes=script.bytes_moved, wall_s=wall_s, boots_s=script.boots_s,
    )  # fmt: skip


async def _data_bytes(stage: Stage) -> int:
    """D, by the engine's word: bytes of all shard copies."""
    async with ClusterClient(stage.urls) as client:
        outcome = await client.call(Call("GET", "/_stats/store"))
    if not outcome.ok:
        raise ShardliftError(f"the size of the data cannot be read: {outcome}")
    return int(outcome.body["_all"]["total"]["store"]["size_in_bytes"])


# The table.


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
        if row["strategy"] != PLAIN and row["wall_over_limit"] and row["wall_over_limit"] > WALL_AIM:
            lines.append(f"MISSED: {name}: wall time {row['wall_over_limit']} times the limit, the aim is {WALL_AIM}")
        if row["strategy"] != PLAIN and (row["eta_error"] is None or row["eta_error"] > ETA_AIM):
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


def _strategies(text: str) -> list[str]:
    known = [*map(str, Strategy), PLAIN]
    chosen = [one.strip() for one in text.split(",")]
    for one in chosen:
        if one not in known:
            raise argparse.ArgumentTypeError(f"{one!r} is none of {', '.join(known)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulated", type=_numbers, default=[10, 100, 1000], help='nodes, "" for none')
    parser.add_argument("--real", type=_numbers, default=[3, 6], help='nodes, "" for none')
    parser.add_argument("--strategies", type=_strategies, default=[*map(str, Strategy), PLAIN])
    parser.add_argument("--copies", type=int, default=10, help="shard copies on each simulated node")
    parser.add_argument("--copy-mib", type=int, default=1024, help="size of each")
    parser.add_argument("--docs", type=int, default=40_000, help="documents in each real cluster")
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
            for name in given.strategies:
                work = simulated_plain(size) if name == PLAIN else simulated(size, Strategy(name))
                rows.append(run_virtual(work))
                say(json.dumps(rows[-1]))
        for nodes in given.real:
            for name in given.strategies:
                drained = name == PLAIN
                options = DemoOptions(
                    nodes=nodes, documents=given.docs, strategy=Strategy.DRAIN if drained else Strategy(name)
                )
                rows.append(asyncio.run(ended_in_order((real_plain if drained else real)(options, say))))
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
    ours = [row for row in rows if row["strategy"] != PLAIN]
    return 0 if all(row["ended"] == str(TaskStatus.SUCCESS) for row in ours) else 1


if __name__ == "__main__":
    sys.exit(main())
