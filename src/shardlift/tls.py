"""TLS from certificate files: the files are looked at before a server listens, and what is wrong is told in words."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificatePublicKeyTypes,
    PrivateKeyTypes,
    PublicKeyTypes,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from shardlift.errors import UsageError
from shardlift.settings import Settings

_CERT = "SHARDLIFT_TLS_CERT_FILE"
_KEY = "SHARDLIFT_TLS_KEY_FILE"
_CA = "SHARDLIFT_TLS_CA_FILE"
_SOON = timedelta(days=14)
_ANY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  (looked for, not listened on)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's certificate with its chain, and its private key, both PEM."""

    cert: Path
    key: Path


def server_files(settings: Settings) -> TlsFiles | None:
    """The two files; None for plain HTTP. Raises UsageError when only one is given."""
    given = {_CERT: settings.tls_cert_file, _KEY: settings.tls_key_file}
    if not any(given.values()):
        return None
    for name, value in given.items():
        if not value:
            raise UsageError(
                "a certificate and its private key go together, and only one of them is given",
                field=name,
                value=value,
                remedy=f"set {name} as well, or neither",
            )
    return TlsFiles(Path(settings.tls_cert_file), Path(settings.tls_key_file))


def check_files(files: TlsFiles, host: str, now: datetime) -> tuple[str, ...]:
    """What is doubtful about them, in words. Raises UsageError when no server can use them."""
    cert = _certificate(files.cert)
    key = _private_key(files.key)
    if _public(cert.public_key()) != _public(key.public_key()):
        raise UsageError(
            f"the private key in {files.key} is not that of the certificate in {files.cert}",
            field=_KEY,
            value=str(files.key),
            remedy="name the key that the certificate was made for; the server's certificate comes first in its file",
        )
    doubts = []
    if now > cert.not_valid_after_utc:
        doubts.append(
            f"the certificate expired at {cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: clients will refuse it"
        )
    elif now > cert.not_valid_after_utc - _SOON:
        doubts.append(f"the certificate expires at {cert.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now < cert.not_valid_before_utc:
        doubts.append(f"the certificate is not valid before {cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    if host not in _ANY_ADDRESS and not _covers(cert, host):
        doubts.append(f"the certificate does not name {host}: clients that call this address will refuse it")
    if stat.S_IMODE(files.key.stat().st_mode) & 0o007:
        doubts.append(f"everybody on this machine can read the private key: chmod 600 {files.key}")
    return tuple(doubts)


def reload(context: ssl.SSLContext, files: TlsFiles, host: str, now: datetime) -> tuple[str, ...]:
    """Takes renewed files into use for new connections; open ones go on. As `check_files`; an error changes nothing."""
    doubts = check_files(files, host, now)
    context.load_cert_chain(files.cert, files.key)
    return doubts


def client_context(settings: Settings) -> ssl.SSLContext:
    """What our own clients verify servers with: the system's authorities, and that of SHARDLIFT_TLS_CA_FILE."""
    context = ssl.create_default_context()
    if settings.tls_ca_file:
        path = Path(settings.tls_ca_file)
        _certificate(path, _CA)
        context.load_verify_locations(path)
    return context


def _certificate(path: Path, field: str = _CERT) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_read(path, field))[0]
    except (ValueError, IndexError):
        raise UsageError(
            f"{path} holds no PEM certificate",
            field=field,
            value=str(path),
            remedy="give a file with -----BEGIN CERTIFICATE-----",
        ) from None


def _private_key(path: Path) -> PrivateKeyTypes:
    data = _read(path, _KEY)
    try:
        return load_pem_private_key(data, password=None)
    except TypeError:
        raise UsageError(
            f"the private key in {path} is encrypted, and nobody can be asked for its password",
            field=_KEY,
            value=str(path),
            remedy=f"openssl pkey -in {path} -out plain.pem, chmod 600 plain.pem, and name that file",
        ) from None
    except ValueError:
        raise UsageError(
            f"{path} holds no PEM private key",
            field=_KEY,
            value=str(path),
            remedy="give a file with -----BEGIN PRIVATE KEY-----",
        ) from None


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            field=field,
            value=str(path),
            remedy="name a file that the user of `shardlift serve` may read",
        ) from None


def _public(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _covers(cert: x509.Certificate, host: str) -> bool:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        patterns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
        return host.lower() in patterns or f"*.{host.lower().partition('.')[2]}" in patterns
