"""What `make bench-moves` makes of what it has seen, and one small simulated run of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from shardlift.chaos.time import run_virtual
from shardlift.model import Strategy

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(TOOLS))
    yield importlib.import_module("bench_moves")
    for name in ("bench_moves", "bench_moves_real", "bench_moves_sim", "bench_moves_told", "plain_upgrade"):
        sys.modules.pop(name, None)


@pytest.fixture
def told(bench: ModuleType) -> ModuleType:
    del bench
    return importlib.import_module("bench_moves_told")


def test_the_error_of_eta_is_taken_at_a_quarter(told: ModuleType) -> None:
    course = told.Course([(0, None), (20, 1.0), (25, 90.0), (30, 70.0)])
    assert course.error(0, 100) == pytest.approx((90 - 75) / 75)
    assert told.Course([(10, 5.0), (80, 20.0)]).error(0, 100) is None, "told too late to count"


def test_a_missed_aim_is_told(bench: ModuleType, told: ModuleType) -> None:
    seen = {"ended": "SUCCESS", "bytes": 200, "wall_s": 100.0, "boots_s": 100.0, "eta_error": 0.1}
    good = told.told("simulated", 10, "drain", 100, **seen, walk_bytes=115)
    bad = told.told("simulated", 10, "drain", 100, **{**seen, "wall_s": 200.0, "eta_error": None}, walk_bytes=116)
    assert bench.verdicts([good]) == ["all aims are met"]
    assert [line.split(": ")[0] for line in bench.verdicts([bad])] == ["MISSED"] * 3
    assert (good["with_last_balancing"], good["aim"]) == (2.0, 1.155)


def test_a_drain_is_within_its_aim_where_the_plain_script_gets_stuck(bench: ModuleType) -> None:
    size = bench.Size(5, 4, 100 << 20)
    ours, plain = run_virtual(bench.simulated(size, Strategy.DRAIN)), run_virtual(bench.simulated_plain(size))
    assert ours["ended"] == "SUCCESS"
    assert ours["within_aim"]
    # With rebalancing on, replicas of primaries that have gone to upgraded nodes can go nowhere.
    assert plain["ended"].startswith("STUCK"), plain


def test_the_limit_of_surge_has_the_boot_of_the_spare(bench: ModuleType) -> None:
    size = bench.Size(3, 4, 100 << 20)
    ours, drain = (run_virtual(bench.simulated(size, one)) for one in (Strategy.SURGE, Strategy.DRAIN))
    assert ours["ended"] == drain["ended"] == "SUCCESS"
    assert ours["within_aim"]
    copied_s = [one["bytes_over_data"] * one["data_bytes"] / (40 << 20) for one in (ours, drain)]
    boots_s = [one["limit_s"] - copied for one, copied in zip((ours, drain), copied_s, strict=True)]
    assert boots_s[0] == pytest.approx(boots_s[1] * 4 / 3, rel=0.1), "four boots, not three"
