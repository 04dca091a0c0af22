"""Polls over real connections, where requests are numbered as they come in."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from shardlift.api.signing import sign
from tests.detail_door import another_process, door
from tests.served import served_here


async def test_every_poll_sees_what_another_process_has_written_before_it(fast_home: Path) -> None:
    """Also when several are under way at once, and one asks the database for all."""
    async with door(fast_home) as made, another_process(made.lab, threads=True) as other, served_here(made.app) as url:
        path = urlsplit(made.url).path
        async with httpx.AsyncClient() as client:

            async def shown() -> str:
                now = made.app.state.clock.now()
                headers = sign("GET", url + path, ak=made.mine.ak, sk=made.mine.sk, now=now)
                answer = await client.get(url + path, headers=headers)
                return str(answer.json()["detailList"][0]["failMessage"])

            for number in range(20):
                async with other.write() as connection:
                    await connection.exec_driver_sql(
                        "UPDATE task SET status = 'FAILED', fail_message = ?, revision = revision + 1", (str(number),)
                    )
                told = await asyncio.gather(*(shown() for _ in range(3)))
                told += await asyncio.gather(*(shown() for _ in range(3)))
                assert told == [str(number)] * 6
        assert made.pages.asked <= 60  # the second three find what the first have made
