"""Reading engine archives (zip, tar, tar.gz) that others made: nothing in one may write outside its own folder."""

from __future__ import annotations

import hashlib
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from shardlift.errors import DriverError, UsageError
from shardlift.model import EngineKind, Version

_CORE_JAR = re.compile(r"(?:^|/)lib/(opensearch|elasticsearch)-core-(\d+\.\d+\.\d+)[^/]*\.jar$")
_UNPACKED_MAX_BYTES = 8 * 1024**3
_ENTRIES_MAX = 100_000
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Entry:
    """One member. `link` is the target of a symbolic link; `raw` is the library's own handle of it."""

    name: str
    mode: int
    size_bytes: int
    is_dir: bool
    link: str | None
    raw: zipfile.ZipInfo | tarfile.TarInfo


class _Opened:
    """An opened archive, zip or tar alike."""

    def __init__(self, source: zipfile.ZipFile | tarfile.TarFile) -> None:
        self._source = source

    def entries(self) -> Iterator[_Entry]:
        if isinstance(self._source, zipfile.ZipFile):
            for info in self._source.infolist():
                mode = info.external_attr >> 16
                link = self._source.read(info).decode() if stat.S_ISLNK(mode) else None
                yield _Entry(info.filename, mode, info.file_size, info.is_dir(), link, info)
            return
        for member in self._source:
            if not (member.isfile() or member.isdir() or member.issym()):
                raise ValueError(f"{member.name!r} is neither a file, a folder nor a symbolic link")
            link = member.linkname if member.issym() else None
            yield _Entry(member.name, member.mode, member.size, member.isdir(), link, member)

    def open(self, entry: _Entry) -> IO[bytes]:
        if isinstance(self._source, zipfile.ZipFile):
            assert isinstance(entry.raw, zipfile.ZipInfo)
            return self._source.open(entry.raw)
        assert isinstance(entry.raw, tarfile.TarInfo)
        content = self._source.extractfile(entry.raw)
        assert content is not None
        return content


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    """Opens the archive. Raises DriverError that names the file when it is damaged or hostile."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as source:
                yield _Opened(source)
        else:
            with tarfile.open(path) as tar:
                yield _Opened(tar)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise DriverError(
            f"{path} is not a usable engine archive: {error}",
            remedy="use the unchanged .zip or .tar.gz of an OpenSearch or Elasticsearch release",
        ) from None


def read_release(path: Path) -> tuple[EngineKind, Version]:
    """Engine and version of an archive, told by the name of its core jar. Raises UsageError when it has none."""
    with _opened(path) as archive:
        for entry in archive.entries():
            match = _CORE_JAR.search(entry.name)
            if match is not None:
                return EngineKind(match[1]), Version.parse(match[2])
    raise UsageError(
        f"{path} holds no OpenSearch or Elasticsearch: there is no lib/*-core-<version>.jar in it",
        field="file",
        value=str(path),
        remedy="use the unchanged .zip or .tar.gz of a release",
    )


def digest(path: Path) -> str:
    """sha256 of a file, lower-case hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def unpacked_bytes(path: Path) -> int:
    """What the files of the archive take once unpacked, bytes. Raises DriverError when that is out of all reason."""
    total = 0
    with _opened(path) as archive:
        for count, entry in enumerate(archive.entries()):
            total += entry.size_bytes
            if total > _UNPACKED_MAX_BYTES or count > _ENTRIES_MAX:
                raise ValueError(f"it unpacks to more than {_UNPACKED_MAX_BYTES} bytes or {_ENTRIES_MAX} files")
    return total


def unpack(path: Path, into: Path) -> None:
    """Unpacks into the new folder `into`, without the archive's single top folder.

    Every file can be read, and every executable run, by all users: nodes run as another user. A member whose path or
    link leads outside stops the whole; the caller throws the folder away then.
    """
    with _opened(path) as archive:
        entries = list(archive.entries())
        strip = _common_top(entries)
        open_folder(into)
        for entry in entries:
            parts = _safe_parts(entry.name)[strip:]
            if parts:
                _write(archive, entry, into, parts)


def open_folder(path: Path) -> None:
    """Makes the folder, and those above it that are missing, so that every user can enter, whatever the umask."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)


def _common_top(entries: list[_Entry]) -> int:
    """1 when all members live in one top folder, else 0."""
    tops = {parts[0] for entry in entries if (parts := _safe_parts(entry.name))}
    return 1 if len(tops) == 1 and "lib" not in tops else 0


def _safe_parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"member {name!r} leads outside the archive")
    return path.parts


def _write(archive: _Opened, entry: _Entry, into: Path, parts: tuple[str, ...]) -> None:
    target = into.joinpath(*parts)
    # A link among the parents could lead a later member outside; links are made only inside, but stay out anyway.
    if any(parent.is_symlink() for parent in list(target.parents)[: len(parts) - 1]):
        raise ValueError(f"member {entry.name!r} goes through a symbolic link")
    if entry.is_dir:
        open_folder(target)
        return
    open_folder(target.parent)
    if entry.link is not None:
        inside = (target.parent / entry.link).resolve()
        if PurePosixPath(entry.link).is_absolute() or not inside.is_relative_to(into.resolve()):
            raise ValueError(f"link {entry.name!r} leads outside the archive")
        target.symlink_to(entry.link)
        return
    with archive.open(entry) as source, target.open("xb") as sink:
        while block := source.read(_BLOCK_BYTES):
            sink.write(block)
    target.chmod(0o755 if entry.mode & 0o111 else 0o644)
