"""What rules say of a change of zones: forced zones, disks of zones, and awareness that is turned on at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardlift.checks import check_plan, forced_zones, held_settings, turns_aware
from shardlift.model import AWARE_OF, FORCED_ZONES, ClusterSettings, ForcedZones, Severity
from tests.observations import NAMES, member, subject
from tests.unit.test_rules import AWARENESS, moved, rules_of


def zone_findings(*asked: object) -> list[tuple[str, Severity]]:
    found = check_plan(moved(*asked))  # type: ignore[arg-type]
    return [(one.rule, one.severity) for one in found if one.rule in {"zone_ceiling", "zones_present"}]


@pytest.mark.parametrize(
    ("forced", "replicas", "severity"),
    [
        ("zone-a,zone-b", 2, Severity.WARN),  # zone-a left in it there would be three zones, one copy in each
        ("zone-b", 2, Severity.WARN),  # zone-c is added
        ("zone-b,zone-c", 1, None),  # the list already names where the node goes
        (None, 2, None),
    ],
)
def test_forced_zones_that_a_move_empties(forced: str | None, replicas: int, severity: Severity | None) -> None:
    assert zone_findings({0: "zone-c"}, forced, replicas) == ([("zone_ceiling", severity)] if severity else [])


def test_what_becomes_of_forced_zones_is_told() -> None:
    (finding,) = (one for one in check_plan(moved({0: "zone-c"}, "zone-a,zone-b")) if one.rule == "zone_ceiling")
    assert finding.reason == "the forced zones will be zone-b during the move and zone-b,zone-c after it"
    (finding,) = (one for one in check_plan(moved({0: "zone-b"}, "zone-a")) if one.rule == "zone_ceiling")
    assert finding.reason == "the forced zones will be none during the move and zone-b after it"


def test_forced_zones_of_the_nodes_own_configuration_are_known_to_the_plan() -> None:
    asked = moved({0: "zone-c"}, None)
    forced = {FORCED_ZONES: "zone-a,zone-b"}
    configured = replace(asked.seen.settings, persistent={AWARENESS + "attributes": "zone"}, defaults=forced)
    asked = replace(asked, seen=replace(asked.seen, settings=configured))
    assert forced_zones(asked) == ForcedZones(("zone-a",), ("zone-c",), ("zone-a", "zone-b"))
    assert held_settings(asked).effective(FORCED_ZONES) == "zone-b"


def test_a_zone_that_is_emptied_may_fill_the_disks_of_others() -> None:
    """Two nodes in zone-a, one of them full: forced, its data would have to fit on the other one."""
    full = tuple(
        replace(node, disk_available_bytes=180) if node.name == NAMES[1] else node
        for node in moved({}, None).seen.nodes
    )
    zones = ("zone-a", "zone-a", "zone-b", "zone-b")
    nodes = tuple(replace(node, attributes={"zone": zone}) for node, zone in zip(full, zones, strict=True))
    for target, rules in (({0: "zone-c", 1: "zone-c"}, set()), ({0: "zone-c"}, {"disk_room"})):
        asked = moved(target, "zone-a,zone-b")
        assert rules_of(check_plan(replace(asked, seen=replace(asked.seen, nodes=nodes))), Severity.BLOCK) == rules


def test_awareness_is_turned_on_only_where_every_copy_has_a_place_in_the_end() -> None:
    def told(replicas: int, zones: dict[int, str], **more: object) -> tuple[bool, list[str]]:
        asked = moved(zones, None, replicas, "zone-b")
        seen = replace(asked.seen, settings=ClusterSettings(**more))  # type: ignore[arg-type]
        asked = replace(asked, seen=seen, spreads=True)
        return turns_aware(asked), [one.reason for one in check_plan(asked) if one.rule == "zone_ceiling"]

    assert told(1, {0: "zone-c"})[0]
    assert "will be kept apart by zone once" in told(1, {0: "zone-c"})[1][0]
    # Of four copies two at most in each zone, and one node in zone-c.
    assert told(3, {0: "zone-c"})[0] is False
    assert told(3, {0: "zone-c"})[1][0].endswith("books has 4 copies of each shard, and only 3 would fit")
    assert told(1, {0: "zone-b"})[1][0].endswith("data nodes are in zone-b only")
    for layer in ("persistent", "transient", "defaults"):
        assert told(1, {0: "zone-c"}, **{layer: {AWARE_OF: "rack"}}) == (False, []), "apart by something else already"


def test_a_move_that_leaves_too_few_places_is_refused_without_forced_zones_too() -> None:
    assert zone_findings({0: "zone-b"}, None, 2) == [], "one zone takes all"
    # A second zone with one node: of four copies two at most in each, and the new one has room for one.
    assert zone_findings({0: "zone-c"}, None, 3, "zone-b") == [("zone_ceiling", Severity.BLOCK)]
    assert zone_findings({0: "zone-c"}, None, 1, "zone-b") == []


def test_a_data_node_without_a_zone_takes_no_copies() -> None:
    settings = ClusterSettings({AWARENESS + "attributes": "zone"})
    nodes = (*(member(name) for name in NAMES[:2]), member(NAMES[2], attributes={}))
    (finding,) = check_plan(subject(nodes=nodes, settings=settings))
    assert (finding.rule, finding.severity, finding.subject) == ("zones_present", Severity.WARN, NAMES[2])
