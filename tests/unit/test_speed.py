"""How fast copies may move, as a pure rule: bounded, careful, and never faster on what is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.model import Gates, NodeSeen
from shardlift.planner import Load, base_limit_bytes, judge_load, limit_bytes, limit_text, next_limit_bytes
from tests.observations import NAMES, member

MIB = 2**20
BASE = 40 * MIB
LOADS = st.sampled_from(list(Load))
IDLE = {"heap_used_percent": 40, "rejected_total": 0, "search_total": 0, "search_time_ms": 0}


def nodes(**odd: object) -> tuple[NodeSeen, ...]:
    """Three idle ones; the last with what is `odd`."""
    idle = tuple(member(name, **IDLE) for name in NAMES)
    return (*idle[:-1], replace(idle[-1], **odd))  # type: ignore[arg-type]


def judged(before: tuple[NodeSeen, ...], now: tuple[NodeSeen, ...], **gates: float) -> Load:
    return judge_load(before, now, Gates(**gates)).load  # type: ignore[arg-type]


@given(st.integers(1, 2**50), st.integers(1, 100), st.lists(LOADS, max_size=40))
def test_the_limit_is_bounded_whatever_comes(base: int, factor: int, loads: list[Load]) -> None:
    present = base
    for load in loads:
        before, present = present, next_limit_bytes(base, present, load, factor)
        assert base <= present <= base * factor
        assert present <= 2 * before
        if load is not Load.CALM:
            assert present <= before
        if load is Load.FAIR:
            assert present == before
        if load is Load.ALARM:
            assert present == base


@given(st.integers(1, 2**50), st.integers(1, 100), st.integers(0, 2**60))
def test_any_limit_comes_into_bounds(base: int, factor: int, present: int) -> None:
    """A factor that was made smaller meanwhile, too."""
    assert all(base <= next_limit_bytes(base, present, load, factor) <= base * factor for load in Load)


@given(st.integers(1, 2**50), st.integers(1, 100))
def test_calm_leads_to_the_top_and_load_back_to_the_base(base: int, factor: int) -> None:
    present = base
    for _ in range(7):
        present = next_limit_bytes(base, present, Load.CALM, factor)
    assert present == base * factor
    for _ in range(7):
        present = next_limit_bytes(base, present, Load.BUSY, factor)
    assert present == base


@pytest.mark.parametrize(
    ("odd", "load"),
    [
        ({}, Load.CALM),
        ({"load_1m": 0.7}, Load.CALM),
        ({"load_1m": 0.8}, Load.FAIR),  # of two processors
        ({"load_1m": 1.6}, Load.BUSY),
        ({"load_1m": None}, Load.ALARM),
        ({"processors": None}, Load.ALARM),
        ({"cpu_percent": 45}, Load.FAIR),
        ({"cpu_percent": 90}, Load.BUSY),
        ({"heap_used_percent": 74}, Load.CALM),
        ({"heap_used_percent": 75}, Load.FAIR),
        ({"heap_used_percent": 85}, Load.BUSY),
        ({"heap_used_percent": None}, Load.ALARM),
        ({"search_queue": 1000}, Load.BUSY),
        ({"write_queue": 100}, Load.FAIR),
        ({"rejected_total": 1}, Load.BUSY),
        ({"rejected_total": None}, Load.ALARM),
        ({"name": "a-1-new"}, Load.FAIR),
        ({"load_1m": 9.0, "cpu_percent": None}, Load.ALARM),
    ],
)
def test_one_node_decides_for_all(odd: dict[str, object], load: Load) -> None:
    assert judged(nodes(), nodes(**odd)) is load


def test_one_reading_is_not_enough_to_go_faster() -> None:
    assert judged((), nodes()) is Load.FAIR
    assert judged(nodes(), ()) is Load.ALARM
    assert judged((), nodes(cpu_percent=99)) is Load.BUSY, "and is enough to go slower"


def test_a_node_that_was_restarted_is_not_judged_by_its_counters() -> None:
    assert judged(nodes(rejected_total=7), nodes(rejected_total=0)) is Load.CALM


@pytest.mark.parametrize(
    ("latency_ms", "load"), [(30, Load.CALM), (45, Load.FAIR), (50, Load.FAIR), (51, Load.ALARM), (None, Load.ALARM)]
)
def test_latencies_are_judged_by_the_gates_of_the_task(latency_ms: int | None, load: Load) -> None:
    now = nodes(search_total=10, search_time_ms=None if latency_ms is None else 10 * latency_ms)
    assert judged(nodes(), now, search_latency_ms=50) is load
    assert judged(nodes(), now) is Load.CALM, "without a gate nobody knows what is slow"


def test_other_gates_of_the_task_hold_too() -> None:
    assert judged(nodes(), nodes(heap_used_percent=60), heap_percent=55) is Load.ALARM
    assert judged(nodes(), nodes(rejected_total=3), rejections=2) is Load.ALARM
    assert judged(nodes(), nodes(), disk_percent=5) is Load.CALM, "a full disk is not emptied by going slower"


FIGURES = {
    "load_1m": st.none() | st.floats(0, 9),
    "processors": st.none() | st.integers(1, 8),
    "cpu_percent": st.none() | st.integers(0, 100),
    "heap_used_percent": st.none() | st.integers(0, 100),
    "search_queue": st.none() | st.integers(0, 2000),
    "write_queue": st.none() | st.integers(0, 400),
    "rejected_total": st.none() | st.integers(0, 9),
}


@given(st.fixed_dictionaries(FIGURES), st.sampled_from(sorted(FIGURES)))
def test_what_is_not_known_is_never_healthy(figures: dict[str, object], lost: str) -> None:
    now = nodes(**figures)
    load = judged(nodes(), now)
    assert (load is Load.ALARM) == (None in figures.values())
    assert judged(nodes(), nodes(**{**figures, lost: None})) is Load.ALARM
    assert bool(judge_load(nodes(), now, Gates()).why) == (load is not Load.CALM)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("40mb", BASE),
        ("40MB", BASE),
        ("40m", BASE),
        ("1.5gb", 1536 * MIB),
        ("41943040b", BASE),
        ("0b", None),
        ("0", None),
        ("-1", None),
        ("-1b", None),
        ("", None),
        ("much", None),
        ("40 mb", None),
        ("9zz", None),
    ],
)
def test_limits_in_the_words_of_the_engines(text: str, size: int | None) -> None:
    assert limit_bytes(text) == size


@given(st.integers(1, 2**49))
def test_what_we_write_is_read_again_and_is_not_what_people_write(size: int) -> None:
    assert limit_bytes(limit_text(size)) == size
    assert limit_text(size) not in {f"{size // MIB}mb", f"{size // 1024}kb"}


def alike(text: str | None) -> dict[str, str | None]:
    return dict.fromkeys(NAMES, text)


@pytest.mark.parametrize(
    ("chosen", "configured", "default", "base"),
    [
        ("20mb", alike("10mb"), "40mb", 20 * MIB),
        (None, alike(None), "40mb", BASE),
        (None, alike("10mb"), "10mb", 10 * MIB),
        (None, {**alike(None), NAMES[0]: "10mb"}, "40mb", None),  # a weak node among others
        (None, {**alike("10mb"), NAMES[0]: "90mb"}, "10mb", None),
        (None, {NAMES[0]: None}, "40mb", None),  # not all have told
        (None, alike(None), None, None),
        ("-1", {}, "40mb", None),
        ("0", {}, "40mb", None),
        (None, alike("-1"), "-1", None),
    ],
)
def test_the_base_is_what_stands_on_all_nodes(
    chosen: str | None, configured: Mapping[str, str | None], default: str | None, base: int | None
) -> None:
    assert base_limit_bytes(chosen, configured, default, nodes()) == base


def test_nodes_that_elasticsearch_gives_a_limit_of_their_own_are_left_alone() -> None:
    cold = nodes(roles=frozenset({"data_cold", "data_frozen"}))
    assert base_limit_bytes(None, alike(None), "40mb", cold) is None
    assert base_limit_bytes("40mb", alike(None), None, cold) == BASE
    both = nodes(roles=frozenset({"data_cold", "data_hot"}))
    assert base_limit_bytes(None, alike(None), "40mb", both) == BASE
