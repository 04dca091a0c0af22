"""Several nodes that can be elected taken together: when that is safe, whatever the cluster, and that rules say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.checks import Subject, check_batches, check_node
from shardlift.checks.members import expected_masters
from shardlift.checks.votes import masters_at_once
from shardlift.model import (
    Cluster,
    ClusterSettings,
    EngineKind,
    Finding,
    Node,
    NodeSeen,
    Severity,
    Strategy,
    Version,
    VotingSeen,
)
from shardlift.planner import make_batches, plan_upgrade
from tests.observations import NEW, member, subject
from tests.worlds import make_cluster

ZONES = ("zone-a", "zone-b", "zone-c")
PLAIN = frozenset({"data", "ingest", "cluster_manager"})
DATA, MASTER, CLIENT = frozenset({"data"}), frozenset({"cluster_manager"}), frozenset({"ingest"})
HOT, WARM = PLAIN | {"data_hot"}, PLAIN | {"data_warm"}
ES = EngineKind.ELASTICSEARCH


def subject_of(*roles: frozenset[str], zones: Sequence[str] = ZONES, elected: int = 0, **more: object) -> Subject:
    """As many nodes as there are roles, dealt to the zones in turn, without shards."""
    cluster = make_cluster("p" * 32, len(roles), tuple(zones))
    nodes = tuple(
        member(node.name, roles=own, attributes={"zone": node.zone})
        for node, own in zip(cluster.nodes, roles, strict=True)
    )
    made: dict[str, object] = {
        "nodes": nodes,
        "elected": nodes[elected].name,
        "shards": (),
        "indices": (),
        "cluster": cluster,
        "budget": 9,
        "batch_size": 9,
    }
    return subject(Strategy.IN_PLACE, **{**made, **more})


def blocking(findings: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.severity is Severity.BLOCK}


def at_once(asked: Subject) -> int:
    return masters_at_once(asked, expected_masters(asked))


@pytest.mark.parametrize(
    ("masters", "most"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 3), (8, 3), (9, 4), (40, 10)]
)
def test_as_many_as_leave_a_majority_of_an_odd_number_and_three(masters: int, most: int) -> None:
    """Up to ten: so many exclusions from voting an engine takes."""
    asked = subject_of(*[PLAIN] * masters)
    assert at_once(asked) == most
    nodes = asked.cluster.nodes
    for number in range(2, masters):
        found = check_batches(replace(asked, budget=masters), (nodes[:number],))
        assert ("one_master_at_a_time" not in blocking(found)) is (number <= most)


@pytest.mark.parametrize(
    ("changed", "most"),
    [
        ({}, 2),
        ({"settings": ClusterSettings({"cluster.auto_shrink_voting_configuration": "false"})}, 1),
        ({"settings": ClusterSettings(defaults={"cluster.auto_shrink_voting_configuration": "false"})}, 1),
        ({"settings": ClusterSettings({"cluster.auto_shrink_voting_configuration": "true"})}, 2),
        ({"settings": ClusterSettings({"cluster.max_voting_config_exclusions": "1"})}, 1),
    ],
)
def test_one_where_the_configuration_does_not_shrink(changed: dict[str, object], most: int) -> None:
    assert at_once(subject_of(*[PLAIN] * 6, **changed)) == most


def test_one_while_elasticsearch_6_is_there() -> None:
    asked = subject_of(*[PLAIN] * 6, voting=None)
    elder = [replace(node, engine=ES, version=Version(6, 8, 23)) for node in asked.seen.nodes]
    assert at_once(replace(asked, seen=replace(asked.seen, nodes=tuple(elder)))) == 1
    mixed = tuple(replace(node, engine=ES, version=Version(7, 10, 2)) for node in asked.seen.nodes)
    assert at_once(replace(asked, seen=replace(asked.seen, nodes=mixed))) == 2
    assert at_once(replace(asked, seen=replace(asked.seen, nodes=(*mixed[1:], elder[0])))) == 1


@pytest.mark.parametrize(("full", "only_vote", "most"), [(5, 0, 2), (4, 1, 1), (4, 2, 1), (5, 1, 2), (6, 1, 3)])
def test_nodes_that_only_vote_are_not_among_the_three_that_stay(full: int, only_vote: int, most: int) -> None:
    roles = [frozenset({"master", "data"})] * full + [frozenset({"master", "voting_only"})] * only_vote
    assert at_once(subject_of(*roles)) == most


def test_while_another_one_is_away_none_goes() -> None:
    asked = subject_of(*[PLAIN] * 7)
    out = asked.cluster.nodes[6]
    here = replace(asked, seen=replace(asked.seen, nodes=asked.seen.nodes[:6]))
    pair, rest = asked.cluster.nodes[:2], asked.cluster.nodes[2:4]
    assert "one_master_at_a_time" in blocking(check_batches(here, (pair, rest)))
    assert "one_master_at_a_time" in blocking(check_node(replace(here, node=pair[0], mates=frozenset({pair[1].name}))))
    assert "one_master_at_a_time" in blocking(check_node(replace(here, node=pair[0])))
    assert "one_master_at_a_time" not in blocking(check_batches(here, ((out,), pair, rest))), "it is mended first"


IDS = [f"id-lab-1-ess-esn-{at}-1" for at in range(1, 7)]


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        ({0, 1, 2, 3, 4}, True),  # three of five stay
        ({1, 2, 3, 4, 5}, True),
        ({0, 1, 2}, False),
        ({0, 2, 3}, True),
        ({2, 3, 4}, True),  # none of the two votes
        ({0, 1, 2, 3}, False),
    ],
)
def test_mates_count_against_the_configuration_in_force(config: set[int], *, allowed: bool) -> None:
    voting = VotingSeen(frozenset(IDS[at] for at in config), frozenset())
    asked = subject_of(*[PLAIN] * 6, voting=voting)
    first, second = asked.cluster.nodes[:2]
    for node, mate in ((first, second), (second, first)):
        found = check_node(replace(asked, node=node, mates=frozenset({mate.name}), budget=2))
        assert ("master_quorum" not in blocking(found)) is allowed


def test_the_last_old_masters_may_go_together_but_not_before_other_old_nodes() -> None:
    asked = subject_of(*[PLAIN] * 6, DATA)
    nodes, other = asked.cluster.nodes[:6], asked.cluster.nodes[6]
    pairs = [nodes[0:2], nodes[2:4], nodes[4:6]]
    assert "last_old_master" in blocking(check_batches(asked, [*pairs, [other]]))
    for order in ([[other], *pairs], [pairs[0], [other], *pairs[1:]], [*pairs[:2], [*pairs[2], other]]):
        assert "last_old_master" not in blocking(check_batches(asked, order))
    done = tuple(replace(node, version=NEW.version) for node in asked.seen.nodes[:4])
    late = replace(asked, seen=replace(asked.seen, nodes=(*done, *asked.seen.nodes[4:])))
    mates = frozenset({nodes[5].name})
    assert "last_old_master" in blocking(check_node(replace(late, node=nodes[4], mates=mates)))
    assert "last_old_master" not in blocking(check_node(replace(late, node=nodes[4])))


# what is planned


def planned(asked: Subject) -> list[set[str]]:
    plan, found = plan_upgrade(asked)
    assert plan is not None, found
    return [{node.name for node in batch} for batch in plan.batches]


@pytest.mark.parametrize("elected", range(6))
def test_six_plain_nodes_in_three_zones_are_three_pairs(elected: int) -> None:
    asked = subject_of(*[PLAIN] * 6, elected=elected, batch_size=2)
    batches = planned(asked)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert asked.seen.elected in batches[-1]
    plan, _ = plan_upgrade(asked)
    assert plan is not None
    assert plan.nodes[-1].name == asked.seen.elected


@pytest.mark.parametrize(
    ("roles", "zones", "sizes"),
    [
        ([PLAIN] * 3, ZONES[:1], [1, 1, 1]),
        ([PLAIN] * 4, ZONES[:2], [1, 1, 1, 1]),
        ([PLAIN] * 5, ZONES, [2, 2, 1]),
        ([PLAIN] * 6, ZONES[:2], [2, 1, 2, 1]),  # three of five votes would be too many
        ([PLAIN] * 7, ZONES, [2, 2, 3]),
        ([PLAIN] * 9, ZONES, [3, 3, 3]),
        ([DATA] * 6 + [MASTER] * 3, ZONES, [2, 2, 2, 1, 1, 1]),
        ([DATA] * 6 + [MASTER] * 3, ZONES[:1], [3, 3, 1, 1, 1]),
        ([DATA] * 6 + [MASTER] * 5, ZONES, [2, 2, 2, 2, 2, 1]),
        ([PLAIN] * 6 + [CLIENT], ZONES, [2, 2, 1, 2]),
        ([HOT, HOT, HOT, WARM, WARM, WARM] * 2, ZONES, [2] * 6),
    ],
)
def test_sizes_of_batches(roles: list[frozenset[str]], zones: tuple[str, ...], sizes: list[int]) -> None:
    leaders = [at for at, own in enumerate(roles) if own & MASTER]
    batches = planned(subject_of(*roles, zones=zones, elected=leaders[0]))
    assert sorted(map(len, batches)) == sorted(sizes)


# whatever the cluster

kinds = st.sampled_from([PLAIN, PLAIN, DATA, MASTER, CLIENT, HOT, WARM])
voters_only = st.just(frozenset({"cluster_manager", "voting_only"}))


@st.composite
def clusters(draw: st.DrawFn) -> Subject:
    """Plain nodes in up to three zones, or any roles and zones; all are there, and any that can be is the master."""
    alike = st.integers(3, 12).map(lambda count: [PLAIN] * count)
    roles = draw(st.one_of(alike, st.lists(st.one_of(kinds, kinds, kinds, voters_only), min_size=3, max_size=12)))
    zones = ZONES[: draw(st.integers(1, 3))]
    cluster = make_cluster("p" * 32, len(roles), zones)
    dealt = [zones[at % len(zones)] for at in range(len(roles))]
    places = draw(st.one_of(st.just(dealt), st.lists(st.sampled_from(zones), min_size=len(roles), max_size=len(roles))))
    nodes = tuple(replace(node, zone=zone) for node, zone in zip(cluster.nodes, places, strict=True))
    cluster = replace(cluster, nodes=nodes)
    seen = tuple(
        member(node.name, roles=own, attributes={"zone": node.zone}) for node, own in zip(nodes, roles, strict=True)
    )
    leaders = [node.name for node in seen if can_lead(node)]
    elected = draw(st.sampled_from(leaders)) if leaders else None
    return subject(
        Strategy.IN_PLACE,
        nodes=seen,
        elected=elected,
        shards=(),
        indices=(),
        cluster=cluster,
        batch_size=draw(st.integers(1, 8)),
    )


def can_lead(node: NodeSeen) -> bool:
    return "cluster_manager" in node.roles and "voting_only" not in node.roles


@settings(max_examples=200)
@given(clusters())
def test_after_any_batch_of_any_plan_those_that_stay_elect(asked: Subject) -> None:
    """Reckoned here in the plainest way, against whichever voters the engine may have chosen."""
    batches = make_batches(asked)
    votes = {node.name for node in asked.seen.nodes if "cluster_manager" in node.roles}
    lead = {node.name for node in asked.seen.nodes if can_lead(node)}
    size = len(votes) if len(votes) % 2 else len(votes) - 1
    for batch in batches:
        going = {node.name for node in batch} & votes
        if len(going) < 2:
            continue
        assert 2 * (size - len(going)) > size, "each of them has one of the votes, at worst"
        assert len(lead - going) >= 3
    if asked.seen.elected is not None:
        assert batches[-1][-1].name == asked.seen.elected, "mastership moves once"
        assert {node.name for node in batches[-1][:-1]} <= {node.name for node in asked.cluster.nodes}


@settings(max_examples=200)
@given(clusters(), st.data())
def test_whatever_votes_a_node_goes_with_its_mates_only_if_a_majority_stays(
    asked: Subject, data: st.DataObject
) -> None:
    """As the safety check asks, of any configuration, with others away."""
    names = [node.name for node in asked.seen.nodes]
    batch = data.draw(st.one_of(st.sampled_from(make_batches(asked)), st.lists(st.sampled_from(asked.cluster.nodes))))
    node: Node = data.draw(st.sampled_from(batch or asked.cluster.nodes))
    mates = frozenset(one.name for one in batch) - {node.name}
    away = data.draw(st.just(frozenset()) | st.frozensets(st.sampled_from(names), max_size=2)) - {node.name}
    eligible = {one.name for one in asked.seen.nodes if one.master_eligible}
    voters = data.draw(st.frozensets(st.sampled_from(sorted(eligible) or names), min_size=1))
    here = tuple(one for one in asked.seen.nodes if one.name not in away)
    voting = VotingSeen(frozenset(f"id-{name}" for name in voters), frozenset())
    found = check_node(
        replace(
            asked, seen=replace(asked.seen, nodes=here, voting=voting), node=node, mates=mates, budget=len(mates) + 1
        )
    )
    if {"master_quorum", "one_master_at_a_time"} & blocking(found) or not seen_as(asked, node).master_eligible:
        return
    going = {node.name, *mates}
    if going & voters - away:
        staying = voters - going - away
        assert 2 * len(staying) > len(voters)
    if len(going & eligible) > 1:
        assert len({one.name for one in here if can_lead(one)} - going) >= 3
        assert not (away & eligible) - going


def seen_as(asked: Subject, node: Node) -> NodeSeen:
    found = asked.seen.node(node.name)
    assert found is not None
    return found


def test_the_clusters_drawn_hold_pairs() -> None:
    """Else the properties above would prove nothing."""
    found: list[Cluster] = []

    @settings(max_examples=100, database=None)
    @given(clusters())
    def draw(asked: Subject) -> None:
        votes = {node.name for node in asked.seen.nodes if node.master_eligible}
        if any(len({node.name for node in batch} & votes) > 1 for batch in make_batches(asked)):
            found.append(asked.cluster)

    draw()
    assert len(found) > 5
