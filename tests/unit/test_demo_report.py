"""The demo's verdict: each thing that must not be makes it bad, and says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardlift.demo.client import ClusterClient, Outcome
from shardlift.demo.load import INDICES, share
from shardlift.demo.probe import Probe
from shardlift.demo.report import Report, boots_s, failing_step
from shardlift.demo.stage import Probed
from shardlift.demo.verify import Verified
from shardlift.model import Strategy, TaskStatus
from tests.unit.fake_service import IMAGE, a_task


def report(**changes: object) -> Report:
    """A good run, with changes to what was seen or to the report itself."""
    probe = Probe(ClusterClient(["http://127.0.0.1:1"]), ["a"])
    seen = Probed(
        result="SUCCESS",
        wall_s=4.0,
        probe=probe,
        verified=Verified(acknowledged=5, found=5, lost=(), surplus=0),
        loaded=10,
        loaded_found=10,
        versions={"n-1": "3.4.0", "n-2": "3.4.0"},
    )
    ours = {name: changes.pop(name) for name in ("status", "objections", "task") if name in changes}
    whole = Report(
        source="opensearch:2.19.4",
        target=IMAGE,
        strategy=Strategy.DRAIN,
        task=a_task(TaskStatus.SUCCESS, done=26),
        status="SUCCESS",
        seen=replace(seen, **changes),
        objections=(),
    )
    return replace(whole, **ours)


def test_a_good_run_has_no_problem():
    good = report()
    assert good.problems == ()
    figures = {name: value for name, _, value in good.figures()}
    assert (figures["boots_s"], figures["wall_per_boots"], figures["bytes_moved"]) == (2.0, 2.0, 4096)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "FAILED"}, "the task ended FAILED"),
        ({"versions": {"n-1": "3.4.0", "n-2": "2.19.4"}}, "nodes that do not run 3.4.0"),
        ({"versions": {"n-1": "3.4.0", "n-2": "no answer"}}, "nodes that do not run 3.4.0"),
        ({"verified": Verified(5, 4, ("x-3",), 0)}, "acknowledged documents that are gone: 1"),
        ({"verified": Verified(5, 5, (), 2)}, "more than once: 2"),
        ({"loaded_found": 9}, "of 10 loaded documents 9 are there"),
        ({"objections": ("completedNodes lost n-1",)}, "completedNodes lost n-1"),
    ],
)
def test_each_thing_that_must_not_be_is_a_problem(changes, words):
    (problem,) = report(**changes).problems
    assert words in problem


def test_a_call_that_failed_on_every_node_is_a_problem():
    bad = report()
    bad.seen.probe.searches.note(Outcome(503, None, ("n-1: 503", "n-2: 503")), due=0.0, now=1.0)
    (problem,) = bad.problems
    assert "searches that failed on every node: 1" in problem


def test_the_failing_sub_step_is_told_with_its_evidence():
    task = a_task(TaskStatus.FAILED, done=10)
    rows = [replace(row, evidence={"log": ["line one", "line two"]}) if row.order == 10 else row for row in task.steps]
    told = "\n".join(failing_step(replace(task, steps=tuple(rows))))
    assert "books-ess-esn-1-1: 10 Node start" in told
    assert "line two" in told
    assert boots_s(task) == 0
    assert failing_step(a_task()) == []


@pytest.mark.parametrize("documents", [1, 3, 4, 10_001])
def test_documents_are_dealt_to_the_indices_without_a_rest(documents):
    assert sum(share(documents, index) for index in INDICES) == documents
