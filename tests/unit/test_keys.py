"""Keys from their making to their end, and what is left of their secrets on the disk."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

import shardlift.store
from shardlift.errors import NotFoundError, UsageError
from shardlift.service import open_service
from shardlift.service.keys import _Cache
from shardlift.settings import Settings
from shardlift.store.vault import Vault, VaultError, key_id_of
from tests.doors import Door, clusters, open_door


async def status(door: Door, who, **more) -> int:
    return (await door.call(who, "GET", clusters(who), **more)).status_code


async def test_a_project_has_several_keys_and_none_is_shown_again(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        first = await door.service.create_project("one")
        second = await door.service.keys.create(first.project_id, "terraform")
        assert [await status(door, who, token=token) for who in (first, second) for token in (False, True)] == [200] * 4
        rows = await door.service.keys.list(first.project_id)
        assert [(row.ak, row.name) for row in rows] == [(first.ak, ""), (second.ak, "terraform")]
        listed = await door.call(first, "GET", "/api/v1/keys")
        assert [key["ak"] for key in listed.json()["keys"]] == [first.ak, second.ak]
        for secret in (first.sk, first.token, second.sk, second.token):
            assert secret not in str(rows) + listed.text


async def test_an_old_secret_counts_to_the_end_of_its_overlap(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        old = await door.service.create_project("one")
        new = await door.service.keys.rotate(old.ak, 3600)
        assert (new.ak, new.project) == (old.ak, "one")
        assert {new.sk, new.token}.isdisjoint({old.sk, old.token})
        door.clock.forward(3599)
        assert [await status(door, who, token=token) for who in (old, new) for token in (False, True)] == [200] * 4
        door.clock.forward(1)
        assert [await status(door, old), await status(door, old, token=True)] == [401, 401]
        assert [await status(door, new), await status(door, new, token=True)] == [200, 200]
        assert (await door.service.keys.list())[0].previous_until is None
        await door.service.keys.check()  # what a server does at its start
        with sqlite3.connect(fast_home / "shardlift.db") as database:
            assert database.execute("SELECT previous_secret, previous_token_sha256 FROM access_key").fetchall() == [
                (None, None)
            ]


async def test_a_second_rotation_ends_what_the_first_one_left(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        first = await door.service.create_project("one")
        second = await door.service.keys.rotate(first.ak, 3600)
        third = await door.service.keys.rotate(first.ak, 0)
        assert [await status(door, who) for who in (first, second, third)] == [401, 401, 200]


@pytest.mark.parametrize("overlap_s", [-1, 30 * 24 * 3600 + 1])
async def test_an_overlap_is_bounded(fast_home: Path, overlap_s: int) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        with pytest.raises(UsageError) as refused:
            await door.service.keys.rotate(made.ak, overlap_s)
        assert refused.value.field == "overlap_s"
        assert await status(door, made) == 200


async def test_a_revoked_key_ends_at_once_in_every_process(fast_home: Path) -> None:
    async with open_door(fast_home) as door, open_door(fast_home) as other:
        first = await door.service.create_project("one")
        second = await door.service.keys.create(first.project_id)
        assert [await status(other, second), await status(other, second, token=True)] == [200, 200]
        await door.service.keys.revoke(second.ak)
        assert [await status(one, second) for one in (door, other)] == [401, 401]
        assert [await status(one, second, token=True) for one in (door, other)] == [401, 401]
        assert await status(other, first) == 200


async def test_the_last_key_goes_only_when_that_is_meant(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        other = await door.service.create_project("two")
        with pytest.raises(UsageError, match="last key of project one"):
            await door.service.keys.revoke(made.ak)
        with pytest.raises(NotFoundError):  # a key of another project
            await door.service.keys.revoke(made.ak, other.project_id, last=True)
        assert await status(door, made) == 200
        await door.service.keys.revoke(made.ak, last=True)
        assert await status(door, made) == 401


async def test_a_use_is_noted_once_a_minute(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")

        async def last_used() -> object:
            await door.service.keys.settle()
            return (await door.service.keys.list())[0].last_used_at

        assert await last_used() is None
        await door.call(replace(made, sk="wrong"), "GET", clusters(made))
        assert await last_used() is None, "a refused request is no use"
        began = door.clock.now()
        for forward in (0, 30, 29):
            door.clock.forward(forward)
            await status(door, made)
            assert await last_used() == began
        door.clock.forward(1)
        await status(door, made)
        assert await last_used() == door.clock.now()


async def test_no_request_reads_or_decrypts_what_has_not_changed(fast_home: Path, monkeypatch) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        await status(door, made)
        await door.service.keys.settle()
        await status(door, made)
        opened: list[str] = []
        real = Vault.open
        monkeypatch.setattr(Vault, "open", lambda self, sealed, row: opened.append(row) or real(self, sealed, row))
        for _ in range(5):
            assert await status(door, made) == 200
        assert opened == []
        await door.service.keys.create(made.project_id)  # a change: what was read counts no more
        assert await status(door, made) == 200
        assert opened == [f"access_key/{made.ak}"]


def test_what_is_kept_of_keys_is_bounded_in_number_and_time() -> None:
    kept: _Cache[int] = _Cache()
    for number in range(2000):
        kept.put(str(number), number, mark=1, now_s=0)
    assert len(kept) == 1024
    assert kept.get("1999", 1, 299) == 1999
    assert kept.get("1999", 1, 300) is None
    assert kept.get("1998", 2, 0) is None


async def test_secrets_are_bound_to_their_row(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        mine, other = await door.service.create_project("one"), await door.service.create_project("two")
        with sqlite3.connect(fast_home / "shardlift.db") as database:
            (sealed,) = database.execute("SELECT secret FROM access_key WHERE ak = ?", [mine.ak]).fetchone()
            database.execute("UPDATE access_key SET secret = ? WHERE ak = ?", [sealed, other.ak])
        # Whoever can write to the database still cannot give a key the secret of one that they know.
        assert await status(door, replace(other, sk=mine.sk)) == 401
        with pytest.raises(VaultError, match=f"access_key/{other.ak} was changed"):
            await door.service.keys.check()


async def test_a_master_key_is_made_for_its_owner_alone(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        await door.service.keys.check()
        assert stat.S_IMODE((fast_home / "master.key").stat().st_mode) == 0o600
    elsewhere = fast_home / "keys" / "mine.key"
    elsewhere.parent.mkdir()
    async with open_door(fast_home / "two", master_key_file=str(elsewhere)) as door:
        await door.service.create_project("one")
        assert elsewhere.exists()
        assert not (fast_home / "two" / "master.key").exists()


async def damage(home: Path, how: str) -> None:
    key = home / "master.key"
    if how == "missing":
        key.unlink()
    elif how == "another":
        key.unlink()
        Vault(key).prepare()
    elif how == "not ours":
        key.write_text("-----BEGIN PRIVATE KEY-----\n")
    elif how == "open to all":
        key.chmod(0o644)
    else:
        key.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("how", ["missing", "another", "not ours", "open to all", "no text"])
async def test_a_wrong_master_key_is_told_at_the_start(fast_home: Path, how: str) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
    await asyncio.to_thread(shutil.copy, fast_home / "master.key", fast_home / "copy")
    await damage(fast_home, how)
    async with open_door(fast_home) as door:  # what needs no secret works
        assert [project.name for project in await door.service.projects()] == ["one"]
        with pytest.raises(VaultError) as told:
            await door.service.keys.check()
        assert told.value.remedy
        assert str(fast_home / "master.key") in told.value.message
        assert told.value.exit_code == 2
        with pytest.raises(VaultError):  # and nothing is written that a second key would be needed for
            await door.service.create_project("two")
        assert [project.name for project in await door.service.projects()] == ["one"]
        answer = await door.call(made, "GET", clusters(made))
        assert answer.status_code == 401
        assert str(fast_home) not in answer.text
    (fast_home / "copy").replace(fast_home / "master.key")
    async with open_door(fast_home) as door:
        assert await status(door, made) == 200


async def test_the_master_key_rotates_under_a_running_server(fast_home: Path) -> None:
    async with open_door(fast_home) as server, open_door(fast_home) as command_line:
        made = await server.service.create_project("one")
        rotated = await server.service.keys.rotate(made.ak, 3600)
        assert await status(server, made) == 200
        before = (fast_home / "master.key").read_text()
        old, new, count = await command_line.service.keys.rotate_master()
        assert (count, command_line.service.keys.master_ids()) == (1, (new,))
        assert before.splitlines()[-1] not in (fast_home / "master.key").read_text()
        assert [await status(server, who) for who in (made, rotated)] == [200, 200]
        later = await server.service.keys.create(
            made.project_id
        )  # sealed with the new key, by who started with the old
        with sqlite3.connect(fast_home / "shardlift.db") as database:
            sealed = [one for row in database.execute("SELECT secret, previous_secret FROM access_key") for one in row]
        assert {key_id_of(one) for one in sealed if one} == {new}
        assert old != new
    async with open_door(fast_home) as door:
        assert [await status(door, who) for who in (made, rotated, later)] == [200, 200, 200]


async def test_a_rotation_that_was_cut_short_costs_nothing(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        Vault(fast_home / "master.key").begin_rotation()  # and then the power went
        later = await door.service.keys.create(made.project_id)
    async with open_door(fast_home) as door:
        assert await door.service.keys.check() == 2
        assert [await status(door, who) for who in (made, later)] == [200, 200]
        assert len(door.service.keys.master_ids()) == 2
        await door.service.keys.rotate_master()
        assert len(door.service.keys.master_ids()) == 1
        assert [await status(door, who) for who in (made, later)] == [200, 200]


async def test_secrets_of_older_versions_are_encrypted_and_leave_no_trace(fast_home: Path) -> None:
    path = fast_home / "shardlift.db"
    config = Config()
    config.set_main_option("script_location", str(Path(shardlift.store.__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", f"sqlite:///{path}")
    await asyncio.to_thread(command.upgrade, config, "0002")
    async with open_door(fast_home / "donor") as door:
        made = await door.service.create_project("one")
    digest = shardlift.store.keys.token_digest(made.token)
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO project VALUES (?, 'one', '2026-01-05')", [made.project_id])
        row = [made.ak, made.project_id, made.sk, digest, "2026-01-05 00:00:00"]
        database.execute("INSERT INTO access_key VALUES (?, ?, ?, ?, ?)", row)
    assert made.sk.encode() in path.read_bytes()
    async with open_service(Settings(home=fast_home)) as service:
        await service.keys.check()
    async with open_door(fast_home) as door:
        for file in await asyncio.to_thread(lambda: list(fast_home.glob("shardlift.db*"))):
            assert made.sk.encode() not in file.read_bytes(), file
        assert [await status(door, made), await status(door, made, token=True)] == [200, 200]


def test_a_master_key_that_cannot_be_written_is_named(fast_home: Path) -> None:
    with pytest.raises(UsageError) as told:
        Vault(fast_home / "nowhere" / "master.key").prepare()
    assert told.value.field == "SHARDLIFT_MASTER_KEY_FILE"
    assert list(fast_home.iterdir()) == [], "a folder that is not there may be a disk that is not mounted"
