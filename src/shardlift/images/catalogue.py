"""Which engine releases there are: those shipped in catalogue.toml, and those that users added."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

from filelock import FileLock, Timeout

from shardlift.errors import BusyError, DriverError, NotFoundError, UsageError
from shardlift.images.archive import digest, read_release
from shardlift.model import EngineKind, Image, Version

_NAMESPACE = uuid.UUID("6f0d6a3e-3a0f-5d6b-9a55-6a0c4f0f7c11")
_LOCK_TIMEOUT_S = 30
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COORDINATES = re.compile(r"[\w.-]+:[\w.-]+:[\w.-]+:(zip|tar\.gz)")
_ADDED_PRIORITY = 1000
_Stamp = tuple[int, int, int] | None

# (engine, from this version on, Java from, Java to): the last line that fits counts. The upper ends are what was run.
_JAVA_RANGES: tuple[tuple[EngineKind, Version, int, int], ...] = (
    (EngineKind.ELASTICSEARCH, Version(0, 0, 0), 8, 17),
    (EngineKind.ELASTICSEARCH, Version(7, 17, 0), 8, 21),
    (EngineKind.ELASTICSEARCH, Version(8, 0, 0), 17, 21),
    (EngineKind.ELASTICSEARCH, Version(9, 0, 0), 21, 25),
    (EngineKind.OPENSEARCH, Version(0, 0, 0), 8, 21),
    (EngineKind.OPENSEARCH, Version(2, 0, 0), 11, 21),
    (EngineKind.OPENSEARCH, Version(3, 0, 0), 21, 25),
)


def java_range(engine: EngineKind, version: Version) -> tuple[int, int]:
    """The Java feature releases, inclusive, that this release of the engine runs on."""
    fitting = [(low, high) for kind, since, low, high in _JAVA_RANGES if kind is engine and version >= since]
    return fitting[-1]


class Catalogue:
    """All images by priority, highest first. Each call sees what other processes have added until then."""

    def __init__(self, images_path: Path) -> None:
        self._added_path = images_path / "added.toml"
        self._added_file = str(self._added_path)
        shipped = resources.files("shardlift.images").joinpath("catalogue.toml").read_text("utf-8")
        self._shipped = _parse(shipped, "the shipped catalogue")
        self._known: tuple[_Stamp, tuple[Image, ...]] | None = None

    def all(self) -> tuple[Image, ...]:
        """Shipped and added images, by falling priority; an added one takes the place of a shipped one of its id."""
        stamp = self._stamp()  # before the reading: what is added in between is found by the next call
        if self._known is None or self._known[0] != stamp:
            images = {image.id: image for image in (*self._shipped, *self._added())}
            self._known = (stamp, tuple(sorted(images.values(), key=lambda image: -image.priority)))
        return self._known[1]

    def _stamp(self) -> _Stamp:
        """What is another one after each writing: it puts a new file in the place of the old one."""
        try:
            seen = os.stat(self._added_file)  # noqa: PTH116  (asked at each poll: a Path takes three times as long)
        except FileNotFoundError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def find(self, ref: str) -> Image:
        """The image of this id, display name or `engine:version`. Raises NotFoundError that names near ones."""
        images = self.all()
        for image in images:
            if ref in (image.id, image.display_name, image.reference):
                return image
        names = sorted({image.reference for image in images})
        near = difflib.get_close_matches(ref, names, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise NotFoundError(
            f"there is no image {ref!r}",
            field="image",
            value=ref,
            remedy=f"{hint}`shardlift image list` shows all images",
        )

    def add(self, file: Path, *, description: str | None = None, priority: int = _ADDED_PRIORITY) -> Image:
        """Adds a local archive, or the image that a TOML file describes. Adding the same again changes nothing.

        A TOML file has one of `path`, `url` and `coordinates`. With `path`, the rest is read from the archive; else
        `engine`, `version` and `sha256` are needed. Raises UsageError on an unusable file.
        """
        if not file.is_file():
            raise UsageError(
                f"there is no file {file}",
                field="file",
                value=str(file),
                remedy="name an engine archive (.zip, .tar.gz) or a .toml file that describes one",
            )
        image = _described(file, priority) if file.suffix == ".toml" else _from_archive(file, description, priority)
        image = self._as_shipped(image)
        self._added_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(f"{self._added_path}.lock", timeout=_LOCK_TIMEOUT_S):
                others = [known for known in self._added() if known.id != image.id]
                _write_atomically(self._added_path, "\n".join(_as_toml(entry) for entry in [*others, image]))
        except Timeout:
            raise BusyError(f"another process has held {self._added_path}.lock for {_LOCK_TIMEOUT_S} s") from None
        return image

    def _as_shipped(self, image: Image) -> Image:
        """The very archive of a shipped image is that image, only from another place: how to pull without a network."""
        twin = next((shipped for shipped in self._shipped if shipped.sha256 == image.sha256), None)
        if twin is None:
            return image
        return replace(twin, coordinates=image.coordinates, path=image.path, url=image.url)

    def _added(self) -> tuple[Image, ...]:
        try:
            text = self._added_path.read_text("utf-8")
        except FileNotFoundError:
            return ()
        return _parse(text, str(self._added_path))


def _from_archive(file: Path, description: str | None, priority: int) -> Image:
    engine, version = read_release(file)
    java_min, java_max = java_range(engine, version)
    sha256 = digest(file)
    return Image(
        id=_added_id(engine, version, sha256),
        display_name=f"{version}_local_{sha256[:4]}",
        description=description or f"{engine} {version} from {file.name}",
        engine=engine,
        version=version,
        sha256=sha256,
        size_bytes=file.stat().st_size,
        java_min=java_min,
        java_max=java_max,
        priority=priority,
        path=str(file.resolve()),
    )


def _described(file: Path, priority: int) -> Image:
    try:
        table: dict[str, object] = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not TOML: {error}", field="file", value=str(file)) from None
    table.setdefault("priority", priority)
    where = table.get("path")
    if isinstance(where, str):
        archive = file.parent / where
        if not archive.is_file():
            raise UsageError(f"{file} names an archive {archive} that is not there", field="path", value=where)
        found = _from_archive(archive, None, priority)
        wanted = table.get("sha256", found.sha256)
        if wanted != found.sha256:
            raise UsageError(
                f"{archive} has the sha256 {found.sha256}, but {file} says {wanted}", field="sha256", value=wanted
            )
        table = _as_table(found) | table | {"path": found.path}
    for field in ("engine", "version", "sha256"):
        if not isinstance(table.get(field), str):
            raise UsageError(
                f"{file} lacks `{field}`", field=field, remedy="give engine, version, sha256 and one of path, url"
            )
    engine, version = _release(table, str(file))
    low, high = java_range(engine, version)
    sha256 = str(table["sha256"])
    defaults: dict[str, object] = {
        "id": _added_id(engine, version, sha256),
        "display_name": f"{version}_local_{sha256[:4]}",
        "description": f"{engine} {version} from {file.name}",
        "size_bytes": 0,
        "java_min": low,
        "java_max": high,
    }
    return _image(defaults | table, str(file))


def _added_id(engine: EngineKind, version: Version, sha256: str) -> str:
    # The digest is part of it: the same release built differently is another image, and an engine folder never changes.
    return str(uuid.uuid5(_NAMESPACE, f"{engine}:{version}:{sha256}"))


def _parse(text: str, source: str) -> tuple[Image, ...]:
    try:
        tables = tomllib.loads(text).get("image", [])
    except tomllib.TOMLDecodeError as error:
        raise DriverError(f"{source} is damaged: {error}", remedy="repair it, or remove it and add again") from None
    return tuple(_image(table, source) for table in tables)


def _release(table: Mapping[str, object], source: str) -> tuple[EngineKind, Version]:
    try:
        return EngineKind(str(table["engine"])), Version.parse(str(table["version"]))
    except ValueError as error:
        raise UsageError(f"{source}: {error}", field="engine, version") from None


def _image(table: Mapping[str, object], source: str) -> Image:
    """One image from its table. Raises UsageError that names the field at fault."""

    def text(field: str) -> str:
        value = table.get(field)
        if not isinstance(value, str) or not value:
            raise UsageError(f"{source}: `{field}` must be a text", field=field, value=value)
        return value

    def number(field: str) -> int:
        value = table.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"{source}: `{field}` must be a whole number, 0 or more", field=field, value=value)
        return value

    places = {name: text(name) for name in ("coordinates", "path", "url") if table.get(name) is not None}
    if len(places) != 1:
        raise UsageError(f"{source}: exactly one of `coordinates`, `path`, `url` must be given", field="path")
    if not _SHA256.fullmatch(text("sha256")):
        raise UsageError(f"{source}: `sha256` must be 64 hex digits", field="sha256", value=table["sha256"])
    if "coordinates" in places and not _COORDINATES.fullmatch(places["coordinates"]):
        raise UsageError(
            f"{source}: `coordinates` must be group:artifact:version:zip",
            field="coordinates",
            value=places["coordinates"],
        )
    if "url" in places and not places["url"].startswith(("https://", "http://")):
        raise UsageError(f"{source}: `url` must begin with http:// or https://", field="url", value=places["url"])
    engine, version = _release(table, source)
    return Image(
        id=text("id"),
        display_name=text("display_name"),
        description=text("description"),
        engine=engine,
        version=version,
        sha256=text("sha256"),
        size_bytes=number("size_bytes"),
        java_min=number("java_min"),
        java_max=number("java_max"),
        priority=number("priority"),
        coordinates=places.get("coordinates"),
        path=places.get("path"),
        url=places.get("url"),
        java_module=None if table.get("java_module") is None else text("java_module"),
    )


def _as_table(image: Image) -> dict[str, object]:
    fields = {name: getattr(image, name) for name in Image.__slots__}
    plain = {
        name: value if isinstance(value, int) else str(value) for name, value in fields.items() if value is not None
    }
    return dict(plain)


def _as_toml(image: Image) -> str:
    # A JSON string or number is a valid TOML value as well, once DEL is escaped, which json leaves as it is.
    lines = (f"{name} = {json.dumps(value)}".replace("\x7f", "\\u007f") for name, value in _as_table(image).items())
    return "[[image]]\n" + "\n".join(lines) + "\n"


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(sink.fileno())
    temporary.replace(path)
