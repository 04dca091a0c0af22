"""The probe must see each way in which a cluster can betray its clients; else its good word is worth nothing."""

from __future__ import annotations

import asyncio

import pytest

from shardlift.demo.client import Call, ClusterClient
from shardlift.demo.probe import Probe, Rates, Tally
from shardlift.demo.verify import Verified, verify_probe
from shardlift.errors import EngineError
from tests.unit.fake_cluster import FakeCluster, Faults

pytestmark = pytest.mark.walks

RATES = Rates(writes=300, searches=100)
# How long a call is sent again: where it must end well, that is no word about the machine; where it cannot, it is
# waited for.
PATIENT_S, BRIEF_S = 20.0, 1.0


async def probed(cluster: FakeCluster, *, deadline_s: float = PATIENT_S) -> tuple[Probe, Verified]:
    """Runs the probe until the cluster has seen enough, and reads back."""
    async with ClusterClient(cluster.urls, timeout_s=5, deadline_s=deadline_s) as client:
        probe = await run_probe(client, cluster)
        return probe, await verify_probe(client, cluster.urls, probe)


async def run_probe(client: ClusterClient, cluster: FakeCluster) -> Probe:
    probe = Probe(client, ["a", "b"], RATES)
    stop = asyncio.Event()
    running = asyncio.create_task(probe.run(stop))
    assert await asyncio.to_thread(cluster.reached.wait, 30)
    stop.set()
    async with asyncio.timeout(30):
        await running
    return probe


async def test_an_honest_cluster_loses_nothing():
    with FakeCluster() as cluster:
        probe, seen = await probed(cluster)
    assert seen.good
    assert seen.found == seen.acknowledged == probe.writes.sent == len(cluster.docs)
    assert probe.writes.failed == probe.writes.first_try_failed == probe.searches.failed == 0
    assert probe.searches.good == probe.searches.sent > 0
    assert probe.writes.latency_s(0.99) >= probe.writes.latency_s(0.5) > 0
    assert probe.writes.longest_gap_s > 0


async def test_lost_writes_are_named():
    with FakeCluster(faults=Faults(lose_every=7)) as cluster:
        probe, seen = await probed(cluster)
        stored = {doc_id for _, doc_id in cluster.docs}
    assert not seen.good
    assert len(seen.lost) == probe.writes.sent // 7
    assert not stored & set(seen.lost)
    assert seen.found == seen.acknowledged - len(seen.lost)


async def test_doubled_documents_are_counted():
    with FakeCluster(faults=Faults(double_every=10)) as cluster:
        probe, seen = await probed(cluster)
    assert not seen.good
    assert seen.surplus == probe.writes.sent // 10


async def test_changed_content_counts_as_lost():
    with FakeCluster(faults=Faults(alter_every=9)) as cluster:
        probe, seen = await probed(cluster)
    assert len(seen.lost) == probe.writes.sent // 9


async def test_a_refusing_node_costs_first_tries_and_nothing_else():
    with FakeCluster(faults=Faults(refuse_writes=frozenset({1}))) as cluster:
        probe, seen = await probed(cluster)
    assert seen.good
    assert probe.writes.failed == 0
    assert probe.writes.first_try_failed > 0
    assert "500" in probe.writes.errors[0]


async def test_a_write_whose_answer_was_lost_is_acknowledged_once_and_not_doubled():
    with FakeCluster(faults=Faults(apply_then_hang_up=frozenset({0}))) as cluster:
        probe, seen = await probed(cluster)
    assert seen.good
    assert probe.writes.failed == 0
    assert probe.writes.first_try_failed > 0


async def test_writes_that_no_node_takes_fail_and_are_not_called_lost():
    with FakeCluster(faults=Faults(refuse_writes=frozenset({0, 1, 2}))) as cluster:
        probe, seen = await probed(cluster, deadline_s=BRIEF_S)
    assert probe.writes.failed == probe.writes.sent
    assert probe.writes.longest_gap_s > 0
    assert seen.acknowledged == 0
    assert seen.good


async def test_searches_over_fewer_shards_are_no_answer():
    with FakeCluster(faults=Faults(partial_searches=frozenset({0, 1, 2}))) as cluster:
        probe, _ = await probed(cluster, deadline_s=BRIEF_S)
    assert probe.searches.failed == probe.searches.sent > 0


async def test_a_node_that_cannot_be_read_is_an_error_and_not_a_loss():
    with FakeCluster() as cluster:
        async with ClusterClient(cluster.urls, timeout_s=5, deadline_s=BRIEF_S) as client:
            probe = await run_probe(client, cluster)
            cluster.faults = Faults(hang_up=frozenset({2}))
            with pytest.raises(EngineError, match="could not be read back"):
                await verify_probe(client, cluster.urls, probe)


async def test_a_node_that_is_down_is_told_from_one_that_breaks_connections():
    with FakeCluster() as cluster, FakeCluster(nodes=1) as gone:
        dead = gone.urls
        gone.__exit__()
        async with ClusterClient([*dead, *cluster.urls], deadline_s=PATIENT_S) as client:
            probe = await run_probe(client, cluster)
    assert probe.writes.met_down > 0
    assert probe.writes.first_try_failed == probe.writes.failed == 0


async def test_our_own_mistakes_are_not_sent_again():
    with FakeCluster() as cluster:
        async with ClusterClient(cluster.urls) as client:
            call = Call("PUT", "/a/_doc/1?op_type=create", b"{}")
            assert (await client.call(call)).ok
            again = await client.call(call)
    assert again.status == 409
    assert len(again.errors) == 1


def test_the_gap_counts_from_the_beginning_and_between_good_answers():
    tally = Tally()
    tally.begin(10.0)
    tally.note_gap(12.5)
    tally.note_gap(13.0)
    assert tally.longest_gap_s == 2.5
