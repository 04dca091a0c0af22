"""A node's files through an upgrade: kept, translated, and whole after a crash at any point."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from shardlift.driver.render import in_zone
from shardlift.errors import DriverError
from tests.driver_fakes import FakeHost, open_home
from tests.engine.plugin import install

pytestmark = pytest.mark.walks

KEY = "task-1"


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with open_home() as home:
        yield FakeHost(home)


async def edit(host: FakeHost) -> None:
    """What an owner does to a node's configuration, and some data."""
    config = host.root / "config"
    (config / "jvm.options").write_text((config / "jvm.options").read_text().replace("9-:", "#9-:") + "-Dmine=1\n")
    (config / "jvm.options.d").mkdir()
    (config / "jvm.options.d" / "own.options").write_text("-Xlog:safepoint\n")
    (config / "opensearch.keystore").write_text("secret")
    with (config / "opensearch.yml").open("a") as yml:
        yml.write("node.roles: [master]\nindices.recovery.max_bytes_per_sec: 1mb\n")
    (host.root / "data" / "shard").write_text("rows")


async def test_create_renders_for_the_place_of_the_node(host: FakeHost) -> None:
    await host.create()
    await host.create()
    options = (host.root / "config" / "jvm.options").read_text().splitlines()
    assert f"-XX:ErrorFile={host.root}/logs/hs_err_pid%p.log" in options
    assert f"9-:-Xlog:gc*:file={host.root}/logs/gc.log:utctime" in options
    assert f"-XX:HeapDumpPath={host.root}/logs" in options
    assert "-Xmx256m" in options
    assert "-Xmx1g" not in options
    assert not any("incubator" in line for line in options)
    yml = (host.root / "config" / "opensearch.yml").read_text()
    assert 'network.host: "127.44.0.1"' in yml
    assert 'discovery.seed_hosts: ["127.44.0.1:9300"]' in yml
    assert "initial" not in yml


async def test_the_owners_changes_come_along_and_the_rest_is_the_targets(host: FakeHost) -> None:
    await host.create()
    await edit(host)
    backup = await host.driver.backup(host.node, key=KEY)
    assert "opensearch.keystore" in backup.files
    assert await host.driver.switch(host.node, host.target, key=KEY, fresh_data=False)
    restored = await host.driver.restore(host.node, host.target, key=KEY)
    config = host.root / "config"
    options = (config / "jvm.options").read_text().splitlines()
    assert "-Dmine=1" in options
    assert "-Dfor.version=3.4.0" in options
    assert "-Dfor.version=2.19.4" not in options
    assert not any(line.startswith("9-:") for line in options)
    assert (config / "log4j2.properties").read_text() == "status = error\nversion = 3.4.0\n"
    assert (config / "new.conf").exists()
    assert (config / "opensearch.keystore").read_text() == "secret"
    yml = (config / "opensearch.yml").read_text()
    assert 'node.roles: ["cluster_manager"]' in yml
    assert "indices.recovery.max_bytes_per_sec: 1mb" in yml
    assert restored.translated == ("node.roles is now cluster_manager",)
    assert set(restored.kept) == {"jvm.options", "jvm.options.d/own.options", "opensearch.keystore"}
    assert (host.root / "data" / "shard").read_text() == "rows"
    again = await host.driver.restore(host.node, host.target, key=KEY)
    assert (again.already, again.translated, again.kept) == (True, restored.translated, restored.kept)


async def test_a_backup_is_made_once_per_key_and_a_damaged_one_is_refused(host: FakeHost) -> None:
    await host.create()
    first = await host.driver.backup(host.node, key=KEY)
    assert await host.driver.backup(host.node, key=KEY) == first
    assert (host.root / "host.log").read_text().count('"backup"') == 1
    (host.root / "config" / "later.txt").write_text("x")
    assert (await host.driver.backup(host.node, key="task-2")).digest != first.digest
    archive = host.root / "backups" / KEY / "config.tar"
    archive.write_bytes(archive.read_bytes().replace(b"Dfor.version", b"Dxxx.version"))
    with pytest.raises(DriverError, match="damaged"):
        await host.driver.restore(host.node, host.target, key=KEY)
    assert (host.root / "config" / "later.txt").exists()


async def test_what_is_changed_until_the_rebuild_comes_along(host: FakeHost) -> None:
    """By whoever starts the node once more, half changed, or mends what has kept it from being changed."""
    await host.create()
    install(host.store.engine_path("img-a"), name="tiny", version="2.19.4")
    first = await host.driver.backup(host.node, key=KEY)
    await host.driver.switch(host.node, host.target, key=KEY, fresh_data=False)
    await edit(host)
    second = await host.driver.backup(host.node, key=KEY)
    assert (first.files, second.files) == (
        ("jvm.options", "log4j2.properties", "opensearch.yml"),
        ("jvm.options", "jvm.options.d/own.options", "log4j2.properties", "opensearch.keystore", "opensearch.yml"),
    )
    assert [plugin.name for plugin in second.plugins] == ["tiny"], "those of the engine that is replaced"
    with (host.root / "config" / "opensearch.yml").open("a") as yml:
        yml.write("node.attr.rack: r7\n")
    await host.driver.restore(host.node, host.target, key=KEY)
    yml_now = (host.root / "config" / "opensearch.yml").read_text()
    assert "node.attr.rack: r7" in yml_now, "also of a node that stayed down"
    third = await host.driver.backup(host.node, key=KEY)
    (host.root / "config" / "opensearch.yml").write_text(yml_now + "node.attr.rank: 1\n")
    assert await host.driver.backup(host.node, key=KEY) == third, (
        "rebuilt, it is what the owner changes, and kept as it is"
    )
    assert (await host.driver.restore(host.node, host.target, key=KEY)).already
    assert "node.attr.rank: 1" in (host.root / "config" / "opensearch.yml").read_text()
    assert len(list((host.root / "backups" / KEY).glob("*.tar"))) == 1


async def test_a_configuration_that_has_lost_its_settings_takes_no_backups_place(host: FakeHost) -> None:
    await host.create()
    first = await host.driver.backup(host.node, key=KEY)
    (host.root / "config" / "opensearch.yml").unlink()
    assert await host.driver.backup(host.node, key=KEY) == first
    await host.driver.restore(host.node, host.target, key=KEY)
    assert "node.name" in (host.root / "config" / "opensearch.yml").read_text()


async def test_settings_that_are_no_utf8_are_told_before_the_node_stops_and_mended_after(host: FakeHost) -> None:
    await host.create()
    yml = host.root / "config" / "opensearch.yml"
    good = yml.read_bytes()
    yml.write_bytes(good + b"# von J\xf6rg\n")
    line = len(good.splitlines()) + 1
    with pytest.raises(DriverError, match=rf"opensearch\.yml, line {line}, is not UTF-8"):
        await host.driver.backup(host.node, key=KEY)
    yml.write_bytes(good)
    await host.driver.backup(host.node, key=KEY)
    yml.write_bytes(good + b"# von J\xf6rg\n")
    with pytest.raises(DriverError, match="is not UTF-8"):
        await host.driver.restore(host.node, host.target, key=KEY)
    yml.write_bytes(good + b"# von J\xc3\xb6rg\n")
    await host.driver.restore(host.node, host.target, key=KEY)
    assert "Jörg" in yml.read_text("utf-8")


async def test_restore_without_a_backup_is_refused(host: FakeHost) -> None:
    await host.create()
    with pytest.raises(DriverError, match="no configuration backup"):
        await host.driver.restore(host.node, host.target, key="other")


async def test_fresh_data_is_set_aside_once_and_discarded_on_demand(host: FakeHost) -> None:
    await host.create()
    (host.root / "data" / "shard").write_text("rows")
    assert await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    assert list((host.root / "data").iterdir()) == []
    assert (host.root / f"data.{KEY}" / "shard").read_text() == "rows"
    (host.root / "data" / "new").write_text("moved in")
    assert not await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    await host.driver.discard(host.node, key=KEY)
    assert not (host.root / f"data.{KEY}").exists()
    assert not await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    assert (host.root / "data" / "new").read_text() == "moved in"
    await host.driver.discard(host.node, key=KEY)
    lines = (host.root / "host.log").read_text()
    assert (lines.count('"switch"'), lines.count('"discard"')) == (1, 1)


async def test_a_node_whose_disk_was_lost_gets_a_fresh_one(host: FakeHost) -> None:
    await host.create()
    shutil.rmtree(host.root / "data")
    assert await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    assert list((host.root / "data").iterdir()) == []
    assert not await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    await host.driver.discard(host.node, key=KEY)
    assert not list(host.root.glob("data.*"))


async def test_a_data_folder_changes_hands_once(host: FakeHost) -> None:
    spare = replace(host.node, name="spare")
    await host.create()
    await host.driver.create(spare, host.target, seeds=(host.node,), heap_mib=256)
    folder = host.root.parent / "spare"
    (folder / "data" / "shard").write_text("rows")
    (host.root / "data" / "old").write_text("older rows")
    with pytest.raises(DriverError, match="not empty"):
        await host.driver.hand_over(spare, host.node, key=KEY)
    assert await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    assert await host.driver.hand_over(spare, host.node, key=KEY)
    assert (host.root / "data" / "shard").read_text() == "rows"
    assert list((folder / "data").iterdir()) == []
    (folder / "data" / "other").write_text("of a later life")
    assert not await host.driver.hand_over(spare, host.node, key=KEY)
    assert sorted(path.name for path in (host.root / "data").iterdir()) == ["shard"]
    assert (host.root / "host.log").read_text().count('"hand over"') == 1


async def test_what_a_start_has_put_into_the_empty_folder_is_set_aside(host: FakeHost) -> None:
    """Somebody started the node between `switch` and the hand-over; nothing of it is deleted before `discard`."""
    spare = replace(host.node, name="spare")
    await host.create()
    await host.driver.create(spare, host.target, seeds=(host.node,), heap_mib=256)
    (host.root.parent / "spare" / "data" / "shard").write_text("rows")
    (host.root / "data" / "old").write_text("older rows")
    await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    (host.root / "data" / "node.lock").write_text("")
    assert await host.driver.hand_over(spare, host.node, key=KEY)
    assert [path.name for path in (host.root / "data").iterdir()] == ["shard"]
    assert sorted(path.name for one in host.root.glob("data.*") for path in one.iterdir()) == ["node.lock", "old"]
    await host.driver.discard(host.node, key=KEY)
    assert not list(host.root.glob("data.*"))


@pytest.mark.parametrize("done", ["emptied", "renamed"])
async def test_a_data_folder_that_was_half_handed_over_gets_there(host: FakeHost, done: str) -> None:
    """Killed after each rename: what is left is told by which folder there is."""
    spare = replace(host.node, name="spare")
    await host.create()
    await host.driver.create(spare, host.target, seeds=(host.node,), heap_mib=256)
    folder = host.root.parent / "spare"
    (folder / "data" / "shard").write_text("rows")
    await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)
    (host.root / "data").rmdir()
    if done == "renamed":
        (folder / "data").rename(host.root / "data")
    assert await host.driver.hand_over(spare, host.node, key=KEY)
    assert (host.root / "data" / "shard").read_text() == "rows"
    assert list((folder / "data").iterdir()) == []


async def _create(host: FakeHost) -> None:
    await host.create()


async def _backup(host: FakeHost) -> None:
    await host.driver.backup(host.node, key=KEY)


async def _switch(host: FakeHost) -> None:
    await host.driver.switch(host.node, host.target, key=KEY, fresh_data=True)


async def _restore(host: FakeHost) -> None:
    await host.driver.restore(host.node, host.target, key=KEY)


async def _edit_again(host: FakeHost) -> None:
    with (host.root / "config" / "opensearch.yml").open("a") as yml:
        yml.write("node.attr.rack: r7\n")


async def _discard(host: FakeHost) -> None:
    await host.driver.discard(host.node, key=KEY)


Step = Callable[[FakeHost], Coroutine[Any, Any, None]]
STEPS: tuple[Step, ...] = (_create, edit, _backup, _switch, _edit_again, _backup, _restore, _discard)
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.chown", "os.chmod", "shutil.rmtree")


def _die_at(point: int, work: Coroutine[Any, Any, None]) -> bool:
    """Does the work in a process of its own that dies, as by kill -9, before its `point`-th change of the disk.

    Returns whether it died.
    """
    pid = os.fork()
    if pid == 0:
        count = 0

        def count_down(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
            if event in CHANGES or writes:
                count += 1
                if count == point:
                    os._exit(42)

        sys.addaudithook(count_down)
        try:
            asyncio.run(work)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001  # the child of a test must never come back into it
            os.write(2, repr(error).encode())
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 42)
    return code == 42


@pytest.mark.parametrize(
    "index", [0, 2, 3, 5, 6, 7], ids=["create", "backup", "switch", "backup again", "restore", "discard"]
)
def test_a_crash_at_any_point_of_a_step_is_made_good_by_repeating_it(host: FakeHost, index: int) -> None:
    def begin() -> None:
        shutil.rmtree(host.home / "nodes", ignore_errors=True)
        for step in STEPS[:index]:
            asyncio.run(step(host))

    begin()
    asyncio.run(STEPS[index](host))
    wanted = host.tree()
    for point in range(1, 500):
        begin()
        work = STEPS[index](host)
        if not _die_at(point, work):
            work.close()
            break
        work.close()
        asyncio.run(STEPS[index](host))
        assert host.tree() == wanted, f"after a crash before change {point}"
    else:
        raise AssertionError("more than 500 points of change")
    assert point > 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('node.attr.zone: "a"\nhttp.port: 9200\n', 'node.attr.zone: "c"\nhttp.port: 9200\n'),
        ("# mine\nnode.attr.zone:   a # was b\n", '# mine\nnode.attr.zone: "c"\n'),
        ("http.port: 9200\n", 'http.port: 9200\nnode.attr.zone: "c"\n'),
        ("", 'node.attr.zone: "c"\n'),
    ],
)
def test_a_zone_is_written_over_the_configuration(before: str, after: str) -> None:
    assert in_zone(before, "c") == after
