"""What holds for the rules whatever a cluster looks like."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shardlift.checks import Subject, check_batches, check_node, check_plan
from shardlift.model import (
    ClusterSettings,
    CopyState,
    Health,
    HealthSeen,
    IndexSeen,
    NodeSeen,
    Observation,
    Severity,
    ShardCopy,
    Strategy,
    Version,
    VotingSeen,
)
from tests.observations import NEW, copy, index, member, seen
from tests.worlds import make_cluster

CLUSTER = make_cluster("p" * 32, 4, ("zone-a", "zone-b"))
NAMES = [node.name for node in CLUSTER.nodes]
figures = st.none() | st.integers(0, 1000)
words = st.sampled_from(["", "all", "none", "zone-a", "zone-a,zone-c", "*", "85%", "-1", "?", "1000", NAMES[0]])
KEYS = (
    "cluster.routing.allocation.enable",
    "cluster.routing.allocation.exclude._name",
    "cluster.routing.allocation.awareness.attributes",
    "cluster.routing.allocation.awareness.force.zone.values",
    "cluster.routing.allocation.disk.watermark.low",
    "cluster.max_shards_per_node",
    "archived.x",
)
voters = st.frozensets(st.sampled_from([f"id-{name}" for name in NAMES]))
layers = st.dictionaries(st.sampled_from(KEYS), words, max_size=3)


@st.composite
def members(draw: st.DrawFn, name: str) -> NodeSeen:
    roles = draw(st.sets(st.sampled_from(["data", "data_hot", "data_cold", "master", "ingest"])))
    return member(
        name,
        str(draw(st.sampled_from([Version(1, 3, 20), Version(2, 19, 4), Version(3, 4, 0)]))),
        roles=frozenset(roles),
        attributes=draw(st.sampled_from([{}, {"zone": "zone-a"}, {"zone": "zone-b"}])),
        disk_total_bytes=draw(figures),
        disk_available_bytes=draw(figures),
        cpu_percent=draw(figures),
        load_1m=draw(st.none() | st.floats(0, 9)),
        processors=draw(figures),
    )


@st.composite
def copies(draw: st.DrawFn) -> tuple[ShardCopy, ...]:
    """Two shards with up to three copies each, wherever and however they are."""
    found = []
    for shard in range(2):
        for at, node in enumerate(draw(st.lists(st.sampled_from([*NAMES, None]), max_size=3))):
            state = CopyState.UNASSIGNED if node is None else draw(st.sampled_from(list(CopyState)[:3]))
            reason = draw(st.sampled_from([None, "NODE_LEFT", "INDEX_CREATED"]))
            made = copy(node, primary=at == 0, state=state, size_bytes=draw(figures), unassigned_reason=reason)
            found.append(replace(made, shard=shard))
    return tuple(found)


@st.composite
def indices(draw: st.DrawFn) -> tuple[IndexSeen, ...]:
    expand = draw(st.sampled_from(["false", "0-all", "1-3", "odd"]))
    one = index(
        created_on=draw(st.sampled_from([None, Version(1, 0, 0), Version(2, 19, 4)])),
        replicas=draw(st.integers(0, 4)),
        closed=draw(st.booleans()),
        settings={"index.auto_expand_replicas": expand},
    )
    return (one,)


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    present = draw(st.lists(st.sampled_from([*NAMES, "stranger"]), unique=True))
    return seen(
        health=HealthSeen(
            draw(st.sampled_from(list(Health))), *draw(st.tuples(*[st.integers(0, 20)] * 7)), timed_out=False
        ),
        nodes=tuple(draw(members(name)) for name in present),
        elected=draw(st.sampled_from([None, *NAMES])),
        shards=draw(copies()),
        indices=draw(indices()),
        settings=ClusterSettings(draw(layers), draw(layers), draw(layers)),
        voting=draw(st.none() | st.builds(VotingSeen, voters, st.just(frozenset()))),
        running_snapshots=draw(figures),
        snapshotted=draw(st.none() | st.frozensets(st.just("books"))),
        running_work=draw(st.none() | st.just(("work",)) | st.just(())),
        dangling=draw(st.none() | st.just(("ghost",))),
        leaving=draw(st.frozensets(st.sampled_from(NAMES))),
    )


subjects = st.builds(
    Subject,
    seen=observations(),
    cluster=st.just(CLUSTER),
    image=st.just(NEW),
    strategy=st.sampled_from(list(Strategy)),
    backup_check=st.booleans(),
    load_check=st.booleans(),
)


@settings(max_examples=60)
@given(subjects, st.permutations(CLUSTER.nodes))
def test_no_cluster_breaks_a_rule_and_every_finding_tells_all(asked: Subject, order: list) -> None:
    found = [*check_plan(asked), *check_batches(asked, [order[:2], order[2:]])]
    for node in CLUSTER.nodes:
        found += check_node(replace(asked, node=node))
    for finding in found:
        assert all((finding.rule, finding.subject, finding.reason, finding.evidence, finding.remedy))


@settings(max_examples=60)
@given(subjects)
def test_no_node_goes_with_the_last_started_copy_of_a_shard(asked: Subject) -> None:
    """Reckoned here from the copies alone, in the plainest way."""
    for node in CLUSTER.nodes:
        held = {one.group for one in asked.seen.shards if one.node == node.name}
        kept = {
            one.group
            for one in asked.seen.shards
            if one.node not in {None, node.name} and one.state in {CopyState.STARTED, CopyState.RELOCATING}
        }
        objects = {finding.rule for finding in check_node(replace(asked, node=node))}
        assert ("last_started_copy" in objects) == bool(held - kept)


UNKNOWN = (
    {"elected": None},
    {"running_snapshots": None},
    {"running_work": None},
    {"snapshotted": None},
)


@settings(max_examples=60)
@given(subjects, st.sampled_from(UNKNOWN))
def test_to_know_less_never_lets_a_plan_pass(asked: Subject, less: dict) -> None:
    asked = replace(asked, backup_check=True)
    blind = replace(asked, seen=replace(asked.seen, **less))
    assert any(finding.severity is Severity.BLOCK for finding in check_plan(blind))


@settings(max_examples=40)
@given(subjects)
def test_without_figures_of_its_disk_no_data_node_passes(asked: Subject) -> None:
    nodes = tuple(replace(node, disk_total_bytes=None) for node in asked.seen.nodes)
    blind = replace(asked, strategy=Strategy.DRAIN, seen=replace(asked.seen, nodes=nodes, settings=ClusterSettings()))
    found = {finding.rule for finding in check_plan(blind) if finding.severity is Severity.BLOCK}
    assert ({"disk_room", "disk_watermarks"} <= found) == any(node.holds_data for node in nodes)
