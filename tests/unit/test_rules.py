"""Each rule: silent on a healthy cluster, and on a bad one says which node or index, why, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from shardlift.checks import (
    BATCH_RULES,
    NODE_RULES,
    PLAN_RULES,
    Subject,
    check_batches,
    check_node,
    check_plan,
    unexplained_unassigned,
)
from shardlift.model import (
    BackupSeen,
    ClusterSettings,
    EngineKind,
    Finding,
    Health,
    HealthSeen,
    Node,
    PluginSeen,
    Severity,
    Strategy,
    TaskKind,
    Version,
    VotingSeen,
)
from tests.observations import CLUSTER, NAMES, NEW, OLD, copy, index, member, seen, subject

ES = EngineKind.ELASTICSEARCH
GREEN = HealthSeen(Health.GREEN, 3, 3, 2, 0, 0, 0, 0, timed_out=False)
RED = HealthSeen(Health.RED, 3, 3, 0, 0, 0, 1, 0, timed_out=False)
YELLOW = HealthSeen(Health.YELLOW, 3, 3, 1, 0, 0, 1, 0, timed_out=False)
ON_NEW = replace(CLUSTER, nodes=tuple(replace(node, image_id=NEW.id) for node in CLUSTER.nodes))
LAST_ON_NEW = replace(CLUSTER, nodes=(*CLUSTER.nodes[:2], replace(CLUSTER.nodes[2], image_id=NEW.id)))
IN_PLACE = Strategy.IN_PLACE
AWARENESS = "cluster.routing.allocation.awareness."


def moved(to_zones: dict[int, str], forced: str | None, replicas: int = 2, first: str = "zone-a") -> Subject:
    """Awareness of zones, the first node in `first`, the others and one that is not ours in zone-b; some move."""
    zones = zip((*NAMES, "stranger-9-1"), (first, "zone-b", "zone-b", "zone-b"), strict=True)
    nodes = tuple(member(name, attributes={"zone": zone}) for name, zone in zones)
    settings = ClusterSettings({AWARENESS + "attributes": "zone", AWARENESS + "force.zone.values": forced})
    return subject(
        nodes=nodes,
        settings=settings,
        indices=(index(replicas=replicas),),
        shards=tuple(copy(name, primary=name == NAMES[0]) for name in NAMES),
        kind=TaskKind.AZ_MIGRATION,
        image=OLD,
        chosen=frozenset(NAMES[at] for at in to_zones),
        to_zones={NAMES[at]: zone for at, zone in to_zones.items()},
    )


def with_roles(*roles: str, **more: object) -> Subject:
    """The three nodes with one set of roles each, written as `data_hot+master`."""
    nodes = tuple(member(name, roles=frozenset(own.split("+"))) for name, own in zip(NAMES, roles, strict=True))
    return subject(nodes=nodes, **more)


# rule -> a subject in which, of all rules asked before a task, exactly that rule blocks
BAD: dict[str, Subject] = {
    "target_differs": subject(cluster=ON_NEW),
    "version_hop_allowed": subject(nodes=tuple(member(name, "2.18.0") for name in NAMES)),
    "index_compatible": subject(indices=(index(created_on=Version(1, 3, 20)),)),
    "java_available": subject(java_problem="only Java 8 is here"),
    "plugins_available": subject(
        nodes=tuple(member(name, plugins=(PluginSeen("analysis-icu", "2.19.4"),)) for name in NAMES), image_plugins=()
    ),
    "nodes_present": subject(cluster=LAST_ON_NEW, nodes=tuple(member(name) for name in NAMES[:2])),
    "unavailable_budget": subject(nodes=(member(NAMES[0]),), shards=(), indices=()),
    "not_leaving": subject(leaving=frozenset({NAMES[1]})),
    "cluster_healthy": subject(health=RED, shards=(copy(None, primary=True),)),
    "cluster_state_at_rest": subject(health=replace(GREEN, in_flight_fetch=1)),
    "data_nodes_minimum": with_roles("data+master", "data+master", "master", shards=(), indices=()),
    "master_quorum": with_roles("data+master", "data+master", "data"),
    "last_started_copy": subject(IN_PLACE, shards=(copy(NAMES[0], primary=True),), indices=(index(replicas=0),)),
    "copies_fit": subject(indices=(index(replicas=2),)),
    "closed_indices_replicated": subject(indices=(index(), index("shut", closed=True))),
    "zones_present": subject(
        settings=ClusterSettings(
            persistent={AWARENESS + "force.zone.values": "zone-a,zone-b"}, defaults={AWARENESS + "attributes": "zone"}
        )
    ),
    "zone_ceiling": replace(moved({0: "zone-c"}, None, 3, "zone-b"), strategy=IN_PLACE),
    "shard_limit_room": subject(
        indices=(index(primaries=3),), settings=ClusterSettings(transient={"cluster.max_shards_per_node": "2"})
    ),
    "disk_room": subject(nodes=tuple(member(name, disk_available_bytes=180) for name in NAMES)),
    "disk_watermarks": subject(
        nodes=(*(member(name) for name in NAMES[:2]), member(NAMES[2], disk_available_bytes=140))
    ),
    "no_archived_settings": subject(settings=ClusterSettings(persistent={"archived.indices.old": "7"})),
    "voting_exclusions_clean": subject(voting=VotingSeen(frozenset(), frozenset({"old-node"}))),
    "allocation_enabled": subject(
        settings=ClusterSettings(persistent={"cluster.routing.allocation.enable": "primaries"})
    ),
    "no_leftover_excludes": subject(
        settings=ClusterSettings(transient={"cluster.routing.allocation.exclude._name": f"x,{NAMES[1]}"})
    ),
    "no_running_snapshot": subject(running_snapshots=1),
    "no_running_work": subject(running_work=("indices:data/write/reindex (task x:7)",)),
    "indices_backed_up": subject(backup_check=True),
    "load_low": subject(load_check=True, nodes=tuple(member(name, cpu_percent=95) for name in NAMES)),
}

# rule -> a subject in which that rule alone speaks, and only warns
WORTH_A_WORD: dict[str, Subject] = {
    "members_known": subject(nodes=(*seen().nodes, member("stranger-9-1"))),
    "dangling_indices": subject(dangling=("ghost",)),
    "searchable_snapshots": subject(indices=(index(), index("cold", settings={"index.store.type": "snapshot"}))),
}

# rule -> a subject and batches, by positions of nodes, of which exactly that rule speaks
BAD_ORDER: dict[str, tuple[Subject, Sequence[Sequence[int]]]] = {
    "unavailable_budget": (with_roles("data", "data", "data+master", shards=()), [[0, 1], [2]]),
    "tier_order": (with_roles("data+master", "data_hot+data", "data_cold+data"), [[1], [2], [0]]),
    "one_master_at_a_time": (subject(shards=(), budget=2), [[0, 1], [2]]),
    "last_old_master": (with_roles("data+master", "data", "data"), [[1], [0], [2]]),
    "no_shared_shards": (with_roles("data", "data", "data+master", budget=2), [[0, 1], [2]]),
    "tier_stays": (with_roles("data_hot", "data_hot", "data_warm+master", shards=(), budget=2), [[0, 1]]),
}


def names_of(rules: tuple[object, ...]) -> set[str]:
    return {getattr(rule, "__name__", "") for rule in rules}


def rules_of(findings: Sequence[Finding], severity: Severity | None = None) -> set[str]:
    return {finding.rule for finding in findings if severity in {None, finding.severity}}


def batches(*positions: Sequence[int]) -> list[list[Node]]:
    return [[CLUSTER.nodes[at] for at in batch] for batch in positions]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_healthy_cluster_has_no_findings(strategy: Strategy) -> None:
    assert check_plan(subject(strategy)) == ()
    assert check_batches(subject(strategy), batches([1], [2], [0])) == ()
    for node in CLUSTER.nodes:
        assert check_node(subject(strategy, node=node)) == ()


def test_every_rule_has_a_bad_cluster_here() -> None:
    assert names_of(PLAN_RULES) == BAD.keys() | WORTH_A_WORD.keys()
    assert names_of(BATCH_RULES) == BAD_ORDER.keys()
    assert names_of(NODE_RULES) <= names_of(PLAN_RULES) | names_of(BATCH_RULES)


@pytest.mark.parametrize("rule", sorted(BAD))
def test_rule_blocks_alone_and_tells_all(rule: str) -> None:
    findings = check_plan(BAD[rule])
    assert rules_of(findings, Severity.BLOCK) == {rule}
    for finding in findings:
        assert all((finding.subject, finding.reason, finding.evidence, finding.remedy))


@pytest.mark.parametrize("rule", sorted(WORTH_A_WORD))
def test_rule_warns_alone_and_tells_all(rule: str) -> None:
    (finding,) = check_plan(WORTH_A_WORD[rule])
    assert (finding.rule, finding.severity) == (rule, Severity.WARN)
    assert all((finding.subject, finding.reason, finding.evidence, finding.remedy))


@pytest.mark.parametrize("rule", sorted(BAD_ORDER))
def test_rule_blocks_an_order_alone_and_tells_all(rule: str) -> None:
    bad, order = BAD_ORDER[rule]
    (finding,) = (one for one in check_batches(bad, batches(*order)) if one.severity is Severity.BLOCK)
    assert finding.rule == rule
    assert all((finding.subject, finding.reason, finding.evidence, finding.remedy))


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ({"nodes": tuple(member(n, disk_total_bytes=None) for n in NAMES)}, "disk_room"),
        ({"nodes": tuple(member(n, disk_total_bytes=None) for n in NAMES)}, "disk_watermarks"),
        ({"elected": None}, "master_quorum"),
        ({"indices": (index(created_on=None, created_by=None),)}, "index_compatible"),
        ({"load_check": True, "nodes": tuple(member(n, load_1m=None) for n in NAMES)}, "load_low"),
        ({"backup_check": True, "snapshotted": None}, "indices_backed_up"),
        ({"running_snapshots": None}, "no_running_snapshot"),
        ({"running_work": None}, "no_running_work"),
        ({"settings": ClusterSettings({"cluster.max_shards_per_node": "many"})}, "shard_limit_room"),
        ({"settings": ClusterSettings({"cluster.routing.allocation.disk.watermark.low": "?"})}, "disk_watermarks"),
    ],
)
def test_unknown_is_never_healthy(what: dict[str, object], rule: str) -> None:
    assert rule in rules_of(check_plan(subject(**what)), Severity.BLOCK)


def test_what_only_warns_is_told_when_unknown() -> None:
    (finding,) = check_plan(subject(dangling=None))
    assert (finding.rule, finding.severity) == ("dangling_indices", Severity.WARN)
    assert "did not answer" in finding.evidence


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


def test_old_image_is_no_target() -> None:
    assert "target_differs" in {finding.rule for finding in check_plan(subject(image=OLD))}


def test_an_exclusion_is_recognised_however_it_names_a_member() -> None:
    for key, value in (
        ("_name", f"{NAMES[0][:-2]}*"),
        ("_id", f"id-{NAMES[0]}"),
        ("_ip", member(NAMES[0]).address),
        ("zone", "zone-a"),
    ):
        settings = ClusterSettings(persistent={f"cluster.routing.allocation.exclude.{key}": f"gone,{value}"})
        (finding,) = check_plan(subject(settings=settings))
        assert finding.rule == "no_leftover_excludes"
        assert f'"cluster.routing.allocation.exclude.{key}": "gone"' in finding.remedy
    gone = ClusterSettings(persistent={"cluster.routing.allocation.exclude._id": "id-lab*"})
    assert check_plan(subject(settings=gone)) == ()  # ids know no stars


def test_a_node_that_somebody_else_empties_is_left_alone() -> None:
    settings = ClusterSettings(transient={"cluster.routing.allocation.exclude._name": NAMES[0]})
    first, second = CLUSTER.nodes[:2]
    assert rules_of(check_node(subject(node=first, settings=settings))) == {"not_leaving"}
    assert check_node(subject(node=second, settings=settings)) == ()
    assert check_node(subject(node=first, settings=settings, own_tokens=frozenset({NAMES[0]}))) == ()


def test_the_newest_backup_is_old_or_lacks_shards() -> None:
    held = frozenset({"books"})
    now = seen().at
    for backup in (BackupSeen("s1", now - timedelta(days=3), 0), BackupSeen("s1", now, 2)):
        asked = subject(backup_check=True, snapshotted=held, backups={"books": backup})
        (finding,) = check_plan(asked)
        assert (finding.rule, finding.severity, finding.subject) == ("indices_backed_up", Severity.WARN, "books")
        assert "s1" in finding.evidence
    fresh = BackupSeen("s1", now - timedelta(hours=3), 0)
    assert check_plan(subject(backup_check=True, snapshotted=held, backups={"books": fresh})) == ()


@pytest.mark.parametrize(
    ("low", "headroom", "above"),
    [
        ("85%", None, True),
        ("0.85", None, True),
        ("90%", None, False),
        ("200b", None, True),
        ("100b", None, False),
        ("85%", "120b", False),
        ("85%", "-1", True),
    ],
)
def test_the_low_watermark_in_force(low: str, headroom: str | None, *, above: bool) -> None:
    key = "cluster.routing.allocation.disk.watermark.low"
    values = {key: low} | ({} if headroom is None else {key + ".max_headroom": headroom})
    nodes = (*(member(name) for name in NAMES[:2]), member(NAMES[2], disk_available_bytes=140))
    told = rules_of(check_plan(subject(nodes=nodes, settings=ClusterSettings(defaults=values))))
    assert told == ({"disk_watermarks"} if above else set())
    off = ClusterSettings({"cluster.routing.allocation.disk.threshold_enabled": "false"}, defaults=values)
    assert check_plan(subject(nodes=nodes, settings=off)) == ()


def test_a_full_neighbour_does_not_keep_a_drained_node_from_stopping() -> None:
    """It is full because it took that node's data, which is to return soon."""
    nodes = (*(member(name) for name in NAMES[:2]), member(NAMES[2], disk_available_bytes=140))
    (finding,) = check_node(subject(node=CLUSTER.nodes[0], nodes=nodes))
    assert (finding.rule, finding.severity) == ("disk_watermarks", Severity.WARN)
    full = check_node(subject(IN_PLACE, node=CLUSTER.nodes[2], nodes=nodes))
    assert rules_of(full, Severity.BLOCK) == {"disk_watermarks"}


def test_the_largest_shard_must_fit_on_one_node() -> None:
    nodes = tuple(member(name, disk_total_bytes=1000, disk_available_bytes=600) for name in NAMES)
    shards = (copy(NAMES[0], primary=True, size_bytes=650), copy(NAMES[1], primary=False, size_bytes=650))
    found = check_plan(subject(nodes=nodes, shards=shards))
    assert {finding.subject for finding in found} == set(NAMES[:2])
    assert all(finding.rule == "disk_room" and "largest" in finding.evidence for finding in found)


def test_data_stays_in_its_tier_and_in_its_zone_where_that_is_forced() -> None:
    hot = [member(name, roles=frozenset({"data_hot", "master"}), disk_available_bytes=250) for name in NAMES[:2]]
    asked = subject(nodes=(*hot, member(NAMES[2], disk_total_bytes=10**6, disk_available_bytes=10**6)))
    need = tuple(copy(name, primary=at == 0, size_bytes=200) for at, name in enumerate(NAMES[:2]))
    tiers = replace(asked, seen=replace(asked.seen, shards=need))
    assert {f.subject for f in check_plan(tiers) if f.rule == "disk_room"} == set(NAMES[:2])
    mixed = tuple(replace(node, roles=frozenset({"data", "master"})) for node in tiers.seen.nodes)
    assert check_plan(replace(tiers, seen=replace(tiers.seen, nodes=mixed))) == ()
    forced = {AWARENESS + "force.zone.values": "zone-a,zone-b", AWARENESS + "attributes": "zone"}
    zones = (*mixed[:2], replace(mixed[2], attributes={"zone": "zone-b"}))
    told = check_plan(replace(tiers, seen=replace(tiers.seen, nodes=zones, settings=ClusterSettings(forced))))
    assert {f.subject for f in told if f.rule == "disk_room"} == set(NAMES[:2])


def test_copies_of_unknown_size_count_as_all_that_is_used() -> None:
    nodes = tuple(member(name, disk_available_bytes=400) for name in NAMES)
    shards = (copy(NAMES[0], primary=True, size_bytes=None), copy(NAMES[1], primary=False))
    assert {f.subject for f in check_plan(subject(nodes=nodes, shards=shards))} == {NAMES[0]}


def test_a_closed_index_that_is_replicated_moves_like_others() -> None:
    shut = index("shut", closed=True)
    shards = (copy(NAMES[0], primary=True, index="shut"), copy(NAMES[1], primary=False, index="shut"))
    assert check_plan(subject(indices=(shut,), shards=shards)) == ()
    assert check_plan(subject(IN_PLACE, indices=(shut,))) == ()


def test_an_index_that_expands_needs_room_for_its_lower_bound_only() -> None:
    for value, fits in (("0-all", True), ("1-5", True), ("2-5", False), ("false", False)):
        one = index(replicas=2, settings={"index.auto_expand_replicas": value})
        assert (check_plan(subject(indices=(one,))) == ()) is fits, value


def test_elasticsearch_6_only_logs_too_many_shards() -> None:
    nodes = tuple(member(name, "6.8.23", engine=ES) for name in NAMES)
    settings = ClusterSettings({"cluster.max_shards_per_node": "1"})
    told = check_plan(subject(nodes=nodes, indices=(index(primaries=3),), settings=settings))
    assert "shard_limit_room" in rules_of(told, Severity.WARN)
    off = ClusterSettings({"cluster.max_shards_per_node": "-1"})
    assert "shard_limit_room" not in rules_of(check_plan(subject(indices=(index(primaries=3),), settings=off)))


def test_a_few_pending_tasks_are_normal() -> None:
    assert check_plan(subject(health=replace(GREEN, pending_tasks=10))) == ()
    assert rules_of(check_plan(subject(health=replace(GREEN, pending_tasks=11)))) == {"cluster_state_at_rest"}


def test_settings_that_will_be_archived_are_told_before() -> None:
    """Each was set on a real 2.19.4, or 7.10.2, and archived by the target."""
    key = "cluster.service.slow_master_task_logging_threshold"
    settings = ClusterSettings(persistent={key: "20s"}, transient={"search.remote.x": "1"})
    (finding,) = check_plan(subject(settings=settings))
    assert (finding.rule, finding.severity) == ("no_archived_settings", Severity.WARN)
    assert finding.remedy.endswith(
        f'PUT _cluster/settings {{"persistent": {{"{key}": null}}, "transient": {{"search.remote.x": null}}}}'
    )
    assert check_plan(subject(settings=ClusterSettings(transient={"search.max_buckets": "1"}))) == ()


def test_a_default_headroom_counts_only_while_the_watermark_is_the_default() -> None:
    key = "cluster.routing.allocation.disk.watermark.low"
    defaults = {key: "85%", key + ".max_headroom": "120b"}
    nodes = (*(member(name) for name in NAMES[:2]), member(NAMES[2], disk_available_bytes=140))
    assert check_plan(subject(nodes=nodes, settings=ClusterSettings(defaults=defaults))) == ()
    own = ClusterSettings(persistent={key: "85%"}, defaults=defaults)
    assert rules_of(check_plan(subject(nodes=nodes, settings=own))) == {"disk_watermarks"}
    both = ClusterSettings(persistent={key: "85%", key + ".max_headroom": "120b"})
    assert check_plan(subject(nodes=nodes, settings=both)) == ()


def test_the_remedy_of_an_archived_setting_is_the_request() -> None:
    settings = ClusterSettings(persistent={"archived.a": "1"}, transient={"archived.b": "2"})
    (finding,) = check_node(subject(node=CLUSTER.nodes[0], settings=settings))
    assert finding.evidence == "archived.a=1, archived.b=2"
    assert finding.remedy.endswith(
        'PUT _cluster/settings {"persistent": {"archived.*": null}, "transient": {"archived.*": null}}'
    )
