"""Each rule: silent on a healthy cluster, and on a bad one says which node or index, why, what was seen, what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardlift.checks import (
    NODE_RULES,
    PLAN_RULES,
    Subject,
    check_node,
    check_plan,
    hop_allowed,
    oldest_index,
    unexplained_unassigned,
)
from shardlift.model import (
    ClusterSettings,
    EngineKind,
    Health,
    HealthSeen,
    PluginSeen,
    Severity,
    Strategy,
    Version,
    VotingSeen,
)
from tests.observations import CLUSTER, NAMES, NEW, OLD, copy, index, member, subject

ES, OS = EngineKind.ELASTICSEARCH, EngineKind.OPENSEARCH
RED = HealthSeen(Health.RED, 3, 3, 0, 0, 0, 1, 0, timed_out=False)
YELLOW = HealthSeen(Health.YELLOW, 3, 3, 1, 0, 0, 1, 0, timed_out=False)
ON_NEW = replace(CLUSTER, nodes=tuple(replace(node, image_id=NEW.id) for node in CLUSTER.nodes))
IN_PLACE = Strategy.IN_PLACE

# rule -> a subject in which exactly that rule blocks
BAD: dict[str, Subject] = {
    "target_differs": subject(cluster=ON_NEW),
    "version_hop_allowed": subject(nodes=tuple(member(name, "2.18.0") for name in NAMES)),
    "index_compatible": subject(indices=(index(created_on=Version(1, 3, 20)),)),
    "java_available": subject(java_problem="only Java 8 is here"),
    "plugins_available": subject(
        nodes=tuple(member(name, plugins=(PluginSeen("analysis-icu", "2.19.4"),)) for name in NAMES), image_plugins=()
    ),
    "nodes_present": subject(
        nodes=(*(member(name) for name in NAMES[:2]), member("stranger-esn-9-1")), shards=(), indices=()
    ),
    "cluster_healthy": subject(health=RED, shards=(copy(None, primary=True),)),
    "data_nodes_minimum": subject(
        nodes=(*(member(n) for n in NAMES[:2]), member(NAMES[2], roles=frozenset({"cluster_manager"}))),
        shards=(),
        indices=(),
    ),
    "master_quorum": subject(
        nodes=(*(member(n) for n in NAMES[:2]), member(NAMES[2], roles=frozenset({"data"}))),
    ),
    "last_started_copy": subject(IN_PLACE, shards=(copy(NAMES[0], primary=True),), indices=(index(replicas=0),)),
    "copies_fit": subject(indices=(index(replicas=2),)),
    "disk_room": subject(nodes=tuple(member(name, disk_available_bytes=150) for name in NAMES)),
    "voting_exclusions_clean": subject(voting=VotingSeen(frozenset(), frozenset({"old-node"}))),
    "allocation_enabled": subject(
        settings=ClusterSettings(persistent={"cluster.routing.allocation.enable": "primaries"})
    ),
    "no_leftover_excludes": subject(
        settings=ClusterSettings(transient={"cluster.routing.allocation.exclude._name": f"x,{NAMES[1]}"})
    ),
    "no_running_snapshot": subject(running_snapshots=1),
    "indices_backed_up": subject(backup_check=True),
    "load_low": subject(load_check=True, nodes=tuple(member(name, cpu_percent=95) for name in NAMES)),
}


def names_of(rules: tuple[object, ...]) -> set[str]:
    return {getattr(rule, "__name__", "") for rule in rules}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_healthy_cluster_has_no_findings(strategy: Strategy) -> None:
    assert check_plan(subject(strategy)) == ()
    for node in CLUSTER.nodes:
        assert check_node(subject(strategy, node=node)) == ()


def test_every_rule_has_a_bad_cluster_here_and_a_place_in_the_docs() -> None:
    every = names_of(PLAN_RULES) | names_of(NODE_RULES)
    assert every == set(BAD)
    told = Path("docs/rules.md").read_text()
    assert [rule for rule in sorted(every) if f"## {rule}" not in told] == []


@pytest.mark.parametrize("rule", sorted(BAD))
def test_rule_blocks_alone_and_tells_all(rule: str) -> None:
    findings = [finding for finding in check_plan(BAD[rule]) if finding.severity is Severity.BLOCK]
    assert {finding.rule for finding in findings} == {rule}
    for finding in findings:
        assert all((finding.subject, finding.reason, finding.evidence, finding.remedy))


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ({"nodes": tuple(member(n, disk_total_bytes=None) for n in NAMES)}, "disk_room"),
        ({"elected": None}, "master_quorum"),
        ({"indices": (index(created_on=None, created_by=None),)}, "index_compatible"),
        ({"load_check": True, "nodes": tuple(member(n, load_1m=None) for n in NAMES)}, "load_low"),
        ({"backup_check": True, "snapshotted": None}, "indices_backed_up"),
    ],
)
def test_unknown_is_never_healthy(what: dict[str, object], rule: str) -> None:
    blocking = {finding.rule for finding in check_plan(subject(**what)) if finding.severity is Severity.BLOCK}
    assert rule in blocking


def test_unknown_snapshots_are_told() -> None:
    (finding,) = check_plan(subject(running_snapshots=None))
    assert (finding.rule, finding.severity) == ("no_running_snapshot", Severity.WARN)


def test_own_tokens_are_no_leftovers() -> None:
    node = CLUSTER.nodes[0]
    excluded = VotingSeen(frozenset(), frozenset({node.name}))
    assert check_node(subject(node=node, voting=excluded, own_tokens=frozenset({node.name}))) == ()
    assert {f.rule for f in check_node(subject(node=node, voting=excluded))} == {"voting_exclusions_clean"}


def test_a_drained_node_may_go_only_without_last_copies() -> None:
    node = CLUSTER.nodes[0]
    alone = (copy(node.name, primary=True),)
    assert "last_started_copy" in {f.rule for f in check_node(subject(node=node, shards=alone))}
    elsewhere = (copy(NAMES[1], primary=True),)
    assert check_node(subject(node=node, shards=elsewhere)) == ()


def test_yellow_is_explained_by_versions_only() -> None:
    """A replica with its primary on the only upgraded node waits rightly; any other unassigned copy does not."""
    mixed = (member(NAMES[0], "3.4.0"), member(NAMES[1]), member(NAMES[2]))
    waiting = (copy(NAMES[0], primary=True), copy(None, primary=False))
    assert unexplained_unassigned(mixed, waiting) == ()
    assert check_plan(subject(nodes=mixed, shards=waiting, health=YELLOW)) == ()
    two_new = (member(NAMES[0], "3.4.0"), member(NAMES[1], "3.4.0"), member(NAMES[2]))
    assert unexplained_unassigned(two_new, waiting) == (waiting[1],)
    on_old = (copy(NAMES[1], primary=True), copy(None, primary=False))
    assert unexplained_unassigned(mixed, on_old) == (on_old[1],)
    lost = (copy(None, primary=True),)
    assert unexplained_unassigned(mixed, lost) == lost
    crossing = (member(NAMES[0], "1.3.20"), *(member(n, "7.10.2", engine=ES) for n in NAMES[1:]))
    assert unexplained_unassigned(crossing, waiting) == ()


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ((ES, "6.8.23"), (ES, "7.10.2"), True),
        ((ES, "6.7.0"), (ES, "7.10.2"), False),
        ((ES, "7.17.28"), (ES, "8.19.0"), True),
        ((ES, "7.10.2"), (ES, "8.19.0"), False),
        ((ES, "7.10.2"), (OS, "1.3.20"), True),
        ((ES, "7.17.28"), (OS, "1.3.20"), False),
        ((OS, "1.3.20"), (OS, "2.19.4"), True),
        ((OS, "2.19.4"), (OS, "3.4.0"), True),
        ((OS, "2.18.0"), (OS, "3.4.0"), False),
        ((OS, "1.3.20"), (OS, "3.4.0"), False),
        ((OS, "2.19.4"), (OS, "1.3.20"), False),
        ((OS, "2.19.4"), (OS, "2.19.5"), True),
        ((OS, "3.4.0"), (OS, "3.3.2"), False),
        ((OS, "2.19.4"), (ES, "8.19.0"), False),
        ((OS, "3.4.0"), (OS, "9.0.0"), False),
    ],
)
def test_hops(source: tuple[EngineKind, str], target: tuple[EngineKind, str], allowed: bool) -> None:
    reason = hop_allowed(source[0], Version.parse(source[1]), target[0], Version.parse(target[1]))
    assert (reason is None) is allowed
    assert allowed or reason


@pytest.mark.parametrize(
    ("created", "target", "opens"),
    [
        ((ES, "6.8.23"), (OS, "1.3.20"), True),
        ((ES, "6.8.23"), (OS, "2.19.4"), False),
        ((ES, "7.10.2"), (OS, "2.19.4"), True),
        ((ES, "7.10.2"), (OS, "3.4.0"), False),
        ((OS, "1.3.20"), (OS, "3.4.0"), False),
        ((OS, "2.4.0"), (OS, "3.4.0"), True),
        ((ES, "5.6.0"), (ES, "7.10.2"), False),
    ],
)
def test_index_ages(created: tuple[EngineKind, str], target: tuple[EngineKind, str], opens: bool) -> None:
    reason = oldest_index(target[0], created[0], Version.parse(created[1]), Version.parse(target[1]))
    assert (reason is None) is opens


def test_old_image_is_no_target() -> None:
    assert "target_differs" in {finding.rule for finding in check_plan(subject(image=OLD))}
