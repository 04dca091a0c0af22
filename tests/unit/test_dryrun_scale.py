"""A plan of a size at which shortcuts matter is as complete and legal as a small one."""

from __future__ import annotations

import pytest

from shardlift.model import Strategy
from shardlift.planner import draft_plan, forecast
from tests.clusters import Naive, big_subject


@pytest.mark.parametrize("kind", ["plain", "aware", "limited", "segment"])
def test_five_thousand_copies_on_a_hundred_nodes(kind: str):
    subject = big_subject(nodes=100, copies=5000, kind=kind)
    plan = draft_plan(subject)
    naive = Naive(subject, plan)
    told = forecast(subject, plan, naive.move)
    assert [node.name for node in told.nodes] == [node.name for node in plan.nodes]
    assert told.ends
    assert told.exhaustive
    assert not naive.wrong
    # Of a drained node every copy is accounted for.
    assert sum(node.copies for node in told.nodes) == naive.moves
    assert told.copies >= 5000
    assert told.waiting == 0


def test_in_place_nothing_moves_and_every_copy_waits_once():
    subject = big_subject(nodes=100, copies=5000, kind="plain", strategy=Strategy.IN_PLACE)
    told = forecast(subject, draft_plan(subject))
    assert (told.copies, told.size_bytes) == (0, 0)
    assert sum(node.waiting for node in told.nodes) == 5000
    assert not any(node.alone for node in told.nodes)
