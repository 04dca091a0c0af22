"""Changes of zones, replacements and restarts on the simulated cluster: what is planned, done, and left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.errors import BusyError, NotFoundError, RefusedError, UsageError
from shardlift.executor import Event
from shardlift.model import AWARE_OF, InstanceType, Task, TaskKind, TaskStatus
from shardlift.planner import spread
from shardlift.service.requests import MigrateRequest, ReplaceRequest, RestartRequest
from shardlift.store import Journal
from tests.worlds import NEW, OLD, Crash, Lab, make_cluster, open_lab

pytestmark = pytest.mark.walks

VIRTUAL_TIME = True
A, B, C = "zone-a", "zone-b", "zone-c"


async def assert_done(lab: Lab, task: Task, settings: Mapping[str, str] | None = None) -> Task:
    """All that must be true after a success, whatever it was about."""
    done = await lab.task(task)
    assert done.status is TaskStatus.SUCCESS, done.fail_message
    assert done.completed == done.total
    assert lab.world.lost() == {}
    assert (lab.world.persistent, lab.world.transient, lab.world.voting_excluded) == (settings or {}, {}, set())
    twice = {pair: count for pair, count in Counter(lab.world.effects).items() if count > 1}
    assert twice == {}, "a sub-step was done twice on a host"
    after = await lab.service.cluster(lab.cluster.id)
    same = [(node.id, node.name, node.address) for node in lab.cluster.nodes]
    assert [(node.id, node.name, node.address) for node in after.nodes] == same
    assert {node.name: node.zone for node in after.nodes} == {node.name: node.zone for node in lab.world.nodes.values()}
    assert after.image_id == OLD.id
    assert after.busy_with is None
    return done


def migrate(lab: Lab, source: str = A, target: str = C, **more: str) -> MigrateRequest:
    return MigrateRequest(lab.cluster.id, source, target, **more)  # type: ignore[arg-type]


async def test_all_nodes_of_a_zone_move_with_their_data(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A, B, C)) as lab:
        task = await lab.service.migrate(migrate(lab, A, "zone-d"))
        moving = {node.name for node in lab.cluster.nodes if node.zone == A}
        assert (task.kind, {*task.total}) == (TaskKind.AZ_MIGRATION, moving)
        await lab.drive(lambda _event: lab.world.write())
        done = await assert_done(lab, task)
        assert {name for name, node in lab.world.nodes.items() if node.zone == "zone-d"} == moving
        assert {*lab.effects_of("stop")} == moving
        assert {*lab.effects_of("set aside")} == moving, "the data path is a new one"
        assert done.plan.zones is not None
        assert dict(done.plan.zones.final)["zone-d"] == tuple(
            node.name for node in lab.cluster.nodes if node.name in moving
        )


async def test_a_zone_moves_there_and_back_where_forced_zones_left_as_they_are_would_leave_no_place(
    fast_home: Path,
) -> None:
    key = "cluster.routing.allocation.awareness."
    async with open_lab(fast_home, nodes=6, zones=(A, B), replicas=2) as lab:
        lab.world.put_cluster_setting("persistent", key + "attributes", "zone")
        lab.world.put_cluster_setting("persistent", key + "force.zone.values", f"{A},{B}")
        for source, target in ((A, C), (C, A)):
            report = await lab.service.check_move(migrate(lab, source, target))
            assert report.forecast is not None
            assert report.forecast.waiting == 0, "no copy is told to be without a place in the end"
            task = await lab.service.migrate(migrate(lab, source, target))
            await lab.drive(lambda _event: lab.world.write())
            assert (await lab.task(task)).status is TaskStatus.SUCCESS
            assert lab.world.persistent[key + "force.zone.values"] == f"{B},{target}"
            assert lab.world.lost() == {}
            assert not lab.world.routing.unassigned()
            assert Counter(node.zone for node in lab.world.nodes.values()) == {B: 3, target: 3}


async def test_nodes_are_dealt_over_several_zones(fast_home: Path) -> None:
    async with open_lab(fast_home, nodes=6, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab, A, f"{A},{B},{C}", migrate_type="multi_az_change"))
        assert len(task.total) == 4
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task, {AWARE_OF: "zone"})
        assert Counter(node.zone for node in lab.world.nodes.values()) == {A: 2, B: 2, C: 2}


@pytest.mark.parametrize("order", range(13))
async def test_a_move_goes_on_after_a_crash_behind_each_sub_step(fast_home: Path, order: int) -> None:
    async with open_lab(fast_home, zones=(A,)) as lab:
        task = await lab.service.migrate(migrate(lab))
        first = task.total[0]

        def crash(event: Event) -> None:
            lab.world.write()
            if (event.what, event.node, event.order) == ("acted", first, order):
                raise Crash

        with pytest.raises(Crash):
            await lab.drive(crash)
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert {node.zone for node in lab.world.nodes.values()} == {C}


async def test_a_node_is_replaced_and_its_data_leaves_it_before(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        name = lab.cluster.nodes[1].name
        task = await lab.service.replace(ReplaceRequest(lab.cluster.id, lab.cluster.nodes[1].id))
        assert (task.kind, task.total, task.plan.nodes[0].drained) == (TaskKind.REPLACING, (name,), True)
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert lab.effects_of("set aside") == [name]


async def test_without_migration_the_other_copies_fill_the_new_node(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        node = lab.cluster.nodes[1]
        task = await lab.service.replace(ReplaceRequest(lab.cluster.id, node.name, migrate_data=False))
        assert (task.plan.nodes[0].drained, task.plan.nodes[0].fresh_data) == (False, True)
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert lab.world.copies_on(node.name)


async def test_without_migration_no_last_copy_is_thrown_away(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        held = next(node for node in lab.cluster.nodes if lab.world.copies_on(node.name))
        with pytest.raises(RefusedError) as refused:
            await lab.service.replace(ReplaceRequest(lab.cluster.id, held.id, migrate_data=False))
        assert "last_started_copy" in {finding.rule for finding in refused.value.findings}
        await lab.service.replace(ReplaceRequest(lab.cluster.id, held.id))


@pytest.mark.parametrize("migrate_data", [True, False])
async def test_a_dead_node_is_replaced(fast_home: Path, migrate_data: bool) -> None:
    async with open_lab(fast_home) as lab:
        node = lab.cluster.nodes[2]
        lab.world.kill_node(node.name)
        await lab.clock.sleep(200)
        task = await lab.service.replace(ReplaceRequest(lab.cluster.id, node.id, migrate_data=migrate_data))
        assert (task.plan.nodes[0].repair, task.plan.nodes[0].drained) == (True, False), "nothing can leave it any more"
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert lab.world.nodes[node.name].working


async def test_a_restart_keeps_everything_but_the_process(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        before = {name: (node.node_id, node.pid) for name, node in lab.world.nodes.items()}
        task = await lab.service.restart(RestartRequest(lab.cluster.id))
        assert (task.kind, len(task.total)) == (TaskKind.REBOOTING, 3)
        await lab.drive(lambda _event: lab.world.write())
        await assert_done(lab, task)
        assert {what for what, _ in lab.world.effects} == {"stop", "start"}
        for name, node in lab.world.nodes.items():
            assert node.node_id == before[name][0]
            assert node.pid != before[name][1]


async def test_some_nodes_are_restarted(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A, B, C)) as lab:
        first = lab.cluster.nodes[0]
        by_id = await lab.service.restart(RestartRequest(lab.cluster.id, "node", first.id))
        assert by_id.total == (first.name,)
        await lab.drive()
        by_zone = await lab.service.restart(RestartRequest(lab.cluster.id, "az", f"{A},{B}"))
        assert len(by_zone.total) == 2


async def test_a_restart_takes_no_last_copy_away(fast_home: Path) -> None:
    async with open_lab(fast_home, replicas=0) as lab:
        with pytest.raises(RefusedError, match="cannot have nodes restarted now"):
            await lab.service.restart(RestartRequest(lab.cluster.id))


async def test_what_is_asked_for_wrongly_is_told(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A, B, C)) as lab:
        service = lab.service
        for request, field in (
            (migrate(lab, "no such", B), "source_az"),
            (migrate(lab, "zone-x", B), "source_az"),
            (migrate(lab, A, A), "target_az"),
            (migrate(lab, A, "b!"), "target_az"),
            (migrate(lab, A, B, inst_type="ess-warm"), "inst_type"),
            (migrate(lab, A, B, inst_type="ess-cold"), "source_az"),
            (migrate(lab, A, B, migrate_type="x"), "migrate_type"),
            (migrate(lab, f"{A},{B}", C), "source_az"),
            (migrate(lab, A, f"{A},{B},{C}", migrate_type="multi_az_change"), "target_az"),
        ):
            with pytest.raises(UsageError) as error:
                await service.migrate(request)
            assert (error.value.field, bool(error.value.remedy)) == (field, True), request
        with pytest.raises(NotFoundError):
            await service.replace(ReplaceRequest(lab.cluster.id, "nobody"))
        for by, value, field in (("rack", "all", "type"), ("role", "warm", "value"), ("node", "x", "value")):
            with pytest.raises(UsageError) as error:
                await service.restart(RestartRequest(lab.cluster.id, by, value))
            assert error.value.field == field


async def test_zones_that_there_are_can_be_told(fast_home: Path) -> None:
    async with open_lab(fast_home, zones=(A, B)) as lab:
        lab.service.settings = lab.service.settings.model_copy(update={"zones": f"{A},{B}"})
        with pytest.raises(NotFoundError, match="there is no zone zone-c"):
            await lab.service.migrate(migrate(lab, A, C))


async def test_one_thing_at_a_time_and_no_move_of_a_half_upgraded_cluster(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        task = await lab.service.restart(RestartRequest(lab.cluster.id))
        with pytest.raises(BusyError, match="REBOOTING"):
            await lab.service.migrate(migrate(lab))
        await lab.service.abort(task.id)
        await lab.drive()
        ended = await lab.task(task)
        assert ended.status is TaskStatus.FAILED
        assert "0 of 3 nodes are restarted" in (ended.fail_message or "")
        lease = await lab.service.leases.claim(lab.cluster.id)
        assert lease is not None
        await Journal(lab.service.store.database, lease).node_switched(lab.cluster.nodes[0].id, NEW.id, None)
        await lab.service.leases.release(lease)
        with pytest.raises(RefusedError, match="2 different images"):
            await lab.service.restart(RestartRequest(lab.cluster.id))


@given(
    st.lists(st.sampled_from([A, B, C, "zone-d"]), min_size=1, max_size=12),
    st.lists(st.sampled_from([A, B, C, "zone-d"]), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(list(InstanceType)), min_size=12, max_size=12),
)
def test_nodes_are_spread_evenly_and_as_few_as_can_be_move(
    zones: list[str], target: list[str], types: list[InstanceType]
) -> None:
    made = make_cluster("p" * 32, len(zones), (A,)).nodes
    nodes = [replace(node, zone=zone, instance_type=kind) for node, zone, kind in zip(made, zones, types, strict=False)]
    moves = spread(nodes, target)
    for kind in InstanceType:
        mine = [node for node in nodes if node.instance_type is kind]
        after = Counter(moves.get(node.name, node.zone) for node in mine)
        assert {*after} <= {*target}
        counts = [after[zone] for zone in target]
        assert max(counts) - min(counts) <= 1
        now = Counter(node.zone for node in mine)
        least, odd = divmod(len(mine), len(target))
        wanted = sorted((now[zone] for zone in target), reverse=True)
        stay = sum(min(count, least + (at < odd)) for at, count in enumerate(wanted))
        assert sum(node.name in moves for node in mine) == len(mine) - stay
    assert all(moves[node.name] != node.zone for node in nodes if node.name in moves)
