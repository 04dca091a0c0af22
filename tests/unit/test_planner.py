"""The planner: order and completeness, for every cluster that hypothesis can think of."""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.model import InstanceType, Node, Plan, Severity, Strategy
from shardlift.planner import draft_plan, order_nodes, plan_upgrade
from tests.observations import CLUSTER, NAMES, NEW, copy, member, seen, subject

TIERS = ["data_frozen", "data_cold", "data_warm", "data_hot", "data", "ingest", "cluster_manager"]
KINDS: tuple[tuple[InstanceType, tuple[str, ...]], ...] = (
    *((InstanceType.ESS, (tier,)) for tier in TIERS[:6]),
    *((InstanceType.ESS, (tier, "cluster_manager")) for tier in ("data_hot", "data")),
    (InstanceType.COLD, ("data_cold", "ingest")),
    (InstanceType.CLIENT, ("ingest",)),
    (InstanceType.MASTER, ("cluster_manager",)),
)
Case = tuple[tuple[Node, ...], dict[str, tuple[str, ...]], set[str], str | None]


@st.composite
def clusters(draw: st.DrawFn) -> Case:
    """Nodes, the roles of each, those out of the cluster, and the elected one."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12))
    nodes = tuple(
        replace(
            CLUSTER.nodes[0],
            id=str(uuid.uuid4()),
            name=f"node-{at}-1",
            instance_type=kind,
            zone=draw(st.sampled_from("abc")),
        )
        for at, (kind, _) in enumerate(kinds)
    )
    roles = {node.name: kind[1] for node, kind in zip(nodes, kinds, strict=True)}
    out = draw(st.sets(st.sampled_from([node.name for node in nodes]), max_size=2))
    able = [name for name in roles if "cluster_manager" in roles[name] and name not in out]
    return nodes, roles, out, draw(st.none() | st.sampled_from(able)) if able else None


@given(clusters())
def test_order(case: Case) -> None:
    nodes, roles, out, elected = case
    members = tuple(member(node.name, roles=frozenset(roles[node.name])) for node in nodes if node.name not in out)
    ordered = order_nodes(nodes, seen(nodes=members, elected=elected))
    assert sorted(node.id for node in ordered) == sorted(node.id for node in nodes), "each node once"
    assert {node.name for node in ordered[: len(out)]} == out, "what is out of the cluster is repaired first"
    healthy = [node for node in ordered if node.name not in out]
    eligible = ["cluster_manager" in roles[node.name] for node in healthy]
    assert eligible == sorted(eligible), "nodes that can be elected come last"
    if elected is not None:
        assert healthy[-1].name == elected
    for group in (False, True):
        same = [n for n in healthy if ("cluster_manager" in roles[n.name]) is group and n.name != elected]
        tiers = [TIERS.index(min(roles[n.name], key=TIERS.index)) for n in same]
        assert tiers == sorted(tiers), "frozen, cold, warm, hot, other data, no data, masters alone"
        for tier in set(tiers):
            zones = [n.zone for n, its in zip(same, tiers, strict=True) if its == tier]
            assert len(list(groupby(zones))) == len(set(zones)), "one zone is finished before the next begins"


def test_a_canary_is_the_first_healthy_node_and_is_emptied_in_place_too() -> None:
    plan, _ = plan_upgrade(subject(Strategy.IN_PLACE, canary=True))
    assert plan is not None
    assert [(node.canary, node.drained, node.fresh_data) for node in plan.nodes] == [
        (True, True, False),
        (False, False, False),
        (False, False, False),
    ]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_node_that_is_out_is_repaired_first_and_not_drained(strategy: Strategy) -> None:
    out = NAMES[2]
    plan = draft_plan(subject(strategy, canary=True, nodes=tuple(member(name) for name in NAMES[:2])))
    first, second, _ = plan.nodes
    assert (first.name, first.repair, first.drained, first.canary, first.from_version) == (out, True, False, False, "")
    assert first.fresh_data is strategy.empties
    assert (second.repair, second.canary) == (False, True)


@st.composite
def placements(draw: st.DrawFn) -> dict[str, list[str]]:
    """For up to 8 indices the nodes that hold a copy, the first one the primary."""
    names = st.permutations(NAMES).flatmap(lambda p: st.integers(1, 3).map(lambda n: list(p[:n])))
    return {f"index-{at}": draw(names) for at in range(draw(st.integers(0, 8)))}


@given(placements(), st.sampled_from(list(Strategy)))
def test_a_plan_never_takes_the_last_copy(holders: dict[str, list[str]], strategy: Strategy) -> None:
    """Either there is no plan, or, in place, every shard keeps a started copy whichever node is away."""
    shards = tuple(
        copy(node, primary=at == 0, index=index) for index, nodes in holders.items() for at, node in enumerate(nodes)
    )
    plan, findings = plan_upgrade(subject(strategy, shards=shards, indices=()))
    assert (plan is None) is any(finding.severity is Severity.BLOCK for finding in findings)
    if plan is None:
        assert strategy is Strategy.IN_PLACE
        assert any(len(nodes) == 1 for nodes in holders.values())
        return
    assert_plan(plan, strategy)
    if strategy is Strategy.IN_PLACE:
        for batch in plan.batches:
            away = {node.name for node in batch}
            assert all(set(nodes) - away for nodes in holders.values())


def assert_plan(plan: Plan, strategy: Strategy) -> None:
    assert sorted(node.name for node in plan.nodes) == sorted(NAMES)
    assert all(len(batch) == 1 for batch in plan.batches)
    assert plan.nodes[-1].name == NAMES[0], "the elected master goes last"
    assert all(node.fresh_data is strategy.empties for node in plan.nodes)


def test_nodes_on_the_target_are_left_out() -> None:
    done = replace(CLUSTER.nodes[1], image_id=NEW.id)
    cluster = replace(CLUSTER, nodes=(CLUSTER.nodes[0], done, CLUSTER.nodes[2]))
    plan, _ = plan_upgrade(subject(cluster=cluster))
    assert plan is not None
    assert [node.name for node in plan.nodes] == [NAMES[2], NAMES[0]]


def test_a_node_without_data_keeps_its_path() -> None:
    """A dedicated master's path holds the state that lets it vote."""
    nodes = (*(member(name) for name in NAMES), member("m-1-1", roles=frozenset({"cluster_manager"})))
    extra = replace(CLUSTER.nodes[0], id="m", name="m-1-1", instance_type=InstanceType.MASTER)
    plan, findings = plan_upgrade(subject(cluster=replace(CLUSTER, nodes=(*CLUSTER.nodes, extra)), nodes=nodes))
    assert plan is not None, findings
    assert {node.name: node.fresh_data for node in plan.nodes} == {**dict.fromkeys(NAMES, True), "m-1-1": False}
