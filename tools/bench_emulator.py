"""So many upgrades of simulated clusters at once, to the end, with faults, in one process: wall time, CPU and memory.

Each cluster has three nodes. Half of them have a fault that makes the upgrade fail: a sub-step, drawn by number, or a
node that does not start. Who sees FAILED retries, as automation does, until it is SUCCESS. Another tenth boot one node
slowly. Figures go to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import structlog

from shardlift.emulator import Shape, emulating, temporary_home
from shardlift.logs import configure_logs
from shardlift.model import Cluster, FaultKind, InstanceType, Simulation, Strategy, TaskStatus
from shardlift.service import Service
from shardlift.service.faults import FaultRequest, Faults
from shardlift.service.requests import CreateCluster, NodeGroup, UpgradeRequest
from shardlift.settings import Settings

_OLD, _NEW = "opensearch:2.19.4", "opensearch:3.4.0"
_ZONES = ("a", "b", "c")
_CREATED_AT_ONCE = 20
_LOOK_S = 1.0
_RETRIES_MAX = 5
_FAILING, _SLOW = 2, 10


@dataclass(slots=True)
class Figures:
    """What came out, by cluster: how often it had to be retried, or how it ended otherwise."""

    created_s: float = 0.0
    upgraded_s: float = 0.0
    slowest_s: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)


async def bench(clusters: int, nodes: int, speed: float, strategy: Strategy) -> Figures:
    """Runs it; `clusters` upgrades are under way at the same time."""
    figures = Figures()
    with temporary_home() as home:
        settings = Settings(home=home, port=0, clusters_max=clusters, project_clusters_max=clusters)
        shape = Shape(simulation=Simulation(speed=speed))
        async with emulating(settings, shape) as (service, ready):
            begun_s = time.monotonic()
            made = await _created(service, ready.project_id, clusters, nodes, speed)
            figures.created_s = time.monotonic() - begun_s
            await _with_faults(service, made)
            begun_s = time.monotonic()
            tasks = {}
            for cluster in made:
                tasks[cluster.id] = (await service.upgrade(UpgradeRequest(cluster.id, _NEW, strategy))).id
            await _ended(service, ready.project_id, tasks, figures)
            figures.upgraded_s = time.monotonic() - begun_s
    return figures


async def _created(service: Service, project_id: str, count: int, nodes: int, speed: float) -> list[Cluster]:
    gate = asyncio.Semaphore(_CREATED_AT_ONCE)

    async def one(number: int) -> Cluster:
        async with gate:
            return await service.create_cluster(
                CreateCluster(
                    project_id,
                    f"bench-{number}",
                    _OLD,
                    (NodeGroup(InstanceType.ESS, nodes),),
                    _ZONES,
                    "sim",
                    simulation=Simulation(speed=speed),
                )
            )

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def _with_faults(service: Service, made: list[Cluster]) -> None:
    faults = Faults(service, ())
    for number, cluster in enumerate(made):
        if number % _FAILING == 0:
            order = number // _FAILING % 14
            asked = (
                FaultRequest(FaultKind.NO_START, node="2", times=1)
                if order == 13  # noqa: PLR2004  (one past the last sub-step)
                else FaultRequest(FaultKind.STEP, node=str(1 + number % 3), order=order)
            )
            await faults.add(cluster.id, asked)
        elif number % _SLOW == 1:
            await faults.add(cluster.id, FaultRequest(FaultKind.SLOW, node="1", factor=5))


async def _ended(service: Service, project_id: str, tasks: dict[str, str], figures: Figures) -> None:
    """Retries what has failed, until nothing is under way. One look a second for all: nobody waits for one task."""
    while tasks:
        await asyncio.sleep(_LOOK_S)
        page = await service.clusters(project_id, limit=len(tasks) + 1000)
        for cluster in page.items:
            if cluster.id not in tasks or cluster.busy_with is not None:
                continue
            task = await service.task(tasks[cluster.id])
            if task.status is TaskStatus.FAILED and task.execute_times <= _RETRIES_MAX:
                await service.retry(task.id)
            elif task.status is not TaskStatus.RUNNING:
                del tasks[cluster.id]
                assert task.ended_at is not None, "it has ended"
                figures.slowest_s = max(figures.slowest_s, (task.ended_at - task.created_at).total_seconds())
                figures.ended[str(task.status)] += 1
                figures.retries[str(task.execute_times - 1)] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--speed", type=float, default=60, help="the clusters' seconds in one of ours")
    parser.add_argument("--strategy", type=Strategy, default=Strategy.DRAIN)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure_logs()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    figures = asyncio.run(bench(options.clusters, options.nodes, options.speed, options.strategy))
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "clusters": options.clusters,
        "nodes": options.nodes,
        "speed": options.speed,
        "created_s": round(figures.created_s, 1),
        "upgraded_s": round(figures.upgraded_s, 1),
        "slowest_s": round(figures.slowest_s, 1),
        "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / 1024),
        "ended": dict(figures.ended),
        "by_retries": dict(sorted(figures.retries.items())),
    }
    if options.json:
        print(json.dumps(told))
    else:
        print("\n".join(f"{name:<12} {value}" for name, value in told.items()))
    return 0 if figures.ended == Counter({"SUCCESS": options.clusters}) else 1


if __name__ == "__main__":
    sys.exit(main())
