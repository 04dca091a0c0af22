"""Nodes that are out of the cluster: repaired first, and never a reason to take a healthy one as well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardlift.checks import Subject, check_batches, check_node, check_plan
from shardlift.model import ClusterSettings, EngineKind, Health, HealthSeen, Severity, Strategy, VotingSeen
from tests.observations import CLUSTER, NAMES, NEW, copy, member, subject
from tests.worlds import make_cluster

BLOCK, WARN = Severity.BLOCK, Severity.WARN
FIRST, SECOND, LAST = CLUSTER.nodes
TWO_HERE = tuple(member(name) for name in NAMES[:2])
YELLOW = HealthSeen(Health.YELLOW, 2, 2, 1, 0, 0, 1, 0, timed_out=False)
LEFT = copy(None, primary=False, unassigned_reason="NODE_LEFT")
# The last node is out, and with it a replica.
ONE_OUT = subject(nodes=TWO_HERE, shards=(copy(NAMES[0], primary=True), LEFT), health=YELLOW)
FIVE = make_cluster("p" * 32, 5, ("zone-a",))


def told(findings: tuple, severity: Severity) -> set[str]:
    return {finding.rule for finding in findings if finding.severity is severity}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_one_node_that_is_out_is_taken_first_and_does_not_forbid_the_plan(strategy: Strategy) -> None:
    asked = replace(ONE_OUT, strategy=strategy)
    (finding,) = check_plan(asked)
    assert (finding.rule, finding.severity, finding.subject) == ("nodes_present", WARN, LAST.name)
    assert "taken first" in finding.reason
    assert check_batches(asked, ([LAST], [SECOND], [FIRST])) == ()


def test_it_may_be_mended_and_no_other_node_may_go_before() -> None:
    assert told(check_node(replace(ONE_OUT, node=LAST)), BLOCK) == set()
    for node in (FIRST, SECOND):
        found = told(check_node(replace(ONE_OUT, node=node)), BLOCK)
        assert {"nodes_present", "unavailable_budget", "one_master_at_a_time", "cluster_healthy"} <= found
    assert told(check_batches(ONE_OUT, ([SECOND], [LAST], [FIRST])), BLOCK) == {
        "unavailable_budget",
        "one_master_at_a_time",
    }


def test_copies_on_the_move_do_not_matter_to_a_node_that_is_out() -> None:
    busy = replace(ONE_OUT, seen=replace(ONE_OUT.seen, health=replace(YELLOW, initializing=1)))
    assert told(check_plan(busy), WARN) == {"nodes_present", "cluster_healthy"}
    assert told(check_plan(busy), BLOCK) == set()
    assert check_node(replace(busy, node=LAST)) == ()


@pytest.mark.parametrize(
    "waiting",
    [
        replace(LEFT, unassigned_reason="ALLOCATION_FAILED"),
        replace(LEFT, unassigned_reason="INDEX_CREATED"),
        replace(LEFT, index="other"),  # its primary is nowhere
    ],
)
def test_only_a_replica_whose_node_left_and_whose_primary_serves_may_wait(waiting: object) -> None:
    shards = (copy(NAMES[0], primary=True), waiting)
    asked = replace(ONE_OUT, seen=replace(ONE_OUT.seen, shards=shards))
    assert told(check_plan(asked), BLOCK) == {"cluster_healthy"}
    assert told(check_node(replace(asked, node=LAST)), BLOCK) == {"cluster_healthy"}


def test_red_forbids_even_a_repair() -> None:
    """A missing primary may lie on the very disk that a drained node does not get back."""
    red = replace(YELLOW, status=Health.RED)
    asked = replace(ONE_OUT, seen=replace(ONE_OUT.seen, health=red, shards=(copy(None, primary=True),)))
    assert told(check_plan(asked), BLOCK) == {"cluster_healthy"}
    assert "cluster_healthy" in told(check_node(replace(asked, node=LAST)), BLOCK)


def test_a_replica_that_left_with_nobody_missing_is_not_explained() -> None:
    three = (*TWO_HERE, member(LAST.name))
    assert told(check_plan(replace(ONE_OUT, seen=replace(ONE_OUT.seen, nodes=three))), BLOCK) == {"cluster_healthy"}


def test_two_nodes_that_are_out_are_mended_one_after_the_other_but_no_state_to_begin_in() -> None:
    here = tuple(member(node.name) for node in FIVE.nodes[:3])
    asked = subject(cluster=FIVE, nodes=here, elected=here[0].name, shards=(), indices=())
    assert told(check_plan(asked), BLOCK) == {"unavailable_budget"}
    assert told(check_node(replace(asked, node=FIVE.nodes[4])), BLOCK) == set()
    assert told(check_node(replace(asked, node=FIVE.nodes[4])), WARN) == {"nodes_present"}
    assert "unavailable_budget" in told(check_node(replace(asked, node=FIVE.nodes[0])), BLOCK)


def test_a_node_that_is_out_counts_where_nodes_are_counted() -> None:
    """A cluster of three is not too small because one of them is down."""
    assert not {"data_nodes_minimum", "master_quorum", "copies_fit"} & told(check_plan(ONE_OUT), BLOCK)
    dedicated = replace(CLUSTER, nodes=(FIRST, SECOND, replace(LAST, roles=("ingest",))))
    assert {"data_nodes_minimum", "master_quorum"} <= told(check_plan(replace(ONE_OUT, cluster=dedicated)), BLOCK)


def test_the_zone_of_a_node_that_is_repaired_is_not_missing() -> None:
    key = "cluster.routing.allocation.awareness."
    settings = ClusterSettings({key + "attributes": "zone", key + "force.zone.values": "zone-a,zone-b"})
    zoned = replace(CLUSTER, nodes=(FIRST, SECOND, replace(LAST, zone="zone-b")))
    asked = replace(ONE_OUT, cluster=zoned, seen=replace(ONE_OUT.seen, settings=settings))
    assert told(check_plan(asked), BLOCK) == set()


@pytest.mark.parametrize(
    ("config", "stops", "allowed"),
    [
        ({"id-" + NAMES[0], "id-" + NAMES[1], "id-" + NAMES[2]}, FIRST, True),
        ({"id-" + NAMES[0], "id-" + NAMES[1], "gone"}, FIRST, False),  # two of three vote: none may go
        ({"id-" + NAMES[0], "id-" + NAMES[1], "gone"}, LAST, True),  # it does not vote
        ({"id-" + NAMES[0]}, FIRST, False),
        (set(), FIRST, True),  # not told
    ],
)
def test_those_that_stay_must_be_able_to_elect(config: set[str], stops: object, *, allowed: bool) -> None:
    asked = subject(node=stops, voting=VotingSeen(frozenset(config), frozenset()))
    assert ("master_quorum" not in told(check_node(asked), BLOCK)) is allowed


@pytest.mark.parametrize(("minimum", "allowed"), [("2", True), ("3", False), ("-1", True)])
def test_elasticsearch_6_needs_its_minimum_of_masters(minimum: str, *, allowed: bool) -> None:
    nodes = tuple(member(name, "6.8.23", engine=EngineKind.ELASTICSEARCH) for name in NAMES)
    settings = ClusterSettings(defaults={"discovery.zen.minimum_master_nodes": minimum})
    asked = subject(nodes=nodes, voting=None, settings=settings)
    for found in (check_plan(asked), check_node(replace(asked, node=FIRST))):
        assert ("master_quorum" not in told(found, BLOCK)) is allowed


def with_roles(*roles: str) -> Subject:
    nodes = tuple(member(name, roles=frozenset(own.split("+"))) for name, own in zip(NAMES, roles, strict=True))
    return subject(nodes=nodes, shards=())


def test_the_last_old_master_waits_at_its_own_turn_too() -> None:
    asked = with_roles("master+data", "data", "data")
    assert "last_old_master" in told(check_node(replace(asked, node=FIRST)), BLOCK)
    done = (asked.seen.nodes[0], *(replace(node, version=NEW.version) for node in asked.seen.nodes[1:]))
    mixed = replace(asked, node=FIRST, seen=replace(asked.seen, nodes=done))
    assert "last_old_master" not in told(check_node(mixed), BLOCK)


def test_a_tier_of_one_node_is_away_for_a_while_and_that_is_told() -> None:
    asked = with_roles("data_hot+master", "data_hot+master", "data_cold+master")
    found = check_batches(asked, ([LAST], [SECOND], [FIRST]))
    assert [(finding.rule, finding.severity, finding.subject) for finding in found] == [("tier_stays", WARN, LAST.name)]


def test_an_index_that_is_everywhere_may_be_shared_as_long_as_one_copy_serves_outside() -> None:
    everywhere = replace(ONE_OUT.seen.indices[0], settings={"index.auto_expand_replicas": "0-all"}, replicas=2)
    copies = tuple(copy(name, primary=at == 0) for at, name in enumerate(NAMES))
    base = subject(nodes=with_roles("data", "data", "data+master").seen.nodes, indices=(everywhere,), shards=copies)
    assert check_batches(replace(base, budget=2), ([FIRST, SECOND],)) == ()
    alone = replace(base, budget=2, seen=replace(base.seen, shards=copies[:2]))
    assert told(check_batches(alone, ([FIRST, SECOND],)), BLOCK) == {"no_shared_shards"}
