"""Time and memory of `shardlift check` without REST: rules, plan and dry run, for clusters of 10 to 1,000 nodes.

Each size runs in a process of its own, so that peak memory is its own. `--runs` of each, of which the quickest counts.
Wall time, and CPU time beside it, for machines that do other work meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from shardlift.checks import Subject
from shardlift.model import (
    Cluster,
    ClusterSettings,
    ClusterStatus,
    CopyState,
    EngineKind,
    Health,
    HealthSeen,
    Image,
    IndexSeen,
    InstanceType,
    Node,
    NodeSeen,
    Observation,
    ShardCopy,
    Strategy,
    Version,
    VotingSeen,
)
from shardlift.planner import draft_plan, forecast, plan_upgrade

SIZES = (10, 30, 100, 300, 1000)
COPIES_PER_NODE = 100
ZONES = 3
_GIB = 2**30
_OLD, _NEW = Version(2, 19, 4), Version(3, 4, 0)
_ROLES = frozenset({"data", "ingest"})

Row = dict[str, Any]


def subject(nodes: int, *, awareness: bool) -> Subject:
    """A healthy cluster: indices of 10 shards with one replica each, three masters, three zones, disks 40 % full."""
    made_at = datetime(2026, 1, 1, tzinfo=UTC)
    names = [f"node-{at:04}" for at in range(nodes)]
    known = tuple(_node(name, at) for at, name in enumerate(names))
    cluster = Cluster(
        id="c",
        project_id="p",
        name="bench",
        engine=EngineKind.OPENSEARCH,
        version=_OLD,
        image_id="old",
        driver="sim",
        strategy=Strategy.DRAIN,
        status=ClusterStatus.AVAILABLE,
        created_at=made_at,
        updated_at=made_at,
        heap_mib=1024,
        nodes=known,
    )
    shards = _shards(names)
    indices = tuple(_index(name) for name in dict.fromkeys(copy.index for copy in shards))
    settings = {"cluster.routing.allocation.awareness.attributes": "zone"} if awareness else {}
    seen = Observation(
        at=made_at,
        health=HealthSeen(Health.GREEN, nodes, nodes, len(shards), 0, 0, 0, 0, timed_out=False),
        nodes=tuple(_member(name, at) for at, name in enumerate(names)),
        elected=names[0],
        shards=shards,
        indices=indices,
        settings=ClusterSettings(persistent=settings),
        voting=VotingSeen(frozenset(f"id-{name}" for name in names[:3]), frozenset()),
        running_snapshots=0,
        snapshotted=frozenset(index.name for index in indices),
    )
    return Subject(seen=seen, cluster=cluster, image=_image(), strategy=Strategy.DRAIN)


def _image() -> Image:
    return Image(
        id="new",
        display_name="new",
        description="",
        engine=EngineKind.OPENSEARCH,
        version=_NEW,
        sha256="0" * 64,
        size_bytes=1,
        java_min=21,
        java_max=25,
        priority=1,
    )


def _shards(names: list[str]) -> tuple[ShardCopy, ...]:
    groups = len(names) * COPIES_PER_NODE // 2
    # A primary and its replica are on neighbours, and so in different zones.
    return tuple(
        ShardCopy(
            f"index-{at // 10:05}",
            at % 10,
            number == 0,
            CopyState.STARTED,
            names[(at + number) % len(names)],
            size_bytes=_GIB + at % 7 * _GIB // 7,
        )
        for at in range(groups)
        for number in range(2)
    )


def _index(name: str) -> IndexSeen:
    return IndexSeen(name, _OLD, EngineKind.OPENSEARCH, 10, 1, closed=False, settings={"index.number_of_shards": "10"})


def _node(name: str, at: int) -> Node:
    return Node(
        id=f"n-{at}",
        cluster_id="c",
        name=name,
        instance_type=InstanceType.ESS,
        roles=_roles(at),
        zone=f"zone-{at % ZONES}",
        address="127.0.0.1",
        http_port=9200,
        transport_port=9300,
        image_id="old",
    )


def _roles(at: int) -> tuple[str, ...]:
    return (*sorted(_ROLES), *(("cluster_manager",) if at < 3 else ()))  # noqa: PLR2004 - three masters


def _member(name: str, at: int) -> NodeSeen:
    return NodeSeen(
        name=name,
        id=f"id-{name}",
        ephemeral_id=f"e-{name}",
        address=f"10.0.{at // 250}.{at % 250}:9300",
        engine=EngineKind.OPENSEARCH,
        version=_OLD,
        roles=frozenset(_roles(at)),
        attributes={"zone": f"zone-{at % ZONES}"},
        plugins=(),
        disk_total_bytes=375 * _GIB,
        disk_available_bytes=225 * _GIB,
    )


def measure(nodes: int, *, awareness: bool) -> Row:
    """One run in this very process."""
    asked = subject(nodes, awareness=awareness)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    plan, findings = plan_upgrade(asked)
    planned = time.perf_counter()
    told = forecast(asked, plan or draft_plan(asked))
    done, cpu_done = time.perf_counter(), time.process_time()
    return {
        "nodes": nodes,
        "copies": len(asked.seen.shards),
        "awareness": awareness,
        "rules_s": planned - begun,
        "dry_run_s": done - planned,
        "check_s": done - begun,
        "cpu_s": cpu_done - cpu_begun,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "moves": told.copies,
        "stuck": sum(one.copies for one in told.stuck),
        "blocking": sum(str(finding.severity) == "block" for finding in findings),
    }


def run_apart(nodes: int, *, awareness: bool, runs: int) -> Row:
    command = [sys.executable, __file__, "--one", str(nodes), *(["--awareness"] if awareness else [])]
    rows: list[Row] = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
    return min(rows, key=lambda row: row["check_s"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--one", type=int, help="measure this size in this process, and print JSON")
    parser.add_argument("--awareness", action="store_true", help="with --one: spread copies over zones")
    options = parser.parse_args(arguments)
    if options.one is not None:
        sys.stdout.write(json.dumps(measure(options.one, awareness=options.awareness)))
        return
    table = Table(box=None, pad_edge=False)
    columns = (
        "nodes",
        "copies",
        "zones",
        "rules + plan, s",
        "dry run, s",
        "check, s",
        "CPU, s",
        "peak, MiB",
        "moves",
        "stuck",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for awareness in (False, True):
        for nodes in options.sizes:
            row = run_apart(nodes, awareness=awareness, runs=options.runs)
            took = [f"{row[key]:.3f}" for key in ("rules_s", "dry_run_s", "check_s", "cpu_s")]
            cells = (row["nodes"], row["copies"], "aware" if awareness else "-", *took)
            table.add_row(*map(str, cells), f"{row['peak_mib']:.0f}", str(row["moves"]), str(row["stuck"]))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
