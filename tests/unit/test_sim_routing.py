"""What the simulated world keeps in indices is what a look at all copies would find, whatever it goes through."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.chaos.time import VirtualClock, run_virtual
from shardlift.model import CopyState, ShardCopy
from shardlift.sim import MIB, Copy, IndexSpec, World, build_world, movement
from shardlift.sim.deciders import immovable, may_remain, takes_none, verdicts
from shardlift.sim.engine import SimEngine
from tests.worlds import make_cluster

pytestmark = pytest.mark.walks

_ALLOCATION = "cluster.routing.allocation"
_SPECS = (
    IndexSpec("books", primaries=3, replicas=1, copy_bytes=300 * MIB),
    IndexSpec("logs", primaries=2, replicas=2, copy_bytes=20 * MIB),
    IndexSpec(".all", replicas=3, copy_bytes=MIB, settings={"index.auto_expand_replicas": "0-all"}),
)

Change = Callable[[World, str], None]


def _setting(key: str, value: str | None) -> Change:
    return lambda world, node: world.put_cluster_setting("transient", key, value and value.replace("NODE", node))


def _kill(world: World, name: str) -> None:
    if world.nodes[name].up and world.nodes[name].pid is not None:
        world.kill_node(name)


def _start(world: World, name: str) -> None:
    if world.nodes[name].pid is None:
        world.start(world.nodes[name])


def _create(world: World, name: str) -> None:
    if "more" not in world.indices and any(node.up for node in world.nodes.values()):
        pin = {"index.routing.allocation.exclude._name": name}
        world.create_index(IndexSpec("more", primaries=2, replicas=1, copy_bytes=50 * MIB, settings=pin))


def _delete(world: World, _name: str) -> None:
    if "more" in world.indices:
        world.delete_index("more")


CHANGES: dict[str, Change] = {
    "exclude": _setting(f"{_ALLOCATION}.exclude._name", "NODE"),
    "include": _setting(f"{_ALLOCATION}.exclude._name", None),
    "hold": _setting(f"{_ALLOCATION}.enable", "primaries"),
    "let go": _setting(f"{_ALLOCATION}.enable", None),
    "high below low": _setting(f"{_ALLOCATION}.disk.watermark.high", "21%"),
    "high as it was": _setting(f"{_ALLOCATION}.disk.watermark.high", None),
    "more recoveries": _setting(f"{_ALLOCATION}.node_concurrent_recoveries", "8"),
    "zones": _setting(f"{_ALLOCATION}.awareness.attributes", "zone"),
    "pin": lambda world, node: world.put_index_setting("books", "index.routing.allocation.require._name", node),
    "unpin": lambda world, _node: world.put_index_setting("books", "index.routing.allocation.require._name", None),
    "no replicas": lambda world, _node: world.put_index_setting("logs", "index.number_of_replicas", "0"),
    "replicas": lambda world, _node: world.put_index_setting("logs", "index.number_of_replicas", "2"),
    "fill": lambda world, node: world.fill_disk(node),
    "free": lambda world, node: world.free_disk(node),
    "snapshot": lambda world, _node: world.start_snapshot(),
    "no snapshot": lambda world, _node: world.end_snapshot(),
    "write": lambda world, _node: world.write(),
    "stop": lambda world, node: world.stop(world.nodes[node]),
    "kill": _kill,
    "start": _start,
    "create": _create,
    "delete": _delete,
}

Step = tuple[str, int, float]
steps = st.lists(
    st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(0, 3), st.sampled_from([0.0, 0.3, 5.0, 20.0, 90.0])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25)
@given(steps)
def test_indices_are_what_a_look_at_all_copies_finds(walk: list[Step]) -> None:
    run_virtual(_walked(walk, _as_anew))


@settings(max_examples=50)
@given(steps)
def test_a_reroute_does_what_one_that_looks_at_everything_would(walk: list[Step]) -> None:
    quick = run_virtual(_walked(walk, _nothing))
    with (
        patch.object(movement, "restless", lambda world: [*world.copies]),
        patch.object(movement, "immovable", lambda _world, _copy: False),
        patch.object(movement, "takes_none", lambda _world, _node: False),
    ):
        assert quick == run_virtual(_walked(walk, _nothing))


def _nothing(_world: World) -> None: ...


async def _walked(walk: list[Step], look: Callable[[World], None]) -> list[str]:
    """What has happened, and where all copies were after each step."""
    # Small disks, so that watermarks matter.
    disk_bytes = 3000 * MIB
    world = build_world(make_cluster("p", 4, ("a", "b")), VirtualClock(), indices=_SPECS, disk_bytes=disk_bytes)
    names, seen = list(world.nodes), []

    def heard(line: str) -> None:
        seen.append(line)
        look(world)

    world.on_event = heard
    for change, node, wait_s in walk:
        CHANGES[change](world, names[node])
        look(world)
        await world.clock.sleep(wait_s)
        world.advance()
        look(world)
        seen += [f"{copy.label} {copy.state} {copy.node} {copy.target} {copy.aid}" for copy in world.copies]
    return seen


def _as_anew(world: World) -> None:
    copies, routing = world.copies, world.routing
    assert [copy.number for copy in copies] == list(range(len(copies)))
    for name in [*world.nodes, "nobody"]:
        placed = [copy for copy in copies if name in (copy.node, copy.target)]
        assert world.copies_on(name) == [copy for copy in copies if copy.node == name]
        assert sorted(world.placed_on(name), key=lambda copy: copy.number) == placed
        tally = world.tallied(name)
        assert (tally.copies, tally.bytes) == (len(placed), sum(world.indices[one.index].copy_bytes for one in placed))
    for group in world.shards:
        assert world.group(group) == [copy for copy in copies if copy.group == group]
    assert routing.unassigned() == [copy for copy in copies if copy.node is None]
    for state in CopyState:
        assert routing.count(state) == sum(copy.state is state for copy in copies)
    for sizes in (False, True):
        told = tuple(_told(world, copy, sizes=sizes) for copy in copies)
        assert routing.told(copies, world.indices, sizes=sizes) == told
    _rules_as_anew(world)


def _rules_as_anew(world: World) -> None:
    for key in (f"{_ALLOCATION}.exclude._name", f"{_ALLOCATION}.enable"):
        assert world.in_force.value(key) == world.setting(key)
    started = [copy for copy in world.copies if copy.state is CopyState.STARTED]
    found = movement.restless(world)
    assert [copy for copy in found if copy in started and may_remain(world, copy)] == [
        copy for copy in started if may_remain(world, copy)
    ]
    closed = {name for name, node in world.nodes.items() if takes_none(world, node)}
    for copy in world.copies:
        stays = immovable(world, copy)
        for node in world.nodes.values() if stays or closed else ():
            if stays or node.name in closed:
                assert verdicts(world, copy, node), "what objects to all objects to each"


def _told(world: World, copy: Copy, *, sizes: bool) -> ShardCopy:
    size_bytes = world.indices[copy.index].copy_bytes if sizes and copy.node else None
    return ShardCopy(copy.index, copy.shard, copy.primary, copy.state, copy.node, copy.target, size_bytes, copy.reason)


async def _members(world: World) -> dict[str, tuple[str, int | None, int | None, float | None]]:
    seen = await SimEngine(world).nodes()
    return {one.name: (str(one.version), one.disk_available_bytes, one.write_total, one.load_1m) for one in seen}


def test_members_are_told_as_they_are_now() -> None:
    async def walk() -> None:
        world = build_world(make_cluster("p", 3, ("a",)), VirtualClock(), indices=_SPECS[:1])
        first = world.nodes[next(iter(world.nodes))]
        before = await _members(world)
        world.write()
        world.fill_disk(first.name)
        world.nodes[first.name].version = world.nodes[first.name].version.__class__(9, 0, 0)
        first.load_1m = 1.5
        after = await _members(world)
        assert before[first.name] != after[first.name]
        assert after[first.name] == ("9.0.0", first.disk_bytes - world.used_bytes(first), first.writes, 1.5)

    run_virtual(walk())
