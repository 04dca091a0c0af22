"""The demo's view of UpgradeDetail: it must notice an answer that breaks a promise, and signs what it sends."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from shardlift.api.signing import WireRequest, parse_authorization, verify
from shardlift.demo.css_client import CssClient, CssError
from shardlift.demo.watch import Watcher, watch
from shardlift.errors import ShardliftError
from shardlift.service.requests import Credentials

CREDENTIALS = Credentials("http://127.0.0.1:1", "p1", "demo", "AKDEMO", "sk-demo", "token")


def detail(completed: str = "", node: str = "n-1", status: str = "RUNNING", times=(), orders=range(13)) -> dict:
    """An answer in which sub-step i has the begin and end of `times[i]`."""
    steps = []
    for at, order in enumerate(orders):
        begin, end = times[at] if at < len(times) else ("", "")
        word = "SUCCESS" if end else "RUNNING" if begin else "WAITING"
        steps.append({"order": order, "name": f"s{order}", "status": word, "beginTime": begin, "endTime": end})
    return {
        "status": status,
        "totalNodes": "n-1,n-2",
        "completedNodes": completed,
        "currentNodeName": node,
        "currentNodeDetail": steps if node else [],
    }


def taken(*answers: dict) -> tuple[list[str], list[str]]:
    """What was said, and what was objected to."""
    said: list[str] = []
    watcher = Watcher(said.append)
    for answer in answers:
        watcher.take(answer)
    return said, watcher.objections


def test_a_good_course_is_told_without_objection():
    said, objections = taken(
        detail(times=[("T1", "")]),
        detail(times=[("T1", "T2"), ("T2", "T2"), ("T3", "")]),
        detail("n-1", "n-2", times=[("T4", "")]),
        detail("n-1,n-2", "", "SUCCESS"),
    )
    assert objections == []
    assert said[0] == "n-1:  0 s0: RUNNING"
    assert "n-1: done (1 of 2)" in said
    assert said[-1] == "n-2: done (2 of 2)"
    assert len(said) == len(set(said))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([detail("n-1", "n-2"), detail("", "n-2")], "completedNodes lost"),
        ([detail("n-9")], "not all among totalNodes"),
        ([detail(orders=range(12))], "orders are"),
        ([detail(orders=[1, 0, *range(2, 13)])], "orders are"),
        ([detail(times=[("T2", "T3"), ("T1", "")])], "begins at T1, before T2"),
        ([detail(times=[("T2", "T1")])], "ends at T1, before T2"),
    ],
)
def test_broken_promises_are_objected_to_once(answers, words):
    _, objections = taken(*answers, answers[-1])
    assert len(objections) == 1
    assert words in objections[0]


def client(answer) -> CssClient:
    return CssClient(CREDENTIALS, transport=httpx.MockTransport(answer))


async def test_every_request_is_signed_as_the_server_wants_it():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200)

    async with client(answer) as css:
        await css.upgrade("c1", "image", "cross")
    request = seen[0]
    assert request.url.path == "/v1.0/p1/clusters/c1/inst-type/all/image/upgrade"
    assert json.loads(request.content)["target_image_id"] == "image"
    headers = tuple((name.lower(), value) for name, value in request.headers.raw)
    wire = WireRequest(request.method, request.url.raw_path, b"", headers, request.content)
    verify(wire, parse_authorization(request.headers["Authorization"]), CREDENTIALS.sk, datetime.now(UTC))
    assert CREDENTIALS.sk not in str(request.headers)


async def test_the_kind_of_upgrade_is_the_one_that_lists_the_image():
    def answer(request: httpx.Request) -> httpx.Response:
        listed = [{"id": "wanted"}] if "/target/cross-engine/" in request.url.path else [{"id": "other"}]
        return httpx.Response(200, json={"imageInfoList": listed})

    async with client(answer) as css:
        assert await css.upgrade_type_to("c1", "wanted") == "cross-engine"
        with pytest.raises(CssError, match="no upgrade of cluster c1 leads to image unknown"):
            await css.upgrade_type_to("c1", "unknown")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(409, json={"externalMessage": "CSS.0011 : busy"}), "409 CSS.0011 : busy"),
        (httpx.Response(502, text="<html>"), "not JSON"),
        (httpx.ConnectError("refused"), "no answer"),
    ],
)
async def test_a_no_from_the_api_is_told(response, words):
    def answer(_request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    async with client(answer) as css:
        with pytest.raises(CssError, match=words):
            await css.details("c1")


async def test_watching_ends_with_the_task_or_in_time():
    answers = iter([detail(), detail("n-1,n-2", "", "SUCCESS")])

    async with client(lambda _: httpx.Response(200, json={"detailList": [next(answers)]})) as css:
        assert await watch(css, "c1", Watcher(lambda _: None), timeout_s=60) == "SUCCESS"
    async with client(lambda _: httpx.Response(200, json={"detailList": [detail()]})) as css:
        with pytest.raises(ShardliftError, match="still RUNNING"):
            await watch(css, "c1", Watcher(lambda _: None), timeout_s=0.01)
