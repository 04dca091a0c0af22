"""For which masters an extra one is planned, and where the engine would not bear it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardlift.checks import Subject
from shardlift.model import ClusterSettings, EngineKind, InstanceType, Severity, Strategy, TaskKind, Version
from shardlift.planner import plan_and_forecast
from tests.observations import member, subject
from tests.worlds import make_cluster

A, D = "zone-a", "zone-d"
SPARE_NAME = "lab-1-spare-master"
DATA, MASTER, BOTH = frozenset({"data"}), frozenset({"cluster_manager"}), frozenset({"data", "cluster_manager"})


def moving(strategy: Strategy = Strategy.DRAIN, *, masters: int = 3, to: str = D, **more: object) -> Subject:
    """Three data nodes and so many dedicated masters, all of which go from one zone to another."""
    cluster = make_cluster("p" * 32, 3, (A,), masters=(A,) * masters)
    nodes = tuple(
        member(node.name, roles=DATA if node.instance_type is InstanceType.ESS else MASTER) for node in cluster.nodes
    )
    names = [node.name for node in nodes]
    made: dict[str, object] = {
        "nodes": nodes,
        "elected": names[-1],
        "shards": (),
        "indices": (),
        "cluster": cluster,
        "kind": TaskKind.AZ_MIGRATION,
        "chosen": frozenset(names),
        "to_zones": dict.fromkeys(names, to),
    }
    return subject(strategy, **{**made, **more})


def elder(asked: Subject, least: str | None) -> Subject:
    """The same of Elasticsearch 6, with so many masters needed."""
    nodes = tuple(
        replace(
            node,
            engine=EngineKind.ELASTICSEARCH,
            version=Version(6, 8, 23),
            roles=node.roles - MASTER | ({"master"} if node.roles & MASTER else set()),
        )
        for node in asked.seen.nodes
    )
    settings = ClusterSettings({} if least is None else {"discovery.zen.minimum_master_nodes": least})
    return replace(asked, seen=replace(asked.seen, nodes=nodes, settings=settings, voting=None))


@pytest.mark.parametrize(
    ("masters", "least", "stands_in"),
    [(3, "2", False), (3, None, False), (3, "soon", False), (4, "3", True), (5, "3", False), (6, "4", True)],
)
def test_elasticsearch_6_has_one_only_if_its_number_stays_a_majority(
    masters: int, least: str | None, *, stands_in: bool
) -> None:
    """With three that need two, a fourth would make two halves that can each elect a master."""
    asked = elder(moving(masters=masters), least)
    plan, _, findings = plan_and_forecast(asked)
    assert plan is not None, findings
    assert (plan.stand_in is not None) is stands_in
    told = [one for one in findings if one.rule == "master_quorum"]
    assert [one.severity for one in told] == ([] if stands_in else [Severity.WARN])
    assert all("minimum_master_nodes" in one.evidence for one in told)


def test_with_surge_it_is_besides_those_that_take_copies() -> None:
    plan, told, findings = plan_and_forecast(moving(Strategy.SURGE))
    assert plan is not None, findings
    assert told is not None
    spares = [node.spare for node in plan.nodes]
    assert spares == ["lab-1-spare-4"] * 3 + [SPARE_NAME] * 3
    assert [node.stands_in for node in plan.nodes] == [False] * 3 + [True] * 3
    assert [node.raises_spare for node in plan.nodes] == [True, False, False] * 2
    assert [node.empties_spare for node in plan.nodes] == [False, False, True] * 2


def test_a_master_that_is_out_is_brought_back_without_it() -> None:
    asked = moving()
    out = asked.cluster.nodes[-2].name
    here = tuple(node for node in asked.seen.nodes if node.name != out)
    plan, _, findings = plan_and_forecast(replace(asked, seen=replace(asked.seen, nodes=here)))
    assert plan is not None, findings
    stood_in_for = [node.name for node in plan.nodes if node.stands_in]
    assert plan.nodes[0].name == out
    assert stood_in_for == [node.name for node in plan.nodes[-2:]]


def test_masters_with_data_have_none() -> None:
    asked = moving()
    nodes = tuple(replace(node, roles=BOTH) for node in asked.seen.nodes)
    plan, _, findings = plan_and_forecast(replace(asked, seen=replace(asked.seen, nodes=nodes)))
    assert plan is not None, findings
    assert plan.stand_in is None


@pytest.mark.parametrize("kind", [TaskKind.UPGRADING, TaskKind.REBOOTING, TaskKind.REPLACING])
def test_where_no_zone_changes_there_is_none(kind: TaskKind) -> None:
    plan, _, findings = plan_and_forecast(moving(kind=kind, to_zones={}))
    assert plan is not None, findings
    assert plan.stand_in is None
