"""The runs of `make bench-moves` on real nodes on this machine."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from bench_moves_told import BARE, PLAIN, Course, Row, of_task, told
from plain_upgrade import POLL_S, PlainUpgrade

from shardlift.cli.images import pull_with_bar
from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.load import must, write
from shardlift.demo.stage import DemoOptions, Say, Stage, staged
from shardlift.errors import ShardliftError
from shardlift.model import Strategy
from shardlift.runner import Runner
from shardlift.service.requests import UpgradeRequest

_SAMPLE_REAL_S = 1.0
_RENEWED_WITHIN_S = 60.0  # twice the engines' interval
_BARE_POLL_S = 0.05
_STEADY_S = 12.0  # a little more than the engines' interval
_SMALL: dict[str, Any] = {"settings": {"index": {"number_of_shards": 3, "number_of_replicas": 1}}}
_SMALL_DOCUMENTS = 20
_RECOVERIES = "cluster.routing.allocation.node_concurrent_recoveries"


@dataclass(frozen=True, slots=True)
class Besides:
    """What the cluster has besides the demo's documents, as most clusters do.

    `small_indices`: indices of three shards with a replica and a few documents each. `recoveries`: how many a node
    takes at once, as if somebody had chosen that; None leaves it to the engines and to Shardlift.
    """

    small_indices: int = 0
    recoveries: int | None = None


async def real(options: DemoOptions, say: Say, besides: Besides, *, batch_size: int = 1) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        await _made(stage, besides, say)
        data_bytes = await _rested(stage)
        task = await stage.service.upgrade(
            UpgradeRequest(
                cluster_id=stage.cluster.id, image=stage.target.id, strategy=options.strategy, batch_size=batch_size
            )
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
        engine = service.backend.engine(stage.cluster)
        try:
            rows = await engine.recoveries()
        finally:
            await engine.close()
        last_ms = int(seen["end_s"] * 1000)
        after = sum(one.bytes for one in rows if one.started_at_ms > last_ms)
    ended_s = task.ended_at.timestamp() if task.ended_at else seen["end_s"]
    error = course.error(task.created_at.timestamp(), ended_s)
    walk = task.bytes_moved - after
    return told(
        "real", options.nodes, str(options.strategy), data_bytes,
        **seen, at_once=batch_size, walk_bytes=walk, eta_error=error,
    )  # fmt: skip


async def real_plain(options: DemoOptions, say: Say, besides: Besides) -> Row:
    """The documented drain, which looks once a second."""
    return await _scripted(options, say, besides, PLAIN, Strategy.DRAIN, poll_s=POLL_S)


async def real_bare(options: DemoOptions, say: Say, besides: Besides) -> Row:
    """What the engine itself takes: the next node once the cluster is green, nothing checked, mastership left to fall.

    Shardlift takes its checks and the hand-over out of the same time.
    """
    return await _scripted(options, say, besides, BARE, Strategy.IN_PLACE, poll_s=_BARE_POLL_S)


async def _scripted(
    options: DemoOptions, say: Say, besides: Besides, name: str, strategy: Strategy, *, poll_s: float
) -> Row:
    async with staged(options, pull_with_bar, say) as stage:
        await _made(stage, besides, say)
        data_bytes = await _rested(stage)
        driver = stage.service.backend.driver(stage.cluster.driver)
        await driver.prepare(stage.target)  # as `real` counts from the first sub-step: unpacking is no part of the walk
        script = PlainUpgrade(stage.cluster, stage.target, driver, say, poll_s)
        begin_s = time.monotonic()
        result = await script.run(strategy)
        wall_s = time.monotonic() - begin_s
    return told(
        "real", options.nodes, name, data_bytes,
        ended=result, walk_bytes=script.bytes_moved, bytes=script.bytes_moved, wall_s=wall_s, boots_s=script.boots_s,
    )  # fmt: skip


async def _made(stage: Stage, besides: Besides, say: Say) -> None:
    documents = b"".join(b'{"index":{}}\n{"number":%d}\n' % number for number in range(_SMALL_DOCUMENTS))
    source = stage.service.backend.image(stage.cluster.image_id)
    async with ClusterClient(stage.urls, timeout_s=60, deadline_s=120) as client:
        if besides.small_indices:
            say(f"making {besides.small_indices} small indices")
        for number in range(besides.small_indices):
            name = f"small-{number}"
            await _put(client, f"/{name}?wait_for_active_shards=all", _SMALL)
            await write(client, source, name, documents)
        if besides.recoveries is not None:
            await _put(client, "/_cluster/settings", {"persistent": {_RECOVERIES: besides.recoveries}})


async def _put(client: ClusterClient, path: str, body: dict[str, Any]) -> None:
    await must(client, Call("PUT", path, json.dumps(body).encode()), f"PUT {path} was refused")


async def _rested(stage: Stage) -> int:
    """D, by the engine's word: bytes of all shard copies, of a cluster that was not loaded this very minute.

    So the engine has renewed its retention leases: a node that keeps its data waits for that itself, and here it would
    be measured as part of the walk. And all that was written is in files, of whose sizes the engine has heard: it looks
    each 10 s (`index.store.stats_refresh_interval`), and told a D up to a third too small before.
    """
    engine = stage.service.backend.engine(stage.cluster)
    end_s = time.monotonic() + _RENEWED_WITHIN_S
    try:
        for node in stage.cluster.nodes:
            while any(one.rebuilt for one in await engine.retained(node.name)):
                if time.monotonic() > end_s:
                    raise ShardliftError(f"retention leases were not renewed within {_RENEWED_WITHIN_S} s")
                await asyncio.sleep(_SAMPLE_REAL_S)
        await engine.flush()
    finally:
        await engine.close()
    return await _steady_bytes(stage)


async def _steady_bytes(stage: Stage) -> int:
    """Raises ShardliftError when the size keeps changing."""
    begun_s = since_s = time.monotonic()
    size_bytes = -1
    async with ClusterClient(stage.urls) as client:
        while time.monotonic() - since_s < _STEADY_S:
            if time.monotonic() - begun_s > _RENEWED_WITHIN_S:
                raise ShardliftError(f"the size of the data did not come to rest within {_RENEWED_WITHIN_S} s")
            outcome = await client.call(Call("GET", "/_stats/store"))
            if not outcome.ok:
                raise ShardliftError(f"the size of the data cannot be read: {outcome}")
            seen_bytes = int(outcome.body["_all"]["total"]["store"]["size_in_bytes"])
            if seen_bytes != size_bytes:
                since_s, size_bytes = time.monotonic(), seen_bytes
            await asyncio.sleep(_SAMPLE_REAL_S)
    return size_bytes
