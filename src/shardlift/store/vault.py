"""Secrets at rest: what must be read again is encrypted (AES-256-GCM) under a master key that is not in the database.

A sealed text is `v1.KEYID.BASE64(nonce + ciphertext)`. The associated data names the row that the secret belongs to, so
a sealed text that is copied into another row does not open there. A key's id is a digest of the key, so a file with a
wrong key is noticed before anything is tried.

The file may hold several keys, one a line: the first encrypts, the others only decrypt. That is what makes a rotation
safe to interrupt at any point: the old key leaves the file when no secret needs it any more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock, Timeout

from shardlift.errors import BusyError, ShardliftError, UsageError

_PREFIX = "v1."
_KEY_BYTES = 32
_NONCE_BYTES = 12
_LOCK_TIMEOUT_S = 10
_KEYS_MAX = 16
_LINE = re.compile(r"[A-Za-z0-9+/]{43}=")
_HEADER = (
    "# Shardlift master keys, base64. The first one encrypts, the others only decrypt.\n"
    "# Without this file no signature can be checked: keep a copy apart from the database's.\n"
)


class VaultError(ShardliftError):
    """The master key is missing, not ours, or does not open what the database holds."""

    code = "master_key"
    exit_code = 2


class Vault:
    """Seals and opens secrets with the keys of one file. Nothing is read before the first use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: dict[str, AESGCM] = {}
        self._first = ""
        self._seen: tuple[int, int, int] | None = None

    def prepare(self, needed: frozenset[str] = frozenset()) -> str:
        """The id of the key that encrypts. Makes the file when there is none and nothing needs an older one.

        `needed` are ids of keys that existing secrets are sealed with. Raises VaultError when one of them is missing.
        """
        if not self.path.exists():
            if needed:
                raise VaultError(
                    f"the master key {self.path} is missing, and the secrets in the database are encrypted with it",
                    field="SHARDLIFT_MASTER_KEY_FILE",
                    value=str(self.path),
                    remedy="put the file back from your copy, or name it in SHARDLIFT_MASTER_KEY_FILE; if it is lost, "
                    "see docs/security.md, `A lost master key`",
                )
            if not self.path.parent.is_dir():
                raise self._unwritable("its folder is not there")
            with self.lock():
                if not self.path.exists():
                    self._write([AESGCM.generate_key(bit_length=_KEY_BYTES * 8)])
        self._load()
        missing = sorted(needed - self._keys.keys())
        if missing:
            raise VaultError(
                f"{self.path} does not have the master key {missing[0]}, with which the database encrypts secrets",
                field="SHARDLIFT_MASTER_KEY_FILE",
                value=str(self.path),
                remedy="use the file that belongs to this home; a home and its master key are copied together",
            )
        return self._first

    def key_ids(self) -> tuple[str, ...]:
        """Ids of the file's keys, the one that encrypts first."""
        self._load()
        return tuple(self._keys)

    def seal(self, secret: str, row: str) -> str:
        """Encrypts with the newest key of the file as it is now. `row` says what the secret belongs to."""
        self._load()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._keys[self._first].encrypt(nonce, secret.encode(), row.encode())
        return f"{_PREFIX}{self._first}.{base64.b64encode(sealed).decode()}"

    def open(self, sealed: str, row: str) -> str:
        """What `seal` was given. Raises VaultError when the key is not there, or text or row are others."""
        key_id = key_id_of(sealed)
        if key_id is None:
            raise VaultError(f"the secret of {row} is not encrypted", remedy="start `shardlift serve` once")
        if key_id not in self._keys:
            self._load()  # another process may have rotated the master key since
        key = self._keys.get(key_id)
        if key is None:
            raise VaultError(
                f"{self.path} does not have the master key {key_id}", remedy="use the file that belongs to this home"
            )
        try:
            raw = base64.b64decode(sealed.rpartition(".")[2], validate=True)
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], row.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError):
            raise VaultError(
                f"the secret of {row} was changed in the database: it does not open with the key it was encrypted with",
                remedy="revoke that key and create another one",
            ) from None

    def begin_rotation(self) -> tuple[str, str]:
        """A new key in front of those that are there. (old id, new id). Hold `lock` until `end_rotation`.

        Between the two everything must be sealed anew. Interrupted there, all secrets still open, and a later rotation
        finishes the work.
        """
        before = self._read()
        new = AESGCM.generate_key(bit_length=_KEY_BYTES * 8)
        self._write([new, *before][:_KEYS_MAX])
        self._load()
        return _id_of(before[0]), _id_of(new)

    def end_rotation(self) -> None:
        """The old keys leave the file: nothing is sealed with them any more."""
        self._write(self._read()[:1])
        self._load()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """One process at a time changes the file."""
        lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise BusyError(
                f"another process has been changing {self.path} for {_LOCK_TIMEOUT_S} s", remedy="wait for it to end"
            ) from None
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from None
        try:
            yield
        finally:
            lock.release()

    def _load(self) -> None:
        """Reads the file if it is another one than last time."""
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen == self._seen:
            return
        if stat.S_IMODE(found.st_mode) & 0o027:
            raise VaultError(
                f"others than its owner can read or change the master key {self.path}",
                field="SHARDLIFT_MASTER_KEY_FILE",
                value=str(self.path),
                remedy=f"chmod 600 {self.path}; if somebody may have read it, `shardlift masterkey rotate` as well",
            )
        keys = self._read()
        self._keys = {_id_of(key): AESGCM(key) for key in keys}
        self._first = _id_of(keys[0])
        self._seen = seen

    def _read(self) -> list[bytes]:
        try:
            text = self.path.read_text("ascii")
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        except ValueError:
            raise self._unusable("it is not text") from None
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if not 0 < len(lines) <= _KEYS_MAX or not all(_LINE.fullmatch(line) for line in lines):
            raise self._unusable("it does not hold lines of 32 bytes in base64")
        return [base64.b64decode(line) for line in lines]

    def _write(self, keys: list[bytes]) -> None:
        """Atomically, readable by the owner alone from the first byte on, and on the disk before it counts."""
        text = _HEADER + "".join(base64.b64encode(key).decode() + "\n" for key in keys)
        new = self.path.with_name(self.path.name + ".new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritable(error.strerror or str(error)) from None

    def _unwritable(self, why: str) -> UsageError:
        return UsageError(
            f"the master key {self.path} cannot be written: {why}",
            field="SHARDLIFT_MASTER_KEY_FILE",
            value=str(self.path),
            remedy="name a file in a folder that you may write to",
        )

    def _unusable(self, why: str) -> VaultError:
        return VaultError(
            f"the master key {self.path} cannot be used: {why}",
            field="SHARDLIFT_MASTER_KEY_FILE",
            value=str(self.path),
            remedy="put the file back from your copy, and see docs/security.md",
        )


def key_id_of(sealed: str) -> str | None:
    """Which master key a stored text was sealed with; None for one that is not sealed."""
    parts = sealed.split(".")
    return parts[1] if sealed.startswith(_PREFIX) and len(parts) == 3 else None  # noqa: PLR2004


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"shardlift master key id\0" + key).hexdigest()[:16]
