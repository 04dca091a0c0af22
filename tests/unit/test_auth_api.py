"""Who gets in: signatures, tokens and projects, asked through the running app."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardlift.api.signing import sign
from tests.api_world import BASE, World, assert_error, make_world


@pytest.fixture
async def world(tmp_path: Path) -> World:
    return await make_world(tmp_path)


def clusters_of(world: World) -> str:
    return f"/v1.0/{world.mine.project_id}/clusters"


async def test_a_signature_and_a_token_both_get_in(world: World) -> None:
    for token in (False, True):
        answer = await world.call("GET", clusters_of(world), token=token)
        assert answer.status_code == 200
        assert [one["id"] for one in answer.json()["clusters"]] == [world.cluster.id]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Auth-Token": "nobody's"},
        {"X-Auth-Token": ""},
        {"X-Auth-Token": "x" * 5000},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": ""},
    ],
)
async def test_without_a_right_key_nobody_gets_in(world: World, headers: dict[str, str]) -> None:
    assert_error(await world.send("GET", BASE + clusters_of(world), headers), 401, "APIGW.0301")


async def test_a_wrong_signature_is_not_saved_by_a_right_token(world: World) -> None:
    headers = {"Authorization": "Basic dXNlcjpwYXNz", "X-Auth-Token": world.mine.token}
    assert_error(await world.send("GET", BASE + clusters_of(world), headers), 401, "APIGW.0301")


async def test_an_unknown_key_and_a_wrong_secret_get_the_same_answer(world: World) -> None:
    url = BASE + clusters_of(world)
    answers = []
    for ak, sk in ((world.mine.ak, "wrong"), ("UNKNOWN", world.mine.sk)):
        headers = sign("GET", url, ak=ak, sk=sk, now=datetime.now(UTC))
        answers.append(assert_error(await world.send("GET", url, headers), 401, "APIGW.0301"))
    assert answers[0] == answers[1]


async def test_an_old_request_is_refused(world: World) -> None:
    url = BASE + clusters_of(world)
    then = datetime.now(UTC) - timedelta(minutes=16)
    headers = sign("GET", url, ak=world.mine.ak, sk=world.mine.sk, now=then)
    body = assert_error(await world.send("GET", url, headers), 401, "APIGW.0301")
    assert "15 minutes" in body["error_msg"]


async def test_the_project_of_the_path_counts_and_not_that_of_a_header(world: World) -> None:
    theirs = f"/v1.0/{world.other.project_id}/clusters"
    unknown = f"/v1.0/{'0' * 32}/clusters"
    first = assert_error(await world.call("GET", theirs), 403, "CSS.0010")
    assert first == assert_error(await world.call("GET", unknown), 403, "CSS.0010")
    url = BASE + clusters_of(world)
    headers = {"X-Auth-Token": world.mine.token, "X-Project-Id": world.other.project_id}
    assert (await world.send("GET", url, headers)).status_code == 200


async def test_no_body_is_looked_at_before_the_key(world: World) -> None:
    url = BASE + world.path("/inst-type/all/image/upgrade")
    assert_error(await world.send("POST", url, {}, b"{not json"), 401, "APIGW.0301")


async def test_a_body_may_have_one_mebibyte(world: World) -> None:
    path = world.path("/inst-type/all/image/upgrade")
    just = await world.call("POST", path, raw=b'"' + b"x" * ((1 << 20) - 2) + b'"')
    assert_error(just, 400, "CSS.0001")
    assert_error(await world.call("POST", path, raw=b"x" * ((1 << 20) + 1)), 413, "CSS.0001")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
async def test_a_byte_changed_on_the_way_is_refused(world: World, data: st.DataObject) -> None:
    url = BASE + world.path("/inst-type/all/image/upgrade")
    content = b'{"target_image_id": "x", "upgrade_type": "same"}'
    headers = sign("POST", url, ak=world.mine.ak, sk=world.mine.sk, now=datetime.now(UTC), body=content)
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    changed = content[:at] + bytes([byte]) + content[at + 1 :]
    assert_error(await world.send("POST", url, headers, changed), 401, "APIGW.0301")


async def test_secrets_stay_out_of_the_log(world: World) -> None:
    with structlog.testing.capture_logs() as lines:
        await world.call("GET", clusters_of(world), {"secret": "in-the-query"})
        await world.call("GET", clusters_of(world), token=True)
        await world.send("GET", BASE + clusters_of(world), {"X-Auth-Token": "guessed-token"})
        await world.send("GET", BASE + clusters_of(world), {"Authorization": "SDK-HMAC-SHA256 guessed-header"})
    text = str(lines)
    assert len(lines) >= 4
    for secret in (world.mine.sk, world.mine.token, "in-the-query", "guessed-token", "guessed-header"):
        assert secret not in text
