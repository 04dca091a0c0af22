"""TLS: real handshakes with a real server, and every way in which its files can be wrong."""

from __future__ import annotations

import signal
import ssl
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from shardlift import serve
from shardlift.errors import UsageError
from shardlift.settings import Settings
from shardlift.tls import TlsFiles, check_files, client_context
from tests.unit.test_serve import serving

pytestmark = pytest.mark.walks

NOW = datetime.now(UTC)


@dataclass
class Authority:
    """Signs certificates for 127.0.0.1 and `*.example.org`."""

    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        cert = self._builder(self.name, self.key, NOW + timedelta(days=365))
        cert = cert.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.file = self.folder / "ca.pem"
        self.file.write_bytes(cert.sign(self.key, SHA256()).public_bytes(Encoding.PEM))

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(NOW, until) - timedelta(days=1))
            .not_valid_after(until)
        )

    def issue(
        self, prefix: str = "server", until: datetime = NOW + timedelta(days=90), password: bytes = b""
    ) -> TlsFiles:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, prefix)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("*.example.org")])
        cert = self._builder(name, key, until).add_extension(names, critical=False).sign(self.key, SHA256())
        files = TlsFiles(self.folder / f"{prefix}.pem", self.folder / f"{prefix}.key")
        files.cert.write_bytes(cert.public_bytes(Encoding.PEM))
        how = BestAvailableEncryption(password) if password else NoEncryption()
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
        files.key.chmod(0o600)
        return files


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serial(context: ssl.SSLContext, url: str) -> int:
    """Of the certificate that the server shows in a new handshake."""
    with httpx.Client(verify=context) as client, client.stream("GET", f"{url}/docs") as answer:
        assert answer.status_code == 200
        shown = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert(True)
        return x509.load_der_x509_certificate(shown).serial_number


def test_a_server_speaks_tls_and_takes_renewed_files(
    fast_home: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.issue()
    monkeypatch.setenv("SHARDLIFT_TLS_CERT_FILE", str(files.cert))
    monkeypatch.setenv("SHARDLIFT_TLS_KEY_FILE", str(files.key))
    ours = client_context(Settings(home=fast_home, tls_ca_file=str(authority.file)))
    with serving(fast_home) as (process, told):
        url = told["url"]
        assert url.startswith("https://127.0.0.1:")
        profile = tomllib.loads((fast_home / "credentials.toml").read_text())["default"]
        assert profile["url"] == url
        listed = httpx.get(
            f"{url}/v1.0/{profile['project_id']}/clusters", headers={"X-Auth-Token": profile["token"]}, verify=ours
        )
        assert listed.json() == {"totalSize": 0, "clusters": []}
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/docs", verify=client_context(Settings(home=fast_home)))
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))
        before = serial(ours, url)
        assert process.stderr is not None

        def renew() -> str:
            process.send_signal(signal.SIGHUP)
            return next(line for line in process.stderr if "certificate_" in line)  # type: ignore[union-attr]

        authority.issue()
        assert "certificate_renewed" in renew()
        renewed = serial(ours, url)
        assert renewed != before
        files.key.write_text("no key")
        assert "certificate_not_renewed" in renew()
        assert serial(ours, url) == renewed


@pytest.mark.parametrize(
    ("how", "field", "words"),
    [
        ("no key given", "SHARDLIFT_TLS_KEY_FILE", "only one of them"),
        ("no cert given", "SHARDLIFT_TLS_CERT_FILE", "only one of them"),
        ("cert missing", "SHARDLIFT_TLS_CERT_FILE", "cannot be read: No such file"),
        ("key missing", "SHARDLIFT_TLS_KEY_FILE", "cannot be read: No such file"),
        ("cert is a folder", "SHARDLIFT_TLS_CERT_FILE", "cannot be read: Is a directory"),
        ("cert is none", "SHARDLIFT_TLS_CERT_FILE", "no PEM certificate"),
        ("key is none", "SHARDLIFT_TLS_KEY_FILE", "no PEM private key"),
        ("key encrypted", "SHARDLIFT_TLS_KEY_FILE", "is encrypted"),
        ("key of another", "SHARDLIFT_TLS_KEY_FILE", "is not that of the certificate"),
    ],
)
def test_wrong_files_end_the_start_with_words(
    fast_home: Path, authority: Authority, how: str, field: str, words: str
) -> None:
    files = authority.issue(password=b"secret" if how == "key encrypted" else b"")
    cert, key = str(files.cert), str(files.key)
    match how:
        case "no key given":
            key = ""
        case "no cert given":
            cert = ""
        case "cert missing":
            files.cert.unlink()
        case "key missing":
            files.key.unlink()
        case "cert is a folder":
            cert = str(authority.folder)
        case "cert is none":
            files.cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        case "key is none":
            files.key.write_text("no key")
        case "key of another":
            key = str(authority.issue("other").key)
    with pytest.raises(UsageError, match=words) as told:
        serve.run(Settings(home=fast_home, port=0, tls_cert_file=cert, tls_key_file=key))
    assert told.value.field == field
    assert told.value.remedy
    assert not (fast_home / "shardlift.db").exists(), "it is told before anything else is done"


def test_what_is_only_doubtful_is_a_warning(authority: Authority) -> None:
    assert check_files(authority.issue(), "127.0.0.1", NOW) == ()
    assert check_files(authority.issue(), "0.0.0.0", NOW) == ()
    assert check_files(authority.issue(), "css.example.org", NOW) == ()
    for host in ("127.0.0.2", "example.com", "a.css.example.org"):
        assert "does not name" in check_files(authority.issue(), host, NOW)[0]
    assert "expired at" in check_files(authority.issue(until=NOW - timedelta(days=1)), "127.0.0.1", NOW)[0]
    assert "expires at" in check_files(authority.issue(until=NOW + timedelta(days=5)), "127.0.0.1", NOW)[0]
    assert "not valid before" in check_files(authority.issue(), "127.0.0.1", NOW - timedelta(days=2))[0]
    files = authority.issue()
    files.key.chmod(0o644)
    assert "can read the private key" in check_files(files, "127.0.0.1", NOW)[0]


def test_an_authority_that_cannot_be_read_is_named(fast_home: Path) -> None:
    with pytest.raises(UsageError) as told:
        client_context(Settings(home=fast_home, tls_ca_file=str(fast_home / "none.pem")))
    assert told.value.field == "SHARDLIFT_TLS_CA_FILE"
