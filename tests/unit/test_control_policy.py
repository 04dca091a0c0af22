"""Windows, gates and their words: pure questions and answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.checks.gates import gate_findings, gates_unknown
from shardlift.errors import UsageError
from shardlift.model import Gates, Observation, OnBreach, Policy, Window, next_opening, open_at
from shardlift.service.policies import policy_from_words
from shardlift.store.codec import policy_from, policy_to_json
from tests.observations import NAMES, member
from tests.observations import seen as healthy

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "opens", "closed"),
    [
        ("mon-fri 01:00-05:00", [at(0, 1), at(4, 4, 59)], [at(0, 0, 59), at(0, 5), at(5, 2), at(6, 2)]),
        ("sat,sun 22:00-04:00", [at(5, 22), at(6, 3), at(7, 3, 59)], [at(5, 21), at(6, 4), at(7, 4), at(7, 22)]),
        ("fri-mon 10:00-11:00", [at(4, 10), at(5, 10), at(6, 10), at(7, 10)], [at(1, 10), at(3, 10)]),
        ("01:00-02:00 +02:00", [at(0, 23), at(3, 23, 59)], [at(0, 1), at(1, 0)]),
        ("daily 01:00-02:00 -03:30", [at(0, 4, 30)], [at(0, 1, 30), at(0, 5, 30)]),
        # Winter time is an hour ahead of UTC in Berlin, summer time two.
        ("mon 01:00-05:00 Europe/Berlin", [at(0, 0), at(0, 3, 59), at(26 * 7, 2, 59)], [at(0, 4), at(26 * 7, 3)]),
        ("wed 00:00-24:00", [at(2, 0), at(2, 23, 59)], [at(1, 23, 59), at(3, 0)]),
        ("wed 09:00-09:00", [at(2, 9), at(3, 8, 59)], [at(2, 8, 59), at(3, 9)]),
    ],
)
def test_when_a_window_is_open(text: str, opens: list[datetime], closed: list[datetime]) -> None:
    windows = (Window.parse(text),)
    assert Window.parse(str(windows[0])) == windows[0]
    for moment in opens:
        assert open_at(windows, moment), moment
        assert next_opening(windows, moment) == moment
    for moment in closed:
        assert not open_at(windows, moment), moment
        assert next_opening(windows, moment) > moment


def test_no_windows_are_always_open_and_the_nearest_of_several_counts() -> None:
    assert open_at((), MONDAY)
    assert next_opening((), MONDAY) == MONDAY
    windows = tuple(Window.parse(text) for text in ("thu 03:00-04:00", "tue 05:00-06:00 -01:00"))
    assert next_opening(windows, MONDAY) == at(1, 6)


def test_clocks_put_forward_and_back() -> None:
    """Berlin leaves out 02:00 to 03:00 on 29 March 2026, and has it twice on 25 October."""
    gone = (Window.parse("sun 02:00-03:00 Europe/Berlin"),)
    assert next_opening(gone, datetime(2026, 3, 28, tzinfo=UTC)) == datetime(2026, 4, 5, tzinfo=UTC)
    over = (Window.parse("sun 01:30-04:00 Europe/Berlin"),)
    assert next_opening(over, datetime(2026, 3, 29, tzinfo=UTC)) == datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    assert open_at(over, datetime(2026, 3, 29, 1, 59, tzinfo=UTC))
    assert not open_at(over, datetime(2026, 3, 29, 2, 0, tzinfo=UTC))
    assert open_at(over, datetime(2026, 10, 25, 2, 59, tzinfo=UTC))


@given(
    days=st.frozensets(st.integers(0, 6), min_size=1),
    begin=st.integers(0, 1439),
    end=st.integers(0, 1440),
    minutes=st.integers(0, 14 * 1440),
    zone=st.sampled_from(["UTC", "+05:45", "America/New_York", "Pacific/Auckland"]),
)
def test_a_window_is_open_when_it_is_said_to_open(
    days: frozenset[int], begin: int, end: int, minutes: int, zone: str
) -> None:
    window = Window(days, begin, end, zone)
    now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    opens = next_opening((window,), now)
    assert opens >= now
    assert open_at((window,), opens)
    assert open_at((window,), now) is (opens == now)
    assert Window.parse(str(window)) == window


@pytest.mark.parametrize(
    "text",
    ["", "mon", "mon 1:00-2:00", "mon 25:00-26:00", "mon 01:60-02:00", "mon 24:30-02:00", "xyz 01:00-02:00",
     "mon-xyz 01:00-02:00", "mon 01:00-02:00 Nowhere/City", "mon 01:00-02:00 ../etc/passwd", "mon 01:00-02:00 UTC x",
     "mon 01:00-02:00 +99:99", "mon 01:00-02:00 Europe", "mo 01:00-02:00", "01:00"],
)  # fmt: skip
def test_words_that_are_no_window(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        policy_from_words(False, [], [text])
    assert (refused.value.field, refused.value.value) == ("window", text)
    assert "01:00-05:00" in (refused.value.remedy or "")


def test_words_to_policy_and_through_the_database() -> None:
    policy = policy_from_words(
        True,
        ["search_latency_ms=200", "rejections=0", "heap_percent=85.5", "on_breach=pause", "wait_timeout_s=60"],
        ["mon-fri 01:00-05:00 Europe/Berlin"],
    )
    assert policy.gates == Gates(
        search_latency_ms=200, rejections=0, heap_percent=85.5, on_breach=OnBreach.PAUSE, wait_timeout_s=60
    )
    for one in (policy, Policy(), Policy(gates=Gates(disk_percent=1))):
        assert policy_from(policy_to_json(one)) == one
    assert policy_from({}) == Policy(), "what a task of an older release has"


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("search_latency_ms", "gate"),
        ("load=3", "gate"),
        ("on_breach=wait", "gate"),
        ("heap_percent=101", "heap_percent"),
        ("heap_percent=-1", "heap_percent"),
        ("disk_percent=nan", "disk_percent"),
        ("write_latency_ms=inf", "write_latency_ms"),
        ("rejections=1.5", "rejections"),
        ("search_latency_ms=fast", "search_latency_ms"),
    ],
)
def test_words_that_are_no_gate(word: str, field: str) -> None:
    with pytest.raises(UsageError) as refused:
        policy_from_words(False, [word], [])
    assert refused.value.field == field
    assert refused.value.remedy


def test_gates_twice_and_unknown_ways() -> None:
    with pytest.raises(UsageError, match="twice"):
        policy_from_words(False, ["rejections=1", "rejections=2"], [])
    with pytest.raises(UsageError, match="closed gate"):
        policy_from_words(False, ["rejections=1", "on_breach=ignore"], [])


A, B = NAMES[:2]
COUNTERS = {"search_total": 100, "search_time_ms": 1000, "write_total": 50, "write_time_ms": 100, "rejected_total": 7}


def seen(*changes: dict[str, object], names: tuple[str, ...] = (A, B)) -> Observation:
    padded = (*changes, *({} for _ in names))
    nodes = [
        member(name, heap_used_percent=40, disk_total_bytes=100, disk_available_bytes=60, **COUNTERS, **more)
        for name, more in zip(names, padded, strict=False)
    ]
    return healthy(nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("gates", "change", "rules"),
    [
        (Gates(search_latency_ms=20), {"search_total": 110, "search_time_ms": 1200}, []),
        (Gates(search_latency_ms=19), {"search_total": 110, "search_time_ms": 1200}, ["gate_search_latency"]),
        (Gates(search_latency_ms=0), {}, []),  # nothing was searched
        (Gates(search_latency_ms=5), {"search_total": 3, "search_time_ms": 9000}, []),  # a new process
        (Gates(search_latency_ms=5), {"search_total": None}, ["gate_search_latency"]),
        (Gates(write_latency_ms=1), {"write_total": 51, "write_time_ms": 102}, ["gate_write_latency"]),
        (Gates(write_latency_ms=2), {"write_total": 51, "write_time_ms": 102}, []),
        (Gates(rejections=0), {"rejected_total": 8}, ["gate_rejections"]),
        (Gates(rejections=1), {"rejected_total": 8}, []),
        (Gates(rejections=0), {"rejected_total": 0}, []),
        (Gates(heap_percent=85), {"heap_used_percent": 86}, ["gate_heap"]),
        (Gates(heap_percent=85), {"heap_used_percent": None}, ["gate_heap"]),
        (Gates(disk_percent=80), {"disk_available_bytes": 19}, ["gate_disk"]),
        (Gates(disk_percent=80), {"disk_available_bytes": 20}, []),
        (Gates(disk_percent=80), {"disk_total_bytes": None}, ["gate_disk"]),
        (Gates(), {"heap_used_percent": 100}, []),
    ],
)
def test_gates_between_two_readings(gates: Gates, change: dict[str, object], rules: list[str]) -> None:
    now = seen()
    changed = replace(now, nodes=(replace(now.nodes[0], **change), *now.nodes[1:]))
    findings = gate_findings(seen(), changed, gates)
    assert [finding.rule for finding in findings] == rules
    assert all(finding.subject == A and finding.evidence and finding.remedy for finding in findings)


def test_a_node_of_only_one_reading_has_no_counters_to_compare() -> None:
    gates = Gates(search_latency_ms=0, rejections=0, heap_percent=30)
    found = gate_findings(seen(names=(A,)), seen(names=(A, B)), gates)
    assert [(finding.rule, finding.subject) for finding in found] == [("gate_heap", A), ("gate_heap", B)]


def test_no_answer_closes_every_gate() -> None:
    found = gates_unknown(Gates(rejections=0, disk_percent=90), "no elected master")
    assert [finding.rule for finding in found] == ["gate_rejections", "gate_disk"]
    assert all("no elected master" in finding.evidence for finding in found)
