"""The faults of a scenario at work on world, calls and control planes. Each begins at its time and ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from shardlift.chaos.doors import TrialDoor
from shardlift.chaos.process import Process
from shardlift.chaos.scenario import Fault
from shardlift.chaos.time import VirtualClock
from shardlift.chaos.watch import Watch
from shardlift.errors import ShardliftError
from shardlift.sim import IndexSpec, World

_MIB = 2**20
_EXCLUDE_ID = "cluster.routing.allocation.exclude._id"


class Stage(Protocol):
    """What faults act upon."""

    world: World
    watch: Watch
    clock: VirtualClock
    processes: list[Process]
    doors: list[TrialDoor]

    def spawn(self, *, reap: bool) -> Process: ...


async def strike(stage: Stage, fault: Fault) -> None:
    """Lets the fault happen, and waits until it is over. A fault without an object (a deleted index) does nothing."""
    stage.watch.fault(f"{fault.kind} {fault.where} {fault.value}".rstrip())
    try:
        await _STRIKES[fault.kind](stage, fault)
    except (KeyError, ShardliftError) as error:
        stage.watch.note(f"nothing to do: {error}")


async def _node_dies(stage: Stage, fault: Fault) -> None:
    stage.watch.struck.add(fault.where)
    stage.world.kill_node(fault.where)
    await stage.clock.sleep(fault.for_s)
    node = stage.world.nodes[fault.where]
    stage.watch.fault(f"a service manager starts {fault.where} again")
    if node.pid is None:
        stage.world.start(node)


async def _node_hangs(stage: Stage, fault: Fault) -> None:
    stage.watch.struck.add(fault.where)
    stage.world.hang_node(fault.where)
    await stage.clock.sleep(fault.for_s)
    stage.watch.fault(f"{fault.where} hangs no longer")
    stage.world.unhang_node(fault.where)


async def _node_does_not_start(stage: Stage, fault: Fault) -> None:
    stage.world.nodes[fault.where].starts = False
    await stage.clock.sleep(fault.for_s)
    stage.watch.note(f"{fault.where} would start now")
    stage.world.nodes[fault.where].starts = True


async def _slow_boot(stage: Stage, fault: Fault) -> None:
    stage.world.nodes[fault.where].boot_s = float(fault.value)


async def _disk_full(stage: Stage, fault: Fault) -> None:
    stage.world.fill_disk(fault.where)
    await stage.clock.sleep(fault.for_s)
    stage.watch.note(f"the disk of {fault.where} is freed")
    stage.world.free_disk(fault.where)


async def _cluster_busy(stage: Stage, fault: Fault) -> None:
    until_s = stage.clock.elapsed_s() + fault.for_s
    for door in stage.doors:
        door.busy_until_s = until_s


async def _frozen(stage: Stage, fault: Fault) -> None:
    """The newest control plane stops in the middle, another one takes over, and then the first wakes up."""
    frozen = stage.processes[-1] if stage.processes else None
    if frozen is None or not frozen.alive:
        return
    frozen.freeze()
    other = stage.spawn(reap=False)
    stage.watch.note(f"{frozen.name} is frozen, {other.name} runs beside it")
    await stage.clock.sleep(fault.for_s)
    stage.watch.note(f"{frozen.name} wakes up")
    frozen.thaw()


async def _clock_jumps(stage: Stage, fault: Fault) -> None:
    stage.clock.jump_s += float(fault.value)


async def _setting_changed(stage: Stage, fault: Fault) -> None:
    layer = "transient" if fault.where in stage.world.transient else "persistent"
    stage.world.put_cluster_setting(layer, fault.where, fault.value)
    stage.watch.expected[layer, fault.where] = fault.value


async def _exclusion_removed(stage: Stage, fault: Fault) -> None:
    del fault
    for layer in ("persistent", "transient"):
        if _EXCLUDE_ID in getattr(stage.world, layer):
            stage.world.put_cluster_setting(layer, _EXCLUDE_ID, None)


async def _index_created(stage: Stage, fault: Fault) -> None:
    spec = IndexSpec(fault.where, primaries=1, replicas=int(fault.value), copy_bytes=_MIB)
    stage.world.create_index(spec)


async def _index_deleted(stage: Stage, fault: Fault) -> None:
    stage.world.delete_index(fault.where)


async def _snapshot(stage: Stage, fault: Fault) -> None:
    stage.world.start_snapshot()
    await stage.clock.sleep(fault.for_s)
    stage.watch.note("the snapshot has ended")
    stage.world.end_snapshot()


_STRIKES: dict[str, Callable[[Stage, Fault], Awaitable[None]]] = {
    "node dies": _node_dies,
    "node hangs": _node_hangs,
    "node does not start": _node_does_not_start,
    "slow boot": _slow_boot,
    "disk full": _disk_full,
    "cluster busy": _cluster_busy,
    "frozen": _frozen,
    "clock jumps": _clock_jumps,
    "setting changed": _setting_changed,
    "exclusion removed": _exclusion_removed,
    "index created": _index_created,
    "index deleted": _index_deleted,
    "snapshot": _snapshot,
}


async def strike_all(stage: Stage, faults: tuple[Fault, ...]) -> None:
    """All faults, each at its time, whether or not the one before is over."""
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(_at_its_time(stage, fault))


async def _at_its_time(stage: Stage, fault: Fault) -> None:
    await stage.clock.sleep(max(fault.at_s - stage.clock.elapsed_s(), 0))
    await strike(stage, fault)
