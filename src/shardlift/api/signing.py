"""Request signatures as CSS clients make them; pure functions over bytes, for both sides of the wire.

Why it holds: the signature covers method, path, query, the named headers and the whole body, each in one canonical
form. The forms are made from what the router sees too (decoded path and query), so two requests that share a signature
are the same request to us.

Three dialects are read, all with the same canonical request:
`SDK-HMAC-SHA256 Access=AK`, `SDK-HMAC-SHA256 Credential=AK/date/region/service/sdk_request` (older clients) and
`V11-HMAC-SHA256 Credential=AK/date/region/service`. Made is only the first.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes, urlsplit

SDK = "SDK-HMAC-SHA256"
V11 = "V11-HMAC-SHA256"
SKEW_ALLOWED = timedelta(minutes=15)
DATE_HEADER = "x-sdk-date"
CONTENT_HEADER = "x-sdk-content-sha256"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"

_SIGNED_HEADERS_MAX = 64
_SCOPE_PARTS = 4  # AK, date, region, service; the old SDK form has the word sdk_request behind them
_AK = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")
_DATE_HEADER, _CONTENT_HEADER = DATE_HEADER.encode(), CONTENT_HEADER.encode()
_DATE_CHARS = len("20230105T022339Z")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest().encode()
# A client sends the same path, the same first part of its header and, for a second, the same date again and again.
# What is kept of them is bounded, and none of it is secret.
_KEPT = 1024
_KEPT_CHARS = 512
_NAMES_KEPT = 12
_BLOCK_BYTES = 64  # of SHA-256
_SHA256 = hashlib.sha256()  # to be copied, which takes less time than to make one


class SignatureError(Exception):
    """The request is not what the holder of the key signed. The text may be told to the caller."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it came over the wire: `path` and `query` still percent-encoded, header names in lower case."""

    method: str
    path: bytes
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> bytes | None:
        """The one value of that header, None without it. Raises SignatureError when it was sent twice."""
        wanted = name.encode()
        values = [value for key, value in self.headers if key == wanted]
        if len(values) > 1:
            raise SignatureError(f"header {name} was sent {len(values)} times")
        return values[0].strip() if values else None


@dataclass(frozen=True, slots=True)
class Claim:
    """What an Authorization header claims. `scope` is `date/region/service...`, empty for the Access form."""

    algorithm: str
    ak: str
    scope: str
    signed_headers: tuple[str, ...]
    signature: str


def parse_authorization(text: str) -> Claim:
    """Reads an Authorization header. Raises SignatureError when it is none of the three dialects."""
    before, name, signature = text.rpartition("Signature=")
    if name and len(before) <= _KEPT_CHARS and _SIGNATURE.fullmatch(signature):
        # What each request has for itself is its signature, and that is read already.
        kept = _claim_of(before + _NO_SIGNATURE)
        return Claim(kept.algorithm, kept.ak, kept.scope, kept.signed_headers, signature)
    return _parse(text)


def _parse(text: str) -> Claim:
    algorithm, _, rest = text.strip().partition(" ")
    if algorithm not in (SDK, V11):
        raise SignatureError(f"the algorithm must be {SDK} or {V11}")
    fields = {}
    for part in rest.split(","):
        key, _, value = part.strip().partition("=")
        fields[key] = value
    ak, scope = _owner(algorithm, fields)
    signed = tuple(fields.get("SignedHeaders", "").lower().split(";"))
    if len(signed) > _SIGNED_HEADERS_MAX or not all(_HEADER_NAME.fullmatch(name) for name in signed):
        raise SignatureError(f"SignedHeaders must name 1 to {_SIGNED_HEADERS_MAX} headers, separated by semicolons")
    if DATE_HEADER not in signed:
        raise SignatureError("SignedHeaders must name x-sdk-date")
    signature = fields.get("Signature", "").lower()
    if not _SIGNATURE.fullmatch(signature):
        raise SignatureError("Signature must be 64 hexadecimal digits")
    return Claim(algorithm, ak, scope, signed, signature)


_NO_SIGNATURE = f"Signature={'0' * 64}"
_claim_of = lru_cache(_KEPT)(_parse)


def _owner(algorithm: str, fields: Mapping[str, str]) -> tuple[str, str]:
    """The access key and the scope, from `Access` or `Credential`."""
    if algorithm == SDK and "Access" in fields:
        ak, scope = fields["Access"], ""
    else:
        ak, _, scope = fields.get("Credential", "").partition("/")
        parts = scope.split("/")
        wanted = _SCOPE_PARTS if algorithm == SDK else _SCOPE_PARTS - 1
        if len(parts) != wanted or (algorithm == SDK and parts[-1] != "sdk_request"):
            raise SignatureError("Credential does not have the form of its algorithm")
    if not _AK.fullmatch(ak):
        raise SignatureError("no access key is given")
    return ak, scope


def canonical_path(path: bytes) -> bytes:
    """Each segment decoded once and encoded again; always ends in a slash."""
    return _kept_path(path) if len(path) <= _KEPT_CHARS else _path(path)


def _path(path: bytes) -> bytes:
    segments = unquote_to_bytes(path).split(b"/")
    encoded = "/".join(_encode(segment) for segment in segments).encode()
    return encoded if encoded.endswith(b"/") else encoded + b"/"


_kept_path = lru_cache(_KEPT)(_path)


def canonical_query(query: bytes) -> bytes:
    """Pairs decoded (`+` is a space), sorted by name and value, encoded again; a blank value stays `name=`."""
    if not query:
        return b""
    pairs = []
    for part in query.replace(b"+", b" ").split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in sorted(pairs)).encode()


def canonical_request(request: WireRequest, signed_headers: Sequence[str]) -> bytes:
    """The text that is hashed and signed. Raises SignatureError when a signed header is missing or was sent twice."""
    return _canonical(request, tuple(signed_headers), _lookup(request))


_Lookup = Callable[[bytes], bytes | None]


def _lookup(request: WireRequest) -> _Lookup:
    """Finds headers by name. When one was sent twice, whoever asks for that one is told so."""
    sent = dict(request.headers)
    if len(sent) == len(request.headers):
        return sent.get
    return lambda name: request.header(name.decode())


def _canonical(request: WireRequest, signed_headers: tuple[str, ...], look: _Lookup) -> bytes:
    names, joined = _encoded(signed_headers)
    lines = [request.method.upper().encode(), canonical_path(request.path), canonical_query(request.query)]
    for name, label in names:
        value = look(name)
        if value is None:
            raise SignatureError(f"header {name.decode()} is signed but was not sent")
        lines.append(label + value.strip())
    lines += [b"", joined, _sha256(request.body)]
    return b"\n".join(lines)


def _encode_names(signed_headers: tuple[str, ...]) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    """(name, `name:`) of each header, and all names joined."""
    joined = ";".join(signed_headers).encode()
    return tuple((name.encode(), name.encode() + b":") for name in signed_headers), joined


_kept_names = lru_cache(_KEPT)(_encode_names)


def _encoded(signed_headers: tuple[str, ...]) -> tuple[tuple[tuple[bytes, bytes], ...], bytes]:
    return _kept_names(signed_headers) if len(signed_headers) <= _NAMES_KEPT else _encode_names(signed_headers)


def _sha256(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() if body else _EMPTY_SHA256


def verify(request: WireRequest, claim: Claim, sk: str | Sequence[str], now: datetime) -> None:
    """Raises SignatureError unless a holder of `sk` signed exactly this request within the allowed skew of `now`.

    Of several secrets (a key's old and new one) all are tried, whichever fits: time tells nothing of which it was.
    """
    look = _lookup(request)
    date = _date_of(look(_DATE_HEADER), now)
    _check_content_header(look(_CONTENT_HEADER), request.body)
    if claim.scope and claim.scope.split("/")[0] != date[:8]:
        raise SignatureError("the date in Credential is not that of X-Sdk-Date")
    canonical = _canonical(request, claim.signed_headers, look)
    fits = False
    for one in (sk,) if isinstance(sk, str) else sk:
        fits |= hmac.compare_digest(_signature(canonical, claim, one, date), claim.signature)
    if not fits:
        raise SignatureError("the signature does not match")


class _Keyed:
    """HMAC-SHA256 (RFC 2104) under one secret, its two padded blocks hashed once: half of the work for a short text."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: bytes) -> None:
        block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hexdigest(self, text: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.hexdigest().encode()


class Secrets:
    """The secrets of one key that count at a moment, made ready once for all requests that are signed with it."""

    __slots__ = ("_keyed", "sks")

    def __init__(self, sks: tuple[str, ...]) -> None:
        self.sks = sks
        self._keyed = tuple(_Keyed(sk.encode()) for sk in sks)

    def fit(self, text: bytes, signature: bytes) -> bool:
        """Whether one of them made this signature of the text. All are tried, whichever fits."""
        fits = False
        for keyed in self._keyed:
            fits |= hmac.compare_digest(keyed.hexdigest(text), signature)
        return fits


class Repeated:
    """A request as one client sends it again and again: only its date and its signature are new each time.

    All else has been read, and put into the canonical form, by the first of them; whoever uses this compares each byte
    of the rest. For the form that has nothing but an AK; others say their date twice.
    """

    __slots__ = ("_after", "_before", "_prefix", "ak")

    def __init__(self, ak: str, prefix: bytes, before: bytes, after: bytes) -> None:
        self.ak = ak
        self._prefix = _shared(prefix)
        self._before = before
        self._after = _shared(after)

    @classmethod
    def of(cls, request: WireRequest, authorization: bytes) -> Repeated | None:
        """None for a request of another form. Its signature is not looked at. Raises SignatureError."""
        claim = parse_authorization(authorization.decode("latin-1"))
        prefix, name, signature = authorization.rpartition(b"Signature=")
        sent = dict(request.headers)
        if claim.algorithm != SDK or claim.scope or not name or signature != claim.signature.encode():
            return None
        if len(sent) != len(request.headers) or _CONTENT_HEADER in sent:
            return None
        # No header that came over the wire has a zero byte.
        canonical = _canonical(request, claim.signed_headers, (sent | {_DATE_HEADER: b"\0"}).get).split(b"\0")
        if len(canonical) != 2:  # noqa: PLR2004  (before the date, and behind it)
            return None
        return cls(claim.ak, prefix + name, *canonical)

    def verify(self, authorization: bytes, date: bytes, secrets: Secrets, now: datetime) -> None:
        """As `verify` does for the whole request. Raises SignatureError."""
        if not authorization.startswith(self._prefix):
            raise SignatureError("another form of Authorization")
        at = _time_of(date.decode("latin-1")) if len(date) == _DATE_CHARS else None
        if at is None or abs(now - at) > SKEW_ALLOWED:
            raise SignatureError("X-Sdk-Date is not near the server's clock")
        request = _SHA256.copy()
        request.update(b"%b%b%b" % (self._before, date, self._after))
        text = b"SDK-HMAC-SHA256\n%b\n%b" % (date, request.hexdigest().encode())
        if not secrets.fit(text, authorization[len(self._prefix) :]):
            raise SignatureError("the signature does not match")


def sign(
    method: str,
    url: str,
    *,
    ak: str,
    sk: str,
    now: datetime,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> dict[str, str]:
    """`headers` and the three that make the request a signed one: Host, X-Sdk-Date and Authorization.

    `url` is absolute and percent-encoded; send exactly it and `body`.
    """
    parts = urlsplit(url)
    date = now.astimezone(UTC).strftime(DATE_FORMAT)
    out = {**(headers or {}), "Host": parts.netloc, "X-Sdk-Date": date}
    wire = tuple((name.lower().encode(), value.encode()) for name, value in out.items())
    request = WireRequest(method, parts.path.encode() or b"/", parts.query.encode(), wire, body)
    signed = tuple(sorted(name.lower() for name in out))
    claim = Claim(SDK, ak, "", signed, "")
    signature = _signature(canonical_request(request, signed), claim, sk, date)
    out["Authorization"] = f"{SDK} Access={ak}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    return out


def _date_of(raw: bytes | None, now: datetime) -> str:
    text = raw.strip().decode("latin-1") if raw is not None else ""
    at = _time_of(text) if len(text) == _DATE_CHARS else None
    if at is None:
        raise SignatureError("X-Sdk-Date must look like 20230105T022339Z")
    if abs(now - at) > SKEW_ALLOWED:
        raise SignatureError("X-Sdk-Date is more than 15 minutes away from the server's clock")
    return text


@lru_cache(_KEPT)
def _shared(piece: bytes) -> bytes:
    """One object for all that have the same: what all use is in the processor's cache."""
    return piece


@lru_cache(_KEPT)
def _time_of(date: str) -> datetime | None:
    try:
        # strptime alone would also take one digit where two belong.
        return datetime.strptime(date if _DATE.fullmatch(date) else "", DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:  # a 30th of February
        return None


def _check_content_header(stated: bytes | None, body: bytes) -> None:
    """A stated body digest must be the body's: `UNSIGNED-PAYLOAD` would leave the body open to change."""
    if stated is not None and stated.strip().lower() != _sha256(body):
        raise SignatureError("X-Sdk-Content-Sha256 must be the digest of the body; UNSIGNED-PAYLOAD is not accepted")


def _signature(canonical: bytes, claim: Claim, sk: str, date: str) -> str:
    lines = [claim.algorithm, date]
    if claim.scope:
        lines.append(claim.scope)
    lines.append(hashlib.sha256(canonical).hexdigest())
    return _hmac(_signing_key(claim, sk), "\n".join(lines).encode()).hex()


def _signing_key(claim: Claim, sk: str) -> bytes:
    if claim.algorithm == V11:
        # HKDF (RFC 5869) with the AK as salt and the scope as info; one block is enough for 32 bytes.
        extracted = _hmac(claim.ak.encode(), sk.encode())
        return _hmac(extracted, claim.scope.encode() + b"\x01").hex().encode()
    if not claim.scope:
        return sk.encode()
    key = b"SDK" + sk.encode()
    for part in claim.scope.split("/"):
        key = _hmac(key, part.encode())
    return key


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _encode(data: bytes) -> str:
    return quote(data, safe="-_.~")
