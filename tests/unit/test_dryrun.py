"""The dry run of a plan: every move legal, every copy accounted for, every obstacle with a remedy that helps."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.checks import Subject
from shardlift.model import (
    ClusterSettings,
    CopyState,
    EngineKind,
    Forecast,
    IndexSeen,
    Move,
    Severity,
    ShardCopy,
    Strategy,
    Version,
)
from shardlift.planner import draft_plan, forecast, plan_and_forecast
from tests.clusters import AWARE, ROUTING, Naive, many
from tests.observations import CLUSTER, NAMES, NEW, copy, index, member, subject

A, B, C = NAMES
SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"index.replication.type": "SEGMENT"},
    {f"{ROUTING}total_shards_per_node": "1"},
    {f"{ROUTING}total_shards_per_node": "2"},
    {f"{ROUTING}require.zone": "zone-0"},
    {f"{ROUTING}exclude._name": "node-0,node-2"},
    {"index.auto_expand_replicas": "0-all"},
    {"index.auto_expand_replicas": "0-1"},
)


@st.composite
def subjects(draw: st.DrawFn) -> Subject:
    count = draw(st.integers(3, 7))
    names = [f"node-{at}" for at in range(count)]
    nodes, members = many(names, draw(st.integers(1, 3)))
    members = tuple(replace(one, disk_available_bytes=draw(st.sampled_from([900, 300, 200, 900]))) for one in members)
    shards: list[ShardCopy] = []
    indices: list[IndexSeen] = []
    for at in range(draw(st.integers(1, 5))):
        own = draw(st.sampled_from(SETTINGS))
        primaries, replicas = draw(st.integers(1, 3)), draw(st.integers(0, min(2, count - 1)))
        indices.append(index(f"i{at}", primaries=primaries, replicas=replicas, settings=own))
        for shard in range(primaries):
            homes = draw(st.permutations(names))[: replicas + 1]
            size = draw(st.integers(0, 40))
            shards += [
                copy(home, primary=number == 0, index=f"i{at}", shard=shard, size_bytes=size)
                for number, home in enumerate(homes)
            ]
    aware = ClusterSettings(persistent=AWARE if draw(st.booleans()) else {})
    observed = replace(
        subject().seen, nodes=members, elected=names[-1], shards=tuple(shards), indices=tuple(indices), settings=aware
    )
    return Subject(seen=observed, cluster=replace(CLUSTER, nodes=nodes), image=NEW, strategy=Strategy.DRAIN)


@settings(max_examples=300)
@given(subjects())
def test_every_move_is_legal_at_its_moment_and_no_copy_is_forgotten(asked: Subject):
    plan = draft_plan(asked)
    naive = Naive(asked, plan)
    told = forecast(asked, plan, naive.move)
    assert not naive.wrong
    assert told == forecast(asked, plan), "the same input gives the same forecast"
    assert sum(node.copies for node in told.nodes) == naive.moves
    first = told.nodes[0]
    assert first.copies + first.kept + first.held + first.dropped == len(asked.seen.copies_on(first.name))
    if told.ends and not told.stuck and not any(node.dropped for node in told.nodes):
        assert not naive.ended, "a node was left with copies on it"
        assert told.waiting == 0


@settings(max_examples=200)
@given(subjects())
def test_a_copy_is_called_stuck_only_when_the_naive_judge_finds_no_place_either(asked: Subject):
    plan = draft_plan(asked)
    plan = replace(plan, batches=plan.batches[:1])
    naive = Naive(asked, plan)
    told = forecast(asked, plan, naive.move)
    for stuck in told.stuck:
        for shard in stuck.shards:
            if stuck.node not in naive.where[stuck.index, shard]:
                continue
            for target in naive.members:
                if target != stuck.node:
                    assert naive.objection(Move(stuck.index, shard, stuck.node, target)), (stuck, shard, target)


def told_of(**given: object) -> tuple[Forecast, list[str], str]:
    """The forecast, severities of its findings, and the first finding's text."""
    plan, told, findings = plan_and_forecast(subject(**given))
    assert told is not None
    mine = [finding for finding in findings if finding.rule == "drain_can_end"]
    if any(finding.severity is Severity.BLOCK for finding in findings):
        assert plan is None
    return told, [str(finding.severity) for finding in mine], str(mine[0]) if mine else ""


ALONE = (copy(A, primary=True),)


def test_a_healthy_cluster_can_be_drained():
    told, severities, _ = told_of()
    assert told.ends
    assert severities == []
    assert [node.copies for node in told.nodes] == [1, 1, 1]
    assert told.size_bytes == 30
    assert told.first_moves == (Move("books", 0, B, C),)
    assert {peak.node: peak.used_bytes for peak in told.peaks} == {A: 100, B: 100, C: 110}


def test_an_index_required_on_the_node_blocks_with_the_request_that_frees_it():
    held = {f"{ROUTING}require._name": A}
    told, severities, text = told_of(indices=(index(replicas=0, settings=held),), shards=ALONE)
    assert not told.ends
    assert severities == ["block"]
    assert f'PUT books/_settings {{"{ROUTING}require._name": null}}' in text
    assert told_of(indices=(index(replicas=0),), shards=ALONE)[0].ends, "with it followed, the drain ends"


def test_a_copy_with_a_started_twin_that_stays_only_warns():
    three = (*ALONE, copy(B, primary=False), copy(C, primary=False))
    told, severities, text = told_of(indices=(index(replicas=2),), shards=three)
    assert told.ends
    assert severities == ["warn"] * 3
    assert "same_shard" in text
    assert [(node.kept, node.rebuilt) for node in told.nodes] == [(1, 1)] * 3
    assert told.waiting == 0


def test_a_twin_that_is_not_started_does_not_count():
    coming = CopyState.INITIALIZING
    twins = (copy(A, primary=False, state=coming), copy(C, primary=False, state=coming))
    told, severities, _ = told_of(indices=(index(replicas=2),), shards=(copy(B, primary=True), *twins))
    assert not told.ends, "B is taken first"
    assert severities[0] == "block"


@pytest.mark.parametrize("value", ["1", "2"])
def test_too_low_a_limit_of_shards_per_node_is_named_with_one_that_does(value: str):
    shards = tuple(copy(node, primary=True, shard=at) for at, node in enumerate([A, B, C] * int(value)))
    key = f"{ROUTING}total_shards_per_node"
    limited = index(primaries=len(shards), replicas=0, settings={key: value})
    told, severities, text = told_of(indices=(limited,), shards=shards)
    assert not told.ends
    assert severities == ["block"] * 3
    found = re.search(r"PUT books/_settings (\{[^}]*\})", text)
    assert found is not None
    followed = replace(limited, settings={key: str(json.loads(found[1])[key])})
    assert told_of(indices=(followed,), shards=shards)[0].ends


def test_forced_awareness_with_one_zone_missing_and_one_node_in_the_zone():
    nodes = tuple(member(name, attributes={"zone": zone}) for name, zone in zip(NAMES, "112", strict=True))
    told, severities, text = told_of(
        nodes=nodes, shards=(*ALONE, copy(C, primary=False)), settings=ClusterSettings(persistent=AWARE)
    )
    assert told.ends, "the twin in the other zone stays"
    assert "warn" in severities
    assert "awareness" in text
    assert "number_of_replicas" in text


def test_a_closed_index_that_does_not_move_blocks_with_open():
    told, severities, text = told_of(indices=(index(replicas=0, closed=True),), shards=ALONE)
    assert not told.ends
    assert severities == ["block"]
    assert "POST books/_open" in text


def test_allocation_disabled_is_told_once_for_each_copy_with_the_request():
    off = ClusterSettings(transient={"cluster.routing.allocation.enable": "none"})
    _, severities, text = told_of(indices=(index(replicas=0),), shards=ALONE, settings=off)
    assert severities == ["block"]
    assert 'PUT _cluster/settings {"transient": {"cluster.routing.allocation.enable": null}}' in text


def test_the_last_node_of_a_tier_cannot_be_drained():
    elder = {"version": "8.18.0", "engine": EngineKind.ELASTICSEARCH}
    nodes = tuple(
        member(name, roles=frozenset({tier, "master"}), **elder)
        for name, tier in zip(NAMES, ("data_warm", "data_hot", "data_hot"), strict=True)
    )
    warm = index(replicas=0, settings={f"{ROUTING}include._tier_preference": "data_warm,data_hot"})
    _, severities, text = told_of(nodes=nodes, indices=(warm,), shards=ALONE)
    assert severities == ["block"]
    assert "data_tier" in text


def test_an_index_on_all_nodes_shrinks_and_grows_again():
    everywhere = index(replicas=2, settings={"index.auto_expand_replicas": "0-all"})
    shards = (*ALONE, copy(B, primary=False), copy(C, primary=False))
    told, severities, _ = told_of(indices=(everywhere,), shards=shards)
    assert severities == []
    assert [(node.dropped, node.rebuilt) for node in told.nodes] == [(1, 1)] * 3
    assert told.waiting == 0


def drained_first(node: str, **given: object) -> tuple[Forecast, dict[str, str]]:
    """The dry run of that node alone, and where the copies of each index on it go."""
    moves: list[Move] = []
    asked = subject(**given)
    batches = tuple(batch for batch in draft_plan(asked).batches if batch[0].name == node)
    told = forecast(asked, replace(draft_plan(asked), batches=batches), moves.append)
    return told, {move.index: move.target for move in moves}


def test_one_exchange_is_tried_before_a_copy_is_called_stuck():
    """The large copy fits on B alone; the small one, which has gone there first, is sent to C instead."""
    nodes = (member(A), member(B, disk_available_bytes=190), member(C, disk_available_bytes=170))
    indices = (
        index("small", replicas=0, settings={f"{ROUTING}exclude._name": "nobody"}),
        index("large", replicas=0),
    )
    shards = (copy(A, primary=True, index="small", size_bytes=15), copy(A, primary=True, index="large", size_bytes=35))
    told, targets = drained_first(A, nodes=nodes, indices=indices, shards=shards)
    assert not told.stuck
    assert targets == {"small": C, "large": B}


def test_a_node_with_too_little_room_for_most_copies_still_takes_a_small_one():
    nodes = (member(A), member(B, disk_available_bytes=165), member(C, disk_available_bytes=180))
    indices = tuple(index(name, replicas=0) for name in ("large", "middle", "small"))
    shards = (
        copy(C, primary=True, index="large", size_bytes=200),
        copy(A, primary=True, index="middle", size_bytes=30),
        copy(A, primary=True, index="small", size_bytes=10),
    )
    told, targets = drained_first(A, nodes=nodes, indices=indices, shards=shards)
    assert not told.stuck
    assert targets == {"middle": C, "small": B}


def test_a_node_that_came_back_has_another_id():
    """Bound by id to two nodes, the copy can leave the first of them, but not the second for the first again."""
    names = ["node-a", "node-b", "node-c", "node-d"]
    nodes, members = many(names, 1)
    bound = index("bound", replicas=0, settings={f"{ROUTING}include._id": "id-node-c,id-node-d"})
    other = index("other", replicas=0)
    shards = (copy("node-b", primary=True, index="bound"), copy("node-c", primary=True, index="other", size_bytes=50))
    told, severities, text = told_of(
        cluster=replace(CLUSTER, nodes=nodes), nodes=members, elected="node-a", indices=(bound, other), shards=shards
    )
    assert [(node.name, node.copies, node.held) for node in told.nodes] == [
        ("node-b", 1, 0),
        ("node-c", 1, 0),
        ("node-d", 0, 1),
        ("node-a", 0, 0),
    ]
    assert severities == ["block"]
    assert "include._id" in text


def test_a_node_that_is_out_comes_first_and_takes_what_waits():
    shards = (copy(A, primary=True), copy(None, primary=False, unassigned_reason="NODE_LEFT"))
    told, _, _ = told_of(nodes=(member(A), member(B)), shards=shards)
    assert told.nodes[0].name == C
    assert [node.rebuilt for node in told.nodes] == [1, 0, 0]
    assert told.waiting == 0


def test_a_red_shard_is_not_made_again_from_nothing():
    told, _, _ = told_of(shards=(copy(None, primary=True), copy(B, primary=False)))
    assert told.waiting == 1
    assert not any(node.rebuilt for node in told.nodes)


def test_in_place_copies_wait_and_those_alone_are_counted():
    told, severities, _ = told_of(strategy=Strategy.IN_PLACE, shards=(*ALONE, copy(B, primary=False, shard=1)))
    by_name = {node.name: node for node in told.nodes}
    assert (by_name[A].waiting, by_name[A].alone) == (1, 1)
    assert told.size_bytes == 0
    assert severities == [], "last_started_copy says it"


def test_nothing_to_do_has_no_forecast():
    nodes = tuple(replace(node, image_id=NEW.id) for node in CLUSTER.nodes)
    plan, told, findings = plan_and_forecast(subject(cluster=replace(CLUSTER, nodes=nodes)))
    assert plan is None
    assert told is None
    assert findings


def test_many_obstacles_are_told_in_a_few_findings():
    indices = tuple(index(f"i{at}", replicas=0, settings={f"{ROUTING}require._name": A}) for at in range(300))
    shards = tuple(copy(A, primary=True, index=one.name, size_bytes=0) for one in indices)
    told, severities, _ = told_of(indices=indices, shards=shards)
    assert len(severities) == 21
    assert (len(told.stuck), told.unlisted_held) == (100, 200)
    assert not told.ends


def test_a_replica_goes_to_no_node_older_than_its_primarys():
    """Primary on the one upgraded node, twin on an old one: the twin has nowhere to go, and need not."""
    nodes = (member(A, "3.4.0"), member(B), member(C))
    cluster = replace(
        CLUSTER, nodes=tuple(replace(node, image_id=NEW.id) if node.name == A else node for node in CLUSTER.nodes)
    )
    told, severities, text = told_of(nodes=nodes, cluster=cluster)
    assert nodes[0].version > Version(3, 0, 0)
    assert severities == ["warn"]
    assert "node_version" in text
    assert [(node.kept, node.rebuilt) for node in told.nodes] == [(1, 1), (0, 0)]
