"""Settings on their way from one version to another."""

from __future__ import annotations

import pytest

from shardlift.driver.translate import Release, role_words, translate
from shardlift.model import EngineKind, Version

ES = EngineKind.ELASTICSEARCH
OS = EngineKind.OPENSEARCH


def release(engine: EngineKind, version: str, *, secured: bool = False) -> Release:
    return Release(engine, Version.parse(version), secured)


def test_a_fitting_file_comes_back_as_it_was() -> None:
    text = '# ours\ncluster.name: "x"  # name\n\nnode.attr.zone: a\npath:\n  data: /d\n'
    assert translate(text, release(OS, "3.4.0")) == (text, ())


def test_six_to_seven_renames_transport_and_seeds_and_drops_the_quorum() -> None:
    text = (
        "transport.tcp.port: 9300\n"
        'discovery.zen.ping.unicast.hosts: ["127.0.0.2:9300", "127.0.0.3:9300"]\n'
        "discovery.zen.minimum_master_nodes: 2\n"
        "node.name: n1\n"
    )
    out, notes = translate(text, release(ES, "7.10.2"))
    assert out == ('transport.port: 9300\ndiscovery.seed_hosts: ["127.0.0.2:9300", "127.0.0.3:9300"]\nnode.name: n1\n')
    assert len(notes) == 3
    assert any("minimum_master_nodes was dropped" in note for note in notes)


@pytest.mark.parametrize(
    "text",
    [
        "transport.tcp.port: 9300\n",
        "transport.tcp:\n  port: 9300\n",
        "transport:\n  tcp:\n    port: 9300\n",
        'transport.tcp.port:   9300 # with "words"\n',
    ],
)
def test_any_way_of_writing_a_setting_is_understood(text: str) -> None:
    assert translate(text, release(OS, "1.3.20"))[0] == "transport.port: 9300\n"


def test_a_nested_section_keeps_what_need_not_change() -> None:
    text = "discovery:\n  zen:\n    ping.unicast.hosts:\n      - a\n      - b:9301\n  seed_resolver:\n    timeout: 5s\n"
    out, _ = translate(text, release(ES, "7.17.28"))
    assert out == 'discovery.seed_hosts: ["a", "b:9301"]\ndiscovery.seed_resolver.timeout: "5s"\n'


@pytest.mark.parametrize(
    "written", ["[master, data]", '["master","data"]', "\n- master\n- data", "\n  - master\n  - data"]
)
def test_the_role_word_changes_at_opensearch_two(written: str) -> None:
    out, notes = translate(f"node.roles: {written}\n", release(OS, "2.19.4"))
    assert out == 'node.roles: ["cluster_manager", "data"]\n'
    assert len(notes) == 1
    assert translate(f"node.roles: {written}\n", release(OS, "1.3.20"))[1] == ()


def test_role_booleans_become_a_list() -> None:
    out, notes = translate("node.master: true\nnode.data: false\n", release(OS, "2.19.4"))
    assert out == 'node.roles: ["cluster_manager", "ingest"]\n'
    assert len(notes) == 1
    assert translate("node.master: false\nnode.data: false\nnode.ingest: false\n", release(ES, "8.19.0"))[0] == (
        "node.roles: []\n"
    )
    assert translate("node.master: true\n", release(ES, "8.19.0"))[0].strip() == ""
    assert translate("node.master: true\n", release(ES, "7.8.0"))[0] == "node.master: true\n"


def test_initial_masters_never_come_along() -> None:
    text = "cluster.initial_master_nodes: [n1]\ncluster.initial_cluster_manager_nodes:\n  - n1\na.b: 1\n"
    out, notes = translate(text, release(OS, "2.19.4"))
    assert out == "a.b: 1\n"
    assert len(notes) == 2


def test_x_pack_is_dropped_for_opensearch_and_switched_off_where_it_comes_new() -> None:
    assert translate("xpack.security.enabled: true\nxpack.ml.enabled: false\n", release(OS, "1.3.20"))[0].strip() == ""
    out, notes = translate("a.b: 1\n", release(ES, "8.19.0", secured=True))
    assert out == "a.b: 1\nxpack.security.enabled: false\n"
    assert len(notes) == 1
    kept = "xpack:\n  security:\n    enabled: true\n"
    assert translate(kept, release(ES, "8.19.0", secured=True)) == (kept, ())


def test_translating_twice_changes_nothing_more() -> None:
    text = "transport.tcp.port: 1\nnode.master: false\nnode.roles_like: 1\ndiscovery.zen.fd.ping_timeout: 3s\n"
    target = release(OS, "3.4.0")
    once, _ = translate(text, target)
    assert translate(once, target) == (once, ())


def test_roles_of_elasticsearch_that_opensearch_does_not_have() -> None:
    assert role_words(("master", "data_hot", "data_content", "ml"), release(OS, "1.3.20")) == ("master", "data")
    assert role_words(("cluster_manager",), release(ES, "7.10.2")) == ("master",)
