"""The planner: order and completeness, for every cluster that hypothesis can think of."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.model import InstanceType, Node, Plan, Severity, Strategy
from shardlift.planner import order_nodes, plan_upgrade
from tests.observations import CLUSTER, NAMES, NEW, copy, member, seen, subject

TYPE_RANK = {InstanceType.COLD: 0, InstanceType.ESS: 1, InstanceType.CLIENT: 2, InstanceType.MASTER: 3}


@st.composite
def clusters(draw: st.DrawFn) -> tuple[tuple[Node, ...], str | None]:
    kinds = draw(st.lists(st.sampled_from(list(InstanceType)), min_size=1, max_size=12))
    nodes = tuple(
        replace(CLUSTER.nodes[0], id=str(uuid.uuid4()), name=f"node-{at}-1", instance_type=kind)
        for at, kind in enumerate(kinds)
    )
    return nodes, draw(st.none() | st.sampled_from([node.name for node in nodes]))


@given(clusters())
@settings(deadline=None)
def test_order(case: tuple[tuple[Node, ...], str | None]) -> None:
    nodes, elected = case
    members = tuple(member(node.name) for node in nodes)
    ordered = order_nodes(nodes, seen(nodes=members, elected=elected))
    assert sorted(node.id for node in ordered) == sorted(node.id for node in nodes), "each node once"
    ranks = [TYPE_RANK[node.instance_type] for node in ordered]
    assert ranks == sorted(ranks), "cold, data, clients, masters"
    if elected is not None:
        last_of_type = [
            n for n in ordered if n.instance_type == next(o for o in nodes if o.name == elected).instance_type
        ]
        assert last_of_type[-1].name == elected


@st.composite
def placements(draw: st.DrawFn) -> dict[str, list[str]]:
    """For up to 8 indices the nodes that hold a copy, the first one the primary."""
    names = st.permutations(NAMES).flatmap(lambda p: st.integers(1, 3).map(lambda n: list(p[:n])))
    return {f"index-{at}": draw(names) for at in range(draw(st.integers(0, 8)))}


@given(placements(), st.sampled_from(list(Strategy)))
@settings(deadline=None)
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
    assert all(node.fresh_data is (strategy is Strategy.DRAIN) for node in plan.nodes)


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
