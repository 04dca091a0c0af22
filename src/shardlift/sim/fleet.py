"""Many simulated clusters, found by their ids: in memory, or each in a file that outlives the processes that use it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from shardlift.errors import BusyError, DriverError, UsageError
from shardlift.model import SPEED_MAX, Cluster, CopyState, Fault, FaultKind, Simulation
from shardlift.sim import saved
from shardlift.sim.build import build_world
from shardlift.sim.clock import ClusterClock
from shardlift.sim.parts import MIB, IndexSpec
from shardlift.sim.world import World

DATA_MAX_BYTES = 2**50
_INDICES_MAX = 1000
_COPIES_MAX = 20_000
_SHARDS_MAX = 10
_DISK_BYTES = 100_000 * MIB
_LOCK_TIMEOUT_S = 10
_REPLICAS_WAIT_S = 60.0
_OWNER_ONLY = 0o600


@dataclass(slots=True, eq=False)
class Site:
    """One simulated cluster and the faults that were asked of it. Both change within `world.changing()` only."""

    cluster_id: str
    project_id: str
    clock: ClusterClock
    world: World
    faults: dict[str, Fault] = field(default_factory=dict)


class Fleet:
    """All simulated clusters of a home. `folder` None keeps them in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sites: dict[str, Site] = {}
        self._last = 0

    def site(self, cluster_id: str) -> Site:
        """Raises DriverError when there is none of that id, or its file cannot be used."""
        known = self._sites.get(cluster_id)
        if known is None:
            if self._folder is None:
                raise _missing(cluster_id)
            known = self._sites[cluster_id] = _load(_path(self._folder, cluster_id))
        return known

    def has(self, cluster_id: str) -> bool:
        """Whether there is such a cluster; costs a look at a folder at most."""
        if cluster_id in self._sites:
            return True
        return self._folder is not None and _path(self._folder, cluster_id).exists()

    def found(self, cluster: Cluster, simulation: Simulation) -> None:
        """Lays out a cluster whose nodes are all down, with its data on their disks. Raises UsageError."""
        specs, disk_bytes = _laid_out(cluster, simulation)
        clock = ClusterClock(time.time(), simulation.speed)
        try:
            world = build_world(cluster, clock, indices=specs, disk_bytes=disk_bytes)
        except (ValueError, StopIteration) as error:
            why = str(error) or "it has no node that may be master"
            raise UsageError(
                f"such a cluster cannot be laid out: {why}",
                field="roles",
                remedy="give it data nodes, and nodes that may be master",
            ) from None
        world.speed = simulation.speed
        _shut_down(world)
        site = Site(cluster.id, cluster.project_id, clock, world)
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            keeper = _InFile(_path(self._folder, cluster.id), site)
            world.keeper = keeper
            keeper.save()
        self._sites[cluster.id] = site

    def forget(self, cluster_id: str) -> None:
        """The cluster is gone, with its file. Does nothing when there is none."""
        self._sites.pop(cluster_id, None)
        if self._folder is not None:
            path = _path(self._folder, cluster_id)
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)

    def addresses(self, count: int, taken: frozenset[str]) -> tuple[str, ...]:
        """So many that no node has, of 198.18.0.0/15: set aside for tests by RFC 2544, so nobody is reached there."""
        chosen: list[str] = []
        for _ in range(_ADDRESSES):
            if len(chosen) == count:
                return tuple(chosen)
            self._last = self._last % _ADDRESSES + 1
            address = f"198.{18 + (self._last >> 16)}.{self._last >> 8 & 255}.{self._last & 255}"
            if address not in taken:
                chosen.append(address)
        raise DriverError(f"all {_ADDRESSES} addresses of simulated nodes are taken", remedy="delete clusters")


_ADDRESSES = 2**17 - 2


class _InFile:
    """Keeps a site in a file: replaced whole after each change, looked at again when another process has done so.

    What time brings is not written down: it comes again, to the letter, from what was.
    """

    def __init__(self, path: Path, site: Site) -> None:
        self._path = path
        self._site = site
        self._lock = FileLock(path.with_suffix(".lock"), mode=_OWNER_ONLY)
        self._mark: tuple[int, int] | None = None

    def refresh(self, world: World) -> None:
        del world
        if self._marked() != self._mark:
            self.load()

    @contextmanager
    def hold(self, world: World) -> Iterator[None]:
        try:
            self._lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise BusyError(
                f"another process has held {self._path.name} for {_LOCK_TIMEOUT_S} s", remedy="end that process"
            ) from None
        try:
            self.refresh(world)
            try:
                yield
            finally:
                self.save()
        finally:
            self._lock.release()

    def load(self) -> None:
        mark = self._marked()
        document = _read(self._path)
        saved.restore(self._site.world, document["world"])
        self._site.faults = {one["id"]: _fault(one) for one in document["faults"]}
        self._mark = mark

    def save(self) -> None:
        saved.trim(self._site.world)
        text = json.dumps(_document(self._site), separators=(",", ":"))
        new = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY), "w") as sink:
                sink.write(text)
            new.replace(self._path)
        except OSError as error:
            raise DriverError(
                f"{self._path} cannot be written: {error.strerror}", remedy="free space on the disk of SHARDLIFT_HOME"
            ) from None
        self._mark = self._marked()

    def _marked(self) -> tuple[int, int]:
        try:
            seen = self._path.stat()
        except FileNotFoundError:
            raise _missing(self._site.cluster_id) from None
        return seen.st_mtime_ns, seen.st_ino


def _load(path: Path) -> Site:
    document = _read(path)
    clock = ClusterClock(float(document["born_s"]), float(document["speed"]))
    world = World([], [], [], clock)
    world.speed = clock.speed
    site = Site(document["cluster_id"], document["project_id"], clock, world)
    keeper = _InFile(path, site)
    keeper.load()
    world.keeper = keeper
    return site


def _path(folder: Path, cluster_id: str) -> Path:
    return folder / f"{cluster_id}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _missing(path.stem) from None
    except (OSError, ValueError) as error:
        raise DriverError(f"{path} cannot be read: {error}", remedy="delete the cluster and make it again") from None
    if not isinstance(document, dict) or not {"cluster_id", "born_s", "speed", "world", "faults"} <= {*document}:
        raise DriverError(f"{path} holds no simulated cluster", remedy="delete the cluster and make it again")
    return document


def _document(site: Site) -> dict[str, Any]:
    return {
        "cluster_id": site.cluster_id,
        "project_id": site.project_id,
        "born_s": site.clock.born_s,
        "speed": site.clock.speed,
        "faults": [{**asdict(one), "added_at": one.added_at.isoformat()} for one in site.faults.values()],
        "world": saved.to_document(site.world),
    }


def _fault(document: dict[str, Any]) -> Fault:
    added_at = datetime.fromisoformat(document["added_at"])
    return Fault(**{**document, "kind": FaultKind(document["kind"]), "added_at": added_at})


def _missing(cluster_id: str) -> DriverError:
    return DriverError(
        f"this home has no simulated cluster {cluster_id}",
        remedy="delete the cluster and make it again: what simulated it is gone",
    )


def _laid_out(cluster: Cluster, simulation: Simulation) -> tuple[list[IndexSpec], int]:
    """(indices, disk of each node in bytes). A disk is four times what its node holds at first, or 100,000 MiB."""
    data_nodes = sum(not node.roles or "data" in node.roles for node in cluster.nodes)
    _bounded("data", simulation.data_bytes, 0, DATA_MAX_BYTES)
    _bounded("indices", simulation.indices, 1, _INDICES_MAX)
    if not 0 < simulation.speed <= SPEED_MAX:
        raise UsageError(
            f"the speed is more than 0 and at most {SPEED_MAX:.0f}",
            field="speed",
            value=simulation.speed,
            remedy="60 lets an hour pass in a minute",
        )
    replicas = min(1, max(data_nodes - 1, 0)) if simulation.replicas is None else simulation.replicas
    _bounded("replicas", replicas, 0, max(data_nodes - 1, 0))
    if not simulation.data_bytes:
        return [], _DISK_BYTES
    shards = min(max(data_nodes, 1), _SHARDS_MAX)
    _bounded("indices", simulation.indices * shards * (replicas + 1), 1, _COPIES_MAX, of="shard copies")
    copy_bytes = max(simulation.data_bytes // (simulation.indices * shards), 1)
    specs = [IndexSpec(f"index-{at}", shards, replicas, copy_bytes) for at in range(1, simulation.indices + 1)]
    held_bytes = simulation.data_bytes * (replicas + 1) // max(data_nodes, 1)
    return specs, max(_DISK_BYTES, 4 * held_bytes)


def _bounded(name: str, value: int, least: int, most: int, *, of: str = "") -> None:
    if not least <= value <= most:
        raise UsageError(
            f"a simulated cluster has {least} to {most} {of or name}", field=name, value=value, remedy="ask for that"
        )


def _shut_down(world: World) -> None:
    """As after a power cut of everything: what was served lies on disks, and nobody is there."""
    for node in world.nodes.values():
        world.keep(node)
        node.pid, node.up, node.serving, node.booted = None, False, False, False
    world.elected = None
    for copy in world.copies:
        world.routing.put(copy, CopyState.UNASSIGNED, reason="CLUSTER_RECOVERED")
        # Replicas wait for the node that has their data, as they do for one that has left. By our time: a slow machine
        # must not make the first nodes rebuild what the last one brings.
        copy.delayed_until_s = world.now_s + _REPLICAS_WAIT_S * max(world.speed, 1)
    world.later(_REPLICAS_WAIT_S * max(world.speed, 1), "reroute")
