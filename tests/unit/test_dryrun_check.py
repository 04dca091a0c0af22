"""`check` end to end on a simulated cluster: the model, the engine's own word, the answer and what is printed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from shardlift.allocation import build_state, objections
from shardlift.api.documents import check_document
from shardlift.api.native_schemas import CheckAnswer
from shardlift.cli.forecast import print_forecast
from shardlift.errors import EngineError, RefusedError
from shardlift.model import Severity, Strategy
from shardlift.planner import draft_plan, forecast
from shardlift.service.requests import CheckReport, UpgradeRequest
from shardlift.sim import FastClock, IndexSpec, build_world
from shardlift.sim.backend import SimBackend
from shardlift.sim.deciders import verdicts
from tests.observations import subject
from tests.worlds import NEW, OLD, Lab, make_cluster, open_lab

AWARE = "cluster.routing.allocation.awareness.attributes"


async def check(lab: Lab, strategy: Strategy = Strategy.DRAIN) -> CheckReport:
    return await lab.service.check(UpgradeRequest(cluster_id=lab.cluster.id, image=NEW.id, strategy=strategy))


def mine(report: CheckReport) -> list[tuple[Severity, str]]:
    return [(one.severity, one.reason) for one in report.findings if one.rule == "drain_can_end"]


async def test_check_foretells_every_node_and_changes_nothing(fast_home: Path):
    async with open_lab(fast_home) as lab:
        report = await check(lab)
        assert mine(report) == []
        assert report.plan is not None
        assert report.forecast is not None
        assert [node.name for node in report.forecast.nodes] == [node.name for node in report.plan.nodes]
        assert report.forecast.copies >= len(lab.world.copies)
        assert lab.world.effects == []
        assert not lab.world.persistent
        assert not lab.world.transient


async def test_an_index_bound_to_a_node_is_refused_and_the_remedy_helps(fast_home: Path):
    key = "index.routing.allocation.require._name"
    async with open_lab(fast_home) as lab:
        for copy in list(lab.world.copies):
            if copy.index == "index-0" and not copy.primary:
                lab.world.copies.remove(copy)
        lab.world.index_groups()
        index = lab.world.indices["index-0"]
        index.replicas, index.settings[key] = 0, lab.cluster.nodes[0].name
        report = await check(lab)
        assert report.plan is None
        assert report.forecast is not None
        assert {severity for severity, _ in mine(report)} == {Severity.BLOCK}
        finding = next(one for one in report.findings if one.rule == "drain_can_end")
        assert f'PUT index-0/_settings {{"{key}": null}}' in finding.remedy
        with pytest.raises(RefusedError, match="cannot go to"):
            await lab.submit()
        del index.settings[key]
        assert (await check(lab)).plan is not None


async def test_what_the_engine_would_not_do_is_told_though_the_model_says_yes(fast_home: Path):
    async with open_lab(fast_home) as lab:
        report = await check(lab)
        assert report.forecast is not None
        full = report.forecast.first_moves[0].target
        # Such as watermarks that only the engine knows of: it counts disks that were not observed as full.
        world, engine = lab.world, lab.service.backend.engine
        seen = await engine(lab.cluster).observe()
        world.nodes[full].filler_bytes = world.nodes[full].disk_bytes
        stale = engine(lab.cluster)
        stale.observe = lambda: _answer(seen)  # type: ignore[method-assign]
        lab.service.backend.engine = lambda _cluster: stale  # type: ignore[method-assign]
        report = await check(lab)
        told = mine(report)
        assert told
        assert all("the engine itself" in reason for _, reason in told)
        assert {severity for severity, _ in told} == {Severity.WARN}, "each copy has a started twin"
        assert report.plan is not None


async def _answer(seen: object) -> object:
    return seen


async def test_an_engine_that_cannot_be_asked_is_only_a_warning(fast_home: Path):
    async with open_lab(fast_home) as lab:
        engine = lab.service.backend.engine(lab.cluster)

        async def fails(_moves: object) -> object:
            raise EngineError("no node answers")

        engine.try_moves = fails  # type: ignore[method-assign]
        lab.service.backend.engine = lambda _cluster: engine  # type: ignore[method-assign]
        report = await check(lab)
        assert [severity for severity, _ in mine(report)] == [Severity.WARN]
        assert report.plan is not None


async def test_the_answer_is_bounded_and_documented(fast_home: Path):
    async with open_lab(fast_home) as lab:
        report = await check(lab)
    answer = CheckAnswer.model_validate(check_document(report), extra="forbid")
    assert answer.forecast is not None
    assert answer.forecast.ends
    assert len(answer.forecast.nodes) == 3


def test_the_forecast_is_printed_node_by_node_with_totals(capsys: pytest.CaptureFixture[str]):
    asked = subject()
    plan = draft_plan(asked)
    print_forecast(forecast(asked, plan), plan)
    printed = capsys.readouterr().out
    for node in plan.nodes:
        assert node.name in printed
    assert "copies to move" in printed
    assert "30 B" in printed
    assert "11% of 1000 B" in printed


MIXES = [
    {},
    {"index.replication.type": "SEGMENT"},
    {"index.routing.allocation.total_shards_per_node": "2"},
    {"index.routing.allocation.require._name": "lab-1-ess-esn-2-1"},
    {"index.routing.allocation.include.zone": "zone-a"},
    {"index.routing.allocation.exclude._ip": "127.77.0.1,127.77.0.4"},
    {"index.routing.allocation.enable": "primaries"},
]


@pytest.mark.parametrize("own", MIXES, ids=lambda own: next(iter(own), "none").rpartition(".")[2])
@pytest.mark.parametrize("aware", [False, True])
async def test_the_model_and_the_simulator_object_alike(own: dict[str, str], aware: bool):
    """Two accounts of the same deciders, written apart: any difference is a mistake in one of them."""
    cluster = make_cluster("p" * 32, 5, ("zone-a", "zone-b"))
    world = build_world(cluster, FastClock(100), indices=[IndexSpec("books", 3, 1, 2**30)])
    world.indices["books"].settings.update(own)
    if aware:
        world.persistent[AWARE] = "zone"
    for name in [node.name for node in cluster.nodes][1::2]:
        world.nodes[name].version = NEW.version
    world.nodes[cluster.nodes[2].name].filler_bytes = 90_000 * 2**20
    seen = await SimBackend(world, (OLD, NEW)).engine(cluster).observe()
    state = build_state(seen, cluster.nodes, (True, NEW.version))
    for copy, place in itertools.product(world.copies, state.places.values()):
        if place.name == copy.node:
            continue
        group = state.groups[copy.group]
        modelled = next(one for one in group.copies if one.place is not None and one.place.name == copy.node)
        said = {one.decider for one in objections(state, modelled, place)}
        simulated = {one.decider for one in verdicts(world, copy, world.nodes[place.name]) if one.verdict == "NO"}
        assert said == simulated, (copy.group, copy.primary, copy.node, place.name)
