"""Which node is asked, how often, and what is told when none can answer."""

from __future__ import annotations

import asyncio

import pytest

from shardlift.engine import RestEngine
from shardlift.engine.transport import Call, Transport
from shardlift.errors import EngineError
from tests.unit.engine_servers import (
    HANG,
    NO_MASTER,
    RESET,
    Asked,
    FakeNode,
    Reply,
    always,
    in_turn,
    listening,
    unused_url,
)

OK = Reply(200, {"ok": True})
GET = Call("GET", "/thing")


async def ask(endpoints: dict[str, str], call: Call = GET, *, times: int = 1, timeout_s: float = 3) -> object:
    transport = Transport(endpoints, request_timeout_s=timeout_s)
    try:
        answer = None
        for _ in range(times):
            answer = await transport.ask(call)
        return answer
    finally:
        await transport.close()


async def failure(endpoints: dict[str, str], call: Call = GET, *, timeout_s: float = 3) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await ask(endpoints, call, timeout_s=timeout_s)
    return caught.value


@pytest.mark.parametrize(
    "bad", [RESET, NO_MASTER, Reply(500, {"error": "node closed"}), HANG, Reply(200, raw=b"<html>")]
)
async def test_the_next_node_answers_for_one_that_cannot(bad: Reply) -> None:
    async with listening(FakeNode(always(bad)), FakeNode(always(OK))) as endpoints:
        assert await ask(endpoints, timeout_s=1) == {"ok": True}


async def test_the_next_node_answers_for_one_that_is_gone() -> None:
    async with listening(FakeNode(always(OK))) as endpoints:
        assert await ask({"gone": await unused_url(), **endpoints}) == {"ok": True}


async def test_the_node_that_answered_is_asked_first_from_then_on() -> None:
    first, second = FakeNode(always(RESET)), FakeNode(always(OK))
    async with listening(first, second) as endpoints:
        await ask(endpoints, Call("POST", "/thing"), times=4)
    assert (len(first.asked), len(second.asked)) == (1, 4)


async def test_a_refusal_is_final_and_told_with_the_engines_reason() -> None:
    reason = {"error": {"type": "illegal_argument_exception", "reason": "setting [x], not recognized"}, "status": 400}
    first, second = FakeNode(always(Reply(400, reason))), FakeNode(always(OK))
    async with listening(first, second) as endpoints:
        error = await failure(endpoints, Call("PUT", "/_cluster/settings", body={"a": 1}))
    assert error.status == 400
    assert (
        error.message
        == "PUT /_cluster/settings: n1 answered 400: illegal_argument_exception: setting [x], not recognized"
    )
    assert second.asked == []


async def test_nodes_without_a_master_are_asked_again_until_one_is_elected() -> None:
    node = FakeNode(in_turn(NO_MASTER, NO_MASTER, NO_MASTER, OK))
    async with listening(node) as endpoints:
        assert await ask(endpoints) == {"ok": True}
    assert len(node.asked) == 4


async def test_when_time_is_up_the_error_tells_what_each_node_said() -> None:
    async with listening(FakeNode(always(NO_MASTER)), FakeNode(always(RESET))) as endpoints:
        error = await failure({**endpoints, "n3": await unused_url()}, timeout_s=0.5)
    assert error.status == 503
    assert "n1 answered 503: master_not_discovered_exception" in error.message
    assert "n2 dropped the connection" in error.message
    assert "n3 refused the connection" in error.message


async def test_a_cluster_that_is_wholly_gone_is_told_at_once() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    error = await failure({"a": await unused_url(), "b": await unused_url()}, timeout_s=600)
    assert error.status is None
    assert "a refused the connection; b refused the connection" in error.message
    assert loop.time() - begin < 300


async def test_a_silent_node_is_told_with_its_share_of_the_time() -> None:
    async with listening(FakeNode(always(HANG))) as endpoints:
        error = await failure(endpoints, timeout_s=0.2)
    assert "n1 did not answer within 0." in error.message


async def test_a_long_poll_asks_a_living_node_first_and_says_how_long_it_waits() -> None:
    silent, living = FakeNode(always(HANG)), FakeNode(always(OK))
    async with listening(silent, living) as endpoints:
        await ask(endpoints, Call("GET", "/poll", wait_s=30, master=True), timeout_s=1)
    assert [asked.path for asked in silent.asked] == ["/_cluster/health"]
    poll = living.asked[-1]
    assert 28_000 < int(poll.params["timeout"].removesuffix("ms")) <= 30_000
    assert int(poll.params["master_timeout"].removesuffix("ms")) < 1000


async def test_a_long_poll_cut_short_goes_on_at_the_next_node() -> None:
    def cut(asked: Asked) -> Reply:
        return RESET if asked.path == "/poll" else OK

    first, second = FakeNode(cut), FakeNode(always(OK))
    async with listening(first, second) as endpoints:
        assert await ask(endpoints, Call("POST", "/poll", wait_s=30)) == {"ok": True}
    assert [asked.path for asked in second.asked] == ["/poll"]


async def test_a_status_that_is_an_answer_is_no_error() -> None:
    late = Reply(408, {"timed_out": True})
    async with listening(FakeNode(always(late))) as endpoints:
        assert await ask(endpoints, Call("GET", "/poll", answers=frozenset({408}))) == {"timed_out": True}


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (OK, True),
        (Reply(401, {}), True),
        (Reply(405, {}), True),
        (Reply(503, {}), False),
        (RESET, False),
        (HANG, False),
    ],
)
async def test_answers_tells_whether_that_node_serves(reply: Reply, expected: bool) -> None:
    async with listening(FakeNode(always(reply)), FakeNode(always(OK))) as endpoints, RestEngine(endpoints) as engine:
        assert await engine.answers("n1") is expected


@pytest.mark.parametrize(("heard", "expected"), [({"nodes": {"id": {"version": "7.10.2"}}}, True), ({}, False)])
async def test_a_node_without_an_address_is_asked_through_another(heard: dict[str, object], expected: bool) -> None:
    node = FakeNode(always(Reply(200, heard)))
    async with listening(node) as endpoints, RestEngine(endpoints) as engine:
        assert await engine.answers("lab-spare-master") is expected
    assert node.asked[-1].path == "/_nodes/lab-spare-master/none"


async def test_answers_never_raises() -> None:
    async with RestEngine({"n1": await unused_url()}) as engine:
        assert await engine.answers("n1") is False
        assert await engine.answers("never heard of") is False
        assert await engine.in_flight("n1") is None


async def test_an_answer_of_another_shape_is_told_by_call() -> None:
    async with (
        listening(FakeNode(always(Reply(200, {"status": "mauve"})))) as endpoints,
        RestEngine(endpoints) as engine,
    ):
        with pytest.raises(EngineError, match="GET /_cluster/health: the answer is not what an engine sends"):
            await engine.health()


async def test_no_elected_master_is_none_rather_than_an_error() -> None:
    node = FakeNode(always(NO_MASTER))
    async with listening(node) as endpoints, RestEngine(endpoints, request_timeout_s=0.3) as engine:
        assert await engine.elected() is None


def test_a_cluster_without_nodes_cannot_be_asked() -> None:
    with pytest.raises(EngineError, match="no node to ask"):
        RestEngine({})
