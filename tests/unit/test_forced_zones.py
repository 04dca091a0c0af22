"""Forced zones during a change of zones: shortened before the first node goes, as they are to be after the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.errors import DriverError
from shardlift.executor import Event
from shardlift.model import FORCED_ZONES, ForcedZones, Severity, TaskStatus
from shardlift.planner import spread
from shardlift.service.requests import MigrateRequest
from tests.worlds import Crash, Lab, make_cluster, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
A, B, C, D = "zone-a", "zone-b", "zone-c", "zone-d"
ATTRIBUTES = "cluster.routing.allocation.awareness.attributes"
BEFORE, DURING, AFTER = f"{A},{B},{C}", f"{A},{B}", f"{A},{B},{D}"


def put(lab: Lab, value: str | None, layer: str = "persistent") -> None:
    lab.world.put_cluster_setting(layer, FORCED_ZONES, value)


def aware(lab: Lab, forced: str, layer: str = "persistent") -> None:
    lab.world.put_cluster_setting("persistent", ATTRIBUTES, "zone")
    put(lab, forced, layer)


def forced_now(lab: Lab) -> str | None:
    return lab.world.persistent.get(FORCED_ZONES)


def migrate(lab: Lab, source: str = C, target: str = D, **more: str) -> MigrateRequest:
    return MigrateRequest(lab.cluster.id, source, target, **more)  # type: ignore[arg-type]


def watch(
    lab: Lab, seen: list[str | None], act: Callable[[Event], None] = lambda _event: None
) -> Callable[[Event], None]:
    """Notes what the list is at each moment of the walk at which that has changed."""

    def look(event: Event) -> None:
        lab.world.write()
        if not seen or seen[-1] != forced_now(lab):
            seen.append(forced_now(lab))
        act(event)

    return look


def assert_apart(lab: Lab) -> None:
    assert lab.world.lost() == {}
    assert not lab.world.routing.unassigned()
    for group in {copy.group for copy in lab.world.copies}:
        zones = [lab.world.nodes[copy.node or ""].zone for copy in lab.world.group(group)]
        assert len({*zones}) == len(zones), group


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("layer", ["persistent", "transient"])
async def test_the_list_is_shortened_for_the_walk_and_extended_after_it(
    fast_home: Path, replicas: int, layer: str
) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C), replicas=replicas) as lab:
        aware(lab, BEFORE, layer)
        settings = getattr(lab.world, layer)
        task = await lab.service.migrate(migrate(lab))
        seen = []

        def look(_event: Event) -> None:
            lab.world.write()
            seen.append(settings.get(FORCED_ZONES))

        await lab.drive(look)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert {*seen} == {DURING}
        assert settings.pop(FORCED_ZONES) == AFTER
        assert (lab.world.persistent, lab.world.transient) == ({ATTRIBUTES: "zone"}, {})
        assert f"names {AFTER} from now on" in (done.fail_message or "")
        assert_apart(lab)


async def test_a_check_tells_what_will_be_written_and_changes_nothing(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C), replicas=2) as lab:
        aware(lab, BEFORE)
        report = await lab.service.check_move(migrate(lab))
        assert report.blocking == ()
        (told,) = (one for one in report.findings if one.rule == "zone_ceiling")
        assert told.severity is Severity.WARN
        assert told.reason == f"the forced zones will be {DURING} during the move and {AFTER} after it"
        assert forced_now(lab) == BEFORE
        assert report.plan is not None
        assert report.plan.forced == ForcedZones((C,), (D,))


async def test_a_zone_that_is_new_is_added_when_nothing_is_emptied(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B)) as lab:
        aware(lab, f"{A},{B}")
        task = await lab.service.migrate(migrate(lab, f"{A},{B}", f"{A},{B},{C}"))
        seen: list[str | None] = []
        await lab.drive(watch(lab, seen))
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert (seen, forced_now(lab)) == ([f"{A},{B}"], f"{A},{B},{C}")
        assert_apart(lab)


async def test_the_only_forced_zone_is_none_for_the_walk(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(C,)) as lab:
        aware(lab, C)
        task = await lab.service.migrate(migrate(lab))
        seen: list[str | None] = []
        await lab.drive(watch(lab, seen))
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert (seen, forced_now(lab)) == ([""], D)


MOVES = [
    ((A, B, C), BEFORE, C, D, AFTER),
    ((A, B), f"{A},{B}", f"{A},{B}", f"{A},{B},{C}", BEFORE),
    ((A, B, C), BEFORE, C, A, DURING),
]


@pytest.mark.parametrize("move", MOVES)
async def test_crash_at_every_point_in_turn(fast_home: Path, move: tuple[tuple[str, ...], str, str, str, str]) -> None:
    """Each moment of the walk and each side of each effect, one after the other, in one move."""
    zones, before, source, target, after = move
    async with open_lab(fast_home, nodes=6, zones=zones) as lab:
        aware(lab, before)
        task = await lab.service.migrate(migrate(lab, source, target))
        met, _ = await lab.crash_everywhere(task.id)
        await lab.drive()
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert "somebody else" not in (done.fail_message or "")
        assert {("before", "put_setting"), ("after", "put_setting")} <= {
            point[:2] for point in met if isinstance(point, tuple) and FORCED_ZONES in point[2]
        }
        assert lab.world.persistent == {ATTRIBUTES: "zone", FORCED_ZONES: after}
        assert lab.world.lost() == {}


@pytest.mark.parametrize("moved", [0, 1])
async def test_a_failure_puts_the_list_back_and_the_retry_ends_with_the_new_one(fast_home: Path, moved: int) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C)) as lab:
        aware(lab, BEFORE)
        task = await lab.service.migrate(migrate(lab))

        def fail(event: Event) -> None:
            if (event.what, event.node, event.order) == ("begun", task.total[moved], 11):
                raise DriverError("planted")

        seen: list[str | None] = []
        await lab.drive(watch(lab, seen, fail))
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert (seen, forced_now(lab)) == ([DURING], BEFORE)
        await lab.service.retry(task.id)
        await lab.drive(watch(lab, seen))
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert (seen, forced_now(lab)) == ([DURING], AFTER)
        assert_apart(lab)


async def test_an_abort_half_way_puts_the_list_back(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C)) as lab:
        aware(lab, BEFORE)
        task = await lab.service.migrate(migrate(lab))

        def crash(event: Event) -> None:
            if (event.what, event.node, event.order) == ("begun", task.total[1], 0):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        assert forced_now(lab) == DURING
        await lab.service.abort(task.id)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.PARTIAL_FAILED
        assert lab.world.persistent == {ATTRIBUTES: "zone", FORCED_ZONES: BEFORE}
        assert Counter(node.zone for node in lab.world.nodes.values()) == {A: 2, B: 2, C: 1, D: 1}


@pytest.mark.parametrize("order", [0, 12])
@pytest.mark.parametrize("theirs", [f"{A},{B},{D}", A, None])
async def test_what_somebody_else_sets_meanwhile_stays_theirs(fast_home: Path, theirs: str | None, order: int) -> None:
    """During the first node it is held as it was until the end; after the last nothing would hold it any more."""
    async with open_lab(fast_home, nodes=6, zones=(A, B, C)) as lab:
        aware(lab, BEFORE)
        task = await lab.service.migrate(migrate(lab))

        def change(event: Event) -> None:
            lab.world.write()
            if (event.what, event.node, event.order) == ("journaled", task.total[order // 12], order):
                put(lab, theirs)

        await lab.drive(change)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert forced_now(lab) == theirs
        told = done.fail_message or ""
        if order == 12 and theirs == AFTER:
            assert told == f"{FORCED_ZONES} names {AFTER} from now on"
        else:
            assert "somebody else" in told
            assert "from now on" not in told


async def test_a_list_that_was_taken_away_before_the_walk_is_not_made_anew(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C)) as lab:
        aware(lab, BEFORE)
        task = await lab.service.migrate(migrate(lab))
        put(lab, None)
        await lab.drive()
        assert (await lab.task(task)).status is TaskStatus.SUCCESS
        assert lab.world.persistent == {ATTRIBUTES: "zone"}


SPREAD = f"{A},{B},{C}"


async def test_copies_are_kept_apart_once_nodes_are_dealt_over_zones(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A,), shards=6) as lab:
        (told,) = (one for one in (await lab.service.check_move(migrate(lab, A, SPREAD))).findings)
        assert (told.rule, told.severity) == ("zone_ceiling", Severity.WARN)
        assert "will be kept apart by zone" in told.reason
        task = await lab.service.migrate(migrate(lab, A, SPREAD))
        meanwhile: set[str | None] = set()

        def look(_event: Event) -> None:
            lab.world.write()
            meanwhile.add(lab.world.persistent.get(ATTRIBUTES))

        await lab.drive(look)
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert meanwhile == {None}, "the first node of a second zone would draw half of all copies"
        assert lab.world.persistent == {ATTRIBUTES: "zone"}
        assert "kept apart by zone from now on" in (done.fail_message or "")
        assert_apart(lab)


async def test_awareness_is_turned_on_whatever_crashes_and_stays(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab, A, SPREAD))
        met: set[object] = set()

        def crash_once(*point: str) -> None:
            if ATTRIBUTES in point[2] and point not in met:
                met.add(point)
                raise Crash

        lab.fault = crash_once
        while (await lab.task(task)).status is TaskStatus.RUNNING:
            try:
                await lab.drive(lambda _event: lab.world.write())
            except Crash:
                continue
        await lab.drive()
        assert len(met) == 2
        assert lab.world.persistent == {ATTRIBUTES: "zone"}
        assert "somebody else" not in ((await lab.task(task)).fail_message or "")


@pytest.mark.parametrize(
    ("target", "theirs"),
    [
        (D, None),  # one zone to one zone
        (SPREAD, "rack"),  # somebody keeps them apart by something else meanwhile
    ],
)
async def test_awareness_is_not_turned_on(fast_home: Path, target: str, theirs: str | None) -> None:
    async with open_lab(fast_home, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab, A, target))
        lab.world.persistent |= {} if theirs is None else {ATTRIBUTES: theirs}
        await lab.drive(lambda _event: lab.world.write())
        done = await lab.task(task)
        assert done.status is TaskStatus.SUCCESS, done.fail_message
        assert lab.world.persistent.get(ATTRIBUTES) == theirs


async def test_awareness_is_not_turned_on_where_nodes_are_not_where_they_were_to_be(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab, A, SPREAD))

        def gather(event: Event) -> None:
            lab.world.write()
            if event == Event("journaled", task.total[-1], 12):
                for node in lab.world.nodes.values():
                    node.zone = A

        await lab.drive(gather)
        assert f"not kept apart by zone: data nodes are in {A} only" in ((await lab.task(task)).fail_message or "")
        assert lab.world.persistent == {}


@pytest.mark.parametrize("order", [0, 11])
async def test_awareness_stays_off_when_the_task_fails(fast_home: Path, order: int) -> None:
    async with open_lab(fast_home, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab, A, SPREAD))

        def fail(event: Event) -> None:
            if event == Event("begun", task.total[-1], order):
                raise DriverError("planted")

        await lab.drive(fail)
        assert (await lab.task(task)).status is TaskStatus.FAILED
        assert lab.world.persistent == {}
        await lab.service.retry(task.id)
        await lab.drive()
        assert lab.world.persistent == {ATTRIBUTES: "zone"}
        assert_apart(lab)


def room(copies: int, nodes: Sequence[str], forced: Sequence[str]) -> int:
    """Copies of one shard that have a place on data nodes in these zones, as the engine's decider counts."""
    most = -(-copies // len({*nodes, *forced}))
    return sum(min(count, most) for count in Counter(nodes).values())


ZONES = st.sampled_from([A, B, C, D])


@given(st.lists(ZONES, min_size=1, max_size=9), st.data(), st.integers(1, 6))
def test_the_list_as_held_takes_no_place_from_a_copy(zones: list[str], data: st.DataObject, copies: int) -> None:
    """At each moment, with all nodes and with the one away that moves, and at the end, copies have as many places as
    the nodes alone give them: whoever has a place before and at the end lacks it meanwhile for want of nodes at most.
    """
    made = make_cluster("p" * 32, len(zones), (A,)).nodes
    where = dict(zip((node.name for node in made), zones, strict=True))
    forced = tuple(data.draw(st.lists(st.sampled_from(sorted({*zones})), unique=True, min_size=1)))
    target = data.draw(st.lists(ZONES, min_size=1, max_size=4, unique=True))
    nodes = [replace(node, zone=where[node.name]) for node in made]
    moves = spread(nodes, target)
    end = where | moves
    change = ForcedZones(
        tuple(zone for zone in forced if zone not in end.values()),
        tuple(sorted({*end.values()} - {*zones} - {*forced})),
    )
    held = change.during(forced)
    final = change.after(forced, {*end.values()})
    assert final == change.after(final, {*end.values()}), "asked again after a crash it is the same"
    assert room(copies, [*end.values()], final) == room(copies, [*end.values()], ())
    assert {*end.values(), *final} == {*end.values(), *held}, "it counts no more zones, so nothing moves for it"
    moments = [where]
    for mover in moves:
        moments.append(moments[-1] | {mover: moves[mover]})
    for at, mover in zip([where, *moments], [None, *moves, None], strict=True):
        present = [zone for name, zone in at.items() if name != mover]
        if present:
            assert room(copies, present, held) == room(copies, present, ())
            assert room(copies, present, held) >= room(copies, present, forced)
