"""Polls that are answered where they are parsed, over real connections.

What is to be logged goes the app's way, so nothing is logged here. The first use of a key is written down, as are
refusals, and after each write a client's key is read again, on the app's way too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import structlog

from shardlift.api.polls import Polls
from shardlift.api.signing import sign
from tests.detail_door import Door, another_process, door
from tests.served import served_here


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each poll, whether it had a quick answer."""
    out: list[bool] = []
    quick = Polls.quick

    def told(self: Polls, scope: object) -> object:
        answer = quick(self, scope)  # type: ignore[arg-type]
        out.append(answer is not None)
        return answer

    monkeypatch.setattr(Polls, "quick", told)
    return out


def signed(made: Door, url: str, **headers: str) -> dict[str, str]:
    now = made.app.state.clock.now()
    return sign("GET", url, ak=made.mine.ak, sk=made.mine.sk, now=now, headers=headers)


def raw(url: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {urlsplit(url).path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def one_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, body


async def test_a_quick_answer_is_the_long_one(fast_home: Path, counted: list[bool]) -> None:
    async with door(fast_home) as made, served_here(made.app) as base, httpx.AsyncClient() as client:
        url = base + urlsplit(made.url).path
        answers = [await client.get(url, headers=signed(made, url)) for _ in range(4)]
        assert counted[0] is False
        assert counted[-2:] == [True, True]
        first, *others = answers
        for other in others:
            assert other.status_code == first.status_code == 200
            assert other.content == first.content
            assert list(other.headers) == list(first.headers)
        assert len({answer.headers["x-request-id"] for answer in answers}) == 4


async def test_pipelined_polls_are_answered_in_their_order(fast_home: Path, counted: list[bool]) -> None:
    """More than a transport takes at once: those that find it full wait for the client, on the app's way."""
    async with door(fast_home, refused_rate_per_s=0) as made, served_here(made.app) as base:
        url = base + urlsplit(made.url).path
        place = urlsplit(base)
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
        good, other = signed(made, url), url.replace("/upgrade/detail", "")
        pieces = [raw(url, good), raw(other, signed(made, other)), raw(url, {**good, "Authorization": "none"})]
        writer.write(b"".join(pieces * 200))
        for _ in range(200):
            statuses = [(await one_answer(reader))[0] for _ in pieces]
            assert statuses == [200, 200, 401]
        # Then one at a time on the same connection.
        for _ in range(4):
            writer.write(raw(url, good))
            status, _, body = await one_answer(reader)
            assert status == 200
            assert json.loads(body)["totalSize"] == 1
        assert counted[-2:] == [True, True]
        writer.write(raw(url, {**good, "Connection": "close"}))
        assert (await one_answer(reader))[1]["connection"] == "close"
        assert await reader.read() == b""
        writer.close()


async def test_what_was_taken_away_or_changed_counts_at_the_next_poll(fast_home: Path, counted: list[bool]) -> None:
    async with (
        door(fast_home) as made,
        another_process(made.lab, threads=True) as other,
        served_here(made.app) as base,
        httpx.AsyncClient() as client,
    ):
        url = base + urlsplit(made.url).path
        for _ in range(4):
            await client.get(url, headers=signed(made, url))
        assert counted[-1]
        headers = signed(made, url)
        bad = headers["Authorization"][:-1] + ("0" if headers["Authorization"][-1] != "0" else "1")
        assert (await client.get(url, headers={**headers, "Authorization": bad})).status_code == 401
        async with other.write() as connection:
            await connection.exec_driver_sql(
                "UPDATE task SET status = 'FAILED', fail_message = 'told', revision = revision + 1"
            )
        answer = await client.get(url, headers=signed(made, url))
        assert answer.json()["detailList"][0]["failMessage"] == "told"
        async with other.write() as connection:
            await connection.exec_driver_sql("DELETE FROM access_key")
        assert (await client.get(url, headers=signed(made, url))).status_code == 401


async def test_after_a_change_a_key_is_read_once_for_all_who_sign_with_it(fast_home: Path, counted: list[bool]) -> None:
    """Each client on the app's way after each commit was a quarter of the time of nine hundred that are polled."""
    async with (
        door(fast_home) as made,
        another_process(made.lab, threads=True) as other,
        served_here(made.app) as base,
        httpx.AsyncClient() as client,
    ):
        url = base + urlsplit(made.url).path
        names = [f"client-{number}" for number in range(5)]
        for _ in range(3):
            for name in names:
                await client.get(url, headers=signed(made, url, **{"User-Agent": name}))
        counted.clear()
        async with other.write() as connection:
            await connection.exec_driver_sql("UPDATE access_key SET name = 'other'")
        for name in names:
            answer = await client.get(url, headers=signed(made, url, **{"User-Agent": name}))
            assert answer.status_code == 200
        assert counted == [False, True, True, True, True]
