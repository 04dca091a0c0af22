"""How often a key may ask and an address be refused, and that whoever is right is never hindered by who is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardlift.api.limits import Buckets, site_of
from tests.api_world import assert_error
from tests.doors import BASE, HandClock, clusters, open_door


def test_a_bucket_lets_through_its_burst_and_then_its_rate() -> None:
    clock = HandClock()
    buckets = Buckets(2, 3, clock.elapsed_s)
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0]
    assert buckets.take("a") == 0.5
    assert buckets.take("b") == 0
    clock.forward(0.5)
    assert [buckets.take("a") > 0 for _ in range(2)] == [False, True]
    clock.forward(3600)
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_a_rate_of_zero_limits_nothing_and_keeps_nothing() -> None:
    buckets = Buckets(0, 1, HandClock().elapsed_s)
    assert {buckets.take("a") for _ in range(100)} == {0}
    assert len(buckets) == 0


def test_however_many_ask_the_table_stays_small() -> None:
    buckets = Buckets(1, 2, HandClock().elapsed_s, entries_max=10)
    for number in range(1000):
        buckets.take(str(number))
    assert len(buckets) == 10


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_its_own(address: str, site: str) -> None:
    assert site_of(address) == site


async def test_a_key_that_asks_too_often_is_told_when_to_come_back(fast_home: Path) -> None:
    async with open_door(fast_home, key_rate_per_s=0.5, key_rate_burst=3) as door:
        made = await door.service.create_project("one")
        other = await door.service.keys.create(made.project_id)
        assert [(await door.call(made, "GET", clusters(made))).status_code for _ in range(3)] == [200] * 3
        for token in (False, True):  # a key and its token are one
            refused = await door.call(made, "GET", clusters(made), token=token)
            assert_error(refused, 429, "APIGW.0308")
            assert refused.headers["retry-after"] == "2"
        assert (await door.call(other, "GET", clusters(made))).status_code == 200
        door.clock.forward(2)
        assert (await door.call(made, "GET", clusters(made))).status_code == 200


async def test_refused_sign_ins_are_bounded_by_address_and_hinder_nobody_else(fast_home: Path) -> None:
    async with open_door(fast_home, refused_rate_per_s=0.1, refused_rate_burst=5) as door:
        made = await door.service.create_project("one")
        wrong = replace(made, sk="wrong", token="wrong")
        answers = [await door.call(wrong, "GET", clusters(made), token=number % 2 == 0) for number in range(8)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
        assert_error(answers[-1], 429, "APIGW.0308")
        assert answers[-1].headers["retry-after"] == "10"
        assert (await door.call(wrong, "GET", clusters(made), client="198.51.100.1")).status_code == 401
        # The right key from the same address (a proxy, a shared machine) is let in all the time.
        assert (await door.call(made, "GET", clusters(made))).status_code == 200
        assert (await door.service.audit.list()).total == 6


async def test_who_brings_no_key_at_all_is_no_sign_in(fast_home: Path) -> None:
    async with open_door(fast_home, refused_rate_per_s=0.1, refused_rate_burst=1) as door:
        made = await door.service.create_project("one")
        for _ in range(5):
            assert (await door.send("GET", BASE + clusters(made), {})).status_code == 401
        assert (await door.service.audit.list()).total == 0
