"""No setting that an engine has forgotten reaches a node of it: it would not start."""

from __future__ import annotations

import pytest

from shardlift.driver.translate import Release, translate
from shardlift.model import EngineKind, Version
from tests.removed_settings import GONE

CASES = [(engine, version, name) for (engine, version), names in GONE.items() for name in names]


@pytest.mark.parametrize(("engine", "version", "name"), CASES, ids=[f"{case[1]}-{case[2]}" for case in CASES])
def test_what_an_engine_no_longer_knows_is_renamed_or_dropped_and_told(engine: str, version: str, name: str) -> None:
    target = Release(EngineKind(engine), Version.parse(version))
    out, notes = translate(f"{name}: 7\nnode.name: n1\n", target)
    kept = [line for line in out.splitlines() if line != "node.name: n1"]
    forgotten = set(GONE[engine, version])
    assert len(kept) <= 1
    assert not [line for line in kept if line.split(":")[0] in forgotten]
    assert len(notes) == 1
    assert notes[0].startswith(name)


@pytest.mark.parametrize("version", ["7.10.2", "7.17.29", "8.19.21"])
@pytest.mark.parametrize("name", ["keep_alive", "no_delay", "reuse_address", "send_buffer_size", "receive_buffer_size"])
def test_what_is_below_transport_tcp_stays_where_it_still_is(version: str, name: str) -> None:
    text = f"transport.tcp.{name}: true\n"
    assert translate(text, Release(EngineKind.ELASTICSEARCH, Version.parse(version))) == (text, ())


def test_a_setting_is_kept_for_a_release_that_knows_it() -> None:
    text = "thread_pool.search.max_queue_size: 100\ngateway.expected_nodes: 3\nwlm.query_group.mode: enabled\n"
    assert translate(text, Release(EngineKind.OPENSEARCH, Version.parse("2.19.4"))) == (text, ())
