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
    for name in ("bench_moves", "plain_upgrade"):
        sys.modules.pop(name, None)


def test_the_error_of_eta_is_taken_at_a_quarter(bench: ModuleType) -> None:
    course = bench.Course([(0, None), (20, 1.0), (25, 90.0), (30, 70.0)])
    assert course.error(0, 100) == pytest.approx((90 - 75) / 75)
    assert bench.Course([(10, 5.0), (80, 20.0)]).error(0, 100) is None, "told too late to count"


def test_a_missed_aim_is_told(bench: ModuleType) -> None:
    seen = {"ended": "SUCCESS", "bytes": 200, "wall_s": 100.0, "boots_s": 100.0, "eta_error": 0.1}
    good = bench.told("simulated", 10, "drain", 100, **seen, walk_bytes=115)
    bad = bench.told("simulated", 10, "drain", 100, **{**seen, "wall_s": 200.0, "eta_error": None}, walk_bytes=116)
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
