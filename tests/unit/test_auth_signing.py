"""Signatures: what the SDK signs is accepted, and no byte of it may change."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import DerivationAKSKSigner, Signer
from hypothesis import assume, given
from hypothesis import strategies as st

from shardlift.api.signing import (
    SignatureError,
    WireRequest,
    canonical_path,
    canonical_query,
    parse_authorization,
    sign,
    verify,
)

AK, SK = "AKTEST0123456789", "a-secret-key"
NOW = datetime(2026, 1, 5, 2, 23, 39, tzinfo=UTC)
DATE = "20260105T022339Z"
TEXT = st.text(st.characters(blacklist_categories=("Cs",)), max_size=12)


def signed(method: str = "GET", path: str = "/v1.0/p/clusters", query: str = "", body: bytes = b"") -> WireRequest:
    url = f"http://127.0.0.1:8450{path}" + (f"?{query}" if query else "")
    headers = sign(method, url, ak=AK, sk=SK, now=NOW, headers={"Content-Type": "application/json"}, body=body)
    wire = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    return WireRequest(method, path.encode(), query.encode(), wire, body)


def check(request: WireRequest, now: datetime = NOW, sk: str = SK) -> None:
    header = request.header("authorization")
    assert header is not None
    verify(request, parse_authorization(header.decode()), sk, now)


def with_header(request: WireRequest, name: str, value: str) -> WireRequest:
    kept = tuple((key, old) for key, old in request.headers if key != name.encode())
    return replace(request, headers=(*kept, (name.encode(), value.encode())))


def test_what_we_sign_is_accepted() -> None:
    check(signed("PUT", "/v1.0/p/clusters/c/upgrade/a%20b/retry", "retry_mode=abort", b"{}"))


def sdk_wire(request: SdkRequest) -> WireRequest:
    path, _, query = request.uri.partition("?")
    headers = tuple((k.lower().encode(), str(v).encode("latin-1")) for k, v in request.header_params.items())
    body = request.body or b""
    return WireRequest(request.method, path.encode(), query.encode(), headers, body)


def sdk_request(resource: str, params: list[tuple[str, object]], body: str | None = None) -> SdkRequest:
    return SdkRequest(
        method="POST" if body else "GET",
        schema="http",
        host="127.0.0.1:8450",
        resource_path=resource,
        query_params=params,
        header_params={"Content-Type": "application/json", "X-Sdk-Date": DATE, "User-Agent": "sdk é"},
        body=body,
    )


@given(
    segment=TEXT,
    params=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=5),
    body=st.one_of(st.none(), st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20)),
)
def test_what_the_sdk_signs_is_accepted(segment: str, params: list[tuple[str, object]], body: str | None) -> None:
    resource = "/v1.0/p/clusters/" + quote(segment, safe="~")
    check(sdk_wire(Signer(BasicCredentials(AK, SK)).sign(sdk_request(resource, params, body))))


def test_the_derived_algorithm_of_the_sdk_is_accepted() -> None:
    signer = DerivationAKSKSigner(BasicCredentials(AK, SK))
    wire = sdk_wire(signer.sign(sdk_request("/v1.0/p/clusters", [("limit", 3)], "{}"), "css", "eu-1"))
    check(wire)
    with pytest.raises(SignatureError, match="does not match"):
        check(replace(wire, body=b"[]"))


@pytest.mark.parametrize("derived", [False, True])
def test_of_a_key_s_two_secrets_either_fits_in_each_dialect(derived: bool) -> None:
    credentials, request = BasicCredentials(AK, SK), sdk_request("/v1.0/p/clusters", [])
    if derived:
        wire = sdk_wire(DerivationAKSKSigner(credentials).sign(request, "css", "eu-1"))
    else:
        wire = sdk_wire(Signer(credentials).sign(request))
    header = wire.header("authorization")
    assert header is not None
    claim = parse_authorization(header.decode())
    verify(wire, claim, (SK, "the one before"), NOW)
    verify(wire, claim, ("a newer one", SK), NOW)
    for others in (("a newer one", "the one before"), ("a newer one",), ()):
        with pytest.raises(SignatureError, match="does not match"):
            verify(wire, claim, others, NOW)


def test_the_scope_must_be_of_the_day_of_the_date() -> None:
    signer = DerivationAKSKSigner(BasicCredentials(AK, SK))
    wire = sdk_wire(signer.sign(sdk_request("/v1.0/p/clusters", []), "css", "eu-1"))
    header = wire.header("authorization")
    assert header is not None
    moved = header.decode().replace("20260105/", "20260106/")
    with pytest.raises(SignatureError, match="date in Credential"):
        check(with_header(wire, "authorization", moved))


def test_the_old_credential_form_is_accepted() -> None:
    # Written out here on its own, after the published recipe: key chain SDK+SK, date, region, service, sdk_request.
    def mac(key: bytes, text: str) -> bytes:
        return hmac.new(key, text.encode(), hashlib.sha256).digest()

    empty = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n/v1.0/p/clusters/\n\nx-sdk-date:{DATE}\n\nx-sdk-date\n{empty}"
    scope = "20260105///sdk_request"
    text = f"SDK-HMAC-SHA256\n{DATE}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"SDK{SK}".encode()
    for part in scope.split("/"):
        key = mac(key, part)
    header = f"SDK-HMAC-SHA256 Credential={AK}/{scope}, SignedHeaders=x-sdk-date, Signature={mac(key, text).hex()}"
    headers = ((b"x-sdk-date", DATE.encode()), (b"authorization", header.encode()))
    check(WireRequest("GET", b"/v1.0/p/clusters", b"", headers, b""))


@given(data=st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    request = signed("POST", "/v1.0/pr%C3%A4/clusters", "a=1&b=%20x", b'{"k": 1}')
    part = data.draw(st.sampled_from(["path", "query", "body"]))
    whole: bytes = getattr(request, part)
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(1, 255).filter(lambda value: value not in (whole[at], ord("?"), ord("#"))))
    changed = replace(request, **{part: whole[:at] + bytes([byte]) + whole[at + 1 :]})
    # Two spellings of one thing (%20 and +, %c3 and %C3) reach the router as one thing, and may share a signature.
    assume(canonical_path(changed.path) != canonical_path(request.path) or part != "path")
    assume(canonical_query(changed.query) != canonical_query(request.query) or part != "query")
    with pytest.raises(SignatureError):
        check(changed)


@given(data=st.data())
def test_a_changed_signed_header_is_refused(data: st.DataObject) -> None:
    request = signed("GET")
    name = data.draw(st.sampled_from(["host", "content-type", "x-sdk-date"]))
    old = request.header(name)
    assert old is not None
    value = data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
    assume(value != old.decode())
    with pytest.raises(SignatureError):
        check(with_header(request, name, value))


def test_method_and_key_are_covered() -> None:
    with pytest.raises(SignatureError):
        check(replace(signed("GET"), method="DELETE"))
    with pytest.raises(SignatureError):
        check(signed(), sk="another")


def test_headers_that_are_not_signed_may_change() -> None:
    check(with_header(signed(), "x-project-id", "someone-elses"))


def test_a_signed_header_must_be_there_once() -> None:
    request = signed()
    missing = replace(request, headers=tuple(one for one in request.headers if one[0] != b"host"))
    with pytest.raises(SignatureError, match="was not sent"):
        check(missing)
    with pytest.raises(SignatureError, match="2 times"):
        check(replace(request, headers=(*request.headers, (b"host", b"other"))))


@pytest.mark.parametrize("away", [timedelta(minutes=15), timedelta(minutes=-15)])
def test_the_clock_may_be_15_minutes_off(away: timedelta) -> None:
    check(signed(), now=NOW + away)
    with pytest.raises(SignatureError, match="15 minutes"):
        check(signed(), now=NOW + away * 1.01)


@pytest.mark.parametrize("date", ["", "now", "2026-01-05T02:23:39Z", "20260105T022339", "20261305T022339Z"])
def test_a_date_that_is_none_is_refused(date: str) -> None:
    with pytest.raises(SignatureError, match="X-Sdk-Date must look like"):
        check(with_header(signed(), "x-sdk-date", date))


def test_an_unsigned_payload_is_refused() -> None:
    headers = sign(
        "POST",
        "http://h/v1.0/p",
        ak=AK,
        sk=SK,
        now=NOW,
        headers={"X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD"},
        body=b"{}",
    )
    wire = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    with pytest.raises(SignatureError, match="UNSIGNED-PAYLOAD"):
        check(WireRequest("POST", b"/v1.0/p", b"", wire, b"{}"))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic dXNlcjpwYXNz",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SHA256 Access=, SignedHeaders=x-sdk-date, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=zz",
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=, Signature=" + "0" * 64,
        "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date;" + ";".join("abcdefgh"[i % 8] for i in range(80)),
        "SDK-HMAC-SHA256 Credential=AK/20260105, SignedHeaders=x-sdk-date, Signature=" + "0" * 64,
        "V11-HMAC-SHA256 Credential=AK, SignedHeaders=x-sdk-date, Signature=" + "0" * 64,
        "V11-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + "0" * 64,
    ],
)
def test_other_headers_are_refused_with_a_reason(header: str) -> None:
    with pytest.raises(SignatureError, match=r"\w"):
        parse_authorization(header)


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=6), st.randoms())
def test_the_canonical_query_does_not_depend_on_order(pairs: list[tuple[str, str]], random: object) -> None:
    encoded = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs]
    shuffled = list(encoded)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    made = canonical_query("&".join(encoded).encode())
    assert made == canonical_query("&".join(shuffled).encode())
    assert canonical_query(made) == made
    back = [tuple(unquote(half) for half in one.split("=", 1)) for one in made.decode().split("&") if one]
    assert back == sorted(pairs)


def test_canonical_forms() -> None:
    assert canonical_path(b"/v1.0/a%2Db/c d~") == b"/v1.0/a-b/c%20d~/"
    assert canonical_path(b"/") == b"/"
    assert canonical_query(b"b=2&a=2&a=1&blank=&flag&s=x+y%2B") == b"a=1&a=2&b=2&blank=&flag=&s=x%20y%2B"
