"""Whatever byte of a signed request is changed, put in or left out, in each of the three dialects: 401, never 500.

The signers here are written out on their own, after the published recipes, so that a slip in ours is not repeated.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shardlift.api.limits import make_limits
from shardlift.api.signing import (
    SignatureError,
    WireRequest,
    canonical_path,
    canonical_query,
    canonical_request,
    parse_authorization,
    verify,
)
from shardlift.settings import Settings
from tests.api_world import World, make_world

AK, SK = "AKTEST0123456789", "a-secret-key"
NOW = datetime(2026, 1, 5, 2, 23, 39, tzinfo=UTC)
SIGNED = ("content-type", "host", "x-sdk-date")
Signer = Callable[[str, str, str, bytes], str]
"""AK, SK, date and canonical request to an Authorization header."""


def mac(key: bytes, text: bytes | str) -> bytes:
    return hmac.new(key, text.encode() if isinstance(text, str) else text, hashlib.sha256).digest()


def access(ak: str, sk: str, date: str, canonical: bytes) -> str:
    text = f"SDK-HMAC-SHA256\n{date}\n{hashlib.sha256(canonical).hexdigest()}"
    signature = mac(sk.encode(), text).hex()
    return f"SDK-HMAC-SHA256 Access={ak}, SignedHeaders={';'.join(SIGNED)}, Signature={signature}"


def credential(ak: str, sk: str, date: str, canonical: bytes) -> str:
    scope = f"{date[:8]}///sdk_request"
    text = f"SDK-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    key = f"SDK{sk}".encode()
    for part in scope.split("/"):
        key = mac(key, part)
    signature = mac(key, text).hex()
    return f"SDK-HMAC-SHA256 Credential={ak}/{scope}, SignedHeaders={';'.join(SIGNED)}, Signature={signature}"


def derived(ak: str, sk: str, date: str, canonical: bytes) -> str:
    scope = f"{date[:8]}/eu-1/css"
    text = f"V11-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"
    key = mac(mac(ak.encode(), sk), scope.encode() + b"\x01").hex()  # HKDF: extract, then one block of expand
    signature = mac(key.encode(), text).hex()
    return f"V11-HMAC-SHA256 Credential={ak}/{scope}, SignedHeaders={';'.join(SIGNED)}, Signature={signature}"


DIALECTS = {"access": access, "credential": credential, "derived": derived}


def canonical_of(method: str, path: bytes, query: bytes, headers: Mapping[str, str], body: bytes) -> bytes:
    """The canonical request of a path and a query that are in canonical spelling already."""
    lines = [method, path.decode() + "/", query.decode(), *(f"{name}:{headers[name]}" for name in SIGNED)]
    return "\n".join([*lines, "", ";".join(SIGNED), hashlib.sha256(body).hexdigest()]).encode()


def signed(
    signer: Signer,
    method: str,
    path: bytes,
    query: bytes,
    body: bytes,
    *,
    ak: str = AK,
    sk: str = SK,
    now: datetime = NOW,
) -> WireRequest:
    date = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {"content-type": "application/json", "host": "shardlift.test", "x-sdk-date": date}
    header = signer(ak, sk, date, canonical_of(method, path, query, headers, body))
    wire = tuple((name.encode(), value.encode()) for name, value in {**headers, "authorization": header}.items())
    return WireRequest(method, path, query, wire, body)


def check(request: WireRequest) -> None:
    header = request.header("authorization")
    assert header is not None
    claim = parse_authorization(header.decode("latin-1"))
    # The Access and old Credential forms do not sign the AK: what protects it is that each has a secret of its own.
    verify(request, claim, SK if claim.ak == AK else "another-secret", NOW)


def changed_bytes(draw: Any, whole: bytes, forbidden: bytes = b"") -> bytes:
    """One byte changed, put in or left out."""
    at = draw(st.integers(0, max(len(whole) - 1, 0)))
    byte = bytes([draw(st.integers(0, 255).filter(lambda value: value not in forbidden))])
    ways = [whole[:at] + byte + whole[at + 1 :], whole[:at] + byte + whole[at:], whole[:at] + whole[at + 1 :]]
    return draw(st.sampled_from(ways).filter(lambda new: new != whole))


@st.composite
def tampered(draw: Any, original: WireRequest) -> WireRequest:
    """The request with one byte changed, in any of its parts; never one that means the same."""
    part = draw(st.sampled_from(["method", "path", "query", "body", *SIGNED, "authorization"]))
    if part == "method":
        method = draw(st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"]))
        assume(method != original.method)
        return replace(original, method=method)
    if part in ("path", "query", "body"):
        # What ends a path or a query on the wire can not be a byte of it.
        new = changed_bytes(draw, getattr(original, part), {"path": b"?# \r\n", "query": b"# \r\n"}.get(part, b""))
        other = replace(original, **{part: new})
        assume(canonical_path(other.path) != canonical_path(original.path) or part != "path")
        assume(canonical_query(other.query) != canonical_query(original.query) or part != "query")
        return other
    old = original.header(part)
    assert old is not None
    value = changed_bytes(draw, old, b"\r\n\0")
    assume(value.strip() != old)
    if part == "authorization":
        before, _, signature = old.partition(b"Signature=")
        # Case, and spaces around its parts, are no part of what a header of this kind says.
        assume(value.lower() != old.lower())
        assume(value.replace(b" ", b"").replace(b"\t", b"") != old.replace(b" ", b""))
        assert before
        assert signature
    kept = tuple((name, value if name == part.encode() else known) for name, known in original.headers)
    return replace(original, headers=kept)


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=100)
@given(data=st.data())
def test_a_tampered_byte_never_verifies(dialect: str, data: st.DataObject) -> None:
    request = signed(DIALECTS[dialect], "POST", b"/v1.0/pr%C3%A4/clusters", b"a=1&b=%20x", b'{"k": 1}')
    check(request)
    other = data.draw(tampered(request))
    if parsed_alike(other, request):
        return
    with pytest.raises(SignatureError):
        check(other)


def parsed_alike(one: WireRequest, other: WireRequest) -> bool:
    """Whether only the Authorization header differs, and yet claims the very same: a second comma, an unknown field."""
    if replace(one, headers=other.headers) != other:
        return False
    if [pair for pair in one.headers if pair[0] != b"authorization"] != [
        pair for pair in other.headers if pair[0] != b"authorization"
    ]:
        return False
    try:
        claims = [parse_authorization((each.header("authorization") or b"").decode("latin-1")) for each in (one, other)]
    except SignatureError:
        return False
    return claims[0] == claims[1]


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=30)
@given(
    path=st.lists(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=8), max_size=4),
    query=st.dictionaries(
        st.text(st.characters(blacklist_categories=("Cs",)), min_size=1), st.text(max_size=5), max_size=3
    ),
    body=st.binary(max_size=40),
    method=st.sampled_from(["GET", "PUT", "POST"]),
)
def test_what_is_signed_by_the_recipe_is_accepted(
    dialect: str, path: list[str], query: dict[str, str], body: bytes, method: str
) -> None:
    assume(all(not any(0xD800 <= ord(one) <= 0xDFFF for one in value) for value in query.values()))
    wire_path = "".join(f"/{quote(part.replace('/', 'x'), safe='-_.~')}" for part in ["v1.0", *path]).encode()
    pairs = sorted((name.encode(), value.encode()) for name, value in query.items())
    wire_query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs).encode()
    check(signed(DIALECTS[dialect], method, wire_path, wire_query, body))


@given(path=st.binary(max_size=40), query=st.binary(max_size=40))
def test_canonical_forms_are_their_own_canonical_forms(path: bytes, query: bytes) -> None:
    for form, text in ((canonical_path, path), (canonical_query, query)):
        once = form(text)
        assert once.isascii()
        assert form(once) == once
    assert unquote_to_bytes(canonical_path(path)).rstrip(b"/") == unquote_to_bytes(path).rstrip(b"/")


PAIRS = st.lists(st.tuples(st.binary(min_size=1, max_size=6), st.binary(max_size=6)), max_size=5)


@given(pairs=PAIRS, order=st.randoms(use_true_random=False), safe=st.sampled_from(["", "/:", "!*'()"]))
def test_spelling_and_order_do_not_matter(pairs: list[tuple[bytes, bytes]], order: Any, safe: str) -> None:
    def spelled(safe: str) -> bytes:
        return "&".join(
            f"{quote_from_bytes(name, safe)}={quote_from_bytes(value, safe)}" for name, value in pairs
        ).encode()

    plain = canonical_query(spelled(""))
    assert canonical_query(spelled(safe)) == plain
    order.shuffle(pairs)
    assert canonical_query(spelled(safe)) == plain
    names = [one.partition(b"=")[::2] for one in plain.split(b"&") if one]
    assert [tuple(map(unquote_to_bytes, pair)) for pair in names] == sorted(pairs)


@given(text=st.text(max_size=300) | st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_a_made_up_header_is_read_or_refused(text: str) -> None:
    for header in (text, f"SDK-HMAC-SHA256 {text}", f"V11-HMAC-SHA256 Credential=a/b/c/d, SignedHeaders={text}"):
        try:
            claim = parse_authorization(header)
        except SignatureError:
            continue
        with pytest.raises(SignatureError):
            verify(WireRequest("GET", b"/", b"", ((b"x-sdk-date", b"20260105T022339Z"),), b""), claim, SK, NOW)


# the same over the app


@dataclass
class Front:
    world: World
    runner: asyncio.Runner

    def send(self, request: WireRequest) -> tuple[int, dict[str, Any]]:
        return self.runner.run(self._send(request))

    async def _send(self, request: WireRequest) -> tuple[int, dict[str, Any]]:
        sent: dict[str, Any] = {"body": b""}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: Mapping[str, Any]) -> None:
            sent["status"] = message.get("status", sent.get("status"))
            sent["body"] += message.get("body", b"")
            if message["type"] == "http.response.start":
                assert b"x-request-id" in dict(message["headers"])

        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
            "method": request.method, "scheme": "http", "path": unquote(request.path.decode("latin-1")),
            "raw_path": request.path, "query_string": request.query, "root_path": "", "headers": list(request.headers),
            "client": ("127.0.0.1", 1), "server": ("shardlift.test", 80), "state": {},
        }  # fmt: skip
        await self.world.app(scope, receive, send)  # type: ignore[arg-type]
        return sent["status"], json.loads(sent["body"] or b"{}")

    def signed(self, dialect: str, method: str, rest: str, query: bytes, body: bytes) -> WireRequest:
        mine = self.world.mine
        path = self.world.path(rest).encode()
        return signed(DIALECTS[dialect], method, path, query, body, ak=mine.ak, sk=mine.sk, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory() as home:
        world = runner.run(make_world(Path(home)))
        unlimited = Settings(home=Path(home), key_rate_per_s=0, refused_rate_per_s=0)
        world.app.state.limits = make_limits(unlimited, world.app.state.clock.elapsed_s)
        yield Front(world, runner)


CALLS = [
    ("GET", "/upgrade/detail", b"limit=3&start=1", b""),
    ("PUT", "/upgrade/x/retry", b"retry_mode=abort", b'{"a":1}'),
]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("call", CALLS, ids=["get", "put"])
@settings(max_examples=20)
@given(data=st.data())
def test_the_app_answers_401_to_a_tampered_byte(
    front: Front, dialect: str, call: tuple[str, str, bytes, bytes], data: st.DataObject
) -> None:
    request = front.signed(dialect, *call)
    assert front.send(request)[0] == (200 if call[0] == "GET" else 400), "as it was signed it is let in"
    other = data.draw(tampered(request))
    if parsed_alike(other, request):
        return
    status, body = front.send(other)
    if status in (404, 405):
        # No such route, or not by this method: nobody looks at a signature, and nothing is done or told.
        assert body["error_code"] in ("CSS.0016", "CSS.0001")
        return
    assert (status, body["error_code"]) == (401, "APIGW.0301")


@settings(max_examples=40)
@given(value=st.binary(max_size=200), name=st.sampled_from([b"authorization", b"x-auth-token"]), twice=st.booleans())
def test_the_app_answers_401_to_a_made_up_header(front: Front, value: bytes, name: bytes, twice: bool) -> None:
    headers = [(name, value)] * (1 + twice)
    status, body = front.send(WireRequest("GET", front.world.path().encode(), b"", tuple(headers), b""))
    assert (status, body["error_code"]) == (401, "APIGW.0301")


def test_the_recipe_and_ours_agree_on_the_canonical_request() -> None:
    request = signed(access, "POST", b"/v1.0/pr%C3%A4/clusters", b"a=1&b=%20x", b"{}")
    headers = {name.decode(): value.decode() for name, value in request.headers}
    assert canonical_request(request, SIGNED) == canonical_of("POST", request.path, request.query, headers, b"{}")
