"""Faults on demand: how each begins, strikes and ends. They act on the world, and on nothing else of Shardlift."""

from __future__ import annotations

from dataclasses import replace

from shardlift.errors import BusyError, DriverError, NotFoundError, UsageError
from shardlift.model import SUB_STEPS, Fault, FaultKind
from shardlift.sim.fleet import Site

FAULTS_MAX = 100


def add(site: Site, fault: Fault) -> None:
    """Lets the fault begin. Raises UsageError when it cannot, and BusyError when there are too many."""
    world = site.world
    with world.changing():
        world.advance()
        if len(site.faults) >= FAULTS_MAX:
            raise BusyError(
                f"a cluster has {FAULTS_MAX} faults at most",
                field="cluster",
                value=site.cluster_id,
                remedy="clear some",
            )
        if fault.node is not None and fault.node not in world.nodes:
            raise UsageError(f"no node {fault.node!r}", field="node", value=fault.node, remedy="name one of its nodes")
        _begin(site, fault)
        site.faults[fault.id] = fault


def listed(site: Site) -> tuple[Fault, ...]:
    """Faults that still strike, oldest first."""
    site.world.advance()
    return tuple(site.faults.values())


def clear(site: Site, fault_id: str | None) -> tuple[Fault, ...]:
    """Ends one fault, or all of them, and mends what they have broken. Returns them. Raises NotFoundError."""
    with site.world.changing():
        site.world.advance()
        if fault_id is not None and fault_id not in site.faults:
            raise NotFoundError(
                f"no fault {fault_id!r}", field="fault", value=fault_id, remedy="`shardlift fault list` shows them"
            )
        ended = [fault for fault in site.faults.values() if fault_id in {None, fault.id}]
        for fault in ended:
            del site.faults[fault.id]
            _end(site, fault)
        return tuple(ended)


def strike_step(site: Site, node: str, order: int) -> None:
    """A sub-step has begun. Raises DriverError when a fault wants it to fail."""
    site.world.advance()
    fault = next((one for one in site.faults.values() if _wants(one, node, order)), None)
    if fault is None:
        return
    with site.world.changing():
        left = _used(site, fault)
    again = "until it is cleared" if left is None else f"{left} more times" if left else "and not again"
    raise DriverError(
        fault.message or f"sub-step {order} ({SUB_STEPS[order].name}) fails on demand",
        remedy=f"fault {fault.id} asked for it, {again}; retry, or clear it",
    )


def strike_call(site: Site, call: str) -> Fault | None:
    """A CSS call about the cluster has come: the fault that decides its answer, or None."""
    site.world.advance()
    fault = next((one for one in site.faults.values() if one.kind is FaultKind.CALL and one.call == call), None)
    if fault is not None:
        with site.world.changing():
            _used(site, fault)
    return fault


def started(site: Site, node: str) -> None:
    """A process was started; one that was told to fail so often will start the next time."""
    fault = next((one for one in site.faults.values() if one.kind is FaultKind.NO_START and one.node == node), None)
    if fault is not None and fault.times is not None:
        with site.world.changing():
            if _used(site, fault) == 0:
                _end(site, fault)


def _wants(fault: Fault, node: str, order: int) -> bool:
    return fault.kind is FaultKind.STEP and fault.order == order and fault.node in {None, node}


def _used(site: Site, fault: Fault) -> int | None:
    """One time less. Returns how many are left, None for no end."""
    if fault.times is None:
        return None
    left = fault.times - 1
    if left:
        site.faults[fault.id] = replace(fault, times=left)
    else:
        site.faults.pop(fault.id, None)
    return left


def _begin(site: Site, fault: Fault) -> None:
    world, name = site.world, fault.node or ""
    node = world.nodes.get(name)
    match fault.kind:
        case FaultKind.SLOW if node is not None:
            node.slowness = fault.factor or 1.0
            world.changed()
        case FaultKind.NO_START if node is not None:
            node.starts = False
        case FaultKind.DIES if node is not None:
            if node.pid is None:
                raise UsageError(f"{name} does not run", field="node", value=name, remedy="choose a node that runs")
            world.kill_node(name)
        case FaultKind.HANGS if node is not None:
            if node.pid is None or not node.up:
                raise UsageError(f"{name} is no member", field="node", value=name, remedy="choose a node that runs")
            world.hang_node(name)
        case FaultKind.DISK_FULL:
            world.fill_disk(name)
        case _:  # a sub-step or a call: it strikes when its time comes
            return


def _end(site: Site, fault: Fault) -> None:
    world, name = site.world, fault.node or ""
    others = any(one.kind is fault.kind and one.node == name for one in site.faults.values())
    if others or name not in world.nodes:
        return
    node = world.nodes[name]
    match fault.kind:
        case FaultKind.SLOW:
            node.slowness = 1.0
            world.changed()
        case FaultKind.NO_START:
            node.starts = True
        case FaultKind.DIES if node.pid is None:
            world.start(node)
        case FaultKind.HANGS:
            world.unhang_node(name)
        case FaultKind.DISK_FULL:
            world.free_disk(name)
        case _:
            return
