"""What a client sends again and again is checked like any request, with any secret and through a rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlift.api.signing import Repeated, Secrets, SignatureError, WireRequest, parse_authorization, sign, verify

NOW = datetime(2026, 1, 5, 2, 23, 39, tzinfo=UTC)
URL = "http://css.test/v1.0/p/clusters/c/upgrade/detail"
SECRETS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=150)


def request(sk: str, now: datetime) -> tuple[WireRequest, bytes, bytes]:
    """The request, its Authorization header and its date."""
    headers = sign("GET", URL, ak="AKTEST", sk=sk, now=now, headers={"X-Project-Id": "p"})
    wire = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
    return (
        WireRequest("GET", b"/v1.0/p/clusters/c/upgrade/detail", b"", wire, b""),
        headers["Authorization"].encode(),
        headers["X-Sdk-Date"].encode(),
    )


def repeated(sk: str) -> Repeated:
    wire, authorization, _ = request(sk, NOW)
    made = Repeated.of(wire, authorization)
    assert made is not None
    return made


@given(sk=SECRETS, later_s=st.integers(0, 600))
def test_the_next_request_of_the_same_client_is_let_in(sk: str, later_s: int) -> None:
    later = NOW + timedelta(seconds=later_s)
    wire, authorization, date = request(sk, later)
    verify(wire, parse_authorization(authorization.decode()), sk, later)
    repeated(sk).verify(authorization, date, Secrets((sk,)), later)


@given(sk=SECRETS, other=SECRETS)
def test_another_secret_is_refused(sk: str, other: str) -> None:
    # HMAC pads with zero bytes: a secret with some of them at its end is the same key.
    if sk.rstrip("\0") == other.rstrip("\0"):
        return
    _, authorization, date = request(other, NOW)
    with pytest.raises(SignatureError):
        repeated(sk).verify(authorization, date, Secrets((sk,)), NOW)


def test_a_rotated_secret_counts_from_the_next_request_on() -> None:
    client = repeated("old")
    _, by_old, date = request("old", NOW)
    _, by_new, _ = request("new", NOW)
    client.verify(by_old, date, Secrets(("old",)), NOW)
    client.verify(by_old, date, Secrets(("new", "old")), NOW)
    client.verify(by_new, date, Secrets(("new", "old")), NOW)
    with pytest.raises(SignatureError):
        client.verify(by_old, date, Secrets(("new",)), NOW)
    client.verify(by_new, date, Secrets(("new",)), NOW)
