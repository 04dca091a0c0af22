"""Who did what: one record for each change, whichever door it came through, and none that holds a secret."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shardlift.api import create_app
from shardlift.cli.main import run
from shardlift.cli.session import Session
from shardlift.model import TaskStatus
from shardlift.service.audit import ACCEPTED, SIGN_IN, Act, acting, note
from shardlift.store.audit import AuditRow
from tests.doors import Door, HandClock, clusters, open_door
from tests.worlds import NEW, open_lab


def told(row: AuditRow) -> tuple[str, ...]:
    return row.actor, row.action, row.outcome, row.code


async def records(door: Door, project_id: str | None = None) -> list[AuditRow]:
    return list((await door.service.audit.list(project_id)).items)


async def test_changes_over_http_are_written_down_before_their_answers_leave(fast_home: Path) -> None:
    async with open_lab(fast_home) as lab:
        made = await lab.service.keys.create(lab.cluster.project_id)
        clock = HandClock()
        clock.at = lab.clock.now()
        door = Door(lab.service, create_app(lab.service, clock=clock), clock)
        base = f"{clusters(made)}/{lab.cluster.id}"
        body = {"target_image_id": NEW.id, "upgrade_type": "cross", "indices_backup_check": False, "agency": "a"}
        bad = {**body, "agency": "not ok"}
        answers = [
            await door.call(made, "POST", f"{base}/inst-type/all/image/upgrade", body=json.dumps(asked).encode())
            for asked in (bad, body, body)
        ]
        assert [answer.status_code for answer in answers] == [400, 200, 409]
        task = (await lab.service.tasks(lab.cluster.id)).items[0]
        await door.call(made, "POST", f"/api/v1/tasks/{task.id}/pause", token=True)
        await door.call(made, "PUT", f"{base}/upgrade/{task.id}/retry?retry_mode=abort")
        await door.call(made, "GET", f"{base}/upgrade/detail")
        await door.call(made, "POST", f"/api/v1/clusters/{lab.cluster.id}/checks", body=b"{}")
        found = list(reversed(await records(door)))
        assert [told(row) for row in found] == [
            (made.ak, "upgrade", "refused", "CSS.5130"),
            (made.ak, "upgrade", "accepted", ""),
            (made.ak, "upgrade", "refused", "CSS.0011"),
            (made.ak, "pause", "accepted", ""),
            (made.ak, "abort", "accepted", ""),
        ]
        assert {(row.project_id, row.cluster_id, row.address) for row in found} == {
            (made.project_id, lab.cluster.id, "192.0.2.7")
        }
        assert [row.task_id for row in found] == ["", task.id, "", task.id, task.id]
        assert [row.door for row in found] == ["css", "css", "css", "native", "css"]
        assert [row.request_id for row in found[:3]] == [answer.headers["x-request-id"] for answer in answers]
        assert (await lab.service.task(task.id)).status in TaskStatus
        for secret in (made.sk, made.token):
            assert secret not in str(found)


async def test_refused_sign_ins_show_whose_key_it_was(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        mine, other = await door.service.create_project("one"), await door.service.create_project("two")
        secret_in_the_wrong_field = "d" * 40
        await door.call(replace(mine, sk="wrong"), "GET", clusters(mine))
        await door.call(replace(mine, ak=secret_in_the_wrong_field), "GET", clusters(mine))
        await door.call(replace(mine, token="guessed"), "GET", clusters(mine), token=True)
        everything = await records(door)
        assert [told(row) for row in everything] == [
            ("token or header", SIGN_IN, "refused", "APIGW.0301"),
            ("dddddd...", SIGN_IN, "refused", "APIGW.0301"),
            (mine.ak, SIGN_IN, "refused", "APIGW.0301"),
        ]
        assert secret_in_the_wrong_field not in str(everything)
        page = (await door.call(mine, "GET", "/api/v1/audit")).json()
        assert (page["total"], page["records"][0]["actor"]) == (1, mine.ak)
        assert (await door.call(other, "GET", "/api/v1/audit")).json() == {"total": 0, "records": []}


async def test_pages_are_newest_first(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        made = await door.service.create_project("one")
        for number in range(5):
            act = Act("css", actor=str(number), project_id=made.project_id, action="x")
            await door.service.audit.record(act, ACCEPTED)
        page = (await door.call(made, "GET", "/api/v1/audit?start=2&limit=2")).json()
        assert (page["total"], [record["actor"] for record in page["records"]]) == (5, ["3", "2"])
        assert (await door.call(made, "GET", "/api/v1/audit?start=0")).status_code == 400


async def test_what_is_kept_is_bounded_for_each_project_and_in_time(fast_home: Path) -> None:
    async with open_door(fast_home, audit_records_max=20, audit_days=10) as door:
        audit = door.service.audit

        async def add(project_id: str, action: str, count: int) -> None:
            for _ in range(count):
                await audit.record(Act("css", project_id=project_id, action=action), ACCEPTED)

        await add("quiet", "upgrade", 1)
        await add("loud", SIGN_IN, 50)
        await add("loud", "upgrade", 50)
        assert (await audit.list("loud")).total < 20 + 2 + 2 * 16, "it grew without a limit"
        await audit.prune()
        kept = [row.action for row in (await audit.list("loud")).items]
        assert (kept.count("upgrade"), kept.count(SIGN_IN)) == (20, 2)
        assert (await audit.list("quiet")).total == 1, "the loud one pushed another's record out"
        door.clock.forward(timedelta(days=11).total_seconds())
        await audit.prune()
        assert (await audit.list()).total == 0


async def test_records_cannot_be_changed(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        await door.service.audit.record(Act("css", actor="me", action="upgrade"), ACCEPTED)
        with (
            sqlite3.connect(fast_home / "shardlift.db") as database,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            database.execute("UPDATE audit SET actor = 'somebody else'")
        assert (await records(door))[0].actor == "me"


async def test_overlong_words_are_cut(fast_home: Path) -> None:
    async with open_door(fast_home) as door:
        await door.service.audit.record(Act("css", actor="x" * 1000, action="y" * 1000), ACCEPTED)
        row = (await records(door))[0]
        assert (len(row.actor), len(row.action)) == (140, 64)


def test_a_note_outside_of_any_act_is_nobody_s() -> None:
    note("upgrade", cluster_id="c")
    with acting(Act("css")) as act:
        note("upgrade", cluster_id="c")
        note("upgrade", task_id="t")
    note("abort")
    assert (act.action, act.cluster_id, act.task_id) == ("upgrade", "c", "t")


@pytest.fixture
def shardlift(fast_home: Path, monkeypatch, capsys) -> Callable[..., tuple[int, Any, str]]:
    monkeypatch.setenv("SHARDLIFT_HOME", str(fast_home))

    @asynccontextmanager
    async def opened(_settings):
        async with open_door(fast_home) as door:
            yield door.service

    def call(*arguments: str) -> tuple[int, Any, str]:
        code = run([*arguments, "--json"], Session(opened))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, json.loads(out), err

    return call


def test_commands_are_written_down_too(shardlift) -> None:
    _, first, _ = shardlift("project", "create", "one")
    _, second, _ = shardlift("key", "create", "--name", "terraform")
    shardlift("key", "rotate", second["ak"], "--overlap-s", "0")
    shardlift("key", "revoke", first["ak"])
    code, refused, _ = shardlift("key", "revoke", second["ak"])
    assert (code, refused["field"]) == (2, "ak")
    code, refused, _ = shardlift("task", "abort", "no-such-task")
    assert code == 4
    shardlift("key", "list")
    _, found, _ = shardlift("audit", "list", "--project", "one")
    rows = list(reversed(found["records"]))
    assert [(row["action"], row["outcome"], row["code"], row["subject"]) for row in rows] == [
        ("project.create", "accepted", "", "one"),
        ("key.create", "accepted", "", second["ak"]),
        ("key.rotate", "accepted", "", second["ak"]),
        ("key.revoke", "accepted", "", first["ak"]),
        ("key.revoke", "refused", "usage", second["ak"]),
    ]
    assert all(row["actor"].startswith("user:") and row["door"] == "command" for row in rows)
    for made in (first, second):
        assert made["sk"] not in str(found)
        assert made["token"] not in str(found)


def test_a_profile_follows_the_rotation_of_its_own_key(shardlift) -> None:
    _, first, _ = shardlift("project", "create", "one")
    _, second, _ = shardlift("key", "create")
    _, rotated, err = shardlift("key", "rotate", second["ak"])
    assert "note them now" in err
    assert shardlift("credentials")[1] == first
    _, rotated, err = shardlift("key", "rotate", first["ak"])
    assert "profile has the new secret" in err
    assert shardlift("credentials")[1] == rotated
    _, _, err = shardlift("key", "revoke", first["ak"])
    assert "counts no more" in err
    _, keys, _ = shardlift("key", "list")
    assert [key["ak"] for key in keys["keys"]] == [second["ak"]]
    assert not {"sk", "token", "secret"} & keys["keys"][0].keys()


def test_the_master_key_is_shown_and_rotated_by_command(shardlift, fast_home: Path) -> None:
    shardlift("project", "create", "one")
    _, before, _ = shardlift("masterkey", "show")
    assert (before["file"], before["secrets"]) == (str(fast_home / "master.key"), 1)
    _, rotated, _ = shardlift("masterkey", "rotate")
    assert [rotated["old_id"]] == before["key_ids"]
    assert shardlift("masterkey", "show")[1]["key_ids"] == [rotated["new_id"]]
    (fast_home / "master.key").unlink()
    code, refused, _ = shardlift("masterkey", "show")
    assert (code, refused["error"]) == (2, "master_key")
    assert refused["remedy"]
